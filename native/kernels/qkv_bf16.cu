// fused_qkv with products of bfloat16: a file of its own, so that the two compile side by side.
#include "qkv_products.cuh"

namespace sl {
namespace SL_BACKEND_NS {

void few_qkv_bf16(stream& s, const fused_qkv_args& a) { start_few_qkv<__nv_bfloat16>(s, a); }
void tile_qkv_bf16(stream& s, const fused_qkv_args& a, const view& x, char* workspace) { start_tile_qkv<__nv_bfloat16>(s, a, x, workspace); }

}  // namespace SL_BACKEND_NS
}  // namespace sl
