// linear: y = cap(scale * (x * w^T + bias)) + residual. Which kernel takes it.
//
//   rows of x   16-bit w, any x             4- and 8-bit w, 16-bit x    all else
//   1 .. 4      gemv                        gemv                        gemv
//   5 .. 16     gemm, tiles of 16 rows      gemm, tiles of 16 rows      gemv
//   more        gemm of w's type            gemm of x's type            tile_linear, in f32
#include "linear.cuh"

#include "ops.h"

namespace sl {
namespace SL_BACKEND_NS {
namespace {

enum class path { gemv, f16, bf16, tile };

path path_of(const linear_args& a, const cuda_weight& w) {
  const int64_t T = a.x.shape[0];
  if (T <= 4) return path::gemv;
  switch (w.storage) {
    case storage::f16: return path::f16;
    case storage::bf16: return path::bf16;
    case storage::f32: break;
    default:
      // A step of 16 along K wants one group; the copies want aligned rows.
      if (a.x.dtype == SL_DTYPE_F32 || w.group % 16 != 0 || !rows_aligned_16(a.x)) break;
      return a.x.dtype == SL_DTYPE_F16 ? path::f16 : path::bf16;
  }
  return T <= 16 ? path::gemv : path::tile;
}

// Blocks that share a tile's steps along K, at least `least` steps each, until `wanted` blocks run.
int splits(int64_t tiles, int64_t steps, int64_t least, int64_t wanted) {
  const int64_t n = std::min({(wanted + tiles - 1) / tiles, steps / least, int64_t(32)});
  if (n <= 1 || tiles * 4 > wanted * 3) return 1;
  const int64_t each = (steps + n - 1) / n;
  return int((steps + each - 1) / each);
}

}  // namespace

gemm_plan plan_gemm(int64_t M, int64_t N, int64_t K, int multiprocessors) {
  const int64_t columns = (N + 127) / 128, steps = (K + 63) / 64;
  if (M <= 16) return {16, 128, 64, splits(columns, steps, 4, 3 * int64_t(multiprocessors)), };
  const int64_t large = (M + 127) / 128 * columns;
  if (M > 64 && large >= multiprocessors) return {128, 128, 64, 1};
  return {64, 128, 64, splits((M + 63) / 64 * columns, steps, 4, 2 * int64_t(multiprocessors))};
}

gemm_plan plan_tile(int64_t M, int64_t N, int64_t K, int multiprocessors) {
  const int64_t tiles = (M + 63) / 64 * ((N + 63) / 64);
  return {64, 64, 32, splits(tiles, (K + 31) / 32, 8, 3 * int64_t(multiprocessors))};
}

uint64_t linear_workspace(const device& d, const linear_args& a) {
  const auto& w = static_cast<const cuda_weight&>(*a.w);
  const int64_t T = a.x.shape[0];
  switch (path_of(a, w)) {
    case path::gemv: return 0;
    case path::tile: return plan_tile(T, w.rows, w.cols, multiprocessors(d)).workspace(T, w.rows);
    default: return plan_gemm(T, w.rows, w.cols, multiprocessors(d)).workspace(T, w.rows);
  }
}

void linear_in(stream& s, const linear_args& a, char* workspace) {
  const auto& w = static_cast<const cuda_weight&>(*a.w);
  switch (path_of(a, w)) {
    case path::gemv: return gemv(s, a, w);
    case path::f16: return gemm_f16(s, a, w, workspace);
    case path::bf16: return gemm_bf16(s, a, w, workspace);
    case path::tile: return tile_linear(s, a, w, workspace);
  }
}

void linear_cuda(stream& s, const linear_args& a) { linear_in(s, a, s.workspace); }

}  // namespace SL_BACKEND_NS
}  // namespace sl
