// y[m,n] = cap(scale * (sum_k x[m,k] w[n,k] + bias)) + residual, w in bf16 and x rounded to bf16, two of K an instruction.
//
// The order of sums is that of dense_kernels.cpp, by pairs, whatever the rows beside m.
#include "linear_tile.h"

namespace sl::cpu::SL_ISA {
namespace {

constexpr int64_t kStretch = 256;
constexpr int64_t kAhead = 2048;  // bytes of a panel that are asked for before they are read

inline f32x16 dot2(f32x16 sum, __m512i weights, const uint16_t* x) {
  int32_t two;
  memcpy(&two, x, 4);
  return {_mm512_dpbf16_ps(sum.v, (__m512bh)weights, (__m512bh)_mm512_set1_epi32(two))};
}

template <int Rows, int Panels>
void bf16_tile(const linear_task& t, int64_t panel, int64_t m, int64_t rows) {
  const int64_t K = t.weight.cols;
  const uint8_t* w[Panels];
  const uint16_t* x[Rows];
  f32x16 total[Rows][Panels];
  SL_UNROLL for (int p = 0; p < Panels; ++p) w[p] = t.weight.data + (panel + p) * t.weight.panel_bytes;
  SL_UNROLL for (int r = 0; r < Rows; ++r) {
    x[r] = (const uint16_t*)t.packed + (m + (r < rows ? r : 0)) * t.x_stride;  // past the last row: the first one again, not stored
    SL_UNROLL for (int p = 0; p < Panels; ++p) total[r][p] = zero();
  }
  for (int64_t first = 0; first < K; first += kStretch) {
    const int64_t last = first + kStretch < K ? first + kStretch : K;
    f32x16 sum[Rows][Panels];
    SL_UNROLL for (int r = 0; r < Rows; ++r) SL_UNROLL for (int p = 0; p < Panels; ++p) sum[r][p] = zero();
    for (int64_t k = first; k < last; k += 2) {
      __m512i v[Panels];
      SL_UNROLL for (int p = 0; p < Panels; ++p) {
        v[p] = _mm512_loadu_si512(w[p] + k * 32);
        __builtin_prefetch(w[p] + k * 32 + kAhead);
      }
      SL_UNROLL for (int r = 0; r < Rows; ++r) SL_UNROLL for (int p = 0; p < Panels; ++p) sum[r][p] = dot2(sum[r][p], v[p], x[r] + k);
    }
    SL_UNROLL for (int r = 0; r < Rows; ++r) SL_UNROLL for (int p = 0; p < Panels; ++p) total[r][p] =
        total[r][p] + sum[r][p];
  }
  for (int r = 0; r < Rows && r < rows; ++r)
    for (int p = 0; p < Panels; ++p) finish_row(t, m + r, (panel + p) * kPanelRows, total[r][p]);
}

template <int Panels>
void bf16_panels(const linear_task& t, int64_t panel) {
  for (int64_t m = t.first_row; m < t.last_row;) {
    const int64_t rows = t.last_row - m;
    if (rows > 5) {
      bf16_tile<8, Panels>(t, panel, m, rows);
      m += 8;
    } else if (rows > 2) {
      bf16_tile<4, Panels>(t, panel, m, rows);
      m += 4;
    } else if (rows == 2) {
      bf16_tile<2, Panels>(t, panel, m, rows);
      m += 2;
    } else {
      bf16_tile<1, Panels>(t, panel, m, rows);
      m += 1;
    }
  }
}

}  // namespace

void bf16_linear(const linear_task& t) {
  int64_t panel = t.first_panel;
  if (t.last_row - t.first_row == 1)  // four panels, so that a row's adds need not wait for each other
    for (; panel + 4 <= t.last_panel; panel += 4) bf16_tile<1, 4>(t, panel, t.first_row, 1);
  for (; panel + 2 <= t.last_panel; panel += 2) bf16_panels<2>(t, panel);
  for (; panel < t.last_panel; ++panel) bf16_panels<1>(t, panel);
}

}  // namespace sl::cpu::SL_ISA
