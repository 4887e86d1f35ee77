// The executor's side of cuda/platform.h, and the library's entry to it.
#include "platform.h"

#include <cstdio>

#include "device.h"
#include "matrix_library.h"
#include "simt/control.h"

namespace sl {
namespace SL_BACKEND_NS {

const sl_backend this_backend = SL_BACKEND_SIMT;

void enter_platform(const sl_device_options* o) {
  if (o == nullptr) return simt::play_as(0, 0);
  const simt::options& otherwise = simt::settings();
  simt::play_as(o->seed != 0 ? o->seed : otherwise.seed, o->multiprocessors > 0 ? o->multiprocessors : otherwise.multiprocessors, o);
}

template <typename To>
static void put(To& c, const simt::counters& n) {
  c.launches = n.launches;  // those of replayed graphs too
  c.bytes_read = n.bytes_read, c.bytes_written = n.bytes_written;
  c.sectors_read = n.sectors_read, c.sectors_written = n.sectors_written;
  c.bank_conflicts = n.bank_conflicts, c.mma = n.mma, c.kv_bytes_read = n.kv_bytes_read;
}

std::unique_ptr<matrix_library> open_matrix_library() { return nullptr; }

void add_counters(const sl_device_options* o, sl_counters& c) {
  simt::counters all;
  for (const auto& [name, n] : simt::account_of(o)) all += n;
  put(c, all);
}

std::vector<sl_kernel_counters> platform_kernel_counters(const sl_device_options* o) {
  std::vector<sl_kernel_counters> all;
  for (const auto& [name, n] : simt::account_of(o)) {
    sl_kernel_counters c{};
    std::snprintf(c.name, sizeof c.name, "%s", name.c_str());
    put(c, n);
    all.push_back(c);
  }
  return all;
}

void reset_platform_counters(const sl_device_options* o) { simt::reset_account(o); }

void count_kv_reads(const kv_view& c) {
  simt::watch_reads({c.keys, c.key_layer_bytes * uint64_t(c.layers)}, {c.values, c.value_layer_bytes * uint64_t(c.layers)});
}

}  // namespace SL_BACKEND_NS

const backend& simt_backend() {
  static const backend entry = {SL_BACKEND_NS::count_devices, SL_BACKEND_NS::open_device};
  return entry;
}

}  // namespace sl
