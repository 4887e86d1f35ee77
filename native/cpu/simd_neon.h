// Sixteen lanes on AArch64 with the dot product of bytes (FEAT_DotProd): four registers of four.
#pragma once

struct f32x16 {
  float32x4_t v[4];
};
struct i32x16 {
  int32x4_t v[4];
};
struct u8x64 {
  uint8x16_t v[4];
};

constexpr int kTileRows = 4;
constexpr int kLinearRows = 8;
constexpr bool kWideKeepsZero = false;  // dot4_wide takes the 128 off by itself

#define SL_EACH(i) _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i)

static inline f32x16 set1(float x) {
  f32x16 r;
  SL_EACH(i) r.v[i] = vdupq_n_f32(x);
  return r;
}
static inline f32x16 zero() { return set1(0.0f); }
static inline f32x16 load(const float* p) {
  f32x16 r;
  SL_EACH(i) r.v[i] = vld1q_f32(p + 4 * i);
  return r;
}
static inline void store(float* p, f32x16 x) { SL_EACH(i) vst1q_f32(p + 4 * i, x.v[i]); }

// Halves are loaded and stored as bytes: their addresses need not be even.
static inline uint16x4_t load_halves(const void* p) { return vreinterpret_u16_u8(vld1_u8((const uint8_t*)p)); }
static inline void store_halves(void* p, uint16x4_t x) { vst1_u8((uint8_t*)p, vreinterpret_u8_u16(x)); }

static inline f32x16 load_f16(const void* p) {
  f32x16 r;
  SL_EACH(i) r.v[i] = vcvt_f32_f16(vreinterpret_f16_u16(load_halves((const char*)p + 8 * i)));
  return r;
}
static inline void store_f16(void* p, f32x16 x) {
  SL_EACH(i) store_halves((char*)p + 8 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.v[i])));
}
static inline f32x16 load_bf16(const void* p) {
  f32x16 r;
  SL_EACH(i) r.v[i] = vreinterpretq_f32_u32(vshll_n_u16(load_halves((const char*)p + 8 * i), 16));
  return r;
}
static inline void store_bf16(void* p, f32x16 x) {
  SL_EACH(i) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x.v[i]), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint16x4_t rounded = vshrn_n_u32(vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd), 16);
    const uint16x4_t quiet = vorr_u16(vshrn_n_u32(bits, 16), vdup_n_u16(0x40));
    store_halves((char*)p + 8 * i, vbsl_u16(vmovn_u32(vceqq_f32(x.v[i], x.v[i])), rounded, quiet));
  }
}
static inline f32x16 load_u8(const uint8_t* p) {
  const uint8x16_t bytes = vld1q_u8(p);
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
  return {vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_high_u16(low)),
          vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_high_u16(high))};
}
static inline f32x16 load_i8(const uint8_t* p) {
  const int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(p));
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
  return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
          vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))};
}

#define SL_BINARY(name, expression)               \
  static inline f32x16 name(f32x16 x, f32x16 y) { \
    f32x16 r;                                     \
    SL_EACH(i) r.v[i] = expression;               \
    return r;                                     \
  }
SL_BINARY(operator+, vaddq_f32(x.v[i], y.v[i]))
SL_BINARY(operator-, vsubq_f32(x.v[i], y.v[i]))
SL_BINARY(operator*, vmulq_f32(x.v[i], y.v[i]))
SL_BINARY(operator/, vdivq_f32(x.v[i], y.v[i]))
SL_BINARY(max, vbslq_f32(vcgtq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]))  // y where either is NaN, unlike vmaxq_f32
SL_BINARY(min, vbslq_f32(vcltq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]))
#undef SL_BINARY

static inline f32x16 fma(f32x16 x, f32x16 y, f32x16 z) {
  SL_EACH(i) z.v[i] = vfmaq_f32(z.v[i], x.v[i], y.v[i]);
  return z;
}
static inline f32x16 abs(f32x16 x) {
  SL_EACH(i) x.v[i] = vabsq_f32(x.v[i]);
  return x;
}
static inline f32x16 nearest(f32x16 x) {
  SL_EACH(i) x.v[i] = vrndnq_f32(x.v[i]);
  return x;
}
static inline f32x16 select_less(f32x16 p, f32x16 q, f32x16 x, f32x16 y) {
  SL_EACH(i) y.v[i] = vbslq_f32(vcltq_f32(p.v[i], q.v[i]), x.v[i], y.v[i]);
  return y;
}
static inline f32x16 select_bits(uint32_t bits, f32x16 x, f32x16 y) {
  const uint32x4_t lane = {1, 2, 4, 8};
  SL_EACH(i) y.v[i] = vbslq_f32(vtstq_u32(vdupq_n_u32(bits >> (4 * i)), lane), x.v[i], y.v[i]);
  return y;
}
static inline f32x16 pow2(f32x16 n) {
  SL_EACH(i) n.v[i] = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n.v[i]), vdupq_n_s32(127)), 23));
  return n;
}
// x times pow2(n)
static inline f32x16 times_pow2(f32x16 x, f32x16 n) { return x * pow2(n); }
static inline float sum(f32x16 x) {
  return vaddvq_f32(vaddq_f32(vaddq_f32(x.v[0], x.v[1]), vaddq_f32(x.v[2], x.v[3])));
}
static inline float largest(f32x16 x) {
  float32x4_t m = x.v[0];
  for (int i = 1; i < 4; ++i) m = vbslq_f32(vcgtq_f32(m, x.v[i]), m, x.v[i]);
  const float a = m[0] > m[1] ? m[0] : m[1], b = m[2] > m[3] ? m[2] : m[3];
  return a > b ? a : b;
}
static inline void store_i8(int8_t* p, f32x16 x) {
  int16x4_t w[4];
  SL_EACH(i) w[i] = vmovn_s32(vcvtq_s32_f32(x.v[i]));
  vst1q_s8(p, vcombine_s8(vmovn_s16(vcombine_s16(w[0], w[1])), vmovn_s16(vcombine_s16(w[2], w[3]))));
}

