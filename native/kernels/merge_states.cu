// merge_states: S attention states over disjoint keys become one:
//   y[t,h,:] = sum_s 2^(lse2[s] - m) * o[s,t,h,:] / sum_s 2^(lse2[s] - m),  m = max_s lse2[s]
// o [S,T,H,Dv], y [T,H,Dv] in {f32,f16,bf16}   lse2 [S,T,H], y_lse2 [T,H] f32
// grid T * H / 4   block 128: a warp a row   moves each state once: bound by memory
#include "host.cuh"
#include "ops.h"
#include "softmax.cuh"
#include "vec.cuh"

namespace sl {
namespace SL_BACKEND_NS {

constexpr int merge_warps = 4;

struct merge_rows {
  any_output y;
  gmem<float> y_lse2;  // or null
  any_input o;
  gmem<const float> lse2;
  int S, T, H, Dv;
  long long o_state, o_token, o_head, lse_state, lse_token, lse_head, y_token, y_head, y_lse_token, y_lse_head;
  bool fours;  // rows of o and y may be accessed four elements at a time
};

// Dims d .. d + 3 of the row of a state that begins at `at`; past the last it again.
__device__ __forceinline__ void load_state(float (&v)[4], const merge_rows& m, long long at, int d) {
  if (m.fours) return m.o.load_four(v, at + min(d, m.Dv - 4));
#pragma unroll
  for (int i = 0; i < 4; i++) v[i] = m.o.at(at + min(d + i, m.Dv - 1));
}

__global__ void __launch_bounds__(32 * merge_warps) merge_states_kernel(merge_rows m) {
  constexpr int together = 4;  // states whose loads are on their way together
  const long long all_rows = (long long)blockIdx.x * merge_warps + threadIdx.x / 32;
  if (all_rows / m.H >= m.T) return;  // a whole warp, and there is no barrier
  const long long t = all_rows / m.H;
  const int h = int(all_rows % m.H), lane = int(threadIdx.x) & 31;
  const long long row = t * m.o_token + h * m.o_head;
  for (int d = 4 * lane; d < m.Dv; d += 128) {
    float max = SL_NEGATIVE_INFINITY, total = 0.0f, sum[4] = {};
    for (int s = 0; s < m.S; s += together) {
      float lse[together], v[together][4];
#pragma unroll
      for (int e = 0; e < together; e++) {  // past the last it again, without branches
        const long long state = min(s + e, m.S - 1);
        lse[e] = m.lse2[t * m.lse_token + h * m.lse_head + state * m.lse_state];
        load_state(v[e], m, state * m.o_state + row, d);
      }
#pragma unroll
      for (int e = 0; e < together; e++) {
        const float next = s + e < m.S ? lse[e] : SL_NEGATIVE_INFINITY, larger = fmaxf(max, next);
        const float keep = rescale(max, larger), add = rescale(next, larger);
        max = larger, total = total * keep + add;
#pragma unroll
        for (int i = 0; i < 4; i++) sum[i] = sum[i] * keep + (add > 0.0f ? add * v[e][i] : 0.0f);  // an empty state's o may be NaN
      }
    }
    const bool empty = max == SL_NEGATIVE_INFINITY;
    const float inverse = empty ? 0.0f : 1.0f / total;
#pragma unroll
    for (int i = 0; i < 4; i++) sum[i] *= inverse;
    const long long to = t * m.y_token + h * m.y_head + d;
    if (m.fours) {
      m.y.put_four(to, sum);
    } else {
      for (int i = 0; i < 4 && d + i < m.Dv; i++) m.y.put(to + i, sum[i]);
    }
    if (d == 0 && m.y_lse2) m.y_lse2[t * m.y_lse_token + h * m.y_lse_head] = empty ? max : max + log2f(total);
  }
}

// Every row of the last dimension begins at a multiple of four elements, and has whole fours.
static bool fours(const view& v) {
  bool whole = reinterpret_cast<uintptr_t>(v.data) % (4 * size_of(v.dtype)) == 0 && v.shape[v.rank - 1] % 4 == 0;
  for (int i = 0; i + 1 < v.rank; i++) whole = whole && (v.shape[i] == 1 || v.stride[i] % 4 == 0);
  return whole;
}

void merge_states_cuda(stream& s, const merge_states_args& a) {
  const view &o = a.o, &lse2 = a.lse2, &y = a.y;
  const merge_rows m = {output_of(y),       a.y_lse2.as<float>(), input_of(o),         lse2.as<const float>(),
                        int(o.shape[0]),    int(y.shape[0]),      int(y.shape[1]),     int(y.shape[2]),
                        o.stride[0],        o.stride[1],          o.stride[2],         lse2.stride[0],
                        lse2.stride[1],     lse2.stride[2],       y.stride[0],         y.stride[1],
                        a.y_lse2.stride[0], a.y_lse2.stride[1],   fours(o) && fours(y)};
  launch(native(s), KERNEL(merge_states_kernel), blocks_for(int64_t(m.T) * m.H, merge_warps), 32 * merge_warps, 0, m);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
