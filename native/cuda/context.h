// The device's primary context, made current for the length of a call; and the driver calls for it, which are looked up
// when first needed, so that the library loads without a driver.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

namespace sl {
namespace SL_BACKEND_NS {

class cuda_device;

struct driver_calls {
  CUresult (*get_current)(CUcontext*);
  CUresult (*set_current)(CUcontext);
  CUresult (*retain_primary)(CUcontext*, CUdevice);
  CUresult (*release_primary)(CUdevice);
  CUresult (*device_get)(CUdevice*, int);
  CUresult (*stream_context)(CUstream, CUcontext*);
  CUresult (*pointer_attribute)(void*, CUpointer_attribute, CUdeviceptr);
};
const driver_calls& driver();  // throws SL_ERR_NO_DEVICE

// Every entry of the backend holds one of these. It leaves the thread's current context as it found it.
class context_scope {
 public:
  explicit context_scope(const cuda_device& d);
  ~context_scope();
  context_scope(const context_scope&) = delete;
  context_scope& operator=(const context_scope&) = delete;

 private:
  CUcontext before_ = nullptr;
  bool switched_ = false;
  const cuda_device* outer_;
};

// For destructors: runs f in the device's context, and ignores what fails. A lost device takes its objects with it.
template <typename F>
void quietly(const cuda_device& d, F f) noexcept {
  try {
    context_scope scope(d);
    f();
    cudaGetLastError();
  } catch (...) {
  }
}

void mark_lost();     // the device whose call this is
void count_launch();  // on it

}  // namespace SL_BACKEND_NS
}  // namespace sl
