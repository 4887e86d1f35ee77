// Kernels on one row: conversions, quantisation of x, norms, RoPE, activations, merges, and the sums that sampling
// needs.
#include "simd.h"

namespace sl::cpu::SL_ISA {

void widen(row x, int64_t count, float scale, float* y) {
  const f32x16 factor = set1(scale);
  for (int64_t i = 0; i < count; i += 16)
    store_some(SL_DTYPE_F32, y, i, count - i, load_some(x.dtype, x.data, i, count - i) * factor);
}

void narrow(const float* x, int64_t count, row y) {
  for (int64_t i = 0; i < count; i += 16)
    store_some(y.dtype, y.data, i, count - i, load_some(SL_DTYPE_F32, x, i, count - i));
}

void pack_tile(row x, int64_t x_stride, int64_t rows, int64_t tile, int64_t count, uint8_t* packed) {
  for (int64_t r = 0; r < tile; ++r) {
    const char* source =
        (const char*)x.data + (r < rows ? r : 0) * x_stride;  // rows that are not there repeat the first
    uint8_t* record = packed;
    for (int64_t k = 0; k < count; k += 32, record += kRecordBytes * tile) {
      const f32x16 a = load_as(x.dtype, source, k), b = load_as(x.dtype, source, k + 16);
      const float top = largest(max(abs(a), abs(b)));
      // Below this 127 / top would overflow; such a block is 0 within anything that matters.
      const float inverse = top > 1e-36f ? 127.0f / top : 0.0f;
      const f32x16 qa = nearest(a * set1(inverse)), qb = nearest(b * set1(inverse));
      store_i8((int8_t*)record + 32 * r, qa);
      store_i8((int8_t*)record + 32 * r + 16, qb);
      // Whatever is not finite makes the block's scale NaN: x * 0 is then NaN, and it must not vanish in a conversion.
      const float scale = (top > 1e-36f ? top / 127.0f : 0.0f) + sum((a + b) * zero());
      const float first = sum(qa), second = sum(qb);  // whole numbers: exact in any order
      const bool finite = scale == scale;
      const int32_t halves[2] = {finite ? -8 * (int32_t)first : 0, finite ? -8 * (int32_t)second : 0};
      ((float*)(record + 32 * tile))[r] = scale;
      ((int32_t*)(record + 36 * tile))[r] = halves[0] + halves[1];
      ((float*)(record + 40 * tile))[r] = scale * (first + second);
      ((int32_t*)(record + 44 * tile))[r] = halves[0];
      ((int32_t*)(record + 44 * tile))[tile + r] = halves[1];
    }
  }
}

void rms_norm(row x, row w, int64_t count, float eps, row residual, row y) {
  f32x16 squares[4] = {zero(), zero(), zero(), zero()};  // sixty-four sums: short chains and small errors
  for (int64_t i = 0; i < count; i += 64) {
    SL_UNROLL for (int part = 0; part < 4; ++part) {
      const int64_t at = i + 16 * part;
      if (at >= count) break;
      const f32x16 v = load_some(x.dtype, x.data, at, count - at);
      squares[part] = fma(v, v, squares[part]);
    }
  }
  const float mean = sum((squares[0] + squares[1]) + (squares[2] + squares[3])) / (float)count;
  const f32x16 scale = set1(1.0f / sqrtf(mean + eps));
  for (int64_t i = 0; i < count; i += 16) {
    const f32x16 v = load_some(x.dtype, x.data, i, count - i), factor = load_some(w.dtype, w.data, i, count - i);
    f32x16 result = v * scale * factor;
    if (residual.data != nullptr) result = load_some(residual.dtype, residual.data, i, count - i) + result;
    store_some(y.dtype, y.data, i, count - i, result);
  }
}

void add(row x, row y, int64_t count) {
  for (int64_t i = 0; i < count; i += 16)
    store_some(y.dtype, y.data, i, count - i,
               load_some(x.dtype, x.data, i, count - i) + load_some(y.dtype, y.data, i, count - i));
}

void turn(float* head, const float* cosines, const float* sines, int64_t pairs, sl_rope_kind kind) {
  if (kind == SL_ROPE_HALF) {
    for (int64_t i = 0; i < pairs; i += 16) {
      const int64_t n = pairs - i;
      const f32x16 c = load_some(SL_DTYPE_F32, cosines, i, n), s = load_some(SL_DTYPE_F32, sines, i, n);
      const f32x16 x = load_some(SL_DTYPE_F32, head, i, n), y = load_some(SL_DTYPE_F32, head, pairs + i, n);
      store_some(SL_DTYPE_F32, head, i, n, x * c - y * s);
      store_some(SL_DTYPE_F32, head, pairs + i, n, x * s + y * c);
    }
    return;
  }
  for (int64_t i = 0; i < pairs; ++i) {
    const float x = head[2 * i], y = head[2 * i + 1];
    head[2 * i] = x * cosines[i] - y * sines[i];
    head[2 * i + 1] = x * sines[i] + y * cosines[i];
  }
}

namespace {

inline f32x16 silu(f32x16 x) { return x / (set1(1.0f) + exp(zero() - x)); }

inline f32x16 gelu_tanh(f32x16 x) {
  const f32x16 inner = set1(0.79788456080286535588f) * fma(set1(0.044715f) * x * x, x, x);
  return set1(0.5f) * x * (set1(1.0f) + tanh(inner));
}

inline f32x16 gelu_erf(f32x16 x) {
  float lanes[16];
  store(lanes, x * set1(0.70710678118654752440f));
  for (float& lane : lanes) lane = erff(lane);
  return set1(0.5f) * x * (set1(1.0f) + load(lanes));
}

template <typename Activation>
void gate_with(Activation activation, row gate, row up, int64_t count, row y) {
  for (int64_t i = 0; i < count; i += 16) {
    const f32x16 g = activation(load_some(gate.dtype, gate.data, i, count - i));
    store_some(y.dtype, y.data, i, count - i, g * load_some(up.dtype, up.data, i, count - i));
  }
}

}  // namespace

void gate(sl_activation activation, row gate, row up, int64_t count, row y) {
  switch (activation) {
    case SL_ACTIVATION_SILU: gate_with([](f32x16 x) { return silu(x); }, gate, up, count, y); break;
    case SL_ACTIVATION_GELU_TANH: gate_with([](f32x16 x) { return gelu_tanh(x); }, gate, up, count, y); break;
    case SL_ACTIVATION_GELU_ERF: gate_with([](f32x16 x) { return gelu_erf(x); }, gate, up, count, y); break;
    default: gate_with([](f32x16 x) { return max(zero(), x); }, gate, up, count, y); break;
  }
}

void merge_states(const void* o, int64_t o_stride, sl_dtype o_dtype, const float* lse2, int64_t lse_stride,
                  int64_t states, int64_t count, row y, float* y_lse2) {
  // Relative to the largest of all, weights are in 0 .. 1 and need no rescaling on the way.
  float top = -INFINITY, total = 0;
  for (int64_t s = 0; s < states; ++s) {
    const float lse = lse2[s * lse_stride];
    if (!(lse <= top)) top = lse;
  }
  const bool empty = top == -INFINITY;
  for (int64_t d = 0; d < count; d += 16) {
    f32x16 value = zero();
    total = 0;
    for (int64_t s = 0; s < states; ++s) {
      const float lse = lse2[s * lse_stride];
      if (lse == -INFINITY) continue;  // counts for nothing, whatever its o holds
      const float weight = exp2f(lse - top);
      total += weight;
      value = fma(set1(weight), load_some(o_dtype, o, s * o_stride + d, count - d), value);
    }
    store_some(y.dtype, y.data, d, count - d, empty ? zero() : value * set1(1.0f / total));
  }
  if (y_lse2 != nullptr) *y_lse2 = empty ? -INFINITY : top + log2f(total);
}

float largest(const float* x, int64_t count) {
  f32x16 top = set1(-INFINITY);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) top = max(load(x + i), top);  // max takes its second where the first is NaN
  float best = largest(top);
  for (; i < count; ++i)
    if (x[i] > best) best = x[i];
  return best;
}

