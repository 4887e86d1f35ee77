// Ops with a weight: embedding, linear, gated_linear, fused_qkv.
#include "reference.h"

#include <algorithm>
#include <limits>

#include "instantiate.h"

namespace sl::reference {

template <typename Real>
void embedding(stream&, const embedding_args& a) {
  const auto& table = static_cast<const reference_weight&>(*a.table);
  for (int64_t t = 0; t < a.y.shape[0]; ++t) {
    const int64_t id = a.ids.as<int32_t>()[t];
    for (int64_t d = 0; d < table.cols; ++d) {
      const bool known = id >= 0 && id < table.rows;
      store(a.y, t, d,
            known ? static_cast<Real>(a.scale) * static_cast<Real>(table.values[id * table.cols + d])
                  : std::numeric_limits<Real>::quiet_NaN());
    }
  }
}

template <typename Real>
void multiply(const std::vector<Real>& x, int64_t count, const reference_weight& w, std::vector<Real>& y) {
  const int64_t N = w.rows, K = w.cols;
  y.resize(static_cast<size_t>(count * N));
  for (int64_t n = 0; n < N; n += 4) {  // four sums at a time, each in the plain order: one would wait for its own adds
    const int64_t rows = std::min<int64_t>(4, N - n);
    const float* v[4];
    for (int64_t r = 0; r < 4; ++r) v[r] = w.values.data() + (n + std::min(r, rows - 1)) * K;
    for (int64_t t = 0; t < count; ++t) {
      const Real* row = x.data() + t * K;
      Real sum[4] = {};
      for (int64_t k = 0; k < K; ++k)
        for (int r = 0; r < 4; ++r) sum[r] += row[k] * static_cast<Real>(v[r][k]);
      for (int64_t r = 0; r < rows; ++r) y[t * N + n + r] = sum[r];
    }
  }
}

void round_input(std::vector<float>& x, int64_t cols, sl_encoding encoding) {
  switch (encoding) {
    case SL_ENCODING_F32:
    case SL_ENCODING_GPTQ4:
    case SL_ENCODING_GPTQ4_V2:
    case SL_ENCODING_AWQ4: return;
    case SL_ENCODING_F16:
      for (float& value : x) value = round_to(SL_DTYPE_F16, value);
      return;
    case SL_ENCODING_BF16:
      for (float& value : x) value = round_to(SL_DTYPE_BF16, value);
      return;
    default: break;
  }
  for (size_t row = 0; row < x.size(); row += static_cast<size_t>(cols)) {
    for (int64_t k = 0; k < cols; k += 32) {
      float* block = x.data() + row + k;
      const int64_t count = std::min<int64_t>(32, cols - k);
      float largest = 0;
      for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(block[i]));
      const float scale = largest / 127, inverse = largest > 0 ? 127 / largest : 0;
      for (int64_t i = 0; i < count; ++i) block[i] = std::nearbyint(block[i] * inverse) * scale;
    }
  }
}

namespace {

template <typename Real>
std::vector<Real> rows_of(const view& x) {
  std::vector<Real> values(static_cast<size_t>(x.shape[0] * x.shape[1]));
  for (int64_t t = 0; t < x.shape[0]; ++t)
    for (int64_t k = 0; k < x.shape[1]; ++k) values[t * x.shape[1] + k] = load(x, t, k);
  return values;
}

// The record's last rounding: what a quantised weight stands for, to the type of 16-bit activations.
reference_weight rounded_weight(const reference_weight& w, sl_dtype activations) {
  reference_weight r;
  r.rows = w.rows, r.cols = w.cols, r.encoding = w.encoding, r.values = w.values;
  const bool dense = w.encoding == SL_ENCODING_F32 || w.encoding == SL_ENCODING_F16 || w.encoding == SL_ENCODING_BF16;
  if (!dense && activations != SL_DTYPE_F32)
    for (float& value : r.values) value = round_to(activations, value);
  return r;
}

// x * w^T + bias
template <typename Real>
std::vector<Real> project(std::vector<Real> x, int64_t count, const weight* w, const view& bias, sl_dtype activations) {
  std::vector<Real> y;
  const auto& values = static_cast<const reference_weight&>(*w);
  if constexpr (is_rounded<Real>) {
    round_input(x, w->cols, w->encoding);
    multiply(x, count, rounded_weight(values, activations), y);
  } else {
    multiply(x, count, values, y);
  }
  if (bias)
    for (int64_t t = 0; t < count; ++t)
      for (int64_t n = 0; n < w->rows; ++n) y[t * w->rows + n] += static_cast<Real>(load(bias, n));
  return y;
}

}  // namespace

