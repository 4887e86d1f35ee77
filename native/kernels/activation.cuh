// What a gate does to a number.
#pragma once

#include "backend.h"
#include "mem.cuh"

namespace sl {
namespace SL_BACKEND_NS {

__device__ __forceinline__ float activate(float v, int kind) {
  switch (kind) {
    case SL_ACTIVATION_SILU: return v / (1.0f + expf(-v));
    case SL_ACTIVATION_GELU_TANH:
      return 0.5f * v * (1.0f + tanhf(0.797884560802865356f * (v + 0.044715f * v * v * v)));
    case SL_ACTIVATION_GELU_ERF: return 0.5f * v * (1.0f + erff(v * 0.707106781186547524f));
    default: return v > 0.0f || isnan(v) ? v : 0.0f;  // RELU; NaN stays
  }
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
