// paged_prefill over a cache of f16: see paged_prefill.cuh.
#include "paged_prefill.cuh"

namespace sl {
namespace SL_BACKEND_NS {

template void prefill<half, false>(stream&, const tile_params&, const device_plan&, page_shape, int);

}  // namespace SL_BACKEND_NS
}  // namespace sl
