// What follows a dot product: y[t,n] = cap(scale * (sum + bias[n])) + residual[t,n].
#pragma once

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

  __device__ __forceinline__ float before_residual(long long n, float sum) const {
    if (bias.present()) sum += bias.at(n);
    sum *= scale;
    return soft_cap > 0.0f ? soft_cap * tanhf(sum / soft_cap) : sum;
  }

  __device__ __forceinline__ void put(long long t, long long n, float sum) const {
    sum = before_residual(n, sum);
    if (residual.present()) sum += residual.at(t * residual_stride + n);
    y.put(t * y_stride + n, sum);
  }

  // Columns n .. n + 3 of which those before N are there; n is a multiple of 4.
  __device__ __forceinline__ void put_four(long long t, long long n, long long N, float (&v)[4]) const {
    if (!fours) {
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (n + i < N) put(t, n + i, v[i]);
      return;
    }
    if (n >= N) return;  // N is a multiple of 4
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
