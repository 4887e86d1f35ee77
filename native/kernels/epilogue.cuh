// What follows a dot product: y[t,n] = cap(scale * (sum + bias[n])) + residual[t,n], and the sums of its squares by 16 columns.
#pragma once

#include "reduce.cuh"
#include "vec.cuh"

namespace sl {
namespace SL_BACKEND_NS {

struct epilogue {
  any_output y;         // [T,N]
  any_input bias;       // [N]
  any_input residual;   // [T,N]
  long long y_stride, residual_stride;
  float scale, soft_cap;  // cap(v) = soft_cap * tanh(v / soft_cap), or v where it is 0
  bool fours;             // rows of y and the residual may be accessed four elements at a time
  gmem<float> squares;    // [T,squares_stride], or null
  long long squares_stride;

  __device__ __forceinline__ float before_residual(long long n, float sum) const {
    if (bias.present()) sum += bias.at(n);
    sum *= scale;
    return soft_cap > 0.0f ? soft_cap * tanhf(sum / soft_cap) : sum;
  }

  __device__ __forceinline__ float put(long long t, long long n, float sum) const {
    sum = before_residual(n, sum);
    if (residual.present()) sum += residual.at(t * residual_stride + n);
    y.put(t * y_stride + n, sum);
    return sum;
  }

  // By all lanes of a warp, of which `Lanes` neighbours have 16 columns from n on, each a part of their squares.
  template <int Lanes>
  __device__ __forceinline__ void put_squares(long long t, long long n, float part, bool valid) const {
#pragma unroll
    for (int d = 1; d < Lanes; d *= 2) part += __shfl_xor_sync(all_lanes, part, d);
    if (valid && (int(threadIdx.x) & (Lanes - 1)) == 0) squares[t * squares_stride + n / 16] = part;
  }

  // Columns n .. n + 3 of which those before N are there; n is a multiple of 4. v becomes what was put there, and zeros.
  __device__ __forceinline__ void put_four(long long t, long long n, long long N, float (&v)[4]) const {
    if (!fours || n >= N) {
#pragma unroll
      for (int i = 0; i < 4; i++) v[i] = n + i < N ? put(t, n + i, v[i]) : 0.0f;
      return;  // N is a multiple of 4
    }
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = before_residual(n + i, v[i]);
    if (residual.present()) {
      float r[4];
      residual.load_four(r, t * residual_stride + n);
#pragma unroll
      for (int i = 0; i < 4; i++) v[i] += r[i];
    }
    y.put_four(t * y_stride + n, v);
  }
};

}  // namespace SL_BACKEND_NS
}  // namespace sl
