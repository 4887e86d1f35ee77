// Streams, their workspace, buffers and graphs.
#include <thread>

#include "objects.h"

namespace sl {

turn::turn(sl_stream* stream, const char* argument) : s(checked(stream, argument)) {
  for (auto found = sl_stream::occupant::none; !s.busy.compare_exchange_weak(found, sl_stream::occupant::caller, std::memory_order_acquire);
       found = sl_stream::occupant::none) {
    if (found == sl_stream::occupant::caller)
      fail(SL_ERR_STATE, "the stream is in use by another thread; give each thread a stream of its own");
    if (found == sl_stream::occupant::release) std::this_thread::yield();
  }
  if (s.device->lost) {
    s.busy.store(sl_stream::occupant::none, std::memory_order_release);
    fail(SL_ERR_DEVICE_LOST, "the device failed earlier and stays lost; release it and open it anew");
  }
}

turn::~turn() {
  if (!s.capturing) s.drain();
  s.busy.store(sl_stream::occupant::none, std::memory_order_release);
}

void require_not_capturing(const sl_stream& s, const char* what) {
  if (s.capturing) fail(SL_ERR_STATE, "not while the stream is captured: %s outside of a graph", what);
}

void require_same_device(const sl_stream& s, const sl_device* other, const char* argument) {
  if (s.device.get() != other) fail(SL_ERR_ARGUMENT, "argument '%s' belongs to another device than the stream", argument);
}

char* range(const sl_stream& s, sl_buffer* buffer, uint64_t offset, uint64_t bytes, const char* argument) {
  sl_buffer& b = checked(buffer, argument);
  require_same_device(s, b.stream->device.get(), argument);
  if (offset > b.bytes || bytes > b.bytes - offset)
    fail(SL_ERR_SHAPE, "argument '%s': bytes %llu .. %llu, the buffer has %llu", argument, (unsigned long long)offset,
         (unsigned long long)(offset + bytes), (unsigned long long)b.bytes);
  return static_cast<char*>(b.data) + offset;
}

}  // namespace sl

using namespace sl;

sl_stream::~sl_stream() {
  if (!impl) return;
  abandon_capture();
  drain();
  if (impl->workspace != nullptr) impl->release(impl->workspace, impl->workspace_bytes, SL_MEMORY_DEVICE);
}

void sl_stream::abandon_capture() noexcept {
  if (!capturing) return;
  try { impl->end_capture(); } catch (...) { /* nobody wants it */ }
  capturing = false;
  captured_rows.clear();
  captured.clear();
}

void sl_stream::release_later(void* data, uint64_t bytes, sl_memory memory) noexcept {
  {
    std::lock_guard lock(pending_mutex_);
    try {
      pending_.push_back({data, bytes, memory});
    } catch (...) {
      return;  // no memory to remember it: a leak is better than a free under a running kernel
    }
  }
  auto nobody = occupant::none;
  if (!busy.compare_exchange_strong(nobody, occupant::release, std::memory_order_acquire)) return;  // whose turn it is drains at its end
  if (!capturing) drain();
  busy.store(occupant::none, std::memory_order_release);
}

void sl_stream::drain() noexcept {
  std::vector<pending> ready;
  {
    std::lock_guard lock(pending_mutex_);
    ready.swap(pending_);
  }
  for (const pending& p : ready) impl->release(p.data, p.bytes, p.memory);
}

sl_buffer::sl_buffer(sl_stream* s, uint64_t n, sl_memory m)
    : object(tag_of), stream(s), bytes(n), memory(m), data(s->impl->allocate(n, m)) {}

sl_buffer::~sl_buffer() { stream->release_later(data, bytes, memory); }

sl_status sl_stream_create(sl_device* device, void* native_stream, sl_stream** out) {
  return guard("sl_stream_create", [&] {
    checked_pointer(out, "stream") = nullptr;
    if (checked(device, "device").lost) fail(SL_ERR_DEVICE_LOST, "the device failed earlier and stays lost; open it anew");
    auto s = std::make_unique<sl_stream>(device);
    {
      std::lock_guard lock(device->setting);
      s->impl = device->impl->create_stream(native_stream);
      device->has_streams = true;
    }
    s->impl->owner = device->impl.get();
    *out = s.release();
  });
}

