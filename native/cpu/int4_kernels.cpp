// y[m,n] = cap(scale * (sum_k x[m,k] w[n,k] + bias)) + residual, w = scale_g (q - zero_g) of 4 bits (GPTQ, AWQ), x in f32.
//
// Such checkpoints are made for 16-bit activations, so x is not rounded. q - zero is exact; 32 values are summed by fused
// multiply-adds along k, then scaled onto the row's sum. The operations that make y[m,n] and their order
// do not depend on the rows beside m. One row is bound by reading w; many rows share each unpacked value.
#include "linear_tile.h"

namespace sl::cpu::SL_ISA {
namespace {

constexpr int64_t kWord = 8;         // values of a 32-bit word
constexpr int64_t kWordBytes = 64;   // a word of each row of a panel
constexpr int64_t kGroupBytes = 48;  // 16 f16 scales, 16 u8 zero points
constexpr int64_t kAhead = 2048;     // bytes of a panel that are asked for before they are read

// Nibble `Place` of each word without a shift or a conversion: set into the mantissa of 2^(23 - 4 Place), where its unit
// is 1, it makes the number 2^(23 - 4 Place) + q, and the same with the zero point is subtracted, exactly. Places 0 .. 4
// fit a mantissa; for the other three the word is moved down by 12 bits once.
constexpr int kPlaces = 5;

template <int Place>
constexpr float kOffset = (float)(1 << (23 - 4 * Place));

template <int Place>
inline f32x16 offset_nibble(i32x16 words) {
  return masked_float(words, 15u << (4 * Place), (uint32_t)(127 + 23 - 4 * Place) << 23);
}

// zeros[p][Place] = the zero points + kOffset<Place>
template <int Panels>
struct zero_points {
  f32x16 of[Panels][kPlaces];
  void load(int p, const uint8_t* bytes) {
    const f32x16 zero = load_u8(bytes);
    of[p][0] = zero + set1(kOffset<0>);
    of[p][1] = zero + set1(kOffset<1>);
    of[p][2] = zero + set1(kOffset<2>);
    of[p][3] = zero + set1(kOffset<3>);
    of[p][4] = zero + set1(kOffset<4>);
  }
};

// sum[r][p] += (the nibbles at Place less the zero points) times x[r][k]
template <int Place, int Rows, int Panels>
inline void add_value(f32x16 (*sum)[Panels], const i32x16* words, const zero_points<Panels>& zeros,
                      const float* const* x, int64_t k) {
  f32x16 w[Panels];
  SL_UNROLL for (int p = 0; p < Panels; ++p) w[p] = offset_nibble<Place>(words[p]) - zeros.of[p][Place];
  SL_UNROLL for (int r = 0; r < Rows; ++r) {
    const f32x16 one = set1(x[r][k]);
    SL_UNROLL for (int p = 0; p < Panels; ++p) sum[r][p] = fma(one, w[p], sum[r][p]);
  }
}

template <int Rows, int Panels>
void int4_tile(const linear_task& t, int64_t panel, int64_t m, int64_t rows) {
  const int64_t K = t.weight.cols, group = t.weight.group;
  const uint8_t *values[Panels], *scales[Panels];
  const float* x[Rows];
  f32x16 total[Rows][Panels];
  SL_UNROLL for (int p = 0; p < Panels; ++p) {
    values[p] = t.weight.data + (panel + p) * t.weight.panel_bytes;
    scales[p] = values[p] + t.weight.scales_offset;
  }
  SL_UNROLL for (int r = 0; r < Rows; ++r) {
    x[r] = t.x + (m + (r < rows ? r : 0)) * t.x_stride;  // past the last row: the first one again, not stored
    SL_UNROLL for (int p = 0; p < Panels; ++p) total[r][p] = zero();
  }
  for (int64_t start = 0; start < K; start += group) {
    zero_points<Panels> zeros;
    f32x16 scale[Panels];
    SL_UNROLL for (int p = 0; p < Panels; ++p) {
      scale[p] = load_f16(scales[p]);
      zeros.load(p, scales[p] + 32);
      scales[p] += kGroupBytes;
    }
    for (int64_t first = start; first < start + group; first += kBlock) {
      f32x16 sum[Rows][Panels];
      SL_UNROLL for (int r = 0; r < Rows; ++r) SL_UNROLL for (int p = 0; p < Panels; ++p) sum[r][p] = zero();
      for (int64_t k = first; k < first + kBlock; k += kWord) {
        i32x16 words[Panels];
        SL_UNROLL for (int p = 0; p < Panels; ++p) {
          words[p] = load_i32(values[p] + k / kWord * kWordBytes);
          __builtin_prefetch(values[p] + k / kWord * kWordBytes + kAhead);
        }
        add_value<0, Rows, Panels>(sum, words, zeros, x, k);
        add_value<1, Rows, Panels>(sum, words, zeros, x, k + 1);
        add_value<2, Rows, Panels>(sum, words, zeros, x, k + 2);
        add_value<3, Rows, Panels>(sum, words, zeros, x, k + 3);
        add_value<4, Rows, Panels>(sum, words, zeros, x, k + 4);
        SL_UNROLL for (int p = 0; p < Panels; ++p) words[p] = shift_right<12>(words[p]);
        add_value<2, Rows, Panels>(sum, words, zeros, x, k + 5);
        add_value<3, Rows, Panels>(sum, words, zeros, x, k + 6);
        add_value<4, Rows, Panels>(sum, words, zeros, x, k + 7);
      }
      SL_UNROLL for (int r = 0; r < Rows; ++r) SL_UNROLL for (int p = 0; p < Panels; ++p) total[r][p] =
          fma(scale[p], sum[r][p], total[r][p]);
    }
  }
  for (int r = 0; r < Rows && r < rows; ++r)
    for (int p = 0; p < Panels; ++p) finish_row(t, m + r, (panel + p) * kPanelRows, total[r][p]);
}

// As many rows and panels as the registers hold sums of.
constexpr int kMostRows = kLinearRows / 2;
constexpr int kWidePanels = kLinearRows >= 16 ? 2 : 1;

template <int Panels>
void int4_panels(const linear_task& t, int64_t panel) {
  for (int64_t m = t.first_row; m < t.last_row;) {
    const int64_t rows = t.last_row - m;
    if (kMostRows >= 8 && rows > 4) {
      int4_tile<kMostRows, Panels>(t, panel, m, rows);
      m += kMostRows;
    } else if (kMostRows >= 4 && rows > 2) {
      int4_tile<(kMostRows < 4 ? kMostRows : 4), Panels>(t, panel, m, rows);
      m += 4;
    } else if (rows >= 2) {
      int4_tile<2, Panels>(t, panel, m, rows);
      m += 2;
    } else {
      int4_tile<1, Panels>(t, panel, m, rows);
      m += 1;
    }
  }
}

}  // namespace

void int4_linear(const linear_task& t) {
  // One row alone: more panels, so that its adds need not wait for each other.
  constexpr int kAlone = kLinearRows >= 8 ? 2 * kWidePanels : 1;
  int64_t panel = t.first_panel;
  if (t.last_row - t.first_row == 1)
    for (; panel + kAlone <= t.last_panel; panel += kAlone) int4_tile<1, kAlone>(t, panel, t.first_row, 1);
  for (; panel + kWidePanels <= t.last_panel; panel += kWidePanels) int4_panels<kWidePanels>(t, panel);
  for (; panel < t.last_panel; ++panel) int4_panels<1>(t, panel);
}

}  // namespace sl::cpu::SL_ISA
