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

// How a pool's elements are read: sixteen from p on.
struct f32_elements {
  static constexpr int64_t kBytes = 4;
  static f32x16 load(const char* p) { return SL_ISA::load((const float*)p); }
};
struct f16_elements {
  static constexpr int64_t kBytes = 2;
  static f32x16 load(const char* p) { return load_f16(p); }
};
struct bf16_elements {
  static constexpr int64_t kBytes = 2;
  static f32x16 load(const char* p) { return load_bf16(p); }
};
struct i8_elements {
  static constexpr int64_t kBytes = 1;
  static f32x16 load(const char* p) { return load_i8((const uint8_t*)p); }
};
struct e4m3_elements {
  static constexpr int64_t kBytes = 1;
  static f32x16 load(const char* p) { return load_e4m3((const uint8_t*)p); }
};

// Elements d .. d+15 of a vector, zeros past `count`.
template <typename Elements>
inline f32x16 load_elements(const char* vector, float scale, int64_t d, int64_t count) {
  f32x16 v;
  if (count - d >= 16) {
    v = Elements::load(vector + d * Elements::kBytes);
  } else {
    char part[64] = {};
    memcpy(part, vector + d * Elements::kBytes, (size_t)((count - d) * Elements::kBytes));
    v = Elements::load(part);
  }
  return Elements::kBytes == 1 ? v * set1(scale) : v;
}

// The vectors of 16 slots of a pool [pages, Hkv, P, dim]; of those outside of [begin, end), whose memory may hold anything, none.
struct slots {
  const char* data[16];
  float scale[16];
  bool all;  // of the 16 are there
};

inline int64_t place_of(const attention_task& t, int64_t key) {
  return ((int64_t)t.pages[key / t.page_size] * t.kv_heads + t.kv_head) * t.page_size + key % t.page_size;
}

slots find_slots(const attention_task& t, const char* pool, const float* scales, int64_t first, int64_t begin, int64_t end, int64_t bytes) {
  slots s;
  s.all = first >= begin && first + 16 <= end;
  if (s.all && t.page_size % 16 == 0) {
    const int64_t place = place_of(t, first);
    for (int64_t j = 0; j < 16; ++j) {
      s.data[j] = pool + (place + j) * bytes;
      s.scale[j] = scales != nullptr ? scales[place + j] : 1.0f;
    }
    return s;
  }
  for (int64_t j = 0; j < 16; ++j) {
    const bool there = first + j >= begin && first + j < end;
    const int64_t place = there ? place_of(t, first + j) : 0;
    s.data[j] = there ? pool + place * bytes : nullptr;
    s.scale[j] = there && scales != nullptr ? scales[place] : 1.0f;
  }
  return s;
}

// Asks for the memory of 16 slots: pages lie anywhere, so nothing else foresees them.
template <int Level>
inline void ask_for(const attention_task& t, const char* pool, int64_t first, int64_t end, int64_t bytes) {
  if (first >= end || t.page_size % 16 != 0) return;
  const char* p = pool + place_of(t, first) * bytes;
  for (int64_t at = 0; at < 16 * bytes; at += 64) __builtin_prefetch(p + at, 0, Level);
}

// turned[d][j] = key first+j's dim d; 0 where there is none
template <typename Elements>
void load_keys(const slots& keys, int64_t D, float* turned) {
  for (int64_t d = 0; d < D; d += 16) {
    f32x16 rows[16];
    if (keys.all) {
      SL_UNROLL for (int j = 0; j < 16; ++j) rows[j] = load_elements<Elements>(keys.data[j], keys.scale[j], d, D);
    } else {
      for (int j = 0; j < 16; ++j) rows[j] = keys.data[j] != nullptr ? load_elements<Elements>(keys.data[j], keys.scale[j], d, D) : zero();
    }
    transpose(rows, turned + d * 16);
  }
}

