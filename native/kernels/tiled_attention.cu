// tiled_attention: paged attention on CUDA cores for tiles of 32 query rows, where nothing may be rounded to 16 bits (q or the
// cache in f32), for caches of another 16-bit type than q's, and for what tensor cores do not take.
// q, o {f32,f16,bf16}   k, v in any type, with scales where they have eight bits   D, Dv up to 256
// grid: two blocks a multiprocessor, which share all tiles (attention_work.cuh)   block 128: 8 groups of 16 threads, a group 4 rows   shared: 22 KB for D 64, 70 KB for 256
// Bound by f32 arithmetic; each key and value is read once a tile. Rows of keys begin 4 banks apart: their stride in
// vectors of 16 bytes is odd.
#include "attention_tile.cuh"
#include "host.cuh"
#include "quantised.cuh"

namespace sl {
namespace SL_BACKEND_NS {

namespace {

constexpr int tiled_rows = 32, tiled_keys = 32, tiled_threads = 128, p_stride = tiled_keys + 4;

// Floats of shared memory: queries, keys and then values in one place, probabilities.
struct tiled_layout {
  int q_stride, v_stride, keys, scores, end;
};
__host__ __device__ inline tiled_layout tiled_layout_of(int D, int Dv) {
  tiled_layout l{};
  l.q_stride = (D + 3) / 4 * 4, l.v_stride = (Dv + 3) / 4 * 4;
  if (l.q_stride / 4 % 2 == 0) l.q_stride += 4;
  l.keys = tiled_rows * l.q_stride;
  l.scores = l.keys + tiled_keys * (l.q_stride > l.v_stride ? l.q_stride : l.v_stride);
  l.end = l.scores + tiled_rows * p_stride;
  return l;
}

__device__ __forceinline__ void fma_4(float& sum, float4 a, float4 b) {
  sum += a.x * b.x;
  sum += a.y * b.y;
  sum += a.z * b.z;
  sum += a.w * b.w;
}

// Parts: 64 dims of the values a thread has 4 of.
template <int Parts>
__global__ void __launch_bounds__(tiled_threads, 2)
    tiled_attention_kernel(tile_params p, device_plan plan, page_shape shape) {
  allow_next_kernel();
  DYN_SHARED(float, memory);
  SHARED_ARRAY(long long, key_rows, tiled_keys);
  SHARED_ARRAY(float, scales, 2 * tiled_keys);
  early_exit_allowed();  // whole blocks
  SHARED_ARRAY(block_work<tiled_rows>, work, 1);
  SHARED_ARRAY(query_tile, piece, 1);
  SHARED_ARRAY(int, found, 4);
  const tiled_layout at = tiled_layout_of(p.D, p.Dv);
  const smem<float> queries = memory, keys = memory + at.keys, values = keys, scores = memory + at.scores;

  const int thread = int(threadIdx.x), column = thread % 16, own = thread / 16 * 4;
  // The plan is written before any kernel of its step, so the search need not wait; all else does, and who leaves does, for those behind.
  bool more = next_piece<tiled_rows>(work, piece, found, true, p, plan);
  wait_for_previous_kernel();
  for (; more; more = next_piece<tiled_rows>(work, piece, found, false, p, plan)) {
    query_tile tile = get_words<query_tile>(piece);
    const tile_keys range = keys_of(tile, p, plan);
    if (range.first < range.last) {
      for (int i = thread; i < tiled_rows * at.q_stride; i += tiled_threads) {
        const int row = i / at.q_stride, d = i % at.q_stride;
        float v = 0.0f;
        if (row < tile.rows && d < p.D) {
          const row_place from = place_of(tile, p, row);
          v = p.q.at(from.token * p.q_token + from.head * p.q_head + d);
        }
        queries[i] = v;
      }
    }
    seen_keys seen[4];
    float slope[4], offset[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const row_place from = place_of(tile, p, min(own + i, tile.rows - 1));
      seen[i] = seen_by(p, plan, from.token);
      seen[i].first = max(seen[i].first, range.first),
      seen[i].last = own + i < tile.rows ? min(seen[i].last, range.last) : 0;
      slope[i] = p.slopes && range.first < range.last ? p.slopes[from.head] * log2_e : 0.0f;
      offset[i] = p.slopes && range.first < range.last ? float(plan.positions[from.token]) : 0.0f;
    }
    softmax_state state[4];
    float acc[4][Parts][4] = {};
#pragma unroll
    for (int i = 0; i < 4; i++) state[i] = empty_softmax();

    const auto fill = [&](smem<float> to, int stride, gmem<const unsigned char> pool, int dims) {
      const bool whole = dims % 4 == 0;
      for (int i = thread; i < tiled_keys * (stride / 4); i += tiled_threads) {
        const int row = i / (stride / 4), d = i % (stride / 4) * 4;
        const long long from = key_rows[row];
        float v[4] = {};
        if (from >= 0 && whole && d < dims) pool_4_at(v, pool, p.kv_dtype, from * dims + d);
        if (from >= 0 && !whole)
          for (int e = 0; e < 4 && d + e < dims; e++) v[e] = pool_at(pool, p.kv_dtype, from * dims + d + e);
        const float4 vector = {v[0], v[1], v[2], v[3]};
        view_as<float4>(to + (row * stride + d))[0] = vector;
      }
    };

    // Steps begin where they would for any other rows: a row's bits do not depend on those beside it.
    for (int first = range.first / tiled_keys * tiled_keys; range.first < range.last && first < range.last; first += tiled_keys) {
      __syncthreads();  // the last tile is done with
      if (thread < tiled_keys) {
        const int key = first + thread;
        long long row = -1;
        if (key >= range.first && key < range.last)
          row = page_row(shape, plan.page_ids[tile.page_row + (key >> shape.page_shift)], tile.kv_head, key);
        key_rows[thread] = row;
        scales[thread] = row >= 0 && p.key_scales ? p.key_scales[row] : 1.0f;
        scales[tiled_keys + thread] = row >= 0 && p.value_scales ? p.value_scales[row] : 1.0f;
      }
      __syncthreads();
      fill(keys, at.q_stride, p.keys, p.D);
      __syncthreads();

      float score[4][2] = {};
      for (int d = 0; d < p.D; d += 4) {
        const float4 low = view_as<float4>(keys + (column * at.q_stride + d))[0];
        const float4 high = view_as<float4>(keys + ((column + 16) * at.q_stride + d))[0];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float4 q = view_as<float4>(queries + ((own + i) * at.q_stride + d))[0];
          fma_4(score[i][0], q, low);
          fma_4(score[i][1], q, high);
        }
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float top = state[i].max;
#pragma unroll
        for (int e = 0; e < 2; e++) {
          const int key = first + column + 16 * e;
          score[i][e] = score_of(score[i][e] * scales[column + 16 * e], p) + slope[i] * (float(key) - offset[i]);
          if (!sees(seen[i], plan, key)) score[i][e] = SL_NEGATIVE_INFINITY;
          top = fmaxf(top, score[i][e]);
        }
#pragma unroll
        for (int d = 8; d > 0; d /= 2) top = fmaxf(top, __shfl_xor_sync(all_lanes, top, d));
        const float keep = rescale(state[i].max, top), from = top == SL_NEGATIVE_INFINITY ? 0.0f : top;
        state[i] = {top, state[i].sum * keep};
#pragma unroll
        for (int part = 0; part < Parts; part++)
#pragma unroll
          for (int e = 0; e < 4; e++) acc[i][part][e] *= keep;
#pragma unroll
        for (int e = 0; e < 2; e++) {
          const float probability = ex2(score[i][e] - from);
          state[i].sum += probability;  // of this thread's keys
          // Exactly zero where it counts for nothing: an unseen key's scale may be infinite or NaN.
          scores[(own + i) * p_stride + column + 16 * e] =
              probability == 0.0f ? 0.0f : probability * scales[tiled_keys + column + 16 * e];
        }
      }
      __syncthreads();  // the keys are done with
      fill(values, at.v_stride, p.values, p.Dv);
      __syncthreads();
      for (int key = 0; key < tiled_keys && first + key < range.last; key++) {
        float weight[4];
#pragma unroll
        for (int i = 0; i < 4; i++) weight[i] = scores[(own + i) * p_stride + key];
#pragma unroll
        for (int part = 0; part < Parts; part++) {
          if (part * 64 < at.v_stride) {
            const int d = min(part * 64 + column * 4, at.v_stride - 4);  // past the last: it again, not stored
            const float4 v = view_as<float4>(values + (key * at.v_stride + d))[0];
#pragma unroll
            for (int i = 0; i < 4; i++) {
              // An unseen value may be infinite or NaN.
              const bool counts = weight[i] != 0.0f;
              acc[i][part][0] += weight[i] * (counts ? v.x : 0.0f);
              acc[i][part][1] += weight[i] * (counts ? v.y : 0.0f);
              acc[i][part][2] += weight[i] * (counts ? v.z : 0.0f);
              acc[i][part][3] += weight[i] * (counts ? v.w : 0.0f);
            }
          }
        }
      }
    }

    tile = get_words<query_tile>(piece);  // again, so that what only results need is not kept
#pragma unroll
    for (int i = 0; i < 4; i++) {
      state[i].sum = warp_sum<16>(state[i].sum);
      if (own + i < tile.rows) {
#pragma unroll
        for (int part = 0; part < Parts; part++) {
          const int d = part * 64 + column * 4;
          if (d < p.Dv) put_sums(p, plan, tile, own + i, d, acc[i][part], state[i]);
        }
      }
    }
    finish_piece(p, plan, tile);
  }
}

}  // namespace

void tiled_attention(stream& s, const tile_params& p, const device_plan& plan, page_shape shape) {
  const dim3 grid(unsigned(p.blocks));
  const size_t shared = size_t(tiled_layout_of(p.D, p.Dv).end) * 4;
  if (p.Dv <= 64)
    launch_early(native(s), KERNEL(tiled_attention_kernel<1>), grid, tiled_threads, shared, p, plan, shape);
  else if (p.Dv <= 128)
    launch_early(native(s), KERNEL(tiled_attention_kernel<2>), grid, tiled_threads, shared, p, plan, shape);
  else launch_early(native(s), KERNEL(tiled_attention_kernel<4>), grid, tiled_threads, shared, p, plan, shape);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
