// Sixteen lanes in four vectors that every target of GCC and Clang has.
#pragma once

typedef float f32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));

struct f32x16 {
  f32x4 v[4];
};
struct i32x16 {
  i32x4 v[4];
};
struct u8x64 {
  uint8_t v[64];
};

constexpr int kTileRows = 2;
constexpr int kLinearRows = 4;
constexpr bool kWideKeepsZero = true;

#define SL_EACH(i) _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i)

static inline f32x16 set1(float x) {
  f32x16 r;
  SL_EACH(i) r.v[i] = f32x4{x, x, x, x};
  return r;
}
static inline f32x16 zero() { return set1(0.0f); }
static inline f32x16 load(const float* p) {
  f32x16 r;
  SL_EACH(i) memcpy(&r.v[i], p + 4 * i, 16);
  return r;
}
static inline void store(float* p, f32x16 x) { SL_EACH(i) memcpy(p + 4 * i, &x.v[i], 16); }

static inline i32x4 bits_of(f32x4 x) { return (i32x4)x; }
static inline f32x4 choose(i32x4 mask, f32x4 x, f32x4 y) { return (f32x4)((mask & bits_of(x)) | (~mask & bits_of(y))); }

static inline i32x4 words(const uint16_t* p) { return i32x4{p[0], p[1], p[2], p[3]}; }

// An f16's exponent and mantissa, shifted into an f32's places, are its value times 2^-112, subnormals too.
static inline f32x16 load_f16(const void* p) {
  f32x16 r;
  SL_EACH(i) {
    uint16_t h[4];
    memcpy(h, (const char*)p + 8 * i, 8);
    const i32x4 w = words(h), magnitude = (w & 0x7fff) << 13;
    const f32x4 scaled = (f32x4)magnitude * f32x4{0x1p112f, 0x1p112f, 0x1p112f, 0x1p112f};
    const i32x4 special = (w & 0x7c00) == 0x7c00;  // infinity and NaN
    const f32x4 value = choose(special, (f32x4)(magnitude | 0x7f800000), scaled);
    r.v[i] = (f32x4)(bits_of(value) | ((w & 0x8000) << 16));
  }
  return r;
}
static inline void store_f16(void* p, f32x16 x) {
  SL_EACH(i) {
    const i32x4 bits = bits_of(x.v[i]), magnitude = bits & 0x7fffffff;
    const f32x4 half = {0.5f, 0.5f, 0.5f, 0.5f};
    const i32x4 subnormal = bits_of((f32x4)magnitude + half) - 0x3f000000;  // the sum rounds at the last place
    const i32x4 normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    i32x4 r = magnitude < 0x38800000 ? subnormal : normal;
    r = magnitude >= 0x477ff000 ? i32x4{0x7c00, 0x7c00, 0x7c00, 0x7c00} : r;
    r = magnitude > 0x7f800000 ? (0x7e00 | ((magnitude >> 13) & 0x3ff)) : r;
    r |= (bits >> 16) & 0x8000;
    const uint16_t h[4] = {(uint16_t)r[0], (uint16_t)r[1], (uint16_t)r[2], (uint16_t)r[3]};
    memcpy((char*)p + 8 * i, h, 8);
  }
}
static inline f32x16 load_bf16(const void* p) {
  f32x16 r;
  SL_EACH(i) {
    uint16_t h[4];
    memcpy(h, (const char*)p + 8 * i, 8);
    r.v[i] = (f32x4)(words(h) << 16);
  }
  return r;
}
static inline void store_bf16(void* p, f32x16 x) {
  SL_EACH(i) {
    typedef uint32_t u32x4 __attribute__((vector_size(16)));
    const u32x4 bits = (u32x4)x.v[i], rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const u32x4 r = (bits & 0x7fffffff) > 0x7f800000 ? ((bits >> 16) | 0x40) : rounded;
    const uint16_t h[4] = {(uint16_t)r[0], (uint16_t)r[1], (uint16_t)r[2], (uint16_t)r[3]};
    memcpy((char*)p + 8 * i, h, 8);
  }
}
static inline f32x16 load_u8(const uint8_t* p) {
  f32x16 r;
  SL_EACH(i) r.v[i] = f32x4{(float)p[4 * i], (float)p[4 * i + 1], (float)p[4 * i + 2], (float)p[4 * i + 3]};
  return r;
}
static inline f32x16 load_i8(const uint8_t* p) {
  const int8_t* s = (const int8_t*)p;
  f32x16 r;
  SL_EACH(i) r.v[i] = f32x4{(float)s[4 * i], (float)s[4 * i + 1], (float)s[4 * i + 2], (float)s[4 * i + 3]};
  return r;
}

