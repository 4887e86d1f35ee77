// Bugs of control flow, each of which must be found and named: divergence, early exits, deadlocks, wild accesses. (The tests name lines.)
#include "test.h"
// clang-format off
namespace sl::SL_BACKEND_NS {

__global__ void divergent_shuffle_kernel(gmem<float> out) {
  float v = float(threadIdx.x);
  if (threadIdx.x < 16) v += __shfl_xor_sync(0xffffffffu, v, 1);
  else __syncthreads();
  out[threadIdx.x] = v;
}
TEST(A_divergent_shuffle_is_named_with_its_lanes_and_both_lines) {
  device_array<float> out(32);
  launch(nullptr, KERNEL(divergent_shuffle_kernel), 1, 32, 0, out.data);
  EXPECT_FAILURE("kernel divergent_shuffle_kernel", "divergent warp operation", "block (0,0,0) warp 0",
                 "lanes 0-15 wait in __shfl_xor_sync at planted.cpp:8", "lanes 16-31 wait in __syncthreads at planted.cpp:9");
}

__global__ void mismatched_shuffle_kernel(gmem<float> out) {
  float v = float(threadIdx.x);
  if (threadIdx.x & 1) v += __shfl_xor_sync(0xffffffffu, v, 1);
  else v += __shfl_down_sync(0xffffffffu, v, 1);
  out[threadIdx.x] = v;
}
TEST(Two_warp_operations_at_once_are_named_with_both_lines) {
  device_array<float> out(32);
  launch(nullptr, KERNEL(mismatched_shuffle_kernel), 1, 32, 0, out.data);
  EXPECT_FAILURE("divergent warp operation", "planted.cpp:21", "planted.cpp:22");
}

__global__ void shuffle_after_exit_kernel(gmem<float> out, int n) {
  if (int(threadIdx.x) >= n) return;
  out[threadIdx.x] = __shfl_down_sync(0xffffffffu, float(threadIdx.x), 1);
}
TEST(A_shuffle_with_lanes_that_have_ended_is_named) {
  for (uint64_t seed = 0; seed < 8; seed++) {
    simt::settings().seed = seed;
    device_array<float> out(64);
    launch(nullptr, KERNEL(shuffle_after_exit_kernel), 1, 64, 0, out.data, 40);
    EXPECT_FAILURE("warp 1", "have ended", "__shfl_down_sync at planted.cpp:33");
  }
}

__global__ void leaves_before_barrier_kernel(gmem<float> out, int n) {
  SHARED_ARRAY(float, s, 64);
  s[threadIdx.x] = 1.0f;
  if (int(threadIdx.x) >= n) return;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}
TEST(A_warp_that_leaves_before_a_barrier_is_named) {
  for (uint64_t seed = 0; seed < 8; seed++) {
    simt::settings().seed = seed;
    device_array<float> out(64);
    launch(nullptr, KERNEL(leaves_before_barrier_kernel), 1, 64, 0, out.data, 32);
    EXPECT_FAILURE("threads left before a barrier", "block (0,0,0)", "32 threads, the first in warp 1",
                   "__syncthreads at planted.cpp:48");
  }
}

__global__ void allowed_early_exit_kernel(gmem<float> out, int n) {
  early_exit_allowed();
  if (int(threadIdx.x) >= n) return;
  __syncthreads();
  out[threadIdx.x] = 1.0f;
}
TEST(An_early_exit_that_is_allowed_passes) {
  device_array<float> out(64);
  launch(nullptr, KERNEL(allowed_early_exit_kernel), 1, 64, 0, out.data, 40);
  EXPECT_NO_FAILURE();
  EXPECT(out.host()[39] == 1.0f && out.host()[40] == 0.0f);
}

__global__ void barrier_in_both_arms_kernel(gmem<float> out) {
  if (threadIdx.x < 32) __syncthreads();
  else __syncthreads();
  out[threadIdx.x] = 1.0f;
}
__global__ void barrier_in_two_arms_kernel(gmem<float> out) {
  if (threadIdx.x < 32) {
    __syncthreads();
    out[threadIdx.x] = 1.0f;
  } else {
    __syncthreads();
  }
}
TEST(A_barrier_in_both_arms_is_named_with_both_lines) {
  for (uint64_t seed = 0; seed < 8; seed++) {
    simt::settings().seed = seed;
    device_array<float> out(64);
    launch(nullptr, KERNEL(barrier_in_both_arms_kernel), 1, 64, 0, out.data);
    EXPECT_FAILURE("barrier divergence", "planted.cpp:75", "planted.cpp:76");
    launch(nullptr, KERNEL(barrier_in_two_arms_kernel), 1, 64, 0, out.data);
    EXPECT_FAILURE("barrier divergence", "planted.cpp:81", "planted.cpp:84");
  }
}

__global__ void spin_kernel(gmem<unsigned> flag) {
  while (load_acquire(flag) == 0) {}
}
TEST(Waiting_for_what_never_comes_is_an_error_and_no_hang) {
  device_array<unsigned> flag(1);
  launch(nullptr, KERNEL(spin_kernel), 3, 32, 0, flag.data);
  EXPECT_FAILURE("kernel spin_kernel", "no progress", "block (0,0,0) warp 0: lanes 0-31 wait for memory to change");
}

__global__ void lock_never_released_kernel(gmem<unsigned> lock, gmem<float> out) {
  if (threadIdx.x == 0) {
    while (atomicCAS(lock, 0u, 1u) != 0) {}
    out[0] = 1.0f;
  }
  __syncthreads();
}
TEST(A_lock_that_is_never_released_is_an_error) {
  for (uint64_t seed = 0; seed < 4; seed++) {
    simt::settings().seed = seed;
    device_array<unsigned> lock(1);
    device_array<float> out(1);
    launch(nullptr, KERNEL(lock_never_released_kernel), 2, 64, 0, lock.data, out.data);
    EXPECT_FAILURE("no progress");
  }
}

__global__ void read_past_end_kernel(gmem<const float> x, gmem<float> y) {
  y[blockIdx.x * 32 + threadIdx.x] = x[blockIdx.x * 32 + threadIdx.x + 1];
}
TEST(A_global_read_past_the_end_is_named) {
  device_array<float> x(96), y(96);
  launch(nullptr, KERNEL(read_past_end_kernel), 3, 32, 0, x.data, y.data);
  EXPECT_FAILURE("kernel read_past_end_kernel", "out of bounds", "block (2,0,0) warp 0 lane 31", "reads 4 bytes",
                 "byte 384 of 384");
  // The argument's own extent, where the allocation is larger.
  device_array<float> z(96), w(96);
  launch(nullptr, KERNEL(read_past_end_kernel), 1, 32, 0, span<const float>(z.data, 32), w.data);
  EXPECT_FAILURE("out of bounds", "byte 128 of 128");
}

TEST(A_pointer_that_is_no_device_memory_is_named) {
  float host[33] = {};
  device_array<float> y(32);
  launch(nullptr, KERNEL(read_past_end_kernel), 1, 32, 0, host, y.data);
  EXPECT_FAILURE("not device memory", "block (0,0,0) warp 0 lane 0");
}

__global__ void shared_past_end_kernel(gmem<float> y) {
  SHARED_ARRAY(float, tile, 32);
  tile[threadIdx.x] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x + (threadIdx.x == 7 ? 25 : 0)];
}
TEST(A_shared_read_past_the_end_is_named) {
  device_array<float> y(32);
  launch(nullptr, KERNEL(shared_past_end_kernel), 1, 32, 0, y.data);
  EXPECT_FAILURE("out of bounds", "warp 0 lane 7", "byte 128 of shared array 'tile', which has 128");
}

