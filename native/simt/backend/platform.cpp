// The executor's side of cuda/platform.h, and the library's entry to it.
#include "platform.h"

#include "device.h"
#include "simt/control.h"

namespace sl {
namespace SL_BACKEND_NS {

const sl_backend this_backend = SL_BACKEND_SIMT;

// The executor is one for the process: the device that was opened last decides.
void apply_options(const sl_device_options& o) {
  if (o.seed != 0) simt::settings().seed = o.seed;
  if (o.multiprocessors > 0) simt::settings().multiprocessors = o.multiprocessors;
}

void add_counters(sl_counters& c) {
  const simt::counters& n = simt::count();
  c.launches = n.launches;  // those of replayed graphs too
  c.bytes_read = n.bytes_read, c.bytes_written = n.bytes_written;
  c.sectors_read = n.sectors_read, c.sectors_written = n.sectors_written;
  c.bank_conflicts = n.bank_conflicts, c.mma = n.mma;
}

void reset_platform_counters() { simt::count() = {}; }

}  // namespace SL_BACKEND_NS

const backend& simt_backend() {
  static const backend entry = {SL_BACKEND_NS::count_devices, SL_BACKEND_NS::open_device};
  return entry;
}

}  // namespace sl
