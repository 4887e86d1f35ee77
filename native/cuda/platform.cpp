// The GPU's side of platform.h, and the library's entry to it.
#include "platform.h"

#include "device.h"

namespace sl {
namespace SL_BACKEND_NS {

const sl_backend this_backend = SL_BACKEND_CUDA;
void enter_platform(const sl_device_options*) {}
void add_counters(const sl_device_options*, sl_counters&) {}
std::vector<sl_kernel_counters> platform_kernel_counters(const sl_device_options*) { return {}; }
void reset_platform_counters(const sl_device_options*) {}
void count_kv_reads(const kv_view&) {}

}  // namespace SL_BACKEND_NS

const backend& cuda_backend() {
  static const backend entry = {SL_BACKEND_NS::count_devices, SL_BACKEND_NS::open_device};
  return entry;
}

}  // namespace sl
