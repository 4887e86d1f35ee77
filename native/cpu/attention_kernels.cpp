// Attention of query rows over the paged keys that they share.
//
// A chunk of 256 keys at a time: scores of all rows (a tile of 32 keys is turned so that lanes are keys, and serves
// every row), softmax, then the values (a tile of 32, widened once where rows are many). What a row gets depends on
// its own keys alone: dimensions and keys are summed one after the other, and keys that it does not see weigh 0.
#include "simd.h"

namespace sl::cpu::SL_ISA {
namespace {

constexpr int64_t kChunk = SL_ATTENTION_CHUNK;
constexpr int64_t kKeys = 32;  // whose scores are made together: two vectors, so that few rows have chains of adds enough
constexpr int64_t kFew = 8;    // rows up to which values are widened in each use
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

// Elements d .. d+15 of a vector of dim elements; where those are no multiple of 16 (not Whole), zeros past the last.
template <typename Elements, bool Whole>
inline f32x16 load_elements(const char* vector, float scale, int64_t d, int64_t dim) {
  f32x16 v;
  if (Whole || dim - d >= 16) {
    v = Elements::load(vector + d * Elements::kBytes);
  } else {
    char part[64] = {};
    memcpy(part, vector + d * Elements::kBytes, (size_t)((dim - d) * Elements::kBytes));
    v = Elements::load(part);
  }
  return Elements::kBytes == 1 ? v * set1(scale) : v;
}

inline int64_t place_of(const attention_task& t, int64_t key) {
  return ((int64_t)t.pages[key / t.page_size] * t.kv_heads + t.kv_head) * t.page_size + key % t.page_size;
}

// The vectors of slots begin .. end-1 of a pool [pages, Hkv, P, dim], at most kKeys of them.
struct slots {
  const char* data[kKeys];
  float scale[kKeys];
  int64_t count;

