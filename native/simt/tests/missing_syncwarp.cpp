// simt_missing_syncwarp planted | correct: one warp hands values to its neighbours through shared memory, without or with
// a __syncwarp. In a ThreadSanitizer build the first must be reported (exit code 66) and the second must not.
#include <cstdio>
#include <cstring>

#include "launch.cuh"
#include "mem.cuh"
#include "simt/control.h"

namespace sl::SL_BACKEND_NS {

void launched(const char*, cudaError_t) {}

template <bool Sync>
__global__ void neighbour_kernel(gmem<float> y) {
  SHARED_ARRAY(float, tile, 64);
  for (int round = 0; round < 4; round++) {
    tile[threadIdx.x] = float(round);
    if (Sync || round != 2) __syncwarp();
    const float v = tile[threadIdx.x ^ 1];
    __syncwarp();
    y[threadIdx.x] = v;
  }
  __syncthreads();
  y[threadIdx.x] = tile[63 - threadIdx.x];
}

}  // namespace sl::SL_BACKEND_NS

int main(int argc, char** argv) {
  using namespace sl::SL_BACKEND_NS;
  if (argc != 2) return std::fprintf(stderr, "usage: simt_missing_syncwarp planted | correct\n"), 2;
  simt::settings().check_races = false;  // the executor would name it first
  float* y;
  cudaMalloc(&y, 64 * sizeof(float));
  if (std::strcmp(argv[1], "planted") == 0) launch(nullptr, KERNEL(neighbour_kernel<false>), 2, 64, 0, y);
  else launch(nullptr, KERNEL(neighbour_kernel<true>), 2, 64, 0, y);
  const cudaError_t e = cudaDeviceSynchronize();
  if (e != cudaSuccess) std::fprintf(stderr, "%s\n", cudaGetErrorString(e));
  cudaFree(y);
  return e != cudaSuccess;
}
