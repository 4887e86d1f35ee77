// Every op: its arguments checked once for all backends, then handed to the backend's table.
#include <algorithm>
#include <cmath>

#include "tensor.h"

using namespace sl;

namespace {

// Measures, records or runs.
template <typename Args>
void dispatch(sl_stream& s, op<Args> op_table::*member, const Args& args) {
  const op<Args>& o = s.device->impl->ops().*member;
  if (o.run == nullptr) fail(SL_ERR_UNSUPPORTED, "this backend does not have the op");
  uint64_t needed = o.workspace != nullptr ? o.workspace(*s.device->impl, args) : 0;
  if (s.measuring) {
    s.measured = std::max(s.measured, needed);
    return;
  }
  if (needed > s.impl->workspace_bytes)
    fail(SL_ERR_WORKSPACE, "the op needs %llu bytes of workspace, the stream has %llu: call sl_stream_reserve",
         (unsigned long long)needed, (unsigned long long)s.impl->workspace_bytes);
  if (s.capturing) s.captured_workspace = std::max(s.captured_workspace, needed);
  if (s.impl->keeps_closures()) {
    stream* impl = s.impl.get();
    impl->capture([impl, &o, args] { o.run(*impl, args); });
  } else {
    o.run(*s.impl, args);
  }
}

uint32_t f32_or(const view& x) { return only(SL_DTYPE_F32) | only(x.dtype); }

// Of a result of x: x's own type, or any activation's where x is f32.
uint32_t same_or_from_f32(const view& x) { return x.dtype == SL_DTYPE_F32 ? activations : only(x.dtype); }

void require_finite_eps(float eps, const char* name) {
  if (!(eps >= 0.0f) || !std::isfinite(eps)) fail(SL_ERR_ARGUMENT, "%s is %g, expected 0 or more", name, static_cast<double>(eps));
}

void require_soft_cap(float cap) {
  if (!(cap >= 0.0f) || !std::isfinite(cap)) fail(SL_ERR_ARGUMENT, "soft_cap is %g, expected 0 or more", static_cast<double>(cap));
}

void require_activation(sl_activation kind) {
  if (kind < 0 || kind > SL_ACTIVATION_RELU) fail(SL_ERR_ARGUMENT, "activation is %d, expected 0..3", kind);
}

constexpr uint32_t f32 = only(SL_DTYPE_F32), i32 = only(SL_DTYPE_I32), i64 = only(SL_DTYPE_I64);

}  // namespace

sl_status sl_embedding(sl_stream* stream, const sl_tensor* ids, sl_weight* table, float scale, const sl_tensor* y) {
  return guard_stream("sl_embedding", stream, [&](sl_stream& s) {
    checker c(s);
    embedding_args a{};
    a.ids = c.tensor(ids, "ids", "[T]", {any}, i32);
    a.table = c.weight(table, "table", any, any);
    a.y = c.tensor(y, "y", "[T,D]", {a.ids.shape[0], a.table->cols}, activations);
    a.scale = scale;
    if (a.ids.shape[0] > 0) dispatch(s, &op_table::embedding, a);
  });
}

sl_status sl_gather(sl_stream* stream, const sl_tensor* x, const sl_tensor* rows, const sl_tensor* y) {
  return guard_stream("sl_gather", stream, [&](sl_stream& s) {
    checker c(s);
    gather_args a{};
    a.x = c.tensor(x, "x", "[T,D]", {any, any}, any_dtype);
    a.rows = c.tensor(rows, "rows", "[R]", {any}, i32);
    a.y = c.tensor(y, "y", "[R,D]", {a.rows.shape[0], a.x.shape[1]}, only(a.x.dtype));
    c.apart(a.y, "y", a.x, "x");
    c.apart(a.y, "y", a.rows, "rows");
    if (a.rows.shape[0] > 0 && a.x.shape[1] > 0) dispatch(s, &op_table::gather, a);
  });
}

