// paged_attention over a cache of f32: see paged_attention.cuh.
#include "paged_attention.cuh"

namespace sl {
namespace SL_BACKEND_NS {

template void attend<float>(stream&, const attention_args&, attention_params<float>, int);

}  // namespace SL_BACKEND_NS
}  // namespace sl