  void find(const attention_task& t, const char* pool, const float* scales, int64_t begin, int64_t end, int64_t bytes) {
    count = 0;
    if (end > begin / kKeys * kKeys + kKeys) end = begin / kKeys * kKeys + kKeys;
    for (int64_t key = begin; key < end;) {
      int64_t place = place_of(t, key), left = t.page_size - key % t.page_size;
      if (left > end - key) left = end - key;
      key += left;
      const char* p = pool + place * bytes;
      for (; left > 0; --left, ++place, p += bytes) {
        data[count] = p;
        scale[count++] = scales != nullptr ? scales[place] : 1.0f;
      }
    }
    // What is asked for ahead is asked for each of kKeys.
    for (int64_t i = count; i < kKeys; ++i) data[i] = data[0];
  }
};

// turned[half][d][j] = dim d of key 16 half + j; key `skipped` is the first slot, and 0 stands where there is none.
template <typename Elements, bool Whole>
void load_keys(const slots& keys, const slots& next, int64_t skipped, int64_t D, float* turned) {
  const int64_t count = keys.count;
  for (int64_t half = 0; half < kKeys; half += 16, turned += 16 * padded(D)) {
    const int64_t slot = half - skipped;  // of lane 0
    for (int64_t d = 0; d < D; d += 16) {
      f32x16 rows[16];
      if (slot >= 0 && slot + 16 <= count) {
        SL_UNROLL for (int j = 0; j < 16; ++j) {
          rows[j] = load_elements<Elements, Whole>(keys.data[slot + j], keys.scale[slot + j], d, D);
          __builtin_prefetch(next.data[slot + j] + d * Elements::kBytes);
        }
      } else {
        for (int j = 0; j < 16; ++j) {
          const bool there = slot + j >= 0 && slot + j < count;
          rows[j] = there ? load_elements<Elements, Whole>(keys.data[slot + j], keys.scale[slot + j], d, D) : zero();
        }
      }
      transpose(rows, turned + d * 16);
    }
  }
}

template <typename Elements, bool Whole>
void load_values(const slots& values, const slots& next, int64_t Dv, float* wide) {
  const int64_t stride = padded(Dv);
  for (int64_t j = 0; j < values.count; ++j) {
    for (int64_t d = 0; d < Dv; d += 16) {
      store(wide + j * stride + d, load_elements<Elements, Whole>(values.data[j], values.scale[j], d, Dv));
      __builtin_prefetch(next.data[j] + d * Elements::kBytes);
    }
  }
}

bool all_finite(const float* wide, int64_t count) {
  f32x16 nothing = zero();  // 0 times an infinity or a NaN is a NaN
  for (int64_t i = 0; i < count; i += 16) nothing = fma(load(wide + i), zero(), nothing);
  return sum(nothing) == 0.0f;
}

// scores[r][j] = q_r . key j, dims one after the other; turned holds kKeys keys in two halves.
template <int Rows>
void score_tile(const attention_task& t, int64_t row, const float* turned, float* scores) {
  const int64_t half = 16 * padded(t.key_dim);
  const float* q[Rows];
  f32x16 sum[Rows][2];
  SL_UNROLL for (int r = 0; r < Rows; ++r) {
    q[r] = t.rows[row + r].q;
    sum[r][0] = sum[r][1] = zero();
  }
  for (int64_t d = 0; d < t.key_dim; ++d) {
    const f32x16 low = load(turned + d * 16), high = load(turned + half + d * 16);
    SL_UNROLL for (int r = 0; r < Rows; ++r) {
      const f32x16 one = set1(q[r][d]);
      sum[r][0] = fma(one, low, sum[r][0]);
      sum[r][1] = fma(one, high, sum[r][1]);
    }
  }
  SL_UNROLL for (int r = 0; r < Rows; ++r) {
    store(scores + r * kChunk, sum[r][0]);
    store(scores + r * kChunk + 16, sum[r][1]);
  }
}

// The last rows, Most or fewer.
template <int Most>
void score_rest(const attention_task& t, int64_t row, const float* turned, float* scores) {
  if (t.count - row == Most) score_tile<Most>(t, row, turned, scores);
  else if constexpr (Most > 1) score_rest<Most - 1>(t, row, turned, scores);
}

void score(const attention_task& t, const float* turned, float* scores) {
  int64_t row = 0;
  for (; row + kTileRows <= t.count; row += kTileRows) score_tile<kTileRows>(t, row, turned, scores + row * kChunk);
  score_rest<kTileRows - 1>(t, row, turned, scores + row * kChunk);
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

// A row's score of a tile's keys in base 2, from their products. Plain: no cap, no ALiBi, and the row sees all of them.
template <bool Plain>
f32x16 score_of(const attention_task& t, const attention_row& row, int64_t j, const float* products) {
  f32x16 s = load(products);
  if (Plain) return s * set1(t.scale * kLog2e);
  if (t.soft_cap > 0) s = tanh(s * set1(t.scale / t.soft_cap)) * set1(t.soft_cap * kLog2e);
  else s = s * set1(t.scale * kLog2e);
  if (t.alibi) {
    float distance[16];
    for (int64_t i = 0; i < 16; ++i) distance[i] = (float)(j + i - row.position);
    s = fma(load(distance), set1(row.slope), s);
  }
  return select_bits(visible(row, j), s, set1(kNone));
}

// scores to probabilities relative to 2^max, in place, for the tiles in [begin, end); max and total into the state. Four chains of each, of tiles by
// their place in the chunk, so that neither waits for itself; Plain takes the same steps without what changes nothing.
template <bool Plain>
void soften_row(const attention_task& t, const attention_row& row, int64_t begin, int64_t end, int64_t base, float* scores,
                float* state) {
  const int64_t first = base + (begin - base) / 64 * 64;
  f32x16 tops[4], totals[4];
  SL_UNROLL for (int i = 0; i < 4; ++i) tops[i] = set1(kNone), totals[i] = zero();
  for (int64_t group = first; group < end; group += 64) {
    SL_UNROLL for (int i = 0; i < 4; ++i) {
      const int64_t j = group + 16 * i;
      if (j < begin || j >= end) continue;
      const f32x16 s = score_of<Plain>(t, row, j, scores + (j - base));
      if (!Plain) store(scores + (j - base), s);
      tops[i] = max(tops[i], s);
    }
  }
  const float max_score = largest(max(max(tops[0], tops[1]), max(tops[2], tops[3])));
  for (int64_t group = first; group < end; group += 64) {
    SL_UNROLL for (int i = 0; i < 4; ++i) {
      const int64_t j = group + 16 * i;
      if (j < begin || j >= end) continue;
      const f32x16 s = Plain ? score_of<true>(t, row, j, scores + (j - base)) : load(scores + (j - base));
      const f32x16 p = max_score == kNone ? zero() : exp2_below(s - set1(max_score));
      store(scores + (j - base), p);
      totals[i] = totals[i] + p;
    }
  }
  state[padded(t.value_dim)] = max_score;
  state[padded(t.value_dim) + 1] = sum((totals[0] + totals[1]) + (totals[2] + totals[3]));
}

void soften(const attention_task& t, const attention_row& row, int64_t begin, int64_t end, int64_t base, float* scores,
            float* state) {
  const bool plain = t.soft_cap <= 0 && !t.alibi && row.mask == nullptr && row.first <= begin && row.last >= (end + 15) / 16 * 16;
  if (plain) soften_row<true>(t, row, begin, end, base, scores, state);
  else soften_row<false>(t, row, begin, end, base, scores, state);
}

// The rows' sums += probabilities times `count` values, key after key. `values` tells where they are and reads 16 of value j's elements.
template <int Rows, int Vectors, typename Values>
inline void weigh_tile(const float* p, const Values& values, int64_t d, int64_t count, float* states, int64_t state_stride) {
  f32x16 s[Rows][Vectors];
  SL_UNROLL for (int r = 0; r < Rows; ++r) SL_UNROLL for (int v = 0; v < Vectors; ++v) s[r][v] =
      load(states + r * state_stride + d + 16 * v);
  for (int64_t j = 0; j < count; ++j) {
    f32x16 value[Vectors];
    SL_UNROLL for (int v = 0; v < Vectors; ++v) value[v] = values.read(j, d + 16 * v);
    SL_UNROLL for (int r = 0; r < Rows; ++r) {
      const f32x16 weight = set1(p[r * kChunk + j]);
      SL_UNROLL for (int v = 0; v < Vectors; ++v) s[r][v] = fma(weight, value[v], s[r][v]);
    }
  }
  SL_UNROLL for (int r = 0; r < Rows; ++r) SL_UNROLL for (int v = 0; v < Vectors; ++v)
      store(states + r * state_stride + d + 16 * v, s[r][v]);
}

template <int Rows, typename Values>
void weigh_rows(const float* p, const Values& values, int64_t Dv, int64_t count, float* states, int64_t state_stride) {
  constexpr int kWide = kTileRows >= 8 ? 4 : 1;  // 16 registers of 32, or 4 x 2 of 16
  int64_t d = 0;
  for (; d + 16 * kWide <= Dv; d += 16 * kWide) weigh_tile<Rows, kWide>(p, values, d, count, states, state_stride);
  for (; d < Dv; d += 16) weigh_tile<Rows, 1>(p, values, d, count, states, state_stride);
}

template <typename Values>
void weigh(const attention_task& t, const float* p, const Values& values, int64_t count, float* states, int64_t state_stride) {
  const int64_t Dv = padded(t.value_dim);
  int64_t row = 0;
  for (; row + 4 <= t.count; row += 4)
    weigh_rows<4>(p + row * kChunk, values, Dv, count, states + row * state_stride, state_stride);
  p += row * kChunk;
  states += row * state_stride;
  switch (t.count - row) {
    case 3: weigh_rows<3>(p, values, Dv, count, states, state_stride); break;
    case 2: weigh_rows<2>(p, values, Dv, count, states, state_stride); break;
    case 1: weigh_rows<1>(p, values, Dv, count, states, state_stride); break;
    default: break;
  }
}

struct wide_values {
  const float* data;
  int64_t stride;
  f32x16 read(int64_t j, int64_t d) const { return load(data + j * stride + d); }
};

template <typename Elements>
struct stored_values {  // of a multiple of 16 elements
  const slots &s, &next;
  f32x16 read(int64_t j, int64_t d) const {
    __builtin_prefetch(next.data[j] + d * Elements::kBytes);
    return load_elements<Elements, true>(s.data[j], s.scale[j], d, 0);
  }
};

// The same where a value is not finite: a key that a row does not see must not touch it, and 0 times infinity would.
void weigh_visible(const attention_task& t, int64_t first, int64_t count, const float* p, const float* values, float* states,
                   int64_t state_stride) {
  const int64_t Dv = padded(t.value_dim);
  for (int64_t row = 0; row < t.count; ++row) {
    for (int64_t j = 0; j < count; ++j) {
      const int64_t key = first + j;
      if (!(visible(t.rows[row], key / 16 * 16) >> key % 16 & 1)) continue;
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

template <typename Elements, bool Whole>
void attend_whole(attention_task& t) {
  const int64_t D = padded(t.key_dim), Dv = padded(t.value_dim);
  const int64_t key_bytes = t.key_dim * Elements::kBytes, value_bytes = t.value_dim * Elements::kBytes;
  const int64_t state_stride = state_floats(t.value_dim), rows = t.count + 8;
  float* turned = (float*)t.scratch;
  float* wide = turned + kKeys * D;
  float* states = wide + kKeys * Dv;
  float* scores = states + rows * state_stride;
  // While one tile is worked on the next is asked for, a little at a time: pages lie anywhere, so nothing else foresees them.
  slots both[2], *now = both, *next = both + 1;
  const auto find_keys = [&](slots& s, int64_t begin, int64_t end) { s.find(t, t.keys, t.key_scales, begin, end, key_bytes); };
  const auto find_values = [&](slots& s, int64_t begin, int64_t end) { s.find(t, t.values, t.value_scales, begin, end, value_bytes); };
  const auto turn_over = [&] {
    slots* old = now;
    now = next;
    next = old;
  };
  t.keys_read = 0;
  int64_t first = t.last_key, last = 0;  // what any of the rows may see
  int64_t all_from = 0, all_to = t.last_key;  // what all of them see
  for (int32_t r = 0; r < t.count; ++r) {
    const attention_row& row = t.rows[r];
    if (row.first < first) first = row.first;
    if (row.last > last) last = row.last;
    if (row.first > all_from) all_from = row.first;
    if (row.last < all_to) all_to = row.last;
    if (row.mask != nullptr) all_to = 0;
  }
  if (first < t.first_key) first = t.first_key;
  if (last > t.last_key) last = t.last_key;
  for (int64_t base = t.first_key; base < last; base += kChunk) {
    const int64_t begin = first > base ? first : base, end = base + kChunk < last ? base + kChunk : last;
    if (begin >= end) continue;
    const int64_t first_tile = begin / kKeys * kKeys;
    if (t.keys_read == 0) find_keys(*now, begin, end);
    t.keys_read += end - begin;
    for (int64_t j = first_tile; j < end; j += kKeys, turn_over()) {
      if (j + kKeys < end) find_keys(*next, j + kKeys, end);
      else find_values(*next, begin, end);
      load_keys<Elements, Whole>(*now, *next, j < begin ? begin - j : 0, t.key_dim, turned);
      score(t, turned, scores + (j - base));
    }
    for (int32_t r = 0; r < t.count; ++r) {
      memset(states + r * state_stride, 0, (size_t)state_stride * 4);
      soften(t, t.rows[r], begin / 16 * 16, end, base, scores + r * kChunk, states + r * state_stride);
    }
    for (int64_t from = begin; from < end; turn_over()) {
      const int64_t at = from, to = at + now->count;
      from = to;
      if (to < end) find_values(*next, to, end);
      else if (end < last) find_keys(*next, end, last);
      else *next = *now;
      const bool seen = at >= all_from && to <= all_to;
      const float* p = scores + (at - base);
      if (Whole && seen && t.count <= kFew) {
        weigh(t, p, stored_values<Elements>{*now, *next}, now->count, states, state_stride);
        continue;
      }
      load_values<Elements, Whole>(*now, *next, t.value_dim, wide);
      if (seen || all_finite(wide, now->count * Dv)) weigh(t, p, wide_values{wide, Dv}, now->count, states, state_stride);
      else weigh_visible(t, at, now->count, p, wide, states, state_stride);
    }
    for (int32_t r = 0; r < t.count; ++r) merge(t.rows[r].state, states + r * state_stride, t.value_dim);
  }
}

template <typename Elements>
void attend_with(attention_task& t) {
  if (t.key_dim % 16 == 0 && t.value_dim % 16 == 0) attend_whole<Elements, true>(t);
  else attend_whole<Elements, false>(t);
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
