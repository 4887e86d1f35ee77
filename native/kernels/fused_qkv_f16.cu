// fused_qkv for many rows with products of binary16.
#include "fused_qkv_gemm.cuh"

namespace sl {
namespace SL_BACKEND_NS {

void fused_qkv_f16(stream& s, const fused_qkv_args& a) { start_qkv_gemm<half>(s, a); }

}  // namespace SL_BACKEND_NS
}  // namespace sl
