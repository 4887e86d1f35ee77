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
};

// Row (t, h), by a warp. Joined: states of f32 that other blocks of this launch wrote.
template <bool Joined>
__device__ __forceinline__ void merge_row(const merge_rows& m, long long t, int h) {
  constexpr int dims = 4, together = 8;  // dims of a lane at a time; states whose loads are on their way together
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
  for (int s = lane; s < m.S; s += 32) max = fmaxf(max, lse_of(s));
  max = fmaxf(warp_max(max), sink);
  for (int s = lane; s < m.S; s += 32) total += rescale(lse_of(s), max);
  total = warp_sum(total) + rescale(sink, max);

  const long long row = t * m.o_token + h * m.o_head;
  for (int first = 0; first < m.Dv; first += 32 * dims) {
    float sum[dims] = {};
    for (int some = 0; some < m.S; some += 32) {
      const float own = rescale(lse_of(some + lane), max);
      for (int s = some; s < min(m.S, some + 32); s += together) {
        float weight[together], v[together][dims];
#pragma unroll
        for (int e = 0; e < together; e++) {
          weight[e] = __shfl_sync(all_lanes, own, s - some + e);  // 0 past the last
          const bool counts = weight[e] > 0.0f;                   // an empty state's o is not looked at: it may be NaN
#pragma unroll
          for (int i = 0; i < dims; i++) {
            const int d = first + 32 * i + lane;
            v[e][i] = 0.0f;
            if (!counts || d >= m.Dv) continue;
            if constexpr (Joined) v[e][i] = load_l2(m.o.f32 + ((s + e) * m.o_state + row + d));
            else v[e][i] = m.o.at((s + e) * m.o_state + row + d);
          }
        }
#pragma unroll
        for (int e = 0; e < together; e++)
#pragma unroll
          for (int i = 0; i < dims; i++)
            if (weight[e] > 0.0f) sum[i] += weight[e] * v[e][i];
      }
    }
#pragma unroll
    for (int i = 0; i < dims; i++) {
      const int d = first + 32 * i + lane;
      if (d < m.Dv) m.y.put(t * m.y_token + h * m.y_head + d, max == SL_NEGATIVE_INFINITY ? 0.0f : sum[i] / total);
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
