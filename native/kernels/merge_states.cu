// merge_states: S attention states over disjoint keys become one (merge.cuh).
// o [S,T,H,Dv], y [T,H,Dv] in {f32,f16,bf16}   lse2 [S,T,H], y_lse2 [T,H] f32
// grid T * H / 4   block 128: a warp a row   moves each state once: bound by memory
#include "attention.h"
#include "host.cuh"
#include "ops.h"

namespace sl {
namespace SL_BACKEND_NS {

constexpr int merge_warps = 4;

__global__ void __launch_bounds__(32 * merge_warps) merge_states_kernel(merge_rows m) {
  const long long row = (long long)blockIdx.x * merge_warps + threadIdx.x / 32;
  if (row / m.H >= m.T) return;  // a whole warp, and there is no barrier
  merge_row<false>(m, row / m.H, int(row % m.H));
}

// Every row of the last dimension begins at a multiple of four elements, and has whole fours.
static bool fours(const view& v) {
  bool whole = reinterpret_cast<uintptr_t>(v.data) % (4 * size_of(v.dtype)) == 0 && v.shape[v.rank - 1] % 4 == 0;
  for (int i = 0; i + 1 < v.rank; i++) whole = whole && (v.shape[i] == 1 || v.stride[i] % 4 == 0);
  return whole;
}

merge_rows rows_to_merge(const view& o, const view& lse2, const view& sinks, const int* num_tokens, const prefix_states& prefixes, const view& y,
                         const view& y_lse2) {
  return {output_of(y), y_lse2.as<float>(), input_of(o), lse2.as<const float>(), sinks.as<const float>(), num_tokens, prefixes.token_sequence,
          prefixes.level_lengths, int(o.shape[0]), int(y.shape[0]), int(y.shape[1]), int(y.shape[2]), prefixes.levels, prefixes.splits,
          prefixes.max_sequences, o.stride[0], o.stride[1], o.stride[2], lse2.stride[0], lse2.stride[1], lse2.stride[2], y.stride[0], y.stride[1],
          y_lse2.stride[0], y_lse2.stride[1], fours(o) && fours(y)};
}

void merge_states(stream& s, const merge_rows& m) {
  launch(native(s), KERNEL(merge_states_kernel), blocks_for(int64_t(m.T) * m.H, merge_warps), 32 * merge_warps, 0, m);
}

void merge_states_cuda(stream& s, const merge_states_args& a) {
  merge_states(s, rows_to_merge(a.o, a.lse2, view(), nullptr, prefix_states(), a.y, a.y_lse2));
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
