// Sixteen lanes of f32 on whatever the translation unit is compiled for, and what is made of them alike everywhere.
//
// The files that include this are compiled once an instruction set, in the namespace that SL_ISA names. They include
// nothing of the C++ library and everything here has internal linkage: an inline function compiled for AVX-512 that the
// linker picked for all would bring down a processor without it.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

#include "kernels.h"

#define SL_UNROLL _Pragma("GCC unroll 16")

namespace sl::cpu::SL_ISA {
namespace {

#if defined(__AVX512F__)
#include "simd_avx512.h"
#elif defined(__AVX2__)
#include "simd_avx2.h"
#elif defined(__ARM_FEATURE_DOTPROD)
#include "simd_neon.h"
#else
#include "simd_portable.h"
#endif

constexpr float kLog2e = 1.44269504088896340736f;

// E4M3's exponent has three bits fewer than f16's and lies 8 below: the bits of a magnitude, moved, are an f16 of 2^-8 the value,
// subnormals too.
inline f32x16 load_e4m3(const uint8_t* p) {
  uint16_t half[16];
  for (int i = 0; i < 16; ++i) {
    const uint16_t magnitude = p[i] & 0x7f, sign = (uint16_t)((p[i] & 0x80) << 8);
    half[i] = (uint16_t)(sign | (magnitude == 0x7f ? 0x7e00 : magnitude << 7));
  }
  return load_f16(half) * set1(256.0f);
}

inline f32x16 load_as(sl_dtype dtype, const void* data, int64_t index) {
  switch (dtype) {
    case SL_DTYPE_F16: return load_f16((const uint16_t*)data + index);
    case SL_DTYPE_BF16: return load_bf16((const uint16_t*)data + index);
    default: return load((const float*)data + index);
  }
}

inline void store_as(sl_dtype dtype, void* data, int64_t index, f32x16 x) {
  switch (dtype) {
    case SL_DTYPE_F16: store_f16((uint16_t*)data + index, x); break;
    case SL_DTYPE_BF16: store_bf16((uint16_t*)data + index, x); break;
    default: store((float*)data + index, x);
  }
}

// The first `count` lanes, zeros in the others; and the first `count` lanes only.
inline f32x16 load_some(sl_dtype dtype, const void* data, int64_t index, int64_t count) {
  if (count >= 16) return load_as(dtype, data, index);
  const int64_t size = dtype == SL_DTYPE_F32 ? 4 : 2;
  char part[64] = {};
  memcpy(part, (const char*)data + index * size, (size_t)(count * size));
  return load_as(dtype, part, 0);
}

inline void store_some(sl_dtype dtype, void* data, int64_t index, int64_t count, f32x16 x) {
  if (count >= 16) {
    store_as(dtype, data, index, x);
    return;
  }
  const int64_t size = dtype == SL_DTYPE_F32 ? 4 : 2;
  char part[64];
  store_as(dtype, part, 0, x);
  memcpy((char*)data + index * size, part, (size_t)(count * size));
}

// e^r for |r| <= ln(2)/2 by its series: the first term left out is below 6e-9.
inline f32x16 small_exp(f32x16 r) {
  f32x16 p = set1(1.0f / 5040);
  p = fma(p, r, set1(1.0f / 720));
  p = fma(p, r, set1(1.0f / 120));
  p = fma(p, r, set1(1.0f / 24));
  p = fma(p, r, set1(1.0f / 6));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.0f));
  return fma(p, r, set1(1.0f));
}

// 2^x. Below -126 it is 0; NaN stays NaN.
inline f32x16 exp2(f32x16 x) {
  const f32x16 limited = min(set1(128.0f), max(set1(-126.0f), x));
  const f32x16 n = nearest(limited);
  const f32x16 power = small_exp((limited - n) * set1(0.69314718055994530942f)) * pow2(n);
  return select_less(x, set1(-126.0f), zero(), power);
}

// The same to the bit for x up to 0.
inline f32x16 exp2_below(f32x16 x) {
  const f32x16 limited = max(set1(-126.0f), x), n = nearest(limited);
  const f32x16 power = times_pow2(small_exp((limited - n) * set1(0.69314718055994530942f)), n);
  return select_less(x, set1(-126.0f), zero(), power);
}

// e^x, with ln(2) in two parts so that large x keep their last place.
inline f32x16 exp(f32x16 x) {
  const f32x16 limited = min(set1(88.8f), max(set1(-87.3f), x));
  const f32x16 n = nearest(limited * set1(kLog2e));
  const f32x16 r = fma(n, set1(-1.42860677e-6f), fma(n, set1(-0.693145752f), limited));
  const f32x16 power = small_exp(r) * pow2(n);
  return select_less(x, set1(-87.3f), zero(), power);
}

// Near 0 by a polynomial, so that no digits are lost to 1 - 1.   Source: Cephes (Moshier), tanhf.
inline f32x16 tanh(f32x16 x) {
  const f32x16 square = x * x, magnitude = abs(x);
  f32x16 p = set1(-5.70498872745e-3f);
  p = fma(p, square, set1(2.06390887954e-2f));
  p = fma(p, square, set1(-5.37397155531e-2f));
  p = fma(p, square, set1(1.33314422036e-1f));
  p = fma(p, square, set1(-3.33332819422e-1f));
  const f32x16 small = fma(p * square, x, x);
  const f32x16 tail = set1(2.0f) / (exp(magnitude + magnitude) + set1(1.0f));
  const f32x16 positive = set1(1.0f) - tail, large = select_less(x, zero(), zero() - positive, positive);
  return select_less(magnitude, set1(0.625f), small, large);
}

}  // namespace
}  // namespace sl::cpu::SL_ISA
