// What the two builds of this backend do differently: nvcc's runs on a GPU, g++'s on the executor.
#pragma once

#include <vector>

#include "backend.h"

namespace sl {
namespace SL_BACKEND_NS {

extern const sl_backend this_backend;
void enter_platform(const sl_device_options*);  // calls of this thread are a device's from here on; null: nobody's
// What the executor counted for the device with these options (the address tells which), in all and by kernel.
void add_counters(const sl_device_options*, sl_counters&);
std::vector<sl_kernel_counters> platform_kernel_counters(const sl_device_options*);
void reset_platform_counters(const sl_device_options*);
// This call's launches are attention's: what they read of the pools counts as kv_bytes_read.
void count_kv_reads(const kv_view&);

}  // namespace SL_BACKEND_NS
}  // namespace sl
