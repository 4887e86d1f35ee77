// linear: y = cap(scale * (x * w^T + bias)) + residual, by the kernel that reads the weight's storage.
#include "linear.h"

#include "ops.h"

namespace sl {
namespace SL_BACKEND_NS {

void linear_cuda(stream& s, const linear_args& a) {
  const auto& w = static_cast<const cuda_weight&>(*a.w);
  switch (w.storage) {
    case storage::f32:
    case storage::f16:
    case storage::bf16: return dense_linear(s, a, w);
    case storage::int8: return int8_gemv(s, a, w);
    default: return int4_gemv(s, a, w);
  }
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