void sl_stream_release(sl_stream* stream) {
  if (stream != nullptr && stream->capturing) {
    sl::ref<sl_stream> alive(stream);  // what the capture keeps may hold the last reference
    stream->abandon_capture();
  }
  release(stream);
}

sl_status sl_stream_synchronize(sl_stream* stream) {
  return guard_stream("sl_stream_synchronize", stream, [&](sl_stream& s) {
    require_not_capturing(s, "the stream is synchronised");
    s.impl->synchronize();
  });
}

sl_status sl_stream_measure(sl_stream* stream, int32_t on) {
  return guard_stream("sl_stream_measure", stream, [&](sl_stream& s) {
    require_not_capturing(s, "ops are measured");
    if (on != 0 && s.measuring) fail(SL_ERR_STATE, "the stream is measuring already; end that first");
    if (on != 0) s.measured = 0;
    s.measuring = on != 0;
  });
}

sl_status sl_stream_get_measured(sl_stream* stream, uint64_t* bytes) {
  return guard_stream("sl_stream_get_measured", stream, [&](sl_stream& s) { checked_pointer(bytes, "bytes") = s.measured; });
}

sl_status sl_stream_reserve(sl_stream* stream, uint64_t bytes) {
  return guard_stream("sl_stream_reserve", stream, [&](sl_stream& s) {
    require_not_capturing(s, "the workspace grows");
    sl::stream& impl = *s.impl;
    if (bytes <= impl.workspace_bytes) return;
    char* grown = static_cast<char*>(impl.allocate(bytes, SL_MEMORY_DEVICE));
    if (impl.workspace != nullptr) impl.release(impl.workspace, impl.workspace_bytes, SL_MEMORY_DEVICE);
    impl.workspace = grown;
    impl.workspace_bytes = bytes;
  });
}

sl_status sl_buffer_create(sl_stream* stream, uint64_t bytes, sl_memory memory, sl_buffer** out) {
  return guard_stream("sl_buffer_create", stream, [&](sl_stream& s) {
    checked_pointer(out, "buffer") = nullptr;
    if (bytes == 0) fail(SL_ERR_ARGUMENT, "bytes is 0");
    if (memory != SL_MEMORY_DEVICE && memory != SL_MEMORY_HOST) fail(SL_ERR_ARGUMENT, "memory is %d, expected 0 or 1", memory);
    require_not_capturing(s, "memory is allocated");
    *out = new sl_buffer(&s, bytes, memory);
  });
}

void sl_buffer_release(sl_buffer* buffer) { release(buffer); }

sl_status sl_buffer_get_size(sl_buffer* buffer, uint64_t* bytes) {
  return guard("sl_buffer_get_size", [&] { checked_pointer(bytes, "bytes") = checked(buffer, "buffer").bytes; });
}

sl_status sl_buffer_get_host_pointer(sl_buffer* buffer, void** pointer) {
  return guard("sl_buffer_get_host_pointer", [&] {
    checked_pointer(pointer, "pointer") = nullptr;
    if (checked(buffer, "buffer").memory != SL_MEMORY_HOST)
      fail(SL_ERR_ARGUMENT, "argument 'buffer' is device memory; download it, or create it as SL_MEMORY_HOST");
    *pointer = buffer->data;
  });
}

sl_status sl_buffer_upload(sl_stream* stream, sl_buffer* buffer, uint64_t offset, const void* source, uint64_t bytes) {
  return guard_stream("sl_buffer_upload", stream, [&](sl_stream& s) {
    char* target = range(s, buffer, offset, bytes, "buffer");
    require_not_capturing(s, "memory is uploaded");
    if (bytes == 0) return;
    checked_pointer(static_cast<const char*>(source), "source");
    s.impl->upload(target, source, bytes);
  });
}

sl_status sl_buffer_download(sl_stream* stream, sl_buffer* buffer, uint64_t offset, void* target, uint64_t bytes) {
  return guard_stream("sl_buffer_download", stream, [&](sl_stream& s) {
    const char* source = range(s, buffer, offset, bytes, "buffer");
    require_not_capturing(s, "memory is downloaded");
    if (bytes == 0) return;
    checked_pointer(static_cast<char*>(target), "target");
    s.impl->download(target, source, bytes);
  });
}

