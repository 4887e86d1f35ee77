// bfloat16 with round-to-nearest-even. Conversions are explicit, as in half.h.
#pragma once

#include <cmath>
#include <cstdint>

#include "simt/math.h"

namespace simt {

uint16_t bfloat16_bits_from_double(double);  // one rounding

inline uint16_t bfloat16_bits_from_float(float v) {
  const uint32_t u = bits_as<uint32_t>(v);
  if ((u & 0x7fffffff) > 0x7f800000) return uint16_t(u >> 16 | 0x40);  // keep a NaN a NaN
  return uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

struct bfloat16 {
  uint16_t bits;
  bfloat16() = default;
  explicit bfloat16(float v) : bits(bfloat16_bits_from_float(v)) {}
  explicit bfloat16(double v) : bits(bfloat16_bits_from_double(v)) {}
  explicit bfloat16(int v) : bits(bfloat16_bits_from_double(v)) {}
  explicit operator float() const { return bits_as<float>(uint32_t(bits) << 16); }
};
struct alignas(4) bfloat162 {
  bfloat16 x, y;
  bfloat162() = default;
  bfloat162(bfloat16 x, bfloat16 y) : x(x), y(y) {}
};
using __nv_bfloat16 = bfloat16;
using __nv_bfloat162 = bfloat162;

inline float __bfloat162float(bfloat16 v) { return float(v); }
inline bfloat16 __float2bfloat16(float v) { return bfloat16(v); }
inline bfloat16 __float2bfloat16_rn(float v) { return bfloat16(v); }
inline bfloat16 __ushort_as_bfloat16(unsigned short v) { bfloat16 b; b.bits = v; return b; }
inline unsigned short __bfloat16_as_ushort(bfloat16 v) { return v.bits; }

inline bfloat16 operator+(bfloat16 a, bfloat16 b) { return bfloat16(float(a) + float(b)); }
inline bfloat16 operator-(bfloat16 a, bfloat16 b) { return bfloat16(float(a) - float(b)); }
inline bfloat16 operator*(bfloat16 a, bfloat16 b) { return bfloat16(float(a) * float(b)); }
inline bfloat16 operator/(bfloat16 a, bfloat16 b) { return bfloat16(float(a) / float(b)); }
inline bfloat16 operator-(bfloat16 a) { return __ushort_as_bfloat16(a.bits ^ 0x8000); }
inline bfloat16& operator+=(bfloat16& a, bfloat16 b) { return a = a + b; }
inline bfloat16& operator-=(bfloat16& a, bfloat16 b) { return a = a - b; }
inline bfloat16& operator*=(bfloat16& a, bfloat16 b) { return a = a * b; }
inline bool operator==(bfloat16 a, bfloat16 b) { return float(a) == float(b); }
inline bool operator!=(bfloat16 a, bfloat16 b) { return float(a) != float(b); }
inline bool operator<(bfloat16 a, bfloat16 b) { return float(a) < float(b); }
inline bool operator>(bfloat16 a, bfloat16 b) { return float(a) > float(b); }
inline bool operator<=(bfloat16 a, bfloat16 b) { return float(a) <= float(b); }
inline bool operator>=(bfloat16 a, bfloat16 b) { return float(a) >= float(b); }

bfloat16 __hfma(bfloat16 a, bfloat16 b, bfloat16 c);  // one rounding
inline bfloat16 __hadd(bfloat16 a, bfloat16 b) { return a + b; }
inline bfloat16 __hsub(bfloat16 a, bfloat16 b) { return a - b; }
inline bfloat16 __hmul(bfloat16 a, bfloat16 b) { return a * b; }
inline bfloat16 __hneg(bfloat16 a) { return -a; }
inline bfloat16 __habs(bfloat16 a) { return __ushort_as_bfloat16(a.bits & 0x7fff); }
inline bfloat16 __hmax(bfloat16 a, bfloat16 b) { return bfloat16(std::fmax(float(a), float(b))); }
inline bfloat16 __hmin(bfloat16 a, bfloat16 b) { return bfloat16(std::fmin(float(a), float(b))); }
inline bool __hisnan(bfloat16 a) { return (a.bits & 0x7fff) > 0x7f80; }

inline bfloat162 make_bfloat162(bfloat16 x, bfloat16 y) { return bfloat162(x, y); }
inline bfloat162 __halves2bfloat162(bfloat16 x, bfloat16 y) { return bfloat162(x, y); }
inline bfloat162 __bfloat162bfloat162(bfloat16 v) { return bfloat162(v, v); }
inline bfloat162 __float2bfloat162_rn(float v) { return bfloat162(bfloat16(v), bfloat16(v)); }
inline bfloat162 __floats2bfloat162_rn(float x, float y) { return bfloat162(bfloat16(x), bfloat16(y)); }
inline float2 __bfloat1622float2(bfloat162 v) { return {float(v.x), float(v.y)}; }
inline bfloat16 __low2bfloat16(bfloat162 v) { return v.x; }
inline bfloat16 __high2bfloat16(bfloat162 v) { return v.y; }
inline float __low2float(bfloat162 v) { return float(v.x); }
inline float __high2float(bfloat162 v) { return float(v.y); }
inline bfloat162 __hadd2(bfloat162 a, bfloat162 b) { return bfloat162(a.x + b.x, a.y + b.y); }
inline bfloat162 __hsub2(bfloat162 a, bfloat162 b) { return bfloat162(a.x - b.x, a.y - b.y); }
inline bfloat162 __hmul2(bfloat162 a, bfloat162 b) { return bfloat162(a.x * b.x, a.y * b.y); }
inline bfloat162 __hfma2(bfloat162 a, bfloat162 b, bfloat162 c) {
  return bfloat162(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));
}

}  // namespace simt
