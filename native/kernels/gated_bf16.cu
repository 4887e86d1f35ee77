// gated_linear with products of bfloat16: a file of its own, so that the two compile side by side.
#include "gated_products.cuh"

namespace sl {
namespace SL_BACKEND_NS {

void few_gated_bf16(stream& s, const gated_linear_args& a) { start_few_gated<__nv_bfloat16>(s, a); }
void tile_gated_bf16(stream& s, const gated_linear_args& a, const view& x, char* workspace) { start_tile_gated<__nv_bfloat16>(s, a, x, workspace); }

}  // namespace SL_BACKEND_NS
}  // namespace sl
