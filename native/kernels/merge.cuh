// Attention states over disjoint keys become one: y[t,h,:] = sum_s 2^(lse2[s] - m) * o[s,t,h,:] / sum_s 2^(lse2[s] - m), m = max_s lse2[s].
// A launch of its own (merge_states.cu), or at the end of the kernels that wrote the states, by the last of the blocks that share a
// tile to arrive: no block waits for another.
#pragma once

#include "arrive.cuh"
#include "softmax.cuh"
#include "vec.cuh"

namespace sl {
namespace SL_BACKEND_NS {

struct merge_rows {
  any_output y;            // [T,H,Dv]
  gmem<float> y_lse2;      // [T,H], or null
  any_input o;             // [S,T,H,Dv]
  gmem<const float> lse2;  // [S,T,H]
  gmem<const float> sinks;                                   // [H], or null
  gmem<const int> num_tokens;                                // rows past them are padding; null: none is
  gmem<const int> token_sequence, level_lengths;             // states of levels of prefixes come first, `level_splits` of each
  int S, T, H, Dv, levels, level_splits, max_sequences;
  long long o_state, o_token, o_head, lse_state, lse_token, lse_head, y_token, y_head, y_lse_token, y_lse_head;
  bool fours;  // rows of o and y may be accessed four elements at a time
};

// Dims d .. d + 3 of the row of a state that begins at `at`; past the last it again.
template <bool Joined>
__device__ __forceinline__ void load_state(float (&v)[4], const merge_rows& m, long long at, int d) {
  if (m.fours) {
    at += min(d, m.Dv - 4);
    if constexpr (Joined) {
      const float4 four = load_l2(gmem<const float4>(view_as<float4>(m.o.f32 + at)));
      v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
    } else {
      m.o.load_four(v, at);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const long long e = at + min(d + i, m.Dv - 1);
    if constexpr (Joined) v[i] = load_l2(m.o.f32 + e);
    else v[i] = m.o.at(e);
  }
}

// Row (t, h), by a warp. Joined: states of f32 that other blocks of this launch wrote.
template <bool Joined>
__device__ __forceinline__ void merge_row(const merge_rows& m, long long t, int h) {
  constexpr int together = Joined ? 8 : 4;  // states whose loads are on their way together
  const int lane = int(threadIdx.x) & 31;
  const bool padding = m.num_tokens && t >= m.num_tokens[0];
  const float sink = m.sinks && !padding ? m.sinks[h] * log2_e : SL_NEGATIVE_INFINITY;

  // A bit a level that the token's sequence has a prefix of: the states of the others were not written.
  unsigned present = 0;
  if (m.levels > 0 && !padding) {
    const int sequence = m.token_sequence[t];
    int covered = 0;
    for (int l = 0; l < m.levels; l++) {
      const int length = m.level_lengths[l * m.max_sequences + sequence];
      present |= unsigned(length > covered) << l;
      covered = length;
    }
  }
  const auto lse_at = [&](int s) {
    if (s >= m.S || (s < m.levels * m.level_splits && (present >> s / m.level_splits & 1) == 0)) return SL_NEGATIVE_INFINITY;
    const gmem<const float> at = m.lse2 + (t * m.lse_token + h * m.lse_head + s * m.lse_state);
    if constexpr (Joined) return load_l2(at);
    else return float(at[0]);
  };
  // A lane has the states lane, lane + 32, ...; there are seldom more than 32.
  const float first_lse = lse_at(lane);
  const auto lse_of = [&](int s) { return s < 32 ? first_lse : lse_at(s); };

  float max = SL_NEGATIVE_INFINITY, total = 0.0f;
  int best = 0;  // a state that counts, if any does
  for (int s = lane; s < m.S; s += 32)
    if (lse_of(s) > max) max = lse_of(s), best = s;
  const float own_max = max;
  max = warp_max(max);
  best = __shfl_sync(all_lanes, best, __ffs(int(__ballot_sync(all_lanes, own_max == max))) - 1);
  const bool empty = max == SL_NEGATIVE_INFINITY;
  max = fmaxf(max, sink);
  for (int s = lane; s < m.S; s += 32) total += rescale(lse_of(s), max);
  total = warp_sum(total) + rescale(sink, max);

  const long long row = t * m.o_token + h * m.o_head;
  for (int d = 4 * lane; d - 4 * lane < m.Dv; d += 128) {  // all lanes of the warp, for they ask each other
    float sum[4] = {};
    for (int some = 0; some < m.S && !empty; some += 32) {
      const float own = rescale(lse_of(some + lane), max);
      for (int s = some; s < min(m.S, some + 32); s += together) {
        float weight[together], v[together][4];
#pragma unroll
        for (int e = 0; e < together; e++) {
          weight[e] = v[e][0] = v[e][1] = v[e][2] = v[e][3] = 0.0f;
          if (s + e >= m.S) continue;  // for all lanes
          weight[e] = __shfl_sync(all_lanes, own, s - some + e);
          // Loads without branches, so that they are under way together; in the place of an empty state's o, which may be NaN, one that counts.
          load_state<Joined>(v[e], m, (weight[e] > 0.0f ? s + e : best) * m.o_state + row, d);
        }
#pragma unroll
        for (int e = 0; e < together; e++)
#pragma unroll
          for (int i = 0; i < 4; i++) sum[i] += weight[e] * v[e][i];
      }
    }
    if (d >= m.Dv) continue;
    const float inverse = max == SL_NEGATIVE_INFINITY ? 0.0f : 1.0f / total;
#pragma unroll
    for (int i = 0; i < 4; i++) sum[i] = max == SL_NEGATIVE_INFINITY ? 0.0f : sum[i] * inverse;
    const long long to = t * m.y_token + h * m.y_head + d;
    if (m.fours) {
      m.y.put_four(to, sum);
    } else {
      for (int i = 0; i < 4 && d + i < m.Dv; i++) m.y.put(to + i, sum[i]);
    }
  }
  if (lane == 0 && m.y_lse2)
    m.y_lse2[t * m.y_lse_token + h * m.y_lse_head] = max == SL_NEGATIVE_INFINITY ? max : max + log2f(total);
}

// What the kernels that write states join them by. arrivals: a counter a tile and KV head, zero between launches; null: nothing to join.
struct joining {
  merge_rows rows;
  gmem<unsigned> arrivals;
};

}  // namespace SL_BACKEND_NS
}  // namespace sl
