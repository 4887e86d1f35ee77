// merge_states: S attention states over disjoint keys become one.
//   y[t,h,:] = sum_s 2^(lse2[s] - m) * o[s,t,h,:] / sum_s 2^(lse2[s] - m),  m = max_s lse2[s]
// o [S,T,H,Dv], y [T,H,Dv] in {f32,f16,bf16}   lse2 [S,T,H], y_lse2 [T,H] f32
// grid T * H / 4   block 128: a warp a row   moves each state once: bound by memory
#include "attention.h"
#include "host.cuh"
#include "ops.h"
#include "reduce.cuh"
#include "softmax.cuh"

namespace sl {
namespace SL_BACKEND_NS {

constexpr int merge_warps = 4, merge_dims = 4;  // dims of a lane at a time

struct merge_shape {
  int S, T, H, Dv, levels, level_splits, max_sequences;
  long long o_state, o_token, o_head, lse_state, lse_token, lse_head, y_token, y_head, y_lse_token, y_lse_head;
};

__global__ void __launch_bounds__(32 * merge_warps)
    merge_states_kernel(any_output y, gmem<float> y_lse2, any_input o, gmem<const float> lse2, gmem<const float> sinks,
                        gmem<const int> num_tokens, gmem<const int> token_sequence, gmem<const int> level_lengths,
                        merge_shape m) {
  const long long row = (long long)blockIdx.x * merge_warps + threadIdx.x / 32;
  const int lane = int(threadIdx.x) & 31, h = int(row % m.H);
  const long long t = row / m.H;
  if (t >= m.T) return;  // a whole warp, and there is no barrier
  const bool padding = num_tokens && t >= num_tokens[0];
  const float sink = sinks && !padding ? sinks[h] * log2_e : SL_NEGATIVE_INFINITY;

  // A bit a level that the token's sequence has a prefix of: the states of the others were not written.
  unsigned present = 0;
  if (m.levels > 0 && !padding) {
    const int sequence = token_sequence[t];
    int covered = 0;
    for (int l = 0; l < m.levels; l++) {
      const int length = level_lengths[l * m.max_sequences + sequence];
      present |= unsigned(length > covered) << l;
      covered = length;
    }
  }
  const auto lse_at = [&](int s) {
    if (s >= m.S || (s < m.levels * m.level_splits && (present >> s / m.level_splits & 1) == 0)) return SL_NEGATIVE_INFINITY;
    return float(lse2[t * m.lse_token + h * m.lse_head + s * m.lse_state]);
  };
  // A lane has the states lane, lane + 32, ...; there are seldom more than 32.
  const float first_lse = lse_at(lane);
  const auto lse_of = [&](int s) { return s < 32 ? first_lse : lse_at(s); };

  float max = SL_NEGATIVE_INFINITY, total = 0.0f;
  for (int s = lane; s < m.S; s += 32) max = fmaxf(max, lse_of(s));
  max = fmaxf(warp_max(max), sink);
  for (int s = lane; s < m.S; s += 32) total += rescale(lse_of(s), max);
  total = warp_sum(total) + rescale(sink, max);

  for (int first = 0; first < m.Dv; first += 32 * merge_dims) {
    float sum[merge_dims] = {};
    for (int some = 0; some < m.S; some += 32) {
      const float own = rescale(lse_of(some + lane), max);
      for (int s = some; s < min(m.S, some + 32); s++) {
        const float weight = __shfl_sync(all_lanes, own, s - some);
        if (!(weight > 0.0f)) continue;  // an empty state's o is not looked at: it may be NaN
#pragma unroll
        for (int i = 0; i < merge_dims; i++) {
          const int d = first + 32 * i + lane;
          if (d < m.Dv) sum[i] += weight * o.at(s * m.o_state + t * m.o_token + h * m.o_head + d);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < merge_dims; i++) {
      const int d = first + 32 * i + lane;
      if (d < m.Dv) y.put(t * m.y_token + h * m.y_head + d, max == SL_NEGATIVE_INFINITY ? 0.0f : sum[i] / total);
    }
  }
  if (lane == 0 && y_lse2)
    y_lse2[t * m.y_lse_token + h * m.y_lse_head] = max == SL_NEGATIVE_INFINITY ? max : max + log2f(total);
}

void merge_states(stream& s, const view& o, const view& lse2, const view& sinks, const int* num_tokens,
                  const prefix_states& prefixes, const view& y, const view& y_lse2) {
  const merge_shape m = {int(o.shape[0]), int(y.shape[0]), int(y.shape[1]), int(y.shape[2]), prefixes.levels, prefixes.splits,
                         prefixes.max_sequences, o.stride[0], o.stride[1], o.stride[2], lse2.stride[0], lse2.stride[1],
                         lse2.stride[2], y.stride[0], y.stride[1], y_lse2.stride[0], y_lse2.stride[1]};
  launch(native(s), KERNEL(merge_states_kernel), blocks_for(y.shape[0] * y.shape[1], merge_warps), 32 * merge_warps, 0,
         output_of(y), y_lse2.as<float>(), input_of(o), lse2.as<const float>(), sinks.as<const float>(), num_tokens,
         prefixes.token_sequence, prefixes.level_lengths, m);
}

void merge_states_cuda(stream& s, const merge_states_args& a) {
  merge_states(s, a.o, a.lse2, view(), nullptr, prefix_states(), a.y, a.y_lse2);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
