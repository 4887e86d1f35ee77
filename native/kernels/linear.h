// y = cap(scale * (x * w^T + bias)) + residual: which kernel, and how the work is cut.
#pragma once

#include "backend.h"
#include "weight.h"

namespace sl {
namespace SL_BACKEND_NS {

// Any weight and activation, few rows of x: every row of w is read once for each four of them.
void gemv(stream&, const linear_args&, const cuda_weight&);

// How a product is cut into tiles. `split` blocks share a tile's columns of K; their sums meet in the workspace, and are
// added in their order.
struct gemm_plan {
  int tile_m, tile_n, tile_k, split;
  uint64_t workspace(int64_t M, int64_t N) const { return split > 1 ? uint64_t(split) * uint64_t(M) * uint64_t(N) * 4 : 0; }
};
gemm_plan plan_gemm(int64_t M, int64_t N, int64_t K, int multiprocessors);  // tensor cores
gemm_plan plan_tile(int64_t M, int64_t N, int64_t K, int multiprocessors);  // f32

// Products of 16-bit numbers, summed in f32, on tensor cores. See linear.cu for what may take them.
void gemm_f16(stream&, const linear_args&, const cuda_weight&, char* workspace);
void gemm_bf16(stream&, const linear_args&, const cuda_weight&, char* workspace);
// Any weight and activation in f32.
void tile_linear(stream&, const linear_args&, const cuda_weight&, char* workspace);
void add_splits(stream&, const linear_args&, const cuda_weight&, int split, const char* workspace);

// y = x in y's type, y without gaps; a row's length is a multiple of 4.
void round_rows(stream&, const view& x, const view& y);

// The op with its workspace somewhere within the stream's.
void linear_in(stream&, const linear_args&, char* workspace);

}  // namespace SL_BACKEND_NS
}  // namespace sl