sl_status sl_rms_norm(sl_stream* stream, const sl_tensor* x, const sl_tensor* w, float eps, const sl_tensor* y) {
  return guard_stream("sl_rms_norm", stream, [&](sl_stream& s) {
    checker c(s);
    rms_norm_args a{};
    a.x = c.tensor(x, "x", "[T,D]", {any, any}, activations);
    a.y = c.tensor(y, "y", "[T,D]", {a.x.shape[0], a.x.shape[1]}, same_or_from_f32(a.x));
    a.w = c.tensor(w, "w", "[D]", {a.x.shape[1]}, f32_or(a.y));
    require_finite_eps(a.eps = eps, "eps");
    c.apart_or_same(a.y, "y", a.x, "x");
    if (a.x.shape[0] > 0 && a.x.shape[1] > 0) dispatch(s, &op_table::rms_norm, a);
  });
}

sl_status sl_add_rms_norm(sl_stream* stream, const sl_tensor* x, const sl_tensor* residual, const sl_tensor* w, float eps,
                          const sl_tensor* y) {
  return guard_stream("sl_add_rms_norm", stream, [&](sl_stream& s) {
    checker c(s);
    add_rms_norm_args a{};
    a.x = c.tensor(x, "x", "[T,D]", {any, any}, activations);
    a.residual = c.tensor(residual, "residual", "[T,D]", {a.x.shape[0], a.x.shape[1]}, f32_or(a.x));
    a.w = c.tensor(w, "w", "[D]", {a.x.shape[1]}, f32_or(a.x));
    a.y = c.tensor(y, "y", "[T,D]", {a.x.shape[0], a.x.shape[1]}, only(a.x.dtype));
    require_finite_eps(a.eps = eps, "eps");
    c.apart_or_same(a.y, "y", a.x, "x");
    c.apart(a.residual, "residual", a.x, "x");
    c.apart(a.y, "y", a.residual, "residual");
    if (a.x.shape[0] > 0 && a.x.shape[1] > 0) dispatch(s, &op_table::add_rms_norm, a);
  });
}

sl_status sl_rms_norm_add(sl_stream* stream, const sl_tensor* x, const sl_tensor* w, float eps, const sl_tensor* residual,
                          const sl_tensor* y) {
  return guard_stream("sl_rms_norm_add", stream, [&](sl_stream& s) {
    checker c(s);
    rms_norm_add_args a{};
    a.x = c.tensor(x, "x", "[T,D]", {any, any}, activations);
    a.w = c.tensor(w, "w", "[D]", {a.x.shape[1]}, f32_or(a.x));
    a.residual = c.tensor(residual, "residual", "[T,D]", {a.x.shape[0], a.x.shape[1]}, f32_or(a.x));
    a.y = c.tensor(y, "y", "[T,D]", {a.x.shape[0], a.x.shape[1]}, only(a.residual.dtype));
    require_finite_eps(a.eps = eps, "eps");
    c.apart_or_same(a.y, "y", a.x, "x");
    c.apart_or_same(a.y, "y", a.residual, "residual");
    if (a.x.shape[0] > 0 && a.x.shape[1] > 0) dispatch(s, &op_table::rms_norm_add, a);
  });
}

