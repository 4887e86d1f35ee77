// Sixteen lanes on AVX-512 F, BW and VL; with VNNI where it is compiled for it.
#pragma once

struct f32x16 {
  __m512 v;
};
struct i32x16 {
  __m512i v;
};
struct u8x64 {
  __m512i v;
};

constexpr int kTileRows = 8;     // rows of x that share a pass over attention's keys
constexpr int kLinearRows = 16;  // rows of x that share a pass over packed weights
#if defined(__AVX512VNNI__)
constexpr bool kWideKeepsZero = true;  // dot4_wide takes bytes as they are: 128 stands for 0
#else
constexpr bool kWideKeepsZero = false;  // dot4_wide takes the 128 off by itself
#endif

static inline f32x16 zero() { return {_mm512_setzero_ps()}; }
static inline f32x16 set1(float x) { return {_mm512_set1_ps(x)}; }
static inline f32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
static inline void store(float* p, f32x16 a) { _mm512_storeu_ps(p, a.v); }
static inline f32x16 load_f16(const void* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
static inline void store_f16(void* p, f32x16 a) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline f32x16 load_bf16(const void* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16))};
}
static inline void store_bf16(void* p, f32x16 a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  rounded = _mm512_mask_mov_epi32(rounded, nan, _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40)));
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(rounded));
}
static inline f32x16 load_u8(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)))};
}
static inline f32x16 load_i8(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)))};
}

static inline f32x16 operator+(f32x16 a, f32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
static inline f32x16 operator-(f32x16 a, f32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
static inline f32x16 operator*(f32x16 a, f32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
static inline f32x16 operator/(f32x16 a, f32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
static inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
static inline f32x16 max(f32x16 a, f32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }  // b where either is NaN
static inline f32x16 min(f32x16 a, f32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
static inline f32x16 abs(f32x16 a) { return {_mm512_abs_ps(a.v)}; }
static inline f32x16 nearest(f32x16 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// a < b ? x : y
static inline f32x16 select_less(f32x16 a, f32x16 b, f32x16 x, f32x16 y) {
  return {_mm512_mask_mov_ps(y.v, _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), x.v)};
}
// Bit i of bits set ? x : y
static inline f32x16 select_bits(uint32_t bits, f32x16 x, f32x16 y) {
  return {_mm512_mask_mov_ps(y.v, (__mmask16)bits, x.v)};
}
// 2^n for whole n in -126 .. 128 (infinity)
static inline f32x16 pow2(f32x16 n) {
  return {
      _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127)), 23))};
}
// x times pow2(n)
static inline f32x16 times_pow2(f32x16 x, f32x16 n) { return {_mm512_scalef_ps(x.v, n.v)}; }
static inline float sum(f32x16 a) { return _mm512_reduce_add_ps(a.v); }
static inline float largest(f32x16 a) { return _mm512_reduce_max_ps(a.v); }
static inline void store_i8(int8_t* p, f32x16 a) {  // a whole, -127 .. 127
  _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
}

static inline i32x16 set1_i32(int32_t x) { return {_mm512_set1_epi32(x)}; }
static inline i32x16 add(i32x16 a, i32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
template <int Bits>
static inline i32x16 shift_left(i32x16 a) {
  return {_mm512_slli_epi32(a.v, Bits)};
}
static inline f32x16 to_f32(i32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }

static inline i32x16 load_i32(const void* p) { return {_mm512_loadu_si512(p)}; }
template <int Bits>
static inline i32x16 shift_right(i32x16 a) {  // zeros come in
  return {_mm512_srli_epi32(a.v, Bits)};
}
// (a & mask) | bits, as f32
static inline f32x16 masked_float(i32x16 a, uint32_t mask, uint32_t bits) {
  return {_mm512_castsi512_ps(
      _mm512_ternarylogic_epi32(a.v, _mm512_set1_epi32((int)mask), _mm512_set1_epi32((int)bits), 0xea))};
}

static inline u8x64 load_bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
static inline u8x64 low_nibbles(u8x64 a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))}; }
static inline u8x64 high_nibbles(u8x64 a) {
  return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))};
}
// low | the bits of plane, moved by Left (negative: right), that mask holds
template <int Left, int Mask>
static inline u8x64 with_bits(u8x64 low, u8x64 plane) {
  __m512i moved = plane.v;
  if constexpr (Left > 0) moved = _mm512_slli_epi16(moved, Left);
  if constexpr (Left < 0) moved = _mm512_srli_epi16(moved, -Left);
  return {_mm512_ternarylogic_epi32(low.v, moved, _mm512_set1_epi8((char)Mask), 0xf8)};  // low | (moved & mask)
}

#if defined(__AVX512VNNI__)
// Lane i: sum += weights 4i .. 4i+3 times the four bytes at x
static inline i32x16 dot4(i32x16 sum, u8x64 weights, const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  return {_mm512_dpbusd_epi32(sum.v, weights.v, _mm512_set1_epi32(four))};
}
static inline i32x16 dot4_wide(i32x16 sum, u8x64 weights, const int8_t* x) { return dot4(sum, weights, x); }
#else
static inline __m512i sums_of_four(__m512i weights, __m512i xs) {
  return _mm512_madd_epi16(_mm512_maddubs_epi16(weights, xs), _mm512_set1_epi16(1));
}
// Weights up to 63: two products of a pair stay below 2^15.
static inline i32x16 dot4(i32x16 sum, u8x64 weights, const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  return {_mm512_add_epi32(sum.v, sums_of_four(weights.v, _mm512_set1_epi32(four)))};
}
// Weights are bytes less 128, any of them: |w| * sign(w) x keeps a pair below 2^15 (128 * 127 * 2 = 32,512).
static inline i32x16 dot4_wide(i32x16 sum, u8x64 weights, const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  const __m512i xs = _mm512_set1_epi32(four), w = _mm512_xor_si512(weights.v, _mm512_set1_epi8((char)128));
  const __m512i turned = _mm512_mask_sub_epi8(xs, _mm512_movepi8_mask(w), _mm512_setzero_si512(), xs);
  return {_mm512_add_epi32(sum.v, sums_of_four(_mm512_abs_epi8(w), turned))};
}
#endif

// out[d][j] = rows[j][d]
static inline void transpose(const f32x16* rows, float* out) {
  __m512 a[16], b[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
    a[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const __m512d x = _mm512_castps_pd(a[i + j]), y = _mm512_castps_pd(a[i + j + 2]);
      b[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
      b[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
    }
  }
  // b[4g+c], quarter q: rows 4g .. 4g+3 of column 4q+c
  for (int c = 0; c < 4; ++c) {
    const __m512 low01 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x44),
                 high01 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xee);
    const __m512 low23 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x44),
                 high23 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xee);
    _mm512_storeu_ps(out + 16 * c, _mm512_shuffle_f32x4(low01, low23, 0x88));
    _mm512_storeu_ps(out + 16 * (4 + c), _mm512_shuffle_f32x4(low01, low23, 0xdd));
    _mm512_storeu_ps(out + 16 * (8 + c), _mm512_shuffle_f32x4(high01, high23, 0x88));
    _mm512_storeu_ps(out + 16 * (12 + c), _mm512_shuffle_f32x4(high01, high23, 0xdd));
  }
}
