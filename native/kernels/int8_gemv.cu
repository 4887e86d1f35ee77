// int8_gemv: y[t,n] = sum_k x[t,k] * (scale * q[n,k] + bias), scale and bias by group along K, then the epilogue
// x [T,K] in {f32,f16,bf16}   q [N,K] signed bytes; K and the group are multiples of 16
// grid (N / 4, T / M)   block 128: a warp for a row of w and M rows of x
// moves N*K bytes of w: bound by memory for M = 1; sums in f32
#include "linear.cuh"
#include "ptx.cuh"
#include "reduce.cuh"

namespace sl {
namespace SL_BACKEND_NS {

template <typename T, int M>
__global__ void __launch_bounds__(32 * gemv_warps)
    int8_gemv_kernel(epilogue<T> out, gmem<const T> x, gmem<const uint4> w, gmem<const float2> groups, int tokens, int N, int K,
                     int group, long long x_stride, bool aligned) {
  const int lane = int(threadIdx.x) & 31;
  const long long n = (long long)blockIdx.x * gemv_warps + threadIdx.x / 32;
  if (n >= N) return;  // a whole warp, and there is no barrier
  const int first_token = int(blockIdx.y) * M;
  w += n * (K / 16);
  groups += n * (K / group);

  float sum[M] = {};
  for (int k = lane * 16; k < K; k += 32 * 16) {
    const uint4 raw = load_stream_16(w + k / 16);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
    const float2 scale = groups[k / group];
    float q[16];
#pragma unroll
    for (int i = 0; i < 16; i++) q[i] = float(int(words[i / 4] << (24 - 8 * (i % 4))) >> 24);
#pragma unroll
    for (int m = 0; m < M; m++) {
      if (first_token + m >= tokens) break;
      float dot = 0.0f, total = 0.0f;
#pragma unroll
      for (int half_run = 0; half_run < 2; half_run++) {
        float v[8];
        load_activations<8, T>(v, x + ((first_token + m) * x_stride + k + 8 * half_run), aligned);
#pragma unroll
        for (int i = 0; i < 8; i++) dot += q[8 * half_run + i] * v[i], total += v[i];
      }
      sum[m] += scale.x * dot + scale.y * total;
    }
  }
#pragma unroll
  for (int m = 0; m < M; m++) {
    const float whole = warp_sum(sum[m]);
    if (lane == 0 && first_token + m < tokens) out.put(first_token + m, n, whole);
  }
}

void int8_gemv(stream& s, const linear_args& a, const cuda_weight& w) {
  for_activation(a.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    for_tile(a.x.shape[0], [&](auto tile) {
      constexpr int M = decltype(tile)::value;
      const dim3 grid(blocks_for(w.rows, gemv_warps), blocks_for(a.x.shape[0], M));
      launch(native(s), KERNEL(int8_gemv_kernel<T, M>), grid, 32 * gemv_warps, 0, epilogue_of<T>(a), a.x.as<const T>(),
             w.values<uint4>(), w.scales<float2>(), int(a.x.shape[0]), int(w.rows), int(w.cols), w.group, a.x.stride[0],
             rows_aligned_16(a.x));
    });
  });
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