sl_status sl_linear(sl_stream* stream, const sl_linear_args* args) {
  return guard_stream("sl_linear", stream, [&](sl_stream& s) {
    sl_linear_args g = checked_struct(args, "args");
    checker c(s);
    linear_args a{};
    a.x = c.tensor(g.x, "x", "[T,K]", {any, any}, activations);
    a.w = c.weight(g.weight, "weight", any, a.x.shape[1]);
    int64_t rows = a.x.shape[0], n = a.w->rows;
    a.bias = c.optional(g.bias, "bias", "[N]", {n}, f32_or(a.x));
    a.y = c.tensor(g.y, "y", "[T,N]", {rows, n}, f32 | same_or_from_f32(a.x));
    a.residual = c.optional(g.residual, "residual", "[T,N]", {rows, n}, only(a.y.dtype));
    c.apart(a.y, "y", a.x, "x");
    if (!std::isfinite(g.scale)) fail(SL_ERR_ARGUMENT, "scale is not finite");
    require_soft_cap(g.soft_cap);
    a.scale = g.scale == 0.0f ? 1.0f : g.scale;
    a.soft_cap = g.soft_cap;
    if (g.route < SL_ROUTE_ANY || g.route > SL_ROUTE_DENSE) fail(SL_ERR_ARGUMENT, "route is %d, expected 0 (any) .. 4 (dense)", g.route);
    a.route = g.route;
    c.apart_or_same(a.y, "y", a.residual, "residual");
    a.squares = c.optional(g.squares, "squares", "[T,ceil(N/16)]", {rows, square_sums(n)}, f32);
    if (a.squares && a.y.dtype != SL_DTYPE_F32) fail(SL_ERR_DTYPE, "squares are of a y of F32, and y is %s", name_of(a.y.dtype));
    c.apart(a.squares, "squares", a.x, "x");
    c.apart(a.squares, "squares", a.y, "y");
    c.apart(a.squares, "squares", a.residual, "residual");
    if (rows > 0) dispatch(s, &op_table::linear, a);
  });
}

// Sums that a norm of x may read instead of x.
static view squares_of_x(checker& c, const sl_tensor* squares, const view& x, const view& norm_weight) {
  const view v = c.optional(squares, "squares", "[T,ceil(C/16)]", {x.shape[0], square_sums(x.shape[1])}, f32);
  if (v && !norm_weight) fail(SL_ERR_ARGUMENT, "squares are given, and no norm_weight that they are for");
  if (v && x.dtype != SL_DTYPE_F32) fail(SL_ERR_DTYPE, "squares are of an x of F32, and x is %s", name_of(x.dtype));
  return v;
}

sl_status sl_gated_linear(sl_stream* stream, const sl_gated_linear_args* args) {
  return guard_stream("sl_gated_linear", stream, [&](sl_stream& s) {
    sl_gated_linear_args g = checked_struct(args, "args");
    checker c(s);
    gated_linear_args a{};
    require_activation(a.activation = g.activation);
    a.x = c.tensor(g.x, "x", "[T,C]", {any, any}, activations);
    int64_t rows = a.x.shape[0], width = a.x.shape[1];
    a.gate = c.weight(g.gate, "gate", any, width);
    int64_t n = a.gate->rows;
    a.up = c.weight(g.up, "up", n, width);
    a.y = c.tensor(g.y, "y", "[T,F]", {rows, n}, same_or_from_f32(a.x));
    a.norm_weight = c.optional(g.norm_weight, "norm_weight", "[C]", {width}, f32_or(a.y));
    a.bias_gate = c.optional(g.bias_gate, "bias_gate", "[F]", {n}, f32_or(a.y));
    a.bias_up = c.optional(g.bias_up, "bias_up", "[F]", {n}, f32_or(a.y));
    if (a.norm_weight) require_finite_eps(g.norm_eps, "norm_eps");
    a.norm_eps = g.norm_eps;
    a.squares = squares_of_x(c, g.squares, a.x, a.norm_weight);
    c.apart(a.y, "y", a.x, "x");
    c.apart(a.y, "y", a.squares, "squares");
    if (rows > 0) dispatch(s, &op_table::gated_linear, a);
  });
}

// QK-norm of whole rows, by the first of the two vectors whose length tells: with one head both kinds are the same.
static bool whole_row_norm(const sl_fused_qkv_args& g, int64_t heads, int64_t dim, int64_t keys) {
  if (g.norm_q != nullptr && heads * dim != dim) return g.norm_q->rank == 1 && g.norm_q->shape[0] == heads * dim;
  return g.norm_k != nullptr && keys != dim && g.norm_k->rank == 1 && g.norm_k->shape[0] == keys;
}

