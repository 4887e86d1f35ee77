// What the launchers of the matrix kernels share.
#pragma once

#include <algorithm>

#include "device.h"
#include "epilogue.cuh"
#include "host.cuh"
#include "linear.h"
#include "packed.cuh"

namespace sl {
namespace SL_BACKEND_NS {

inline bool fours_allowed(const view& v) {
  return !v || (reinterpret_cast<uintptr_t>(v.data) % (4 * size_of(v.dtype)) == 0 && v.shape[1] % 4 == 0 &&
                (v.shape[0] == 1 || v.stride[0] % 4 == 0));
}

inline epilogue epilogue_of(const linear_args& a) {
  return {output_of(a.y), input_of(a.bias), input_of(a.residual), a.y.stride[0], a.residual ? a.residual.stride[0] : 0,
          a.scale, a.soft_cap, fours_allowed(a.y) && fours_allowed(a.residual)};
}

inline weight_view view_of(const cuda_weight& w) {
  weight_view v{};
  v.data = gmem<const char>(w.data), v.groups = gmem<const char>(w.groups);
  v.kind = w.storage, v.rows = int(w.rows), v.cols = int(w.cols), v.group = w.group, v.shift = -1;
  v.row_groups = int(w.cols / w.group);
  for (int i = 0; i < 31; i++)
    if (1 << i == w.group) v.shift = i;
  v.aligned = w.cols % 8 == 0;
  return v;
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