template <typename Elements>
void load_values(const slots& values, int64_t Dv, float* wide) {
  const int64_t stride = padded(Dv);
  for (int64_t j = 0; j < 16; ++j) {
    const char* value = values.data[j];
    for (int64_t d = 0; d < Dv; d += 16)
      store(wide + j * stride + d, value != nullptr ? load_elements<Elements>(value, values.scale[j], d, Dv) : zero());
  }
}

bool all_finite(const float* wide, int64_t count) {
  f32x16 nothing = zero();  // 0 times an infinity or a NaN is a NaN
  for (int64_t i = 0; i < count; i += 16) nothing = fma(load(wide + i), zero(), nothing);
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
  if (low <= 0 && high >= 16 && row.mask == nullptr) return 0xffffu;
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
  p += row * kChunk;
  states += row * state_stride;
  switch (t.count - row) {
    case 3: weigh_rows<3>(p, values, Dv, states, state_stride); break;
    case 2: weigh_rows<2>(p, values, Dv, states, state_stride); break;
    case 1: weigh_rows<1>(p, values, Dv, states, state_stride); break;
    default: break;
  }
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

namespace {

template <typename Elements>
void attend_with(attention_task& t) {
  constexpr int64_t kAhead = 32;  // keys asked for before they are read
  const int64_t D = padded(t.key_dim), Dv = padded(t.value_dim);
  const int64_t key_bytes = t.key_dim * Elements::kBytes, value_bytes = t.value_dim * Elements::kBytes;
  const int64_t state_stride = state_floats(t.value_dim), rows = t.count + 8;
  float* turned = (float*)t.scratch;
  float* wide = turned + 16 * D;
  float* states = wide + 16 * Dv;
  float* scores = states + rows * state_stride;
  t.keys_read = 0;
  int64_t first = t.last_key, last = 0;  // what any of the rows may see
  for (int32_t r = 0; r < t.count; ++r) {
    if (t.rows[r].first < first) first = t.rows[r].first;
    if (t.rows[r].last > last) last = t.rows[r].last;
  }
  if (last > t.last_key) last = t.last_key;
  for (int64_t base = t.first_key; base < last; base += kChunk) {
    const int64_t begin = first > base ? first : base, end = base + kChunk < last ? base + kChunk : last;
    if (begin >= end) continue;
    const int64_t first_tile = begin / 16 * 16;
    t.keys_read += end - begin;
    for (int64_t j = first_tile; j < end; j += 16) {
      ask_for<3>(t, t.keys, j + kAhead, last, key_bytes);
      ask_for<2>(t, t.values, j, last, value_bytes);
      load_keys<Elements>(find_slots(t, t.keys, t.key_scales, j, begin, end, key_bytes), t.key_dim, turned);
      score(t, turned, scores + (j - base));
    }
    for (int32_t r = 0; r < t.count; ++r) {
      memset(states + r * state_stride, 0, (size_t)state_stride * 4);
      soften(t, t.rows[r], first_tile, end, base, scores + r * kChunk, states + r * state_stride);
    }
    for (int64_t j = first_tile; j < end; j += 16) {
      load_values<Elements>(find_slots(t, t.values, t.value_scales, j, begin, end, value_bytes), t.value_dim, wide);
      bool seen = true;  // all of it, by every row
      for (int32_t r = 0; r < t.count; ++r) seen = seen && visible(t.rows[r], j) == 0xffffu;
      if (seen || all_finite(wide, 16 * Dv)) weigh(t, scores + (j - base), wide, states, state_stride);
      else weigh_visible(t, j, scores + (j - base), wide, states, state_stride);
    }
    for (int32_t r = 0; r < t.count; ++r) merge(t.rows[r].state, states + r * state_stride, t.value_dim);
  }
}

}  // namespace

void attend(attention_task& t) {
  switch (t.dtype) {
    case SL_DTYPE_F16: attend_with<f16_elements>(t); break;
    case SL_DTYPE_BF16: attend_with<bf16_elements>(t); break;
    case SL_DTYPE_I8: attend_with<i8_elements>(t); break;
    case SL_DTYPE_FP8_E4M3: attend_with<e4m3_elements>(t); break;
    default: attend_with<f32_elements>(t); break;
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
