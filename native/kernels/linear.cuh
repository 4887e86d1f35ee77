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
          a.scale, a.soft_cap, fours_allowed(a.y) && fours_allowed(a.residual), a.squares.as<float>(), a.squares ? a.squares.stride[0] : 0};
}

inline weight_view view_of(const cuda_weight& w) {
  weight_view v{};
  v.data = gmem<const char>(w.data), v.high = gmem<const char>(w.high);
  v.scales = gmem<const char>(w.scales), v.supers = gmem<const char>(w.supers);
  v.kind = w.storage, v.scale_kind = w.scaling, v.rows = int(w.rows), v.cols = int(w.cols), v.blocks = int(packed_blocks(w.cols));
  v.super_blocks = (v.blocks + 1) / 2, v.group = w.group, v.scale_shift = w.group <= 32 ? 0 : w.group == 64 ? 1 : 2;
  v.scale_bytes = w.quantised() ? packed_block / w.group * scale_size(w.scaling) : 0;
  v.center = float(w.center), v.aligned = w.cols % 8 == 0;
  return v;
}

inline const cuda_weight& as_cuda(const weight* w) { return static_cast<const cuda_weight&>(*w); }

inline view matrix(char* data, sl_dtype dtype, int64_t rows, int64_t cols, int64_t stride = 0) {
  view v;
  v.data = data, v.dtype = dtype, v.rank = 2;
  v.shape[0] = rows, v.shape[1] = cols, v.stride[0] = stride ? stride : cols, v.stride[1] = 1;
  return v;
}

constexpr uint64_t padded(uint64_t bytes) { return (bytes + 255) / 256 * 256; }

// The type in which tensor cores take products of w with rows of x that are rounded to `x`; f32 where they take none.
inline sl_dtype products_of(const cuda_weight& w, sl_dtype x) {
  switch (w.storage) {
    case storage::f32: return SL_DTYPE_F32;
    case storage::f16: return SL_DTYPE_F16;
    case storage::bf16: return SL_DTYPE_BF16;
    default: return x;
  }
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
