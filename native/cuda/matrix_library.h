// The vendor's library for dense products, looked for when the first is wanted. Where there is none, or it will not take a
// product, the kernels of this library do.
#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "backend.h"

namespace sl {
namespace SL_BACKEND_NS {

// y[M,N] = scale * (x[M,K] * w[N,K]^T) + residual[M,N], row-major, sums in f32.
struct dense_product {
  sl_dtype in, out;  // of x and w; of y and the residual
  int64_t M, N, K, x_stride, y_stride, residual_stride;
  const void *x, *w, *residual;  // residual: null for none
  void* y;
  float scale;
};

class matrix_library {
 public:
  static constexpr uint64_t workspace_bytes = 32 << 20;
  virtual ~matrix_library() = default;
  // Whether the product was put on the stream. The same sums each time. Any thread; within the device's context.
  virtual bool multiply(const dense_product&, void* workspace, cudaStream_t stream) = 0;
};

// Null where there is none (platform.cpp of simt, cublaslt.cpp of cuda), or the environment says SLUICE_CUBLASLT=0.
std::unique_ptr<matrix_library> open_matrix_library();

}  // namespace SL_BACKEND_NS
}  // namespace sl
