// How the blocks of an attention launch share its work. The work is a line: owner after owner (a sequence, or a shared prefix), of each its KV
// heads one after another, of each head its tiles of query rows, of each tile its keys. Blocks take equal parts of the line, wherever those
// begin and end, so a batch of any lengths is balanced, on a grid that no length changes: a block finds its part from the plan alone.
// A tile that several blocks share is joined by the last of them to arrive (attention_tile.cuh).
// Source: Osama et al. 2023 (stream-K), Ye et al. 2025 (balanced plans of ragged attention); the search instead of a plan on the host is ours.
#pragma once

#include "backend.h"
#include "paged.cuh"
#include "reduce.cuh"
#include "vec.cuh"

namespace sl {
namespace SL_BACKEND_NS {

// Running sums of rows, unnormalised, and their states (max, sum of 2^(score - max)).
struct row_states {
  gmem<float> o;       // [places, round_up(Dv, 4)]
  gmem<float2> state;  // [places]
};

struct tile_params {
  any_input q;
  any_output o;                                // [T,H,Dv]
  gmem<float> lse2;                            // [T,H], or null
  gmem<const unsigned char> keys, values;      // a layer's pools
  gmem<const float> key_scales, value_scales;  // a layer's, or null
  gmem<const float> sinks, slopes;             // [H], or null
  // Shared prefixes; null where there are none.
  gmem<const int> prefixes;         // sl_prefix [max_prefixes]
  gmem<const int> prefix_indptr;    // [max_prefixes + 1]: query rows (tokens) of the prefixes before each
  gmem<const int> prefix_parents;   // [max_prefixes]: the prefix before it in its sequences, or -1
  gmem<const int> sequence_prefix;  // [max_sequences]: the last of a sequence's, or -1
  gmem<const int> prefix_lengths;   // [max_sequences]: keys that prefixes cover: a sequence's own begin there
  row_states of_prefixes;           // place (prefix_indptr[i] + token) * H + head
  row_states
      parts;  // two slots a block, two a block for what joins parts, of slot_rows each; then (pinned) one a chunk, of chunk_rows
  gmem<unsigned> arrivals;  // 3 a block
  long long q_token, q_head, o_token, o_head, lse_token, lse_head;
  long long chunk_slots;  // pinned: slots of chunks
  int D, Dv, H, group, T, blocks, slot_rows, chunk_rows;
  int window, kv_dtype;
  float scale, soft_cap;
  bool for_prefixes;          // this launch: the prefixes' keys; else the sequences' own
  bool causal, pinned;        // pinned: chunks of SL_ATTENTION_CHUNK keys, each summed from nothing and added in order
  bool q_vectors, o_vectors;  // rows may be moved 16 bytes at a time
  __host__ __device__ int width() const { return (Dv + 3) / 4 * 4; }
  // A row of a slot.
  __host__ __device__ long long place(long long slot, int row) const {
    const long long chunk = slot - 4ll * blocks;
    return (chunk < 0 ? slot * slot_rows : 4ll * blocks * slot_rows + chunk * chunk_rows) + row;
  }
};

// A tile of query rows, up to `Rows` of one KV head, and the keys of it that are the block's at a time. Row r is query token r / group and
// query head r % group of the group, so that a key that a block has loaded serves every head of its group and every token of the tile.
struct query_tile {
  int owner, first_token, first_row, rows, page_row, kv_head;  // first_row: counted from the owner's first token
  int first_key, last_key;
  enum {
    whole,
    part,
    running
  } kind;            // all of its keys are here: to the result; some: to a slot; pinned, in order: into a slot
  bool first, last;  // of the pieces that this block has of the tile
  long long
      slot;  // part: its own, or -1: it has no keys; running: sums are kept there, and states in it and the one below by turns
  int turn;                  // running: pieces before
  int first_block, sharing;  // blocks that share the tile
  long long first_chunk;     // pinned parts: the slot of its first chunk
  int chunks;
};

// What an owner has to do. Costs are in keys of the line.
struct owner_work {
  int first_token, queries, first_key, last_key, slot, page_row, tiles;  // slot: of its first token
  bool all_keys;                                                         // each row sees keys up to the last
  long long first_cost, step_cost,
      head_cost;  // of the first tile, of each that follows it more; of all tiles of a KV head
};

__device__ __forceinline__ int work_owners(const tile_params& p, const device_plan& plan) {
  return p.for_prefixes ? int(plan.header[2])
                        : int(plan.header[1]) + 1;  // the last has the rows past the plan's tokens
}

__device__ __forceinline__ int keys_together(const tile_params& p) { return p.pinned ? SL_ATTENTION_CHUNK : 64; }

// The keys of a tile: [first, last), by the owner's tokens that its rows are of.
__device__ __forceinline__ void keys_of_tokens(const owner_work& w, const tile_params& p, int from, int to, int& first,
                                               int& last) {
  first = w.first_key, last = w.last_key;
  if (p.for_prefixes) return;
  if (!w.all_keys) last = min(last, w.slot + to + 1);
  if (p.window > 0) first = max(first, w.slot + from - p.window + 1);
  first = min(first, last);
}

template <int Rows>
__device__ __forceinline__ void keys_of_tile(const owner_work& w, const tile_params& p, int tile, int& first,
                                             int& last) {
  const int end = min((tile + 1) * Rows, w.queries * p.group);
  keys_of_tokens(w, p, tile * Rows / p.group, (end - 1) / p.group, first, last);
}

__device__ __forceinline__ int steps_between(int first, int last, int unit) {
  return last > first ? (last - first / unit * unit + unit - 1) / unit : 0;
}

template <int Rows>
__device__ __forceinline__ owner_work work_of(const tile_params& p, const device_plan& plan, int owner) {
  owner_work w{};
  if (p.for_prefixes) {
    const int sequence = p.prefixes[4 * owner];
    w.first_token = plan.query_indptr[sequence];
    w.queries = plan.query_indptr[sequence + p.prefixes[4 * owner + 1]] - w.first_token;
    w.first_key = p.prefixes[4 * owner + 2], w.last_key = w.first_key + p.prefixes[4 * owner + 3];
    w.page_row = plan.page_indptr[sequence], w.all_keys = true;
  } else {
    const bool padding = owner >= plan.header[1];
    w.first_token = plan.query_indptr[owner];
    w.queries = (padding ? p.T : int(plan.query_indptr[owner + 1])) - w.first_token;
    if (!padding) {
      w.last_key = plan.kv_lengths[owner], w.slot = w.last_key - w.queries, w.page_row = plan.page_indptr[owner];
      if (p.prefix_lengths) w.first_key = p.prefix_lengths[owner];
    }
    w.all_keys = padding || !p.causal || plan.mask_indptr[owner + 1] > plan.mask_indptr[owner];
  }
  w.tiles = (w.queries * p.group + Rows - 1) / Rows;
  if (w.tiles == 0) return w;
  const int unit = keys_together(p);
  int first, last;
  keys_of_tile<Rows>(w, p, 0, first, last);
  w.first_cost = (long long)max(1, steps_between(first, last, unit)) * unit;
  if (w.tiles > 1) {
    keys_of_tile<Rows>(w, p, w.tiles - 1, first, last);
    w.step_cost = max(0ll, (long long)steps_between(first, last, unit) * unit - w.first_cost) / (w.tiles - 1);
  }
  w.head_cost = (w.tiles * w.first_cost + w.step_cost * (w.tiles * (w.tiles - 1ll) / 2) + unit - 1) / unit * unit;
  return w;
}

// Where tile i of a head begins.
__device__ __forceinline__ long long tile_start(const owner_work& w, int i) {
  return i * w.first_cost + w.step_cost * (i * (i - 1ll) / 2);
}

__device__ __forceinline__ long long warp_sum_whole(long long v) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(all_lanes, v, d);
  return v;
}

// A block's part of the line. It lies in shared memory, where registers are for keys and values; zeros at first.
template <int Rows>
struct block_work {
  // Called by a whole warp. False: there is none.
  __device__ __forceinline__ bool begin(const tile_params& p, const device_plan& plan) {
    const int lane = int(threadIdx.x) & 31, heads = p.H / p.group;
    owners_ = work_owners(p, plan);
    for (int some = 0; some < owners_; some += 32)
      total_ += warp_sum_whole(some + lane < owners_ ? work_of<Rows>(p, plan, some + lane).head_cost * heads : 0);
    // Who takes too few keys leaves more of sums for others to read than it has read itself.
    const int least = Rows <= 32 ? 128 : 256;
    blocks_ = int(max(1ll, min((long long)p.blocks, total_ / max(least, keys_together(p)))));
    if (total_ == 0) return false;
    if (int(blockIdx.x) >= blocks_) return false;
    at_ = start_of(int(blockIdx.x)), end_ = start_of(int(blockIdx.x) + 1);
    for (int some = 0; some < owners_; some += 32) {
      const long long own = some + lane < owners_ ? work_of<Rows>(p, plan, some + lane).head_cost * heads : 0;
      long long before = own;  // of the lanes up to this one
#pragma unroll
      for (int d = 1; d < 32; d *= 2) {
        const long long other = __shfl_up_sync(all_lanes, before, d);
        if (lane >= d) before += other;
      }
      const unsigned past = __ballot_sync(all_lanes, owner_start_ + before > at_);
      if (past != 0) {
        const int found = __ffs(int(past)) - 1;
        owner_ = some + found;
        owner_start_ += __shfl_sync(all_lanes, before - own, found);
        break;
      }
      owner_start_ += __shfl_sync(all_lanes, before, 31);
    }
    work_ = work_of<Rows>(p, plan, owner_);
    return true;
  }

