// y[m,n] = cap(scale * (sum_k x[m,k] w[n,k] + bias)) + residual, w in 4 to 8 bits and x rounded to int8.
//
// A block's 32 products are summed in integers, exactly; each block's sum is scaled and added to the row's f32 sum, block
// after block. The operations that make y[m,n] and their order do not depend on the rows beside m, so a row's result is
// the same to the bit in any batch. Many rows share each unpacked block; one row is bound by reading w.
#include "linear_tile.h"

namespace sl::cpu::SL_ISA {
namespace {

// ---- blocks of 32 values, unpacked to eight groups of 4 x 16 bytes

template <int Bits>
inline void unpack(const uint8_t* p, u8x64* w) {
  if constexpr (Bits == 8) {
    SL_UNROLL for (int g = 0; g < 8; ++g) w[g] = load_bytes(p + 64 * g);
  } else {
    SL_UNROLL for (int g = 0; g < 4; ++g) {
      const u8x64 both = load_bytes(p + 64 * g);
      w[g] = low_nibbles(both);
      w[g + 4] = high_nibbles(both);
    }
  }
  if constexpr (Bits == 5) {
    const u8x64 plane = load_bytes(p + 256);
    w[0] = with_bits<4, 16>(w[0], plane);
    w[1] = with_bits<3, 16>(w[1], plane);
    w[2] = with_bits<2, 16>(w[2], plane);
    w[3] = with_bits<1, 16>(w[3], plane);
    w[4] = with_bits<0, 16>(w[4], plane);
    w[5] = with_bits<-1, 16>(w[5], plane);
    w[6] = with_bits<-2, 16>(w[6], plane);
    w[7] = with_bits<-3, 16>(w[7], plane);
  }
  if constexpr (Bits == 6) {
    SL_UNROLL for (int half = 0; half < 2; ++half) {
      const u8x64 plane = load_bytes(p + 256 + 64 * half);
      w[4 * half] = with_bits<4, 48>(w[4 * half], plane);
      w[4 * half + 1] = with_bits<2, 48>(w[4 * half + 1], plane);
      w[4 * half + 2] = with_bits<0, 48>(w[4 * half + 2], plane);
      w[4 * half + 3] = with_bits<-2, 48>(w[4 * half + 3], plane);
    }
  }
}

// A block of a tile of x: see kernels.h.
template <int Rows>
struct x_block {
  const uint8_t* p;
  const int8_t* values(int r) const { return (const int8_t*)p + 32 * r; }
  f32x16 scale(int r) const { return set1(((const float*)(p + 32 * Rows))[r]); }
  i32x16 minus_8_sum(int r) const { return set1_i32(((const int32_t*)(p + 36 * Rows))[r]); }
  f32x16 scaled_sum(int r) const { return set1(((const float*)(p + 40 * Rows))[r]); }
  i32x16 minus_8_half_sum(int half, int r) const {
    return set1_i32(((const int32_t*)(p + 44 * Rows))[half * Rows + r]);
  }
};

// Rows are taken kBatch at a time, their chains of adds interleaved: one chain alone would wait for its own results.
template <int Rows>
constexpr int kBatch = Rows < 4 ? Rows : 4;

// dots[j] += groups First .. First+Count-1 of a block times row r+j
template <int Bits, int First, int Count, int Rows>
inline void dot_batch(const u8x64* w, const x_block<Rows>& x, int r, i32x16* dots) {
  SL_UNROLL for (int g = First; g < First + Count; ++g) {
    SL_UNROLL for (int j = 0; j < kBatch<Rows>; ++j) {
      const int8_t* four = x.values(r + j) + 4 * g;
      dots[j] = Bits == 8 ? dot4_wide(dots[j], w[g], four) : dot4(dots[j], w[g], four);
    }
  }
}

// The same for a whole block; a few rows get a second chain each (integers, so the order is free).
template <int Bits, int Rows>
inline void dot_block(const u8x64* w, const x_block<Rows>& x, int r, i32x16* dots) {
  if constexpr (Rows <= 2) {
    i32x16 others[kBatch<Rows>];
    SL_UNROLL for (int j = 0; j < kBatch<Rows>; ++j) others[j] = set1_i32(0);
    SL_UNROLL for (int g = 0; g < 4; ++g) {
      SL_UNROLL for (int j = 0; j < kBatch<Rows>; ++j) {
        const int8_t* four = x.values(r + j) + 4 * g;
        dots[j] = Bits == 8 ? dot4_wide(dots[j], w[g], four) : dot4(dots[j], w[g], four);
        others[j] = Bits == 8 ? dot4_wide(others[j], w[g + 4], four + 16) : dot4(others[j], w[g + 4], four + 16);
      }
    }
    SL_UNROLL for (int j = 0; j < kBatch<Rows>; ++j) dots[j] = add(dots[j], others[j]);
  } else {
    dot_batch<Bits, 0, 8>(w, x, r, dots);
  }
}

// ---- the kinds of scales; `add_block` puts a block's products onto the sums of a batch of rows

// w = scale (q - zero), the zero in the middle of the type's range: sum of (q - zero) x, in integers
struct scales_centred {
  f32x16 scale;
  template <int Bits, int Rows>
  void add_block(f32x16* sum, const u8x64* w, const x_block<Rows>& x, int r) const {
    constexpr int kShift = Bits == 8 ? 4 : Bits - 4;  // zero = 8 << shift
    i32x16 dots[kBatch<Rows>];
    SL_UNROLL for (int j = 0; j < kBatch<Rows>; ++j) dots[j] =
        Bits == 8 && !kWideKeepsZero ? set1_i32(0) : shift_left<kShift>(x.minus_8_sum(r + j));
    dot_block<Bits>(w, x, r, dots);
    SL_UNROLL for (int j = 0; j < kBatch<Rows>; ++j) sum[r + j] =
        fma(to_f32(dots[j]), scale * x.scale(r + j), sum[r + j]);
  }
};

struct scales_half : scales_centred {
  void load_block(const uint8_t* p, int64_t part) { scale = load_f16(p + part * 32); }
};

struct scales_full : scales_centred {
  void load_block(const uint8_t* p, int64_t part) { scale = load((const float*)(p + part * 64)); }
};

// w = scale q + bias: scale (sum of q x) + bias (sum of x)
struct scales_affine {
  f32x16 scale, bias;
  template <int Bits, int Rows>
  void add_block(f32x16* sum, const u8x64* w, const x_block<Rows>& x, int r) const {
    i32x16 dots[kBatch<Rows>];
    SL_UNROLL for (int j = 0; j < kBatch<Rows>; ++j) dots[j] = set1_i32(0);
    dot_block<Bits>(w, x, r, dots);
    SL_UNROLL for (int j = 0; j < kBatch<Rows>; ++j) sum[r + j] =
        fma(to_f32(dots[j]), scale * x.scale(r + j), fma(bias, x.scaled_sum(r + j), sum[r + j]));
  }
};

struct scales_bias : scales_affine {
  void load_block(const uint8_t* p, int64_t part) {
    scale = load_f16(p + part * 64);
    bias = load_f16(p + part * 64 + 32);
  }
};

struct scales_super : scales_affine {
  void load_block(const uint8_t* p, int64_t part) {
    const uint8_t* own = p + 64 + part * 32;
    scale = load_f16(p) * load_u8(own);
    bias = zero() - load_f16(p + 32) * load_u8(own + 16);
  }
};

struct scales_super_signed {  // a scale each half block
  f32x16 first, second;
  void load_block(const uint8_t* p, int64_t part) {
    const uint8_t* own = p + 32 + part * 32;
    const f32x16 d = load_f16(p);
    first = d * load_i8(own);
    second = d * load_i8(own + 16);
  }
  template <int Bits, int Rows>
  void add_block(f32x16* sum, const u8x64* w, const x_block<Rows>& x, int r) const {
    i32x16 low[kBatch<Rows>], high[kBatch<Rows>];
    SL_UNROLL for (int j = 0; j < kBatch<Rows>; ++j) {
      low[j] = shift_left<2>(x.minus_8_half_sum(0, r + j));
      high[j] = shift_left<2>(x.minus_8_half_sum(1, r + j));
    }
    dot_batch<Bits, 0, 4>(w, x, r, low);
    dot_batch<Bits, 4, 4>(w, x, r, high);
    SL_UNROLL for (int j = 0; j < kBatch<Rows>; ++j) sum[r + j] =
        fma(fma(to_f32(high[j]), second, to_f32(low[j]) * first), x.scale(r + j), sum[r + j]);
  }
};

// ---- a tile of x and a panel

// Weights come from memory at the pace of one core only if they are asked for this far ahead: the processor's own prefetching
// starts anew with each page, and each block holds back the loads behind it.
constexpr int64_t kAhead = 4096;

template <weight_format Format, int Bits, typename Scales, int Rows>
void quantised_tile(const linear_task& t, int64_t panel, int64_t m, int64_t rows) {
  constexpr block_layout kLayout = layout_of(Format);
  const int64_t blocks = t.weight.cols / kBlock;
  const uint8_t* p = t.weight.data + panel * t.weight.panel_bytes;
  x_block<Rows> x = {t.packed + m * blocks * kRecordBytes};
  f32x16 sum[Rows];
  SL_UNROLL for (int r = 0; r < Rows; ++r) sum[r] = zero();
  for (int64_t first = 0; first < blocks; first += kLayout.blocks) {
    const uint8_t* scales = p;
    SL_UNROLL for (int64_t line = 0; line < kLayout.scale_bytes; line += 64) __builtin_prefetch(p + kAhead + line);
    p += kLayout.scale_bytes;
    for (int64_t part = 0; part < kLayout.blocks && first + part < blocks; ++part, p += kLayout.block_bytes, x.p += kRecordBytes * Rows) {
      u8x64 w[8];
      Scales s;
      SL_UNROLL for (int64_t line = 0; line < kLayout.block_bytes; line += 64) __builtin_prefetch(p + kAhead + line);
      unpack<Bits>(p, w);
      s.load_block(scales, part);
      SL_UNROLL for (int r = 0; r < Rows; r += kBatch<Rows>) s.template add_block<Bits>(sum, w, x, r);
    }
  }
  finish_tile<Rows>(t, m, rows, panel * kPanelRows, sum);
}

int64_t tile_of(int64_t left) {
  if (kLinearRows >= 16 && left > 12) return 16;
  if (kLinearRows >= 8 && left > 5) return 8;
  return left > 2 ? 4 : left;
}

template <weight_format Format, int Bits, typename Scales>
void quantised(const linear_task& t) {
  for (int64_t panel = t.first_panel; panel < t.last_panel; ++panel) {
    int64_t tile;
    for (int64_t m = t.first_row; m < t.last_row; m += tile) {
      const int64_t rows = t.last_row - m;
      switch (tile = tile_of(rows)) {
        case 16: quantised_tile<Format, Bits, Scales, (kLinearRows < 16 ? 1 : 16)>(t, panel, m, rows); break;
        case 8: quantised_tile<Format, Bits, Scales, (kLinearRows < 8 ? 1 : 8)>(t, panel, m, rows); break;
        case 4: quantised_tile<Format, Bits, Scales, 4>(t, panel, m, rows); break;
        case 2: quantised_tile<Format, Bits, Scales, 2>(t, panel, m, rows); break;
        default: quantised_tile<Format, Bits, Scales, 1>(t, panel, m, rows);
      }
    }
  }
}

}  // namespace

int64_t row_tile(int64_t left) { return tile_of(left); }

void quantised_linear(const linear_task& t) {
  switch (t.weight.format) {
    case weight_format::q4_half: quantised<weight_format::q4_half, 4, scales_half>(t); break;
    case weight_format::q4_bias: quantised<weight_format::q4_bias, 4, scales_bias>(t); break;
    case weight_format::q4_super: quantised<weight_format::q4_super, 4, scales_super>(t); break;
    case weight_format::q5_half: quantised<weight_format::q5_half, 5, scales_half>(t); break;
    case weight_format::q5_bias: quantised<weight_format::q5_bias, 5, scales_bias>(t); break;
    case weight_format::q5_super: quantised<weight_format::q5_super, 5, scales_super>(t); break;
    case weight_format::q6_super: quantised<weight_format::q6_super, 6, scales_super_signed>(t); break;
    case weight_format::q8_half: quantised<weight_format::q8_half, 8, scales_half>(t); break;
    case weight_format::q8_full: quantised<weight_format::q8_full, 8, scales_full>(t); break;
    default: break;
  }
}

}  // namespace sl::cpu::SL_ISA
