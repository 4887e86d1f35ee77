// What the two builds of this backend do differently: nvcc's runs on a GPU, g++'s on the executor.
#pragma once

#include "backend.h"

namespace sl {
namespace SL_BACKEND_NS {

extern const sl_backend this_backend;
void enter_platform(const sl_device_options*);  // calls of this thread are a device's from here on; null: nobody's
void add_counters(sl_counters&);                // what the executor counted
void reset_platform_counters();

}  // namespace SL_BACKEND_NS
}  // namespace sl
