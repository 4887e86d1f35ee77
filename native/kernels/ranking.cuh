// Logits in the order of sampling: the largest first, the lowest id first among equals, NaN not at all.
#pragma once

#include "reduce.cuh"

namespace sl {
namespace SL_BACKEND_NS {

constexpr int ranking_threads = 1024;  // at most: a row is one block's

// A row of logits, as a block walks over it: 16 bytes a thread where the rows' addresses allow it.
struct logit_row {
  gmem<const float> at;
  int V;
  bool aligned;
  __device__ __forceinline__ float operator[](int i) const { return at[i]; }

  // f(id, logit) for each, by one thread each.
  template <typename F>
  __device__ __forceinline__ void each(F f) const {
    const int thread = int(threadIdx.x), threads = int(blockDim.x), whole = aligned ? V / 4 * 4 : 0;
#pragma unroll 4
    for (int i = 4 * thread; i < whole; i += 4 * threads) {
      const float4 v = view_as<float4>(at + i)[0];
      f(i, v.x), f(i + 1, v.y), f(i + 2, v.z), f(i + 3, v.w);
    }
    for (int i = whole + thread; i < V; i += threads) f(i, at[i]);
  }
};

// A key that orders (value, id) so; 0 for NaN, which is below all others.
__device__ __forceinline__ unsigned long long rank_key(float v, unsigned id) {
  if (isnan(v)) return 0;
  const unsigned u = __float_as_uint(v + 0.0f);  // -0 becomes 0: they are equal
  const unsigned ordered = u & 0x80000000u ? ~u : u | 0x80000000u;
  return (unsigned long long)ordered << 32 | (0xffffffffu - id);
}
__device__ __forceinline__ int id_of(unsigned long long key) { return key == 0 ? 0 : int(0xffffffffu - unsigned(key)); }

__device__ __forceinline__ unsigned long long largest_key(const logit_row& row) {
  unsigned long long best = 0;
  row.each([&](int i, float v) {
    const unsigned long long key = rank_key(v, unsigned(i));
    if (key > best) best = key;
  });
  return block_max(best);
}

// A key such that the amounts of it and all larger ones reach `target`, and of no fewer; or 0 where they never do. It is
// found digit by digit from the top: in at most 8 passes over the row, and 4 where no logits tie at the end. amount(v, key)
// is a whole number, 0 for what is left out, so the result does not depend on the order of the sums.
template <typename Amount>
__device__ __forceinline__ unsigned long long threshold_key(const logit_row& row, unsigned long long target, Amount amount) {
  SHARED_ARRAY(unsigned long long, bins, 256);
  SHARED_ARRAY(unsigned long long, found, 3);  // the digit chosen, what is left of the target, what the digit's bin holds
  unsigned long long prefix = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int i = int(threadIdx.x); i < 256; i += int(blockDim.x)) bins[i] = 0;
    __syncthreads();
    row.each([&](int i, float v) {
      const unsigned long long key = rank_key(v, unsigned(i));
      if (key == 0 || (shift < 56 && key >> (shift + 8) != prefix)) return;
      const unsigned long long a = amount(v, key);
      if (a) atomicAdd(bins + int(key >> shift & 255), a);
    });
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
      found[0] = digit, found[1] = target - above, found[2] = digit < 256 ? bins[int(digit)] : 0ull;
    }
    __syncthreads();
    const unsigned long long digit = found[0];
    target = found[1];
    const bool whole = found[2] == target;  // all of the bin is wanted: its lowest key will do
    __syncthreads();
    if (digit == 256) return 0;
    prefix = prefix << 8 | digit;
    if (whole) return prefix << shift;
  }
  return prefix;
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
