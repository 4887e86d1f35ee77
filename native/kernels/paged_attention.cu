// paged_attention: how a call is cut into blocks and splits, and the merge of the splits. The kernel is paged_attention.cuh.
#include <algorithm>

#include "device.h"
#include "ops.h"
#include "paged_attention.cuh"

namespace sl {
namespace SL_BACKEND_NS {

namespace {

constexpr int max_heads_a_block = 8, max_splits = 32, blocks_a_multiprocessor = 2;

struct attention_plan { int heads_a_block, head_tiles, splits; };

// By shapes and capacities only: the same at capture and at every replay. Blocks of splits that a short sequence does
// not reach end at once.
attention_plan plan_attention(const device& d, const attention_args& a) {
  const int group = int(a.q.shape[1]) / a.cache.kv_heads;
  attention_plan p{};
  p.heads_a_block = !whole_vectors(a.cache) || group == 1 ? 1 : group <= 4 ? 4 : max_heads_a_block;
  p.head_tiles = int(blocks_for(group, p.heads_a_block));
  const int64_t blocks = a.q.shape[0] * a.cache.kv_heads * p.head_tiles;
  const int64_t wanted = int64_t(multiprocessors(d)) * blocks_a_multiprocessor / std::max<int64_t>(blocks, 1);
  const int64_t chunks = blocks_for(int64_t(a.batch->max_page_ids) * a.cache.page_size, SL_ATTENTION_CHUNK);
  p.splits = int(std::clamp<int64_t>(wanted, 1, std::min<int64_t>(max_splits, std::max<int64_t>(chunks, 1))));
  return p;
}

uint64_t lse_bytes(const attention_plan& p, const attention_args& a) {
  return (uint64_t(p.splits) * uint64_t(a.q.shape[0] * a.q.shape[1]) * 4 + 255) / 256 * 256;
}

// A contiguous f32 tensor [splits, T, H, last].
view split_view(char* data, int64_t splits, int64_t T, int64_t H, int64_t last) {
  view v;
  v.data = data, v.dtype = SL_DTYPE_F32, v.rank = 4;
  const int64_t shape[4] = {splits, T, H, last};
  int64_t stride = 1;
  for (int i = 3; i >= 0; i--) v.shape[i] = shape[i], v.stride[i] = stride, stride *= shape[i];
  return v;
}

}  // namespace

uint64_t paged_attention_workspace(const device& d, const attention_args& a) {
  const attention_plan p = plan_attention(d, a);
  if (p.splits == 1) return 0;
  return lse_bytes(p, a) + uint64_t(p.splits) * uint64_t(a.q.shape[0] * a.q.shape[1]) * uint64_t(a.cache.value_dim) * 4;
}

void paged_attention_cuda(stream& s, const attention_args& a) {
  const attention_plan plan = plan_attention(*s.owner, a);
  const int64_t T = a.q.shape[0], H = a.q.shape[1];
  const bool split = plan.splits > 1;
  const view lse2 = split ? split_view(s.workspace, plan.splits, T, H, 1) : a.lse2;
  const view o = split ? split_view(s.workspace + lse_bytes(plan, a), plan.splits, T, H, a.cache.value_dim) : a.o;

  const auto fill = [&](auto zero) {
    attention_params<decltype(zero)> p{};
    p.q = input_of(a.q), p.o = output_of(o), p.lse2 = lse2.as<float>();
    p.q_token = a.q.stride[0], p.q_head = a.q.stride[1];
    const int first = split ? 1 : 0;  // a split's tensors have the split in front
    p.o_split = o.stride[0], p.o_token = o.stride[first], p.o_head = o.stride[first + 1];
    p.lse_split = lse2.stride[0], p.lse_token = lse2.stride[first], p.lse_head = lse2.stride[first + 1];
    if (!split && a.sinks) p.sinks = a.sinks.as<const float>();
    if (a.alibi_slopes) p.slopes = a.alibi_slopes.as<const float>();
    p.D = a.cache.key_dim, p.Dv = a.cache.value_dim, p.group = int(H) / a.cache.kv_heads;
    p.head_tiles = plan.head_tiles, p.splits = plan.splits, p.window = a.window;
    p.scale = a.scale, p.soft_cap = a.soft_cap, p.causal = a.causal != 0;
    attend(s, a, p, plan.heads_a_block);
  };
  for_activation(a.cache.dtype, fill);
  if (split) merge_states(s, o, lse2, a.sinks, &a.batch->device.header->num_tokens, a.o, a.lse2);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