#define SL_BINARY(name, expression)               \
  static inline f32x16 name(f32x16 x, f32x16 y) { \
    f32x16 r;                                     \
    SL_EACH(i) r.v[i] = expression;               \
    return r;                                     \
  }
SL_BINARY(operator+, x.v[i] + y.v[i])
SL_BINARY(operator-, x.v[i] - y.v[i])
SL_BINARY(operator*, x.v[i] * y.v[i])
SL_BINARY(operator/, x.v[i] / y.v[i])
SL_BINARY(max, choose((i32x4)(x.v[i] > y.v[i]), x.v[i], y.v[i]))  // y where either is NaN
SL_BINARY(min, choose((i32x4)(x.v[i] < y.v[i]), x.v[i], y.v[i]))
#undef SL_BINARY

static inline f32x16 fma(f32x16 x, f32x16 y, f32x16 z) { return x * y + z; }
static inline f32x16 abs(f32x16 x) {
  f32x16 r;
  SL_EACH(i) r.v[i] = (f32x4)(bits_of(x.v[i]) & 0x7fffffff);
  return r;
}
// To the nearest whole number, for |x| < 2^22: the sum with 1.5 * 2^23 rounds at the units.
static inline f32x16 nearest(f32x16 x) { return x + set1(12582912.0f) - set1(12582912.0f); }
static inline f32x16 select_less(f32x16 p, f32x16 q, f32x16 x, f32x16 y) {
  f32x16 r;
  SL_EACH(i) r.v[i] = choose((i32x4)(p.v[i] < q.v[i]), x.v[i], y.v[i]);
  return r;
}
static inline f32x16 select_bits(uint32_t bits, f32x16 x, f32x16 y) {
  f32x16 r;
  SL_EACH(i) {
    const int32_t b = (int32_t)(bits >> (4 * i));
    const i32x4 lane = {1, 2, 4, 8};
    r.v[i] = choose((i32x4)((i32x4{b, b, b, b} & lane) == lane), x.v[i], y.v[i]);
  }
  return r;
}
static inline f32x16 pow2(f32x16 n) {
  f32x16 r;
  SL_EACH(i) {
    const f32x4 magic = {8388608.0f + 127, 8388608.0f + 127, 8388608.0f + 127, 8388608.0f + 127};
    r.v[i] = (f32x4)(bits_of(n.v[i] + magic) << 23);  // n + 127 stands in the sum's lowest bits
  }
  return r;
}
// x times pow2(n)
static inline f32x16 times_pow2(f32x16 x, f32x16 n) { return x * pow2(n); }
static inline float sum(f32x16 x) {
  const f32x4 s = (x.v[0] + x.v[1]) + (x.v[2] + x.v[3]);
  return (s[0] + s[2]) + (s[1] + s[3]);
}
static inline float largest(f32x16 x) {
  f32x4 m = x.v[0];
  for (int i = 1; i < 4; ++i) m = choose((i32x4)(m > x.v[i]), m, x.v[i]);
  const float a = m[0] > m[1] ? m[0] : m[1], b = m[2] > m[3] ? m[2] : m[3];
  return a > b ? a : b;
}
static inline void store_i8(int8_t* p, f32x16 x) {
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      const float f = x.v[i][j];
      p[4 * i + j] = f >= -127.0f && f <= 127.0f ? (int8_t)(int)f : (int8_t)0;  // NaN: its scale is NaN as well
    }
}

