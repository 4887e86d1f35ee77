// fused_qkv for many rows with products of bfloat16.
#include "fused_qkv_gemm.cuh"

namespace sl {
namespace SL_BACKEND_NS {

void fused_qkv_bf16(stream& s, const fused_qkv_args& a) { start_qkv_gemm<__nv_bfloat16>(s, a); }

}  // namespace SL_BACKEND_NS
}  // namespace sl
