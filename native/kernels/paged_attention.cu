// paged_attention and cascade_attention: which kernels take a call, how it is cut into launches and splits, and who joins
// the parts. All of it follows from shapes and capacities, the same at capture and at every replay; each kernel is right for
// every plan, so that the choice is one of speed only.
//   decode  paged_attention.cuh   a token a block          16 and 64 rows  paged_prefill.cuh   tensor cores
//   tiled   tiled_attention.cu    CUDA cores, 32 rows
// Cascade: the prefixes of all levels in one launch of a tiled kernel, a state a level and split; then the sequences' own
// keys, at whose end all states of a token are joined, where there are counters for all tiles; else by a launch of its own.   Source: Juravsky et al. 2024, Ye et al. 2024.
#include <algorithm>

#include "attention_tile.cuh"
#include "device.h"
#include "ops.h"
#include "paged_attention.cuh"
#include "paged_prefill.cuh"
#include "stream.h"

namespace sl {
namespace SL_BACKEND_NS {

void tiled_attention(stream&, const tile_params&, const device_plan&, page_shape, dim3 grid);

namespace {

constexpr int max_heads_a_block = 8, max_splits = 32, blocks_a_multiprocessor = 2;
constexpr uint64_t most_state_bytes = uint64_t(256) << 20;  // of prefixes: with more rows they matter less

struct route { int rows; bool tensor_cores; };  // of a tile; rows 1: decode

struct attention_plan {
  route own, prefixes;
  int heads_a_block, head_tiles;  // decode
  int levels, prefix_splits, splits;
  bool joins;                 // the launch of the sequences' own keys joins all states
  int states() const { return levels * prefix_splits + splits; }
  bool merges() const { return states() > 1; }
};

bool for_tensor_cores(const attention_args& a) {
  const kv_view& c = a.cache;
  const int vector = has_scales(c) ? 16 : 8;
  return a.q.dtype != SL_DTYPE_F32 && (c.dtype == a.q.dtype || has_scales(c)) && c.key_dim % vector == 0 && c.value_dim % vector == 0;
}

attention_plan plan_attention(const device& d, const attention_args& a, bool cascade) {
  const kv_view& c = a.cache;
  const int dims = std::max(c.key_dim, c.value_dim);
  if (dims > 256) throw error(SL_ERR_UNSUPPORTED, format("attention: head dims up to 256 are built, got %d", dims));
  const int64_t T = a.q.shape[0], group = a.q.shape[1] / c.kv_heads, sequences = a.batch->max_sequences;
  attention_plan p{};

  // Up to 16 rows a sequence: decode, where a key that is read for one head serves its whole group (from 4 heads on, tensor
  // cores are ahead), and the rows of speculated tokens.
  if (for_tensor_cores(a)) {
    if (T <= sequences && group < 4 && !has_scales(c)) p.own = {1, false};
    else p.own = {T * group <= 16 * sequences ? 16 : 64, true};
    p.prefixes = {64, true};
  } else {
    p.own = {T <= sequences && !has_scales(c) ? 1 : 32, false};
    p.prefixes = {32, false};
  }

  p.heads_a_block = !whole_vectors(c) || group == 1 ? 1 : group <= 4 ? 4 : max_heads_a_block;
  p.head_tiles = int(blocks_for(group, p.heads_a_block));

  const int64_t wanted = int64_t(multiprocessors(d)) * blocks_a_multiprocessor;
  const int64_t chunks = std::max<int64_t>(blocks_for(int64_t(a.batch->max_page_ids) * c.page_size, SL_ATTENTION_CHUNK), 1);
  const auto splits_for = [&](int64_t blocks) {
    return int(std::clamp<int64_t>(wanted / std::max<int64_t>(blocks, 1), 1, std::min<int64_t>(max_splits, chunks)));
  };
  const auto tiles = [&](int rows) { return int64_t(blocks_for(T * group, rows)); };
  p.splits = splits_for(p.own.rows == 1 ? T * c.kv_heads * p.head_tiles
                                        : std::max(tiles(p.own.rows), std::min(T, sequences)) * c.kv_heads);
  p.prefix_splits = 1;
  if (cascade && a.batch->max_prefixes > 0) {
    p.prefix_splits = splits_for(tiles(p.prefixes.rows) * c.kv_heads);
    const uint64_t level_bytes = uint64_t(T) * uint64_t(a.q.shape[1]) * uint64_t(c.value_dim) * 4 * uint64_t(p.prefix_splits);
    p.levels = int(std::clamp<uint64_t>(most_state_bytes / std::max<uint64_t>(level_bytes, 1), 1,
                                        uint64_t(std::min(a.batch->max_prefixes, max_prefix_levels))));
  }
  // A counter a tile and KV head, by the place of the tile's first row.
  const int64_t counters = p.own.rows == 1 ? T * c.kv_heads * p.head_tiles : (T * group / p.own.rows + T) * c.kv_heads;
  p.joins = p.merges() && counters <= cuda_stream::arrival_counters(d);
  return p;
}

uint64_t lse_bytes(const attention_plan& p, const attention_args& a) {
  return (uint64_t(p.states()) * uint64_t(a.q.shape[0] * a.q.shape[1]) * 4 + 255) / 256 * 256;
}

uint64_t workspace_of(const attention_plan& p, const attention_args& a) {
  if (!p.merges()) return 0;
  return lse_bytes(p, a) + uint64_t(p.states()) * uint64_t(a.q.shape[0] * a.q.shape[1]) * uint64_t(a.cache.value_dim) * 4;
}

// A contiguous f32 tensor [states, T, H, last].
view state_view(char* data, int64_t states, int64_t T, int64_t H, int64_t last) {
  view v;
  v.data = data, v.dtype = SL_DTYPE_F32, v.rank = 4;
  const int64_t shape[4] = {states, T, H, last};
  int64_t stride = 1;
  for (int i = 3; i >= 0; i--) v.shape[i] = shape[i], v.stride[i] = stride, stride *= shape[i];
  return v;
}

class attention_call {
 public:
  attention_call(stream& s, const attention_args& a, const attention_plan& plan) : s_(s), a_(a), plan_(plan) {
    const int64_t T = a.q.shape[0], H = a.q.shape[1];
    lse2_ = plan.merges() ? state_view(s.workspace, plan.states(), T, H, 1) : a.lse2;
    o_ = plan.merges() ? state_view(s.workspace + lse_bytes(plan, a), plan.states(), T, H, a.cache.value_dim) : a.o;
  }

