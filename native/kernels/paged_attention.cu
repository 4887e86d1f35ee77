// paged_attention and cascade_attention: which kernel takes a call, and what its blocks need to share their work. All of it follows from shapes
// and capacities, the same at capture and at every replay; each kernel is right for every plan, so that the choice is one of speed only.
//   16 and 64 rows  paged_prefill.cuh   tensor cores       32 rows  tiled_attention.cu   CUDA cores
// Cascade: the prefixes of all levels in one launch, to a state a prefix and row; then the sequences' own keys, at whose end a row's states become
// one.   Source: Juravsky et al. 2024, Ye et al. 2024.
#include <algorithm>

#include "attention_work.cuh"
#include "device.h"
#include "host.cuh"
#include "ops.h"
#include "paged_prefill.cuh"
#include "stream.h"

namespace sl {
namespace SL_BACKEND_NS {

void tiled_attention(stream&, const tile_params&, const device_plan&, page_shape);

namespace {

constexpr uint64_t most_chunk_bytes = uint64_t(64)
                                      << 20;  // pinned: of chunks' states; what has no room there is not split

// A launch: the rows of its tiles, the blocks that share them, and where in the workspace these leave their sums.
struct share {
  int rows = 0, blocks = 0, chunk_rows = 0;
  int64_t chunk_slots = 0;
  uint64_t states = 0, sums = 0;  // offsets
};

struct attention_plan {
  bool tensor_cores, pinned, cascades;
  share own, prefixes;
  uint64_t prefix_states, prefix_sums, bytes;  // offsets, and all
};

bool for_tensor_cores(const attention_args& a) {
  const kv_view& c = a.cache;
  const int vector = has_scales(c) ? 16 : 8;
  return a.q.dtype != SL_DTYPE_F32 && (c.dtype == a.q.dtype || has_scales(c)) && c.key_dim % vector == 0 &&
         c.value_dim % vector == 0;
}

attention_plan plan_attention(const device& d, const attention_args& a, bool cascade) {
  const kv_view& c = a.cache;
  const batch_view& b = *a.batch;
  const int dims = std::max(c.key_dim, c.value_dim);
  if (dims > 256) throw error(SL_ERR_UNSUPPORTED, format("attention: head dims up to 256 are built, got %d", dims));
  const int64_t T = a.q.shape[0], H = a.q.shape[1], group = H / c.kv_heads, width = (c.value_dim + 3) / 4 * 4;
  attention_plan p{};
  p.tensor_cores = for_tensor_cores(a), p.pinned = invariant(d), p.cascades = cascade && b.max_prefixes > 0;

  const auto place = [&](uint64_t bytes) {
    const uint64_t at = p.bytes;
    p.bytes += (bytes + 255) / 256 * 256;
    return at;
  };
  const auto make = [&](int rows) {
    share s;
    s.rows = rows;
    s.blocks = multiprocessors(d) * (!p.tensor_cores  ? 2
                                     : has_scales(c) ? prefill_blocks<true>(rows, dims, shared_bytes(d))
                                                     : prefill_blocks<false>(rows, dims, shared_bytes(d)));
    if (p.pinned) {
      // Chunks of a tile can be spread where it is its owner's only one; those have few rows.
      const int64_t few = std::min<int64_t>(group * blocks_for(T, b.max_sequences), rows), slot_bytes = few * (width + 2) * 4;
      const int64_t chunks =
          (blocks_for(int64_t(b.max_page_ids) * c.page_size, SL_ATTENTION_CHUNK) + 2 * int64_t(b.max_sequences) + 1) *
          c.kv_heads;
      s.chunk_rows = int(few);
      s.chunk_slots = std::min<int64_t>(chunks, int64_t(most_chunk_bytes) / slot_bytes);
    }
    return s;
  };
  // Up to 16 rows a sequence: decode, where a key that is read for one head serves its whole group, and the rows of speculated tokens. Pinned: one
  // order of summation for any number of rows.
  p.own = make(!p.tensor_cores ? 32 : !p.pinned && T * group <= 16 * int64_t(b.max_sequences) ? 16 : 64);
  const auto reserve = [&](share& s) {
    const uint64_t places =
        4 * uint64_t(s.blocks) * uint64_t(s.rows) + uint64_t(s.chunk_slots) * uint64_t(s.chunk_rows);
    s.states = place(places * 8), s.sums = place(places * uint64_t(width) * 4);
  };
  reserve(p.own);
  if (p.cascades) {
    p.prefixes = make(p.tensor_cores ? 64 : 32);
    reserve(p.prefixes);
    const uint64_t places = uint64_t(prefix_rows(b, T)) * uint64_t(H);
    p.prefix_states = place(places * 8), p.prefix_sums = place(places * uint64_t(width) * 4);
  }
  return p;
}

class attention_call {
 public:
  attention_call(stream& s, const attention_args& a, const attention_plan& plan) : s_(s), a_(a), plan_(plan) {}

