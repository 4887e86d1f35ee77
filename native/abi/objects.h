// The handles behind sluice.h: reference counts, the exception firewall, and who may use a stream when.
#pragma once

#include <atomic>
#include <cstring>
#include <mutex>
#include <new>

#include "backend.h"

namespace sl {

[[noreturn]] void fail(sl_status status, const char* pattern, ...) SL_PRINTF(2, 3);
sl_status set_last_error(const char* function, sl_status status, const char* text) noexcept;

// Runs body; whatever it throws becomes a status and the thread's last error.
template <typename Body>
sl_status guard(const char* function, Body&& body) noexcept {
  try {
    body();
    return SL_OK;
  } catch (const error& e) {
    return set_last_error(function, e.status(), e.text().c_str());
  } catch (const std::bad_alloc&) {
    return set_last_error(function, SL_ERR_OUT_OF_MEMORY, "the host has no memory left for the library's own records");
  } catch (const std::exception& e) {
    return set_last_error(function, SL_ERR_INTERNAL, e.what());
  } catch (...) {
    return set_last_error(function, SL_ERR_INTERNAL, "an unknown exception");
  }
}

enum class kind : uint32_t { device = 0x51d0, stream, buffer, weight, kv_cache, batch, graph, event };
const char* name_of(kind k);
void count_handle(kind k, int64_t change) noexcept;

// The first member of every handle's struct. A handle of the wrong kind or a null is caught by its tag.
struct object {
  explicit object(kind k) : tag(k) { count_handle(k, 1); }
  virtual ~object() {
    count_handle(tag, -1);
    *const_cast<volatile kind*>(&tag) = kind{};
  }
  object(const object&) = delete;
  object& operator=(const object&) = delete;

