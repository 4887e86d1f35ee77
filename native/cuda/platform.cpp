// The GPU's side of platform.h, and the library's entry to it.
#include "platform.h"

#include "device.h"

namespace sl {
namespace SL_BACKEND_NS {

const sl_backend this_backend = SL_BACKEND_CUDA;
void enter_platform(const sl_device_options*) {}
void add_counters(sl_counters&) {}
void reset_platform_counters() {}

}  // namespace SL_BACKEND_NS

const backend& cuda_backend() {
  static const backend entry = {SL_BACKEND_NS::count_devices, SL_BACKEND_NS::open_device};
  return entry;
}

}  // namespace sl
