// linear of x rounded to bytes: integer products.
#include "linear_products.cuh"

namespace sl {
namespace SL_BACKEND_NS {

void few_linear_bytes(stream& s, const linear_args& a, const cuda_weight& w) { start_few_linear<signed char>(s, a, w); }

}  // namespace SL_BACKEND_NS
}  // namespace sl
