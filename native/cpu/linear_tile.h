// What the kernels of linear do alike with a row's sums.
#pragma once

#include "simd.h"

namespace sl::cpu::SL_ISA {
namespace {

// y[m, n ..] of the sums over x[m] and the rows n .. n+15 of the weight.
inline void finish_row(const linear_task& t, int64_t m, int64_t n, f32x16 sum) {
  const int64_t count = t.weight.rows - n;
  if (t.bias != nullptr) sum = sum + load_some(t.bias_dtype, t.bias, n, count);
  if (t.scale != 1.0f) sum = set1(t.scale) * sum;
  if (t.soft_cap > 0.0f) sum = set1(t.soft_cap) * tanh(sum / set1(t.soft_cap));
  if (t.residual != nullptr) sum = sum + load_some(t.y_dtype, t.residual, m * t.residual_stride + n, count);
  store_some(t.y_dtype, t.y, m * t.y_stride + n, count, sum);
}

}  // namespace
}  // namespace sl::cpu::SL_ISA
