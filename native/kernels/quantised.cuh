// Keys and values in eight bits, with a scale a token and head: int8, and e4m3 (4 exponent bits of bias 7, 3 of mantissa, no
// infinities, largest 448, NaN 0x7f).   Source: Micikevicius et al. 2022.
#pragma once

#include "backend.h"
#include "vec.cuh"

namespace sl {
namespace SL_BACKEND_NS {

__device__ __forceinline__ float e4m3_to_float(unsigned bits) {
  // The fields at their places in an f32, whose exponent then lacks 127 - 7.
  const float magnitude = __uint_as_float((bits & 0x7fu) << 20) * __uint_as_float(247u << 23);
  const unsigned sign = (bits & 0x80u) << 24;
  return __uint_as_float(sign | ((bits & 0x7fu) == 0x7fu ? 0x7fc00000u : __float_as_uint(magnitude)));
}

// To the nearest, ties to even, what is too large to +-448.
__device__ __forceinline__ unsigned float_to_e4m3(float v) {
  const unsigned bits = __float_as_uint(v), sign = bits >> 24 & 0x80u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7fu;
  if (magnitude >= 0x43e00000u) return sign | 0x7eu;  // 448
  if (magnitude < 0x3c800000u)                        // 2^-6: steps of 2^-9
    return sign | unsigned(__float2int_rn(__uint_as_float(magnitude) * 512.0f));
  return sign | (((magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20) - (120u << 3));
}

// The bits, 128 more, as the lowest of an f32 of 2^23: cheaper than a conversion.
__device__ __forceinline__ float int8_to_float(unsigned bits) {
  return __uint_as_float(0x4b000000u | (bits ^ 0x80u)) - 8388736.0f;
}

// NaN becomes a limit, as fmaxf and fminf have it.
__device__ __forceinline__ unsigned float_to_int8(float v) {
  return unsigned(__float2int_rn(fmaxf(-127.0f, fminf(127.0f, rintf(v))))) & 0xffu;
}

// The scale of a vector whose largest magnitude is `largest`: that becomes the type's largest value.
__device__ __forceinline__ float scale_of(float largest, int dtype) { return largest / (dtype == SL_DTYPE_I8 ? 127.0f : 448.0f); }

__device__ __forceinline__ bool eight_bits(int dtype) { return dtype == SL_DTYPE_I8 || dtype == SL_DTYPE_FP8_E4M3; }
__device__ __forceinline__ float eight_to_float(unsigned bits, int dtype) {
  return dtype == SL_DTYPE_I8 ? int8_to_float(bits) : e4m3_to_float(bits);
}

// Element `at` of a pool of any type.
__device__ __forceinline__ float pool_at(gmem<const unsigned char> pool, int dtype, long long at) {
  if (eight_bits(dtype)) return eight_to_float(pool[at], dtype);
  if (dtype == SL_DTYPE_F32) return view_as<float>(pool)[at];
  return dtype == SL_DTYPE_F16 ? to_float(view_as<half>(pool)[at]) : to_float(view_as<__nv_bfloat16>(pool)[at]);
}

// Four neighbours; `at` is a multiple of 4.
__device__ __forceinline__ void pool_4_at(float (&out)[4], gmem<const unsigned char> pool, int dtype, long long at) {
  if (eight_bits(dtype)) {
    const unsigned raw = view_as<unsigned>(pool)[at / 4];
#pragma unroll
    for (int i = 0; i < 4; i++) out[i] = eight_to_float(raw >> (8 * i) & 0xffu, dtype);
  } else if (dtype == SL_DTYPE_F32) {
    load_floats<4>(out, view_as<float>(pool) + at);
  } else {
    const uint2 raw = view_as<uint2>(pool)[at / 4];
    unsigned short each[4];
    memcpy(each, &raw, 8);
#pragma unroll
    for (int i = 0; i < 4; i++)
      out[i] = dtype == SL_DTYPE_F16 ? __half2float(__ushort_as_half(each[i])) : __uint_as_float(unsigned(each[i]) << 16);
  }
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