  // By one thread: the next piece; false when there is none.
  __device__ __forceinline__ bool next(query_tile& t, const tile_params& p, const device_plan& plan) {
    while (true) {
      if (piece_ < pieces_) {
        fill(t, p);
        return true;
      }
      if (!advance(p, plan)) return false;
    }
  }

  __device__ __forceinline__ long long start_of(int block) const { return (long long)block * total_ / blocks_; }
  __device__ __forceinline__ int block_of(long long at) const { return int(((at + 1) * blocks_ - 1) / total_); }

  // To the tile at at_, of which pieces_ are this block's.
  __device__ __forceinline__ bool advance(const tile_params& p, const device_plan& plan) {
    if (at_ >= end_) return false;
    const int heads = p.H / p.group;
    while (at_ >= owner_start_ + work_.head_cost * heads) {
      owner_start_ += work_.head_cost * heads;
      work_ = work_of<Rows>(p, plan, ++owner_);
    }
    const long long in_owner = at_ - owner_start_;
    head_ = int(in_owner / work_.head_cost);
    const long long in_head = in_owner - head_ * work_.head_cost;
    int low = 0, high = work_.tiles - 1;  // the last tile that begins at or before
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (tile_start(work_, middle) <= in_head) low = middle;
      else high = middle - 1;
    }
    tile_ = low;
    const long long start = at_ - in_head + tile_start(work_, tile_);
    // The last tile of a head has what rounding left over.
    const long long cost =
        (tile_ + 1 < work_.tiles ? tile_start(work_, tile_ + 1) : work_.head_cost) - tile_start(work_, tile_);
    const long long from = at_ - start;
    long long to = min(end_, start + cost) - start;
    const int unit = keys_together(p);
    keys_of_tile<Rows>(work_, p, tile_, first_key_, last_key_);
    base_ = first_key_ / unit * unit;
    const int steps = steps_between(first_key_, last_key_, unit);
    first_block_ = block_of(start), last_block_ = block_of(start + cost - 1);
    split_ = from > 0 || to < cost;
    chunks_ = steps, first_chunk_ = start / unit;
    if (p.pinned && split_ &&
        (work_.tiles > 1 || min(Rows, work_.queries * p.group) > p.chunk_rows ||
         first_chunk_ + steps > p.chunk_slots)) {
      // No room for its chunks' states: the block that it begins in has all of it. Any choice gives the same bits.
      split_ = false;
      if (from > 0) {
        at_ = start + cost, pieces_ = piece_ = 0;
        return true;
      }
      to = cost;
    }
    first_step_ = int(from * steps / cost), last_step_ = to == cost ? steps : int(to * steps / cost);
    begins_ = from == 0;
    // Pinned pieces are chunks; one without keys is a piece too, for somebody waits for it.
    pieces_ = p.pinned ? max(1, last_step_ - first_step_) : 1;
    piece_ = 0;
    at_ = start + to;
    return true;
  }