  kind tag;
  std::atomic<int64_t> references{1};
};

inline void retain(object* o) noexcept { o->references.fetch_add(1, std::memory_order_relaxed); }
inline void release(object* o) noexcept {
  if (o != nullptr && o->references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete o;
}

// A counted reference from one object to another.
template <typename T>
class ref {
 public:
  ref() = default;
  explicit ref(T* o) : object_(o) { if (o != nullptr) retain(o); }
  ref(const ref& other) : ref(other.object_) {}
  ref(ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  ref& operator=(ref other) noexcept { std::swap(object_, other.object_); return *this; }
  ~ref() { release(object_); }
  T* operator->() const { return object_; }
  T* get() const { return object_; }

 private:
  T* object_ = nullptr;
};

}  // namespace sl

struct sl_device final : sl::object {
  static constexpr sl::kind tag_of = sl::kind::device;
  sl_device() : object(tag_of) {}
  std::unique_ptr<sl::device> impl;
  sl_backend backend = SL_BACKEND_REFERENCE;
  std::atomic<bool> lost{false};
  std::mutex setting;     // of switch points, against the first stream
  bool has_streams = false;
};

struct sl_stream final : sl::object {
  static constexpr sl::kind tag_of = sl::kind::stream;
  explicit sl_stream(sl_device* d) : object(tag_of), device(d) {}
  ~sl_stream() override;

  // Memory whose owner has gone. Finalisers call this on any thread, at any time: while another thread works on the
  // stream, or captures it, the release waits in a list.
  void release_later(void* data, uint64_t bytes, sl_memory memory) noexcept;
  void drain() noexcept;

  // Throws a running capture away: what it keeps may keep this stream.
  void abandon_capture() noexcept;

  sl::ref<sl_device> device;
  std::unique_ptr<sl::stream> impl;
  // Whose turn it is: nobody's, a caller's, or that of a release (a finaliser's, for a moment), which callers wait for.
  enum class occupant : int { none, caller, release };
  std::atomic<occupant> busy{occupant::none};
  bool capturing = false;
  bool measuring = false;
  uint64_t measured = 0;
  uint64_t captured_workspace = 0;                // the largest that a captured op wants
  std::vector<sl::ref<sl::object>> captured;  // what the graph being captured must keep alive
  std::vector<std::pair<sl_batch*, int64_t>> captured_rows;  // of tensors that each batch's plan must fit into

 private:
  struct pending { void* data; uint64_t bytes; sl_memory memory; };
  std::mutex pending_mutex_;
  std::vector<pending> pending_;
};

struct sl_buffer final : sl::object {
  static constexpr sl::kind tag_of = sl::kind::buffer;
  sl_buffer(sl_stream* s, uint64_t n, sl_memory m);
  ~sl_buffer() override;
  sl::ref<sl_stream> stream;
  uint64_t bytes;
  sl_memory memory;
  void* data;
};

struct sl_weight final : sl::object {
  static constexpr sl::kind tag_of = sl::kind::weight;
  explicit sl_weight(sl_device* d) : object(tag_of), device(d) {}
  ~sl_weight() override;
  sl::ref<sl_device> device;  // outlives impl
  std::unique_ptr<sl::weight> impl;
  sl_release released = nullptr;  // of the caller's memory that impl stands on
  void* context = nullptr;
};

struct sl_kv_cache final : sl::object {
  static constexpr sl::kind tag_of = sl::kind::kv_cache;
  explicit sl_kv_cache(sl_stream* s) : object(tag_of), stream(s) {}
  ~sl_kv_cache() override;
  sl::ref<sl_stream> stream;
  uint64_t key_bytes = 0, value_bytes = 0, scale_bytes = 0;
  sl::kv_view view;
};

struct sl_batch final : sl::object {
  static constexpr sl::kind tag_of = sl::kind::batch;
  sl_batch(sl_stream* s, sl_kv_cache* c) : object(tag_of), stream(s), cache(c) {}
  ~sl_batch() override;
  sl::ref<sl_stream> stream;
  sl::ref<sl_kv_cache> cache;
  std::vector<char> host;  // the mirror
  std::vector<uint32_t> written;  // [pages]: the last update that found a page written to
  uint32_t updates = 0;
  char* device_data = nullptr;
  uint64_t device_bytes = 0;
  uint64_t pages_offset = 0, mask_offset = 0;  // the two parts whose used length varies lie last
  sl::batch_view view{};
  int32_t query_heads = 0;
  sl_sharing sharing = SL_SHARING_BY_COST;
  bool planned = false;
};

struct sl_graph final : sl::object {
  static constexpr sl::kind tag_of = sl::kind::graph;
  explicit sl_graph(sl_stream* s) : object(tag_of), stream(s) {}
  sl::ref<sl_stream> stream;
  std::vector<sl::ref<sl::object>> keeps;
  std::vector<std::pair<sl_batch*, int64_t>> rows;  // the batches are among `keeps`
  std::unique_ptr<sl::graph> impl;
  const char* workspace = nullptr;
  uint64_t workspace_needed = 0;
};

struct sl_event final : sl::object {
  static constexpr sl::kind tag_of = sl::kind::event;
  explicit sl_event(sl_device* d) : object(tag_of), device(d) {}
  sl::ref<sl_device> device;
  std::unique_ptr<sl::event> impl;
  bool recorded = false;
};

namespace sl {

template <typename T>
T& checked(T* handle, const char* argument) {
  if (handle == nullptr) fail(SL_ERR_ARGUMENT, "argument '%s' is null", argument);
  if (handle->tag != T::tag_of) fail(SL_ERR_ARGUMENT, "argument '%s' is no live %s", argument, name_of(T::tag_of));
  return *handle;
}

template <typename T>
T& checked_pointer(T* pointer, const char* argument) {
  if (pointer == nullptr) fail(SL_ERR_ARGUMENT, "argument '%s' is null", argument);
  return *pointer;
}

// A caller's struct, which may come from an older header: copied into this build's, the rest zero.
template <typename T>
T checked_struct(const T* given, const char* argument) {
  uint32_t size = checked_pointer(given, argument).size;
  if (size < 8 || size > sizeof(T) || size % 4 != 0)
    fail(SL_ERR_ARGUMENT, "argument '%s': size is %u, expected %zu (set it to sizeof the struct)", argument, size, sizeof(T));
  T copy{};
  std::memcpy(&copy, given, size);
  return copy;
}

// One thread's turn on a stream. Throws SL_ERR_STATE when another thread has it, SL_ERR_DEVICE_LOST when it is over.
class turn {
 public:
  explicit turn(sl_stream* s, const char* argument = "stream");
  ~turn();
  turn(const turn&) = delete;
  turn& operator=(const turn&) = delete;
  sl_stream& s;
};

// guard for calls on a stream: a lost device is remembered.
template <typename Body>
sl_status guard_stream(const char* function, sl_stream* s, Body&& body) noexcept {
  sl_status status = guard(function, [&] {
    turn mine(s);
    body(mine.s);
  });
  if (status == SL_ERR_DEVICE_LOST && s != nullptr) s->device->lost = true;
  return status;
}

void require_not_capturing(const sl_stream& s, const char* what);
void require_same_device(const sl_stream& s, const sl_device* other, const char* argument);

// [offset, offset + bytes) of the buffer, or SL_ERR_SHAPE.
char* range(const sl_stream& s, sl_buffer* buffer, uint64_t offset, uint64_t bytes, const char* argument);

}  // namespace sl
