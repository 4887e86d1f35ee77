// What the counters say of accesses whose answer is known.
#include "test.h"

namespace sl::SL_BACKEND_NS {

template <typename F>
static simt::counters counted(F f) {
  const simt::counters before = simt::count();
  f();
  EXPECT_NO_FAILURE();
  return simt::count() - before;
}

// Shared memory is written first by one thread, a word at a time: no conflicts there.
__global__ void shared_stride_kernel(gmem<float> out, int stride, int width) {
  SHARED_ARRAY(float, s, 32 * 64);
  if (threadIdx.x == 0)
    for (int i = 0; i < 32 * 64; i++) s[i] = float(i);
  __syncthreads();
  const int at = int(threadIdx.x) * stride;
  if (width == 4) out[threadIdx.x] = s[at];
  else if (width == 8) out[threadIdx.x] = float2(view_as<float2>(s)[at / 2]).x;
  else out[threadIdx.x] = float4(view_as<float4>(s)[at / 4]).x;
}

static uint64_t conflicts(int stride, int width, unsigned threads = 32) {
  device_array<float> out(32);
  return counted([&] { launch(nullptr, KERNEL(shared_stride_kernel), 1, threads, 0, out.data, stride, width); }).bank_conflicts;
}

TEST(Bank_conflicts_of_strides) {
  EXPECT(conflicts(0, 4) == 0);    // one word for all
  EXPECT(conflicts(1, 4) == 0);
  EXPECT(conflicts(33, 4) == 0);
  EXPECT(conflicts(2, 4) == 1);
  EXPECT(conflicts(8, 4) == 7);
  EXPECT(conflicts(32, 4) == 31);
  EXPECT(conflicts(32, 4, 7) == 6);  // part of a warp
}
TEST(Wide_shared_accesses_go_by_parts_of_a_warp) {
  EXPECT(conflicts(2, 8) == 0);    // 8 bytes: 16 lanes fill the banks
  EXPECT(conflicts(4, 8) == 2);    // twice in each half
  EXPECT(conflicts(4, 16) == 0);   // 16 bytes: 8 lanes fill the banks
  EXPECT(conflicts(8, 16) == 4);   // twice in each of four quarters
  EXPECT(conflicts(32, 16) == 28); // eight lanes on the same four banks, in each quarter
  EXPECT(conflicts(36, 16) == 0);  // rows of 128 bytes with 16 of padding
}

__global__ void odd_lanes_kernel(gmem<float> out) {
  SHARED_ARRAY(float4, s, 64);
  if (threadIdx.x == 0)
    for (int i = 0; i < 64; i++) s[i] = make_float4(1, 2, 3, 4);
  __syncthreads();
  // Of each quarter the two lanes whose addresses share a bank; packed together they would be one pass of eight.
  if (threadIdx.x % 8 < 2) out[threadIdx.x] = float4(s[threadIdx.x % 8 * 8]).x;
}
TEST(Parts_of_a_warp_are_of_lanes_not_of_those_that_take_part) {
  device_array<float> out(32);
  EXPECT(counted([&] { launch(nullptr, KERNEL(odd_lanes_kernel), 1, 32, 0, out.data); }).bank_conflicts == 4);
}

__global__ void matrix_rows_kernel(gmem<uint32_t> out, int pitch) {
  SHARED_ARRAY(half, s, 32 * 72);
  if (threadIdx.x == 0)
    for (int i = 0; i < 32 * 72; i++) s[i] = __ushort_as_half(uint16_t(i));
  __syncthreads();
  uint32_t r[4];
  ldmatrix_x4<half>(r, s + int(threadIdx.x) * pitch);
  out[threadIdx.x] = r[0];
}
TEST(Ldmatrix_takes_a_pass_for_eight_rows) {
  device_array<uint32_t> out(32);
  const auto of = [&](int pitch) {
    return counted([&] { launch(nullptr, KERNEL(matrix_rows_kernel), 1, 32, 0, out.data, pitch); }).bank_conflicts;
  };
  EXPECT(of(64) == 4 * 7);  // rows of 128 bytes: seven more passes for each of four matrices
  EXPECT(of(72) == 0);      // 16 bytes of padding
  EXPECT(of(8) == 0);       // row after row
  EXPECT(of(16) == 4 * 1);
}

__global__ void shared_atomic_kernel(gmem<int> out, int words) {
  SHARED_ARRAY(int, s, 32);
  s[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(s + int(threadIdx.x) % words, 1);
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}
TEST(Shared_atomics_on_one_word_take_turns) {
  device_array<int> out(32);
  const auto of = [&](int words) {
    return counted([&] { launch(nullptr, KERNEL(shared_atomic_kernel), 1, 32, 0, out.data, words); }).bank_conflicts;
  };
  EXPECT(of(32) == 0);
  EXPECT(of(1) == 31);
  EXPECT(of(4) == 7);
}

__global__ void async_copy_kernel(gmem<const float> in, gmem<float> out, int stride) {
  SHARED_ARRAY(float, s, 32 * 32);
  cp_async_16<float>(s + int(threadIdx.x) * 4, in + int(threadIdx.x) * stride);
  cp_async_commit();
  cp_async_wait<0>();
  out[threadIdx.x] = s[threadIdx.x * 4];
}
TEST(Cp_async_reads_sectors_and_writes_shared_memory) {
  device_array<float> in(32 * 32, 1.0f), out(32);
  const simt::counters dense = counted([&] { launch(nullptr, KERNEL(async_copy_kernel), 1, 32, 0, in.data, out.data, 4); });
  EXPECT(dense.bytes_read == 512 && dense.sectors_read == 16);
  EXPECT(dense.sectors_written == 4);
  EXPECT(dense.bank_conflicts == 3);  // of the 4-byte reads with a stride of four words; the 16-byte writes have none
  const simt::counters apart = counted([&] { launch(nullptr, KERNEL(async_copy_kernel), 1, 32, 0, in.data, out.data, 32); });
  EXPECT(apart.bytes_read == 512 && apart.sectors_read == 32);
}

__global__ void global_kernel(gmem<const float> in, gmem<float> out, int stride, int offset) {
  out[threadIdx.x] = in[int(threadIdx.x) * stride + offset];
}
TEST(Sectors_of_strides) {
  device_array<float> in(2048, 1.0f), out(64);
  const auto of = [&](int stride, int offset, unsigned threads) {
    return counted([&] { launch(nullptr, KERNEL(global_kernel), 1, threads, 0, in.data, out.data, stride, offset); });
  };
  EXPECT(of(1, 0, 32).sectors_read == 4);
  EXPECT(of(1, 1, 32).sectors_read == 5);   // not aligned
  EXPECT(of(0, 0, 32).sectors_read == 1);   // one for all
  EXPECT(of(2, 0, 32).sectors_read == 8);
  EXPECT(of(8, 0, 32).sectors_read == 32);
  EXPECT(of(1, 0, 37).sectors_read == 5);   // a warp and a part of one
  EXPECT(of(1, 0, 32).bytes_read == 128 && of(1, 0, 32).sectors_written == 4);
}

// Each lane runs another number of rounds, with an access of its own in some: neighbours still read together.
__global__ void diverging_kernel(gmem<const float> in, gmem<float> out) {
  float sum = 0.0f;
  for (int i = 0; i <= int(threadIdx.x) / 8; i++) {
    if (threadIdx.x == 0) sum += in[512];
    sum += in[i * 32 + int(threadIdx.x)];
  }
  out[threadIdx.x] = sum;
}
TEST(Lanes_that_diverge_are_counted_by_place) {
  device_array<float> in(1024, 1.0f), out(32);
  const simt::counters c = counted([&] { launch(nullptr, KERNEL(diverging_kernel), 1, 32, 0, in.data, out.data); });
  EXPECT(c.sectors_read == 1 + 4 + 3 + 2 + 1);
  EXPECT(c.sectors_written == 4);
}

// Nothing brings the lanes together in a long loop.
__global__ void long_loop_kernel(gmem<const float> in, gmem<float> out) {
  float sum = 0.0f;
  for (int i = 0; i < 2000; i++) sum += in[i % 16 * 32 + int(threadIdx.x)];
  out[threadIdx.x] = sum;
}
TEST(Sectors_of_a_long_loop_without_meetings) {
  device_array<float> in(1024, 1.0f), out(32);
  EXPECT(counted([&] { launch(nullptr, KERNEL(long_loop_kernel), 1, 32, 0, in.data, out.data); }).sectors_read == 2000 * 4);
}

TEST(Counts_do_not_depend_on_the_order_of_execution) {
  device_array<float> in(2048, 1.0f), out(64);
  for (uint64_t seed : {0, 1, 2, 3}) {
    simt::settings().seed = seed;
    EXPECT(counted([&] { launch(nullptr, KERNEL(diverging_kernel), 1, 32, 0, in.data, out.data); }).sectors_read == 11);
    EXPECT(conflicts(8, 16) == 4);
  }
}

TEST(Launches_are_charged_to_their_owner_by_kernel) {
  device_array<float> in(2048, 1.0f), out(64);
  const int mine = 0, other = 0;
  simt::play_as(1, 4, &mine);
  simt::watch_reads({in.data + 8, 64}, {});
  launch(nullptr, KERNEL(global_kernel), 1, 32, 0, in.data, out.data, 1, 0);
  launch(nullptr, KERNEL(diverging_kernel), 1, 32, 0, in.data, out.data);
  simt::play_as(1, 4, &other);
  launch(nullptr, KERNEL(global_kernel), 1, 32, 0, in.data, out.data, 1, 0);
  simt::play_as(0, 0);
  EXPECT_NO_FAILURE();
  auto account = simt::account_of(&mine);
  EXPECT(account.size() == 2 && account["global_kernel"].launches == 1 && account["diverging_kernel"].launches == 1);
  EXPECT(account["global_kernel"].bytes_read == 128 && account["global_kernel"].kv_bytes_read == 64);
  EXPECT(simt::account_of(&other).size() == 1 && simt::account_of(&other)["global_kernel"].kv_bytes_read == 0);
  simt::reset_account(&mine);
  EXPECT(simt::account_of(&mine).empty());
}

}  // namespace sl::SL_BACKEND_NS
