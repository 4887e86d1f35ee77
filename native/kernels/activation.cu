// gated_activation: y[t,f] = act(gate[t,f]) * up[t,f]     gate, up, y [T,F] in {f32,f16,bf16}; f32 inside
// grid (F / (256 * Vec), T)   block 256   moves 3*T*F*sizeof(y) bytes: bound by memory
#include "activation.cuh"
#include "host.cuh"
#include "ops.h"

namespace sl {
namespace SL_BACKEND_NS {

template <typename T, int Vec>
__global__ void __launch_bounds__(256) gated_activation_kernel(gmem<T> y, gmem<const T> gate, gmem<const T> up, int F, int kind,
                                                               long long y_stride, long long gate_stride, long long up_stride) {
  const int f = int(blockIdx.x * blockDim.x + threadIdx.x) * Vec;
  if (f >= F) return;
  const long long t = blockIdx.y;
  float g[Vec], u[Vec];
  load_floats<Vec, T>(g, gate + (t * gate_stride + f));
  load_floats<Vec, T>(u, up + (t * up_stride + f));
#pragma unroll
  for (int i = 0; i < Vec; i++) g[i] = activate(g[i], kind) * u[i];
  store_floats<Vec, T>(y + (t * y_stride + f), g);
}

template <typename T, int Vec>
static void start(stream& s, const gated_activation_args& a) {
  const int F = int(a.y.shape[1]);
  // The grid's second dimension ends at 65,535.
  for (int64_t first = 0; first < a.y.shape[0]; first += 65535) {
    const dim3 grid(blocks_for(F, 256 * Vec), unsigned(std::min<int64_t>(65535, a.y.shape[0] - first)));
    launch(native(s), KERNEL(gated_activation_kernel<T, Vec>), grid, 256, 0, a.y.as<T>() + first * a.y.stride[0],
           a.gate.as<const T>() + first * a.gate.stride[0], a.up.as<const T>() + first * a.up.stride[0], F, a.activation,
           a.y.stride[0], a.gate.stride[0], a.up.stride[0]);
  }
}

void gated_activation_cuda(stream& s, const gated_activation_args& a) {
  const bool vectors = rows_aligned_16(a.gate) && rows_aligned_16(a.up) && rows_aligned_16(a.y);
  for_activation(a.y.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (vectors) start<T, elements_of_16_bytes<T>>(s, a);
    else start<T, 1>(s, a);
  });
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
