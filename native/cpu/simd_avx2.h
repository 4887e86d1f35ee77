// Sixteen lanes on AVX2, FMA and F16C: two registers of eight. With AVX-VNNI where it is compiled for it.
#pragma once

struct f32x16 {
  __m256 a, b;
};
struct i32x16 {
  __m256i a, b;
};
struct u8x64 {
  __m256i a, b;
};

constexpr int kTileRows = 4;
constexpr int kLinearRows = 8;
#if defined(__AVXVNNI__)
constexpr bool kWideKeepsZero = true;
#else
constexpr bool kWideKeepsZero = false;  // dot4_wide takes the 128 off by itself
#endif

static inline f32x16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
static inline f32x16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline f32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void store(float* p, f32x16 x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
static inline f32x16 load_f16(const void* p) {
  const __m128i* h = (const __m128i*)p;
  return {_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}
static inline void store_f16(void* p, f32x16 x) {
  __m128i* h = (__m128i*)p;
  _mm_storeu_si128(h, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  _mm_storeu_si128(h + 1, _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline __m256 widen_bf16(__m128i h) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
static inline f32x16 load_bf16(const void* p) {
  const __m128i* h = (const __m128i*)p;
  return {widen_bf16(_mm_loadu_si128(h)), widen_bf16(_mm_loadu_si128(h + 1))};
}
static inline __m256i narrow_bf16(__m256 x) {  // in the lower halves of the lanes
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
  const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
  return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}
static inline void store_bf16(void* p, f32x16 x) {
  const __m256i packed = _mm256_packus_epi32(narrow_bf16(x.a), narrow_bf16(x.b));  // quarters 0 2 1 3
  _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(packed, 0xd8));
}
static inline f32x16 load_u8(const uint8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p))),
          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8))))};
}
static inline f32x16 load_i8(const uint8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p))),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8))))};
}

static inline f32x16 operator+(f32x16 x, f32x16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
static inline f32x16 operator-(f32x16 x, f32x16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
static inline f32x16 operator*(f32x16 x, f32x16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
static inline f32x16 operator/(f32x16 x, f32x16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
static inline f32x16 fma(f32x16 x, f32x16 y, f32x16 z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
static inline f32x16 max(f32x16 x, f32x16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
static inline f32x16 min(f32x16 x, f32x16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
static inline f32x16 abs(f32x16 x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
static inline f32x16 nearest(f32x16 x) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, mode), _mm256_round_ps(x.b, mode)};
}
static inline f32x16 select_less(f32x16 p, f32x16 q, f32x16 x, f32x16 y) {
  return {_mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(p.a, q.a, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(p.b, q.b, _CMP_LT_OQ))};
}
static inline f32x16 select_bits(uint32_t bits, f32x16 x, f32x16 y) {
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i low = _mm256_and_si256(_mm256_set1_epi32((int)bits), lane);
  const __m256i high = _mm256_and_si256(_mm256_set1_epi32((int)(bits >> 8)), lane);
  return {_mm256_blendv_ps(y.a, x.a, _mm256_castsi256_ps(_mm256_cmpeq_epi32(low, lane))),
          _mm256_blendv_ps(y.b, x.b, _mm256_castsi256_ps(_mm256_cmpeq_epi32(high, lane)))};
}
static inline __m256 pow2_half(__m256 n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
static inline f32x16 pow2(f32x16 n) { return {pow2_half(n.a), pow2_half(n.b)}; }
// x times pow2(n)
static inline f32x16 times_pow2(f32x16 x, f32x16 n) { return x * pow2(n); }
static inline float sum(f32x16 x) {
  const __m256 eight = _mm256_add_ps(x.a, x.b);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
static inline float largest(f32x16 x) {
  const __m256 eight = _mm256_max_ps(x.a, x.b);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
static inline void store_i8(int8_t* p, f32x16 x) {
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
  _mm_storeu_si128((__m128i*)p, bytes);
}

static inline i32x16 set1_i32(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
static inline i32x16 add(i32x16 x, i32x16 y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
template <int Bits>
static inline i32x16 shift_left(i32x16 x) {
  return {_mm256_slli_epi32(x.a, Bits), _mm256_slli_epi32(x.b, Bits)};
}
static inline f32x16 to_f32(i32x16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }

static inline i32x16 load_i32(const void* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1)};
}
template <int Bits>
static inline i32x16 shift_right(i32x16 x) {
  return {_mm256_srli_epi32(x.a, Bits), _mm256_srli_epi32(x.b, Bits)};
}
static inline f32x16 masked_float(i32x16 x, uint32_t mask, uint32_t bits) {
  const __m256i m = _mm256_set1_epi32((int)mask), b = _mm256_set1_epi32((int)bits);
  return {_mm256_castsi256_ps(_mm256_or_si256(_mm256_and_si256(x.a, m), b)),
          _mm256_castsi256_ps(_mm256_or_si256(_mm256_and_si256(x.b, m), b))};
}

static inline u8x64 load_bytes(const uint8_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 32))};
}
static inline u8x64 low_nibbles(u8x64 x) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)};
}
static inline u8x64 high_nibbles(u8x64 x) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(_mm256_srli_epi16(x.a, 4), mask), _mm256_and_si256(_mm256_srli_epi16(x.b, 4), mask)};
}
template <int Left>
static inline __m256i moved(__m256i x) {
  if constexpr (Left > 0) return _mm256_slli_epi16(x, Left);
  if constexpr (Left < 0) return _mm256_srli_epi16(x, -Left);
  return x;
}
template <int Left, int Mask>
static inline u8x64 with_bits(u8x64 low, u8x64 plane) {
  const __m256i mask = _mm256_set1_epi8((char)Mask);
  return {_mm256_or_si256(low.a, _mm256_and_si256(moved<Left>(plane.a), mask)),
          _mm256_or_si256(low.b, _mm256_and_si256(moved<Left>(plane.b), mask))};
}

