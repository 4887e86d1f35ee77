// gemm with products of bfloat16: a file of its own, so that the two compile side by side.
#include "gemm_linear.cuh"

namespace sl {
namespace SL_BACKEND_NS {

void gemm_bf16(stream& s, const linear_args& a, const cuda_weight& w, char* workspace) { gemm_of<__nv_bfloat16>(s, a, w, workspace); }

}  // namespace SL_BACKEND_NS
}  // namespace sl
