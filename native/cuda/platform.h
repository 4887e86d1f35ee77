// What the two builds of this backend do differently: nvcc's runs on a GPU, g++'s on the executor.
#pragma once

#include "backend.h"

namespace sl {
namespace SL_BACKEND_NS {

extern const sl_backend this_backend;
void apply_options(const sl_device_options&);   // the executor's seed and multiprocessors
void add_counters(sl_counters&);                // what the executor counted
void reset_platform_counters();

}  // namespace SL_BACKEND_NS
}  // namespace sl
