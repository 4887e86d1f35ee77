// Attention of query rows over the paged keys that they share.
//
// A chunk of 256 keys at a time: scores of all rows (a tile of 16 keys is turned so that lanes are keys, and serves
// every row), softmax, then the values (a tile of 16 is widened once and serves every row). What a row gets depends on
// its own keys alone: dimensions and keys are summed one after the other, and keys that it does not see weigh 0.
#include "simd.h"

namespace sl::cpu::SL_ISA {
namespace {

constexpr int64_t kChunk = SL_ATTENTION_CHUNK;
constexpr float kNone = -INFINITY;

int64_t padded(int64_t dim) { return (dim + 15) / 16 * 16; }

// The vector of a slot in a pool [pages, Hkv, P, dim].
struct slot_vector {
  const char* data;  // null: none
  float scale;       // of quantised ones
};
slot_vector slot(const attention_task& t, const char* pool, const float* scales, int64_t key, int64_t dim, int64_t size) {
  const int64_t page = t.pages[key / t.page_size];
  const int64_t at = (page * t.kv_heads + t.kv_head) * t.page_size + key % t.page_size;
  return {pool + at * dim * size, scales != nullptr ? scales[at] : 1.0f};
}

float from_e4m3(uint8_t b) {
  // As a binary32 its bits are those of the value times 2^-120, subnormals too.
  const uint32_t bits = (uint32_t)(b & 0x7f) << 20;
  float v;
  memcpy(&v, &bits, 4);
  v = (b & 0x7f) == 0x7f ? NAN : v * 1.329227995784916e36f;  // 2^120
  return b & 0x80 ? -v : v;
}

// Sixteen of a vector's elements from d on, zeros past `count`.
f32x16 load_elements(sl_dtype dtype, slot_vector v, int64_t d, int64_t count) {
  if (dtype != SL_DTYPE_I8 && dtype != SL_DTYPE_FP8_E4M3) return load_some(dtype, v.data, d, count);
  float wide[16] = {};
  const int64_t n = count < 16 ? count : 16;
  if (dtype == SL_DTYPE_I8)
    for (int64_t i = 0; i < n; ++i) wide[i] = (float)(int8_t)v.data[d + i];
  else
    for (int64_t i = 0; i < n; ++i) wide[i] = from_e4m3((uint8_t)v.data[d + i]);
  return load(wide) * set1(v.scale);
}

// turned[d][j] = key first+j's dim d; 0 outside of [begin, end), whose slots may hold anything
void load_keys(const attention_task& t, int64_t first, int64_t begin, int64_t end, int64_t size, float* turned) {
  const int64_t D = t.key_dim;
  slot_vector keys[16];
  for (int64_t j = 0; j < 16; ++j)
    keys[j] = first + j >= begin && first + j < end ? slot(t, t.keys, t.key_scales, first + j, D, size) : slot_vector{};
  for (int64_t d = 0; d < D; d += 16) {
    f32x16 rows[16];
    for (int j = 0; j < 16; ++j) rows[j] = keys[j].data != nullptr ? load_elements(t.dtype, keys[j], d, D - d) : zero();
    transpose(rows, turned + d * 16);
  }
}

// Returns whether all of them are finite.
bool load_values(const attention_task& t, int64_t first, int64_t begin, int64_t end, int64_t size, float* wide) {
  const int64_t Dv = t.value_dim, stride = padded(Dv);
  f32x16 nothing = zero();  // 0 times an infinity or a NaN is a NaN
  for (int64_t j = 0; j < 16; ++j) {
    const bool used = first + j >= begin && first + j < end;
    const slot_vector value = used ? slot(t, t.values, t.value_scales, first + j, Dv, size) : slot_vector{};
    for (int64_t d = 0; d < Dv; d += 16) {
      const f32x16 v = used ? load_elements(t.dtype, value, d, Dv - d) : zero();
      nothing = fma(v, zero(), nothing);
      store(wide + j * stride + d, v);
    }
  }
  return sum(nothing) == 0.0f;
}

template <int Rows>
void score_tile(const attention_task& t, int64_t row, const float* turned, float* scores) {
  const float* q[Rows];
  f32x16 sum[Rows];
  SL_UNROLL for (int r = 0; r < Rows; ++r) {
    q[r] = t.rows[row + r < t.count ? row + r : row].q;
    sum[r] = zero();
  }
  for (int64_t d = 0; d < t.key_dim; ++d) {
    const f32x16 keys = load(turned + d * 16);
    SL_UNROLL for (int r = 0; r < Rows; ++r) sum[r] = fma(set1(q[r][d]), keys, sum[r]);
  }
  SL_UNROLL for (int r = 0; r < Rows; ++r) store(scores + r * kChunk, sum[r]);
}

void score(const attention_task& t, const float* turned, float* scores) {
  for (int64_t row = 0; row < t.count;) {
    float* target = scores + row * kChunk;
    const int64_t left = t.count - row;
    if (kTileRows >= 8 && left > 4) {
      score_tile<kTileRows>(t, row, turned, target);
      row += kTileRows;
    } else if (kTileRows >= 4 && left > 2) {
      score_tile<4>(t, row, turned, target);
      row += 4;
    } else if (left > 1) {
      score_tile<2>(t, row, turned, target);
      row += 2;
    } else {
      score_tile<1>(t, row, turned, target);
      row += 1;
    }
  }
}

// Lanes first .. first+15 that a row sees, as bits.
uint32_t visible(const attention_row& row, int64_t first) {
  const int64_t low = row.first - first, high = row.last - first;
  if (high <= 0 || low >= 16) return 0;
  uint32_t bits = 0xffffu;
  if (low > 0) bits &= 0xffffu << low;
  if (high < 16) bits &= (1u << high) - 1;
  if (row.mask != nullptr) {
    const int64_t byte = first / 8;
    uint32_t custom = row.mask[byte];
    if (high > 8) custom |= (uint32_t)row.mask[byte + 1] << 8;
    bits &= custom;
  }
  return bits;
}

// scores to probabilities relative to 2^max, in place, for the tiles in [begin, end); max and total into the state
void soften(const attention_task& t, const attention_row& row, int64_t begin, int64_t end, int64_t base, float* scores,
            float* state) {
  f32x16 top = set1(kNone);
  for (int64_t j = begin; j < end; j += 16) {
    const uint32_t bits = visible(row, j);
    f32x16 s = load(scores + (j - base));
    if (t.soft_cap > 0) s = tanh(s * set1(t.scale / t.soft_cap)) * set1(t.soft_cap * kLog2e);
    else s = s * set1(t.scale * kLog2e);
    if (t.alibi) {
      float distance[16];
      for (int64_t i = 0; i < 16; ++i) distance[i] = (float)(j + i - row.position);
      s = fma(load(distance), set1(row.slope), s);
    }
    s = select_bits(bits, s, set1(kNone));
    store(scores + (j - base), s);
    top = max(top, s);
  }
  const float max_score = largest(top);
  f32x16 total = zero();
  for (int64_t j = begin; j < end; j += 16) {
    const f32x16 p = max_score == kNone ? zero() : exp2(load(scores + (j - base)) - set1(max_score));
    store(scores + (j - base), p);
    total = total + p;
  }
  state[padded(t.value_dim)] = max_score;
  state[padded(t.value_dim) + 1] = sum(total);
}

// The rows' sums += probabilities times 16 values, key after key.
template <int Rows, int Vectors>
void weigh_tile(const float* p, const float* values, int64_t stride, float* states, int64_t state_stride) {
  f32x16 s[Rows][Vectors];
  SL_UNROLL for (int r = 0; r < Rows; ++r) SL_UNROLL for (int v = 0; v < Vectors; ++v) s[r][v] =
      load(states + r * state_stride + 16 * v);
  for (int64_t j = 0; j < 16; ++j) {
    f32x16 value[Vectors];
    SL_UNROLL for (int v = 0; v < Vectors; ++v) value[v] = load(values + j * stride + 16 * v);
    SL_UNROLL for (int r = 0; r < Rows; ++r) {
      const f32x16 weight = set1(p[r * kChunk + j]);
      SL_UNROLL for (int v = 0; v < Vectors; ++v) s[r][v] = fma(weight, value[v], s[r][v]);
    }
  }
  SL_UNROLL for (int r = 0; r < Rows; ++r) SL_UNROLL for (int v = 0; v < Vectors; ++v)
      store(states + r * state_stride + 16 * v, s[r][v]);
}

template <int Rows>
void weigh_rows(const float* p, const float* values, int64_t Dv, float* states, int64_t state_stride) {
  constexpr int kWide = kTileRows >= 8 ? 4 : 1;  // 16 registers of 32, or 4 x 2 of 16
  int64_t d = 0;
  for (; d + 16 * kWide <= Dv; d += 16 * kWide) weigh_tile<Rows, kWide>(p, values + d, Dv, states + d, state_stride);
  for (; d < Dv; d += 16) weigh_tile<Rows, 1>(p, values + d, Dv, states + d, state_stride);
}

void weigh(const attention_task& t, const float* p, const float* values, float* states, int64_t state_stride) {
  const int64_t Dv = padded(t.value_dim);
  int64_t row = 0;
  for (; row + 4 <= t.count; row += 4)
    weigh_rows<4>(p + row * kChunk, values, Dv, states + row * state_stride, state_stride);
  for (; row + 2 <= t.count; row += 2)
    weigh_rows<2>(p + row * kChunk, values, Dv, states + row * state_stride, state_stride);
  for (; row < t.count; ++row) weigh_rows<1>(p + row * kChunk, values, Dv, states + row * state_stride, state_stride);
}

// The same where a value is not finite: a key that a row does not see must not touch it, and 0 times infinity would.
void weigh_visible(const attention_task& t, int64_t first, const float* p, const float* values, float* states,
                   int64_t state_stride) {
  const int64_t Dv = padded(t.value_dim);
  for (int64_t row = 0; row < t.count; ++row) {
    const uint32_t bits = visible(t.rows[row], first);
    for (int64_t j = 0; j < 16; ++j) {
      if (!(bits >> j & 1)) continue;
      const f32x16 weight = set1(p[row * kChunk + j]);
      float* state = states + row * state_stride;
      for (int64_t d = 0; d < Dv; d += 16) store(state + d, fma(weight, load(values + j * Dv + d), load(state + d)));
    }
  }
}

}  // namespace

void merge(float* state, const float* other, int64_t value_dim) {
  const int64_t Dv = padded(value_dim);
  const float max_a = state[Dv], max_b = other[Dv];
  if (max_b == kNone) return;
  if (max_a == kNone) {
    memcpy(state, other, (size_t)(Dv + 2) * 4);
    return;
  }
  const float top = max_a > max_b ? max_a : max_b;
  float powers[16];
  store(powers, exp2(select_bits(1, set1(max_a), set1(max_b)) - set1(top)));
  const f32x16 a = set1(powers[0]), b = set1(powers[1]);
  for (int64_t d = 0; d < Dv; d += 16) store(state + d, fma(load(other + d), b, load(state + d) * a));
  state[Dv] = top;
  state[Dv + 1] = state[Dv + 1] * powers[0] + other[Dv + 1] * powers[1];
}

void attend(attention_task& t) {
  const int64_t size = t.dtype == SL_DTYPE_F32 ? 4 : t.key_scales != nullptr ? 1 : 2, D = padded(t.key_dim), Dv = padded(t.value_dim);
  const int64_t state_stride = state_floats(t.value_dim), rows = t.count + 8;
  float* turned = (float*)t.scratch;
  float* wide = turned + 16 * D;
  float* states = wide + 16 * Dv;
  float* scores = states + rows * state_stride;
  t.keys_read = 0;
  for (int64_t base = t.first_key; base < t.last_key; base += kChunk) {
    const int64_t limit = base + kChunk < t.last_key ? base + kChunk : t.last_key;
    int64_t begin = limit, end = base;  // what any of the rows may see
    for (int32_t r = 0; r < t.count; ++r) {
      if (t.rows[r].first < begin) begin = t.rows[r].first;
      if (t.rows[r].last > end) end = t.rows[r].last;
    }
    if (begin < base) begin = base;
    if (end > limit) end = limit;
    if (begin >= end) continue;
    const int64_t first_tile = begin / 16 * 16;
    t.keys_read += end - begin;
    for (int64_t j = first_tile; j < end; j += 16) {
      load_keys(t, j, begin, end, size, turned);
      score(t, turned, scores + (j - base));
    }
    for (int32_t r = 0; r < t.count; ++r) {
      memset(states + r * state_stride, 0, (size_t)state_stride * 4);
      soften(t, t.rows[r], first_tile, end, base, scores + r * kChunk, states + r * state_stride);
    }
    for (int64_t j = first_tile; j < end; j += 16) {
      if (load_values(t, j, begin, end, size, wide)) weigh(t, scores + (j - base), wide, states, state_stride);
      else weigh_visible(t, j, scores + (j - base), wide, states, state_stride);
    }
    for (int32_t r = 0; r < t.count; ++r) merge(t.rows[r].state, states + r * state_stride, t.value_dim);
  }
}

float finish(const float* state, int64_t value_dim, bool has_sink, float sink, row o) {
  const int64_t Dv = padded(value_dim);
  float top = state[Dv], total = state[Dv + 1], scale = 1.0f;
  if (has_sink && sink > kNone) {
    const float both = top > sink ? top : sink;
    float powers[16];
    store(powers, exp2(select_bits(1, set1(top), set1(sink)) - set1(both)));
    scale = powers[0];
    total = total * powers[0] + powers[1];
    top = both;
  }
  const bool empty = top == kNone;
  const f32x16 factor = set1(empty ? 0.0f : scale / total);
  for (int64_t d = 0; d < value_dim; d += 16)
    store_some(o.dtype, o.data, d, value_dim - d, empty ? zero() : load(state + d) * factor);
  return empty ? kNone : top + log2f(total);
}

}  // namespace sl::cpu::SL_ISA
