// linear: y = cap(scale * (x * w^T + bias)) + residual. Which kernel takes it.
//
//   products     rows of x                        kernel
//   of 16 bits   few: 8 at most                   few_linear, where x finds room in shared memory
//                narrow, and between              tile_linear of 16 or 64 rows; a launch before it where x is not of the products' type, or its rows
//                                                 are not aligned
//                dense                            quantised w: panels of it to 16 bits (dequantise), each then as a dense w; dense w: cuBLASLt where
//                                                 it is, without bias and cap
//   of f32       1 .. 16                          gemv
//                more                             f32_linear
//   of bytes     1 .. 8                           few_linear, where the device is asked for it
//
// Few, narrow and dense are the device's switch points. Products are of w's type where that has 16 bits, else of x's where w is quantised;
// f32 weights, and quantised ones that meet x of f32, keep f32 products.
#include "linear.cuh"

#include "matrix_library.h"
#include "ops.h"
#include "products.cuh"

namespace sl {
namespace SL_BACKEND_NS {
namespace {

// y = x in another type: rows for kernels and a library that take one type.   grid (T, columns / 1024)   block 256
__global__ void __launch_bounds__(256) round_rows_kernel(any_output y, any_input x, long long x_stride, long long y_stride, int K, bool aligned) {
  const int k = (int(blockIdx.y) * 256 + int(threadIdx.x)) * 4;
  if (k >= y_stride) return;  // a multiple of 4
  float v[4] = {};
  if (k < K) x.load_some(v, blockIdx.x * x_stride + k, K - k, aligned);
  y.put_four(blockIdx.x * y_stride + k, v);
}

// The sums of y's squares, where no kernel that made y left them.   grid (T, N / 1024)   block 256: 4 lanes have 16 columns
__global__ void __launch_bounds__(256) squares_kernel(gmem<float> squares, gmem<const float> y, long long squares_stride, long long y_stride, int N) {
  const int n = (int(blockIdx.y) * 256 + int(threadIdx.x)) * 4;
  float sum = 0.0f;
  for (int i = n; i < min(n + 4, N); i++) {
    const float v = y[blockIdx.x * y_stride + i];
    sum += v * v;
  }
  sum = warp_sum<4>(sum);
  if (n < N && n % 16 == 0) squares[blockIdx.x * squares_stride + n / 16] = sum;
}

bool is_dense(const cuda_weight& w) { return w.storage == storage::f32 || w.storage == storage::f16 || w.storage == storage::bf16; }

// What the library would take, from shapes and types alone.
bool library_may(const device& d, const linear_args& a, const cuda_weight& w) {
  if (!is_dense(w) || !(a.route == SL_ROUTE_ANY ? dense_wanted(d, w, a.x.shape[0]) : a.route == SL_ROUTE_DENSE)) return false;
  const sl_dtype type = products_of(w, SL_DTYPE_F32);
  return !a.bias && a.soft_cap == 0.0f && (a.x.dtype == type || type != SL_DTYPE_F32) &&
         (a.y.dtype == SL_DTYPE_F32 || a.y.dtype == type) && w.cols % 8 == 0 && w.rows % 8 == 0 && a.y.stride[0] % 8 == 0 &&
         (!a.residual || a.residual.stride[0] % 8 == 0);
}
// x goes as it is, or by a copy in w's type.
bool library_copies(const linear_args& a, const cuda_weight& w) { return a.x.dtype != products_of(w, SL_DTYPE_F32) || a.x.stride[0] % 8 != 0; }
uint64_t copy_bytes(const linear_args& a, const cuda_weight& w) {
  return library_copies(a, w) ? padded(uint64_t(a.x.shape[0]) * uint64_t(w.cols) * size_of(products_of(w, SL_DTYPE_F32))) : 0;
}

bool by_library(stream& s, const linear_args& a, const cuda_weight& w, char* workspace) {
  matrix_library* library = library_may(*s.owner, a, w) ? library_of(*s.owner) : nullptr;
  if (!library) return false;
  const int64_t T = a.x.shape[0], K = w.cols;
  dense_product p{products_of(w, SL_DTYPE_F32), a.y.dtype, T, w.rows, K, a.x.stride[0], a.y.stride[0], a.residual ? a.residual.stride[0] : 0,
                  a.x.data, w.data, a.residual.data, a.y.data, a.scale};
  if (library_copies(a, w)) {
    round_rows(s, a.x, matrix(workspace, p.in, T, K));
    p.x = workspace, p.x_stride = K;
  }
  return library->multiply(p, workspace + copy_bytes(a, w), native(s));
}

bool tiles_take(const view& x, sl_dtype type) {
  return x.dtype == type && x.shape[1] % 8 == 0 && aligned_16(x.data) && (x.shape[0] == 1 || x.stride[0] % 8 == 0);
}

enum class path { gemv, f32_tiles, few, bytes, narrow, wide, dequantised };

path path_of(const device& d, const linear_args& a, const cuda_weight& w) {
  const int64_t T = a.x.shape[0];
  const bool products_16 = products_of(w, a.x.dtype) != SL_DTYPE_F32, few = products_16 && few_take(T, w.cols), dense = products_16 && may_dequantise(w);
  if (a.route != SL_ROUTE_ANY) {
    if (a.route == SL_ROUTE_FEW && few) return path::few;
    if (a.route == SL_ROUTE_NARROW && products_16) return path::narrow;
    if (a.route == SL_ROUTE_WIDE && products_16) return path::wide;
    if (a.route == SL_ROUTE_DENSE && dense) return path::dequantised;
    if (a.route == SL_ROUTE_DENSE && is_dense(w) && library_may(d, a, w) && library_of(d)) return path::wide;  // which the library is asked before
    throw error(SL_ERR_UNSUPPORTED, format("linear: %lld rows of x and a weight [%lld,%lld] cannot take route %d: few takes 8 rows at most, narrow and wide products of "
                                           "16 bits, dense quantised weights of columns by 8, and others where the vendor's library is",
                                           (long long)T, (long long)w.rows, (long long)w.cols, a.route));
  }
  if (takes_bytes(d, w) && few_take(T, w.cols)) return path::bytes;
  if (!products_16) return T <= 16 || invariant(d) ? path::gemv : path::f32_tiles;
  if (few && few_wanted(d, w, T)) return path::few;
  if (narrow_wanted(d, w, T)) return path::narrow;
  return dense && dense_wanted(d, w, T) ? path::dequantised : path::wide;
}

// --- quantised weights that go to 16 bits first: panels of them, so that the workspace is bounded -----------------------------

constexpr int64_t panel_bytes = int64_t(512) << 10;  // a multiprocessor: tiles enough for all of them, 66 MB on an H100

int64_t panel_rows(const device& d, const cuda_weight& w) {
  return std::min(w.rows, std::max<int64_t>(256, multiprocessors(d) * panel_bytes / (2 * w.cols) / 256 * 256));
}

// Columns from `first` on of y, bias, residual and squares.
linear_args panel_of(const linear_args& a, int64_t first, int64_t rows) {
  linear_args p = a;
  p.route = SL_ROUTE_ANY;
  const auto columns = [](view v, int64_t dim, int64_t from, int64_t count) {
    if (!v) return v;
    v.data = v.as<char>() + from * int64_t(size_of(v.dtype));
    v.shape[dim] = count;
    return v;
  };
  p.y = columns(a.y, 1, first, rows), p.residual = columns(a.residual, 1, first, rows), p.bias = columns(a.bias, 0, first, rows);
  p.squares = columns(a.squares, 1, first / square_columns, square_sums(rows));
  return p;
}

void describe(cuda_weight& panel, const cuda_weight& w, int64_t rows, sl_dtype type, char* data) {
  panel.borrowed = true;
  panel.rows = rows, panel.cols = w.cols, panel.data = data;
  panel.storage = type == SL_DTYPE_F16 ? storage::f16 : storage::bf16;
  panel.encoding = type == SL_DTYPE_F16 ? SL_ENCODING_F16 : SL_ENCODING_BF16;
}

uint64_t dequantised_workspace(const device& d, const linear_args& a, const cuda_weight& w) {
  const sl_dtype type = products_of(w, a.x.dtype);
  const int64_t rows = panel_rows(d, w);
  uint64_t most = 0;
  for (const int64_t each : {rows, w.rows % rows}) {
    if (each == 0) continue;
    cuda_weight panel(static_cast<const cuda_device&>(d));
    describe(panel, w, each, type, nullptr);
    linear_args inner = panel_of(a, 0, each);
    inner.w = &panel;
    if (tile_rows_bytes(a.x, view(), type) > 0) inner.x = matrix(nullptr, type, a.x.shape[0], w.cols);
    most = std::max(most, linear_workspace(d, inner));
  }
  return tile_rows_bytes(a.x, view(), type) + padded(uint64_t(rows) * uint64_t(w.cols) * 2) + most;
}

void dequantised_linear(stream& s, const linear_args& a, const cuda_weight& w, char* workspace) {
  const sl_dtype type = products_of(w, a.x.dtype);
  const view x = tile_rows(s, a.x, view(), 0.0f, type, workspace);
  const int64_t rows = panel_rows(*s.owner, w);
  char* data = workspace;
  workspace += padded(uint64_t(rows) * uint64_t(w.cols) * 2);
  for (int64_t first = 0; first < w.rows; first += rows) {
    cuda_weight panel(static_cast<const cuda_device&>(*s.owner));
    describe(panel, w, std::min(rows, w.rows - first), type, data);
    dequantise(s, w, first, panel.rows, type, data);
    linear_args inner = panel_of(a, first, panel.rows);
    inner.x = x, inner.w = &panel;
    linear_in(s, inner, workspace);
  }
}

uint64_t own_workspace(const device& d, const linear_args& a, const cuda_weight& w) {
  const int64_t T = a.x.shape[0];
  const path p = path_of(d, a, w);
  switch (p) {
    case path::f32_tiles: return plan_f32(T, w.rows, w.cols, multiprocessors(d)).workspace(T, w.rows);
    case path::narrow:
    case path::wide: return tile_rows_bytes(a.x, view(), products_of(w, a.x.dtype)) + tiles_workspace(T, w.rows, w.cols, d, p == path::narrow);
    case path::dequantised: return dequantised_workspace(d, a, w);
    default: return 0;
  }
}

}  // namespace

f32_plan plan_f32(int64_t M, int64_t N, int64_t K, int multiprocessors) {
  // Blocks that share a tile's steps along K, 8 steps of 32 each at least, until three run on each multiprocessor.
  const int64_t tiles = (M + 63) / 64 * ((N + 63) / 64), steps = (K + 31) / 32, wanted = 3 * int64_t(multiprocessors);
  const int64_t n = std::min({(wanted + tiles - 1) / tiles, steps / 8, int64_t(32)});
  if (n <= 1 || tiles * 4 > wanted * 3) return {1};
  const int64_t each = (steps + n - 1) / n;
  return {int((steps + each - 1) / each)};
}

uint64_t tile_rows_bytes(const view& x, const view& norm, sl_dtype type) {
  return norm || !tiles_take(x, type) ? padded(uint64_t(x.shape[0]) * uint64_t((x.shape[1] + 7) / 8 * 8) * 2) : 0;
}
view tile_rows(stream& s, const view& x, const view& norm, float eps, sl_dtype type, char*& workspace) {
  const uint64_t bytes = tile_rows_bytes(x, norm, type);
  if (bytes == 0) return x;
  const view copy = matrix(workspace, type, x.shape[0], x.shape[1], (x.shape[1] + 7) / 8 * 8);
  workspace += bytes;
  if (norm) rms_norm_cuda(s, {x, norm, eps, copy});
  else round_rows(s, x, copy);
  return copy;
}

uint64_t linear_workspace(const device& d, const linear_args& a) {
  const cuda_weight& w = as_cuda(a.w);
  const uint64_t own = own_workspace(d, a, w);
  return library_may(d, a, w) && library_of(d) ? std::max(own, copy_bytes(a, w) + matrix_library::workspace_bytes) : own;
}

void round_rows(stream& s, const view& x, const view& y) {
  launch(native(s), KERNEL(round_rows_kernel), dim3(unsigned(x.shape[0]), blocks_for(y.stride[0], 1024)), 256, 0, output_of(y), input_of(x),
         x.stride[0], y.stride[0], int(x.shape[1]), rows_aligned_16(x));
}

static void sum_squares(stream& s, const linear_args& a) {
  if (!a.squares) return;
  launch(native(s), KERNEL(squares_kernel), dim3(unsigned(a.y.shape[0]), blocks_for(a.y.shape[1], 1024)), 256, 0, a.squares.as<float>(),
         a.y.as<const float>(), a.squares.stride[0], a.y.stride[0], int(a.y.shape[1]));
}

void linear_in(stream& s, const linear_args& a, char* workspace) {
  const cuda_weight& w = as_cuda(a.w);
  if (by_library(s, a, w, workspace)) return sum_squares(s, a);
  const sl_dtype type = products_of(w, a.x.dtype);
  const bool half_type = type == SL_DTYPE_F16;
  const path p = path_of(*s.owner, a, w);
  switch (p) {
    case path::gemv: return gemv(s, a, w), sum_squares(s, a);
    case path::f32_tiles: return f32_linear(s, a, w, workspace), sum_squares(s, a);
    case path::few: return half_type ? few_linear_f16(s, a, w) : few_linear_bf16(s, a, w);
    case path::bytes: return few_linear_bytes(s, a, w);
    case path::dequantised: return dequantised_linear(s, a, w, workspace);
    default: break;
  }
  linear_args given = a;
  given.x = tile_rows(s, a.x, view(), 0.0f, type, workspace);
  half_type ? tile_linear_f16(s, given, w, p == path::narrow, workspace) : tile_linear_bf16(s, given, w, p == path::narrow, workspace);
}

void linear_cuda(stream& s, const linear_args& a) { linear_in(s, a, s.workspace); }

}  // namespace SL_BACKEND_NS
}  // namespace sl
