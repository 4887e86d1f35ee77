// Four-bit weights as the kernels read them.
//
// A row of K weights is a sequence of chunks of 1024; in a chunk, lane l of a warp owns one 16-byte word group. Its word
// j (of four) holds the weights of k = chunk * 1024 + j * 256 + l * 8 + 0..7, so that the lanes' activations of a word
// are 8 neighbours each and a warp reads 256 neighbours. The last chunk is filled up with zeros.
// In a word, nibbles 0 4 1 5 2 6 3 7 hold k + 0..7: what the pairwise unpacking below gives in order.
#pragma once

#include <cuda_runtime.h>

namespace sl {
namespace SL_BACKEND_NS {

constexpr int int4_chunk = 1024;

__host__ __device__ constexpr long long int4_chunks(long long K) { return (K + int4_chunk - 1) / int4_chunk; }
// Which 32-bit word of a row holds weight k, and at which bit.
__host__ __device__ constexpr long long int4_word(long long k) {
  return (k / int4_chunk * 32 + k % 256 / 8) * 4 + k % int4_chunk / 256;
}
__host__ __device__ constexpr int int4_bit(long long k) {
  return int(k % 8 / 2 + k % 2 * 4) * 4;
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
