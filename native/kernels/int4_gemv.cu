// int4_gemv: y[t,n] = cap(scale * (sum_k x[t,k] * w[n,k] + bias[n])) + residual[t,n]
// x [T,K] in {f32,f16,bf16}   w [N,K] 4 bits in the layout of int4.cuh, a scale and a zero or bias by group along K
// grid (N / (4 * Rows), T / M)   block 128: a warp for Rows rows of w and M rows of x   no shared memory
// moves N*K/2 bytes of w and N*K/group scales: bound by memory for M = 1; sums in f32
#include "int4.cuh"
#include "linear.cuh"
#include "reduce.cuh"

namespace sl {
namespace SL_BACKEND_NS {

__device__ __forceinline__ float2 scale_of(gmem<const half2> p) { return __half22float2(p[0]); }
__device__ __forceinline__ float2 scale_of(gmem<const float2> p) { return p[0]; }

// Zero: the group's second number is a zero point, subtracted exactly before the product; otherwise it is a bias, and
// costs the sum of the activations, which the rows share.
template <typename T, typename Group, bool Zero, int M, int Rows>
__global__ void __launch_bounds__(32 * gemv_warps, 4)  // 4 blocks: up to 128 registers
    int4_gemv_kernel(epilogue<T> out, gmem<const T> x, gmem<const uint4> w, gmem<const Group> groups, int tokens, int N, int K,
                     int group, long long x_stride, bool aligned) {
  const int lane = int(threadIdx.x) & 31;
  const long long first_row = ((long long)blockIdx.x * gemv_warps + threadIdx.x / 32) * Rows;
  if (first_row >= N) return;  // a whole warp, and there is no barrier
  const int first_token = int(blockIdx.y) * M;
  const int chunks = (K + int4_chunk - 1) / int4_chunk, groups_a_row = K / group;

  gmem<const uint4> row_words[Rows];
  gmem<const Group> row_groups[Rows];
#pragma unroll
  for (int r = 0; r < Rows; r++) {
    const long long n = min(first_row + r, (long long)N - 1);  // past the last row: the last one again, not stored
    row_words[r] = w + (n * chunks * 32 + lane);
    row_groups[r] = groups + n * groups_a_row;
  }

  float sum[M][Rows] = {};
  uint4 next[Rows];
#pragma unroll
  for (int r = 0; r < Rows; r++) next[r] = load_stream_16(row_words[r]);
  for (int c = 0; c < chunks; c++) {
    // The next chunk's words are on their way while this one's are used.
    uint32_t words[Rows][4];
#pragma unroll
    for (int r = 0; r < Rows; r++) {
      words[r][0] = next[r].x, words[r][1] = next[r].y, words[r][2] = next[r].z, words[r][3] = next[r].w;
      if (c + 1 < chunks) next[r] = load_stream_16(row_words[r] + (c + 1) * 32);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int k = c * int4_chunk + j * 256 + lane * 8;
      if (k >= K) break;
      float q[Rows][8];
      float2 scale[Rows];
#pragma unroll
      for (int r = 0; r < Rows; r++) {
        scale[r] = scale_of(row_groups[r] + k / group);
        int4_unpack(q[r], words[r][j], Zero ? scale[r].y : 0.0f);
      }
#pragma unroll
      for (int m = 0; m < M; m++) {
        if (first_token + m >= tokens) break;
        float v[8];
        load_activations<8, T>(v, x + ((first_token + m) * x_stride + k), aligned);
        float total = 0.0f;
        if (!Zero) total = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
#pragma unroll
        for (int r = 0; r < Rows; r++) {
          float dot = 0.0f;
#pragma unroll
          for (int i = 0; i < 8; i++) dot += q[r][i] * v[i];
          sum[m][r] += scale[r].x * dot;
          if (!Zero) sum[m][r] += scale[r].y * total;
        }
      }
    }
  }

#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int r = 0; r < Rows; r++) {
      const float whole = warp_sum(sum[m][r]);
      if (lane == 0 && first_token + m < tokens && first_row + r < N) out.put(first_token + m, first_row + r, whole);
    }
}

template <typename T, typename Group, bool Zero>
static void start(stream& s, const linear_args& a, const cuda_weight& w) {
  for_tile(a.x.shape[0], [&](auto tile) {
    constexpr int M = decltype(tile)::value;
    constexpr int Rows = M == 16 ? 1 : 2;  // more rows a warp share its activations; fewer leave more warps
    const dim3 grid(blocks_for(w.rows, gemv_warps * Rows), blocks_for(a.x.shape[0], M));
    launch(native(s), KERNEL(int4_gemv_kernel<T, Group, Zero, M, Rows>), grid, 32 * gemv_warps, 0, epilogue_of<T>(a),
           a.x.as<const T>(), w.values<uint4>(), w.scales<Group>(), int(a.x.shape[0]), int(w.rows), int(w.cols), w.group,
           a.x.stride[0], rows_aligned_16(a.x));
  });
}

void int4_gemv(stream& s, const linear_args& a, const cuda_weight& w) {
  for_activation(a.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    switch (w.storage) {
      case storage::int4_zero: return start<T, half2, true>(s, a, w);
      case storage::int4_bias: return start<T, half2, false>(s, a, w);
      default: return start<T, float2, false>(s, a, w);
    }
  });
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
