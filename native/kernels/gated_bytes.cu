// gated_linear of x rounded to bytes: integer products.
#include "gated_products.cuh"

namespace sl {
namespace SL_BACKEND_NS {

void few_gated_bytes(stream& s, const gated_linear_args& a) { start_few_gated<signed char>(s, a); }

}  // namespace SL_BACKEND_NS
}  // namespace sl