static inline i32x16 set1_i32(int32_t x) {
  i32x16 r;
  SL_EACH(i) r.v[i] = vdupq_n_s32(x);
  return r;
}
static inline i32x16 add(i32x16 x, i32x16 y) {
  SL_EACH(i) x.v[i] = vaddq_s32(x.v[i], y.v[i]);
  return x;
}
template <int Bits>
static inline i32x16 shift_left(i32x16 x) {
  SL_EACH(i) x.v[i] = vshlq_n_s32(x.v[i], Bits);
  return x;
}
static inline f32x16 to_f32(i32x16 x) {
  f32x16 r;
  SL_EACH(i) r.v[i] = vcvtq_f32_s32(x.v[i]);
  return r;
}

static inline i32x16 load_i32(const void* p) {
  i32x16 r;
  SL_EACH(i) r.v[i] = vreinterpretq_s32_u8(vld1q_u8((const uint8_t*)p + 16 * i));
  return r;
}
template <int Bits>
static inline i32x16 shift_right(i32x16 x) {
  SL_EACH(i) x.v[i] = vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(x.v[i]), Bits));
  return x;
}
static inline f32x16 masked_float(i32x16 x, uint32_t mask, uint32_t bits) {
  f32x16 r;
  SL_EACH(i) {
    const uint32x4_t masked = vandq_u32(vreinterpretq_u32_s32(x.v[i]), vdupq_n_u32(mask));
    r.v[i] = vreinterpretq_f32_u32(vorrq_u32(masked, vdupq_n_u32(bits)));
  }
  return r;
}

static inline u8x64 load_bytes(const uint8_t* p) {
  u8x64 r;
  SL_EACH(i) r.v[i] = vld1q_u8(p + 16 * i);
  return r;
}
static inline u8x64 low_nibbles(u8x64 x) {
  SL_EACH(i) x.v[i] = vandq_u8(x.v[i], vdupq_n_u8(15));
  return x;
}
static inline u8x64 high_nibbles(u8x64 x) {
  SL_EACH(i) x.v[i] = vshrq_n_u8(x.v[i], 4);
  return x;
}
template <int Left, int Mask>
static inline u8x64 with_bits(u8x64 low, u8x64 plane) {
  SL_EACH(i) {
    uint8x16_t moved = plane.v[i];
    if constexpr (Left > 0) moved = vshlq_n_u8(moved, Left);
    if constexpr (Left < 0) moved = vshrq_n_u8(moved, -Left);
    low.v[i] = vorrq_u8(low.v[i], vandq_u8(moved, vdupq_n_u8(Mask)));
  }
  return low;
}

// Weights up to 63 are the same with a sign, so the signed product of every ARMv8.2 serves; mixed signs would ask for I8MM.
static inline i32x16 dot4(i32x16 sum, u8x64 weights, const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  const int8x16_t xs = vreinterpretq_s8_s32(vdupq_n_s32(four));
  SL_EACH(i) sum.v[i] = vdotq_s32(sum.v[i], vreinterpretq_s8_u8(weights.v[i]), xs);
  return sum;
}
// Weights are bytes less 128, which makes them signed.
static inline i32x16 dot4_wide(i32x16 sum, u8x64 weights, const int8_t* x) {
  SL_EACH(i) weights.v[i] = veorq_u8(weights.v[i], vdupq_n_u8(128));
  return dot4(sum, weights, x);
}

static inline void transpose(const f32x16* rows, float* out) {
  for (int block = 0; block < 4; ++block) {
    for (int part = 0; part < 4; ++part) {
      const f32x16* r = rows + 4 * block;
      const float32x4_t a = r[0].v[part], b = r[1].v[part], c = r[2].v[part], d = r[3].v[part];
      const float64x2_t ab_even = vreinterpretq_f64_f32(vtrn1q_f32(a, b)), cd_even = vreinterpretq_f64_f32(vtrn1q_f32(c, d));
      const float64x2_t ab_odd = vreinterpretq_f64_f32(vtrn2q_f32(a, b)), cd_odd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
      float* at = out + 64 * part + 4 * block;
      vst1q_f32(at, vreinterpretq_f32_f64(vtrn1q_f64(ab_even, cd_even)));
      vst1q_f32(at + 16, vreinterpretq_f32_f64(vtrn1q_f64(ab_odd, cd_odd)));
      vst1q_f32(at + 32, vreinterpretq_f32_f64(vtrn2q_f64(ab_even, cd_even)));
      vst1q_f32(at + 48, vreinterpretq_f32_f64(vtrn2q_f64(ab_odd, cd_odd)));
    }
  }
}
#undef SL_EACH
