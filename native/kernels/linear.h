// y = cap(scale * (x * w^T + bias)) + residual, by the kernel of the weight's storage. Each takes any number of rows, in tiles of up to
// 16: made for few of them.
#pragma once

#include "backend.h"
#include "weight.h"

namespace sl {
namespace SL_BACKEND_NS {

void dense_linear(stream&, const linear_args&, const cuda_weight&);
void int4_gemv(stream&, const linear_args&, const cuda_weight&);
void int8_gemv(stream&, const linear_args&, const cuda_weight&);

}  // namespace SL_BACKEND_NS
}  // namespace sl
