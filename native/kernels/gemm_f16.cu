// gemm with products of binary16: a file of its own, so that the two compile side by side.
#include "gemm_linear.cuh"

namespace sl {
namespace SL_BACKEND_NS {

void gemm_f16(stream& s, const linear_args& a, const cuda_weight& w, char* workspace) { gemm_of<half>(s, a, w, workspace); }

}  // namespace SL_BACKEND_NS
}  // namespace sl