sl_status sl_fused_qkv(sl_stream* stream, const sl_fused_qkv_args* args) {
  return guard_stream("sl_fused_qkv", stream, [&](sl_stream& s) {
    sl_fused_qkv_args g = checked_struct(args, "args");
    checker c(s);
    fused_qkv_args a{};
    a.x = c.tensor(g.x, "x", "[T,C]", {any, any}, activations);
    int64_t rows = a.x.shape[0], width = a.x.shape[1];
    a.cache = c.cache(g.cache, g.layer);
    a.batch = c.batch(g.batch, g.cache, rows);
    a.q = c.tensor(g.q, "q", "[T,H,D]", {rows, any, a.cache.key_dim}, same_or_from_f32(a.x));
    int64_t heads = a.q.shape[1], dim = a.cache.key_dim, keys = int64_t{a.cache.kv_heads} * dim;
    int64_t values = int64_t{a.cache.kv_heads} * a.cache.value_dim;
    if (heads < 1 || heads % a.cache.kv_heads != 0)
      fail(SL_ERR_SHAPE, "tensor 'q' has %lld heads, no multiple of the cache's %d", (long long)heads, a.cache.kv_heads);
    a.norm_weight = c.optional(g.norm_weight, "norm_weight", "[C]", {width}, f32_or(a.q));
    a.wq = c.weight(g.wq, "wq", heads * dim, width);
    a.wk = c.weight(g.wk, "wk", keys, width);
    a.wv = c.weight(g.wv, "wv", values, width);
    a.bias_q = c.optional(g.bias_q, "bias_q", "[H*D]", {heads * dim}, f32_or(a.q));
    a.bias_k = c.optional(g.bias_k, "bias_k", "[Hkv*D]", {keys}, f32_or(a.q));
    a.bias_v = c.optional(g.bias_v, "bias_v", "[Hkv*Dv]", {values}, f32_or(a.q));
    a.whole_row_norm = whole_row_norm(g, heads, dim, keys);
    a.norm_q = c.optional(g.norm_q, "norm_q", a.whole_row_norm ? "[H*D]" : "[D] (or [H*D])", {a.whole_row_norm ? heads * dim : dim}, f32_or(a.q));
    a.norm_k = c.optional(g.norm_k, "norm_k", a.whole_row_norm ? "[Hkv*D]" : "[D] (or [Hkv*D], with a norm_q [H*D])", {a.whole_row_norm ? keys : dim}, f32_or(a.q));
    a.inv_freq = c.optional(g.inv_freq, "inv_freq", "[R/2]", {any}, f32);
    if (a.inv_freq && a.inv_freq.shape[0] * 2 > dim)
      fail(SL_ERR_SHAPE, "tensor 'inv_freq' has %lld pairs, a head has %lld dims", (long long)a.inv_freq.shape[0], (long long)dim);
    if (g.rope_kind != SL_ROPE_HALF && g.rope_kind != SL_ROPE_INTERLEAVED) fail(SL_ERR_ARGUMENT, "rope_kind is %d, expected 0 or 1", g.rope_kind);
    if (a.norm_weight) require_finite_eps(g.norm_eps, "norm_eps");
    if (a.norm_q || a.norm_k) require_finite_eps(g.qk_norm_eps, "qk_norm_eps");
    a.layer = g.layer;
    a.norm_eps = g.norm_eps;
    a.qk_norm_eps = g.qk_norm_eps;
    a.rope_scale = g.rope_scale == 0.0f ? 1.0f : g.rope_scale;
    a.rope_kind = g.rope_kind;
    a.squares = squares_of_x(c, g.squares, a.x, a.norm_weight);
    c.apart(a.q, "q", a.x, "x");
    c.apart(a.q, "q", a.squares, "squares");
    if (rows > 0) dispatch(s, &op_table::fused_qkv, a);
  });
}

