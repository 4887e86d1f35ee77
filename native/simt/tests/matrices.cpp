// ldmatrix and mma against naive loops, and against fragments written out from the PTX manual.
#include <cmath>
#include <random>

#include "test.h"

namespace sl::SL_BACKEND_NS {

// One 16x8 tile of c = a * b, a [16,16] and b^T [8,16] in shared memory.
template <typename T>
__global__ void tile_kernel(gmem<const T> a, gmem<const T> bt, gmem<float> c) {
  SHARED_ARRAY(T, sa, 16 * 16);
  SHARED_ARRAY(T, sb, 8 * 16);
  const int lane = int(threadIdx.x);
  for (int i = lane; i < 256; i += 32) sa[i] = a[i];
  for (int i = lane; i < 128; i += 32) sb[i] = bt[i];
  __syncwarp();
  uint32_t ra[4], rb[4];
  // Matrices of a: rows 0-7 and 8-15 of columns 0-7, then of columns 8-15.
  ldmatrix_x4<T>(ra, sa + (lane % 16) * 16 + lane / 16 * 8);
  // Of b^T: columns 0-7 and 8-15; the other two are not used.
  ldmatrix_x4<T>(rb, sb + (lane % 8) * 16 + lane / 8 % 2 * 8);
  const uint32_t b[2] = {rb[0], rb[1]};
  float d[4] = {};
  mma_m16n8k16<T>(d, ra, b);
  for (int i = 0; i < 4; i++) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

template <typename T>
void check_tile() {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<T> a(256), bt(128);
  for (T& v : a) v = T(normal(random));
  for (T& v : bt) v = T(normal(random));
  device_array<T> da(a), db(bt);
  device_array<float> dc(128);
  launch(nullptr, KERNEL(tile_kernel<T>), 1, 32, 0, da.data, db.data, dc.data);
  EXPECT_NO_FAILURE();
  const std::vector<float> c = dc.host();
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 8; j++) {
      double sum = 0;
      for (int k = 0; k < 16; k++) sum += double(float(a[size_t(i * 16 + k)])) * double(float(bt[size_t(j * 16 + k)]));
      EXPECT(std::fabs(sum - double(c[size_t(i * 8 + j)])) < 1e-5);
    }
}
TEST(Ldmatrix_and_mma_multiply_a_tile_in_f16) { check_tile<half>(); }
TEST(Ldmatrix_and_mma_multiply_a_tile_in_bf16) { check_tile<__nv_bfloat16>(); }

__global__ void fragment_kernel(gmem<const half> m, gmem<uint32_t> plain, gmem<uint32_t> transposed) {
  SHARED_ARRAY(half, s, 256);
  for (int i = int(threadIdx.x); i < 256; i += 32) s[i] = m[i];
  __syncwarp();
  uint32_t r[4];
  ldmatrix_x4<half>(r, s + 8 * threadIdx.x);
  for (int i = 0; i < 4; i++) plain[threadIdx.x * 4 + unsigned(i)] = r[i];
  ldmatrix_x4_transposed<half>(r, s + 8 * threadIdx.x);
  for (int i = 0; i < 4; i++) transposed[threadIdx.x * 4 + unsigned(i)] = r[i];
}
TEST(Ldmatrix_gives_each_lane_the_manuals_elements) {
  std::vector<half> m(256);  // four 8x8 matrices, element (r, c) of matrix i has the bits i * 64 + r * 8 + c
  for (unsigned i = 0; i < 256; i++) m[i] = __ushort_as_half(uint16_t(i));
  device_array<half> d(m);
  device_array<uint32_t> plain(128), transposed(128);
  launch(nullptr, KERNEL(fragment_kernel), 1, 32, 0, d.data, plain.data, transposed.data);
  EXPECT_NO_FAILURE();
  for (unsigned lane = 0; lane < 32; lane++)
    for (unsigned i = 0; i < 4; i++) {
      const unsigned r = lane / 4, c = lane % 4 * 2;
      EXPECT(plain.host()[lane * 4 + i] == ((i * 64 + r * 8 + c) | (i * 64 + r * 8 + c + 1) << 16));
      EXPECT(transposed.host()[lane * 4 + i] == ((i * 64 + c * 8 + r) | (i * 64 + (c + 1) * 8 + r) << 16));
    }
}

}  // namespace sl::SL_BACKEND_NS
