// paged_attention: o[t,h,:] = softmax_j(cap(scale * q[t,h,:] . k[j,:]) + alibi, masked) . v[j,:] over the pages of t's sequence
// q [T,H,D], o [T,H,Dv] in {f32,f16,bf16}   k, v pools [pages,Hkv,P,D] in {f32,f16,bf16}   lse2 [T,H]
// grid (T, Hkv * head tiles, splits)   block 128   shared 32..64 KB
// A block takes one query token and up to 8 of the query heads that share a KV head, so that each key and value is read
// once for all of them; a long sequence is split along its keys, and the last of its blocks to arrive joins the parts.
// Decode moves the sequence's keys and values once: bound by memory. More rows of a sequence are the tiled kernels' work
// (paged_prefill, tiled_attention): here they are right, but the keys are read for each token.
// Source: Kwon et al. 2023 (pages), Dao et al. 2023 (split-KV), Ye et al. 2025 (the two-stage copy pipeline on CUDA cores).
#pragma once

#include <algorithm>

#include "attention.h"
#include "host.cuh"
#include "merge.cuh"

namespace sl {
namespace SL_BACKEND_NS {

constexpr int attention_threads = 128, attention_warps = attention_threads / 32;
constexpr int keys_a_step = 4;  // of each lane group: one rescaling of the sums serves them all

template <typename KV>
struct attention_params {
  any_input q;
  gmem<const KV> keys, values;
  any_output o;                                 // the result, or with splits: [splits,T,H,Dv] f32
  gmem<float> lse2;                             // or null; with splits [splits,T,H]
  gmem<const float> sinks, slopes;              // [H], or null; sinks only where there is one split
  gmem<const int> first_keys;                   // [B]: where each sequence's own keys begin, or null: at 0
  long long q_token, q_head, o_split, o_token, o_head, lse_split, lse_token, lse_head;
  int D, Dv, group, head_tiles, splits, window;
  float scale, soft_cap;
  bool causal, q_vectors;  // q's rows may be read 16 bytes at a time
  joining join;            // of the splits' states
};

// Where the warps' sums of a head meet: quarters of vectors first, so that lanes store 16 bytes side by side; half of the banks
// lie between quarters, so that neighbouring dims are read from different banks.
template <int Vec, int Vectors>
struct merge_layout {
  static constexpr int part = Vec == 4 ? Vectors * 4 : (Vectors * 4 + 15) / 32 * 32 + 16;  // floats
  static constexpr int width = Vec / 4 * part;
  static_assert(part >= Vectors * 4, "");
  static __device__ __forceinline__ int place(int d) { return d % Vec / 4 * part + d / Vec * 4 + d % 4; }
};

// Lanes threads share a key: each holds Vectors vectors of 16 bytes of it, Heads query heads' parts of q and of the sum.
// A thread copies to shared memory just what it will read itself, so the pipeline waits without a barrier.
// Direct reads elements straight from global memory: for heads whose rows are not whole 16-byte vectors.
template <typename KV, int Lanes, int Vectors, int Heads, bool Direct>
__global__ void __launch_bounds__(attention_threads)
    paged_attention_kernel(attention_params<KV> p, device_plan plan, page_shape shape) {
  constexpr int Vec = elements_of_16_bytes<KV>, Held = Vec * Vectors, Groups = attention_threads / Lanes;
  constexpr int step_keys = Groups * keys_a_step;
  allow_next_kernel();
  wait_for_previous_kernel();
  DYN_SHARED(KV, staging);  // [2 stages][keys, values][keys_a_step][Vectors][threads][Vec]

  const int token = int(blockIdx.x), kv_head = int(blockIdx.y) / p.head_tiles, split = int(blockIdx.z);
  const int first_head = kv_head * p.group + int(blockIdx.y) % p.head_tiles * Heads;
  const int heads = min(Heads, (kv_head + 1) * p.group - first_head);
  const int thread = int(threadIdx.x), lane = thread % Lanes, lane_group = thread / Lanes;
  const auto dim_of = [&](int vector) { return (vector * Lanes + lane) * Vec; };

  // --- which keys: those that the query sees, of this split's chunks -------------------------------------------------
  int first = 0, last = 0, slot = 0, position = 0, page_row_start = 0;
  long long mask_row = -1;
  if (token < plan.num_tokens()) {
    const int sequence = plan.token_sequence[token], length = plan.kv_lengths[sequence];
    slot = plan.token_slot[token], position = plan.positions[token], page_row_start = plan.page_indptr[sequence];
    const int mask_start = plan.mask_indptr[sequence];
    if (plan.mask_indptr[sequence + 1] > mask_start)
      mask_row = mask_start + (long long)(token - plan.query_indptr[sequence]) * ((length + 7) / 8);
    const int own_first = p.first_keys ? int(p.first_keys[sequence]) : 0;
    const int chunks = (length - own_first + SL_ATTENTION_CHUNK - 1) / SL_ATTENTION_CHUNK;
    const int span = (chunks + p.splits - 1) / p.splits * SL_ATTENTION_CHUNK;
    first = own_first + split * span;
    last = min(mask_row < 0 && p.causal ? slot + 1 : length, first + span);
    if (p.window > 0) first = max(first, slot - p.window + 1);
  }
  const auto sees = [&](int key) {
    if (key >= last) return false;
    return mask_row < 0 || (plan.mask[mask_row + key / 8] >> (key % 8) & 1) != 0;
  };

  float q[Heads][Held];
  // Scores are in units of log 2; where they are capped, the cap comes first.
  const float q_scale = p.soft_cap > 0.0f ? p.scale : p.scale * log2_e;
#pragma unroll
  for (int h = 0; h < Heads; h++)
#pragma unroll
    for (int v = 0; v < Vectors; v++) {
      const int valid = h < heads && first < last ? max(0, p.D - dim_of(v)) : 0;
      const long long at = token * p.q_token + (first_head + h) * p.q_head + dim_of(v);
      float part[Vec] = {};
      if (p.q_vectors && valid >= Vec) {
        p.q.template load<Vec>(part, at);
      } else {
#pragma unroll
        for (int i = 0; i < Vec; i++)
          if (i < valid) part[i] = p.q.at(at + i);
      }
#pragma unroll
      for (int i = 0; i < Vec; i++) q[h][v * Vec + i] = part[i] * q_scale;
    }
  float slope[Heads];
#pragma unroll
  for (int h = 0; h < Heads; h++) slope[h] = p.slopes && h < heads ? p.slopes[first_head + h] * log2_e : 0.0f;

  // --- the pipeline: page ids two steps ahead, copies one step ahead -------------------------------------------------
  // A lane looks one key of its warp's up, for all lanes that hold a part of it.
  constexpr int warp_keys = 32 / Lanes * keys_a_step;
  const int warp_lane = thread % 32, warp_first = thread / 32 * warp_keys;
  int page = 0;
  const auto load_pages = [&](int base) {
    const int key = base + warp_first + warp_lane;
    page = warp_lane < warp_keys && key < last ? int(plan.page_ids[page_row_start + (key >> shape.page_shift)]) : 0;
  };
  const auto staged = [&](int stage, int what, int s, int vector) {
    return staging + ((((stage * 2 + what) * keys_a_step + s) * Vectors + vector) * attention_threads + thread) * Vec;
  };
  long long rows[keys_a_step];  // of the step that is computed, where it is read directly
  const auto copy = [&](int stage, int base) {
    unsigned valid = 0;
#pragma unroll
    for (int s = 0; s < keys_a_step; s++) {
      const int key = base + lane_group * keys_a_step + s;
      const bool seen = sees(key);
      valid |= unsigned(seen) << s;
      const int from = __shfl_sync(all_lanes, page, warp_lane / Lanes * keys_a_step + s);
      const long long row = page_row(shape, from, kv_head, key);
      if constexpr (Direct) {
        rows[s] = row;
      } else {
        // What is not seen is zero and not what lies there: zero times NaN would be NaN.
#pragma unroll
        for (int v = 0; v < Vectors; v++) {
          const int d = dim_of(v);
          cp_async_16_or_zero<KV>(staged(stage, 0, s, v), p.keys + (row * p.D + d), seen && d < p.D);
          cp_async_16_or_zero<KV>(staged(stage, 1, s, v), p.values + (row * p.Dv + d), seen && d < p.Dv);
        }
      }
    }
    return valid;
  };
  const auto read = [&](float (&out)[Held], int stage, int what, int s, bool seen) {
    const int dims = what == 0 ? p.D : p.Dv;
#pragma unroll
    for (int v = 0; v < Vectors; v++) {
      if constexpr (Direct) {
#pragma unroll
        for (int i = 0; i < Vec; i++) {
          const int d = dim_of(v) + i;
          out[v * Vec + i] = seen && d < dims ? to_float((what == 0 ? p.keys : p.values)[rows[s] * dims + d]) : 0.0f;
        }
      } else {
        const uint4 raw = view_as<uint4>(staged(stage, what, s, v))[0];
        KV narrow[Vec];
        memcpy(narrow, &raw, 16);
#pragma unroll
        for (int i = 0; i < Vec; i++) out[v * Vec + i] = to_float(narrow[i]);
      }
    }
  };

  softmax_state state[Heads];
  float sum[Heads][Held] = {};
#pragma unroll
  for (int h = 0; h < Heads; h++) state[h] = empty_softmax();

  unsigned valid = 0, next_valid = 0;
  if (first < last) {
    load_pages(first);
    valid = copy(0, first);
    cp_async_commit();
    if (!Direct) load_pages(first + step_keys);
  }
  int stage = 0;
  for (int base = first; base < last; base += step_keys, stage ^= 1, valid = next_valid) {
    if (!Direct && base + step_keys < last) {
      next_valid = copy(stage ^ 1, base + step_keys);
      load_pages(base + 2 * step_keys);
    }
    cp_async_commit();
    cp_async_wait<1>();

    float score[keys_a_step][Heads];
#pragma unroll
    for (int s = 0; s < keys_a_step; s++) {
      float k[Held];
      read(k, stage, 0, s, valid >> s & 1);
      const int key = base + lane_group * keys_a_step + s;
#pragma unroll
      for (int h = 0; h < Heads; h++) {
        float dot = 0.0f;
#pragma unroll
        for (int i = 0; i < Held; i++) dot += q[h][i] * k[i];
        dot = warp_sum<Lanes>(dot);
        if (p.soft_cap > 0.0f) dot = p.soft_cap * log2_e * tanhf(dot / p.soft_cap);
        dot += slope[h] * float(key - position);
        score[s][h] = valid >> s & 1 ? dot : SL_NEGATIVE_INFINITY;
      }
    }
#pragma unroll
    for (int h = 0; h < Heads; h++) {
      float max = state[h].max;
#pragma unroll
      for (int s = 0; s < keys_a_step; s++) max = fmaxf(max, score[s][h]);
      const float keep = rescale(state[h].max, max);
      state[h] = {max, state[h].sum * keep};
#pragma unroll
      for (int i = 0; i < Held; i++) sum[h][i] *= keep;
#pragma unroll
      for (int s = 0; s < keys_a_step; s++) {
        score[s][h] = rescale(score[s][h], max);
        state[h].sum += score[s][h];
      }
    }
#pragma unroll
    for (int s = 0; s < keys_a_step; s++) {
      float v[Held];
      read(v, stage, 1, s, valid >> s & 1);
#pragma unroll
      for (int h = 0; h < Heads; h++)
#pragma unroll
        for (int i = 0; i < Held; i++) sum[h][i] += score[s][h] * v[i];
    }
    if (Direct && base + step_keys < last) {
      load_pages(base + step_keys);
      next_valid = copy(0, base + step_keys);
    }
  }

  // --- the lane groups' states become one: within a warp by shuffles, then across the warps --------------------------
#pragma unroll
  for (int offset = Lanes; offset < 32; offset *= 2)
#pragma unroll
    for (int h = 0; h < Heads; h++) {
      const softmax_state other = {__shfl_xor_sync(all_lanes, state[h].max, offset),
                                   __shfl_xor_sync(all_lanes, state[h].sum, offset)};
      float keep, add;
      state[h] = merge(state[h], other, keep, add);
#pragma unroll
      for (int i = 0; i < Held; i++) sum[h][i] = sum[h][i] * keep + __shfl_xor_sync(all_lanes, sum[h][i], offset) * add;
    }

  using layout = merge_layout<Vec, Lanes * Vectors>;
  const smem<float> sums = view_as<float>(staging);                           // [warps][Heads][width], over the staging
  const smem<float> states = sums + attention_warps * Heads * layout::width;  // [warps][Heads][max, sum]
  __syncthreads();  // everyone has read its staging
  const int warp = thread / 32;
  if (thread % 32 < Lanes) {
#pragma unroll
    for (int h = 0; h < Heads; h++) {
#pragma unroll
      for (int i = 0; i < Held; i += 4) {
        const float4 four = {sum[h][i], sum[h][i + 1], sum[h][i + 2], sum[h][i + 3]};
        view_as<float4>(sums + ((warp * Heads + h) * layout::width + layout::place(dim_of(i / Vec) + i % Vec)))[0] = four;
      }
      if (thread % 32 == 0) {
        states[(warp * Heads + h) * 2] = state[h].max;
        states[(warp * Heads + h) * 2 + 1] = state[h].sum;
      }
    }
  }
  __syncthreads();
  for (int h = 0; h < heads; h++) {
    const int head = first_head + h;
    softmax_state all = empty_softmax();
    for (int w = 0; w < attention_warps; w++) {
      float keep, add;
      all = merge(all, {states[(w * Heads + h) * 2], states[(w * Heads + h) * 2 + 1]}, keep, add);
    }
    const float values_max = all.max;
    float sink_keep = 1.0f, unused;
    if (p.sinks && token < plan.num_tokens()) all = merge(all, {p.sinks[head] * log2_e, 1.0f}, sink_keep, unused);
    const bool empty = all.max == SL_NEGATIVE_INFINITY;
    for (int d = thread; d < p.Dv; d += attention_threads) {
      float total = 0.0f;
      for (int w = 0; w < attention_warps; w++)
        total += sums[(w * Heads + h) * layout::width + layout::place(d)] * rescale(states[(w * Heads + h) * 2], values_max);
      p.o.put(split * p.o_split + token * p.o_token + head * p.o_head + d, empty ? 0.0f : total * sink_keep / all.sum);
    }
    if (thread == 0 && p.lse2)
      p.lse2[split * p.lse_split + token * p.lse_token + head * p.lse_head] = empty ? all.max : all.max + log2f(all.sum);
  }
  if (p.join.arrivals && arrives_last(p.join.arrivals + (token * int(gridDim.y) + int(blockIdx.y)), unsigned(p.splits)))
    for (int h = warp; h < heads; h += attention_warps) merge_row<true>(p.join.rows, token, first_head + h);
}

// --- launch ----------------------------------------------------------------------------------------------------------

inline bool whole_vectors(const kv_view& c) {
  return c.key_dim * size_of(c.dtype) % 16 == 0 && c.value_dim * size_of(c.dtype) % 16 == 0;
}

template <typename KV, int Lanes, int Vectors, int Heads, bool Direct>
void start(stream& s, const attention_args& a, const attention_params<KV>& p) {
  constexpr size_t staged = size_t(2) * 2 * keys_a_step * Vectors * attention_threads * 16;
  constexpr size_t merged = size_t(attention_warps) * Heads * (merge_layout<elements_of_16_bytes<KV>, Lanes * Vectors>::width + 2) * 4;
  constexpr size_t shared = Direct ? merged : staged > merged ? staged : merged;
  const dim3 grid(unsigned(a.q.shape[0]), unsigned(a.cache.kv_heads * p.head_tiles), unsigned(p.splits));
  launch_early(native(s), KERNEL(paged_attention_kernel<KV, Lanes, Vectors, Heads, Direct>), grid, attention_threads, shared, p,
         plan_of(*a.batch), shape_of(a.cache));
}

template <typename KV, int Lanes, int Vectors>
void with_heads(stream& s, const attention_args& a, const attention_params<KV>& p, int heads) {
  switch (heads) {
    case 1: return start<KV, Lanes, Vectors, 1, false>(s, a, p);
    case 4: return start<KV, Lanes, Vectors, 4, false>(s, a, p);
    default: return start<KV, Lanes, Vectors, 8, false>(s, a, p);
  }
}

// One instantiation a file: they take minutes to compile.
template <typename KV>
void attend(stream& s, const attention_args& a, attention_params<KV> p, int heads) {
  p.keys = pool_of(a.cache, a.layer, true).as<const KV>(), p.values = pool_of(a.cache, a.layer, false).as<const KV>();
  constexpr int Vec = elements_of_16_bytes<KV>;
  const int dims = std::max(p.D, p.Dv);
  if (!whole_vectors(a.cache)) return start<KV, 32, 256 / Vec / 32, 1, true>(s, a, p);
  if (dims <= 32) return with_heads<KV, 32 / Vec, 1>(s, a, p, heads);
  if (dims <= 64) return with_heads<KV, 64 / Vec, 1>(s, a, p, heads);
  if (dims <= 128) return with_heads<KV, 128 / Vec, 1>(s, a, p, heads);
  with_heads<KV, 32, 256 / Vec / 32>(s, a, p, heads);
}

extern template void attend<float>(stream&, const attention_args&, attention_params<float>, int);
extern template void attend<half>(stream&, const attention_args&, attention_params<half>, int);
extern template void attend<__nv_bfloat16>(stream&, const attention_args&, attention_params<__nv_bfloat16>, int);

}  // namespace SL_BACKEND_NS
}  // namespace sl
