// Tiles of rows of x and panels of dense weights, alike for every kind of them.
//
// A Source says how: value, the type of x's elements; rows(task), where they are; weights, kStep values of K of 16 rows, and load;
// broadcast and add, which multiply them with the same of a row of x onto its sums; kSize, the bytes of a weight. Sums run along k,
// in stretches of 256 whose sums are added up: the operations that make y[m,n] and their order do not depend on the rows beside m.
#pragma once

#include "linear_tile.h"

namespace sl::cpu::SL_ISA {
namespace {

constexpr int64_t kStretch = 256;
constexpr int64_t kAhead = 2048;  // bytes of a panel that are asked for before they are read

template <typename Source, int Rows, int Panels>
void dense_tile(const linear_task& t, int64_t panel, int64_t m, int64_t rows) {
  constexpr int64_t kBytes = Source::kSize * kPanelRows;  // of one k of a panel
  const int64_t K = t.weight.cols;
  const uint8_t* w[Panels];
  const typename Source::value* x[Rows];
  f32x16 total[Rows][Panels];
  SL_UNROLL for (int p = 0; p < Panels; ++p) w[p] = t.weight.data + (panel + p) * t.weight.panel_bytes;
  SL_UNROLL for (int r = 0; r < Rows; ++r) {
    x[r] = Source::rows(t) + (m + (r < rows ? r : 0)) * t.x_stride;  // past the last row: the first one again, not stored
    SL_UNROLL for (int p = 0; p < Panels; ++p) total[r][p] = zero();
  }
  for (int64_t first = 0; first < K; first += kStretch) {
    const int64_t last = first + kStretch < K ? first + kStretch : K;
    f32x16 sum[Rows][Panels];
    SL_UNROLL for (int r = 0; r < Rows; ++r) SL_UNROLL for (int p = 0; p < Panels; ++p) sum[r][p] = zero();
    for (int64_t k = first; k < last; k += Source::kStep) {
      typename Source::weights v[Panels];
      SL_UNROLL for (int p = 0; p < Panels; ++p) {
        v[p] = Source::load(w[p], k);
        if (k * kBytes % 64 == 0) __builtin_prefetch(w[p] + k * kBytes + kAhead);
      }
      SL_UNROLL for (int r = 0; r < Rows; ++r) {
        const auto xs = Source::broadcast(x[r] + k);
        SL_UNROLL for (int p = 0; p < Panels; ++p) sum[r][p] = Source::add(xs, v[p], sum[r][p]);
      }
    }
    SL_UNROLL for (int r = 0; r < Rows; ++r) SL_UNROLL for (int p = 0; p < Panels; ++p) total[r][p] =
        total[r][p] + sum[r][p];
  }
  for (int r = 0; r < Rows && r < rows; ++r)
    for (int p = 0; p < Panels; ++p) finish_row(t, m + r, (panel + p) * kPanelRows, total[r][p]);
}

template <typename Source, int Panels>
void dense_panels(const linear_task& t, int64_t panel) {
  constexpr int kMost = kLinearRows >= 16 ? 8 : 4;
  for (int64_t m = t.first_row; m < t.last_row;) {
    const int64_t rows = t.last_row - m;
    if (kMost >= 8 && rows > 5) {
      dense_tile<Source, kMost, Panels>(t, panel, m, rows);
      m += kMost;
    } else if (rows > 2) {
      dense_tile<Source, 4, Panels>(t, panel, m, rows);
      m += 4;
    } else if (rows == 2) {
      dense_tile<Source, 2, Panels>(t, panel, m, rows);
      m += 2;
    } else {
      dense_tile<Source, 1, Panels>(t, panel, m, rows);
      m += 1;
    }
  }
}

template <typename Source>
void dense(const linear_task& t) {
  int64_t panel = t.first_panel;
  if (t.last_row - t.first_row == 1) {  // four panels, so that a row's adds need not wait for each other
    for (; panel + 4 <= t.last_panel; panel += 4) dense_tile<Source, 1, 4>(t, panel, t.first_row, 1);
  }
  for (; panel + 2 <= t.last_panel; panel += 2) dense_panels<Source, 2>(t, panel);
  for (; panel < t.last_panel; ++panel) dense_panels<Source, 1>(t, panel);
}

}  // namespace
}  // namespace sl::cpu::SL_ISA
