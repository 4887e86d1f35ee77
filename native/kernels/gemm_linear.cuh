// gemm: y[t,n] = cap(scale * (sum_k x[t,k] * w[n,k] + bias[n])) + residual[t,n] on tensor cores, for many rows of x
// x [T,K] in {f32,f16,bf16}   w [N,K] 16-bit, 8-bit or 4-bit   products of E = f16 or bf16, sums in f32
// grid (tiles, parts of K)   block 128 or 256, a tile of 16, 64 or 128 rows of x by 128 of w   shared up to 96 KB
// bound by memory below some 100 rows and by the tensor cores above. Where tiles alone would leave multiprocessors idle, blocks
// share a tile's K; their sums go to the workspace, and a second launch adds them in order (splits.cu).
#include "gemm.cuh"
#include "linear.cuh"

namespace sl {
namespace SL_BACKEND_NS {

template <typename Tile>
__global__ void __launch_bounds__(Tile::threads)
    gemm_kernel(epilogue out, gmem<float> partial, x_rows x, weight_view w, int tiles_m, int tiles_n, int steps, int split_steps) {
  DYN_SHARED(char, shared);
  // Eight tiles along T before the next along N: blocks that run together share both operands in L2.
  const int band = int(blockIdx.x) / (8 * tiles_n), in_band = int(blockIdx.x) % (8 * tiles_n);
  const int wide = min(8, tiles_m - 8 * band);
  const int row0 = (8 * band + in_band % wide) * Tile::BM, column0 = in_band / wide * Tile::BN;

  Tile tile;
  tile.x = x, tile.w = w, tile.shared = shared, tile.row0 = row0;
  tile.steps_from = int(blockIdx.y) * split_steps, tile.steps_to = min(steps, tile.steps_from + split_steps);
  const int last = w.rows - 1;
  const smem<float> sums = tile.run([=](int i) { return min(column0 + i, last); }, as_it_is());

  const bool fours = w.rows % 4 == 0;
  for (int at = int(threadIdx.x); at < Tile::BM * Tile::BN / 4; at += Tile::threads) {
    const int row = at / (Tile::BN / 4), column = at % (Tile::BN / 4) * 4;
    const int t = row0 + row, n = column0 + column;
    if (t >= x.rows || n >= w.rows) continue;
    const float4 four = view_as<float4>(sums + (row * Tile::out_row + column))[0];
    float v[4] = {four.x, four.y, four.z, four.w};
    if (!partial) {
      out.put_four(t, n, w.rows, v);
      continue;
    }
    const gmem<float> to = partial + (((long long)blockIdx.y * x.rows + t) * w.rows + n);
    if (fours) {
      view_as<float4>(to)[0] = four;
    } else {
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (n + i < w.rows) to[i] = v[i];
    }
  }
}

template <typename E, operand W, bool Direct, int MF, int WarpsM, int Stages>
void start_gemm(stream& s, const linear_args& a, const cuda_weight& w, const gemm_plan& p, char* workspace) {
  using Tile = gemm_tile<E, W, Direct, MF, WarpsM, Stages>;
  const int64_t T = a.x.shape[0];
  const int tiles_m = int(blocks_for(T, Tile::BM)), tiles_n = int(blocks_for(w.rows, Tile::BN)), steps = int(blocks_for(w.cols, Tile::BK));
  float* partial = p.split > 1 ? reinterpret_cast<float*>(workspace) : nullptr;
  launch(native(s), KERNEL(gemm_kernel<Tile>), dim3(unsigned(tiles_m) * unsigned(tiles_n), unsigned(p.split)), Tile::threads,
         Tile::shared_bytes, epilogue_of(a), partial, x_rows{input_of(a.x), a.x.stride[0], int(T), int(w.cols), rows_aligned_16(a.x)},
         view_of(w), tiles_m, tiles_n, steps, int(blocks_for(steps, p.split)));
  if (partial) add_splits(s, a, w, p.split, workspace);
}

template <typename E, operand W, bool Direct>
void start_tiles(stream& s, const linear_args& a, const cuda_weight& w, char* workspace) {
  const gemm_plan p = plan_gemm(a.x.shape[0], w.rows, w.cols, multiprocessors(*s.owner));
  if (p.tile_m == 16) return start_gemm<E, W, Direct, 1, 1, 4>(s, a, w, p, workspace);
  if (p.tile_m == 64) return start_gemm<E, W, Direct, 2, 2, 4>(s, a, w, p, workspace);
  return start_gemm<E, W, Direct, 4, 2, 3>(s, a, w, p, workspace);
}

template <typename E>
void gemm_of(stream& s, const linear_args& a, const cuda_weight& w, char* workspace) {
  const bool direct = a.x.dtype == dtype_of<E>() && rows_aligned_16(a.x);
  switch (w.storage) {
    case storage::f16:
    case storage::bf16:
      return direct ? start_tiles<E, operand::dense, true>(s, a, w, workspace) : start_tiles<E, operand::dense, false>(s, a, w, workspace);
    case storage::int8: return start_tiles<E, operand::int8, true>(s, a, w, workspace);
    default: return start_tiles<E, operand::int4, true>(s, a, w, workspace);
  }
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