  void run() {
    if (plan_.cascades) launch_tiles(plan_.prefixes, true);
    launch_tiles(plan_.own, false);
  }

 private:
  row_states states_at(uint64_t states, uint64_t sums) const {
    return {gmem<float>(reinterpret_cast<float*>(s_.workspace + sums)),
            gmem<float2>(reinterpret_cast<float2*>(s_.workspace + states))};
  }

  void launch_tiles(const share& work, bool prefixes) {
    const kv_view& c = a_.cache;
    const plan_view& plan = a_.batch->device;
    tile_params p{};
    p.q = input_of(a_.q), p.o = output_of(a_.o), p.lse2 = a_.lse2.as<float>();
    p.keys = pool_of(c, a_.layer, true).as<const unsigned char>(),
    p.values = pool_of(c, a_.layer, false).as<const unsigned char>();
    p.key_scales = scales_of(c, a_.layer, true), p.value_scales = scales_of(c, a_.layer, false);
    if (a_.sinks) p.sinks = a_.sinks.as<const float>();
    if (a_.alibi_slopes) p.slopes = a_.alibi_slopes.as<const float>();
    if (plan_.cascades) {
      p.prefixes = reinterpret_cast<const int*>(plan.prefixes), p.prefix_indptr = plan.prefix_indptr,
      p.prefix_parents = plan.prefix_parents;
      p.sequence_prefix = plan.sequence_prefix, p.prefix_lengths = plan.prefix_lengths;
      p.of_prefixes = states_at(plan_.prefix_states, plan_.prefix_sums);
    }
    p.parts = states_at(work.states, work.sums);
    p.arrivals = gmem<unsigned>(static_cast<cuda_stream&>(s_).arrivals());
    p.q_token = a_.q.stride[0], p.q_head = a_.q.stride[1], p.o_token = a_.o.stride[0], p.o_head = a_.o.stride[1];
    if (a_.lse2) p.lse_token = a_.lse2.stride[0], p.lse_head = a_.lse2.stride[1];
    p.chunk_slots = work.chunk_slots, p.blocks = work.blocks, p.slot_rows = work.rows, p.chunk_rows = work.chunk_rows;
    p.D = c.key_dim, p.Dv = c.value_dim, p.H = int(a_.q.shape[1]), p.group = p.H / c.kv_heads, p.T = int(a_.q.shape[0]);
    p.window = a_.window, p.kv_dtype = c.dtype, p.scale = a_.scale, p.soft_cap = a_.soft_cap;
    p.for_prefixes = prefixes, p.causal = a_.causal != 0, p.pinned = plan_.pinned;
    p.q_vectors = rows_aligned_16(a_.q), p.o_vectors = rows_aligned_16(a_.o);
    if (!plan_.tensor_cores) tiled_attention(s_, p, plan_of(*a_.batch), shape_of(c));
    else if (a_.q.dtype == SL_DTYPE_F16) launch_as_type<half>(p, work.rows);
    else launch_as_type<__nv_bfloat16>(p, work.rows);
  }

  template <typename T>
  void launch_as_type(const tile_params& p, int rows) {
    if (has_scales(a_.cache)) prefill<T, true>(s_, p, plan_of(*a_.batch), shape_of(a_.cache), rows);
    else prefill<T, false>(s_, p, plan_of(*a_.batch), shape_of(a_.cache), rows);
  }

  stream& s_;
  const attention_args& a_;
  const attention_plan plan_;
};

}  // namespace

uint64_t paged_attention_workspace(const device& d, const attention_args& a) {
  return plan_attention(d, a, false).bytes;
}

uint64_t cascade_attention_workspace(const device& d, const attention_args& a) {
  return plan_attention(d, a, true).bytes;
}

void paged_attention_cuda(stream& s, const attention_args& a) {
  attention_call(s, a, plan_attention(*s.owner, a, false)).run();
}

void cascade_attention_cuda(stream& s, const attention_args& a) {
  attention_call(s, a, plan_attention(*s.owner, a, true)).run();
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