template <typename Real>
void linear(stream&, const linear_args& a) {
  const int64_t count = a.x.shape[0], N = a.w->rows;
  const std::vector<Real> y = project(rows_of<Real>(a.x), count, a.w, a.bias, a.x.dtype);
  const auto cap = static_cast<Real>(a.soft_cap);
  for (int64_t t = 0; t < count; ++t) {
    std::vector<Real> squares(static_cast<size_t>(square_sums(N)));
    for (int64_t n = 0; n < N; ++n) {
      Real v = static_cast<Real>(a.scale) * y[t * N + n];
      if (cap > 0) v = cap * std::tanh(v / cap);
      if (a.residual) v += static_cast<Real>(load(a.residual, t, n));
      store(a.y, t, n, v);
      squares[n / square_columns] += v * v;
    }
    if (a.squares)
      for (size_t i = 0; i < squares.size(); ++i) store(a.squares, t, static_cast<int64_t>(i), squares[i]);
  }
}

// x [T,C], normalised where there is a norm, as a result of `dtype` takes it.
template <typename Real>
std::vector<Real> normalised_rows(const view& x, const view& norm, float eps, sl_dtype dtype) {
  std::vector<Real> rows = rows_of<Real>(x);
  const int64_t C = x.shape[1];
  if (norm)
    for (int64_t t = 0; t < x.shape[0]; ++t) normalise(rows.data() + t * C, C, norm, eps);
  if constexpr (is_rounded<Real>)
    for (Real& value : rows) value = round_to(dtype, value);
  return rows;
}

template <typename Real>
void gated_linear(stream&, const gated_linear_args& a) {
  const int64_t count = a.x.shape[0], F = a.y.shape[1];
  const std::vector<Real> x = normalised_rows<Real>(a.x, a.norm_weight, a.norm_eps, a.y.dtype);
  const std::vector<Real> gate = project(x, count, a.gate, a.bias_gate, a.y.dtype), up = project(x, count, a.up, a.bias_up, a.y.dtype);
  const auto rounded = [&](Real v) -> Real {
    if constexpr (is_rounded<Real>) return round_to(a.y.dtype, v);
    else return v;
  };
  for (int64_t t = 0; t < count; ++t)
    for (int64_t f = 0; f < F; ++f) store(a.y, t, f, activate<Real>(rounded(gate[t * F + f]), a.activation) * rounded(up[t * F + f]));
}

template <typename Real>
void fused_qkv(stream&, const fused_qkv_args& a) {
  const plan_view& plan = a.batch->device;
  const int64_t count = a.x.shape[0], H = a.q.shape[1], D = a.cache.key_dim, Hkv = a.cache.kv_heads, Dv = a.cache.value_dim;
  const std::vector<Real> x = normalised_rows<Real>(a.x, a.norm_weight, a.norm_eps, a.q.dtype);
  std::vector<Real> q = project(x, count, a.wq, a.bias_q, a.q.dtype), k = project(x, count, a.wk, a.bias_k, a.q.dtype);
  const std::vector<Real> v = project(x, count, a.wv, a.bias_v, a.q.dtype);

  std::vector<float> key(static_cast<size_t>(D)), value(static_cast<size_t>(Dv));
  for (int64_t t = 0; t < count; ++t) {
    const bool padding = t >= plan.header->num_tokens, heads_alone = !a.whole_row_norm;
    if (a.norm_q && !heads_alone) normalise(q.data() + t * H * D, H * D, a.norm_q, a.qk_norm_eps);
    if (a.norm_k && !heads_alone) normalise(k.data() + t * Hkv * D, Hkv * D, a.norm_k, a.qk_norm_eps);
    for (int64_t h = 0; h < H; ++h) {
      Real* head = q.data() + (t * H + h) * D;
      if (a.norm_q && heads_alone) normalise(head, D, a.norm_q, a.qk_norm_eps);
      if (a.inv_freq && !padding) turn(head, a.inv_freq, plan.positions[t], a.rope_scale, a.rope_kind);
      for (int64_t d = 0; d < D; ++d) store(a.q, t, h, d, head[d]);
    }
    if (padding) continue;
    for (int64_t h = 0; h < Hkv; ++h) {
      Real* head = k.data() + (t * Hkv + h) * D;
      if (a.norm_k && heads_alone) normalise(head, D, a.norm_k, a.qk_norm_eps);
      if (a.inv_freq) turn(head, a.inv_freq, plan.positions[t], a.rope_scale, a.rope_kind);
      for (int64_t d = 0; d < D; ++d) key[d] = static_cast<float>(head[d]);
      for (int64_t d = 0; d < Dv; ++d) value[d] = static_cast<float>(v[(t * Hkv + h) * Dv + d]);
      write_kv(a.cache, a.layer, plan, t, static_cast<int32_t>(h), key.data(), value.data());
    }
  }
}

SL_INSTANTIATE(embedding)
SL_INSTANTIATE(linear)
SL_INSTANTIATE(gated_linear)
SL_INSTANTIATE(fused_qkv)

}  // namespace sl::reference
