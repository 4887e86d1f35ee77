// Blocks of a launch that share a result: the last to arrive finishes it.   Source: the pattern of CUDA's threadFenceReduction sample.
#pragma once

#include "ptx.cuh"
#include "reduce.cuh"

namespace sl {
namespace SL_BACKEND_NS {

// Called by all threads of a block after what they wrote. True for the last of `expected` blocks, which sees what all of them wrote (through
// load_l2); the counter is zero again then. Ends with a barrier, so it may be called again at once.
__device__ __forceinline__ bool arrives_last(gmem<unsigned> counter, unsigned expected) {
  SHARED_ARRAY(int, last, 4);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();  // once more where the barrier's writes are released: the memory model wants it of the thread that counts
    last[0] = atomicAdd(counter, 1u) == expected - 1 ? 1 : 0;
    __threadfence();
    if (last[0]) counter[0] = 0u;  // for the next launch
  }
  __syncthreads();
  const bool finishes = last[0] != 0;
  __syncthreads();
  if (finishes) __threadfence();
  return finishes;
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
