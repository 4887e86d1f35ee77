// A weight as the matrix kernels take it, and the unpacking of its octets: 8 neighbours along K.
#pragma once

#include "packed.h"
#include "ptx.cuh"
#include "vec.cuh"
#include "weight.h"

namespace sl {
namespace SL_BACKEND_NS {

struct weight_view {
  gmem<const char> data, groups;
  storage kind;
  int rows, cols;    // N, K
  int group, shift;  // weights along K that share a scale; its logarithm where it is a power of two, else -1
  int row_groups;    // K / group
  bool aligned;      // a dense row is a sequence of whole 16-byte octets
  __device__ __forceinline__ int group_of(int k) const { return shift >= 0 ? k >> shift : k / group; }
  __device__ __forceinline__ bool halves() const { return kind == storage::int4_zero || kind == storage::int4_bias; }
  __device__ __forceinline__ bool has_zero() const { return kind == storage::int4_zero; }

  // A group's scale, and its zero point or bias.
  __device__ __forceinline__ float2 group_at(long long n, int g) const {
    const long long at = n * row_groups + g;
    return halves() ? __half22float2(view_as<half2>(groups)[at]) : view_as<float2>(groups)[at];
  }
};

// 0x6400 is 1024 in binary16, whose last place is 1: a nibble put there by one LOP3 is 1024 + q, and 1024 + 16 q from the
// nibble above.   Source: Kim et al. 2022 (the bias trick), as used by FasterTransformer and Marlin.
constexpr int and_or = (0xf0 & 0xcc) | 0xaa;

// Octet j of a four-bit unit minus `zero`, exact.
__device__ __forceinline__ void int4_octet(float (&q)[8], const uint4& unit, int j, float zero) {
  const uint32_t words[4] = {unit.x, unit.y, unit.z, unit.w};
  const half2 low_offset = __float2half2_rn(-1024.0f - zero), high_offset = __float2half2_rn(-64.0f - zero);
  const half2 sixteenth = __float2half2_rn(0.0625f);
#pragma unroll
  for (int c = 0; c < 4; c++) {
    const uint32_t word = words[c] >> (j / 2 * 8);
    const uint32_t bits = j % 2 ? lop3<and_or>(word, 0x00f000f0u, 0x64006400u) : lop3<and_or>(word, 0x000f000fu, 0x64006400u);
    half2 v;
    memcpy(&v, &bits, 4);
    const float2 pair = __half22float2(j % 2 ? __hfma2(v, sixteenth, high_offset) : __hadd2(v, low_offset));
    q[2 * c] = pair.x, q[2 * c + 1] = pair.y;
  }
}

// A byte plus 128 becomes the low byte of 2^23 + itself: one PRMT and one exact subtraction, where a conversion would run
// at a quarter of the rate.
__device__ __forceinline__ float signed_byte(uint32_t biased_word, int i) {
  return __uint_as_float(__byte_perm(biased_word, 0x4b000000u, 0x7650 + i)) - 8388736.0f;
}

__device__ __forceinline__ void int8_octet(float (&q)[8], const uint4& unit, int j) {
  const uint32_t words[4] = {unit.x ^ 0x80808080u, unit.y ^ 0x80808080u, unit.z ^ 0x80808080u, unit.w ^ 0x80808080u};
#pragma unroll
  for (int c = 0; c < 4; c++) q[2 * c] = signed_byte(words[c], 2 * j), q[2 * c + 1] = signed_byte(words[c], 2 * j + 1);
}

// What a lane of a matrix-vector kernel loads at once, 16 bytes, and the runs of neighbours in it.
template <typename W>
struct dense_units {
  static constexpr int octets = 1;                      // runs
  static constexpr int run = 16 / int(sizeof(W));       // of 8, or 4 of f32
  static constexpr bool quantised = false;
  static __device__ __forceinline__ uint4 load(const weight_view& w, long long n, int unit) {
    const gmem<const W> p = view_as<W>(w.data) + (n * w.cols + run * unit);
    if (w.aligned) return load_stream_16(view_as<uint4>(p));
    W v[run];
#pragma unroll
    for (int i = 0; i < run; i++) v[i] = run * unit + i < w.cols ? W(p[i]) : from_float<W>(0.0f);
    uint4 r;
    memcpy(&r, v, 16);
    return r;
  }
  static __device__ __forceinline__ void unpack(float (&q)[run], const uint4& r, int, float) {
    W v[run];
    memcpy(v, &r, 16);
#pragma unroll
    for (int i = 0; i < run; i++) q[i] = to_float(v[i]);
  }
};

struct int4_units {
  static constexpr int octets = 4, run = 8;
  static constexpr bool quantised = true;
  static __device__ __forceinline__ uint4 load(const weight_view& w, long long n, int unit) {
    return load_stream_16(view_as<uint4>(w.data) + (n * units_of(w.cols, int4_unit) + unit));
  }
  static __device__ __forceinline__ void unpack(float (&q)[8], const uint4& r, int j, float zero) { int4_octet(q, r, j, zero); }
};

struct int8_units {
  static constexpr int octets = 2, run = 8;
  static constexpr bool quantised = true;
  static __device__ __forceinline__ uint4 load(const weight_view& w, long long n, int unit) {
    return load_stream_16(view_as<uint4>(w.data) + (n * units_of(w.cols, int8_unit) + unit));
  }
  static __device__ __forceinline__ void unpack(float (&q)[8], const uint4& r, int j, float) { int8_octet(q, r, j); }
};

// The weights of row n at k .. k + 7, of any storage; zeros past the row's end.
template <typename W>
__device__ __forceinline__ void dense_octet(float (&q)[8], const weight_view& w, long long n, int k) {
  using units = dense_units<W>;
#pragma unroll
  for (int part = 0; part < 8 / units::run; part++) {
    float v[units::run] = {};
    if (k + part * units::run < w.cols) units::unpack(v, units::load(w, n, k / units::run + part), 0, 0.0f);
#pragma unroll
    for (int i = 0; i < units::run; i++) q[part * units::run + i] = v[i];
  }
}
template <typename Units>
__device__ __forceinline__ void quantised_octet(float (&q)[8], const weight_view& w, long long n, int k) {
  const uint4 unit = Units::load(w, n, k / (8 * Units::octets));
  const float2 g = w.group_at(n, w.group_of(k));
  const int j = k / 8 % Units::octets;
#pragma unroll
  for (int i = 0; i < Units::octets; i++)
    if (i == j) Units::unpack(q, unit, i, w.has_zero() ? g.y : 0.0f);
#pragma unroll
  for (int i = 0; i < 8; i++) q[i] = w.has_zero() ? g.x * q[i] : g.x * q[i] + g.y;
}
__device__ __forceinline__ void weight_octet(float (&q)[8], const weight_view& w, long long n, int k) {
#pragma unroll
  for (int i = 0; i < 8; i++) q[i] = 0.0f;
  if (k >= w.cols) return;
  switch (w.kind) {
    case storage::f32: return dense_octet<float>(q, w, n, k);
    case storage::f16: return dense_octet<half>(q, w, n, k);
    case storage::bf16: return dense_octet<__nv_bfloat16>(q, w, n, k);
    case storage::int8: return quantised_octet<int8_units>(q, w, n, k);
    default: return quantised_octet<int4_units>(q, w, n, k);
  }
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
