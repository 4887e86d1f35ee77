// Accesses to device memory: bounds and counts; cp.async; atomics, acquires and releases.
#include <algorithm>
#include <cstring>

#include "executor.h"
#include "shadow.h"
#include "simt/hooks.h"

namespace simt {
namespace {

std::string bytes_text(size_t n) { return std::to_string(n) + (n == 1 ? " byte" : " bytes"); }

template <typename T>
T combine(atomic_op op, T old, T v, T compare) {
  switch (op) {
    case atomic_op::add: return T(old + v);
    case atomic_op::exchange: return v;
    case atomic_op::compare_exchange: return std::memcmp(&old, &compare, sizeof old) == 0 ? v : old;
    case atomic_op::minimum: return std::min(old, v);
    case atomic_op::maximum: return std::max(old, v);
    case atomic_op::bit_and:
    case atomic_op::bit_or: break;
  }
  if constexpr (std::is_integral_v<T>) return op == atomic_op::bit_and ? T(old & v) : T(old | v);
  return old;
}

template <typename T>
uint64_t update(atomic_op op, void* p, uint64_t value, uint64_t compare) {
  T old, v, c;
  std::memcpy(&old, p, sizeof(T)), std::memcpy(&v, &value, sizeof(T)), std::memcpy(&c, &compare, sizeof(T));
  const T now = combine(op, old, v, c);
  std::memcpy(p, &now, sizeof(T));
  if (std::memcmp(&old, &now, sizeof(T)) != 0) advanced();
  uint64_t bits = 0;
  std::memcpy(&bits, &old, sizeof(T));
  return bits;
}

}  // namespace

void touch_global(const void* p, size_t bytes, const char* low, const char* high, bool write, const void* site) {
  const char* at = static_cast<const char*>(p);
  if (at < low || at + bytes > high) {
    const std::string verb = write ? " writes " : " reads ";
    if (!low) fail("not device memory: " + where(self()) + verb + bytes_text(bytes) + " at an address that is not allocated");
    fail("out of bounds: " + where(self()) + verb + bytes_text(bytes) + " of global memory at byte " +
         std::to_string(at - low) + " of " + std::to_string(high - low));
  }
  if (reinterpret_cast<uintptr_t>(p) % std::min<size_t>(bytes, 16) != 0)
    fail("misaligned access: " + where(self()) + (write ? " writes " : " reads ") + bytes_text(bytes) +
         " of global memory at byte " + std::to_string(at - low));
  (write ? count().bytes_written : count().bytes_read) += bytes;
  if (write) advanced();
  else if (watched(p)) count().kv_bytes_read += bytes;
  if (settings().count_accesses) log_access(p, bytes, write ? access_kind::global_write : access_kind::global_read, site);
}

void check_global(const void* p, size_t bytes, const char* low, const char* high, bool write) {
  touch_global(p, bytes, low, high, write, __builtin_return_address(0));
}

void async_copy(void* to, const char* to_low, const char* to_high, const void* from, const char* from_low,
                const char* from_high, unsigned bytes, unsigned fill) {
  const void* site = __builtin_return_address(0);
  touch_shared_write(to, nullptr, bytes + fill, to_low, to_high, site);
  if (bytes) touch_global(from, bytes, from_low, from_high, false, site);
  std::memset(to, 0xff, bytes + fill);
  mark_pending(static_cast<char*>(to), bytes + fill);
  lane* me = self();
  me->copies.push_back({static_cast<char*>(to), static_cast<const char*>(from), bytes, fill, me->copy_groups});
}

void async_commit() { self()->copy_groups++; }

void async_wait(unsigned groups_left) {
  lane* me = self();
  size_t done = 0;
  for (; done < me->copies.size() && me->copies[done].group + groups_left < me->copy_groups; done++) {
    const copy& c = me->copies[done];
    tsan_read(c.from, c.bytes);
    tsan_write(c.to, c.bytes + c.fill);
    std::memcpy(c.to, c.from, c.bytes);
    std::memset(c.to + c.bytes, 0, c.fill);
    mark_written(c.to, c.bytes + c.fill);
  }
  me->copies.erase(me->copies.begin(), me->copies.begin() + std::ptrdiff_t(done));
}

uint64_t atomic(space s, atomic_op op, atomic_type type, void* p, uint64_t value, uint64_t compare, const char* low,
                const char* high) {
  const size_t bytes = type == atomic_type::u64 || type == atomic_type::f64 ? 8 : 4;
  // Others may come first; a seed decides how often, so that a lock is contended.
  if ((next_random() & 3) == 0) yield_lane();
  const void* site = __builtin_return_address(0);
  if (s == space::shared) {
    check_shared_atomic(p, bytes, low, high);
    if (settings().count_accesses) log_access(p, bytes, access_kind::shared_atomic, site);
  } else {
    touch_global(p, bytes, low, high, true, site);
  }
  tsan_acquire(p);
  const uint64_t progress = run.progress;
  if (s == space::global) run.progress = progress - 1;  // the check counted a write; only a change is progress
  uint64_t old = 0;
  switch (type) {
    case atomic_type::i32: old = update<int32_t>(op, p, value, compare); break;
    case atomic_type::u32: old = update<uint32_t>(op, p, value, compare); break;
    case atomic_type::u64: old = update<uint64_t>(op, p, value, compare); break;
    case atomic_type::f32: old = update<float>(op, p, value, compare); break;
    case atomic_type::f64: old = update<double>(op, p, value, compare); break;
  }
  tsan_release(p);
  const bool changed = run.progress >= progress;
  if (!changed) yield_lane();
  return old;
}

void acquire(const void* p) {
  yield_lane();
  acquire_now(p);
}
void acquire_now(const void* p) { tsan_acquire(const_cast<void*>(p)); }
void release(void* p) { tsan_release(p); }

void __threadfence() {}
void __threadfence_block() {}
void __threadfence_system() {}
void __nanosleep(unsigned) { yield_lane(); }
void __trap() { fail("__trap: " + where(self())); }
long long clock64() { return (long long)run.progress; }

}  // namespace simt