sl_status sl_rope(sl_stream* stream, const sl_rope_args* args) {
  return guard_stream("sl_rope", stream, [&](sl_stream& s) {
    sl_rope_args g = checked_struct(args, "args");
    checker c(s);
    rope_args a{};
    a.x = c.tensor(g.x, "x", "[T,H,D]", {any, any, any}, activations);
    a.positions = c.tensor(g.positions, "positions", "[T]", {a.x.shape[0]}, i32);
    a.inv_freq = c.tensor(g.inv_freq, "inv_freq", "[R/2]", {any}, f32);
    a.y = c.tensor(g.y, "y", "[T,H,D]", {a.x.shape[0], a.x.shape[1], a.x.shape[2]}, only(a.x.dtype));
    if (a.inv_freq.shape[0] * 2 > a.x.shape[2])
      fail(SL_ERR_SHAPE, "tensor 'inv_freq' has %lld pairs, a head has %lld dims", (long long)a.inv_freq.shape[0], (long long)a.x.shape[2]);
    if (g.kind != SL_ROPE_HALF && g.kind != SL_ROPE_INTERLEAVED) fail(SL_ERR_ARGUMENT, "kind is %d, expected 0 or 1", g.kind);
    a.kind = g.kind;
    a.scale = g.scale == 0.0f ? 1.0f : g.scale;
    c.apart_or_same(a.y, "y", a.x, "x");
    if (a.x.shape[0] > 0 && a.x.shape[1] > 0 && a.x.shape[2] > 0) dispatch(s, &op_table::rope, a);
  });
}

sl_status sl_kv_append(sl_stream* stream, sl_kv_cache* cache, int32_t layer, sl_batch* batch, const sl_tensor* k, const sl_tensor* v) {
  return guard_stream("sl_kv_append", stream, [&](sl_stream& s) {
    checker c(s);
    kv_append_args a{};
    a.cache = c.cache(cache, layer);
    a.layer = layer;
    a.k = c.tensor(k, "k", "[T,Hkv,D]", {any, a.cache.kv_heads, a.cache.key_dim}, activations);
    a.v = c.tensor(v, "v", "[T,Hkv,Dv]", {a.k.shape[0], a.cache.kv_heads, a.cache.value_dim}, only(a.k.dtype));
    a.batch = c.batch(batch, cache, a.k.shape[0]);
    if (a.k.shape[0] > 0) dispatch(s, &op_table::kv_append, a);
  });
}

static void attention(sl_stream& s, const sl_attention_args* args, op<attention_args> op_table::*member) {
  sl_attention_args g = checked_struct(args, "args");
  checker c(s);
  attention_args a{};
  a.cache = c.cache(g.cache, g.layer);
  a.layer = g.layer;
  a.q = c.tensor(g.q, "q", "[T,H,D]", {any, any, a.cache.key_dim}, activations);
  int64_t rows = a.q.shape[0], heads = a.q.shape[1];
  if (heads < 1 || heads % a.cache.kv_heads != 0)
    fail(SL_ERR_SHAPE, "tensor 'q' has %lld heads, no multiple of the cache's %d", (long long)heads, a.cache.kv_heads);
  a.batch = c.batch(g.batch, g.cache, rows);
  a.o = c.tensor(g.o, "o", "[T,H,Dv]", {rows, heads, a.cache.value_dim}, only(a.q.dtype));
  a.lse2 = c.optional(g.lse2, "lse2", "[T,H]", {rows, heads}, f32);
  a.sinks = c.optional(g.sinks, "sinks", "[H]", {heads}, f32);
  a.alibi_slopes = c.optional(g.alibi_slopes, "alibi_slopes", "[H]", {heads}, f32);
  if (!std::isfinite(g.scale)) fail(SL_ERR_ARGUMENT, "scale is not finite");
  require_soft_cap(g.soft_cap);
  if (g.window < 0) fail(SL_ERR_ARGUMENT, "window is %d, expected 0 or more", g.window);
  if (g.causal != 0 && g.causal != 1) fail(SL_ERR_ARGUMENT, "causal is %d, expected 0 or 1", g.causal);
  a.scale = g.scale == 0.0f ? 1.0f / std::sqrt(static_cast<float>(a.cache.key_dim)) : g.scale;
  a.soft_cap = g.soft_cap;
  a.window = g.window;
  a.causal = g.causal;
  c.apart(a.o, "o", a.q, "q");
  c.apart(a.o, "o", a.lse2, "lse2");
  if (rows > 0) dispatch(s, member, a);
}

