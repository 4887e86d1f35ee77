// y[m,n] = cap(scale * (sum_k x[m,k] w[n,k] + bias)) + residual, w in f32, f16 or bf16 and x in f32.
//
// f32 fused multiply-adds along k, in stretches of 256 whose sums are added up. The operations that make y[m,n] and their
// order do not depend on the rows beside m.
#include "linear_tile.h"

namespace sl::cpu::SL_ISA {
namespace {

constexpr int64_t kStretch = 256;
constexpr int64_t kAhead = 2048;  // bytes of a panel that are asked for before they are read

template <weight_format Format>
inline f32x16 load_weights(const uint8_t* panel, int64_t k) {
  if constexpr (Format == weight_format::f32) return load((const float*)panel + k * 16);
  if constexpr (Format == weight_format::f16) return load_f16(panel + k * 32);
  if constexpr (Format == weight_format::bf16) {
    const i32x16 pairs = load_i32(panel + k / 2 * 64);
    return k % 2 == 0 ? masked_float(shift_left<16>(pairs), 0xffffffffu, 0) : masked_float(pairs, 0xffff0000u, 0);
  }
}

template <weight_format Format, int Rows, int Panels>
void dense_tile(const linear_task& t, int64_t panel, int64_t m, int64_t rows) {
  constexpr int64_t kSize = Format == weight_format::f32 ? 4 : 2;
  const int64_t K = t.weight.cols;
  const uint8_t* w[Panels];
  const float* x[Rows];
  f32x16 total[Rows][Panels];
  SL_UNROLL for (int p = 0; p < Panels; ++p) w[p] = t.weight.data + (panel + p) * t.weight.panel_bytes;
  SL_UNROLL for (int r = 0; r < Rows; ++r) {
    x[r] = t.x + (m + (r < rows ? r : 0)) * t.x_stride;
    SL_UNROLL for (int p = 0; p < Panels; ++p) total[r][p] = zero();
  }
  for (int64_t first = 0; first < K; first += kStretch) {
    const int64_t last = first + kStretch < K ? first + kStretch : K;
    f32x16 sum[Rows][Panels];
    SL_UNROLL for (int r = 0; r < Rows; ++r) SL_UNROLL for (int p = 0; p < Panels; ++p) sum[r][p] = zero();
    for (int64_t k = first; k < last; ++k) {
      f32x16 v[Panels];
      SL_UNROLL for (int p = 0; p < Panels; ++p) {
        v[p] = load_weights<Format>(w[p], k);
        if (kSize == 4 || k % 2 == 0) __builtin_prefetch(w[p] + k * kSize * 16 + kAhead);
      }
      SL_UNROLL for (int r = 0; r < Rows; ++r) {
        const f32x16 xs = set1(x[r][k]);
        SL_UNROLL for (int p = 0; p < Panels; ++p) sum[r][p] = fma(xs, v[p], sum[r][p]);
      }
    }
    SL_UNROLL for (int r = 0; r < Rows; ++r) SL_UNROLL for (int p = 0; p < Panels; ++p) total[r][p] =
        total[r][p] + sum[r][p];
  }
  for (int r = 0; r < Rows && r < rows; ++r)
    for (int p = 0; p < Panels; ++p) finish_row(t, m + r, (panel + p) * kPanelRows, total[r][p]);
}

template <weight_format Format, int Panels>
void dense_panels(const linear_task& t, int64_t panel) {
  constexpr int kMost = kLinearRows >= 16 ? 8 : 4;
  for (int64_t m = t.first_row; m < t.last_row;) {
    const int64_t rows = t.last_row - m;
    if (kMost >= 8 && rows > 5) {
      dense_tile<Format, kMost, Panels>(t, panel, m, rows);
      m += kMost;
    } else if (rows > 2) {
      dense_tile<Format, 4, Panels>(t, panel, m, rows);
      m += 4;
    } else if (rows == 2) {
      dense_tile<Format, 2, Panels>(t, panel, m, rows);
      m += 2;
    } else {
      dense_tile<Format, 1, Panels>(t, panel, m, rows);
      m += 1;
    }
  }
}

template <weight_format Format>
void dense(const linear_task& t) {
  int64_t panel = t.first_panel;
  if (t.last_row - t.first_row == 1) {  // four panels, so that a row's adds need not wait for each other
    for (; panel + 4 <= t.last_panel; panel += 4) dense_tile<Format, 1, 4>(t, panel, t.first_row, 1);
  }
  for (; panel + 2 <= t.last_panel; panel += 2) dense_panels<Format, 2>(t, panel);
  for (; panel < t.last_panel; ++panel) dense_panels<Format, 1>(t, panel);
}

}  // namespace

void dense_linear(const linear_task& t) {
  switch (t.weight.format) {
    case weight_format::f16: dense<weight_format::f16>(t); break;
    case weight_format::bf16: dense<weight_format::bf16>(t); break;
    default: dense<weight_format::f32>(t); break;
  }
}

}  // namespace sl::cpu::SL_ISA
