// Devices and events: opening one backend on one device, what it is, what it has moved.
#include <exception>

#include "objects.h"

namespace sl {
namespace {

struct entry { const char* name; const backend* (*get)(); };

const entry& entry_of(sl_backend b) {
  static const entry entries[] = {
#if defined(SL_WITH_REFERENCE)
      {"reference", [] { return &reference_backend(); }},
#else
      {"reference", nullptr},
#endif
      {"cpu", [] { return &cpu_backend(); }},
#if defined(SL_WITH_CUDA)
      {"cuda", [] { return &cuda_backend(); }},
#else
      {"cuda", nullptr},
#endif
#if defined(SL_WITH_SIMT)
      {"simt", [] { return &simt_backend(); }},
#else
      {"simt", nullptr},
#endif
  };
  if (b < 0 || b > SL_BACKEND_SIMT) fail(SL_ERR_ARGUMENT, "backend %d: expected 0 (reference) .. 3 (simt)", b);
  return entries[b];
}

const backend& built(sl_backend b) {
  const entry& e = entry_of(b);
  if (e.get == nullptr)
    fail(SL_ERR_NO_DEVICE, "this build of the library holds no %s backend: %s", e.name,
         b == SL_BACKEND_CUDA ? "build it with --cuda on" : "releases leave it out, ./build.sh builds it");
  return *e.get();
}

}  // namespace
}  // namespace sl

using namespace sl;

int32_t sl_device_count(sl_backend b) {
  int32_t count = 0;
  guard("sl_device_count", [&] { count = built(b).count(); });
  return count;
}

sl_status sl_device_open(const sl_device_options* options, sl_device** out) {
  return guard("sl_device_open", [&] {
    checked_pointer(out, "device") = nullptr;
    sl_device_options o = checked_struct(options, "options");
    const backend& b = built(o.backend);
    if (o.ordinal < 0) fail(SL_ERR_ARGUMENT, "options.ordinal is %d, expected 0 or more", o.ordinal);
    if (o.threads < 0 || o.threads > 1024) fail(SL_ERR_ARGUMENT, "options.threads is %d, expected 0..1024", o.threads);
    if (o.isa < 0 || o.isa > SL_ISA_AVX512_BF16) fail(SL_ERR_ARGUMENT, "options.isa is %d, expected 0..%d", o.isa, int{SL_ISA_AVX512_BF16});
    if (o.multiprocessors < 0 || o.multiprocessors > 256)
      fail(SL_ERR_ARGUMENT, "options.multiprocessors is %d, expected 0..256", o.multiprocessors);
    if (o.backend != SL_BACKEND_CUDA && o.ordinal != 0)
      fail(SL_ERR_NO_DEVICE, "%s has one device, ordinal 0; asked for %d", entry_of(o.backend).name, o.ordinal);
    auto device = std::make_unique<sl_device>();
    device->backend = o.backend;
    device->impl = b.open(o);
    *out = device.release();
  });
}

void sl_device_release(sl_device* device) { release(device); }

sl_status sl_device_get_info(sl_device* device, sl_device_info* info) {
  return guard("sl_device_get_info", [&] {
    sl_device_info full = checked_struct(static_cast<const sl_device_info*>(info), "info");
    checked(device, "device").impl->info(full);
    full.backend = device->backend;
    std::memcpy(info, &full, full.size);
  });
}

sl_status sl_device_get_counters(sl_device* device, sl_counters* counters) {
  return guard("sl_device_get_counters", [&] {
    sl_counters given = checked_struct(static_cast<const sl_counters*>(counters), "counters");
    sl_counters full{};
    full.size = given.size;
    checked(device, "device").impl->counters(full);
    std::memcpy(counters, &full, full.size);
  });
}

sl_status sl_device_get_kernel_counters(sl_device* device, int32_t index, sl_kernel_counters* counters) {
  return guard("sl_device_get_kernel_counters", [&] {
    const sl_kernel_counters given = checked_struct(static_cast<const sl_kernel_counters*>(counters), "counters");
    if (index < 0) fail(SL_ERR_ARGUMENT, "index is %d, expected 0 or more", index);
    const std::vector<sl_kernel_counters> all = checked(device, "device").impl->kernel_counters();
    sl_kernel_counters full{};
    if (size_t(index) < all.size()) full = all[size_t(index)];
    full.size = given.size;
    std::memcpy(counters, &full, full.size);
  });
}

