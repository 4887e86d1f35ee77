// gemv: y[t,n] = cap(scale * (sum_k x[t,k] * w[n,k] + bias[n])) + residual[t,n] in f32, for few rows of x
// x [T,K] in {f32,f16,bf16}   w [N,K] of any storage   y [T,N]
// grid (N / (rows of w a block), T / M)   block 256: each warp, or 2, 4 or 8 of them together, for Rows rows of w and M of x
// shared: a part of M rows of x as f32, 36 KB at most
// moves the bytes of w once: bound by memory for M = 1; sums in f32
#include "gemv.cuh"
#include "linear.cuh"

namespace sl {
namespace SL_BACKEND_NS {

constexpr int gemv_warps = 8;
constexpr int gemv_staged = 8192;  // elements of x, of all M rows

// `share` warps have each a part of the same rows, so that a matrix of few rows still gives every multiprocessor work.
template <typename Reader, int M, int Rows>
__global__ void __launch_bounds__(32 * gemv_warps, M == 1 ? 2 : 1)  // 16 sums a lane take up to 255 registers
    gemv_kernel(epilogue out, any_input x, weight_view w, int tokens, long long x_stride, bool aligned, int share) {
  DYN_SHARED(float, xs);
  SHARED_ARRAY(float, parts, gemv_warps * M * Rows);
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) / 32;
  const long long first_row = ((long long)blockIdx.x * (gemv_warps / share) + warp / share) * Rows;
  const int first_token = int(blockIdx.y) * M;
  int n[Rows];
#pragma unroll
  for (int r = 0; r < Rows; r++) n[r] = int(min(first_row + r, (long long)w.rows - 1));  // past the last row: it again, not stored

  constexpr int width = Reader::run, part = gemv_staged / M;
  const int step = 32 * share;
  float sum[M][Rows] = {};
  row_reader<Reader, M, Rows> reader;
  for (int k0 = 0; k0 < w.cols; k0 += part) {
    const int count = min(part, w.cols - k0);
    const int first = k0 / width + warp % share * 32 + lane, end = (k0 + count + width - 1) / width;
    reader.start(w, n, first, end, step);
    if (k0 > 0) __syncthreads();  // the part before has been used
    stage_rows<M>(xs, x, first_token, tokens, x_stride, w.cols, k0, count, aligned);
    __syncthreads();
    reader.run(sum, w, n, first, end, step, xs, staged_row(count), k0);
  }

  // Lane i keeps sum i.
  float mine = 0.0f;
#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int r = 0; r < Rows; r++) {
      const float whole = warp_sum(sum[m][r]);
      if (lane == m * Rows + r) mine = whole;
    }
  if (share > 1) {
    if (lane < M * Rows) parts[warp * M * Rows + lane] = mine;
    __syncthreads();
    if (warp % share == 0 && lane < M * Rows)
      for (int i = 1; i < share; i++) mine += parts[(warp + i) * M * Rows + lane];
  }
  const int t = first_token + lane / Rows;
  const long long row = first_row + lane % Rows;
  if (warp % share == 0 && lane < M * Rows && t < tokens && row < w.rows) out.put(t, row, mine);
}

template <typename Reader, int M, int Rows>
static void start(stream& s, const linear_args& a, const cuda_weight& w) {
  // Invariant: how the columns are parted depends on the weight alone.
  const int64_t T = a.x.shape[0], rows = invariant(*s.owner) ? 1 : T, wanted = 2 * multiprocessors(*s.owner);
  int share = 1;
  const int64_t units = int64_t(blocks_for(w.cols, Reader::run));
  while (share < gemv_warps && int64_t(blocks_for(w.rows, gemv_warps / share * Rows)) * blocks_for(rows, M) < wanted && units > 32 * share)
    share *= 2;
  const dim3 grid(blocks_for(w.rows, gemv_warps / share * Rows), blocks_for(T, M));
  const size_t shared = size_t(M) * size_t(staged_row(int(std::min<int64_t>(w.cols, gemv_staged / M)))) * sizeof(float);
  launch(native(s), KERNEL(gemv_kernel<Reader, M, Rows>), grid, 32 * gemv_warps, shared, epilogue_of(a), input_of(a.x),
         view_of(w), int(T), a.x.stride[0], rows_aligned_16(a.x), share);
}

// A row of x that stands alone leaves registers for little else than loads; four share what a warp has unpacked.
template <typename Reader>
static void start_rows(stream& s, const linear_args& a, const cuda_weight& w) {
  if (a.x.shape[0] == 1 && !invariant(*s.owner)) start<Reader, 1, 2>(s, a, w);
  else start<Reader, 4, 4>(s, a, w);
}

// 16-bit weights have products of 16 bits, whatever x is.
void gemv(stream& s, const linear_args& a, const cuda_weight& w) {
  if (w.storage == storage::f32) start_rows<dense_reader<float>>(s, a, w);
  else start_rows<packed_reader>(s, a, w);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
