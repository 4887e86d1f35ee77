// Allocations, copies and fills. Fresh memory is all ones (NaN in every float type), so that a forgotten write shows.
#include <cstdlib>
#include <cstring>

#include "executor.h"
#include "runtime_state.h"

namespace simt {

std::map<const char*, allocation>& allocations() {
  static std::map<const char*, allocation> all;
  return all;
}

const std::pair<const char* const, allocation>* allocation_at(const void* p) {
  auto& all = allocations();
  auto it = all.upper_bound(static_cast<const char*>(p));
  if (it == all.begin()) return nullptr;
  --it;
  return static_cast<const char*>(p) < it->first + it->second.bytes ? &*it : nullptr;
}

bounds allocation_of(const void* p) {
  std::lock_guard guard(lock());
  const auto* a = allocation_at(p);
  return a ? bounds{a->first, a->first + a->second.bytes} : bounds{};
}

namespace {

constexpr size_t device_bytes = size_t(8) << 30;
size_t device_used = 0;

cudaError_t allocate(void** out, size_t bytes, bool host) {
  std::lock_guard guard(lock());
  *out = nullptr;
  if (sticky() != cudaSuccess) return report(sticky());
  if (bytes == 0) return cudaSuccess;
  if (!host && bytes > device_bytes - device_used) return report(cudaErrorMemoryAllocation);
  // As many bytes as were asked for, so that AddressSanitizer's red zone begins right after them.
  void* p = nullptr;
  if (posix_memalign(&p, 256, bytes) != 0) return report(cudaErrorMemoryAllocation);
  std::memset(p, 0xff, bytes);
  allocations()[static_cast<char*>(p)] = {bytes, host};
  if (!host) device_used += bytes;
  *out = p;
  return cudaSuccess;
}

cudaError_t release(void* p, bool host) {
  const auto it = allocations().find(static_cast<char*>(p));
  if (it == allocations().end() || it->second.host != host) return report(cudaErrorInvalidValue);
  if (!host) device_used -= it->second.bytes;
  allocations().erase(it);
  std::free(p);
  return cudaSuccess;
}

bool pageable(const void* p) { return allocation_at(p) == nullptr; }

// A copy outside of what is allocated would be a wild write here and an error code on a GPU.
bool in_bounds(const void* p, size_t bytes) {
  const auto* a = allocation_at(p);
  return !a || static_cast<const char*>(p) + bytes <= a->first + a->second.bytes;
}

cudaError_t copy_rows(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                      cudaStream_t stream) {
  std::lock_guard guard(lock());
  if (width == 0 || height == 0) return cudaSuccess;
  if (!to || !from || !in_bounds(to, to_pitch * (height - 1) + width) || !in_bounds(from, from_pitch * (height - 1) + width))
    return report(cudaErrorInvalidValue);
  const auto rows = [=](const void* source, size_t source_pitch) {
    for (size_t y = 0; y < height; y++)
      std::memcpy(static_cast<char*>(to) + y * to_pitch, static_cast<const char*>(source) + y * source_pitch, width);
    return cudaSuccess;
  };
  stream_state* s = resolve(stream);
  if (pageable(from) && alive(s) && !s->capture) {  // CUDA has read pageable memory when the call returns
    auto staged = std::make_shared<std::vector<char>>(width * height);
    for (size_t y = 0; y < height; y++)
      std::memcpy(staged->data() + y * width, static_cast<const char*>(from) + y * from_pitch, width);
    return enqueue(stream, [=] { return rows(staged->data(), width); });
  }
  if (const cudaError_t e = enqueue(stream, [=] { return rows(from, from_pitch); }); e != cudaSuccess) return e;
  if (pageable(to) && !s->capture) return report(drain(s));  // and has written it
  return cudaSuccess;
}

}  // namespace

void release_allocations() {
  for (const auto& [p, a] : allocations()) std::free(const_cast<char*>(p));
  allocations().clear();
  device_used = 0;
}

cudaError_t cudaMalloc(void** p, size_t bytes) { return allocate(p, bytes, false); }
cudaError_t cudaMallocHost(void** p, size_t bytes) { return allocate(p, bytes, true); }
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) { return allocate(p, bytes, true); }

cudaError_t cudaFree(void* p) {
  std::lock_guard guard(lock());
  if (!p) return cudaSuccess;
  drain_everything();  // as CUDA's does
  return release(p, false);
}
cudaError_t cudaFreeHost(void* p) {
  std::lock_guard guard(lock());
  if (!p) return cudaSuccess;
  drain_everything();
  return release(p, true);
}

cudaError_t cudaMallocAsync(void** p, size_t bytes, cudaStream_t stream) {
  std::lock_guard guard(lock());
  if (const cudaError_t e = before_blocking(stream); e != cudaSuccess) return e;
  return allocate(p, bytes, false);
}
cudaError_t cudaFreeAsync(void* p, cudaStream_t stream) {
  std::lock_guard guard(lock());
  if (!p) return cudaSuccess;
  return enqueue(stream, [p] { return release(p, false); });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  std::lock_guard guard(lock());
  *total = device_bytes, *free = device_bytes - device_used;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* out, const void* p) {
  std::lock_guard guard(lock());
  *out = {cudaMemoryTypeUnregistered, -1, nullptr, nullptr};
  if (const auto* a = allocation_at(p)) {
    out->type = a->second.host ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
    out->device = 0;
    out->devicePointer = const_cast<void*>(p);
    if (a->second.host) out->hostPointer = const_cast<void*>(p);
  }
  return cudaSuccess;
}

struct memory_pool_state {};
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  static memory_pool_state only;
  *pool = &only;
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  return copy_rows(to, bytes, from, bytes, bytes, 1, stream);
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind, cudaStream_t stream) {
  return copy_rows(to, to_pitch, from, from_pitch, width, height, stream);
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const cudaError_t e = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return e != cudaSuccess ? e : cudaStreamSynchronize(nullptr);
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  std::lock_guard guard(lock());
  if (!in_bounds(p, bytes)) return report(cudaErrorInvalidValue);
  return enqueue(stream, [=] {
    std::memset(p, value, bytes);
    return cudaSuccess;
  });
}
cudaError_t cudaMemset(void* p, int value, size_t bytes) {
  const cudaError_t e = cudaMemsetAsync(p, value, bytes, nullptr);
  return e != cudaSuccess ? e : cudaStreamSynchronize(nullptr);
}

}  // namespace simt