sl_status sl_device_reset_counters(sl_device* device) {
  return guard("sl_device_reset_counters", [&] { checked(device, "device").impl->reset_counters(); });
}

static sl_switch_points& switch_points_of(sl_device& d) {
  sl_switch_points* points = d.impl->switch_points();
  if (points == nullptr) fail(SL_ERR_UNSUPPORTED, "%s has no switch points: its kernels take any number of rows", entry_of(d.backend).name);
  return *points;
}

sl_status sl_device_get_switch_points(sl_device* device, sl_switch_points* points) {
  return guard("sl_device_get_switch_points", [&] {
    const sl_switch_points given = checked_struct(static_cast<const sl_switch_points*>(points), "points");
    sl_device& d = checked(device, "device");
    std::lock_guard lock(d.setting);
    sl_switch_points full = switch_points_of(d);
    full.size = given.size;
    std::memcpy(points, &full, full.size);
  });
}

sl_status sl_device_set_switch_points(sl_device* device, const sl_switch_points* points) {
  return guard("sl_device_set_switch_points", [&] {
    const sl_switch_points given = checked_struct(points, "points");
    for (int i = 0; i < SL_KEPT_KINDS; i++) {
      if (given.few[i] < 0 || given.few[i] > 8) fail(SL_ERR_ARGUMENT, "points.few[%d] is %d, expected 0..8", i, given.few[i]);
      if (given.narrow[i] < 0 || given.dense[i] < -1) fail(SL_ERR_ARGUMENT, "points.narrow[%d] is %d and points.dense[%d] is %d, expected 0 or more (or a dense of -1)", i, given.narrow[i], i, given.dense[i]);
    }
    sl_device& d = checked(device, "device");
    std::lock_guard lock(d.setting);
    sl_switch_points& own = switch_points_of(d);
    if (d.has_streams) fail(SL_ERR_STATE, "the device has had a stream: switch points are set before the first");
    own = given;
  });
}

sl_status sl_event_create(sl_device* device, sl_event** out) {
  return guard("sl_event_create", [&] {
    checked_pointer(out, "event") = nullptr;
    checked(device, "device");
    auto e = std::make_unique<sl_event>(device);
    e->impl = device->impl->create_event();
    *out = e.release();
  });
}

void sl_event_release(sl_event* event) { release(event); }

sl_status sl_event_record(sl_stream* stream, sl_event* event) {
  return guard_stream("sl_event_record", stream, [&](sl_stream& s) {
    require_same_device(s, checked(event, "event").device.get(), "event");
    require_not_capturing(s, "an event is recorded");
    s.impl->record(*event->impl);
    event->recorded = true;
  });
}

sl_status sl_event_wait(sl_stream* stream, sl_event* event) {
  return guard_stream("sl_event_wait", stream, [&](sl_stream& s) {
    require_same_device(s, checked(event, "event").device.get(), "event");
    require_not_capturing(s, "an event is waited for");
    if (event->recorded) s.impl->wait(*event->impl);
  });
}

sl_status sl_event_synchronize(sl_event* event) {
  return guard("sl_event_synchronize", [&] {
    if (checked(event, "event").recorded) event->impl->synchronize();
  });
}

sl_status sl_event_elapsed(sl_event* start, sl_event* end, double* milliseconds) {
  return guard("sl_event_elapsed", [&] {
    checked_pointer(milliseconds, "milliseconds");
    if (!checked(start, "start").recorded) fail(SL_ERR_STATE, "event 'start' has not been recorded");
    if (!checked(end, "end").recorded) fail(SL_ERR_STATE, "event 'end' has not been recorded");
    if (start->device.get() != end->device.get()) fail(SL_ERR_ARGUMENT, "'start' and 'end' are of two devices");
    start->impl->synchronize();
    end->impl->synchronize();
    *milliseconds = end->impl->milliseconds_since(*start->impl);
  });
}