  __device__ __forceinline__ void fill(query_tile& t, const tile_params& p) {
    const int unit = keys_together(p);
    t.owner = owner_, t.first_token = work_.first_token, t.first_row = tile_ * Rows, t.kv_head = head_,
    t.page_row = work_.page_row;
    t.rows = min(Rows, work_.queries * p.group - t.first_row);
    const int from = first_step_ + (p.pinned ? piece_ : 0), to = p.pinned ? min(from + 1, last_step_) : last_step_;
    t.first_key = max(first_key_, base_ + from * unit), t.last_key = min(last_key_, base_ + to * unit);
    t.first = piece_ == 0, t.last = piece_ == pieces_ - 1, t.turn = piece_;
    t.first_block = first_block_, t.sharing = last_block_ - first_block_ + 1;
    t.first_chunk = 4ll * p.blocks + first_chunk_, t.chunks = chunks_;
    if (split_) {
      t.kind = query_tile::part;
      t.slot = p.pinned ? (to > from ? t.first_chunk + from : -1) : 2ll * blockIdx.x + (begins_ ? 1 : 0);
    } else {
      t.kind = pieces_ > 1 ? query_tile::running : query_tile::whole;
      t.slot = 2ll * blockIdx.x + 1;
    }
    piece_++;
  }

