// Reductions over a warp and over a block. Every thread gets the result.
#pragma once

#include "mem.cuh"

namespace sl {
namespace SL_BACKEND_NS {

constexpr unsigned all_lanes = 0xffffffffu;

template <int Width = 32>
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int d = Width / 2; d > 0; d /= 2) v += __shfl_xor_sync(all_lanes, v, d);
  return v;
}

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) v = fmaxf(v, __shfl_xor_sync(all_lanes, v, d));
  return v;
}

// For blocks of whole warps. It ends with a barrier, so it may be called again at once.
__device__ __forceinline__ float block_sum(float v) {
  SHARED_ARRAY(float, warp_sums, 32);
  const int warps = int(blockDim.x) / 32, lane = int(threadIdx.x) & 31;
  v = warp_sum(v);
  if (warps == 1) return v;
  if (lane == 0) warp_sums[threadIdx.x / 32] = v;
  __syncthreads();
  v = warp_sum(lane < warps ? float(warp_sums[lane]) : 0.0f);
  __syncthreads();
  return v;
}

// The largest of 64-bit keys; with 0 for "none".
__device__ __forceinline__ unsigned long long block_max(unsigned long long v) {
  SHARED_ARRAY(unsigned long long, warp_largest, 32);
  const int warps = int(blockDim.x) / 32, lane = int(threadIdx.x) & 31;
#pragma unroll
  for (int d = 16; d > 0; d /= 2) {
    const unsigned long long o = __shfl_xor_sync(all_lanes, v, d);
    v = o > v ? o : v;
  }
  if (lane == 0) warp_largest[threadIdx.x / 32] = v;
  __syncthreads();
  for (int i = 0; i < warps; i++) {
    const unsigned long long o = warp_largest[i];
    v = o > v ? o : v;
  }
  __syncthreads();
  return v;
}

__device__ __forceinline__ double block_sum_f64(double v) {
  SHARED_ARRAY(double, warp_sums_f64, 32);
  const int warps = int(blockDim.x) / 32, lane = int(threadIdx.x) & 31;
#pragma unroll
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(all_lanes, v, d);
  if (lane == 0) warp_sums_f64[threadIdx.x / 32] = v;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < warps; i++) sum += warp_sums_f64[i];
  __syncthreads();
  return sum;
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
