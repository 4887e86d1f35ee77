// embedding: y[t,:] = scale * table[ids[t],:]     gather: y[i,:] = x[rows[i],:]
// grid a row each   block 128   bound by latency: a few rows
#include "linear.cuh"
#include "ops.h"

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

// A lane's part of a block of a row a thread (packed.h): 16 bytes, or 32 of eight bits.
__global__ void embedding_packed_kernel(any_output y, gmem<const int> ids, weight_view table, float scale, long long y_stride, bool fours) {
  const long long t = blockIdx.x, id = ids[t];
  const bool known = id >= 0 && id < table.rows;
  for (int u = int(threadIdx.x); u < 4 * table.blocks; u += int(blockDim.x)) {
    const int block = u / 4, c = u % 4;
    const long long lane = known ? (id / packed_rows * table.blocks + block) * 32 + id % packed_rows * 4 + c : 0;
    uint32_t low[8] = {}, high[2] = {};
    if (known && table.kind == storage::eight) {
      const long long first = lane + (id / packed_rows * table.blocks + block) * 32;  // halves of 32 lanes
      const uint4 a = view_as<uint4>(table.data)[first], b = view_as<uint4>(table.data)[first + 32];
      low[0] = a.x, low[1] = a.y, low[2] = a.z, low[3] = a.w, low[4] = b.x, low[5] = b.y, low[6] = b.z, low[7] = b.w;
    } else if (known) {
      const uint4 a = view_as<uint4>(table.data)[lane];
      low[0] = a.x, low[1] = a.y, low[2] = a.z, low[3] = a.w;
      if (table.kind == storage::five) high[0] = view_as<uint32_t>(table.high)[lane];
      if (table.kind == storage::six) {
        const uint2 bits = view_as<uint2>(table.high)[lane];
        high[0] = bits.x, high[1] = bits.y;
      }
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
      float2 g = make_float2(0.0f, 0.0f);
#pragma unroll
      for (int s = 0; s < 2; s++) {
        const int k = block * packed_block + 32 * j + 16 * s + 4 * c;
        if (k >= table.cols) continue;
        float v[4];
        if (known) {
          if (s == 0 || table.group == 16) g = group_scale(table, id, k);
          if (table.kind == storage::eight) bytes_four(v, low[2 * j + s], table.center);
          else nibbles_four(v, low[j], 2 * s, table.kind == storage::five ? fifth_bits(high[0], j, s) : table.kind == storage::six ? sixth_bits(high[j / 2], j, s) : 0u, table.center);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] = known ? scale * (g.x * v[i] + g.y) : SL_NAN;
        if (fours) {
          y.put_four(t * y_stride + k, v);
        } else {
#pragma unroll
          for (int i = 0; i < 4; i++)
            if (k + i < table.cols) y.put(t * y_stride + k + i, v[i]);
        }
      }
    }
  }
}

void embedding_cuda(stream& s, const embedding_args& a) {
  const cuda_weight& w = as_cuda(a.table);
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
    default:
      return launch(native(s), KERNEL(embedding_packed_kernel), T, 128, 0, y, ids, view_of(w), a.scale, a.y.stride[0],
                    fours_allowed(a.y));
  }
}

// T stands for any type of that size; `missing` is what a row outside of x holds: NaN, or zero for integers.
template <typename T>
__global__ void gather_kernel(gmem<T> y, gmem<const T> x, gmem<const int> rows, long long T_rows, int D, long long y_stride,
                              long long x_stride, T missing) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const long long i = blockIdx.x, row = rows[i];
  for (int d = int(threadIdx.x); d < D; d += int(blockDim.x))
    y[i * y_stride + d] = row >= 0 && row < T_rows ? T(x[row * x_stride + d]) : missing;
}

void gather_cuda(stream& s, const gather_args& a) {
  if (a.y.shape[0] == 0) return;
  const auto start_as = [&](auto missing, int64_t elements) {  // of a T
    using T = decltype(missing);
    launch_early(native(s), KERNEL(gather_kernel<T>), unsigned(a.y.shape[0]), 128, 0, a.y.as<T>(), a.x.as<const T>(),
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
