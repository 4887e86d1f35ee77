// What the instruction sets have in common: plain structs, and one table of kernels that each of them fills. A kernel
// works on the range that it is given, on one thread; threads, checks and memory are the caller's.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "sluice.h"

namespace sl::cpu {

// ---------------------------------------------------------------- weights

// Rows stand in panels of 16, one a lane. There are three kinds of panels:
//
// Dense (f32, f16) holds for each k its 16 values; bf16 for each two of K 16 pairs of values (0 behind an odd last).
//
// int4 multiplies x as it is. Values: for each 8 of K a 32-bit word of each row, the first value in the lowest nibble.
// Scales, behind all values: for each group of K 16 f16 scales, then 16 u8 zero points (w = scale (q - zero)).
//
// The others multiply x rounded to int8. They hold blocks of 32 values along K, in chunks: the scales of a chunk's blocks, then
// the blocks, so that a panel is one stream of memory (the last chunk may hold fewer blocks).
//   scales, 16 values (a row each) of every kind:
//     half         a chunk of 2 blocks: of each an f16 scale
//     half_bias    of 1: f16 scale, f16 bias
//     full         of 1: f32 scale
//     super        of 8: f16 d, f16 dmin, then of each block: u8 scale, u8 min   (w = d scale q - dmin min)
//     super_signed of 8: f16 d, then of each half block: i8 scale                (w = d scale (q - 32)), then 32 bytes of nothing
//   a block: 8 groups of 4 values of each row. 8 bits: 64 bytes a group. 4 bits: 4 x 64 bytes, group g in the low and
//   g + 4 in the high nibbles of part g. 5 bits: another 64 bytes, bit g belongs to group g. 6 bits: another 128 bytes,
//   bits 2(g%4) of part g/4.
//
// Files keep packed weights: whatever changes in these layouts, in the formats' numbers or in what is put where grows this.
constexpr int32_t kLayoutVersion = 4;

enum class weight_format : int32_t {
  f32,
  f16,
  bf16,
  int4,  // GPTQ4 (both), AWQ4
  q4_half,
  q4_bias,
  q4_super,  // Q4_0; Q4_1; Q4_K
  q5_half,
  q5_bias,
  q5_super,  // Q5_0; Q5_1; Q5_K
  q6_super,  // Q6_K
  q8_half,
  q8_full,  // Q8_0; INT8
  count
};

constexpr int64_t kPanelRows = 16;
constexpr int64_t kBlock = 32;   // values along K that share a scale of x
constexpr int64_t kSuper = 256;  // values of a super block

struct packed_weight {
  const uint8_t* data;
  int64_t rows, cols;
  int64_t panel_bytes;
  int64_t scales_offset;  // in a panel (int4)
  weight_format format;
  int64_t group;  // int4: values along K that share a scale, a multiple of 32; else 0
};

constexpr bool rounds_x(weight_format format) { return format >= weight_format::q4_half; }

// Where blocks and their scales lie in a panel of a format that rounds x.
struct block_layout {
  int64_t block_bytes, scale_bytes, blocks;  // of a block; of a chunk; in a chunk
  constexpr int64_t chunk_bytes() const { return scale_bytes + blocks * block_bytes; }
  constexpr int64_t scales_at(int64_t block) const { return block / blocks * chunk_bytes(); }
  constexpr int64_t block_at(int64_t block) const { return scales_at(block) + scale_bytes + block % blocks * block_bytes; }
  constexpr int64_t panel_bytes(int64_t count) const { return count == 0 ? 0 : block_at(count - 1) + block_bytes; }
};

constexpr block_layout layout_of(weight_format format) {
  switch (format) {
    case weight_format::q4_half: return {256, 256, 8};
    case weight_format::q5_half: return {320, 256, 8};
    case weight_format::q8_half: return {512, 256, 8};
    case weight_format::q4_bias: return {256, 512, 8};
    case weight_format::q5_bias: return {320, 512, 8};
    case weight_format::q8_full: return {512, 512, 8};
    case weight_format::q4_super: return {256, 320, 8};
    case weight_format::q5_super: return {320, 320, 8};
    case weight_format::q6_super: return {384, 320, 8};
    default: return {};
  }
}

// x as a product takes it: int8 by blocks of 32 (value = scale * q), in tiles of R rows that pass over the weights
// together (R: row_tile of the rows that are left). A tile holds a record a block:
//   i8 [R][32] values, f32 [R] scales, i32 [R] -8 * (sum of the values), f32 [R] scale * (sum of the values),
//   i32 [2][R] -8 * (sum of each half)
// so that a kernel walks along one pointer, and zero points and biases cost it next to nothing.
constexpr int64_t kRecordBytes = 32 + 4 + 4 + 4 + 8;  // a row and block
constexpr int64_t kMostTileRows = 16;

constexpr int64_t packed_bytes(int64_t rows, int64_t cols) {
  return (rows + kMostTileRows - 1) / kMostTileRows * kMostTileRows * (cols / kBlock) * kRecordBytes;
}

struct linear_task {
  packed_weight weight;
  const uint8_t* packed;  // weights that round x: the tiles of all rows; bf16: see rounds_to_bf16
  const float* x;         // the others: [M, K]
  int64_t x_stride;
  int64_t first_row, last_row;      // of x; the first a multiple of kMostTileRows
  int64_t first_panel, last_panel;  // of the weight
  void* y;
  int64_t y_stride;
  const void* bias;      // or null
  const void* residual;  // of y's dtype, or null
  int64_t residual_stride;
  sl_dtype y_dtype, bias_dtype;
  float scale, soft_cap;  // of what is summed, bias included; 0: no cap
};

// ---------------------------------------------------------------- attention

// The running state of a query row: sum[Dv padded to 16], then max and total; o = sum / total, relative to 2^max.
constexpr int64_t state_floats(int64_t value_dim) { return (value_dim + 15) / 16 * 16 + 16; }

struct attention_row {
  const float* q;  // [D]
  float* state;
  const uint8_t* mask;  // bits from key 0, or null
  int64_t first, last;  // the keys that it may see
  float slope;          // ALiBi's, times log2(e)
  int32_t position;
};

// Rows that share their keys: chunks of SL_ATTENTION_CHUNK from first_key on (a multiple of it), each reduced from
// nothing and merged into the rows' states from left to right.
struct attention_task {
  const char *keys, *values;  // pools of the layer
  const float *key_scales, *value_scales;  // of each slot's vector where the pools are I8 or FP8_E4M3
  const int32_t* pages;       // of the sequence
  const attention_row* rows;
  char* scratch;  // attention_scratch(...) bytes, aligned to 64
  int64_t first_key, last_key;
  int32_t count;  // rows
  int32_t kv_head, kv_heads, page_size, key_dim, value_dim;
  sl_dtype dtype;
  float scale;     // of q.k
  float soft_cap;  // 0: none
  bool alibi;
  int64_t keys_read;  // out
};

constexpr int64_t attention_scratch(int64_t rows, int64_t key_dim, int64_t value_dim) {
  const int64_t D = (key_dim + 15) / 16 * 16, Dv = (value_dim + 15) / 16 * 16, padded = rows + 8;
  // scores and chunk states of the rows, a tile of 32 keys and one of 32 values
  return (padded * SL_ATTENTION_CHUNK + padded * state_floats(value_dim) + 32 * D + 32 * Dv) * 4 + 256;
}

// ---------------------------------------------------------------- the table

struct row {  // a row of an activation tensor
  void* data;
  sl_dtype dtype;
};

struct kernels {
  void (*quantised_linear)(const linear_task&);  // formats that round x
  void (*dense_linear)(const linear_task&);      // f32, f16
  void (*bf16_linear)(const linear_task&);       // bf16
  bool rounds_to_bf16;                           // bf16_linear takes x in `packed`: rows of bf16, x_stride apart, with a 0 behind an odd K
  void (*int4_linear)(const linear_task&);       // int4
  void (*attend)(attention_task&);
  void (*merge)(float* state, const float* other, int64_t value_dim);
  // o = sum / total, with the sink (times log2(e)) where there is one; returns lse2.
  float (*finish)(const float* state, int64_t value_dim, bool has_sink, float sink, row o);

