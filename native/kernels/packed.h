// Quantised weights as the kernels read them: numbers of 4, 5, 6 or 8 bits, where a lane of a warp finds its part of the
// tensor cores' A fragments (16 rows of w by 16 of K, f16 or bf16) by loads of 16 bytes that lie side by side.
//
// Rows go by eight, columns by blocks of 128; both are filled up with zeros. A block of eight rows is read by a warp: lane
// 4 r + c has of row r the weights 32 j + 16 s + 4 c + i of the block (j < 4, s < 2, i < 4): for each j two products (s) of
// two pairs (i = 0, 1 and 2, 3), of which fragments are made.
//
//   four bits   [rows / 8][blocks][8 r][4 c][4 j] words: pair 2 s + i / 2 in nibbles 2 s + i / 2 (even i) and 4 more (odd i)
//   eight bits  [rows / 8][blocks][2 j / 2][8 r][4 c][4: j % 2, s] words: byte i
//   five bits   four bits, and [rows / 8][blocks][8 r][4 c] words: the bit of pair 4 j + 2 s + i / 2 there, or 16 above
//   six bits    four bits, and [rows / 8][blocks][8 r][4 c][2 j / 2] words: two bits of pair 4 (j % 2) + 2 s + i / 2
//
// Scales: [rows / 8][blocks][8 r][n], n to a block; a larger group has each block's again.
#pragma once

#include <cuda_runtime.h>

namespace sl {
namespace SL_BACKEND_NS {

constexpr int packed_rows = 8, packed_block = 128, super_block = 256;

__host__ __device__ constexpr long long packed_blocks(long long K) { return (K + packed_block - 1) / packed_block; }

// Where weight k stands among those of its lane.
struct packed_place {
  int block, j, s, c, i;
};
__host__ __device__ constexpr packed_place place_in_row(int k) {
  const int in = k % packed_block, of = in % 32;
  return {k / packed_block, in / 32, of / 16, of % 16 / 4, of % 4};
}

// Words before the lane's in a plane that gives it `words` of a block.
__host__ __device__ constexpr long long lane_word(long long n, long long blocks, const packed_place& p, int words) {
  return ((n / packed_rows * blocks + p.block) * 32 + n % packed_rows * 4 + p.c) * words;
}
__host__ __device__ constexpr long long four_word(long long n, long long blocks, const packed_place& p) {
  return lane_word(n, blocks, p, 4) + p.j;
}
__host__ __device__ constexpr int four_bit(const packed_place& p) { return 4 * (2 * p.s + p.i / 2) + 16 * (p.i % 2); }
__host__ __device__ constexpr long long eight_byte(long long n, long long blocks, const packed_place& p) {
  const long long word = (n / packed_rows * blocks + p.block) * 256 + p.j / 2 * 128 + (n % packed_rows * 4 + p.c) * 4 + p.j % 2 * 2 + p.s;
  return word * 4 + p.i;
}
__host__ __device__ constexpr int fifth_bit(const packed_place& p) { return 4 * p.j + 2 * p.s + p.i / 2 + 16 * (p.i % 2); }
__host__ __device__ constexpr long long sixth_word(long long n, long long blocks, const packed_place& p) {
  return lane_word(n, blocks, p, 2) + p.j / 2;
}
__host__ __device__ constexpr int sixth_bit(const packed_place& p) { return 2 * (4 * (p.j % 2) + 2 * p.s + p.i / 2) + 16 * (p.i % 2); }

}  // namespace SL_BACKEND_NS
}  // namespace sl
