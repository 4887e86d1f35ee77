// A weight as the matrix kernels take it, and its values one octet at a time, in f32: for lookups, and for products that the
// record keeps in f32. fragments.cuh has the tensor cores' way.
#pragma once

#include "packed.h"
#include "ptx.cuh"
#include "vec.cuh"
#include "weight.h"

namespace sl {
namespace SL_BACKEND_NS {

__host__ __device__ constexpr bool has_bias(scaling s) { return s == scaling::half_zero || s == scaling::half_bias || s == scaling::super; }

struct weight_view {
  gmem<const char> data, high, scales, supers;
  storage kind;
  scaling scale_kind;
  int rows, cols;    // N, K
  int blocks;        // of 128 columns
  int super_blocks;  // of 256
  int group;         // columns that share a scale: 16, 32, 64 or 128
  int scale_bytes;   // of a row's scales to a block
  int scale_shift;   // groups of 32, 64, 128 columns: 0, 1, 2
  float center;
  bool aligned;      // a dense row is a sequence of whole 16-byte pieces
  __device__ __forceinline__ bool has_bias() const { return sl::SL_BACKEND_NS::has_bias(scale_kind); }
  __device__ __forceinline__ long long super_index(long long n, int block) const {
    return (n / packed_rows * super_blocks + block / 2) * packed_rows + n % packed_rows;
  }
};

// scale and bias out of a group's numbers.
__device__ __forceinline__ float2 scale_and_bias(scaling kind, uint32_t bits, uint32_t super) {
  half2 both, d;
  memcpy(&both, &bits, 4);
  memcpy(&d, &super, 4);
  switch (kind) {
    case scaling::half: return make_float2(__low2float(both), 0.0f);
    case scaling::half_bias: return __half22float2(both);
    case scaling::half_zero: return make_float2(__low2float(both), -__low2float(both) * __high2float(both));
    case scaling::super: return make_float2(__low2float(d) * float(bits & 0xffu), -(__high2float(d) * float(bits >> 8 & 0xffu)));
    case scaling::super_signed: return make_float2(__low2float(d) * float(int((signed char)(bits & 0xffu))), 0.0f);
    default: return make_float2(__uint_as_float(bits), 0.0f);
  }
}

__device__ __forceinline__ float2 group_scale(const weight_view& w, long long n, int k) {
  const int block = k / packed_block;
  // The row's scales of the block, and which of them.
  const long long row = (n / packed_rows * w.blocks + block) * packed_rows + n % packed_rows;
  const int of = k % packed_block / w.group;
  const auto half_word = [&] { return uint32_t(view_as<unsigned short>(w.scales)[row * (w.scale_bytes / 2) + of]); };
  switch (w.scale_kind) {
    case scaling::half: return scale_and_bias(scaling::half, half_word(), 0);
    case scaling::super: return scale_and_bias(scaling::super, half_word(), view_as<uint32_t>(w.supers)[w.super_index(n, block)]);
    case scaling::super_signed:
      return scale_and_bias(scaling::super_signed, view_as<unsigned char>(w.scales)[row * w.scale_bytes + of], view_as<unsigned short>(w.supers)[w.super_index(n, block)]);
    default: return scale_and_bias(w.scale_kind, view_as<uint32_t>(w.scales)[row * (w.scale_bytes / 4) + of], 0);
  }
}

// Four neighbours out of a word of low nibbles, whose first pair is wanted (0 or 2), and of the bits above: two at 0, 2 and 16, 18.
__device__ __forceinline__ void nibbles_four(float (&q)[4], uint32_t word, int pair, uint32_t above, float center) {
  const uint32_t low = word >> (4 * pair);
#pragma unroll
  for (int i = 0; i < 4; i++)
    q[i] = float((low >> (4 * (i / 2) + 16 * (i % 2)) & 15u) | (above >> (2 * (i / 2) + 16 * (i % 2)) & 3u) << 4) - center;
}
__device__ __forceinline__ void bytes_four(float (&q)[4], uint32_t word, float center) {
#pragma unroll
  for (int i = 0; i < 4; i++) q[i] = float(word >> (8 * i) & 0xffu) - center;
}
// The bits above, of 32 columns j and half s: the fifth of a lane's word, the fifth and sixth of its word j / 2.
__device__ __forceinline__ uint32_t fifth_bits(uint32_t word, int j, int s) {
  const uint32_t bits = word >> (4 * j + 2 * s);
  return (bits & 0x00010001u) | (bits & 0x00020002u) << 1;
}
__device__ __forceinline__ uint32_t sixth_bits(uint32_t word, int j, int s) { return word >> (8 * (j % 2) + 4 * s); }

// Four neighbours of a row, q - center; k is a multiple of four.
__device__ __forceinline__ void packed_four(float (&q)[4], const weight_view& w, long long n, int k) {
  const packed_place p = place_in_row(k);
  if (w.kind == storage::eight) return bytes_four(q, view_as<uint32_t>(w.data)[eight_byte(n, w.blocks, p) / 4], w.center);
  const uint32_t low = view_as<uint32_t>(w.data)[four_word(n, w.blocks, p)];
  uint32_t above = 0;
  if (w.kind == storage::five) above = fifth_bits(view_as<uint32_t>(w.high)[lane_word(n, w.blocks, p, 1)], p.j, p.s);
  else if (w.kind == storage::six) above = sixth_bits(view_as<uint32_t>(w.high)[sixth_word(n, w.blocks, p)], p.j, p.s);
  nibbles_four(q, low, 2 * p.s, above, w.center);
}

// What a lane of a matrix-vector kernel loads at once of a dense row, 16 bytes: 8 neighbours, or 4 of f32.
template <typename W>
struct dense_units {
  static constexpr int run = 16 / int(sizeof(W));
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
  static __device__ __forceinline__ void unpack(float (&q)[run], const uint4& r) {
    W v[run];
    memcpy(v, &r, 16);
#pragma unroll
    for (int i = 0; i < run; i++) q[i] = to_float(v[i]);
  }
};

template <typename W>
__device__ __forceinline__ void dense_octet(float (&q)[8], const weight_view& w, long long n, int k) {
  using units = dense_units<W>;
#pragma unroll
  for (int part = 0; part < 8 / units::run; part++) {
    float v[units::run] = {};
    if (k + part * units::run < w.cols) units::unpack(v, units::load(w, n, k / units::run + part));
#pragma unroll
    for (int i = 0; i < units::run; i++) q[part * units::run + i] = v[i];
  }
}

// The weights of row n at k .. k + 7, of any storage; zeros past the row's end. k is a multiple of 8.
__device__ __forceinline__ void weight_octet(float (&q)[8], const weight_view& w, long long n, int k) {
#pragma unroll
  for (int i = 0; i < 8; i++) q[i] = 0.0f;
  if (k >= w.cols) return;
  switch (w.kind) {
    case storage::f32: return dense_octet<float>(q, w, n, k);
    case storage::f16: return dense_octet<half>(q, w, n, k);
    case storage::bf16: return dense_octet<__nv_bfloat16>(q, w, n, k);
    default: break;
  }
  const float2 g = group_scale(w, n, k);  // groups are multiples of 16
#pragma unroll
  for (int h = 0; h < 8; h += 4) {
    float four[4];
    packed_four(four, w, n, k + h);
#pragma unroll
    for (int i = 0; i < 4; i++) q[h + i] = k + h + i < w.cols ? g.x * four[i] + g.y : 0.0f;
  }
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
