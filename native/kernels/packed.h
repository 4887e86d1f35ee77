// Quantised weights as the kernels read them: a row is a sequence of units of 16 bytes, the last one filled up with zeros.
//
//   four bits   a unit holds 32 neighbours along K: four octets of 8. Its word c (of four) holds the pair 2c, 2c + 1 of
//               each octet j: element 8j + 2c in nibble j, element 8j + 2c + 1 in nibble 4 + j
//   eight bits  a unit holds 16 neighbours: word c holds elements 2c, 2c + 1, 2c + 8, 2c + 9, a byte each
//
// So one layout serves all: a warp reads units of a row 16 bytes a lane; and word c is what lane c of a quad wants of a
// column in the tensor cores' B fragments, for two products (four bits) or one (eight).
#pragma once

#include <cuda_runtime.h>

namespace sl {
namespace SL_BACKEND_NS {

constexpr int int4_unit = 32, int8_unit = 16;  // weights

__host__ __device__ constexpr long long units_of(long long K, int unit) { return (K + unit - 1) / unit; }

// Which 32-bit word of a row holds weight k, and at which bit.
__host__ __device__ constexpr long long int4_word(long long k) { return k / 32 * 4 + k % 8 / 2; }
__host__ __device__ constexpr int int4_bit(long long k) { return int(k % 32 / 8 + k % 2 * 4) * 4; }
__host__ __device__ constexpr long long int8_byte(long long k) {
  return k / 16 * 16 + k % 8 / 2 * 4 + k % 16 / 8 * 2 + k % 2;
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
