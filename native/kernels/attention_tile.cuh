// What the attention kernels share: which keys a row of a tile sees, where its sums go, and how the parts of a tile become one.
#pragma once

#include "arrive.cuh"
#include "attention_work.cuh"
#include "softmax.cuh"

namespace sl {
namespace SL_BACKEND_NS {

// The keys that a token sees: [first, last), and of these the ones whose bit is set where there is a custom mask.
struct seen_keys {
  int first, last;
  long long mask;  // where the token's bits begin, or -1
};

__device__ __forceinline__ seen_keys seen_by(const tile_params& p, const device_plan& plan, int token) {
  const int sequence = token < plan.num_tokens() ? int(plan.token_sequence[token]) : -1;
  if (sequence < 0) return {0, 0, -1};
  const int length = plan.kv_lengths[sequence], slot = plan.token_slot[token], mask_start = plan.mask_indptr[sequence];
  seen_keys s = {0, length, -1};
  if (plan.mask_indptr[sequence + 1] > mask_start)
    s.mask = mask_start + (long long)(token - plan.query_indptr[sequence]) * ((length + 7) / 8);
  else if (p.causal) s.last = slot + 1;
  if (p.window > 0) s.first = max(0, slot - p.window + 1);
  return s;
}

__device__ __forceinline__ bool sees(const seen_keys& s, const device_plan& plan, int key) {
  if (key < s.first || key >= s.last) return false;
  return s.mask < 0 || (plan.mask[s.mask + key / 8] >> (key % 8) & 1) != 0;
}

// The keys that any row of the tile sees, and those that all do. Every warp finds them for itself.
struct tile_keys {
  int first, last, all_first, all_last;
};

__device__ __forceinline__ tile_keys keys_of(const query_tile& tile, const tile_params& p, const device_plan& plan) {
  const int from = tile.first_token + tile.first_row / p.group;
  const int to = tile.first_token + (tile.first_row + tile.rows - 1) / p.group;
  tile_keys k = {tile.last_key, tile.first_key, tile.first_key, tile.last_key};
  for (int token = from + (int(threadIdx.x) & 31); token <= to; token += 32) {
    const seen_keys s = seen_by(p, plan, token);
    k.first = min(k.first, s.first), k.last = max(k.last, s.last);
    k.all_first = max(k.all_first, s.first), k.all_last = min(k.all_last, s.mask < 0 ? s.last : 0);
  }
#pragma unroll
  for (int d = 16; d > 0; d /= 2) {
    k.first = min(k.first, __shfl_xor_sync(all_lanes, k.first, d));
    k.last = max(k.last, __shfl_xor_sync(all_lanes, k.last, d));
    k.all_first = max(k.all_first, __shfl_xor_sync(all_lanes, k.all_first, d));
    k.all_last = min(k.all_last, __shfl_xor_sync(all_lanes, k.all_last, d));
  }
  k.first = max(k.first, tile.first_key), k.last = min(k.last, tile.last_key);
  return k;
}

struct row_place {
  int token, head;
};  // head: counted over all KV heads

__device__ __forceinline__ row_place place_of(const query_tile& tile, const tile_params& p, int row) {
  const int r = tile.first_row + row, token = r / p.group;
  return {tile.first_token + token, tile.kv_head * p.group + (r - token * p.group)};
}

// A score in units of log 2 from the product of a query and a key, which is in units of 1.
__device__ __forceinline__ float score_of(float dot, const tile_params& p) {
  return p.soft_cap > 0.0f ? p.soft_cap * log2_e * tanhf(dot * p.scale / p.soft_cap) : dot * (p.scale * log2_e);
}

// --- where sums go ---------------------------------------------------------------------------------------------------

// Four neighbouring elements of a result.
__device__ __forceinline__ void put_4(const tile_params& p, long long at, const float (&v)[4], int count) {
  if (p.o_vectors && count >= 4) {
    p.o.put_four(at, v);
  } else {
    for (int i = 0; i < 4 && i < count; i++) p.o.put(at + i, v[i]);
  }
}

__device__ __forceinline__ void put_result(const tile_params& p, const device_plan& plan, row_place at, int d,
                                           const float (&sums)[4], softmax_state s) {
  float keep = 1.0f, unused;
  if (p.sinks && at.token < plan.num_tokens()) s = merge(s, {__fmul_rn(p.sinks[at.head], log2_e), 1.0f}, keep, unused);
  const bool empty = s.max == SL_NEGATIVE_INFINITY;
  const float factor = empty ? 0.0f : keep / s.sum;
  float v[4];
#pragma unroll
  for (int e = 0; e < 4; e++) v[e] = empty ? 0.0f : sums[e] * factor;
  put_4(p, at.token * p.o_token + at.head * p.o_head + d, v, p.Dv - d);
  if (d == 0 && p.lse2) p.lse2[at.token * p.lse_token + at.head * p.lse_head] = empty ? s.max : s.max + log2f(s.sum);
}

__device__ __forceinline__ void put_state(const tile_params& p, const row_states& to, long long place, int d,
                                          const float (&sums)[4], softmax_state s) {
  view_as<float4>(to.o + (place * p.width() + d))[0] = float4{sums[0], sums[1], sums[2], sums[3]};
  if (d == 0) to.state[place] = float2{s.max, s.sum};
}

__device__ __forceinline__ long long place_in_prefix(const tile_params& p, const device_plan& plan, int prefix,
                                                     row_place at) {
  const int token = at.token - plan.query_indptr[p.prefixes[4 * prefix]];
  return ((long long)p.prefix_indptr[prefix] + token) * p.H + at.head;
}

// Where a row's sums over all of the owner's keys go.
__device__ __forceinline__ void put_whole(const tile_params& p, const device_plan& plan, const query_tile& tile,
                                          row_place at, int d, const float (&sums)[4], softmax_state s) {
  if (p.for_prefixes) put_state(p, p.of_prefixes, place_in_prefix(p, plan, tile.owner, at), d, sums, s);
  else put_result(p, plan, at, d, sums, s);
}

// A row's sums in the making, four of its dims by a thread: what has been added up, and its state.
struct running_row {
  softmax_state state;
  float v[4];
  __device__ __forceinline__ void add(const float (&o)[4], softmax_state s) {
    float keep, more;
    state = merge(state, s, keep, more);
#pragma unroll
    for (int e = 0; e < 4; e++) v[e] = fmaf(v[e], keep, o[e] * more);
  }
  __device__ __forceinline__ void add(float4 o, float2 s) {
    const float four[4] = {o.x, o.y, o.z, o.w};
    add(four, {s.x, s.y});
  }
};
__device__ __forceinline__ running_row empty_row() { return {empty_softmax(), {0.0f, 0.0f, 0.0f, 0.0f}}; }

// The states of the prefixes of a row's sequence, which another launch left.
__device__ __forceinline__ void add_prefixes(running_row& r, const tile_params& p, const device_plan& plan,
                                             row_place at, int d) {
  if (p.for_prefixes || !p.prefixes || at.token >= plan.num_tokens()) return;
  for (int prefix = p.sequence_prefix[plan.token_sequence[at.token]]; prefix >= 0; prefix = p.prefix_parents[prefix]) {
    const long long place = place_in_prefix(p, plan, prefix, at);
    r.add(view_as<float4>(p.of_prefixes.o + (place * p.width() + d))[0], p.of_prefixes.state[place]);
  }
}

// Dims d .. d + 3 of a row's sums over the piece's keys, from the thread that has them; the row's state from each.
__device__ __forceinline__ void put_sums(const tile_params& p, const device_plan& plan, const query_tile& tile, int row,
                                         int d, const float (&sums)[4], softmax_state s) {
  const row_place at = place_of(tile, p, row);
  if (tile.kind == query_tile::part) {
    if (tile.slot >= 0) put_state(p, p.parts, p.place(tile.slot, row), d, sums, s);
    return;
  }
  // What came before, and this. A row's state lies in one of two places by turns: others of the row still read the one before.
  const long long place = p.place(tile.slot, row), other = p.place(tile.slot - 1, row);
  running_row r = empty_row();
  if (tile.turn == 0) add_prefixes(r, p, plan, at, d);
  else
    r.add(view_as<float4>(p.parts.o + (place * p.width() + d))[0], p.parts.state[tile.turn % 2 == 0 ? other : place]);
  r.add(sums, s);
  if (tile.last) return put_whole(p, plan, tile, at, d, r.v, r.state);
  view_as<float4>(p.parts.o + (place * p.width() + d))[0] = float4{r.v[0], r.v[1], r.v[2], r.v[3]};
  if (d == 0) p.parts.state[tile.turn % 2 == 0 ? place : other] = float2{r.state.max, r.state.sum};
}

// --- parts become one ------------------------------------------------------------------------------------------------

// Rows of the sums of `count` parts, in order, behind those of the prefixes (where `whole`); slot_of(i) has part i.
template <typename Slot, typename Put>
__device__ __forceinline__ void join_parts(const tile_params& p, const device_plan& plan, const query_tile& tile,
                                           int count, bool whole, Slot slot_of, Put put) {
  constexpr int together = 4;  // whose loads are under way together
  const int lane = int(threadIdx.x) & 31;
  for (int row = int(threadIdx.x) / 32; row < tile.rows; row += int(blockDim.x) / 32) {
    const row_place at = place_of(tile, p, row);
    for (int d = 4 * lane; d < p.Dv; d += 128) {
      running_row r = empty_row();
      if (whole) add_prefixes(r, p, plan, at, d);
      for (int i = 0; i < count; i += together) {
        float2 s[together];
        float4 v[together];
#pragma unroll
        for (int e = 0; e < together; e++) {  // past the last it again, without branches
          const long long place = p.place(slot_of(min(i + e, count - 1)), row);
          const gmem<const float> state = view_as<const float>(p.parts.state) + 2 * place;
          s[e].x = load_l2(state), s[e].y = load_l2(state + 1);
          v[e] = load_l2(gmem<const float4>(view_as<float4>(p.parts.o + (place * p.width() + d))));
        }
#pragma unroll
        for (int e = 0; e < together; e++)
          if (i + e < count) r.add(v[e], s[e]);
      }
      put(row, at, d, r.v, r.state);
    }
  }
}

// Called by all threads of the block behind put_sums of all rows. Where a tile has parts, the last block to arrive makes them one. Many are
// joined by eights first, each by the last of its blocks, so that nobody reads them all.
__device__ __forceinline__ void finish_piece(const tile_params& p, const device_plan& plan, const query_tile& tile) {
  if (tile.kind != query_tile::part || !tile.last) return __syncthreads();  // the next piece uses what this one did
  const auto put = [&](int, row_place at, int d, const float(&sums)[4], softmax_state s) {
    put_whole(p, plan, tile, at, d, sums, s);
  };
  if (p.pinned) {
    if (!arrives_last(p.arrivals + tile.first_block, unsigned(tile.sharing))) return;
    join_parts(
        p, plan, tile, tile.chunks, true, [&](int i) { return tile.first_chunk + i; }, put);
    return __syncthreads();
  }
  constexpr int few = 8;
  const int first = tile.first_block, own = int(blockIdx.x) - first, groups = (tile.sharing + few - 1) / few;
  const auto slot_of = [&](int part) { return 2ll * (first + part) + (part == 0 ? 1 : 0); };
  const auto group_slot = [&](int leader) {
    return 2ll * p.blocks + slot_of(leader);
  };  // for others of the warp still read the parts
  const int leader = groups > 1 ? own / few * few : 0, members = min(few, tile.sharing - leader);
  // Two counters a block, for it may lead a part of the tile that begins in it, and one of the tile before.
  if (!arrives_last(p.arrivals + 2 * (first + leader) + (leader == 0 ? 1 : 0),
                    unsigned(groups > 1 ? members : tile.sharing)))
    return;
  if (groups > 1) {
    join_parts(
        p, plan, tile, members, false, [&](int i) { return slot_of(leader + i); },
        [&](int row, row_place, int d, const float(&sums)[4], softmax_state s) {
          put_state(p, p.parts, p.place(group_slot(leader), row), d, sums, s);
        });
    if (!arrives_last(p.arrivals + 2 * p.blocks + first, unsigned(groups))) return;
  }
  join_parts(
      p, plan, tile, groups > 1 ? groups : tile.sharing, true,
      [&](int i) { return groups > 1 ? group_slot(i * few) : slot_of(i); }, put);
  __syncthreads();
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
