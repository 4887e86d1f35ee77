// paged_attention over a cache of f16: see paged_attention.cuh.
#include "paged_attention.cuh"

namespace sl {
namespace SL_BACKEND_NS {

template void attend<half>(stream&, const attention_args&, attention_params<half>, int);

}  // namespace SL_BACKEND_NS
}  // namespace sl