#if defined(__AVXVNNI__)
static inline i32x16 dot4(i32x16 sum, u8x64 weights, const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  const __m256i xs = _mm256_set1_epi32(four);
  return {_mm256_dpbusd_avx_epi32(sum.a, weights.a, xs), _mm256_dpbusd_avx_epi32(sum.b, weights.b, xs)};
}
static inline i32x16 dot4_wide(i32x16 sum, u8x64 weights, const int8_t* x) { return dot4(sum, weights, x); }
#else
// Weights up to 63: two products of a pair stay below 2^15.
static inline i32x16 dot4(i32x16 sum, u8x64 weights, const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  const __m256i xs = _mm256_set1_epi32(four), ones = _mm256_set1_epi16(1);
  return {_mm256_add_epi32(sum.a, _mm256_madd_epi16(_mm256_maddubs_epi16(weights.a, xs), ones)),
          _mm256_add_epi32(sum.b, _mm256_madd_epi16(_mm256_maddubs_epi16(weights.b, xs), ones))};
}

// Weights are bytes less 128, any of them: |w| * sign(w) x keeps a pair below 2^15 (128 * 127 * 2 = 32,512).
static inline i32x16 dot4_wide(i32x16 sum, u8x64 weights, const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  const __m256i xs = _mm256_set1_epi32(four), ones = _mm256_set1_epi16(1), offset = _mm256_set1_epi8((char)128);
  const __m256i a = _mm256_xor_si256(weights.a, offset), b = _mm256_xor_si256(weights.b, offset);
  return {_mm256_add_epi32(sum.a,
                           _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(xs, a)), ones)),
          _mm256_add_epi32(sum.b,
                           _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(b), _mm256_sign_epi8(xs, b)), ones))};
}
#endif

static inline void transpose8(const __m256* rows, float* out) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const __m256d x = _mm256_castps_pd(a[i + j]), y = _mm256_castps_pd(a[i + j + 2]);
      b[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(x, y));
      b[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(x, y));
    }
  }
  for (int c = 0; c < 4; ++c) {
    _mm256_storeu_ps(out + 16 * c, _mm256_permute2f128_ps(b[c], b[4 + c], 0x20));
    _mm256_storeu_ps(out + 16 * (4 + c), _mm256_permute2f128_ps(b[c], b[4 + c], 0x31));
  }
}

static inline void transpose(const f32x16* rows, float* out) {
  __m256 part[8];
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 8; ++i) part[i] = rows[half * 8 + i].a;
    transpose8(part, out + 8 * half);
    for (int i = 0; i < 8; ++i) part[i] = rows[half * 8 + i].b;
    transpose8(part, out + 16 * 8 + 8 * half);
  }
}
