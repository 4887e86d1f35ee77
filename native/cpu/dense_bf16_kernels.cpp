// y[m,n] = cap(scale * (sum_k x[m,k] w[n,k] + bias)) + residual, w in bf16 and x rounded to bf16, two of K an instruction.
#include "dense_tile.h"

namespace sl::cpu::SL_ISA {
namespace {

struct bf16_pairs {
  using value = uint16_t;
  using weights = __m512i;
  static constexpr int64_t kStep = 2, kSize = 2;
  static const uint16_t* rows(const linear_task& t) { return (const uint16_t*)t.packed; }
  static __m512i load(const uint8_t* panel, int64_t k) { return _mm512_loadu_si512(panel + k * 32); }
  static __m512i broadcast(const uint16_t* x) {
    int32_t two;
    memcpy(&two, x, 4);
    return _mm512_set1_epi32(two);
  }
  static f32x16 add(__m512i x, __m512i w, f32x16 sum) { return {_mm512_dpbf16_ps(sum.v, (__m512bh)w, (__m512bh)x)}; }
};

}  // namespace

void bf16_linear(const linear_task& t) { dense<bf16_pairs>(t); }

}  // namespace sl::cpu::SL_ISA
