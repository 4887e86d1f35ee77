// paged_attention over a cache of bf16: see paged_attention.cuh.
#include "paged_attention.cuh"

namespace sl {
namespace SL_BACKEND_NS {

template void attend<__nv_bfloat16>(stream&, const attention_args&, attention_params<__nv_bfloat16>, int);

}  // namespace SL_BACKEND_NS
}  // namespace sl
