// y[m,n] = cap(scale * (sum_k x[m,k] w[n,k] + bias)) + residual, w in f32, f16 or bf16 and x in f32: f32 fused multiply-adds.
#include "dense_tile.h"

namespace sl::cpu::SL_ISA {
namespace {

struct f32_rows {
  using value = float;
  using weights = f32x16;
  static constexpr int64_t kStep = 1;
  static const float* rows(const linear_task& t) { return t.x; }
  static f32x16 broadcast(const float* x) { return set1(*x); }
  static f32x16 add(f32x16 x, f32x16 w, f32x16 sum) { return fma(x, w, sum); }
};

struct f32_source : f32_rows {
  static constexpr int64_t kSize = 4;
  static f32x16 load(const uint8_t* panel, int64_t k) { return SL_ISA::load((const float*)panel + k * 16); }
};

struct f16_source : f32_rows {
  static constexpr int64_t kSize = 2;
  static f32x16 load(const uint8_t* panel, int64_t k) { return load_f16(panel + k * 32); }
};

struct bf16_source : f32_rows {
  static constexpr int64_t kSize = 2;
  static f32x16 load(const uint8_t* panel, int64_t k) {
    const i32x16 pairs = load_i32(panel + k / 2 * 64);
    return k % 2 == 0 ? masked_float(shift_left<16>(pairs), 0xffffffffu, 0) : masked_float(pairs, 0xffff0000u, 0);
  }
};

}  // namespace

void dense_linear(const linear_task& t) {
  switch (t.weight.format) {
    case weight_format::f16: dense<f16_source>(t); break;
    case weight_format::bf16: dense<bf16_source>(t); break;
    default: dense<f32_source>(t); break;
  }
}

}  // namespace sl::cpu::SL_ISA