  void run() {
    if (plan_.levels > 0) run_tiles(plan_.prefixes, true);
    if (plan_.own.rows == 1) run_decode();
    else run_tiles(plan_.own, false);
    if (plan_.merges() && !plan_.joins) merge_states(s_, all_states());
  }

 private:
  merge_rows all_states() const {
    const plan_view& p = a_.batch->device;
    return rows_to_merge(o_, lse2_, a_.sinks, &p.header->num_tokens, {p.token_sequence, p.level_lengths, plan_.levels, plan_.prefix_splits, a_.batch->max_sequences}, a_.o,
                         a_.lse2);
  }
  joining join() const {
    joining j{};
    if (plan_.joins) j.rows = all_states(), j.arrivals = gmem<unsigned>(static_cast<cuda_stream&>(s_).arrivals());
    return j;
  }
  int own_state() const { return plan_.levels * plan_.prefix_splits; }  // the first of the sequences' own keys

  void run_tiles(route r, bool prefixes) {
    const kv_view& c = a_.cache;
    const plan_view& plan = a_.batch->device;
    const bool merges = plan_.merges();
    tile_params p{};
    p.q = input_of(a_.q), p.o = output_of(o_), p.lse2 = lse2_.as<float>();
    p.keys = pool_of(c, a_.layer, true).as<const unsigned char>(), p.values = pool_of(c, a_.layer, false).as<const unsigned char>();
    p.key_scales = scales_of(c, a_.layer, true), p.value_scales = scales_of(c, a_.layer, false);
    if (a_.sinks && !merges) p.sinks = a_.sinks.as<const float>();
    if (a_.alibi_slopes) p.slopes = a_.alibi_slopes.as<const float>();
    p.q_token = a_.q.stride[0], p.q_head = a_.q.stride[1];
    const int first = merges ? 1 : 0;  // states stand in front
    p.o_state = o_.stride[0], p.o_token = o_.stride[first], p.o_head = o_.stride[first + 1];
    p.lse_state = lse2_.stride[0], p.lse_token = lse2_.stride[first], p.lse_head = lse2_.stride[first + 1];
    p.D = c.key_dim, p.Dv = c.value_dim, p.group = int(a_.q.shape[1]) / c.kv_heads, p.T = int(a_.q.shape[0]);
    p.max_sequences = a_.batch->max_sequences, p.max_prefixes = a_.batch->max_prefixes;
    p.levels = plan_.levels, p.level_lengths = plan.level_lengths;
    p.splits = plan_.splits, p.first_state = own_state();
    p.window = a_.window, p.kv_dtype = c.dtype, p.scale = a_.scale, p.soft_cap = a_.soft_cap, p.causal = a_.causal != 0;
    p.q_vectors = rows_aligned_16(a_.q), p.o_vectors = rows_aligned_16(o_);
    int64_t rows = int64_t(p.T) * p.group, owners = int64_t(p.max_sequences) + 1;
    if (!prefixes) p.join = join();
    if (prefixes) {
      p.prefixes = reinterpret_cast<const int*>(plan.prefixes), p.prefix_indptr = plan.prefix_indptr;
      p.splits = plan_.prefix_splits, p.first_state = 0;
      rows *= max_prefix_levels, owners = p.max_prefixes;
    }
    const dim3 grid(unsigned(rows / r.rows + owners), unsigned(c.kv_heads), unsigned(p.splits));
    const page_shape shape = shape_of(c);
    if (!r.tensor_cores) tiled_attention(s_, p, plan_of(*a_.batch), shape, grid);
    else if (a_.q.dtype == SL_DTYPE_F16) start_tiles<half>(p, shape, grid, r.rows);
    else start_tiles<__nv_bfloat16>(p, shape, grid, r.rows);
  }

