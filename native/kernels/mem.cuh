// How kernels reach memory. gmem<T> and smem<T> are plain pointers under nvcc, and checked, counting views in the
// executor; indexing and adding read the same in both. A view of const gives values, so that `x[i]` of a gmem<const T>
// can be passed to any function; a view of mutable T gives a reference.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#if !defined(__CUDACC__)
#include "simt/views.h"
#endif

namespace sl {
namespace SL_BACKEND_NS {

#if defined(__CUDACC__)

template <typename T> using gmem = T*;
template <typename T> using smem = T*;

// A kernel argument of n elements: the executor checks accesses against n instead of the whole allocation.
template <typename T>
gmem<T> span(T* p, size_t) { return p; }

template <typename V>
__device__ __forceinline__ V* view_as(void* p) { return static_cast<V*>(p); }
template <typename V>
__device__ __forceinline__ const V* view_as(const void* p) { return static_cast<const V*>(p); }

// Says that threads may end before a barrier that the others wait at.
__device__ __forceinline__ void early_exit_allowed() {}

// A shared array of the block, and its dynamic shared memory. 16-byte aligned.
#define SHARED_ARRAY(T, name, n) __shared__ __align__(16) T name[n]
#define DYN_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char sl_dynamic[]; \
  T* const name = reinterpret_cast<T*>(sl_dynamic)

#else

template <typename T> using gmem = ::simt::view<::simt::space::global, T>;
template <typename T> using smem = ::simt::view<::simt::space::shared, T>;

template <typename T>
gmem<T> span(T* p, size_t n) {
  gmem<T> v(p);
  const char* end = reinterpret_cast<const char*>(p + n);
  if (p && end < v.high) v.high = end;
  if (p) v.low = reinterpret_cast<const char*>(p);
  return v;
}

template <typename V, ::simt::space S, typename T>
auto view_as(::simt::view<S, T> v) {
  using U = std::conditional_t<std::is_const_v<T>, const V, V>;
  return ::simt::view<S, U>(reinterpret_cast<U*>(v.p), v.low, v.high);
}

inline void early_exit_allowed() { ::simt::allow_early_exit(); }

#define SL_SHARED_VIEW(T, name, ...)                                 \
  const ::simt::shared_span name##_span = __VA_ARGS__;               \
  const smem<T> name(reinterpret_cast<T*>(name##_span.low), name##_span.low, name##_span.high)
#define SHARED_ARRAY(T, name, n)         \
  static const char name##_key = 0;      \
  SL_SHARED_VIEW(T, name, ::simt::shared_array(&name##_key, #name, sizeof(T) * (n)))
#define DYN_SHARED(T, name) SL_SHARED_VIEW(T, name, ::simt::dynamic_shared(#name))

#endif

}  // namespace SL_BACKEND_NS
}  // namespace sl
