// Ops that treat each row or value by itself: gather, norms, RoPE, gated activations, the merge of attention states.
#include "reference.h"

#include <cstring>
#include <limits>

#include "instantiate.h"

namespace sl::reference {

template <typename Real>
void gather(stream&, const gather_args& a) {
  const size_t size = size_of(a.x.dtype);
  const int64_t count = a.x.shape[1];
  const bool is_float = a.x.dtype == SL_DTYPE_F32 || a.x.dtype == SL_DTYPE_F16 || a.x.dtype == SL_DTYPE_BF16 ||
                        a.x.dtype == SL_DTYPE_FP8_E4M3;
  for (int64_t i = 0; i < a.y.shape[0]; ++i) {
    const int64_t row = a.rows.as<int32_t>()[i];
    char* target = a.y.as<char>() + i * a.y.stride[0] * static_cast<int64_t>(size);
    if (row >= 0 && row < a.x.shape[0]) {
      std::memcpy(target, a.x.as<char>() + row * a.x.stride[0] * static_cast<int64_t>(size),
                  static_cast<size_t>(count) * size);
    } else if (is_float) {
      for (int64_t d = 0; d < count; ++d) store(a.y, i, d, std::numeric_limits<double>::quiet_NaN());
    } else {
      std::memset(target, 0, static_cast<size_t>(count) * size);
    }
  }
}

template <typename Real>
void normalise(Real* x, int64_t count, const view& w, float eps) {
  Real squares = 0;
  for (int64_t d = 0; d < count; ++d) squares += x[d] * x[d];
  const Real scale = 1 / std::sqrt(squares / static_cast<Real>(count) + static_cast<Real>(eps));
  for (int64_t d = 0; d < count; ++d) x[d] = x[d] * scale * static_cast<Real>(load(w, d));
}

template <typename Real>
void rms_norm(stream&, const rms_norm_args& a) {
  const int64_t count = a.x.shape[1];
  std::vector<Real> row(static_cast<size_t>(count));
  for (int64_t t = 0; t < a.x.shape[0]; ++t) {
    for (int64_t d = 0; d < count; ++d) row[d] = load(a.x, t, d);
    normalise(row.data(), count, a.w, a.eps);
    for (int64_t d = 0; d < count; ++d) store(a.y, t, d, row[d]);
  }
}

template <typename Real>
void add_rms_norm(stream&, const add_rms_norm_args& a) {
  const int64_t count = a.x.shape[1];
  std::vector<Real> row(static_cast<size_t>(count));
  for (int64_t t = 0; t < a.x.shape[0]; ++t) {
    for (int64_t d = 0; d < count; ++d)
      row[d] = static_cast<Real>(load(a.x, t, d)) + static_cast<Real>(load(a.residual, t, d));
    for (int64_t d = 0; d < count; ++d) store(a.residual, t, d, row[d]);
    if (is_rounded<Real>)
      for (int64_t d = 0; d < count; ++d) row[d] = load(a.residual, t, d);
    normalise(row.data(), count, a.w, a.eps);
    for (int64_t d = 0; d < count; ++d) store(a.y, t, d, row[d]);
  }
}

template <typename Real>
void rms_norm_add(stream&, const rms_norm_add_args& a) {
  const int64_t count = a.x.shape[1];
  std::vector<Real> row(static_cast<size_t>(count));
  for (int64_t t = 0; t < a.x.shape[0]; ++t) {
    for (int64_t d = 0; d < count; ++d) row[d] = load(a.x, t, d);
    normalise(row.data(), count, a.w, a.eps);
    for (int64_t d = 0; d < count; ++d) store(a.y, t, d, static_cast<Real>(load(a.residual, t, d)) + row[d]);
  }
}

template <typename Real>
void turn(Real* head, const view& inv_freq, int64_t position, float scale, sl_rope_kind kind) {
  const int64_t pairs = inv_freq.shape[0];
  for (int64_t i = 0; i < pairs; ++i) {
    // In f32 the angle of position 2^20 would be wrong by hundredths of a radian, so both modes take it in double.
    const double angle = static_cast<double>(position) * static_cast<double>(load(inv_freq, i));
    const Real c = static_cast<Real>(std::cos(angle)) * scale, s = static_cast<Real>(std::sin(angle)) * scale;
    const int64_t first = kind == SL_ROPE_HALF ? i : 2 * i, second = kind == SL_ROPE_HALF ? i + pairs : 2 * i + 1;
    const Real x = head[first], y = head[second];
    head[first] = x * c - y * s;
    head[second] = x * s + y * c;
  }
}

template <typename Real>
void rope(stream&, const rope_args& a) {
  const int64_t count = a.x.shape[2];
  std::vector<Real> head(static_cast<size_t>(count));
  for (int64_t t = 0; t < a.x.shape[0]; ++t) {
    for (int64_t h = 0; h < a.x.shape[1]; ++h) {
      for (int64_t d = 0; d < count; ++d) head[d] = load(a.x, t, h, d);
      turn(head.data(), a.inv_freq, a.positions.as<int32_t>()[t], a.scale, a.kind);
      for (int64_t d = 0; d < count; ++d) store(a.y, t, h, d, head[d]);
    }
  }
}

template <typename Real>
Real activate(Real x, sl_activation kind) {
  switch (kind) {
    case SL_ACTIVATION_SILU: return x / (1 + std::exp(-x));
    case SL_ACTIVATION_GELU_TANH:
      return x / 2 * (1 + std::tanh(static_cast<Real>(0.79788456080286535588) * (x + static_cast<Real>(0.044715) * x * x * x)));
    case SL_ACTIVATION_GELU_ERF: return x / 2 * (1 + std::erf(x * static_cast<Real>(0.70710678118654752440)));
    default: return x > 0 ? x : (x <= 0 ? 0 : x);  // RELU; NaN stays
  }
}

template <typename Real>
void gated_activation(stream&, const gated_activation_args& a) {
  for (int64_t t = 0; t < a.y.shape[0]; ++t)
    for (int64_t f = 0; f < a.y.shape[1]; ++f)
      store(a.y, t, f, activate<Real>(load(a.gate, t, f), a.activation) * static_cast<Real>(load(a.up, t, f)));
}

template <typename Real>
void merge_states(stream&, const merge_states_args& a) {
  constexpr Real kNone = -std::numeric_limits<Real>::infinity();
  const int64_t states = a.o.shape[0], count = a.o.shape[3];
  std::vector<Real> sum(static_cast<size_t>(count));
  for (int64_t t = 0; t < a.o.shape[1]; ++t) {
    for (int64_t h = 0; h < a.o.shape[2]; ++h) {
      Real max = kNone, total = 0;  // sum = total * o, both relative to 2^max
      for (Real& value : sum) value = 0;
      for (int64_t s = 0; s < states; ++s) {
        const Real lse = load(a.lse2, s, t, h);
        if (lse == kNone) continue;
        const Real top = std::fmax(max, lse), before = max == kNone ? 0 : std::exp2(max - top),
                   here = std::exp2(lse - top);
        const int64_t at = s * a.o.stride[0] + t * a.o.stride[1] + h * a.o.stride[2];
        for (int64_t d = 0; d < count; ++d)
          sum[d] = sum[d] * before + static_cast<Real>(load(a.o.dtype, a.o.data, at + d)) * here;
        total = total * before + here;
        max = top;
      }
      for (int64_t d = 0; d < count; ++d) store(a.y, t, h, d, max == kNone ? 0 : sum[d] / total);
      if (a.y_lse2) store(a.y_lse2, t, h, max == kNone ? kNone : max + std::log2(total));
    }
  }
}

SL_INSTANTIATE(gather)
SL_INSTANTIATE(rms_norm)
SL_INSTANTIATE(add_rms_norm)
SL_INSTANTIATE(rms_norm_add)
SL_INSTANTIATE(rope)
SL_INSTANTIATE(gated_activation)
SL_INSTANTIATE(merge_states)
template void normalise(float*, int64_t, const view&, float);
template void normalise(double*, int64_t, const view&, float);
template float activate(float, sl_activation);
template double activate(double, sl_activation);
template void turn(float*, const view&, int64_t, float, sl_rope_kind);
template void turn(double*, const view&, int64_t, float, sl_rope_kind);

}  // namespace sl::reference
