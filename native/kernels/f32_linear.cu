// f32_linear: y[t,n] = cap(scale * (sum_k x[t,k] * w[n,k] + bias[n])) + residual[t,n] in f32, for many rows of x
// x [T,K] in {f32,f16,bf16}   w [N,K] of any storage: what tensor cores would round more than the record allows
// grid (tiles of 64 x 64, parts of K)   block 128: 8 x 4 sums a thread   shared 34 KB
// bound by the f32 units; w is read once for 64 rows of x.
#include "linear.cuh"

namespace sl {
namespace SL_BACKEND_NS {

constexpr int side = 64, depth = 32, side_row = side + 4;  // of a tile; along K; floats between two k in shared memory
constexpr int tile_threads = 128, held = side * depth / 8 / tile_threads;

struct tile_octets { float x[held][8], w[held][8]; };

__global__ void __launch_bounds__(tile_threads, 3)
    f32_linear_kernel(epilogue out, gmem<float> partial, any_input x, long long x_stride, bool aligned, weight_view w, int tokens,
                       int tiles_m, int steps, int split_steps) {
  SHARED_ARRAY(float, xs, 2 * depth * side_row);  // by k, then by row
  SHARED_ARRAY(float, ws, 2 * depth * side_row);
  const int row0 = int(blockIdx.x) % tiles_m * side, column0 = int(blockIdx.x) / tiles_m * side;
  const int from = int(blockIdx.y) * split_steps, to = min(steps, from + split_steps);

  // A lane takes an octet of a row of its own, so that neighbours write to neighbouring banks.
  const auto fetch = [&](tile_octets& o, int step) {
#pragma unroll
    for (int i = 0; i < held; i++) {
      const int at = int(threadIdx.x) + i * tile_threads, row = at % side, k = step * depth + at / side * 8;
      x.load_octet(o.x[i], (long long)min(row0 + row, tokens - 1) * x_stride + k, w.cols - k, aligned);
      weight_octet(o.w[i], w, min(column0 + row, w.rows - 1), k);
    }
  };
  const auto put = [&](const tile_octets& o, int buffer) {
#pragma unroll
    for (int i = 0; i < held; i++) {
      const int at = int(threadIdx.x) + i * tile_threads, row = at % side;
      const int first = (buffer * depth + at / side * 8) * side_row + row;
#pragma unroll
      for (int e = 0; e < 8; e++) xs[first + e * side_row] = o.x[i][e], ws[first + e * side_row] = o.w[i][e];
    }
  };

  const int n = int(threadIdx.x) % 16 * 4, m = int(threadIdx.x) / 16 * 8;
  float sum[8][4] = {};
  tile_octets next;
  if (from < to) fetch(next, from), put(next, 0);
  for (int step = from; step < to; step++) {
    const int buffer = (step - from) % 2;
    __syncthreads();
    if (step + 1 < to) fetch(next, step + 1);
#pragma unroll 4
    for (int k = 0; k < depth; k++) {
      const int row = (buffer * depth + k) * side_row;
      const float4 b = view_as<float4>(ws + (row + n))[0];
      const float4 low = view_as<float4>(xs + (row + m))[0], high = view_as<float4>(xs + (row + m + 4))[0];
      const float a[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int i = 0; i < 8; i++) sum[i][0] += a[i] * b.x, sum[i][1] += a[i] * b.y, sum[i][2] += a[i] * b.z, sum[i][3] += a[i] * b.w;
    }
    if (step + 1 < to) put(next, buffer ^ 1);  // its readers are behind this step's barrier
  }

#pragma unroll
  for (int i = 0; i < 8; i++) {
    const int t = row0 + m + i, c = column0 + n;
    if (t >= tokens || c >= w.rows) continue;
    if (!partial) {
      out.put_four(t, c, w.rows, sum[i]);
      continue;
    }
    const gmem<float> at = partial + (((long long)blockIdx.y * tokens + t) * w.rows + c);
    if (w.rows % 4 == 0) {
      view_as<float4>(at)[0] = make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
    } else {
#pragma unroll
      for (int e = 0; e < 4; e++)
        if (c + e < w.rows) at[e] = sum[i][e];
    }
  }
}

// --- the end of a split product ------------------------------------------------------------------------------------------

// grid (N / 1024, T)   block 256, four columns a thread
__global__ void __launch_bounds__(256)
    add_splits_kernel(epilogue out, gmem<const float> partial, int splits, int tokens, int N) {
  const int n = (int(blockIdx.x) * 256 + int(threadIdx.x)) * 4, t = int(blockIdx.y);
  if (n >= N) return;
  float v[4] = {};
  for (int i = 0; i < splits; i++) {
    const gmem<const float> from = partial + (((long long)i * tokens + t) * N + n);
    if (N % 4 == 0) {
      const float4 four = view_as<float4>(from)[0];
      v[0] += four.x, v[1] += four.y, v[2] += four.z, v[3] += four.w;
    } else {
#pragma unroll
      for (int e = 0; e < 4; e++)
        if (n + e < N) v[e] += from[e];
    }
  }
  out.put_four(t, n, N, v);
}

static void add_splits(stream& s, const linear_args& a, const cuda_weight& w, int split, const char* workspace) {
  launch(native(s), KERNEL(add_splits_kernel), dim3(blocks_for(w.rows, 1024), unsigned(a.x.shape[0])), 256, 0, epilogue_of(a),
         reinterpret_cast<const float*>(workspace), split, int(a.x.shape[0]), int(w.rows));
}

void f32_linear(stream& s, const linear_args& a, const cuda_weight& w, char* workspace) {
  const int64_t T = a.x.shape[0];
  const f32_plan p = plan_f32(T, w.rows, w.cols, multiprocessors(*s.owner));
  const int tiles_m = int(blocks_for(T, side)), steps = int(blocks_for(w.cols, depth));
  float* partial = p.split > 1 ? reinterpret_cast<float*>(workspace) : nullptr;
  launch(native(s), KERNEL(f32_linear_kernel), dim3(unsigned(tiles_m) * blocks_for(w.rows, side), unsigned(p.split)), tile_threads, 0,
         epilogue_of(a), partial, input_of(a.x), a.x.stride[0], rows_aligned_16(a.x), view_of(w), int(T), tiles_m, steps,
         int(blocks_for(steps, p.split)));
  if (partial) add_splits(s, a, w, p.split, workspace);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
