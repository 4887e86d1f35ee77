// embedding: y[t,:] = scale * table[ids[t],:]     gather: y[i,:] = x[rows[i],:]
// grid a row each   block 128   bound by latency: a few rows
#include "host.cuh"
#include "ops.h"
#include "packed.cuh"
#include "weight.h"

namespace sl {
namespace SL_BACKEND_NS {

#define SL_NAN (__int_as_float(0x7fc00000))

template <typename W>
__global__ void embedding_kernel(any_output y, gmem<const int> ids, gmem<const W> table, float scale, long long V, int D,
                                 long long y_stride) {
  const long long t = blockIdx.x, id = ids[t];
  for (int d = int(threadIdx.x); d < D; d += int(blockDim.x))
    y.put(t * y_stride + d, id >= 0 && id < V ? scale * to_float(table[id * D + d]) : SL_NAN);
}

__device__ __forceinline__ float2 pair_of(gmem<const half2> p) { return __half22float2(p[0]); }
__device__ __forceinline__ float2 pair_of(gmem<const float2> p) { return p[0]; }

template <typename Group, bool Zero>
__global__ void embedding_int4_kernel(any_output y, gmem<const int> ids, gmem<const uint32_t> words, gmem<const Group> groups,
                                      int group, float scale, long long V, int D, long long y_stride) {
  const long long t = blockIdx.x, id = ids[t];
  const long long row_words = units_of(D, int4_unit) * 4;
  for (int d = int(threadIdx.x); d < D; d += int(blockDim.x)) {
    float v = SL_NAN;
    if (id >= 0 && id < V) {
      const float q = float(words[id * row_words + int4_word(d)] >> int4_bit(d) & 15);
      const float2 g = pair_of(groups + (id * (D / group) + d / group));
      v = scale * (Zero ? g.x * (q - g.y) : g.x * q + g.y);
    }
    y.put(t * y_stride + d, v);
  }
}

__global__ void embedding_int8_kernel(any_output y, gmem<const int> ids, gmem<const signed char> q, gmem<const float2> groups,
                                      int group, float scale, long long V, int D, long long y_stride) {
  const long long t = blockIdx.x, id = ids[t];
  for (int d = int(threadIdx.x); d < D; d += int(blockDim.x)) {
    float v = SL_NAN;
    if (id >= 0 && id < V) {
      const float2 g = groups[id * (D / group) + d / group];
      v = scale * (g.x * float(q[id * units_of(D, int8_unit) * int8_unit + int8_byte(d)]) + g.y);
    }
    y.put(t * y_stride + d, v);
  }
}

void embedding_cuda(stream& s, const embedding_args& a) {
  const auto& w = static_cast<const cuda_weight&>(*a.table);
  const unsigned T = unsigned(a.y.shape[0]);
  const int D = int(w.cols);
  const int* ids = a.ids.as<const int>();
  const any_output y = output_of(a.y);
  const auto dense = [&](auto zero) {
    using W = decltype(zero);
    launch(native(s), KERNEL(embedding_kernel<W>), T, 128, 0, y, ids, w.values<W>(), a.scale, w.rows, D, a.y.stride[0]);
  };
  switch (w.storage) {
    case storage::f32: return dense(float());
    case storage::f16: return dense(half());
    case storage::bf16: return dense(__nv_bfloat16());
    case storage::int4_zero:
      return launch(native(s), KERNEL(embedding_int4_kernel<half2, true>), T, 128, 0, y, ids, w.values<uint32_t>(),
                    w.scales<half2>(), w.group, a.scale, w.rows, D, a.y.stride[0]);
    case storage::int4_bias:
      return launch(native(s), KERNEL(embedding_int4_kernel<half2, false>), T, 128, 0, y, ids, w.values<uint32_t>(),
                    w.scales<half2>(), w.group, a.scale, w.rows, D, a.y.stride[0]);
    case storage::int4_wide:
      return launch(native(s), KERNEL(embedding_int4_kernel<float2, false>), T, 128, 0, y, ids, w.values<uint32_t>(),
                    w.scales<float2>(), w.group, a.scale, w.rows, D, a.y.stride[0]);
    case storage::int8:
      return launch(native(s), KERNEL(embedding_int8_kernel), T, 128, 0, y, ids, w.values<signed char>(), w.scales<float2>(),
                    w.group, a.scale, w.rows, D, a.y.stride[0]);
  }
}

// T stands for any type of that size; `missing` is what a row outside of x holds: NaN, or zero for integers.
template <typename T>
__global__ void gather_kernel(gmem<T> y, gmem<const T> x, gmem<const int> rows, long long T_rows, int D, long long y_stride,
                              long long x_stride, T missing) {
  const long long i = blockIdx.x, row = rows[i];
  for (int d = int(threadIdx.x); d < D; d += int(blockDim.x))
    y[i * y_stride + d] = row >= 0 && row < T_rows ? T(x[row * x_stride + d]) : missing;
}

void gather_cuda(stream& s, const gather_args& a) {
  if (a.y.shape[0] == 0) return;
  const auto start_as = [&](auto missing, int64_t elements) {  // of a T
    using T = decltype(missing);
    launch(native(s), KERNEL(gather_kernel<T>), unsigned(a.y.shape[0]), 128, 0, a.y.as<T>(), a.x.as<const T>(),
           a.rows.as<const int>(), a.x.shape[0], int(a.x.shape[1] / elements), a.y.stride[0] / elements, a.x.stride[0] / elements,
           missing);
  };
  const auto start = [&](auto missing) {
    constexpr int n = 16 / int(sizeof missing);
    if (!rows_aligned_16(a.x) || !rows_aligned_16(a.y)) return start_as(missing, 1);
    uint4 wide;
    for (int i = 0; i < n; i++) memcpy(reinterpret_cast<char*>(&wide) + i * sizeof missing, &missing, sizeof missing);
    start_as(wide, n);
  };
  switch (a.x.dtype) {
    case SL_DTYPE_F32: return start(uint32_t(0x7fc00000));
    case SL_DTYPE_F16: return start(uint16_t(0x7e00));
    case SL_DTYPE_BF16: return start(uint16_t(0x7fc0));
    case SL_DTYPE_FP8_E4M3: return start(uint8_t(0x7f));
    default: break;
  }
  switch (size_of(a.x.dtype)) {
    case 1: return start(uint8_t(0));
    case 4: return start(uint32_t(0));
    default: return start((unsigned long long)(0));
  }
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