  long long total_, at_, end_, owner_start_, first_chunk_;
  int blocks_, owners_, owner_, head_, tile_, first_key_, last_key_, base_;
  int first_step_, last_step_, first_block_, last_block_, chunks_, pieces_, piece_;
  bool split_, begins_;
  owner_work work_;
};

// A struct in shared memory, word by word: what all threads read at once is read once.
template <typename V>
__device__ __forceinline__ void put_words(smem<V> to, const V& v) {
  static_assert(sizeof(V) % 4 == 0, "");
  uint32_t words[sizeof(V) / 4];
  memcpy(words, &v, sizeof v);
#pragma unroll
  for (int i = 0; i < int(sizeof(V) / 4); i++) view_as<uint32_t>(to)[i] = words[i];
}
template <typename V>
__device__ __forceinline__ V get_words(smem<V> from) {
  uint32_t words[sizeof(V) / 4];
#pragma unroll
  for (int i = 0; i < int(sizeof(V) / 4); i++) words[i] = view_as<uint32_t>(from)[i];
  V v;
  memcpy(&v, words, sizeof v);
  return v;
}

// Called by all threads of the block: the first piece, and behind a barrier of theirs each that follows; false when there is none.
template <int Rows>
__device__ __forceinline__ bool next_piece(smem<block_work<Rows>> work, smem<query_tile> tile, smem<int> found,
                                           bool first, const tile_params& p, const device_plan& plan) {
  if (threadIdx.x < 32) {
    block_work<Rows> w{};
    bool any = true;
    if (first) any = w.begin(p, plan);
    if (threadIdx.x == 0) {
      if (!first) w = get_words<block_work<Rows>>(work);
      query_tile t{};
      any = any && w.next(t, p, plan);
      put_words<block_work<Rows>>(work, w);
      put_words<query_tile>(tile, t);
      found[0] = any;
    }
  }
  __syncthreads();
  return found[0] != 0;
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
