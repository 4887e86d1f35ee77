// Weights as the tensor cores' A operand: 16 rows of w (two groups of eight, which may come from different places) by 16 of K,
// against B fragments of 8 rows of x. A lane loads its part of a block of a row by 16 bytes at a time, and makes pairs of E of it
// in registers: quantised numbers as the integers that they are, exact in f16 and bf16, so that scales meet sums and not products.
//
// Lane 4 r + c has row r of either group and, of x, row r; c says which of K: of each 32 of K (j) and each product of 16 (s)
// the four at 16 s + 4 c (quantised; packed.h) or 8 c + 4 s (dense: 16 bytes of a row are 8 neighbours).
#pragma once

#include "packed.cuh"
#include "ptx.cuh"
#include "quantised.cuh"

namespace sl {
namespace SL_BACKEND_NS {

enum class operand { dense, four, five, six, eight };

// 0x6400 is 1024 in binary16, whose last place is 1: bits put there by one LOP3 are 1024 + q, and 1024 + 16 q from the nibble
// above. 0x4300 is 128 in bfloat16, for numbers of up to seven bits.   Source: Kim et al. 2022 (the bias trick), as used by
// FasterTransformer and Marlin.
constexpr int and_or = (0xf0 & 0xcc) | 0xaa;

template <typename E> struct pairs;
template <>
struct pairs<half> {
  static constexpr uint32_t magic = 0x64006400u;
  static constexpr float base = 1024.0f;
  static __device__ __forceinline__ half2 both(float v) { return __float2half2_rn(v); }
  static __device__ __forceinline__ uint32_t pack(float a, float b) { return as_word(__floats2half2_rn(a, b)); }
};
template <>
struct pairs<__nv_bfloat16> {
  static constexpr uint32_t magic = 0x43004300u;
  static constexpr float base = 128.0f;
  static __device__ __forceinline__ __nv_bfloat162 both(float v) { return __float2bfloat162_rn(v); }
  static __device__ __forceinline__ uint32_t pack(float a, float b) { return as_word(__floats2bfloat162_rn(a, b)); }
};
template <typename E>
__device__ __forceinline__ uint32_t subtract_pair(uint32_t bits, typename pair_of<E>::type v) { return as_word(__hsub2(as_pair<E>(bits), v)); }

// What a lane holds of a block of a row.
template <operand W>
struct held_row {
  static constexpr int lows = W == operand::dense || W == operand::eight ? 2 : 1, highs = W == operand::six ? 2 : 1;
  uint4 low[lows];
  uint32_t high[highs];
  uint32_t scales;  // word c of the row's: the four lanes of a row ask each other
  uint32_t super;
};

// Columns of a block.
template <operand W> constexpr int block_columns = W == operand::dense ? 64 : packed_block;

// A dense row's 16 bytes, zeros past its end.
__device__ __forceinline__ uint4 load_dense(const weight_view& w, long long n, int k) {
  if (k >= w.cols) return make_uint4(0, 0, 0, 0);
  return dense_units<half>::load(w, n, k / 8);  // either 16-bit type
}

// Where a lane finds its part of the first eight rows' first block, in each plane: what is the same for all loads of a weight.
template <operand W>
struct lane_source {
  gmem<const char> low, high, scales, supers;
  int unit_scales;  // bytes of eight rows' scales to a block
  bool has_scales;  // the lane reads a word of its row's
};
template <operand W>
__device__ __forceinline__ lane_source<W> source_of(const weight_view& w) {
  lane_source<W> s{};
  if constexpr (W != operand::dense) {
    const int lane = int(threadIdx.x) & 31, r = lane / 4, c = lane & 3, words = w.scale_bytes / 4;
    s.low = w.data + 16 * lane;
    if (W == operand::five) s.high = w.high + 4 * lane;
    if (W == operand::six) s.high = w.high + 8 * lane;
    // Of two bytes a row the word has two rows'.
    s.scales = w.scales + 4 * (words == 0 ? r / 2 : r * words + c), s.has_scales = c == 0 || c < words;
    s.supers = w.supers + (W == operand::six ? 2 : 4) * r;
    s.unit_scales = packed_rows * w.scale_bytes;
  }
  return s;
}

// Block `block` of row `group8 * 8 + r`. Of a dense row, blocks past the last give zeros.
template <operand W, scaling S = scaling::any>
__device__ __forceinline__ void load_row(held_row<W>& h, const weight_view& w, const lane_source<W>& s, int group8, int block) {
  const int lane = int(threadIdx.x) & 31;
  if constexpr (W == operand::dense) {
    const long long n = min(group8 * packed_rows + lane / 4, w.rows - 1);
#pragma unroll
    for (int j = 0; j < 2; j++) h.low[j] = load_dense(w, n, block * 64 + 32 * j + 8 * (lane & 3));
  } else {
    // Units of eight rows by a block.
    const unsigned unit = unsigned(group8 * w.blocks + block);
    const auto of_unit = [unit](unsigned bytes) { return (long long)((unsigned long long)unit * bytes); };
    if constexpr (W == operand::eight) {
      h.low[0] = load_stream_16(view_as<uint4>(s.low + of_unit(1024)));
      h.low[1] = load_stream_16(view_as<uint4>(s.low + (of_unit(1024) + 512)));
    } else {
      h.low[0] = load_stream_16(view_as<uint4>(s.low + of_unit(512)));
    }
    if constexpr (W == operand::five) h.high[0] = view_as<uint32_t>(s.high + of_unit(128))[0];
    if constexpr (W == operand::six) {
      const uint2 bits = view_as<uint2>(s.high + of_unit(256))[0];
      h.high[0] = bits.x, h.high[1] = bits.y;
    }
    if (s.has_scales) h.scales = view_as<uint32_t>(s.scales + of_unit(unsigned(s.unit_scales)))[0];
    if (W == operand::six || S == scaling::super || (S == scaling::any && W != operand::eight && w.scale_kind == scaling::super)) {
      const long long row = group8 * w.super_blocks + (block >> 1);
      if (W == operand::six) h.super = view_as<unsigned short>(s.supers + row * 16)[0];
      else h.super = view_as<uint32_t>(s.supers + row * 32)[0];
    }
  }
}

// The registers of product s of 32 columns j: pairs of K in order.
template <typename E, operand W>
__device__ __forceinline__ void make_pairs(uint32_t (&a)[2], const held_row<W>& h, int j, int s, float center) {
  if constexpr (W == operand::dense) {
    const uint4& v = h.low[j];
    a[0] = s ? v.z : v.x, a[1] = s ? v.w : v.y;
  } else if constexpr (W == operand::eight) {
    const uint4& v = h.low[j / 2];
    const uint32_t word = j % 2 ? (s ? v.w : v.z) : (s ? v.y : v.x);
    if constexpr (std::is_same_v<E, half>) {
      const half2 offset = pairs<half>::both(1024.0f + center);
      a[0] = subtract_pair<half>(__byte_perm(word, 0x64646464u, 0x4140), offset);
      a[1] = subtract_pair<half>(__byte_perm(word, 0x64646464u, 0x4342), offset);
    } else {
      // A byte as the lowest of an f32 of 2^23; what is left has eight bits at most, and is a bfloat16's upper half.
#pragma unroll
      for (int p = 0; p < 2; p++) {
        const float low = __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7650 + 2 * p)) - (8388608.0f + center);
        const float high = __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7651 + 2 * p)) - (8388608.0f + center);
        a[p] = __byte_perm(__float_as_uint(low), __float_as_uint(high), 0x7632);
      }
    }
  } else {
    const uint4& v = h.low[0];
    const uint32_t word = j == 0 ? v.x : j == 1 ? v.y : j == 2 ? v.z : v.w;
#pragma unroll
    for (int p = 0; p < 2; p++) {
      const int pair = 2 * s + p;
      uint32_t bits;
      if constexpr (W == operand::four && std::is_same_v<E, half>) {
        if (p == 1) {  // the upper nibble of a byte where it stands: 1024 + 16 q
          bits = lop3<and_or>(word >> (8 * s), 0x00f000f0u, 0x64006400u);
          a[p] = as_word(__hfma2(as_pair<half>(bits), __float2half2_rn(0.0625f), __float2half2_rn(-64.0f - center)));
          continue;
        }
      }
      bits = lop3<and_or>(word >> (4 * pair), 0x000f000fu, pairs<E>::magic);
      if constexpr (W == operand::five) {
        const int bit = 4 * j + pair;
        bits |= (bit >= 4 ? h.high[0] >> (bit - 4) : h.high[0] << (4 - bit)) & 0x00100010u;
      }
      if constexpr (W == operand::six) {
        const int bit = 2 * (4 * (j % 2) + pair);
        bits |= (bit >= 4 ? h.high[j / 2] >> (bit - 4) : h.high[j / 2] << (4 - bit)) & 0x00300030u;
      }
      a[p] = subtract_pair<E>(bits, pairs<E>::both(pairs<E>::base + center));
    }
  }
}

