// binary16 and bfloat16: conversions and fused multiply-add, each with one rounding to nearest even.
#include <cmath>

#include "simt/bfloat16.h"
#include "simt/half.h"

namespace simt {
namespace {

// Rounds to `mantissa` explicit bits with exponents from `lowest` (of the smallest normal) to `highest`.
uint16_t round_bits(double v, int mantissa, int lowest, int highest) {
  const int exponent_bits = 15 - mantissa;
  const uint16_t sign = std::signbit(v) ? 0x8000 : 0;
  const uint16_t infinity = uint16_t(((1 << exponent_bits) - 1) << mantissa);
  if (std::isnan(v)) return uint16_t(sign | infinity | 1 << (mantissa - 1));
  const double a = std::fabs(v);
  if (std::isinf(a)) return uint16_t(sign | infinity);
  if (a == 0) return sign;
  int e;
  std::frexp(a, &e);
  e = std::max(e - 1, lowest);
  // In units of the last place at this exponent, which for subnormals is that of the smallest normal.
  const double units = std::nearbyint(std::ldexp(a, mantissa - e));
  const auto u = uint32_t(units);
  // A subnormal has field 0; rounding up into the next binade carries by itself.
  const uint32_t bits = u + (uint32_t(e - lowest) << mantissa);
  return uint16_t(sign | (bits > infinity || e > highest ? infinity : bits));
}

// a * b + c, rounded to odd at 53 bits, so that the rounding that follows is the only one.
double fused(double a, double b, double c) {
  const double p = a * b;  // exact: both have few digits
  const double s = p + c;
  const double t = s - p, error = (p - (s - t)) + (c - t);
  if (error == 0 || !std::isfinite(s)) return s;
  const uint64_t bits = bits_as<uint64_t>(s);
  if (bits & 1) return s;
  // Towards the error by one step makes the last digit odd.
  return bits_as<double>((error > 0) == (s > 0) ? bits + 1 : bits - 1);
}

}  // namespace

uint16_t half_bits_from_float(float v) {
  const uint32_t u = bits_as<uint32_t>(v), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
  if (a > 0x7f800000) return uint16_t(sign | 0x7e00 | (a >> 13 & 0x1ff));
  if (a >= 0x47800000) return uint16_t(sign | 0x7c00);
  if (a < 0x38800000) {
    // Subnormal: adding 0.5 puts its digits at the end of the mantissa, rounded.
    const float shifted = bits_as<float>(a) + 0.5f;
    return uint16_t(sign | (bits_as<uint32_t>(shifted) - 0x3f000000));
  }
  return uint16_t(sign | ((a + 0xfff + (a >> 13 & 1) - 0x38000000) >> 13));
}

float float_from_half_bits(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16, a = h & 0x7fff;
  if (a >= 0x7c00) return bits_as<float>(sign | 0x7f800000 | (a & 0x3ff) << 13);
  if (a < 0x400) return bits_as<float>(sign | bits_as<uint32_t>(float(a) * 0x1p-24f));
  return bits_as<float>(sign | ((a << 13) + 0x38000000));
}

uint16_t half_bits_from_double(double v) { return round_bits(v, 10, -14, 15); }
uint16_t bfloat16_bits_from_double(double v) { return round_bits(v, 7, -126, 127); }

half __hfma(half a, half b, half c) { return half(fused(float(a), float(b), float(c))); }
bfloat16 __hfma(bfloat16 a, bfloat16 b, bfloat16 c) { return bfloat16(fused(float(a), float(b), float(c))); }

}  // namespace simt