double sum_exp(const float* x, int64_t count, float shift) {
  double total = 0;
  for (int64_t i = 0; i < count; i += 1024) {  // f32 sums of 64 terms a lane, f64 above
    f32x16 part = zero();
    const int64_t last = i + 1024 < count ? i + 1024 : count;
    for (int64_t j = i; j < last; j += 16) {
      float lanes[16];
      for (float& lane : lanes) lane = -INFINITY;
      memcpy(lanes, x + j, (size_t)(last - j < 16 ? last - j : 16) * 4);
      const f32x16 e = exp(load(lanes) - set1(shift));
      part = part + select_less(zero(), e, e, zero());  // NaN is not above 0
    }
    total += (double)sum(part);
  }
  return total;
}

// ---- the table of this instruction set; the other kernels stand in the other *_kernels.cpp

void quantised_linear(const linear_task&);
void dense_linear(const linear_task&);
void int4_linear(const linear_task&);
int64_t row_tile(int64_t left);
void attend(attention_task&);
void merge(float* state, const float* other, int64_t value_dim);
float finish(const float* state, int64_t value_dim, bool has_sink, float sink, row o);

const kernels& table() {
  static constexpr kernels all = {quantised_linear, dense_linear, dense_linear, false, int4_linear, attend, merge,
                                  finish,           widen,        narrow,       row_tile,    pack_tile, rms_norm,
                                  add,              turn,         gate,         merge_states, largest,  sum_exp};
  return all;
}

}  // namespace sl::cpu::SL_ISA