// A row's 32 columns j as bytes: of eight bits with their signs, 4 c + i and 16 + 4 c + i; else from 0, the lane's even columns
// of both halves in turn, and its odd ones.
template <operand W>
__device__ __forceinline__ void make_bytes(uint32_t (&a)[2], const held_row<W>& h, int j) {
  if constexpr (W == operand::eight) {
    const uint4& v = h.low[j / 2];
    a[0] = (j % 2 ? v.z : v.x) ^ 0x80808080u, a[1] = (j % 2 ? v.w : v.y) ^ 0x80808080u;
  } else {
    const uint4& v = h.low[0];
    const uint32_t word = j == 0 ? v.x : j == 1 ? v.y : j == 2 ? v.z : v.w;
#pragma unroll
    for (int p = 0; p < 2; p++) {  // pairs p and p + 2
      a[p] = word >> (4 * p) & 0x0f0f0f0fu;
      if constexpr (W == operand::five) {
        const uint32_t bits = h.high[0] >> (4 * j + p);
        a[p] |= (bits & 0x00010001u) << 4 | (bits & 0x00040004u) << 10;
      }
      if constexpr (W == operand::six) {
        const uint32_t bits = h.high[j / 2] >> (8 * (j % 2) + 2 * p);
        a[p] |= (bits & 0x00030003u) << 4 | (bits & 0x00300030u) << 8;
      }
    }
  }
}

