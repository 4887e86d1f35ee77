// The kernels of gated_linear, by the type of their products.
#pragma once

#include "backend.h"

namespace sl {
namespace SL_BACKEND_NS {

void few_gated_f16(stream&, const gated_linear_args&);
void few_gated_bf16(stream&, const gated_linear_args&);
void few_gated_bytes(stream&, const gated_linear_args&);
// x normalised, as tiles take it.
void tile_gated_f16(stream&, const gated_linear_args&, const view& x, char* workspace);
void tile_gated_bf16(stream&, const gated_linear_args&, const view& x, char* workspace);

}  // namespace SL_BACKEND_NS
}  // namespace sl