  template <typename T>
  void start_tiles(const tile_params& p, page_shape shape, dim3 grid, int rows) {
    if (has_scales(a_.cache)) prefill<T, true>(s_, p, plan_of(*a_.batch), shape, grid, rows);
    else prefill<T, false>(s_, p, plan_of(*a_.batch), shape, grid, rows);
  }

  void run_decode() {
    const bool merges = plan_.merges();
    const auto fill = [&](auto zero) {
      attention_params<decltype(zero)> p{};
      const int first = merges ? 1 : 0;
      p.q = input_of(a_.q);
      p.q_token = a_.q.stride[0], p.q_head = a_.q.stride[1];
      p.o_split = o_.stride[0], p.o_token = o_.stride[first], p.o_head = o_.stride[first + 1];
      p.lse_split = lse2_.stride[0], p.lse_token = lse2_.stride[first], p.lse_head = lse2_.stride[first + 1];
      view o = o_, lse2 = lse2_;
      if (merges) {
        o.data = o_.as<float>() + own_state() * o_.stride[0];
        lse2.data = lse2_.as<float>() + own_state() * lse2_.stride[0];
      }
      p.o = output_of(o), p.lse2 = lse2.as<float>();
      if (!merges && a_.sinks) p.sinks = a_.sinks.as<const float>();
      if (a_.alibi_slopes) p.slopes = a_.alibi_slopes.as<const float>();
      if (plan_.levels > 0)
        p.first_keys = a_.batch->device.level_lengths + int64_t(plan_.levels - 1) * a_.batch->max_sequences;
      p.D = a_.cache.key_dim, p.Dv = a_.cache.value_dim, p.group = int(a_.q.shape[1]) / a_.cache.kv_heads;
      p.head_tiles = plan_.head_tiles, p.splits = plan_.splits, p.window = a_.window;
      p.scale = a_.scale, p.soft_cap = a_.soft_cap, p.causal = a_.causal != 0, p.q_vectors = rows_aligned_16(a_.q);
      p.join = join();
      attend(s_, a_, p, plan_.heads_a_block);
    };
    for_activation(a_.cache.dtype, fill);
  }

  stream& s_;
  const attention_args& a_;
  const attention_plan plan_;
  view o_, lse2_;
};

}  // namespace

uint64_t paged_attention_workspace(const device& d, const attention_args& a) {
  return workspace_of(plan_attention(d, a, false), a);
}

uint64_t cascade_attention_workspace(const device& d, const attention_args& a) {
  return workspace_of(plan_attention(d, a, true), a);
}

void paged_attention_cuda(stream& s, const attention_args& a) {
  attention_call(s, a, plan_attention(*s.owner, a, false)).run();
}

void cascade_attention_cuda(stream& s, const attention_args& a) {
  attention_call(s, a, plan_attention(*s.owner, a, true)).run();
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