namespace {

// Copies and fills belong to what a graph may hold.
template <typename Work>
void put(sl_stream& s, Work work) {
  if (s.measuring) return;
  if (s.impl->keeps_closures()) s.impl->capture(work);
  else work();
}

}  // namespace

sl_status sl_buffer_copy(sl_stream* stream, sl_buffer* source, uint64_t source_offset, sl_buffer* target,
                         uint64_t target_offset, uint64_t bytes) {
  return guard_stream("sl_buffer_copy", stream, [&](sl_stream& s) {
    const char* from = range(s, source, source_offset, bytes, "source");
    char* to = range(s, target, target_offset, bytes, "target");
    if (bytes == 0) return;
    if (from < to + bytes && to < from + bytes) fail(SL_ERR_ARGUMENT, "'source' and 'target' overlap");
    if (s.capturing) { s.captured.emplace_back(source); s.captured.emplace_back(target); }
    sl::stream* impl = s.impl.get();
    put(s, [=] { impl->copy(to, from, bytes); });
  });
}

sl_status sl_buffer_fill(sl_stream* stream, sl_buffer* buffer, uint64_t offset, int32_t byte, uint64_t bytes) {
  return guard_stream("sl_buffer_fill", stream, [&](sl_stream& s) {
    char* to = range(s, buffer, offset, bytes, "buffer");
    if (byte < 0 || byte > 255) fail(SL_ERR_ARGUMENT, "byte is %d, expected 0..255", byte);
    if (bytes == 0) return;
    if (s.capturing) s.captured.emplace_back(buffer);
    sl::stream* impl = s.impl.get();
    put(s, [=] { impl->fill(to, byte, bytes); });
  });
}

sl_status sl_graph_begin(sl_stream* stream) {
  return guard_stream("sl_graph_begin", stream, [&](sl_stream& s) {
    if (s.capturing) fail(SL_ERR_STATE, "the stream is being captured already; end that graph first");
    if (s.measuring) fail(SL_ERR_STATE, "the stream is measuring; end that first");
    s.impl->begin_capture();
    s.capturing = true;
    s.captured_workspace = 0;
  });
}

sl_status sl_graph_end(sl_stream* stream, sl_graph** out) {
  return guard_stream("sl_graph_end", stream, [&](sl_stream& s) {
    checked_pointer(out, "graph") = nullptr;
    if (!s.capturing) fail(SL_ERR_STATE, "no graph was begun on this stream");
    std::vector<ref<object>> keeps = std::move(s.captured);
    s.captured.clear();
    std::vector<std::pair<sl_batch*, int64_t>> rows = std::move(s.captured_rows);
    s.captured_rows.clear();
    s.capturing = false;
    auto g = std::make_unique<sl_graph>(&s);
    g->impl = s.impl->end_capture();
    g->keeps = std::move(keeps);
    g->rows = std::move(rows);
    g->workspace = s.impl->workspace;
    g->workspace_needed = s.captured_workspace;
    *out = g.release();
  });
}

sl_status sl_graph_launch(sl_stream* stream, sl_graph* graph) {
  return guard_stream("sl_graph_launch", stream, [&](sl_stream& s) {
    if (checked(graph, "graph").stream.get() != &s) fail(SL_ERR_ARGUMENT, "the graph was captured on another stream");
    require_not_capturing(s, "a graph is launched");
    if (graph->workspace_needed > 0 && graph->workspace != s.impl->workspace)
      fail(SL_ERR_STATE, "the stream's workspace has grown since the graph was captured; capture it anew");
    for (const auto& [batch, rows] : graph->rows)
      if (batch->view.host.header->num_tokens > rows)
        fail(SL_ERR_SHAPE, "the batch has %d tokens, the graph was captured with tensors of %lld rows",
             batch->view.host.header->num_tokens, (long long)rows);
    s.impl->launch(*graph->impl);
  });
}

void sl_graph_release(sl_graph* graph) { release(graph); }
