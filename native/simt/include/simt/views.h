// What gmem<T> and smem<T> are in the executor: pointers that know the bounds of what they point into, and that report
// every access. Const views give values, others give references that tell reads from writes.
#pragma once

#include <cstring>
#include <type_traits>

#include "simt/device.h"

// Accesses are told apart by where in the kernel's code they stand, so what leads to a check has to be inlined there.
#define SIMT_INLINE inline __attribute__((always_inline))

namespace simt {

// Bounds of the device allocation that holds p; empty when there is none.
struct bounds { const char *low = nullptr, *high = nullptr; };
bounds allocation_of(const void* p);

// Each checks one lane's access, counts it, and fails the kernel when it is wrong.
void check_global(const void* p, size_t bytes, const char* low, const char* high, bool write);
void check_shared_read(const void* p, size_t bytes, const char* low, const char* high);
void check_shared_write(void* p, const void* value, size_t bytes, const char* low, const char* high);

enum class space { global, shared };

template <space S, typename T>
struct view;

template <space S, typename T>
SIMT_INLINE T read_at(const T* p, const char* low, const char* high) {
  if constexpr (S == space::global) check_global(p, sizeof(T), low, high, false);
  else check_shared_read(p, sizeof(T), low, high);
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <space S, typename T>
SIMT_INLINE void write_at(T* p, const T& v, const char* low, const char* high) {
  if constexpr (S == space::global) check_global(p, sizeof(T), low, high, true);
  else check_shared_write(p, &v, sizeof(T), low, high);
  std::memcpy(p, &v, sizeof v);
}

template <space S, typename T>
struct reference {
  T* p;
  const char *low, *high;
  SIMT_INLINE operator T() const { return read_at<S>(p, low, high); }
  SIMT_INLINE const reference& operator=(T v) const { write_at<S>(p, v, low, high); return *this; }
  SIMT_INLINE const reference& operator=(const reference& o) const { return *this = T(o); }
  reference(T* p, const char* low, const char* high) : p(p), low(low), high(high) {}
  reference(const reference&) = default;
  SIMT_INLINE const reference& operator+=(T v) const { return *this = T(*this) + v; }
  SIMT_INLINE const reference& operator-=(T v) const { return *this = T(*this) - v; }
  SIMT_INLINE const reference& operator*=(T v) const { return *this = T(*this) * v; }
  SIMT_INLINE const reference& operator|=(T v) const { return *this = T(T(*this) | v); }
};

template <space S, typename T>
struct view {
  using value = std::remove_const_t<T>;
  T* p = nullptr;
  const char *low = nullptr, *high = nullptr;

  view() = default;
  view(std::nullptr_t) {}
  view(T* p, const char* low, const char* high) : p(p), low(low), high(high) {}
  // A kernel argument: the bounds are those of the allocation.
  template <space R = S, typename = std::enable_if_t<R == space::global>>
  view(T* p) : p(p) {
    if (p) {
      const bounds b = allocation_of(p);
      low = b.low, high = b.high;
    }
  }
  template <typename U, typename = std::enable_if_t<std::is_same_v<const U, T> && !std::is_same_v<U, T>>>
  view(const view<S, U>& o) : p(o.p), low(o.low), high(o.high) {}

  explicit operator bool() const { return p != nullptr; }
  view operator+(long long n) const { return {p + n, low, high}; }
  view operator-(long long n) const { return {p - n, low, high}; }
  view& operator+=(long long n) { p += n; return *this; }
  SIMT_INLINE decltype(auto) operator[](long long i) const {
    if constexpr (std::is_const_v<T>) return read_at<S, value>(p + i, low, high);
    else return reference<S, T>(p + i, low, high);
  }
  SIMT_INLINE decltype(auto) operator*() const { return (*this)[0]; }
};

// --- shared arrays -------------------------------------------------------------------------------------------------

struct shared_span { char *low, *high; };
// The block's array for one declaration: the first thread to reach it makes it. `key` is unique to the declaration.
shared_span shared_array(const void* key, const char* name, size_t bytes);
shared_span dynamic_shared(const char* name);

// --- atomics: a read and a write that nothing comes between, and a place where others may run ---------------------

enum class atomic_op { add, exchange, compare_exchange, minimum, maximum, bit_and, bit_or };
enum class atomic_type { i32, u32, u64, f32, f64 };
// Returns the old value's bits.
uint64_t atomic(space, atomic_op, atomic_type, void* p, uint64_t value, uint64_t compare, const char* low,
                const char* high);
// What a load sees of what others have released: of a value that may be waited for, whom it lets run first, and of one that is there.
void acquire(const void* p);
void acquire_now(const void* p);
void release(void* p);

template <typename T>
constexpr atomic_type atomic_type_of() {
  if constexpr (std::is_same_v<T, float>) return atomic_type::f32;
  else if constexpr (std::is_same_v<T, double>) return atomic_type::f64;
  else if constexpr (std::is_signed_v<T>) return atomic_type::i32;
  else return sizeof(T) == 8 ? atomic_type::u64 : atomic_type::u32;
}

template <space S, typename T>
T atomic_on(atomic_op op, view<S, T> v, T value, T compare = T()) {
  uint64_t a = 0, c = 0;
  std::memcpy(&a, &value, sizeof(T));
  std::memcpy(&c, &compare, sizeof(T));
  a = atomic(S, op, atomic_type_of<T>(), v.p, a, c, v.low, v.high);
  T old;
  std::memcpy(&old, &a, sizeof(T));
  return old;
}

template <typename T> struct same { using type = T; };
template <typename T> using same_t = typename same<T>::type;  // keeps an argument out of deduction

template <space S, typename T> T atomicAdd(view<S, T> p, same_t<T> v) { return atomic_on(atomic_op::add, p, v); }
template <space S, typename T> T atomicExch(view<S, T> p, same_t<T> v) { return atomic_on(atomic_op::exchange, p, v); }
template <space S, typename T> T atomicMin(view<S, T> p, same_t<T> v) { return atomic_on(atomic_op::minimum, p, v); }
template <space S, typename T> T atomicMax(view<S, T> p, same_t<T> v) { return atomic_on(atomic_op::maximum, p, v); }
template <space S, typename T> T atomicAnd(view<S, T> p, same_t<T> v) { return atomic_on(atomic_op::bit_and, p, v); }
template <space S, typename T> T atomicOr(view<S, T> p, same_t<T> v) { return atomic_on(atomic_op::bit_or, p, v); }
template <space S, typename T>
T atomicCAS(view<S, T> p, same_t<T> compare, same_t<T> v) {
  return atomic_on(atomic_op::compare_exchange, p, v, compare);
}

template <typename T>
T __ldg(view<space::global, const T> p) { return p[0]; }

}  // namespace simt
