// What the launchers of the matrix kernels share.
#pragma once

#include <type_traits>

#include "epilogue.cuh"
#include "host.cuh"
#include "linear.h"

namespace sl {
namespace SL_BACKEND_NS {

constexpr int gemv_warps = 4;

template <typename T>
epilogue<T> epilogue_of(const linear_args& a) {
  return {output_of(a.y), either_of<T>(a.bias), input_of(a.residual), a.y.stride[0], a.residual ? a.residual.stride[0] : 0,
          a.scale, a.soft_cap};
}

// Calls f with how many rows of x a tile takes: more share each weight, and cost registers.
template <typename F>
void for_tile(int64_t tokens, F f) {
  if (tokens == 1) f(std::integral_constant<int, 1>());
  else if (tokens <= 4) f(std::integral_constant<int, 4>());
  else f(std::integral_constant<int, 16>());
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