  void (*widen)(row x, int64_t count, float scale, float* y);  // y = scale * x
  void (*narrow)(const float* x, int64_t count, row y);
  // Rows m .. m+R-1 of `rows`, x_stride bytes apart, into their tile; count a multiple of 32.
  int64_t (*row_tile)(int64_t left);  // R, where that many rows are left
  void (*pack_tile)(row x, int64_t x_stride, int64_t rows, int64_t tile, int64_t count, uint8_t* packed);
  // y = the norm of x, plus residual where its data is not null.
  void (*rms_norm)(row x, row w, int64_t count, float eps, row residual, row y);
  void (*add)(row x, row y, int64_t count);  // y += x
  void (*turn)(float* head, const float* cosines, const float* sines, int64_t pairs, sl_rope_kind kind);
  void (*gate)(sl_activation activation, row gate, row up, int64_t count, row y);
  void (*merge_states)(const void* o, int64_t o_stride, sl_dtype o_dtype, const float* lse2, int64_t lse_stride,
                       int64_t states, int64_t count, row y, float* y_lse2);
  float (*largest)(const float* x, int64_t count);                // NaN never wins; -inf where there is nothing else
  double (*sum_exp)(const float* x, int64_t count, float shift);  // sum of e^(x - shift), NaN left out
};

// An instruction set compiles every file and has a table of its own, or compiles a file anew and takes the rest from the
// table of one that it contains.
namespace portable {
const kernels& table();
}
namespace neon {
const kernels& table();
}
namespace avx2 {
const kernels& table();
}
namespace avx512 {
const kernels& table();
}
namespace avx_vnni {  // quantised_kernels.cpp
void quantised_linear(const linear_task&);
int64_t row_tile(int64_t left);
}
namespace avx512_vnni {  // quantised_kernels.cpp
void quantised_linear(const linear_task&);
int64_t row_tile(int64_t left);
}
namespace avx512_bf16 {  // dense_bf16_kernels.cpp
void bf16_linear(const linear_task&);
}

}  // namespace sl::cpu
