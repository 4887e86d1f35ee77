// y = cap(scale * (x * w^T + bias)) + residual: which kernel, and how the work is cut.
#pragma once

#include "backend.h"
#include "weight.h"

namespace sl {
namespace SL_BACKEND_NS {

// Any weight and activation in f32, few rows of x: every row of w is read once for each four of them.
void gemv(stream&, const linear_args&, const cuda_weight&);

// Products of 16-bit numbers, summed in f32, on tensor cores.
void few_linear_f16(stream&, const linear_args&, const cuda_weight&);  // up to 8 rows of x
void few_linear_bf16(stream&, const linear_args&, const cuda_weight&);
void few_linear_bytes(stream&, const linear_args&, const cuda_weight&);  // x rounded to bytes: integer products
void tile_linear_f16(stream&, const linear_args&, const cuda_weight&, bool narrow, char* workspace);  // more; x as tiles take it
void tile_linear_bf16(stream&, const linear_args&, const cuda_weight&, bool narrow, char* workspace);

// Rows first_row .. of a quantised weight, in a 16-bit type, row-major. first_row is a multiple of eight.
void dequantise(stream&, const cuda_weight&, int64_t first_row, int64_t rows, sl_dtype type, char* to);

// Any weight and activation in f32, in tiles. `split` blocks share a tile's columns of K; their sums meet in the workspace, and are
// added in their order.
struct f32_plan {
  int split;
  uint64_t workspace(int64_t M, int64_t N) const { return split > 1 ? uint64_t(split) * uint64_t(M) * uint64_t(N) * 4 : 0; }
};
f32_plan plan_f32(int64_t M, int64_t N, int64_t K, int multiprocessors);
void f32_linear(stream&, const linear_args&, const cuda_weight&, char* workspace);

void round_rows(stream&, const view& x, const view& y);  // y = x in y's type, zeros behind each row up to y's stride
// x as tiles take it, normalised where there is a norm: rows of one type, 16-byte aligned, zeros in what fills them up to a multiple of 8. As it
// is, or by a launch to the front of the workspace, which then begins behind it.
uint64_t tile_rows_bytes(const view& x, const view& norm, sl_dtype type);
view tile_rows(stream&, const view& x, const view& norm, float eps, sl_dtype type, char*& workspace);

// The op with its workspace somewhere within the stream's.
void linear_in(stream&, const linear_args&, char* workspace);

}  // namespace SL_BACKEND_NS
}  // namespace sl
