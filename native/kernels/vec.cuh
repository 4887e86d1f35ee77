// Numbers and how they travel: conversions, 16-byte loads and stores.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>
#include <type_traits>

#include "mem.cuh"

namespace sl {
namespace SL_BACKEND_NS {

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(half v) { return __half2float(v); }
__device__ __forceinline__ float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }

template <typename T> __device__ __forceinline__ T from_float(float v);
template <> __device__ __forceinline__ float from_float<float>(float v) { return v; }
template <> __device__ __forceinline__ half from_float<half>(float v) { return __float2half_rn(v); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float v) { return __float2bfloat16_rn(v); }

// Elements that a thread moves at once where alignment allows.
template <typename T> constexpr int elements_of_16_bytes = 16 / int(sizeof(T));

// N neighbours as floats, by loads of 16 bytes (8 where there are no more), to which they must be aligned.
template <int N, typename T>
__device__ __forceinline__ void load_floats(float (&out)[N], gmem<const T> p) {
  if constexpr (N * sizeof(T) == 16 || N * sizeof(T) == 8) {
    using raw_t = std::conditional_t<N * sizeof(T) == 16, uint4, uint2>;
    const raw_t raw = view_as<raw_t>(p)[0];
    T v[N];
    memcpy(v, &raw, sizeof raw);
#pragma unroll
    for (int i = 0; i < N; i++) out[i] = to_float(v[i]);
  } else if constexpr (N * sizeof(T) == 32) {
    float low[N / 2], high[N / 2];
    load_floats<N / 2, T>(low, p);
    load_floats<N / 2, T>(high, p + N / 2);
#pragma unroll
    for (int i = 0; i < N / 2; i++) out[i] = low[i], out[i + N / 2] = high[i];
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) out[i] = to_float(p[i]);
  }
}

template <int N, typename T>
__device__ __forceinline__ void store_floats(gmem<T> p, const float (&v)[N]) {
  if constexpr (N * sizeof(T) == 16 || N * sizeof(T) == 8) {
    using raw_t = std::conditional_t<N * sizeof(T) == 16, uint4, uint2>;
    T narrow[N];
#pragma unroll
    for (int i = 0; i < N; i++) narrow[i] = from_float<T>(v[i]);
    raw_t raw;
    memcpy(&raw, narrow, sizeof raw);
    view_as<raw_t>(p)[0] = raw;
  } else if constexpr (N * sizeof(T) == 32) {
    float low[N / 2], high[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) low[i] = v[i], high[i] = v[i + N / 2];
    store_floats<N / 2, T>(p, low);
    store_floats<N / 2, T>(p + N / 2, high);
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) p[i] = from_float<T>(v[i]);
  }
}

// Activations of a type that is known when the kernel runs: one of the three is not null.
struct any_input {
  gmem<const float> f32;
  gmem<const half> f16;
  gmem<const __nv_bfloat16> bf16;
  __device__ __forceinline__ bool present() const { return bool(f32) || bool(f16) || bool(bf16); }
  __device__ __forceinline__ float at(long long i) const {
    return f32 ? f32[i] : f16 ? to_float(f16[i]) : to_float(bf16[i]);
  }
  // N neighbours, whose addresses are multiples of 16 bytes (8 where they take no more).
  template <int N>
  __device__ __forceinline__ void load(float (&out)[N], long long i) const {
    if (f32) load_floats<N, float>(out, f32 + i);
    else if (f16) load_floats<N, half>(out, f16 + i);
    else load_floats<N, __nv_bfloat16>(out, bf16 + i);
  }
  // The same for 4, with one load for both 16-bit types and a choice of what its bits mean: products need the registers.
  __device__ __forceinline__ void load_four(float (&v)[4], long long i) const {
    if (f32) return load_floats<4, float>(v, f32 + i);
    const uint2 raw = f16 ? view_as<uint2>(f16 + i)[0] : view_as<uint2>(bf16 + i)[0];
    const bool half_type = bool(f16);
#pragma unroll
    for (int p = 0; p < 2; p++) {
      const uint32_t bits = p ? raw.y : raw.x;
      half2 h;
      memcpy(&h, &bits, 4);
      const float2 wide = __half22float2(h);
      v[2 * p] = half_type ? wide.x : __uint_as_float(bits << 16);
      v[2 * p + 1] = half_type ? wide.y : __uint_as_float(bits & 0xffff0000u);
    }
  }
  __device__ __forceinline__ void load_some(float (&v)[4], long long i, int valid, bool aligned) const {
    if (aligned && valid >= 4) return load_four(v, i);
#pragma unroll
    for (int e = 0; e < 4; e++) v[e] = e < valid ? at(i + e) : 0.0f;
  }
  // The octet at i, of which `valid` are there and the others 0; at once where `aligned` says that whole ones may be.
  __device__ __forceinline__ void load_octet(float (&v)[8], long long i, int valid, bool aligned) const {
    if (aligned && valid >= 8) {
      load<8>(v, i);
      return;
    }
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] = e < valid ? at(i + e) : 0.0f;
  }
};
struct any_output {
  gmem<float> f32;
  gmem<half> f16;
  gmem<__nv_bfloat16> bf16;
  __device__ __forceinline__ void put(long long i, float v) const {
    if (f32) f32[i] = v;
    else if (f16) f16[i] = from_float<half>(v);
    else bf16[i] = from_float<__nv_bfloat16>(v);
  }
  __device__ __forceinline__ void put_four(long long i, const float (&v)[4]) const {
    if (f32) {
      store_floats<4, float>(f32 + i, v);
      return;
    }
    uint32_t pair[2];
#pragma unroll
    for (int p = 0; p < 2; p++) {
      const half2 h = __floats2half2_rn(v[2 * p], v[2 * p + 1]);
      const __nv_bfloat162 b = __floats2bfloat162_rn(v[2 * p], v[2 * p + 1]);
      if (f16) memcpy(&pair[p], &h, 4);
      else memcpy(&pair[p], &b, 4);
    }
    if (f16) view_as<uint2>(f16 + i)[0] = make_uint2(pair[0], pair[1]);
    else view_as<uint2>(bf16 + i)[0] = make_uint2(pair[0], pair[1]);
  }
};

}  // namespace SL_BACKEND_NS
}  // namespace sl
