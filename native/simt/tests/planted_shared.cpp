// Bugs with shared memory: missing barriers and waits, unwritten reads, races. (The tests name lines.)
#include "test.h"
// clang-format off
namespace sl::SL_BACKEND_NS {

constexpr uint64_t seeds = 20;  // (a failure ends the context: arrays are made anew for each)

template <bool Barrier>
__global__ void reverse_kernel(gmem<float> y) {
  SHARED_ARRAY(float, tile, 128);
  tile[threadIdx.x] = float(threadIdx.x);
  if (Barrier) __syncthreads();
  y[threadIdx.x] = tile[127 - threadIdx.x];
}
TEST(A_missing_syncthreads_is_found_under_every_seed) {
  for (uint64_t seed = 0; seed < seeds; seed++) {
    device_array<float> y(128);
    simt::settings().seed = seed;
    launch(nullptr, KERNEL(reverse_kernel<true>), 1, 128, 0, y.data);
    EXPECT_NO_FAILURE();
    EXPECT(y.host()[5] == 122.0f);
    launch(nullptr, KERNEL(reverse_kernel<false>), 1, 128, 0, y.data);
    EXPECT_FAILURE("kernel reverse_kernel<false>", "block (0,0,0) warp", "shared array 'tile'");
    // Without the executor's own checks the orders alone show it: NaN where nothing was written yet.
  }
}

template <bool Barrier>
__global__ void reuse_kernel(gmem<float> y) {
  SHARED_ARRAY(float, tile, 64);
  float sum = 0;
  for (int i = 0; i < 3; i++) {
    tile[threadIdx.x] = float(i);
    __syncthreads();
    sum += tile[63 - threadIdx.x];
    if (Barrier) __syncthreads();  // before the tile is written again
  }
  y[threadIdx.x] = sum;
}
TEST(A_missing_barrier_at_a_loops_end_is_a_race) {
  for (uint64_t seed = 0; seed < seeds; seed++) {
    device_array<float> y(64);
    simt::settings().seed = seed;
    launch(nullptr, KERNEL(reuse_kernel<true>), 1, 64, 0, y.data);
    EXPECT_NO_FAILURE();
    launch(nullptr, KERNEL(reuse_kernel<false>), 1, 64, 0, y.data);
    EXPECT_FAILURE("race", "shared array 'tile' byte", "without a barrier between", "last barrier was at planted_shared.cpp:34");
  }
}

__global__ void unwritten_kernel(gmem<float> y) {
  SHARED_ARRAY(float, tile, 64);
  if (threadIdx.x != 9) tile[threadIdx.x] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}
TEST(An_unwritten_shared_read_is_named) {
  device_array<float> y(64);
  launch(nullptr, KERNEL(unwritten_kernel), 2, 64, 0, y.data);
  EXPECT_FAILURE("unwritten shared memory", "warp 0 lane 9", "shared array 'tile' byte 36");
}

__global__ void write_race_kernel(gmem<float> y) {
  SHARED_ARRAY(float, cell, 1);
  cell[0] = float(threadIdx.x / 32);
  __syncthreads();
  y[threadIdx.x] = cell[0];
}
TEST(Two_warps_that_write_one_cell_race) {
  device_array<float> y(64);
  launch(nullptr, KERNEL(write_race_kernel), 1, 64, 0, y.data);
  EXPECT_FAILURE("race", "warp 1 lane 0 writes shared array 'cell' byte 0, which warp 0");
}

template <bool Sync>
__global__ void neighbour_in_warp_kernel(gmem<float> y) {
  SHARED_ARRAY(float, tile, 32);
  tile[threadIdx.x] = 1.0f;
  if (Sync) __syncwarp();
  y[threadIdx.x] = tile[threadIdx.x ^ 1];
}
TEST(A_missing_syncwarp_is_a_race) {
  for (uint64_t seed = 0; seed < seeds; seed++) {
    device_array<float> y(32);
    simt::settings().seed = seed;
    launch(nullptr, KERNEL(neighbour_in_warp_kernel<true>), 1, 32, 0, y.data);
    EXPECT_NO_FAILURE();
    launch(nullptr, KERNEL(neighbour_in_warp_kernel<false>), 1, 32, 0, y.data);
    const std::string text = failure();  // a race, or, in an unlucky order, a read before the write
    EXPECT(text.find("without a __syncwarp between") != std::string::npos ||
           text.find("unwritten shared memory") != std::string::npos);
  }
}

template <bool Wait, bool Barrier>
__global__ void async_copy_kernel(gmem<const float> x, gmem<float> y) {
  SHARED_ARRAY(float, tile, 256);
  cp_async_16<float>(tile + 4 * threadIdx.x, x + 4 * threadIdx.x);
  cp_async_commit();
  if (Wait) cp_async_wait<0>();
  if (Barrier) __syncthreads();
  y[threadIdx.x] = tile[255 - threadIdx.x];
}
TEST(A_missing_async_wait_is_named) {
  const std::vector<float> values(256, 3.0f);
  for (uint64_t seed = 0; seed < seeds; seed++) {
    device_array<float> x(values), y(64);
    simt::settings().seed = seed;
    launch(nullptr, KERNEL(async_copy_kernel<true, true>), 1, 64, 0, x.data, y.data);
    EXPECT_NO_FAILURE();
    EXPECT(y.host()[63] == 3.0f);
    launch(nullptr, KERNEL(async_copy_kernel<false, true>), 1, 64, 0, x.data, y.data);
    EXPECT_FAILURE("cp.async not waited for", "shared array 'tile'", "a cp.async of warp");
    device_array<float> x2(values), y2(64);
    launch(nullptr, KERNEL(async_copy_kernel<true, false>), 1, 64, 0, x2.data, y2.data);
    EXPECT(!failure().empty());
  }
}

// Two stages; the barrier at the loop's end is what keeps a copy from landing in a tile that is still read.
template <bool Barrier>
__global__ void pipeline_kernel(gmem<const float> x, gmem<float> y) {
  SHARED_ARRAY(float, tile, 2 * 256);
  float sum = 0;
  cp_async_16<float>(tile + 4 * threadIdx.x, x + 4 * threadIdx.x);
  cp_async_commit();
  for (int i = 0; i < 4; i++) {
    if (i < 3) cp_async_16<float>(tile + (i + 1) % 2 * 256 + 4 * threadIdx.x, x + (i + 1) * 256 + 4 * threadIdx.x);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    sum += tile[i % 2 * 256 + (threadIdx.x + 37) % 64 * 4];
    if (Barrier) __syncthreads();
  }
  y[threadIdx.x] = sum;
}
TEST(A_missing_barrier_in_a_copy_pipeline_is_a_race) {
  const std::vector<float> values(1024, 1.0f);
  for (uint64_t seed = 0; seed < seeds; seed++) {
    device_array<float> x(values), y(64);
    simt::settings().seed = seed;
    launch(nullptr, KERNEL(pipeline_kernel<true>), 2, 64, 0, x.data, y.data);
    EXPECT_NO_FAILURE();
    EXPECT(y.host()[0] == 4.0f);
    launch(nullptr, KERNEL(pipeline_kernel<false>), 2, 64, 0, x.data, y.data);
    EXPECT_FAILURE("shared array 'tile'");
  }
}

__global__ void bank_kernel(gmem<float> y, int stride) {
  SHARED_ARRAY(float, tile, 1024);
  for (int i = int(threadIdx.x); i < 1024; i += 32) tile[i] = 0.0f;
  __syncwarp();
  y[threadIdx.x] = tile[threadIdx.x * unsigned(stride)];
}
TEST(Bank_conflicts_and_sectors_are_counted) {
  device_array<float> y(32);
  simt::count() = {};
  launch(nullptr, KERNEL(bank_kernel), 1, 32, 0, y.data, 1);
  EXPECT_NO_FAILURE();
  EXPECT(simt::count().bank_conflicts == 0);
  EXPECT(simt::count().sectors_written == 4 && simt::count().bytes_written == 128);
  launch(nullptr, KERNEL(bank_kernel), 1, 32, 0, y.data, 2);
  EXPECT_NO_FAILURE();
  EXPECT(simt::count().bank_conflicts == 1);
  simt::count() = {};
  launch(nullptr, KERNEL(bank_kernel), 1, 32, 0, y.data, 31);
  EXPECT_NO_FAILURE();
  EXPECT(simt::count().bank_conflicts == 0 && simt::count().launches == 1);
}

}  // namespace sl::SL_BACKEND_NS
