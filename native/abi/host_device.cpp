// Memory, streams and graphs of the backends whose device is this machine's processor.
#include "host_device.h"

#include <cstdlib>
#include <cstring>
#include <new>

#if defined(_WIN32)
#if !defined(NOMINMAX)
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#endif

namespace sl {
namespace {

constexpr std::align_val_t kAlignment{256};

}  // namespace

void host_memory(uint64_t& total, uint64_t& available) {
  total = available = 0;
#if defined(_WIN32)
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  if (GlobalMemoryStatusEx(&status)) {
    total = status.ullTotalPhys;
    available = status.ullAvailPhys;
  }
#else
  // "Available" counts the page cache, which a mapped model file fills; sysconf's free pages do not.
  if (FILE* file = std::fopen("/proc/meminfo", "r")) {
    char line[128];
    while (std::fgets(line, sizeof line, file) != nullptr) {
      unsigned long long kibibytes;
      if (std::sscanf(line, "MemTotal: %llu", &kibibytes) == 1) total = kibibytes * 1024;
      if (std::sscanf(line, "MemAvailable: %llu", &kibibytes) == 1) available = kibibytes * 1024;
    }
    std::fclose(file);
  }
#if defined(_SC_PHYS_PAGES)
  if (total == 0) {
    const long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
    if (pages > 0 && bytes > 0) total = available = static_cast<uint64_t>(pages) * static_cast<uint64_t>(bytes);
  }
#endif
#endif
}

void* host_allocate(uint64_t bytes) {
  uint64_t total = 0, available = 0;
  host_memory(total, available);
  // Systems that overcommit grant any size and kill the process at its use, so more than is there is refused here.
  const bool fits = bytes <= SIZE_MAX / 2 && (total == 0 || bytes <= available);
  void* data = fits ? ::operator new(static_cast<size_t>(bytes), kAlignment, std::nothrow) : nullptr;
  if (data == nullptr)
    throw error(
        SL_ERR_OUT_OF_MEMORY,
        format("out of memory: wanted %llu bytes, %llu of %llu bytes are free", static_cast<unsigned long long>(bytes),
               static_cast<unsigned long long>(available), static_cast<unsigned long long>(total)));
#if defined(__linux__)
  // Weights are read from end to end each step, pages of keys in any order: with pages of 2 MiB few of the reads wait for an
  // address translation. Asked for, not required: where the system has none, nothing is lost.
  constexpr uintptr_t kHuge = uintptr_t{2} << 20;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + kHuge - 1) / kHuge * kHuge;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + bytes) / kHuge * kHuge;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
  return data;
}

void host_release(void* data) noexcept { ::operator delete(data, kAlignment); }

double host_event::milliseconds_since(event& start) {
  return std::chrono::duration<double, std::milli>(at - static_cast<host_event&>(start).at).count();
}

void* host_stream::allocate(uint64_t bytes, sl_memory) { return host_allocate(bytes); }

void host_stream::release(void* data, uint64_t, sl_memory) noexcept { host_release(data); }

void host_stream::upload(void* target, const void* source, uint64_t bytes) {
  if (!capturing_) {
    std::memcpy(target, source, bytes);
    return;
  }
  // Read now, written at each replay.
  const auto* first = static_cast<const char*>(source);
  capture([target, data = std::vector<char>(first, first + bytes)] { std::memcpy(target, data.data(), data.size()); });
}

void host_stream::download(void* target, const void* source, uint64_t bytes) { copy(target, source, bytes); }

void host_stream::copy(void* target, const void* source, uint64_t bytes) {
  if (!capture([=] { std::memcpy(target, source, bytes); })) std::memcpy(target, source, bytes);
}

void host_stream::fill(void* target, int byte, uint64_t bytes) {
  if (!capture([=] { std::memset(target, byte, bytes); })) std::memset(target, byte, bytes);
}

void host_stream::begin_capture() {
  if (capturing_) throw error(SL_ERR_STATE, "the stream is capturing already");
  capturing_ = std::make_unique<host_graph>();
}

std::unique_ptr<graph> host_stream::end_capture() {
  if (!capturing_) throw error(SL_ERR_STATE, "the stream is not capturing");
  return std::move(capturing_);
}

void host_stream::launch(graph& g) {
  for (const auto& node : static_cast<host_graph&>(g).nodes) node();
}

void host_stream::record(event& e) {
  auto* target = static_cast<host_event*>(&e);
  if (!capture([target] { target->at = std::chrono::steady_clock::now(); }))
    target->at = std::chrono::steady_clock::now();
}

bool host_stream::capture(std::function<void()> node) {
  if (!capturing_) return false;
  capturing_->nodes.push_back(std::move(node));
  return true;
}

}  // namespace sl
