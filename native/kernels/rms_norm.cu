// rms_norm: y[t,d] = x[t,d] * rsqrt(mean_d(x[t,:]^2) + eps) * w[d]
// add_rms_norm: r[t,:] += x[t,:], y = rms_norm(r, w)     rms_norm_add: y = r + rms_norm(x, w)
// x, r, y [T,D] in {f32,f16,bf16}   w [D] in any of them; sums in f32. A residual stream of f32 goes with 16-bit blocks:
// r may be f32 for any x, and y of any type for an x of f32
// grid T, a row each   block as many threads as give each one vector, 32..1024   shared 128 B
// moves 2*T*D*sizeof(x) bytes (4 and 3 with a residual): bound by memory, and for one row by latency
#include "host.cuh"
#include "ops.h"
#include "ptx.cuh"
#include "reduce.cuh"

namespace sl {
namespace SL_BACKEND_NS {

// A thread holds its part of the row in registers between the sum and the scaling, so that the row is read once; what
// a very long row has beyond that is read again, from L2.
constexpr int held = 4;

enum class residual_use { none, before, after };  // of the norm

template <typename T, typename R, typename Y, int Vec, residual_use Use>
__global__ void __launch_bounds__(1024) rms_norm_kernel(gmem<Y> y, gmem<R> r, gmem<const T> x, any_input w, int D, float eps,
                                                        long long y_stride, long long r_stride, long long x_stride) {
  allow_next_kernel();
  wait_for_previous_kernel();
  constexpr bool before = Use == residual_use::before;
  const long long row = blockIdx.x;
  y += row * y_stride, x += row * x_stride;
  if (Use != residual_use::none) r += row * r_stride;
  const int step = int(blockDim.x) * Vec, first = int(threadIdx.x) * Vec;
  float v[held][Vec];
  float sum = 0.0f;

  const auto load = [&](float (&out)[Vec], int d) {
    load_floats<Vec, T>(out, x + d);
    if (!before) return;
    float residual[Vec];
    load_floats<Vec, R>(residual, gmem<const R>(r + d));
#pragma unroll
    for (int i = 0; i < Vec; i++) out[i] += residual[i];
    store_floats<Vec, R>(r + d, out);
  };

#pragma unroll
  for (int h = 0; h < held; h++) {
    const int d = first + h * step;
    if (d >= D) break;
    load(v[h], d);
#pragma unroll
    for (int i = 0; i < Vec; i++) sum += v[h][i] * v[h][i];
  }
  for (int d = first + held * step; d < D; d += step) {
    float more[Vec];
    load(more, d);
#pragma unroll
    for (int i = 0; i < Vec; i++) sum += more[i] * more[i];
  }

  const float scale = rsqrtf(block_sum(sum) / float(D) + eps);

  const auto finish = [&](float (&values)[Vec], int d) {
    float factors[Vec];
    w.load<Vec>(factors, d);
#pragma unroll
    for (int i = 0; i < Vec; i++) values[i] = values[i] * scale * factors[i];
    if (Use == residual_use::after) {
      float residual[Vec];
      load_floats<Vec, R>(residual, gmem<const R>(r + d));
#pragma unroll
      for (int i = 0; i < Vec; i++) values[i] += residual[i];
    }
    store_floats<Vec, Y>(y + d, values);
  };
#pragma unroll
  for (int h = 0; h < held; h++) {
    const int d = first + h * step;
    if (d >= D) break;
    finish(v[h], d);
  }
  for (int d = first + held * step; d < D; d += step) {
    float more[Vec];
    if (before) load_floats<Vec, R>(more, gmem<const R>(r + d));
    else load_floats<Vec, T>(more, x + d);
    finish(more, d);
  }
}

template <typename T, typename R, typename Y, int Vec, residual_use Use>
static void start(stream& s, const view& x, const view& r, const view& w, float eps, const view& y) {
  const int D = int(x.shape[1]);
  const int threads = std::min(1024, std::max(1, int(blocks_for(blocks_for(D, Vec), 32))) * 32);
  launch_early(native(s), KERNEL(rms_norm_kernel<T, R, Y, Vec, Use>), unsigned(x.shape[0]), unsigned(threads), 0, y.as<Y>(), r.as<R>(),
         x.as<const T>(), input_of(w), D, eps, y.stride[0], r.stride[0], x.stride[0]);
}

template <residual_use Use>
static void normalise(stream& s, const view& x, const view& r, const view& w, float eps, const view& y) {
  if (x.shape[0] == 0) return;
  const bool vectors = rows_aligned_16(x) && rows_aligned_16(r) && rows_aligned_16(y) && aligned_16(w.data);
  for_activation(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto with = [&](auto residual, auto result) {
      using R = decltype(residual);
      using Y = decltype(result);
      if (vectors) start<T, R, Y, elements_of_16_bytes<T>, Use>(s, x, r, w, eps, y);
      else start<T, R, Y, 1, Use>(s, x, r, w, eps, y);
    };
    // One of r and y may be f32 beside 16-bit ones, which depends on where the sum goes.
    if constexpr (Use == residual_use::before) {
      if (r.dtype == SL_DTYPE_F32) with(float(), zero);
      else with(zero, zero);
    } else if constexpr (Use == residual_use::after) {
      if (r.dtype == SL_DTYPE_F32) with(float(), float());
      else with(zero, zero);
    } else if constexpr (std::is_same_v<T, float>) {
      for_activation(y.dtype, [&](auto result) { with(zero, result); });
    } else {
      with(zero, zero);
    }
  });
}

void rms_norm_cuda(stream& s, const rms_norm_args& a) { normalise<residual_use::none>(s, a.x, view(), a.w, a.eps, a.y); }
void add_rms_norm_cuda(stream& s, const add_rms_norm_args& a) {
  normalise<residual_use::before>(s, a.x, a.residual, a.w, a.eps, a.y);
}
void rms_norm_add_cuda(stream& s, const rms_norm_add_args& a) {
  normalise<residual_use::after>(s, a.x, a.residual, a.w, a.eps, a.y);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