template <operand W>
__device__ __forceinline__ uint32_t scale_word(const held_row<W>& h, int at) { return __shfl_sync(0xffffffffu, h.scales, (int(threadIdx.x) & 28) | at); }

// Where a row's scale of two bytes stands in the word that it shares.
__device__ __forceinline__ int odd_row() { return 4 * int(threadIdx.x) & 16; }

// Scale and bias of the i-th 32 columns of a row's block (16 of six bits). For whole warps, which ask for the same.
template <operand W>
__device__ __forceinline__ float2 read_scale(const held_row<W>& h, const weight_view& w, int i) {
  const auto word = [&](int at) { return scale_word(h, at); };
  if constexpr (W == operand::six) return scale_and_bias(scaling::super_signed, word(i / 4) >> (8 * (i % 4)), h.super);
  const int e = i >> w.scale_shift;
  switch (w.scale_kind) {
    case scaling::half: return scale_and_bias(scaling::half, word(e / 2) >> (w.scale_bytes == 2 ? odd_row() : 16 * (e % 2)), 0);
    case scaling::super: return scale_and_bias(scaling::super, word(e / 2) >> (16 * (e % 2)), h.super);
    default: return scale_and_bias(w.scale_kind, word(e), 0);
  }
}

// What a pair of integers stands for, rounded to E once.
template <typename E, bool Biased>
__device__ __forceinline__ uint32_t scaled_pair(uint32_t bits, float2 g) {
  E v[2];
  memcpy(v, &bits, 4);
  return pairs<E>::pack(Biased ? to_float(v[0]) * g.x + g.y : to_float(v[0]) * g.x, Biased ? to_float(v[1]) * g.x + g.y : to_float(v[1]) * g.x);
}

// A byte as a float, without the slower conversion.
__device__ __forceinline__ float unsigned_byte(uint32_t word, int i) { return __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7650 + i)) - 8388608.0f; }

// All four of a block, decided once.
struct row_scales { float scale[4], bias[4]; };

