// dense_linear: y[t,n] = cap(scale * (sum_k x[t,k] * w[n,k] + bias[n])) + residual[t,n]
// x [T,K], w [N,K] row-major, each in {f32,f16,bf16}; any K
// grid (N / 4, T / M)   block 128: a warp for a row of w and M rows of x
// moves N*K*sizeof(w) bytes: bound by memory for M = 1; sums in f32. Correct for many rows, not made for them.
#include "linear.cuh"
#include "ptx.cuh"
#include "reduce.cuh"

namespace sl {
namespace SL_BACKEND_NS {

template <typename T, typename W, int M>
__global__ void __launch_bounds__(32 * gemv_warps)
    dense_linear_kernel(epilogue<T> out, gmem<const T> x, gmem<const W> w, int tokens, int N, int K, long long x_stride,
                        bool x_aligned, bool w_aligned) {
  constexpr int Vec = elements_of_16_bytes<W>;
  const int lane = int(threadIdx.x) & 31;
  const long long n = (long long)blockIdx.x * gemv_warps + threadIdx.x / 32;
  if (n >= N) return;  // a whole warp, and there is no barrier
  const int first_token = int(blockIdx.y) * M;
  w += n * K;

  float sum[M] = {};
  const int whole = w_aligned ? K / Vec * Vec : 0;
  for (int k = lane * Vec; k < whole; k += 32 * Vec) {
    const uint4 raw = load_stream_16(view_as<uint4>(w + k));
    W values[Vec];
    memcpy(values, &raw, 16);
#pragma unroll
    for (int m = 0; m < M; m++) {
      if (first_token + m >= tokens) break;
      float v[Vec];
      load_activations<Vec, T>(v, x + ((first_token + m) * x_stride + k), x_aligned);
#pragma unroll
      for (int i = 0; i < Vec; i++) sum[m] += to_float(values[i]) * v[i];
    }
  }
  for (int k = whole + lane; k < K; k += 32) {
    const float value = to_float(w[k]);
#pragma unroll
    for (int m = 0; m < M; m++) {
      if (first_token + m >= tokens) break;
      sum[m] += value * to_float(x[(first_token + m) * x_stride + k]);
    }
  }
#pragma unroll
  for (int m = 0; m < M; m++) {
    const float total = warp_sum(sum[m]);
    if (lane == 0 && first_token + m < tokens) out.put(first_token + m, n, total);
  }
}

template <typename T, typename W>
static void start(stream& s, const linear_args& a, const cuda_weight& w) {
  for_tile(a.x.shape[0], [&](auto tile) {
    constexpr int M = decltype(tile)::value;
    const dim3 grid(blocks_for(w.rows, gemv_warps), blocks_for(a.x.shape[0], M));
    launch(native(s), KERNEL(dense_linear_kernel<T, W, M>), grid, 32 * gemv_warps, 0, epilogue_of<T>(a), a.x.as<const T>(),
           w.values<W>(), int(a.x.shape[0]), int(w.rows), int(w.cols), a.x.stride[0], rows_aligned_16(a.x),
           w.cols % elements_of_16_bytes<W> == 0);
  });
}

void dense_linear(stream& s, const linear_args& a, const cuda_weight& w) {
  for_activation(a.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    switch (w.storage) {
      case storage::f16: return start<T, half>(s, a, w);
      case storage::bf16: return start<T, __nv_bfloat16>(s, a, w);
      default: return start<T, float>(s, a, w);
    }
  });
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
