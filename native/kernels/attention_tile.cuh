// What the tiled attention kernels share: which query rows a block has, which keys those see, where the result goes.
// A tile is up to `Rows` rows of one KV head: row r is query token r / group and query head r % group of the group, so that
// a key that a block has loaded serves every head of its group and every token of the tile.
// Tiles belong to sequences, or (cascade) to shared prefixes, whose rows are those of neighbouring sequences.
#pragma once

#include "backend.h"
#include "merge.cuh"
#include "paged.cuh"
#include "vec.cuh"

namespace sl {
namespace SL_BACKEND_NS {

struct tile_params {
  any_input q;
  any_output o;                                // the result, or states [states,T,H,Dv] f32
  gmem<float> lse2;                            // or null
  gmem<const unsigned char> keys, values;      // a layer's pools
  gmem<const float> key_scales, value_scales;  // a layer's, or null
  gmem<const float> sinks, slopes;             // [H], or null; sinks only where the result is final
  gmem<const int> prefixes;                    // sl_prefix [max_prefixes], or null: tiles of sequences
  gmem<const int> prefix_indptr;               // [max_prefixes + 1]
  gmem<const int> level_lengths;               // [levels][max_sequences]: keys that the prefixes of levels 0 .. l cover
  long long q_token, q_head, o_state, o_token, o_head, lse_state, lse_token, lse_head;
  int D, Dv, group, T, max_sequences, max_prefixes;
  int levels;               // that prefixes are read for: the keys past them are the sequence's own
  int splits, first_state;  // states [first_state + level * splits + split]
  int window, kv_dtype;
  float scale, soft_cap;
  bool causal, q_vectors, o_vectors;  // rows may be moved 16 bytes at a time
  joining join;                       // of the states: those of this launch's splits come last
};

struct query_tile {
  int first_token, first_row, rows;  // rows: of this tile; first_row: counted from the first token
  int page_row;                      // where the page ids begin
  int first_key, last_key;           // of this split
  int state;
};

// Query rows before an owner (a sequence or a prefix).
__device__ __forceinline__ long long rows_before(const tile_params& p, const device_plan& plan, int owner) {
  if (p.prefixes) return (long long)p.prefix_indptr[owner] * p.group;
  // The tokens past the plan's are padding: the last owner has them.
  return (long long)(owner <= p.max_sequences ? int(plan.query_indptr[owner]) : p.T) * p.group;
}

// The tile of this block; false for blocks past the plan's tiles. Owner b has the places rows_before(b) / Rows + b and up:
// as many as it can need, found without a sum over the owners before it.
template <int Rows>
__device__ __forceinline__ bool find_tile(query_tile& tile, const tile_params& p, const device_plan& plan) {
  // The last tiles of a prompt see the most keys: they go first.
  const int place = int(gridDim.x - 1 - blockIdx.x), lane = int(threadIdx.x) & 31;
  const int owners = p.prefixes ? p.max_prefixes : p.max_sequences + 1;
  int step = 1, owner = 0;
  while (step * 32 < owners) step *= 32;
  for (; step > 0; step /= 32) {
    const int other = owner + lane * step;
    const bool before = other < owners && rows_before(p, plan, other) / Rows + other <= place;
    owner += (__popc(__ballot_sync(all_lanes, before)) - 1) * step;
  }
  const long long start = rows_before(p, plan, owner), all = rows_before(p, plan, owner + 1) - start;
  const long long first = (place - (start / Rows + owner)) * Rows;
  if (first >= all) return false;
  tile.first_row = int(first), tile.rows = int(min((long long)Rows, all - first));

  int sequence = owner, first_key = 0, last_key = 0, level = 0;
  if (p.prefixes) {
    sequence = p.prefixes[4 * owner];
    first_key = p.prefixes[4 * owner + 2], last_key = first_key + p.prefixes[4 * owner + 3];
    while (level < p.levels && p.level_lengths[level * p.max_sequences + sequence] <= first_key) level++;
    if (level == p.levels) return false;  // so deep that its sequences read it themselves
  } else if (owner < p.max_sequences) {
    last_key = plan.kv_lengths[owner];
    if (p.levels > 0) first_key = p.level_lengths[(p.levels - 1) * p.max_sequences + owner];
  }
  tile.first_token = plan.query_indptr[sequence];
  tile.page_row = plan.page_indptr[sequence];
  const int chunks = (last_key - first_key + SL_ATTENTION_CHUNK - 1) / SL_ATTENTION_CHUNK;
  const int span = (chunks + p.splits - 1) / p.splits * SL_ATTENTION_CHUNK;
  tile.first_key = first_key + int(blockIdx.z) * span;
  tile.last_key = min(last_key, tile.first_key + span);
  tile.state = p.first_state + level * p.splits + int(blockIdx.z);
  return true;
}

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
  else if (p.causal)
    s.last = slot + 1;
  if (p.window > 0) s.first = max(0, slot - p.window + 1);
  return s;
}

__device__ __forceinline__ bool sees(const seen_keys& s, const device_plan& plan, int key) {
  if (key < s.first || key >= s.last) return false;
  return s.mask < 0 || (plan.mask[s.mask + key / 8] >> (key % 8) & 1) != 0;
}

// The keys that any row of the tile sees, and those that all do. Every warp finds them for itself.
struct tile_keys { int first, last, all_first, all_last; };

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

struct row_place { int token, head; };  // head: counted over all KV heads

__device__ __forceinline__ row_place place_of(const query_tile& tile, const tile_params& p, int kv_head, int row) {
  const int r = tile.first_row + row, token = r / p.group;
  return {tile.first_token + token, kv_head * p.group + (r - token * p.group)};
}

// A score in units of log 2 from the product of a query and a key, which is in units of 1.
__device__ __forceinline__ float score_of(float dot, const tile_params& p) {
  return p.soft_cap > 0.0f ? p.soft_cap * log2_e * tanhf(dot * p.scale / p.soft_cap) : dot * (p.scale * log2_e);
}

// Four neighbouring elements of a result.
__device__ __forceinline__ void put_4(const tile_params& p, long long at, const float (&v)[4], int count) {
  if (p.o_vectors && count >= 4) {
    if (p.o.f32) return store_floats<4>(p.o.f32 + at, v);
    uint2 raw;
    if (p.o.f16) {
      const half narrow[4] = {from_float<half>(v[0]), from_float<half>(v[1]), from_float<half>(v[2]), from_float<half>(v[3])};
      memcpy(&raw, narrow, 8);
      view_as<uint2>(p.o.f16 + at)[0] = raw;
    } else {
      const __nv_bfloat16 narrow[4] = {from_float<__nv_bfloat16>(v[0]), from_float<__nv_bfloat16>(v[1]),
                                       from_float<__nv_bfloat16>(v[2]), from_float<__nv_bfloat16>(v[3])};
      memcpy(&raw, narrow, 8);
      view_as<uint2>(p.o.bf16 + at)[0] = raw;
    }
  } else {
    for (int i = 0; i < 4 && i < count; i++) p.o.put(at + i, v[i]);
  }
}

// The sink of the row's head joins its state. What the row's sum over its keys is then multiplied with to give its o.
__device__ __forceinline__ float finish_row(const tile_params& p, const device_plan& plan, row_place at, softmax_state& s) {
  float keep = 1.0f, unused;
  if (p.sinks && at.token < plan.num_tokens()) s = merge(s, {p.sinks[at.head] * log2_e, 1.0f}, keep, unused);
  return s.max == SL_NEGATIVE_INFINITY ? 0.0f : keep / s.sum;
}

// Behind what all threads of the block wrote: the last block of a tile joins its states. Its counter: tiles of a sequence begin `Rows` rows
// apart, and those of another begin at another token.
template <int Rows>
__device__ __forceinline__ void join_tile(const tile_params& p, const query_tile& tile, int kv_head) {
  if (!p.join.arrivals) return;
  const long long start = (long long)tile.first_token * p.group + tile.first_row;
  if (!arrives_last(p.join.arrivals + ((start / Rows + tile.first_token) * int(gridDim.y) + kv_head), unsigned(p.splits))) return;
  for (int row = int(threadIdx.x) / 32; row < tile.rows; row += int(blockDim.x) / 32) {
    const row_place at = place_of(tile, p, kv_head, row);
    merge_row<true>(p.join.rows, at.token, at.head);
  }
}

__device__ __forceinline__ void put_lse2(const tile_params& p, const query_tile& tile, row_place at, softmax_state s) {
  p.lse2[tile.state * p.lse_state + at.token * p.lse_token + at.head * p.lse_head] =
      s.max == SL_NEGATIVE_INFINITY ? s.max : s.max + log2f(s.sum);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
