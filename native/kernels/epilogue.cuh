// What follows a dot product: y[t,n] = cap(scale * (sum + bias[n])) + residual[t,n], by the one lane that holds the sum.
#pragma once

#include "vec.cuh"

namespace sl {
namespace SL_BACKEND_NS {

template <typename T>
struct epilogue {
  any_output y;            // [T,N]
  either<T> bias;          // [N]
  any_input residual;      // [T,N], of y's type
  long long y_stride, residual_stride;
  float scale, soft_cap;   // cap(v) = soft_cap * tanh(v / soft_cap), or v where it is 0

  __device__ __forceinline__ void put(long long t, long long n, float sum) const {
    if (bias.present()) sum += bias.at(n);
    sum *= scale;
    if (soft_cap > 0.0f) sum = soft_cap * tanhf(sum / soft_cap);
    if (residual.present()) sum += residual.at(t * residual_stride + n);
    y.put(t * y_stride + n, sum);
  }
};

// N neighbours of an activation row, whether or not they may be loaded at once.
template <int N, typename T>
__device__ __forceinline__ void load_activations(float (&out)[N], gmem<const T> p, bool aligned) {
  if (aligned) {
    load_floats<N, T>(out, p);
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) out[i] = to_float(p[i]);
  }
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
