// Pinned memory through which weights travel: while one half is copied by the device, the host fills the other.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace sl {
namespace SL_BACKEND_NS {

class cuda_device;

class pinned_staging {
 public:
  static constexpr uint64_t half_bytes = uint64_t(8) << 20;

  // Within the device's context. Throws SL_ERR_OUT_OF_MEMORY.
  explicit pinned_staging(const cuda_device&);
  ~pinned_staging();
  pinned_staging(const pinned_staging&) = delete;
  pinned_staging& operator=(const pinned_staging&) = delete;

  // half_bytes to fill; waits until what was sent from there has arrived.
  char* take();
  // Sends the first `bytes` of what was taken, and goes on to the other half.
  void send(void* target, uint64_t bytes, cudaStream_t);
  // Sends host memory of any length through the halves.
  void send_all(void* target, const void* source, uint64_t bytes, cudaStream_t);

 private:
  void release() noexcept;
  const cuda_device& device_;
  char* halves_[2] = {};
  cudaEvent_t arrived_[2] = {};
  int turn_ = 0;
};

}  // namespace SL_BACKEND_NS
}  // namespace sl
