#include "error.h"

#include "backend.h"
#include "context.h"

namespace sl {
namespace SL_BACKEND_NS {
namespace {

// Errors after which nothing runs any more in the process's context.
bool is_sticky(cudaError_t e) {
  switch (e) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorContextIsDestroyed:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
    case cudaErrorUnknown: return true;
    default: return false;
  }
}

sl_status status_of(cudaError_t e) {
  if (is_sticky(e)) return SL_ERR_DEVICE_LOST;
  switch (e) {
    case cudaErrorMemoryAllocation: return SL_ERR_OUT_OF_MEMORY;
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorSystemDriverMismatch: return SL_ERR_NO_DEVICE;
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated:
    case cudaErrorStreamCaptureIsolation: return SL_ERR_STATE;
    default: return SL_ERR_INTERNAL;
  }
}

}  // namespace

void check(cudaError_t e, const char* what) {
  if (e == cudaSuccess) return;
  const char* text = cudaGetErrorString(e);
  cudaGetLastError();  // not to be told again to the next caller
  if (is_sticky(e)) mark_lost();
  throw error(status_of(e), format("%s: %s (%s)", what, text, cudaGetErrorName(e)));
}

void check_allocation(cudaError_t e, const char* what, unsigned long long bytes) {
  if (e != cudaErrorMemoryAllocation) return check(e, what);
  cudaGetLastError();
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  throw error(SL_ERR_OUT_OF_MEMORY, format("out of device memory: wanted %llu bytes, %llu of %llu bytes are free", bytes,
                                           (unsigned long long)free, (unsigned long long)total));
}

void launched(const char* name, cudaError_t e) {
  count_launch();
  check(e, name);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
