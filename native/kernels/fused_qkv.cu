// fused_qkv: q, k, v = rope(norm(rms_norm(x) * w^T + bias)), q to a tensor, k and v to the batch's slots of the cache
// x [T,C] in {f32,f16,bf16}   wq [H*D,C]   wk [Hkv*D,C]   wv [Hkv*Dv,C], each of any storage. Which kernels take it:
//   up to 8 rows, products of 16 bits   one launch: few_qkv (qkv_products.cuh)
//   more rows                           the norm (or x in the products' type), then tile_qkv: a launch, or one for each operand
//   else                                a launch each for norm, products and heads: products of f32 or of different types, heads whose dims do not
//                                       go by eight, wide heads that want to be whole, and QK-norm over whole rows, whose sums cross blocks; and
//                                       rows so many that quantised weights go to 16 bits first (linear.cu)
#include "fused_qkv.cuh"

#include "ops.h"
#include "products.cuh"

namespace sl {
namespace SL_BACKEND_NS {
namespace {

// The workspace of the chain: the normalised x in q's dtype, q, k and v in f32, and what a projection wants.
struct qkv_workspace {
  uint64_t q, k, v, projection;
};

int64_t row_of_x(const fused_qkv_args& a) { return (a.x.shape[1] + 7) / 8 * 8; }

qkv_workspace lay_out(const fused_qkv_args& a) {
  const auto T = uint64_t(a.x.shape[0]);
  qkv_workspace w{};
  w.q = padded(T * uint64_t(row_of_x(a)) * size_of(a.q.dtype));
  w.k = w.q + padded(T * uint64_t(a.wq->rows) * 4);
  w.v = w.k + padded(T * uint64_t(a.wk->rows) * 4);
  w.projection = w.v + padded(T * uint64_t(a.wv->rows) * 4);
  return w;
}

// The projections take x in q's type, which may be narrower.
bool changes_x(const fused_qkv_args& a) { return a.norm_weight || a.x.dtype != a.q.dtype; }

// The type of all three products, or f32 where tensor cores do not take them all.
sl_dtype type_of(const fused_qkv_args& a) {
  const sl_dtype type = products_of(as_cuda(a.wq), a.q.dtype);
  return products_of(as_cuda(a.wk), a.q.dtype) == type && products_of(as_cuda(a.wv), a.q.dtype) == type ? type : SL_DTYPE_F32;
}

enum class path { few, bytes, tiles, chain };

path path_of(const device& d, const fused_qkv_args& a) {
  const int64_t T = a.x.shape[0], C = a.x.shape[1];
  const sl_dtype type = type_of(a);
  const int key = a.cache.key_dim, value = a.cache.value_dim;
  const bool by_eight = key % 8 == 0 && value % 8 == 0 && (!a.inv_freq || a.rope_kind == SL_ROPE_INTERLEAVED || a.inv_freq.shape[0] % 8 == 0);
  if (a.whole_row_norm || !by_eight) return path::chain;
  const int whole = std::max(whole_q(a) || whole_k(a) ? key : 0, whole_v(a) ? value : 0);
  const bool few = few_take(T, C) && few_shared_bytes<half, operand::dense>(int(T), int(C)) + size_t(T) * size_t(whole) * 4 <= most_shared_bytes;
  if (few && takes_bytes(d, as_cuda(a.wq)) && takes_bytes(d, as_cuda(a.wk)) && takes_bytes(d, as_cuda(a.wv))) return path::bytes;
  if (type == SL_DTYPE_F32) return path::chain;
  if (few && few_wanted(d, as_cuda(a.wq), T)) return path::few;
  bool by_dense = false;
  for (const weight* w : {a.wq, a.wk, a.wv}) by_dense = by_dense || (may_dequantise(as_cuda(w)) && dense_wanted(d, as_cuda(w), T));
  if (by_dense) return path::chain;
  const bool normal = !a.norm_weight || ((a.x.dtype == SL_DTYPE_F32 || a.x.dtype == type) && C % 8 == 0);
  return normal && (whole + 15) / 16 * 16 <= tile_size_of(narrow_wanted(d, as_cuda(a.wq), T)).bn ? path::tiles : path::chain;
}

}  // namespace

uint64_t fused_qkv_workspace(const device& d, const fused_qkv_args& a) {
  const int64_t T = a.x.shape[0], C = a.x.shape[1];
  switch (path_of(d, a)) {
    case path::few:
    case path::bytes: return 0;
    case path::tiles: return tile_rows_bytes(a.x, a.norm_weight, type_of(a)) + tile_qkv_workspace(d, a);
    default: break;
  }
  uint64_t most = 0;
  for (const weight* w : {a.wq, a.wk, a.wv}) {
    // The projections read x's own rows or the changed ones, which are aligned at least as well.
    for (const view& x : {a.x, matrix(nullptr, a.q.dtype, T, C, row_of_x(a))})
      most = std::max(most, linear_workspace(d, {x, w, view(), view(), matrix(nullptr, SL_DTYPE_F32, T, w->rows)}));
  }
  return lay_out(a).projection + most;
}

void fused_qkv_cuda(stream& s, const fused_qkv_args& a) {
  const int64_t T = a.x.shape[0], C = a.x.shape[1];
  const sl_dtype type = type_of(a);
  const bool half_type = type == SL_DTYPE_F16;
  switch (path_of(*s.owner, a)) {
    case path::few: return half_type ? few_qkv_f16(s, a) : few_qkv_bf16(s, a);
    case path::bytes: return few_qkv_bytes(s, a);
    case path::tiles: {
      char* at = s.workspace;
      const view x = tile_rows(s, a.x, a.norm_weight, a.norm_eps, type, at);
      return half_type ? tile_qkv_f16(s, a, x, at) : tile_qkv_bf16(s, a, x, at);
    }
    case path::chain: break;
  }
  const qkv_workspace w = lay_out(a);
  view x = a.x;
  if (changes_x(a)) x = matrix(s.workspace, a.q.dtype, T, C, row_of_x(a));
  if (a.norm_weight) rms_norm_cuda(s, {a.x, a.norm_weight, a.norm_eps, x});
  else if (changes_x(a)) round_rows(s, a.x, x);
  const view q = matrix(s.workspace + w.q, SL_DTYPE_F32, T, a.wq->rows), k = matrix(s.workspace + w.k, SL_DTYPE_F32, T, a.wk->rows),
             v = matrix(s.workspace + w.v, SL_DTYPE_F32, T, a.wv->rows);
  linear_in(s, {x, a.wq, a.bias_q, view(), q}, s.workspace + w.projection);
  linear_in(s, {x, a.wk, a.bias_k, view(), k}, s.workspace + w.projection);
  linear_in(s, {x, a.wv, a.bias_v, view(), v}, s.workspace + w.projection);

  if (a.whole_row_norm && a.norm_q) rms_norm_cuda(s, {q, a.norm_q, a.qk_norm_eps, q});
  if (a.whole_row_norm && a.norm_k) rms_norm_cuda(s, {k, a.norm_k, a.qk_norm_eps, k});
  process_heads(s, jobs_of(a, q, k, v), turning(a), plan_of(*a.batch), shape_of(a.cache), T, true, a.qk_norm_eps);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
