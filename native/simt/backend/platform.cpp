// The executor's side of cuda/platform.h, and the library's entry to it.
#include "platform.h"

#include "device.h"
#include "simt/control.h"

namespace sl {
namespace SL_BACKEND_NS {

const sl_backend this_backend = SL_BACKEND_SIMT;

void enter_platform(const sl_device_options* o) {
  if (o == nullptr) return simt::play_as(0, 0);
  const simt::options& otherwise = simt::settings();
  simt::play_as(o->seed != 0 ? o->seed : otherwise.seed, o->multiprocessors > 0 ? o->multiprocessors : otherwise.multiprocessors);
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