template <scaling S, operand W>
__device__ __forceinline__ void read_scales_of(row_scales& out, const held_row<W>& h, const weight_view& w) {
  if constexpr (S == scaling::super) {
    const uint32_t words[2] = {scale_word(h, 0), scale_word(h, 1)};
    half2 d;
    memcpy(&d, &h.super, 4);
    const float factor = __low2float(d), minimum = -__high2float(d);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      out.scale[i] = factor * unsigned_byte(words[i / 2], i % 2 * 2);
      out.bias[i] = minimum * unsigned_byte(words[i / 2], i % 2 * 2 + 1);
    }
  } else if constexpr (S == scaling::half) {
    const auto put = [&](int i, uint32_t bits) { out.scale[i] = scale_and_bias(S, bits, 0).x, out.bias[i] = 0.0f; };
    const uint32_t first = scale_word(h, 0);
    if (w.scale_shift == 0) {
      const uint32_t second = scale_word(h, 1);
      put(0, first), put(1, first >> 16), put(2, second), put(3, second >> 16);
    } else if (w.scale_shift == 1) {
      put(0, first), put(1, first), put(2, first >> 16), put(3, first >> 16);
    } else {
      const uint32_t bits = first >> odd_row();
      put(0, bits), put(1, bits), put(2, bits), put(3, bits);
    }
  } else {
    const auto put = [&](int i, uint32_t bits) {
      const float2 g = scale_and_bias(S, bits, 0);
      out.scale[i] = g.x, out.bias[i] = g.y;
    };
    const uint32_t first = scale_word(h, 0);
    if (w.scale_shift == 0) {
      put(0, first), put(1, scale_word(h, 1)), put(2, scale_word(h, 2)), put(3, scale_word(h, 3));
    } else if (w.scale_shift == 1) {
      const uint32_t second = scale_word(h, 1);
      put(0, first), put(1, first), put(2, second), put(3, second);
    } else {
      put(0, first), put(1, first), put(2, first), put(3, first);
    }
  }
}

template <scaling S, operand W>
__device__ __forceinline__ void read_scales(row_scales& out, const held_row<W>& h, const weight_view& w) {
  if constexpr (S != scaling::any) return read_scales_of<S>(out, h, w);
  switch (w.scale_kind) {
    case scaling::half: return read_scales_of<scaling::half>(out, h, w);
    case scaling::half_zero: return read_scales_of<scaling::half_zero>(out, h, w);
    case scaling::half_bias: return read_scales_of<scaling::half_bias>(out, h, w);
    case scaling::super: return read_scales_of<scaling::super>(out, h, w);
    default: return read_scales_of<scaling::full>(out, h, w);
  }
}

// The sums of the rows of x over 32 columns, where products with them stand (twice): what biases meet.
template <typename E>
__device__ __forceinline__ void sum_x(float (&sum)[4], const uint32_t (&x)[2][2]) {
  const uint32_t one = pairs<E>::pack(1.0f, 1.0f), ones[4] = {one, one, one, one};
  mma_m16n8k16<E>(sum, ones, x[0]);
  mma_m16n8k16<E>(sum, ones, x[1]);
}

// --- x in shared memory: rows of E, filled up with zeros to whole blocks ------------------------------------------------------

// Bytes between rows: lanes of four rows that read 8 bytes each (quantised), of two rows that read 16 (dense), meet no bank twice.
template <operand W>
__host__ __device__ constexpr int x_row_bytes(int columns) {
  return (columns + packed_block - 1) / packed_block * (2 * packed_block) + (W == operand::dense ? 64 : 32);
}

// The B registers of both products of 32 columns from k on, for row r of x (a lane's own).
template <typename E, operand W>
__device__ __forceinline__ void load_x_pairs(uint32_t (&b)[2][2], smem<const char> row, int k) {
  const int c = int(threadIdx.x) & 3;
  if constexpr (W == operand::dense) {
    const uint4 v = view_as<uint4>(row + (k + 8 * c) * 2)[0];
    b[0][0] = v.x, b[0][1] = v.y, b[1][0] = v.z, b[1][1] = v.w;
  } else {
#pragma unroll
    for (int s = 0; s < 2; s++) {
      const uint2 v = view_as<uint2>(row + (k + 16 * s + 4 * c) * 2)[0];
      b[s][0] = v.x, b[s][1] = v.y;
    }
  }
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
