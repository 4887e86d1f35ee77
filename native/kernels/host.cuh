// The launchers' side: from checked arguments to kernel parameters.
#pragma once

#include <type_traits>

#include "backend.h"
#include "launch.cuh"
#include "paged.cuh"
#include "stream.h"
#include "vec.cuh"

namespace sl {
namespace SL_BACKEND_NS {

// Calls f with a value of the activation type.
template <typename F>
void for_activation(sl_dtype dtype, F f) {
  switch (dtype) {
    case SL_DTYPE_F32: return f(float());
    case SL_DTYPE_F16: return f(half());
    case SL_DTYPE_BF16: return f(__nv_bfloat16());
    default: throw error(SL_ERR_DTYPE, format("expected f32, f16 or bf16, got %s", name_of(dtype)));
  }
}

template <typename T>
constexpr sl_dtype dtype_of() {
  if constexpr (std::is_same_v<T, float>) return SL_DTYPE_F32;
  else if constexpr (std::is_same_v<T, half>) return SL_DTYPE_F16;
  else return SL_DTYPE_BF16;
}

// Null where the tensor is absent.
inline any_input input_of(const view& v) {
  any_input in{nullptr, nullptr, nullptr};
  if (!v) return in;
  if (v.dtype == SL_DTYPE_F32) in.f32 = gmem<const float>(v.as<const float>());
  else if (v.dtype == SL_DTYPE_F16) in.f16 = gmem<const half>(v.as<const half>());
  else in.bf16 = gmem<const __nv_bfloat16>(v.as<const __nv_bfloat16>());
  return in;
}

inline any_output output_of(const view& v) {
  any_output out{nullptr, nullptr, nullptr};
  if (!v) return out;
  if (v.dtype == SL_DTYPE_F32) out.f32 = gmem<float>(v.as<float>());
  else if (v.dtype == SL_DTYPE_F16) out.f16 = gmem<half>(v.as<half>());
  else out.bf16 = gmem<__nv_bfloat16>(v.as<__nv_bfloat16>());
  return out;
}

// A layer's pool of keys or values.
inline view pool_of(const kv_view& c, int32_t layer, bool keys) {
  view v;
  v.data = keys ? c.keys + uint64_t(layer) * c.key_layer_bytes : c.values + uint64_t(layer) * c.value_layer_bytes;
  v.dtype = c.dtype;
  return v;
}

// Keys and values in eight bits come with a scale a token and head.
inline bool has_scales(const kv_view& c) { return c.key_scales != nullptr; }
inline float* scales_of(const kv_view& c, int32_t layer, bool keys) {
  float* all = keys ? c.key_scales : c.value_scales;
  return all == nullptr ? nullptr : all + uint64_t(layer) * c.scale_layer_count;
}

inline device_plan plan_of(const batch_view& b) {
  const plan_view& p = b.device;
  return {reinterpret_cast<const int*>(p.header), p.query_indptr, p.kv_lengths, p.page_indptr, p.page_ids, p.positions,
          p.token_sequence, p.token_slot, p.mask, p.mask_indptr};
}

inline page_shape shape_of(const kv_view& c) {
  int shift = 0;
  while (1 << shift < c.page_size) shift++;
  return {c.kv_heads, shift};
}

inline bool aligned_16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Rows of a tensor may be read 16 bytes at a time: its address, its row strides and its width allow it.
inline bool rows_aligned_16(const view& v) {
  if (!v) return true;
  const int64_t n = 16 / int64_t(size_of(v.dtype));
  bool ok = aligned_16(v.data) && v.shape[v.rank - 1] % n == 0;
  for (int i = 0; i + 1 < v.rank; i++) ok = ok && (v.shape[i] == 1 || v.stride[i] % n == 0);
  return ok;
}

inline unsigned blocks_for(int64_t n, int64_t per_block) { return unsigned((n + per_block - 1) / per_block); }

}  // namespace SL_BACKEND_NS
}  // namespace sl
