// linear: y = cap(scale * (x * w^T + bias)) + residual. Which kernel takes it.
//
//   rows of x   16-bit w, any x             4- and 8-bit w, 16-bit x    all else
//   1 .. 4      gemv                        gemv                        gemv
//   5 .. 16     gemm, tiles of 16 rows      gemm, tiles of 16 rows      gemv
//   more        gemm of w's type            gemm of x's type            tile_linear, in f32
//   64 and up   cuBLASLt where it is, for dense w of one type with x or of 16 bits, without bias and cap
#include "linear.cuh"

#include "matrix_library.h"
#include "ops.h"

namespace sl {
namespace SL_BACKEND_NS {
namespace {

// y = x in another type, y without gaps: rows for kernels and a library that take one type.   grid (T, K / 1024)   block 256
__global__ void __launch_bounds__(256) round_rows_kernel(any_output y, any_input x, long long x_stride, int K, bool aligned) {
  const int k = (int(blockIdx.y) * 256 + int(threadIdx.x)) * 4;
  if (k >= K) return;  // K is a multiple of 4
  const long long from = blockIdx.x * x_stride + k;
  float v[4];
  if (aligned) {
    x.load_four(v, from);
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = x.at(from + i);
  }
  y.put_four((long long)blockIdx.x * K + k, v);
}

sl_dtype dtype_of(storage s) { return s == storage::f32 ? SL_DTYPE_F32 : s == storage::f16 ? SL_DTYPE_F16 : SL_DTYPE_BF16; }

constexpr int64_t library_rows = 64;  // fewer are bound by memory, and split over the device by our own kernel

// What the library would take, from shapes and types alone.
bool library_may(const linear_args& a, const cuda_weight& w) {
  const bool dense = w.storage == storage::f32 || w.storage == storage::f16 || w.storage == storage::bf16;
  return dense && a.x.shape[0] >= library_rows && !a.bias && a.soft_cap == 0.0f &&
         (a.x.dtype == dtype_of(w.storage) || w.storage != storage::f32) &&
         (a.y.dtype == SL_DTYPE_F32 || a.y.dtype == dtype_of(w.storage)) && w.cols % 8 == 0 && w.rows % 8 == 0 && a.y.stride[0] % 8 == 0 &&
         (!a.residual || a.residual.stride[0] % 8 == 0);
}
// x goes as it is, or by a copy in w's type.
bool library_copies(const linear_args& a, const cuda_weight& w) { return a.x.dtype != dtype_of(w.storage) || a.x.stride[0] % 8 != 0; }
uint64_t copy_bytes(const linear_args& a, const cuda_weight& w) {
  return library_copies(a, w) ? (uint64_t(a.x.shape[0]) * uint64_t(w.cols) * size_of(dtype_of(w.storage)) + 255) / 256 * 256 : 0;
}

bool by_library(stream& s, const linear_args& a, const cuda_weight& w, char* workspace) {
  matrix_library* library = library_may(a, w) ? library_of(*s.owner) : nullptr;
  if (!library) return false;
  const int64_t T = a.x.shape[0], K = w.cols;
  dense_product p{dtype_of(w.storage), a.y.dtype, T, w.rows, K, a.x.stride[0], a.y.stride[0], a.residual ? a.residual.stride[0] : 0,
                  a.x.data, w.data, a.residual.data, a.y.data, a.scale};
  if (library_copies(a, w)) {
    view copy;
    copy.data = workspace, copy.dtype = p.in;
    round_rows(s, a.x, copy);
    p.x = workspace, p.x_stride = K;
  }
  return library->multiply(p, workspace + copy_bytes(a, w), native(s));
}

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

static uint64_t own_workspace(const device& d, const linear_args& a, const cuda_weight& w) {
  const int64_t T = a.x.shape[0];
  switch (path_of(a, w)) {
    case path::gemv: return 0;
    case path::tile: return plan_tile(T, w.rows, w.cols, multiprocessors(d)).workspace(T, w.rows);
    default: return plan_gemm(T, w.rows, w.cols, multiprocessors(d)).workspace(T, w.rows);
  }
}

uint64_t linear_workspace(const device& d, const linear_args& a) {
  const auto& w = static_cast<const cuda_weight&>(*a.w);
  const uint64_t own = own_workspace(d, a, w);
  return library_may(a, w) && library_of(d) ? std::max(own, copy_bytes(a, w) + matrix_library::workspace_bytes) : own;
}

void round_rows(stream& s, const view& x, const view& y) {
  const int64_t K = x.shape[1];
  launch(native(s), KERNEL(round_rows_kernel), dim3(unsigned(x.shape[0]), blocks_for(K, 1024)), 256, 0, output_of(y), input_of(x),
         x.stride[0], int(K), rows_aligned_16(x));
}

void linear_in(stream& s, const linear_args& a, char* workspace) {
  const auto& w = static_cast<const cuda_weight&>(*a.w);
  if (by_library(s, a, w, workspace)) return;
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