sl_status sl_paged_attention(sl_stream* stream, const sl_attention_args* args) {
  return guard_stream("sl_paged_attention", stream, [&](sl_stream& s) { attention(s, args, &op_table::paged_attention); });
}

sl_status sl_cascade_attention(sl_stream* stream, const sl_attention_args* args) {
  return guard_stream("sl_cascade_attention", stream, [&](sl_stream& s) { attention(s, args, &op_table::cascade_attention); });
}

sl_status sl_merge_states(sl_stream* stream, const sl_tensor* o, const sl_tensor* lse2, const sl_tensor* y, const sl_tensor* y_lse2) {
  return guard_stream("sl_merge_states", stream, [&](sl_stream& s) {
    checker c(s);
    merge_states_args a{};
    a.o = c.tensor(o, "o", "[S,T,H,Dv]", {any, any, any, any}, activations);
    const int64_t* d = a.o.shape;
    if (d[0] < 1) fail(SL_ERR_SHAPE, "tensor 'o' holds no states");
    a.lse2 = c.tensor(lse2, "lse2", "[S,T,H]", {d[0], d[1], d[2]}, f32);
    a.y = c.tensor(y, "y", "[T,H,Dv]", {d[1], d[2], d[3]}, f32_or(a.o));
    a.y_lse2 = c.optional(y_lse2, "y_lse2", "[T,H]", {d[1], d[2]}, f32);
    c.apart(a.y, "y", a.o, "o");
    if (d[1] > 0 && d[2] > 0 && d[3] > 0) dispatch(s, &op_table::merge_states, a);
  });
}

sl_status sl_gated_activation(sl_stream* stream, sl_activation activation, const sl_tensor* gate, const sl_tensor* up, const sl_tensor* y) {
  return guard_stream("sl_gated_activation", stream, [&](sl_stream& s) {
    checker c(s);
    gated_activation_args a{};
    require_activation(a.activation = activation);
    a.gate = c.tensor(gate, "gate", "[T,F]", {any, any}, activations);
    a.up = c.tensor(up, "up", "[T,F]", {a.gate.shape[0], a.gate.shape[1]}, only(a.gate.dtype));
    a.y = c.tensor(y, "y", "[T,F]", {a.gate.shape[0], a.gate.shape[1]}, only(a.gate.dtype));
    c.apart_or_same(a.y, "y", a.gate, "gate");
    c.apart_or_same(a.y, "y", a.up, "up");
    if (a.gate.shape[0] > 0 && a.gate.shape[1] > 0) dispatch(s, &op_table::gated_activation, a);
  });
}

sl_status sl_penalties(sl_stream* stream, const sl_penalties_args* args) {
  return guard_stream("sl_penalties", stream, [&](sl_stream& s) {
    sl_penalties_args g = checked_struct(args, "args");
    checker c(s);
    penalties_args a{};
    a.logits = c.tensor(g.logits, "logits", "[B,V]", {any, any}, f32);
    int64_t rows = a.logits.shape[0];
    if (g.history != nullptr) {
      a.history = c.tensor(g.history, "history", "[n]", {any}, i32);
      a.history_indptr = c.tensor(g.history_indptr, "history_indptr", "[B+1]", {rows + 1}, i32);
      a.repetition = c.tensor(g.repetition, "repetition", "[B]", {rows}, f32);
      a.presence = c.tensor(g.presence, "presence", "[B]", {rows}, f32);
      a.frequency = c.tensor(g.frequency, "frequency", "[B]", {rows}, f32);
    }
    if (g.bias_ids != nullptr) {
      a.bias_ids = c.tensor(g.bias_ids, "bias_ids", "[m]", {any}, i32);
      a.bias_values = c.tensor(g.bias_values, "bias_values", "[m]", {a.bias_ids.shape[0]}, f32);
      a.bias_indptr = c.tensor(g.bias_indptr, "bias_indptr", "[B+1]", {rows + 1}, i32);
    }
    if (rows > 0 && a.logits.shape[1] > 0 && (a.history || a.bias_ids)) dispatch(s, &op_table::penalties, a);
  });
}

