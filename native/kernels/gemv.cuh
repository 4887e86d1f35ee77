// The core of the matrix-vector kernels: rows of x lie in shared memory as f32, and a warp reads rows of w past them.
#pragma once

#include "packed.cuh"
#include "reduce.cuh"

namespace sl {
namespace SL_BACKEND_NS {

// x in shared memory: 4 floats of nothing after every 32, so that lanes that read 16 bytes of octets 8, 16 or 32 apart
// meet no bank twice.
__host__ __device__ constexpr int staged(int k) { return k / 32 * 36 + k % 32; }
__host__ __device__ constexpr int staged_row(int K) { return (K + 31) / 32 * 36; }

// Stages columns [k0, k0 + count) of M rows of x, zeros behind them up to a multiple of 32. `each` sees every four and
// may change them. No barrier.
template <int M, typename Each>
__device__ __forceinline__ void stage_rows(smem<float> xs, const any_input& x, int first, int tokens, long long stride, int K,
                                           int k0, int count, bool aligned, Each each) {
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
      if (valid > 0) each(m, k, valid, v);
      view_as<float4>(xs + (m * staged_row(count) + staged(4 * o)))[0] = make_float4(v[0], v[1], v[2], v[3]);
    }
}

// What one unit of each of a lane's rows adds: sum[m][r] += w[n[r]] . x[m] over the unit's weights, from k on.
template <typename Units, int M, int Rows>
__device__ __forceinline__ void add_units(float (&sum)[M][Rows], const uint4 (&now)[Rows], const weight_view& w,
                                          const int (&n)[Rows], int k, smem<const float> x, int row) {
  constexpr bool quantised = Units::quantised;
  constexpr int run = Units::run;
  const bool fine = quantised && w.group % (run * Units::octets) != 0;  // a unit has several groups
  float2 g[Rows];
  if (quantised && !fine) {
#pragma unroll
    for (int r = 0; r < Rows; r++) g[r] = w.group_at(n[r], w.group_of(k));
  }
#pragma unroll
  for (int j = 0; j < Units::octets; j++) {
    if (fine) {
      if (k + 8 * j >= w.cols) break;
#pragma unroll
      for (int r = 0; r < Rows; r++) g[r] = w.group_at(n[r], w.group_of(k + 8 * j));
    }
    float q[Rows][run];
#pragma unroll
    for (int r = 0; r < Rows; r++) Units::unpack(q[r], now[r], j, quantised && w.has_zero() ? g[r].y : 0.0f);
#pragma unroll
    for (int m = 0; m < M; m++) {
      float v[run];
#pragma unroll
      for (int i = 0; i < run; i += 4) {
        const float4 four = view_as<float4>(x + (m * row + 8 * j + i))[0];
        v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
      }
      float dot[Rows];
#pragma unroll
      for (int r = 0; r < Rows; r++) {
        dot[r] = quantised ? q[r][0] * v[0] : sum[m][r] + q[r][0] * v[0];
#pragma unroll
        for (int i = 1; i < run; i++) dot[r] += q[r][i] * v[i];
        sum[m][r] = quantised ? sum[m][r] + g[r].x * dot[r] : dot[r];
      }
      if (quantised && !w.has_zero()) {
        float total = v[0];
#pragma unroll
        for (int i = 1; i < run; i++) total += v[i];
#pragma unroll
        for (int r = 0; r < Rows; r++) sum[m][r] += g[r].y * total;
      }
    }
  }
}

// A lane's part of Rows rows over the staged columns [k0, k0 + count): units `lane`, `lane + step`, ...
// start() puts the first loads on their way, which need no x; run() may follow a barrier.
// `ahead` loads of each row are in flight while one is used.
template <typename Units, int M, int Rows, int ahead = 2>
struct row_reader {
  uint4 next[ahead][Rows];

  __device__ __forceinline__ void load(int slot, const weight_view& w, const int (&n)[Rows], int unit) {
#pragma unroll
    for (int r = 0; r < Rows; r++) next[slot][r] = Units::load(w, n[r], unit);
  }
  __device__ __forceinline__ void start(const weight_view& w, const int (&n)[Rows], int first, int end, int step) {
#pragma unroll
    for (int a = 0; a < ahead; a++)
      if (first + a * step < end) load(a, w, n, first + a * step);
  }
  __device__ __forceinline__ void run(float (&sum)[M][Rows], const weight_view& w, const int (&n)[Rows], int first,
                                      int end, int step, smem<const float> xs, int row, int k0) {
    constexpr int width = Units::run * Units::octets;
    for (int unit = first; unit < end; unit += ahead * step) {
#pragma unroll
      for (int a = 0; a < ahead; a++) {
        const int here = unit + a * step;
        if (here >= end) break;
        uint4 now[Rows];
#pragma unroll
        for (int r = 0; r < Rows; r++) now[r] = next[a][r];
        if (here + ahead * step < end) load(a, w, n, here + ahead * step);
        add_units<Units, M, Rows>(sum, now, w, n, here * width, xs + staged(here * width - k0), row);
      }
    }
  }
};

}  // namespace SL_BACKEND_NS
}  // namespace sl
