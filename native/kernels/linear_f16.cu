// linear with products of binary16: a file of its own, so that the two compile side by side.
#include "linear_products.cuh"

namespace sl {
namespace SL_BACKEND_NS {

void few_linear_f16(stream& s, const linear_args& a, const cuda_weight& w) { start_few_linear<half>(s, a, w); }
void tile_linear_f16(stream& s, const linear_args& a, const cuda_weight& w, bool narrow, char* workspace) { start_tile_linear<half>(s, a, w, narrow, workspace); }

}  // namespace SL_BACKEND_NS
}  // namespace sl
