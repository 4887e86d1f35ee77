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

// The same for the first `rows` of Rows sums, of the rows of x from m on.
template <int Rows>
inline void finish_tile(const linear_task& t, int64_t m, int64_t rows, int64_t n, const f32x16* sum) {
  if (t.y_dtype == SL_DTYPE_F32 && t.bias == nullptr && t.scale == 1.0f && t.soft_cap <= 0.0f && n + 16 <= t.weight.rows) {
    SL_UNROLL for (int r = 0; r < Rows; ++r) {
      if (r >= rows) break;
      const f32x16 y = t.residual == nullptr ? sum[r] : sum[r] + load((const float*)t.residual + (m + r) * t.residual_stride + n);
      store((float*)t.y + (m + r) * t.y_stride + n, y);
    }
    return;
  }
  SL_UNROLL for (int r = 0; r < Rows; ++r) if (r < rows) finish_row(t, m + r, n, sum[r]);
}

}  // namespace
}  // namespace sl::cpu::SL_ISA
