// Unpacking of four-bit weights.
#pragma once

#include "int4_layout.h"
#include "ptx.cuh"
#include "vec.cuh"

namespace sl {
namespace SL_BACKEND_NS {

// The 8 weights of a word minus `zero`, in the order of k, exact in f32. 0x6400 is 1024 in binary16, whose last place
// is 1: a nibble put there by one LOP3 is 1024 + q, and 1024 + 16 q from the nibble above.
// Source: Kim et al. 2022 (the bias trick), as used by FasterTransformer and Marlin.
__device__ __forceinline__ void int4_unpack(float (&q)[8], uint32_t word, float zero) {
  constexpr int and_or = (0xf0 & 0xcc) | 0xaa;
  const half2 low_offset = __float2half2_rn(-1024.0f - zero), high_offset = __float2half2_rn(-64.0f - zero);
  const half2 sixteenth = __float2half2_rn(0.0625f);
#pragma unroll
  for (int pair = 0; pair < 2; pair++, word >>= 8) {
    const uint32_t low = lop3<and_or>(word, 0x000f000fu, 0x64006400u), high = lop3<and_or>(word, 0x00f000f0u, 0x64006400u);
    half2 a, b;
    memcpy(&a, &low, 4), memcpy(&b, &high, 4);
    const float2 x = __half22float2(__hadd2(a, low_offset)), y = __half22float2(__hfma2(b, sixteenth, high_offset));
    q[4 * pair] = x.x, q[4 * pair + 1] = x.y, q[4 * pair + 2] = y.x, q[4 * pair + 3] = y.y;
  }
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
