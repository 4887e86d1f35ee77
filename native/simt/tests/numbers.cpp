// half and bfloat16: every conversion, and arithmetic against a slow definition.
#include <cmath>
#include <cstring>
#include <random>

#include "test.h"

namespace sl::SL_BACKEND_NS {
namespace {

// The value of a 16-bit float by definition.
double value_of(uint16_t bits, int mantissa) {
  const int exponent_bits = 15 - mantissa, bias = (1 << (exponent_bits - 1)) - 1;
  const int e = bits >> mantissa & ((1 << exponent_bits) - 1), m = bits & ((1 << mantissa) - 1);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (e == (1 << exponent_bits) - 1) return m ? NAN : sign * INFINITY;
  if (e == 0) return sign * std::ldexp(m, 1 - bias - mantissa);
  return sign * std::ldexp(m + (1 << mantissa), e - bias - mantissa);
}

// For every pair of neighbours: the middle goes to the even one, a little off it to the nearer.
template <typename T, typename FromFloat>
void check_rounding(int mantissa, FromFloat round) {
  const uint16_t infinity = uint16_t(((1 << (15 - mantissa)) - 1) << mantissa);
  for (uint32_t b = 0; b + 1 < infinity; b++) {
    const double low = value_of(uint16_t(b), mantissa), high = value_of(uint16_t(b + 1), mantissa);
    const float middle = float((low + high) / 2);
    const uint16_t even = uint16_t(b & 1 ? b + 1 : b);
    if (double(middle) == (low + high) / 2) EXPECT(round(middle) == even);
    EXPECT(round(std::nextafterf(middle, 0)) == b);
    EXPECT(round(std::nextafterf(middle, INFINITY)) == b + 1);
    EXPECT(round(float(low)) == b && round(-float(low)) == (b | 0x8000));
  }
}

}  // namespace

TEST(Every_half_converts_exactly_and_every_midpoint_rounds_to_even) {
  for (uint32_t b = 0; b < 65536; b++) {
    const double v = value_of(uint16_t(b), 10);
    const float f = float(__ushort_as_half(uint16_t(b)));
    EXPECT(std::isnan(v) ? std::isnan(f) : v == f && std::signbit(v) == std::signbit(f));
    if (!std::isnan(v)) EXPECT(half(f).bits == b && half(v).bits == b);
    else EXPECT(__hisnan(half(f)) && __hisnan(half(v)));
  }
  check_rounding<half>(10, [](float v) { return half(v).bits; });
  check_rounding<half>(10, [](float v) { return half(double(v)).bits; });
  EXPECT(half(65519.0f).bits == 0x7bff && half(65520.0f).bits == 0x7c00 && half(1e30f).bits == 0x7c00);
  EXPECT(half(0x1p-25f).bits == 0 && half(0x1.8p-25f).bits == 1);
}

TEST(Every_bfloat16_converts_exactly_and_every_midpoint_rounds_to_even) {
  for (uint32_t b = 0; b < 65536; b++) {
    const double v = value_of(uint16_t(b), 7);
    const float f = float(__ushort_as_bfloat16(uint16_t(b)));
    EXPECT(std::isnan(v) ? std::isnan(f) : v == f && std::signbit(v) == std::signbit(f));
    if (!std::isnan(v)) EXPECT(bfloat16(f).bits == b && bfloat16(v).bits == b);
    else EXPECT(__hisnan(bfloat16(f)) && __hisnan(bfloat16(v)));
  }
  check_rounding<bfloat16>(7, [](float v) { return bfloat16(v).bits; });
  check_rounding<bfloat16>(7, [](float v) { return bfloat16(double(v)).bits; });
}

TEST(Fused_multiply_add_rounds_once) {
  std::mt19937 random(1);
  for (int i = 0; i < 200000; i++) {
    const half a = __ushort_as_half(uint16_t(random())), b = __ushort_as_half(uint16_t(random())),
               c = __ushort_as_half(uint16_t(random()));
    // Binary128 holds any product and sum of binary16 exactly.
    const __float128 exact = __float128(float(a)) * __float128(float(b)) + __float128(float(c));
    if (!(exact == exact) || exact > 65000 || exact < -65000) continue;
    const half got = __hfma(a, b, c);
    const __float128 error = exact - __float128(float(got));
    const half up = __ushort_as_half(uint16_t(got.bits + 1)), down = __ushort_as_half(uint16_t(got.bits - 1));
    const auto off = [&](half h) {
      const __float128 d = exact - __float128(float(h));
      return d < 0 ? -d : d;
    };
    const __float128 mine = error < 0 ? -error : error;
    if ((got.bits & 0x7fff) == 0) continue;  // its neighbours lie across zero
    EXPECT(mine <= off(up) && mine <= off(down));
    if (mine == off(up) || mine == off(down)) EXPECT((got.bits & 1) == 0);
  }
}

}  // namespace sl::SL_BACKEND_NS
