#include "context.h"

#include "device.h"
#include "error.h"
#include "platform.h"

namespace sl {
namespace SL_BACKEND_NS {
namespace {

thread_local const cuda_device* current_device = nullptr;

template <typename F>
void look_up(F& call, const char* symbol) {
  void* p = nullptr;
#if CUDART_VERSION >= 12050
  cudaDriverEntryPointQueryResult found;
  const cudaError_t e = cudaGetDriverEntryPointByVersion(symbol, &p, 11000, cudaEnableDefault, &found);
#else
  const cudaError_t e = cudaGetDriverEntryPoint(symbol, &p, cudaEnableDefault);
#endif
  if (e != cudaSuccess || !p) {
    cudaGetLastError();
    throw error(SL_ERR_NO_DEVICE, format("the CUDA driver has no %s: %s", symbol, cudaGetErrorString(e)));
  }
  call = reinterpret_cast<F>(p);
}

}  // namespace

const driver_calls& driver() {
  static const driver_calls calls = [] {
    driver_calls d;
    look_up(d.get_current, "cuCtxGetCurrent");
    look_up(d.set_current, "cuCtxSetCurrent");
    look_up(d.retain_primary, "cuDevicePrimaryCtxRetain");
    look_up(d.release_primary, "cuDevicePrimaryCtxRelease");
    look_up(d.device_get, "cuDeviceGet");
    look_up(d.stream_context, "cuStreamGetCtx");
    look_up(d.pointer_attribute, "cuPointerGetAttribute");
    return d;
  }();
  return calls;
}

context_scope::context_scope(const cuda_device& d) : outer_(current_device) {
  driver().get_current(&before_);
  if (before_ != d.context()) {
    if (driver().set_current(d.context()) != CUDA_SUCCESS)
      throw error(SL_ERR_DEVICE_LOST, "the device's primary CUDA context cannot be made current");
    switched_ = true;
  }
  current_device = &d;
  enter_platform(&d.options());
}

context_scope::~context_scope() {
  if (switched_) driver().set_current(before_);
  current_device = outer_;
  enter_platform(outer_ ? &outer_->options() : nullptr);
}

void mark_lost() {
  if (current_device) current_device->lost = true;
}
void count_launch() {
  if (current_device) current_device->launches.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
