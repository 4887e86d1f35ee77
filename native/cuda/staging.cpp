#include "staging.h"

#include <algorithm>
#include <cstring>

#include "device.h"
#include "error.h"

namespace sl {
namespace SL_BACKEND_NS {

pinned_staging::pinned_staging(const cuda_device& d) : device_(d) {
  try {
    for (int i = 0; i < 2; i++) {
      check_allocation(cudaMallocHost(reinterpret_cast<void**>(&halves_[i]), half_bytes), "cudaMallocHost", half_bytes);
      check(cudaEventCreateWithFlags(&arrived_[i], cudaEventDisableTiming), "cudaEventCreateWithFlags");
    }
  } catch (...) {
    release();
    throw;
  }
}

pinned_staging::~pinned_staging() { release(); }

void pinned_staging::release() noexcept {
  quietly(device_, [&] {
    for (int i = 0; i < 2; i++) {
      if (arrived_[i]) cudaEventSynchronize(arrived_[i]), cudaEventDestroy(arrived_[i]);
      if (halves_[i]) cudaFreeHost(halves_[i]);
    }
  });
}

char* pinned_staging::take() {
  check(cudaEventSynchronize(arrived_[turn_]), "cudaEventSynchronize");
  return halves_[turn_];
}

void pinned_staging::send(void* target, uint64_t bytes, cudaStream_t stream) {
  check(cudaMemcpyAsync(target, halves_[turn_], bytes, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync");
  check(cudaEventRecord(arrived_[turn_], stream), "cudaEventRecord");
  turn_ ^= 1;
}

void pinned_staging::send_all(void* target, const void* source, uint64_t bytes, cudaStream_t stream) {
  for (uint64_t at = 0; at < bytes; at += half_bytes) {
    const uint64_t n = std::min(half_bytes, bytes - at);
    std::memcpy(take(), static_cast<const char*>(source) + at, n);
    send(static_cast<char*>(target) + at, n, stream);
  }
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