static inline i32x16 set1_i32(int32_t x) {
  i32x16 r;
  SL_EACH(i) r.v[i] = i32x4{x, x, x, x};
  return r;
}
static inline i32x16 add(i32x16 x, i32x16 y) {
  SL_EACH(i) x.v[i] += y.v[i];
  return x;
}
template <int Bits>
static inline i32x16 shift_left(i32x16 x) {
  typedef uint32_t u32x4 __attribute__((vector_size(16)));  // what is shifted out is lost, and no overflow
  SL_EACH(i) x.v[i] = (i32x4)((u32x4)x.v[i] << Bits);
  return x;
}
static inline f32x16 to_f32(i32x16 x) {
  f32x16 r;
  SL_EACH(i) r.v[i] = __builtin_convertvector(x.v[i], f32x4);
  return r;
}

static inline i32x16 load_i32(const void* p) {
  i32x16 r;
  memcpy(r.v, p, 64);
  return r;
}
template <int Bits>
static inline i32x16 shift_right(i32x16 x) {
  typedef uint32_t u32x4 __attribute__((vector_size(16)));
  SL_EACH(i) x.v[i] = (i32x4)((u32x4)x.v[i] >> Bits);
  return x;
}
static inline f32x16 masked_float(i32x16 x, uint32_t mask, uint32_t bits) {
  f32x16 r;
  SL_EACH(i) r.v[i] = (f32x4)((x.v[i] & (int32_t)mask) | (int32_t)bits);
  return r;
}

static inline u8x64 load_bytes(const uint8_t* p) {
  u8x64 r;
  memcpy(r.v, p, 64);
  return r;
}
static inline u8x64 low_nibbles(u8x64 x) {
  for (int i = 0; i < 64; ++i) x.v[i] &= 15;
  return x;
}
static inline u8x64 high_nibbles(u8x64 x) {
  for (int i = 0; i < 64; ++i) x.v[i] >>= 4;
  return x;
}
template <int Left, int Mask>
static inline u8x64 with_bits(u8x64 low, u8x64 plane) {
  for (int i = 0; i < 64; ++i) {
    const int bits = Left >= 0 ? plane.v[i] << (Left >= 0 ? Left : 0) : plane.v[i] >> (Left < 0 ? -Left : 0);
    low.v[i] = (uint8_t)(low.v[i] | (bits & Mask));
  }
  return low;
}

#if defined(__SSE2__)
// The compiler's baseline on x86-64. Bytes widened to words, pairs by madd; a lane's two pairs are added by a shuffle.
static inline i32x16 dot4(i32x16 sum, u8x64 weights, const int8_t* x) {
  const __m128i xs = _mm_set_epi16(x[3], x[2], x[1], x[0], x[3], x[2], x[1], x[0]), none = _mm_setzero_si128();
  SL_EACH(i) {
    const __m128i w = _mm_loadu_si128((const __m128i*)(weights.v + 16 * i));
    const __m128 low = _mm_castsi128_ps(_mm_madd_epi16(_mm_unpacklo_epi8(w, none), xs));
    const __m128 high = _mm_castsi128_ps(_mm_madd_epi16(_mm_unpackhi_epi8(w, none), xs));
    const __m128i even = _mm_castps_si128(_mm_shuffle_ps(low, high, 0x88)),
                  odd = _mm_castps_si128(_mm_shuffle_ps(low, high, 0xdd));
    sum.v[i] += (i32x4)_mm_add_epi32(even, odd);
  }
  return sum;
}
#else
static inline i32x16 dot4(i32x16 sum, u8x64 weights, const int8_t* x) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 4; ++j) sum.v[i / 4][i % 4] += weights.v[4 * i + j] * x[j];
  return sum;
}
#endif
static inline i32x16 dot4_wide(i32x16 sum, u8x64 weights, const int8_t* x) { return dot4(sum, weights, x); }

static inline void transpose(const f32x16* rows, float* out) {
  for (int d = 0; d < 16; ++d)
    for (int j = 0; j < 16; ++j) out[16 * d + j] = rows[j].v[d / 4][d % 4];
}
#undef SL_EACH
