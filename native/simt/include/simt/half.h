// IEEE binary16 with round-to-nearest-even. Conversions are explicit, so that no sum silently becomes f32.
#pragma once

#include <cmath>
#include <cstdint>

#include "simt/math.h"

namespace simt {

uint16_t half_bits_from_float(float);
uint16_t half_bits_from_double(double);  // one rounding
float float_from_half_bits(uint16_t);

struct half {
  uint16_t bits;
  half() = default;
  explicit half(float v) : bits(half_bits_from_float(v)) {}
  explicit half(double v) : bits(half_bits_from_double(v)) {}
  explicit half(int v) : bits(half_bits_from_double(v)) {}
  explicit operator float() const { return float_from_half_bits(bits); }
};
struct alignas(4) half2 {
  half x, y;
  half2() = default;
  half2(half x, half y) : x(x), y(y) {}
};
using __half = half;
using __half2 = half2;

inline float __half2float(half v) { return float(v); }
inline half __float2half(float v) { return half(v); }
inline half __float2half_rn(float v) { return half(v); }
inline half __int2half_rn(int v) { return half(v); }
inline half __ushort_as_half(unsigned short v) { half h; h.bits = v; return h; }
inline unsigned short __half_as_ushort(half v) { return v.bits; }

// f32 holds more than twice binary16's digits plus two, so rounding twice equals rounding once for + - * / and sqrt.
inline half operator+(half a, half b) { return half(float(a) + float(b)); }
inline half operator-(half a, half b) { return half(float(a) - float(b)); }
inline half operator*(half a, half b) { return half(float(a) * float(b)); }
inline half operator/(half a, half b) { return half(float(a) / float(b)); }
inline half operator-(half a) { return __ushort_as_half(a.bits ^ 0x8000); }
inline half& operator+=(half& a, half b) { return a = a + b; }
inline half& operator-=(half& a, half b) { return a = a - b; }
inline half& operator*=(half& a, half b) { return a = a * b; }
inline bool operator==(half a, half b) { return float(a) == float(b); }
inline bool operator!=(half a, half b) { return float(a) != float(b); }
inline bool operator<(half a, half b) { return float(a) < float(b); }
inline bool operator>(half a, half b) { return float(a) > float(b); }
inline bool operator<=(half a, half b) { return float(a) <= float(b); }
inline bool operator>=(half a, half b) { return float(a) >= float(b); }

half __hfma(half a, half b, half c);  // one rounding
inline half __hadd(half a, half b) { return a + b; }
inline half __hsub(half a, half b) { return a - b; }
inline half __hmul(half a, half b) { return a * b; }
inline half __hneg(half a) { return -a; }
inline half __habs(half a) { return __ushort_as_half(a.bits & 0x7fff); }
inline half __hmax(half a, half b) { return half(std::fmax(float(a), float(b))); }
inline half __hmin(half a, half b) { return half(std::fmin(float(a), float(b))); }
inline bool __hisnan(half a) { return (a.bits & 0x7fff) > 0x7c00; }

inline half2 make_half2(half x, half y) { return half2(x, y); }
inline half2 __halves2half2(half x, half y) { return half2(x, y); }
inline half2 __half2half2(half v) { return half2(v, v); }
inline half2 __float2half2_rn(float v) { return half2(half(v), half(v)); }
inline half2 __floats2half2_rn(float x, float y) { return half2(half(x), half(y)); }
inline half2 __float22half2_rn(float2 v) { return half2(half(v.x), half(v.y)); }
inline float2 __half22float2(half2 v) { return {float(v.x), float(v.y)}; }
inline half __low2half(half2 v) { return v.x; }
inline half __high2half(half2 v) { return v.y; }
inline float __low2float(half2 v) { return float(v.x); }
inline float __high2float(half2 v) { return float(v.y); }
inline half2 __hadd2(half2 a, half2 b) { return half2(a.x + b.x, a.y + b.y); }
inline half2 __hsub2(half2 a, half2 b) { return half2(a.x - b.x, a.y - b.y); }
inline half2 __hmul2(half2 a, half2 b) { return half2(a.x * b.x, a.y * b.y); }
inline half2 __hfma2(half2 a, half2 b, half2 c) { return half2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)); }
inline half2 operator+(half2 a, half2 b) { return __hadd2(a, b); }
inline half2 operator-(half2 a, half2 b) { return __hsub2(a, b); }
inline half2 operator*(half2 a, half2 b) { return __hmul2(a, b); }

}  // namespace simt
