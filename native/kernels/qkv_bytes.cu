// fused_qkv of x rounded to bytes: integer products.
#include "qkv_products.cuh"

namespace sl {
namespace SL_BACKEND_NS {

void few_qkv_bytes(stream& s, const fused_qkv_args& a) { start_few_qkv<signed char>(s, a); }

}  // namespace SL_BACKEND_NS
}  // namespace sl
