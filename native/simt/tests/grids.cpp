// Whole grids: shuffles, votes, atomics and locks across blocks, dimensions, seeds.
#include <numeric>

#include "test.h"

namespace sl::SL_BACKEND_NS {

__global__ void warp_sum_kernel(gmem<const float> x, gmem<float> y) {
  float v = x[blockIdx.x * blockDim.x + threadIdx.x];
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  if (threadIdx.x % 32 == 0) atomicAdd(y, v);
}
TEST(Shuffles_and_float_atomics_sum_a_vector) {
  std::vector<float> values(1024);
  std::iota(values.begin(), values.end(), 0.0f);
  device_array<float> x(values);
  for (uint64_t seed = 0; seed < 5; seed++) {
    simt::settings().seed = seed;
    device_array<float> y(1);
    launch(nullptr, KERNEL(warp_sum_kernel), 8, 128, 0, x.data, y.data);
    EXPECT_NO_FAILURE();
    EXPECT(y.host()[0] == 1023.0f * 512);
  }
}

__global__ void vote_kernel(gmem<unsigned> out) {
  const unsigned odd = __ballot_sync(0xffffffffu, threadIdx.x & 1);
  const unsigned low = threadIdx.x < 16 ? __ballot_sync(0x0000ffffu, threadIdx.x < 3) : __ballot_sync(0xffff0000u, 1);
  const int up = __shfl_up_sync(0xffffffffu, int(threadIdx.x), 1, 8);
  out[threadIdx.x] = odd == 0xaaaaaaaau && low == (threadIdx.x < 16 ? 7u : 0xffff0000u) &&
                     up == int(threadIdx.x % 8 ? threadIdx.x - 1 : threadIdx.x);
  const unsigned sum = __reduce_add_sync(0xffffffffu, threadIdx.x);
  if (sum != 496) out[threadIdx.x] = 0;
}
TEST(Votes_and_half_warps_meet) {
  device_array<unsigned> out(32);
  launch(nullptr, KERNEL(vote_kernel), 1, 32, 0, out.data);
  EXPECT_NO_FAILURE();
  EXPECT(out.host() == std::vector<unsigned>(32, 1));
}

// A spin lock around a read and a write that are not atomic, by blocks that must run side by side.
__global__ void lock_kernel(gmem<unsigned> lock, gmem<unsigned> count) {
  if (threadIdx.x == 0) {
    while (atomicCAS(lock, 0u, 1u) != 0) {}
    count[0] = count[0] + 1;
    __threadfence();
    atomicExch(lock, 0u);
  }
}
TEST(A_lock_is_taken_by_every_block) {
  for (uint64_t seed = 0; seed < 10; seed++) {
    simt::settings().seed = seed;
    device_array<unsigned> lock(1), count(1);
    launch(nullptr, KERNEL(lock_kernel), 100, 64, 0, lock.data, count.data);
    EXPECT_NO_FAILURE();
    EXPECT(count.host()[0] == 100);
  }
}

// Each block waits for all others: only right when all of them are resident.
__global__ void grid_barrier_kernel(gmem<unsigned> arrived, gmem<unsigned> after) {
  if (threadIdx.x == 0) {
    atomicAdd(arrived, 1u);
    while (load_acquire(arrived) < gridDim.x) {}
  }
  __syncthreads();
  if (threadIdx.x == 32) atomicAdd(after, 1u);
}
TEST(A_grid_that_fits_the_device_can_wait_for_itself_and_a_larger_one_cannot) {
  for (uint64_t seed = 0; seed < 5; seed++) {
    simt::settings().seed = seed;
    device_array<unsigned> arrived(1), after(1);
    launch(nullptr, KERNEL(grid_barrier_kernel), 128, 64, 0, arrived.data, after.data);  // 32 a multiprocessor
    EXPECT_NO_FAILURE();
    EXPECT(after.host()[0] == 128);
    device_array<unsigned> more(1);
    launch(nullptr, KERNEL(grid_barrier_kernel), 129, 64, 0, more.data, after.data);
    EXPECT_FAILURE("no progress");
  }
}

__global__ void dimensions_kernel(gmem<unsigned> out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * 30 + thread] = block * 100 + thread;
}
TEST(Three_dimensional_grids_and_blocks_cover_every_index) {
  device_array<unsigned> out(24 * 30);
  simt::settings().seed = 3;
  launch(nullptr, KERNEL(dimensions_kernel), dim3(2, 3, 4), dim3(5, 2, 3), 0, out.data);
  EXPECT_NO_FAILURE();
  const auto v = out.host();
  for (unsigned i = 0; i < v.size(); i++) EXPECT(v[i] == i / 30 * 100 + i % 30);
}

__global__ void dynamic_shared_kernel(gmem<float> y, int n) {
  DYN_SHARED(float, s);
  for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) s[i] = float(i);
  const int any = __syncthreads_or(threadIdx.x == 77);
  if (threadIdx.x == 0) y[0] = s[n - 1] + float(any);
}
TEST(Dynamic_shared_memory_up_to_the_opt_in_limit) {
  device_array<float> y(1);
  launch(nullptr, KERNEL(dynamic_shared_kernel), 1, 128, 99 * 1024, y.data, 99 * 256);
  EXPECT_NO_FAILURE();
  EXPECT(y.host()[0] == 99 * 256.0f);
  launch(nullptr, KERNEL(dynamic_shared_kernel), 1, 128, 100 * 1024, y.data, 99 * 256);
  EXPECT(cudaGetLastError() != cudaSuccess);
}

__global__ void static_and_dynamic_kernel(gmem<float> y) {
  SHARED_ARRAY(float, fixed, 1);
  DYN_SHARED(float, s);
  if (threadIdx.x == 0) fixed[0] = 1.0f, s[0] = 2.0f, y[0] = fixed[0] + s[0];
}
TEST(Static_shared_memory_counts_against_the_opt_in_limit) {
  device_array<float> y(1);
  launch(nullptr, KERNEL(static_and_dynamic_kernel), 1, 32, 99 * 1024 - 16, y.data);
  EXPECT_NO_FAILURE();
  launch(nullptr, KERNEL(static_and_dynamic_kernel), 1, 32, 99 * 1024, y.data);
  EXPECT_FAILURE("too much shared memory");
}

// CUDA's 48 KB without opting in are for both together. (launch() opts in earlier.)
__global__ void not_asked_kernel(gmem<float> y) {
  SHARED_ARRAY(float, fixed, 4);
  DYN_SHARED(float, s);
  if (threadIdx.x == 0) fixed[0] = 1.0f, s[0] = 2.0f, y[0] = fixed[0] + s[0];
}
TEST(Static_and_dynamic_shared_memory_share_what_needs_no_opt_in) {
  for (const auto& [dynamic, fits] : {std::pair<size_t, bool>{48 * 1024 - 16, true}, {48 * 1024, false}}) {
    device_array<float> y(1);
    simt::launch_kernel("not_asked_kernel", reinterpret_cast<const void*>(not_asked_kernel), 1, 32, dynamic, nullptr,
                        [data = gmem<float>(y.data)] { not_asked_kernel(data); });
    if (fits) EXPECT_NO_FAILURE();
    else EXPECT_FAILURE("too much shared memory", "49168 bytes in all, 49152 allowed");
  }
}

}  // namespace sl::SL_BACKEND_NS
