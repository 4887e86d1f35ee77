// Keys and values in eight bits, with a scale a token and head: int8, and e4m3 (4 exponent bits of bias 7, 3 of mantissa, no
// infinities, largest 448, NaN 0x7f).   Source: Micikevicius et al. 2022.
#pragma once

#include <type_traits>

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

// Two 16-bit numbers in a word.
template <typename T> struct pair_of { using type = half2; };
template <> struct pair_of<__nv_bfloat16> { using type = __nv_bfloat162; };

template <typename T>
__device__ __forceinline__ typename pair_of<T>::type as_pair(uint32_t bits) {
  typename pair_of<T>::type v;
  memcpy(&v, &bits, 4);
  return v;
}
template <typename P>
__device__ __forceinline__ uint32_t as_word(P pair) {
  uint32_t bits;
  memcpy(&bits, &pair, 4);
  return bits;
}

// Four neighbours of eight bits to four of T, two at a time: exact, for T has more bits of either field.
template <typename T>
__device__ __forceinline__ void widen_4(uint32_t& low, uint32_t& high, uint32_t raw, int dtype) {
  constexpr bool is_half = std::is_same_v<T, half>;
  if (dtype == SL_DTYPE_FP8_E4M3) {
    const auto widen = [](uint32_t x) {  // the bytes stand on top of their half words
      // The fields moved to their places in T, whose exponent then lacks 15 - 7, or 127 - 7.
      const uint32_t bits = (x & 0x80008000u) | ((x & 0x7f007f00u) >> (is_half ? 1 : 4));
      const uint32_t factor = is_half ? 0x5c005c00u : 0x7b807b80u;  // 2^8, 2^120
      const uint32_t nan = ((x & 0x7f007f00u) + 0x01000100u) >> 15 & 0x00010001u;
      return as_word(__hmul2(as_pair<T>(bits), as_pair<T>(factor))) | nan * 0x7fffu;
    };
    low = widen(__byte_perm(raw, 0, 0x1404)), high = widen(__byte_perm(raw, 0, 0x3424));
  } else if constexpr (is_half) {
    // 128 more than the number, as the lowest bits of 1024.
    const uint32_t biased = raw ^ 0x80808080u;
    low = as_word(__hsub2(as_pair<T>(__byte_perm(biased, 0x64646464u, 0x4140)), as_pair<T>(0x64806480u)));
    high = as_word(__hsub2(as_pair<T>(__byte_perm(biased, 0x64646464u, 0x4342)), as_pair<T>(0x64806480u)));
  } else {
    const auto pack = [](uint32_t a, uint32_t b) {  // such integers are the upper halves of their f32
      return __byte_perm(__float_as_uint(int8_to_float(a)), __float_as_uint(int8_to_float(b)), 0x7632);
    };
    low = pack(raw & 0xffu, raw >> 8 & 0xffu), high = pack(raw >> 16 & 0xffu, raw >> 24);
  }
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
