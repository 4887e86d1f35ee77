// The core of the matrix-vector kernel in f32: rows of x lie in shared memory as f32, and a warp reads rows of w past them.
#pragma once

#include "packed.cuh"
#include "reduce.cuh"

namespace sl {
namespace SL_BACKEND_NS {

// x in shared memory: 4 floats of nothing after every 32, so that lanes that read 16 bytes of octets 8, 16 or 32 apart
// meet no bank twice.
__host__ __device__ constexpr int staged(int k) { return k / 32 * 36 + k % 32; }
__host__ __device__ constexpr int staged_row(int K) { return (K + 31) / 32 * 36; }

// Stages columns [k0, k0 + count) of M rows of x, zeros behind them up to a multiple of 32. No barrier.
template <int M>
__device__ __forceinline__ void stage_rows(smem<float> xs, const any_input& x, int first, int tokens, long long stride, int K,
                                           int k0, int count, bool aligned) {
  const int fours = (count + 31) / 32 * 8;
#pragma unroll
  for (int m = 0; m < M; m++)
    for (int o = int(threadIdx.x); o < fours; o += int(blockDim.x)) {
      const int k = k0 + 4 * o, valid = first + m < tokens ? K - k : 0;
      const long long at = (long long)(first + m) * stride + k;
      float v[4];
      if (aligned && valid >= 4) {
        x.load_four(v, at);
      } else {
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] = i < valid ? x.at(at + i) : 0.0f;
      }
      view_as<float4>(xs + (m * staged_row(count) + staged(4 * o)))[0] = make_float4(v[0], v[1], v[2], v[3]);
    }
}

// What a lane reads at once of a row: 16 bytes of a dense one, eight neighbours of a packed one, which are unpacked as they come.
template <typename W>
struct dense_reader {
  static constexpr int run = dense_units<W>::run;
  using raw = uint4;
  static __device__ __forceinline__ raw load(const weight_view& w, long long n, int unit) { return dense_units<W>::load(w, n, unit); }
  static __device__ __forceinline__ void unpack(float (&q)[run], const raw& r) { dense_units<W>::unpack(q, r); }
};
struct packed_reader {
  static constexpr int run = 8;
  struct raw { float q[8]; };
  static __device__ __forceinline__ raw load(const weight_view& w, long long n, int unit) {
    raw r;
    weight_octet(r.q, w, n, 8 * unit);
    return r;
  }
  static __device__ __forceinline__ void unpack(float (&q)[8], const raw& r) {
#pragma unroll
    for (int i = 0; i < 8; i++) q[i] = r.q[i];
  }
};

// What one unit of each of a lane's rows adds: sum[m][r] += w[n[r]] . x[m].
template <typename Reader, int M, int Rows>
__device__ __forceinline__ void add_units(float (&sum)[M][Rows], const typename Reader::raw (&now)[Rows], smem<const float> x, int row) {
  constexpr int run = Reader::run;
  float q[Rows][run];
#pragma unroll
  for (int r = 0; r < Rows; r++) Reader::unpack(q[r], now[r]);
#pragma unroll
  for (int m = 0; m < M; m++) {
    float v[run];
#pragma unroll
    for (int i = 0; i < run; i += 4) {
      const float4 four = view_as<float4>(x + (m * row + i))[0];
      v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
    }
#pragma unroll
    for (int r = 0; r < Rows; r++)
#pragma unroll
      for (int i = 0; i < run; i++) sum[m][r] += q[r][i] * v[i];
  }
}

// A lane's part of Rows rows over the staged columns [k0, k0 + count): units `lane`, `lane + step`, ...
// start() puts the first loads on their way, which need no x; run() may follow a barrier.
// `ahead` loads of each row are in flight while one is used.
template <typename Reader, int M, int Rows, int ahead = 2>
struct row_reader {
  typename Reader::raw next[ahead][Rows];

  __device__ __forceinline__ void load(int slot, const weight_view& w, const int (&n)[Rows], int unit) {
#pragma unroll
    for (int r = 0; r < Rows; r++) next[slot][r] = Reader::load(w, n[r], unit);
  }
  __device__ __forceinline__ void start(const weight_view& w, const int (&n)[Rows], int first, int end, int step) {
#pragma unroll
    for (int a = 0; a < ahead; a++)
      if (first + a * step < end) load(a, w, n, first + a * step);
  }
  __device__ __forceinline__ void run(float (&sum)[M][Rows], const weight_view& w, const int (&n)[Rows], int first,
                                      int end, int step, smem<const float> xs, int row, int k0) {
    for (int unit = first; unit < end; unit += ahead * step) {
#pragma unroll
      for (int a = 0; a < ahead; a++) {
        const int here = unit + a * step;
        if (here >= end) break;
        typename Reader::raw now[Rows];
#pragma unroll
        for (int r = 0; r < Rows; r++) now[r] = next[a][r];
        if (here + ahead * step < end) load(a, w, n, here + ahead * step);
        add_units<Reader, M, Rows>(sum, now, xs + staged(here * Reader::run - k0), row);
      }
    }
  }
};

}  // namespace SL_BACKEND_NS
}  // namespace sl
