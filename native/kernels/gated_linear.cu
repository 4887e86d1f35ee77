// gated_linear: y = act(x * gate^T + bias_gate) * (x * up^T + bias_up), x normalised first. Which kernels take it.
//   up to 8 rows of x, products of 16 bits   one launch: few_gated
//   more                                     the norm (or x in the products' type), then tile_gated
//   else                                     a launch each for norm, both products and the activation: products of f32, gate and up of
//                                            different widths, and rows so many that dense products are faster (linear.cu)
#include "gated_linear.h"

#include "linear.cuh"
#include "matrix_library.h"
#include "ops.h"
#include "products.cuh"

namespace sl {
namespace SL_BACKEND_NS {
namespace {

enum class path { few, bytes, tiles, chain };

sl_dtype type_of(const gated_linear_args& a) { return products_of(as_cuda(a.gate), a.y.dtype); }

// Kept alike, so that one kernel reads both.
bool alike(const cuda_weight& a, const cuda_weight& b) { return a.storage == b.storage && a.scaling == b.scaling && a.group == b.group; }

path path_of(const device& d, const gated_linear_args& a) {
  const cuda_weight &gate = as_cuda(a.gate), &up = as_cuda(a.up);
  const int64_t T = a.x.shape[0];
  const sl_dtype type = type_of(a);
  if (takes_bytes(d, gate) && takes_bytes(d, up) && alike(gate, up) && few_take(T, gate.cols)) return path::bytes;
  if (type == SL_DTYPE_F32 || products_of(up, a.y.dtype) != type || !alike(gate, up)) return path::chain;
  if (few_wanted(d, gate, T) && few_take(T, gate.cols)) return path::few;
  const bool by_dense = dense_wanted(d, gate, T) && (gate.quantised() ? may_dequantise(gate) : library_of(d) != nullptr);
  const bool normal = !a.norm_weight || ((a.x.dtype == SL_DTYPE_F32 || a.x.dtype == type) && gate.cols % 8 == 0);
  return by_dense || !normal ? path::chain : path::tiles;
}

// The chain's x: normalised, or in y's type.
bool changes_x(const gated_linear_args& a) { return a.norm_weight || a.x.dtype != a.y.dtype; }

linear_args half_of(const gated_linear_args& a, const view& x, bool gate, const view& y) {
  return {x, gate ? a.gate : a.up, gate ? a.bias_gate : a.bias_up, view(), y};
}

}  // namespace

uint64_t gated_linear_workspace(const device& d, const gated_linear_args& a) {
  const int64_t T = a.x.shape[0], K = a.x.shape[1], F = a.y.shape[1];
  switch (path_of(d, a)) {
    case path::few:
    case path::bytes: return 0;
    case path::tiles: return tile_rows_bytes(a.x, a.norm_weight, type_of(a)) + tiles_workspace(T, 2 * F, K, d, narrow_wanted(d, as_cuda(a.gate), T));
    default: break;
  }
  const uint64_t copy = padded(uint64_t(T) * uint64_t((K + 7) / 8 * 8) * size_of(a.y.dtype)), up = padded(uint64_t(T) * uint64_t(F) * size_of(a.y.dtype));
  uint64_t most = 0;
  // The products read x's own rows or the changed ones, which are aligned at least as well.
  for (const view& x : {a.x, matrix(nullptr, a.y.dtype, T, K, (K + 7) / 8 * 8)})
    for (bool gate : {true, false}) most = std::max(most, linear_workspace(d, half_of(a, x, gate, matrix(nullptr, a.y.dtype, T, F))));
  return copy + up + most;
}

void gated_linear_cuda(stream& s, const gated_linear_args& a) {
  const int64_t T = a.x.shape[0], K = a.x.shape[1], F = a.y.shape[1];
  const sl_dtype type = type_of(a);
  const bool half_type = type == SL_DTYPE_F16;
  char* at = s.workspace;
  switch (path_of(*s.owner, a)) {
    case path::few: return half_type ? few_gated_f16(s, a) : few_gated_bf16(s, a);
    case path::bytes: return few_gated_bytes(s, a);
    case path::tiles: {
      const view x = tile_rows(s, a.x, a.norm_weight, a.norm_eps, type, at);
      return half_type ? tile_gated_f16(s, a, x, at) : tile_gated_bf16(s, a, x, at);
    }
    case path::chain: break;
  }
  view x = a.x;
  if (changes_x(a)) {
    x = matrix(at, a.y.dtype, T, K, (K + 7) / 8 * 8);
    if (a.norm_weight) rms_norm_cuda(s, {a.x, a.norm_weight, a.norm_eps, x});
    else round_rows(s, a.x, x);
  }
  at += padded(uint64_t(T) * uint64_t((K + 7) / 8 * 8) * size_of(a.y.dtype));
  const view up = matrix(at, a.y.dtype, T, F);
  at += padded(uint64_t(T) * uint64_t(F) * size_of(a.y.dtype));
  linear_in(s, half_of(a, x, true, a.y), at);
  linear_in(s, half_of(a, x, false, up), at);
  gated_activation_cuda(s, {a.y, up, a.y, a.activation});
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
