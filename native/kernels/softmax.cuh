// The running state of a softmax in base 2: sums are relative to 2^max.
// Source: Milakov and Gimelshein 2018 (online softmax); the merge of two states as in flash-attention and flashinfer.
#pragma once

#include "ptx.cuh"

namespace sl {
namespace SL_BACKEND_NS {

constexpr float log2_e = 1.44269504088896340736f;
#define SL_NEGATIVE_INFINITY (__int_as_float(int(0xff800000u)))

// The factor that takes what is relative to 2^from to 2^to. An empty state (from = -inf) counts for nothing; without
// the test, two empty ones would give -inf - -inf.
__device__ __forceinline__ float rescale(float from, float to) {
  return from == SL_NEGATIVE_INFINITY ? 0.0f : ex2(from - to);
}

struct alignas(8) softmax_state {
  float max, sum;
};

__device__ __forceinline__ softmax_state empty_softmax() { return {SL_NEGATIVE_INFINITY, 0.0f}; }

// Merges `b` into `a`; `keep` and `add` are the factors for what the two have accumulated.
__device__ __forceinline__ softmax_state merge(softmax_state a, softmax_state b, float& keep, float& add) {
  const float max = fmaxf(a.max, b.max);
  keep = rescale(a.max, max), add = rescale(b.max, max);
  return {max, fmaf(a.sum, keep, b.sum * add)};  // written out, so that no compiler fuses the one product here and the other there
}

__device__ __forceinline__ float lse2(softmax_state s) {
  return s.max == SL_NEGATIVE_INFINITY ? SL_NEGATIVE_INFINITY : s.max + lg2(s.sum);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