__global__ void misaligned_kernel(gmem<const float> x, gmem<float4> y) { y[0] = view_as<float4>(x + 1)[0]; }
TEST(A_misaligned_vector_load_is_named) {
  device_array<float> x(32);
  device_array<float4> y(1);
  launch(nullptr, KERNEL(misaligned_kernel), 1, 1, 0, x.data, y.data);
  EXPECT_FAILURE("misaligned", "reads 16 bytes", "byte 4");
}

TEST(After_a_failure_the_device_answers_with_it_until_it_is_reset) {
  device_array<unsigned> flag(1);
  void *p, *kept;
  EXPECT(cudaMalloc(&kept, 16) == cudaSuccess);
  launch(nullptr, KERNEL(spin_kernel), 1, 1, 0, flag.data);
  EXPECT(cudaStreamSynchronize(nullptr) == cudaErrorLaunchFailure);
  EXPECT(cudaMalloc(&p, 16) == cudaErrorLaunchFailure);
  EXPECT(cudaFreeAsync(kept, nullptr) == cudaErrorLaunchFailure);
  cudaDeviceReset();
  cudaPointerAttributes a;  // the memory went with the context
  EXPECT(cudaPointerGetAttributes(&a, kept) == cudaSuccess && a.type == cudaMemoryTypeUnregistered);
  EXPECT(cudaMalloc(&p, 16) == cudaSuccess && cudaFree(p) == cudaSuccess);
}

}  // namespace sl::SL_BACKEND_NS
