// Logits in the order of sampling: the largest first, the lowest id first among equals, NaN not at all.
#pragma once

#include "reduce.cuh"

namespace sl {
namespace SL_BACKEND_NS {

constexpr int ranking_threads = 256;

// A key that orders (value, id) so; 0 for NaN, which is below all others.
__device__ __forceinline__ unsigned long long rank_key(float v, unsigned id) {
  if (isnan(v)) return 0;
  const unsigned u = __float_as_uint(v + 0.0f);  // -0 becomes 0: they are equal
  const unsigned ordered = u & 0x80000000u ? ~u : u | 0x80000000u;
  return (unsigned long long)ordered << 32 | (0xffffffffu - id);
}
__device__ __forceinline__ int id_of(unsigned long long key) { return key == 0 ? 0 : int(0xffffffffu - unsigned(key)); }

__device__ __forceinline__ unsigned long long largest_key(gmem<const float> logits, int V) {
  unsigned long long best = 0;
  for (int i = int(threadIdx.x); i < V; i += int(blockDim.x)) {
    const unsigned long long key = rank_key(logits[i], unsigned(i));
    if (key > best) best = key;
  }
  return block_max(best);
}

// The smallest key such that the amounts of it and all larger ones reach `target`, or 0 where they never do. The keys
// are found digit by digit from the top, 8 passes over the row. amount(i, key) is a whole number, 0 for what is left out,
// so the result does not depend on the order of the sums.
template <typename Amount>
__device__ __forceinline__ unsigned long long threshold_key(gmem<const float> logits, int V, unsigned long long target,
                                                            Amount amount) {
  SHARED_ARRAY(unsigned long long, bins, 256);
  SHARED_ARRAY(unsigned long long, found, 2);  // the digit chosen, and what is left of the target
  unsigned long long prefix = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int i = int(threadIdx.x); i < 256; i += int(blockDim.x)) bins[i] = 0;
    __syncthreads();
    for (int i = int(threadIdx.x); i < V; i += int(blockDim.x)) {
      const unsigned long long key = rank_key(logits[i], unsigned(i));
      if (key == 0 || (shift < 56 && key >> (shift + 8) != prefix)) continue;
      const unsigned long long a = amount(i, key);
      if (a) atomicAdd(bins + int(key >> shift & 255), a);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      unsigned long long above = 0, digit = 256;
      for (int d = 255; d >= 0; d--) {
        const unsigned long long here = bins[d];
        if (here && above + here >= target) {
          digit = (unsigned long long)d;
          break;
        }
        above += here;
      }
      found[0] = digit, found[1] = target - above;
    }
    __syncthreads();
    const unsigned long long digit = found[0];
    target = found[1];
    __syncthreads();
    if (digit == 256) return 0;
    prefix = prefix << 8 | digit;
  }
  return prefix;
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
