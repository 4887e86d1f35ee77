// Which element of a tile each lane holds, on the hardware: what the executor and every tensor-core kernel take from the
// PTX manual. A product that is only consistent with itself would hide a permutation along k; this does not.
// Built by nvcc for a GPU, and by g++ against the executor.
#include <cstdio>
#include <vector>

#include "launch.cuh"
#include "ptx.cuh"

namespace sl {
namespace SL_BACKEND_NS {

void launched(const char* name, cudaError_t status) {
  if (status != cudaSuccess) std::printf("FAILED %s: %s\n", name, cudaGetErrorString(status));
}

// Four 8x8 matrices, element (r, c) of matrix i has the bits i * 64 + r * 8 + c.
__global__ void ldmatrix_kernel(gmem<uint32_t> plain, gmem<uint32_t> transposed) {
  SHARED_ARRAY(half, s, 256);
  for (int i = int(threadIdx.x); i < 256; i += 32) s[i] = __ushort_as_half((unsigned short)(i));
  __syncwarp();
  uint32_t r[4];
  ldmatrix_x4<half>(r, s + 8 * int(threadIdx.x));
  for (int i = 0; i < 4; i++) plain[int(threadIdx.x) * 4 + i] = r[i];
  ldmatrix_x4_transposed<half>(r, s + 8 * int(threadIdx.x));
  for (int i = 0; i < 4; i++) transposed[int(threadIdx.x) * 4 + i] = r[i];
}

// One element of a is 1, all others 0; b[k][n] = 1 + 8k + n. So row m of d is row k of b, and all others are 0.
template <typename T>
__global__ void mma_kernel(gmem<float> d, int m, int k) {
  const int lane = int(threadIdx.x), group = lane / 4, pair = lane % 4 * 2;
  T a[8], b[4];
  for (int i = 0; i < 8; i++) {
    const int row = group + (i / 2 % 2) * 8, column = pair + i % 2 + i / 4 * 8;
    a[i] = T(row == m && column == k ? 1.0f : 0.0f);
  }
  for (int i = 0; i < 4; i++) {
    const int row = pair + i % 2 + i / 2 * 8;
    b[i] = T(float(1 + 8 * row + group));
  }
  uint32_t ra[4], rb[2];
  for (int i = 0; i < 4; i++) memcpy(&ra[i], &a[2 * i], 4);
  for (int i = 0; i < 2; i++) memcpy(&rb[i], &b[2 * i], 4);
  float sum[4] = {};
  mma_m16n8k16<T>(sum, ra, rb);
  for (int i = 0; i < 4; i++) d[(group + i / 2 * 8) * 8 + pair + i % 2] = sum[i];
}

// The same of bytes: b[k][n] = 4k - n - 60.
__global__ void mma_bytes_kernel(gmem<int> d, int m, int k) {
  const int lane = int(threadIdx.x), group = lane / 4, four = lane % 4 * 4;
  signed char a[16], b[8];
  for (int i = 0; i < 16; i++) {
    const int row = group + (i / 4 % 2) * 8, column = four + i % 4 + i / 8 * 16;
    a[i] = (signed char)(row == m && column == k ? 1 : 0);
  }
  for (int i = 0; i < 8; i++) b[i] = (signed char)(4 * (four + i % 4 + i / 4 * 16) - group - 60);
  uint32_t ra[4], rb[2];
  for (int i = 0; i < 4; i++) memcpy(&ra[i], &a[4 * i], 4);
  for (int i = 0; i < 2; i++) memcpy(&rb[i], &b[4 * i], 4);
  int sum[4] = {};
  mma_m16n8k32(sum, ra, rb);
  for (int i = 0; i < 4; i++) d[(group + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}

int failed = 0, passed = 0;
void check(bool holds, const char* what) {
  holds ? passed++ : failed++;
  if (!holds) std::printf("FAILED %s\n", what);
}

template <typename V>
std::vector<V> read(V* data, size_t count) {
  std::vector<V> host(count);
  check(cudaMemcpy(host.data(), data, count * sizeof(V), cudaMemcpyDeviceToHost) == cudaSuccess, "copy to the host");
  return host;
}

void ldmatrix_gives_each_lane_the_manuals_elements() {
  uint32_t *plain, *transposed;
  if (cudaMalloc(&plain, 512) != cudaSuccess || cudaMalloc(&transposed, 512) != cudaSuccess) return check(false, "cudaMalloc");
  launch(nullptr, KERNEL(ldmatrix_kernel), 1, 32, 0, plain, transposed);
  const auto p = read(plain, 128), t = read(transposed, 128);
  bool plain_holds = true, transposed_holds = true;
  for (unsigned lane = 0; lane < 32; lane++)
    for (unsigned i = 0; i < 4; i++) {
      const unsigned r = lane / 4, c = lane % 4 * 2;
      plain_holds &= p[lane * 4 + i] == ((i * 64 + r * 8 + c) | (i * 64 + r * 8 + c + 1) << 16);
      transposed_holds &= t[lane * 4 + i] == ((i * 64 + c * 8 + r) | (i * 64 + (c + 1) * 8 + r) << 16);
    }
  check(plain_holds, "ldmatrix");
  check(transposed_holds, "ldmatrix.trans");
  cudaFree(plain);
  cudaFree(transposed);
}

template <typename T>
void mma_takes_and_gives_the_manuals_elements(const char* name) {
  float* d;
  if (cudaMalloc(&d, 128 * sizeof(float)) != cudaSuccess) return check(false, "cudaMalloc");
  bool holds = true;
  for (int m = 0; m < 16; m++)
    for (int k = 0; k < 16; k++) {
      launch(nullptr, KERNEL(mma_kernel<T>), 1, 32, 0, d, m, k);
      const auto out = read(d, 128);
      for (int row = 0; row < 16; row++)
        for (int n = 0; n < 8; n++) holds &= out[size_t(row * 8 + n)] == (row == m ? float(1 + 8 * k + n) : 0.0f);
    }
  check(holds, name);
  cudaFree(d);
}

void mma_of_bytes_takes_and_gives_the_manuals_elements() {
  int* d;
  if (cudaMalloc(&d, 128 * sizeof(int)) != cudaSuccess) return check(false, "cudaMalloc");
  bool holds = true;
  for (int m = 0; m < 16; m++)
    for (int k = 0; k < 32; k++) {
      launch(nullptr, KERNEL(mma_bytes_kernel), 1, 32, 0, d, m, k);
      const auto out = read(d, 128);
      for (int row = 0; row < 16; row++)
        for (int n = 0; n < 8; n++) holds &= out[size_t(row * 8 + n)] == (row == m ? 4 * k - n - 60 : 0);
    }
  check(holds, "mma.m16n8k32 s8");
  cudaFree(d);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl

int main() {
  using namespace sl::SL_BACKEND_NS;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no CUDA device is here\n0 passed, 0 failed, 5 skipped\n");
    return 0;
  }
  ldmatrix_gives_each_lane_the_manuals_elements();
  mma_takes_and_gives_the_manuals_elements<half>("mma.m16n8k16 f16");
  mma_takes_and_gives_the_manuals_elements<__nv_bfloat16>("mma.m16n8k16 bf16");
  mma_of_bytes_takes_and_gives_the_manuals_elements();
  std::printf("%d passed, %d failed, 0 skipped\n", passed, failed);
  return failed > 0;
}