sl_status sl_argmax(sl_stream* stream, const sl_tensor* logits, const sl_tensor* ids) {
  return guard_stream("sl_argmax", stream, [&](sl_stream& s) {
    checker c(s);
    argmax_args a{};
    a.logits = c.tensor(logits, "logits", "[B,V]", {any, any}, f32);
    a.ids = c.tensor(ids, "ids", "[B]", {a.logits.shape[0]}, i32);
    if (a.logits.shape[1] < 1) fail(SL_ERR_SHAPE, "tensor 'logits' has an empty vocabulary");
    if (a.logits.shape[0] > 0) dispatch(s, &op_table::argmax, a);
  });
}

sl_status sl_sample(sl_stream* stream, const sl_sample_args* args) {
  return guard_stream("sl_sample", stream, [&](sl_stream& s) {
    sl_sample_args g = checked_struct(args, "args");
    checker c(s);
    sample_args a{};
    a.logits = c.tensor(g.logits, "logits", "[B,V]", {any, any}, f32);
    int64_t rows = a.logits.shape[0];
    if (a.logits.shape[1] < 1) fail(SL_ERR_SHAPE, "tensor 'logits' has an empty vocabulary");
    a.temperature = c.tensor(g.temperature, "temperature", "[B]", {rows}, f32);
    a.top_k = c.tensor(g.top_k, "top_k", "[B]", {rows}, i32);
    a.top_p = c.tensor(g.top_p, "top_p", "[B]", {rows}, f32);
    a.min_p = c.tensor(g.min_p, "min_p", "[B]", {rows}, f32);
    a.seed = c.tensor(g.seed, "seed", "[B]", {rows}, i64);
    a.position = c.tensor(g.position, "position", "[B]", {rows}, i64);
    a.ids = c.tensor(g.ids, "ids", "[B]", {rows}, i32);
    if (rows > 0) dispatch(s, &op_table::sample, a);
  });
}

sl_status sl_log_probs(sl_stream* stream, const sl_log_probs_args* args) {
  return guard_stream("sl_log_probs", stream, [&](sl_stream& s) {
    sl_log_probs_args g = checked_struct(args, "args");
    checker c(s);
    log_probs_args a{};
    a.logits = c.tensor(g.logits, "logits", "[B,V]", {any, any}, f32);
    int64_t rows = a.logits.shape[0], vocabulary = a.logits.shape[1];
    if (g.ids != nullptr) {
      a.ids = c.tensor(g.ids, "ids", "[B]", {rows}, i32);
      a.log_probs = c.tensor(g.log_probs, "log_probs", "[B]", {rows}, f32);
    }
    if (g.top_ids != nullptr) {
      a.top_ids = c.tensor(g.top_ids, "top_ids", "[B,n]", {rows, any}, i32);
      int64_t n = a.top_ids.shape[1];
      if (n > vocabulary) fail(SL_ERR_SHAPE, "tensor 'top_ids' asks for %lld ids of a vocabulary of %lld", (long long)n, (long long)vocabulary);
      a.top_log_probs = c.tensor(g.top_log_probs, "top_log_probs", "[B,n]", {rows, n}, f32);
    }
    if (rows > 0 && vocabulary > 0 && (a.ids || a.top_ids)) dispatch(s, &op_table::log_probs, a);
  });
}
