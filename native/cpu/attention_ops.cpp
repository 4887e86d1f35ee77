// Attention over paged keys and values. A task is a tile of query rows of one sequence with one KV head, whose query
// heads share each read of the keys. Where tiles are fewer than threads (decode of a few long sequences), each chunk of
// keys becomes a task and the chunks' states are merged afterwards, in the very order in which one task would have
// merged them: how work was cut never shows in a result.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "blocks.h"
#include "cpu.h"

namespace sl::cpu {
namespace {

constexpr int64_t kTileRowsWanted = 64;  // query rows (tokens times heads of a group) that share a pass over keys
constexpr int64_t kPrefixRows = 512;     // the same for a shared prefix, whose point is to be read once
constexpr int64_t kSplitTokens = 8;      // tokens a tile may have to be split by chunks
constexpr int64_t kChunk = SL_ATTENTION_CHUNK;

struct tile {
  int32_t sequence, first_token, count;
  int32_t first_chunk, chunks;  // that any of its rows sees
  int64_t state;                // of its first chunk, in split states
};

int64_t element_size(sl_dtype dtype) { return static_cast<int64_t>(size_of(dtype)); }

// What one attention op has in its workspace. Sizes come from shapes and capacities only.
struct layout {
  int64_t tokens, heads, group, max_rows, split_states, state;
  tile* tiles;
  float* states;  // split: [split_states][state]; cascade: [tokens][heads][state]
  char* scratch;  // a thread: kernel scratch, rows, q, states
  int64_t scratch_bytes, rows_offset, q_offset, states_offset, q_stride;

  layout(const cpu_device& d, const attention_args& a, bool cascade, arena& space) {
    const int64_t D = a.cache.key_dim, Dv = a.cache.value_dim;
    tokens = a.q.shape[0];
    heads = a.q.shape[1];
    group = heads / a.cache.kv_heads;
    state = state_floats(Dv);
    max_rows = std::max(group, kTileRowsWanted);
    if (cascade) max_rows = std::max(max_rows, std::min(kPrefixRows, tokens * group));
    // Every chunk of every sequence once, for as many tokens as a split tile may have.
    const int64_t chunks = int64_t{a.batch->max_page_ids} * a.cache.page_size / kChunk + a.batch->max_sequences;
    split_states = std::min<int64_t>(tokens, kSplitTokens) * heads * chunks;
    // A capacity for very long contexts would reserve more than splitting is worth: what does not fit is not split.
    split_states = std::min(split_states, std::max<int64_t>(heads * 64, (int64_t{64} << 20) / (state * 4)));

    tiles = space.take<tile>(tokens);
    states = space.take<float>(std::max(split_states, cascade ? tokens * heads : 0) * state);
    const auto align = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
    q_stride = D + 1;
    rows_offset = align(attention_scratch(max_rows, D, Dv));
    q_offset = rows_offset + align(max_rows * static_cast<int64_t>(sizeof(attention_row)));
    states_offset = q_offset + align(max_rows * q_stride * 4);
    scratch_bytes = states_offset + align(max_rows * state * 4);
    scratch = space.take<char>(scratch_bytes * d.pool.threads());
  }

  char* own(int thread) const { return scratch + thread * scratch_bytes; }
  attention_row* rows(int thread) const { return reinterpret_cast<attention_row*>(own(thread) + rows_offset); }
  float* q(int thread) const { return reinterpret_cast<float*>(own(thread) + q_offset); }
  float* local_states(int thread) const { return reinterpret_cast<float*>(own(thread) + states_offset); }
};

class attention {
 public:
  attention(cpu_device& d, const attention_args& a, const layout& l)
      : d_(d), a_(a), plan_(a.batch->device), l_(l), Hkv_(a.cache.kv_heads) {
    const int64_t qt = std::max<int64_t>(1, kTileRowsWanted / l.group);
    int64_t state = 0;
    for (int32_t b = 0; b < plan_.header->num_sequences; ++b) {
      for (int32_t t = plan_.query_indptr[b]; t < plan_.query_indptr[b + 1]; t += static_cast<int32_t>(qt)) {
        tile& own = l.tiles[tiles_++];
        // One chunk at least, so that a tile that sees nothing has a state as well.
        own = {b, t, static_cast<int32_t>(std::min<int64_t>(qt, plan_.query_indptr[b + 1] - t)), 0, 1, state};
        int64_t first = INT64_MAX, last = 0;
        for (int32_t i = t; i < t + own.count; ++i) {
          const auto [low, high] = sees(i);
          first = std::min(first, low);
          last = std::max(last, high);
        }
        if (first < last) {
          own.first_chunk = static_cast<int32_t>(first / kChunk);
          own.chunks = static_cast<int32_t>((last + kChunk - 1) / kChunk) - own.first_chunk;
        }
        state += int64_t{own.chunks} * own.count * l.heads;
        chunks_ += own.chunks;
        splittable_ = splittable_ && own.count <= kSplitTokens;
      }
    }
    splittable_ = splittable_ && state <= l.split_states;
  }

  void paged() {
    pad();
    const int threads = d_.pool.threads();
    if (threads > 1 && splittable_ && tiles_ * Hkv_ < 2 * threads && chunks_ > tiles_) {
      split();
      return;
    }
    // Later tiles of a causal prompt see more keys: they go first, so that the threads end together.
    d_.pool.parallel(tiles_ * Hkv_, [&](int64_t index, int thread) {
      const tile& own = l_.tiles[tiles_ - 1 - index / Hkv_];
      const int64_t kv_head = index % Hkv_;
      float* states = l_.local_states(thread);
      clear(states, own.count * l_.group);
      attention_row* rows = l_.rows(thread);
      fill_rows(rows, l_.q(thread), own.first_token, own.count, kv_head, states, l_.group, 0);
      attend(rows, own.count * l_.group, own.sequence, kv_head, own.first_chunk * kChunk,
             (own.first_chunk + own.chunks) * kChunk, thread);
      finish(own, kv_head, states, l_.group);
    });
  }

  // Each prefix once for all of its sequences, then the rest of each sequence.
  void cascade() {
    pad();
    clear(l_.states, int64_t{plan_.header->num_tokens} * l_.heads);
    const sl_prefix* p = plan_.prefixes;
    for (int32_t i = 0, end = 0; i < plan_.header->num_prefixes; i = end) {
      while (end < plan_.header->num_prefixes && p[end].first_key == p[i].first_key) ++end;
      // Prefixes that begin at one key belong to different sequences; those that begin later must wait for them.
      d_.pool.parallel((end - i) * Hkv_,
                       [&, i](int64_t index, int thread) { prefix(p[i + index / Hkv_], index % Hkv_, thread); });
    }
    d_.pool.parallel(tiles_ * Hkv_, [&](int64_t index, int thread) {
      const tile& own = l_.tiles[tiles_ - 1 - index / Hkv_];
      const int64_t kv_head = index % Hkv_, first = plan_.prefix_lengths[own.sequence];
      float* states = l_.states + (own.first_token * l_.heads + kv_head * l_.group) * l_.state;
      attention_row* rows = l_.rows(thread);
      fill_rows(rows, l_.q(thread), own.first_token, own.count, kv_head, states, l_.heads, first);
      attend(rows, own.count * l_.group, own.sequence, kv_head, std::max(first, own.first_chunk * kChunk),
             (own.first_chunk + own.chunks) * kChunk, thread);
      finish(own, kv_head, states, l_.heads);
    });
  }

 private:
  // The keys that token t may see, before its custom mask.
  std::pair<int64_t, int64_t> sees(int64_t t) const {
    const int64_t b = plan_.token_sequence[t], slot = plan_.token_slot[t], length = plan_.kv_lengths[b];
    const int64_t first = a_.window > 0 ? std::max<int64_t>(0, slot - a_.window + 1) : 0;
    const int64_t last = a_.causal != 0 && mask_of(t) == nullptr ? slot + 1 : length;
    return {first, std::max(first, last)};
  }

  const uint8_t* mask_of(int64_t t) const {
    const int64_t b = plan_.token_sequence[t];
    if (plan_.mask_indptr[b + 1] <= plan_.mask_indptr[b]) return nullptr;
    return plan_.mask + plan_.mask_indptr[b] + (t - plan_.query_indptr[b]) * ((int64_t{plan_.kv_lengths[b]} + 7) / 8);
  }

  void clear(float* states, int64_t count) const {
    std::memset(states, 0, static_cast<size_t>(count * l_.state) * 4);
    for (int64_t i = 0; i < count; ++i) states[(i + 1) * l_.state - 16] = -INFINITY;
  }

  // Rows past the batch's tokens.
  void pad() const {
    for (int64_t t = plan_.header->num_tokens; t < l_.tokens; ++t) {
      for (int64_t h = 0; h < l_.heads; ++h) {
        std::memset(at(a_.o, t, h), 0, static_cast<size_t>(a_.cache.value_dim * element_size(a_.o.dtype)));
        if (a_.lse2) *lse(t, h) = -INFINITY;
      }
    }
  }

  float* lse(int64_t t, int64_t h) const { return a_.lse2.as<float>() + t * a_.lse2.stride[0] + h * a_.lse2.stride[1]; }

  // A row a token and head of the group; token i's state lies states_per_token states behind that of i-1.
  void fill_rows(attention_row* rows, float* q, int64_t first_token, int64_t count, int64_t kv_head, float* states,
                 int64_t states_per_token, int64_t from_key) const {
    constexpr float kLog2e = 1.44269504088896340736f;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t t = first_token + i;
      const auto [first, last] = sees(t);
      for (int64_t g = 0; g < l_.group; ++g, ++rows, q += l_.q_stride) {
        const int64_t h = kv_head * l_.group + g;
        d_.kernel.widen(row_of(a_.q, t, h), a_.cache.key_dim, 1.0f, q);
        *rows = {q,
                 states + (i * states_per_token + g) * l_.state,
                 mask_of(t),
                 std::max(first, from_key),
                 last,
                 a_.alibi_slopes ? a_.alibi_slopes.as<float>()[h] * kLog2e : 0.0f,
                 plan_.positions[t]};
      }
    }
  }

  void attend(const attention_row* rows, int64_t count, int64_t sequence, int64_t kv_head, int64_t first_key,
              int64_t last_key, int thread) {
    const kv_view& c = a_.cache;
    const auto layer = static_cast<uint64_t>(a_.layer);
    attention_task task{};
    task.keys = c.keys + layer * c.key_layer_bytes;
    task.values = c.values + layer * c.value_layer_bytes;
    if (c.key_scales != nullptr) {
      task.key_scales = c.key_scales + layer * c.scale_layer_count;
      task.value_scales = c.value_scales + layer * c.scale_layer_count;
    }
    task.pages = plan_.page_ids + plan_.page_indptr[sequence];
    task.rows = rows;
    task.scratch = l_.own(thread);
    task.first_key = first_key;
    task.last_key = std::min<int64_t>(last_key, plan_.kv_lengths[sequence]);
    task.count = static_cast<int32_t>(count);
    task.kv_head = static_cast<int32_t>(kv_head);
    task.kv_heads = c.kv_heads;
    task.page_size = c.page_size;
    task.key_dim = c.key_dim;
    task.value_dim = c.value_dim;
    task.dtype = c.dtype;
    task.scale = a_.scale;
    task.soft_cap = a_.soft_cap;
    task.alibi = static_cast<bool>(a_.alibi_slopes);
    d_.kernel.attend(task);
    d_.kv_bytes_read.fetch_add(
        static_cast<uint64_t>(task.keys_read * ((c.key_dim + c.value_dim) * element_size(c.dtype) + (c.key_scales != nullptr ? 8 : 0))),
        std::memory_order_relaxed);
  }

  void finish(const tile& own, int64_t kv_head, const float* states, int64_t states_per_token) const {
    for (int64_t i = 0; i < own.count; ++i) {
      for (int64_t g = 0; g < l_.group; ++g) {
        const int64_t h = kv_head * l_.group + g, t = own.first_token + i;
        const float sink = a_.sinks ? a_.sinks.as<float>()[h] * 1.44269504088896340736f : 0.0f;
        const float result = d_.kernel.finish(states + (i * states_per_token + g) * l_.state, a_.cache.value_dim,
                                              static_cast<bool>(a_.sinks), sink, row_of(a_.o, t, h));
        if (a_.lse2) *lse(t, h) = result;
      }
    }
  }

  void split() {
    // States [chunk][token][head] of each tile.
    const auto states_of = [&](const tile& own, int64_t chunk, int64_t kv_head) {
      return l_.states + (own.state + chunk * own.count * l_.heads + kv_head * l_.group) * l_.state;
    };
    d_.pool.parallel(chunks_ * Hkv_, [&](int64_t index, int thread) {
      int64_t chunk = index / Hkv_;
      const int64_t kv_head = index % Hkv_;
      const tile* own = l_.tiles;
      for (; chunk >= own->chunks; ++own) chunk -= own->chunks;
      attention_row* rows = l_.rows(thread);
      float* states = states_of(*own, chunk, kv_head);
      for (int64_t i = 0; i < own->count; ++i) clear(states + i * l_.heads * l_.state, l_.group);
      fill_rows(rows, l_.q(thread), own->first_token, own->count, kv_head, states, l_.heads, 0);
      const int64_t first = (own->first_chunk + chunk) * kChunk;
      attend(rows, own->count * l_.group, own->sequence, kv_head, first, first + kChunk, thread);
    });
    d_.pool.parallel(tiles_ * Hkv_, [&](int64_t index, int) {
      const tile& own = l_.tiles[index / Hkv_];
      const int64_t kv_head = index % Hkv_;
      float* all = states_of(own, 0, kv_head);
      for (int64_t chunk = 1; chunk < own.chunks; ++chunk) {
        const float* next = states_of(own, chunk, kv_head);
        for (int64_t i = 0; i < own.count; ++i)
          for (int64_t g = 0; g < l_.group; ++g)
            d_.kernel.merge(all + (i * l_.heads + g) * l_.state, next + (i * l_.heads + g) * l_.state,
                            a_.cache.value_dim);
      }
      finish(own, kv_head, all, l_.heads);
    });
  }

  void prefix(const sl_prefix& p, int64_t kv_head, int thread) {
    const int64_t first = plan_.query_indptr[p.first_sequence],
                  last = plan_.query_indptr[p.first_sequence + p.num_sequences];
    const int64_t pass = l_.max_rows / l_.group;
    for (int64_t t = first; t < last; t += pass) {
      const int64_t count = std::min(pass, last - t);
      attention_row* rows = l_.rows(thread);
      fill_rows(rows, l_.q(thread), t, count, kv_head, l_.states + (t * l_.heads + kv_head * l_.group) * l_.state,
                l_.heads, p.first_key);
      attend(rows, count * l_.group, p.first_sequence, kv_head, p.first_key, p.first_key + p.num_keys, thread);
    }
  }

  cpu_device& d_;
  const attention_args& a_;
  const plan_view& plan_;
  const layout& l_;
  const int64_t Hkv_;
  int64_t tiles_ = 0, chunks_ = 0;
  bool splittable_ = true;
};

void paged_attention(stream& s, const attention_args& a) {
  cpu_device& d = device_of(s);
  arena space(s.workspace);
  const layout l(d, a, false, space);
  attention(d, a, l).paged();
}

void cascade_attention(stream& s, const attention_args& a) {
  cpu_device& d = device_of(s);
  arena space(s.workspace);
  const layout l(d, a, true, space);
  attention run(d, a, l);
  if (a.batch->device.header->num_prefixes > 0) run.cascade();
  else run.paged();
}

template <bool Cascade>
uint64_t attention_workspace(const device& d, const attention_args& a) {
  arena space(nullptr);
  const layout l(device_of(d), a, Cascade, space);
  return space.used();
}

struct append_space {
  float *key, *value;
  int64_t key_stride, value_stride;
};

append_space take_append(const cpu_device& d, const kv_append_args& a, arena& space) {
  const int64_t threads = d.pool.threads(), D = a.cache.key_dim + 16, Dv = a.cache.value_dim + 16;
  auto* key = space.take<float>(threads * D);
  return {key, space.take<float>(threads * Dv), D, Dv};
}

void kv_append(stream& s, const kv_append_args& a) {
  cpu_device& d = device_of(s);
  const plan_view& plan = a.batch->device;
  arena space(s.workspace);
  const append_space own = take_append(d, a, space);
  const int64_t T = std::min<int64_t>(a.k.shape[0], plan.header->num_tokens), Hkv = a.cache.kv_heads;
  for_rows(d, T, Hkv * (a.cache.key_dim + a.cache.value_dim), [&](int64_t t, int thread) {
    for (int64_t h = 0; h < Hkv; ++h) {
      float *key = own.key + thread * own.key_stride, *value = own.value + thread * own.value_stride;
      d.kernel.widen(row_of(a.k, t, h), a.cache.key_dim, 1.0f, key);
      d.kernel.widen(row_of(a.v, t, h), a.cache.value_dim, 1.0f, value);
      write_kv(d, a.cache, a.layer, plan, t, static_cast<int32_t>(h), key, value);
    }
  });
}

uint64_t kv_append_workspace(const device& d, const kv_append_args& a) {
  arena space(nullptr);
  take_append(device_of(d), a, space);
  return space.used();
}

void copy_pages(stream& s, const copy_pages_args& a) {
  const kv_view& c = a.cache;
  const int64_t size = element_size(c.dtype), slots = int64_t{c.kv_heads} * c.page_size;
  const auto copy = [&](char* layer, int64_t page_bytes, int32_t source, int32_t target) {
    std::memcpy(layer + target * page_bytes, layer + source * page_bytes, static_cast<size_t>(page_bytes));
  };
  const auto pairs = static_cast<int64_t>(a.pairs.size());
  for_rows(device_of(s), c.layers * pairs, slots * (c.key_dim + c.value_dim), [&](int64_t i, int) {
    const auto layer = static_cast<uint64_t>(i / pairs);
    const auto [source, target] = a.pairs[static_cast<size_t>(i % pairs)];
    copy(c.keys + layer * c.key_layer_bytes, slots * c.key_dim * size, source, target);
    copy(c.values + layer * c.value_layer_bytes, slots * c.value_dim * size, source, target);
    if (c.key_scales == nullptr) return;
    copy(reinterpret_cast<char*>(c.key_scales + layer * c.scale_layer_count), slots * 4, source, target);
    copy(reinterpret_cast<char*>(c.value_scales + layer * c.scale_layer_count), slots * 4, source, target);
  });
}

// A task is a page and layer; of the two addresses one is the pool's, the other the host buffer's.
template <bool Loads>
void move_pages(stream& s, const host_pages_args& a) {
  const page_layout page = layout_of_page(a.cache);
  const auto pages = static_cast<int64_t>(a.pages.size());
  for_rows(device_of(s), a.cache.layers * pages, static_cast<int64_t>(page.bytes) / a.cache.layers, [&](int64_t task, int) {
    const auto layer = static_cast<uint64_t>(task / pages), i = static_cast<uint64_t>(task % pages);
    for (const page_part& part : page.parts) {
      if (part.pool == nullptr) continue;
      char* in_pool = part.pool + layer * part.layer_bytes + static_cast<uint64_t>(a.pages[i]) * part.bytes;
      char* in_host = a.host + i * page.bytes + part.host_offset + layer * part.bytes;
      std::memcpy(Loads ? in_pool : in_host, Loads ? in_host : in_pool, part.bytes);
    }
  });
}

}  // namespace

// The largest magnitude takes the type's largest value. Returns the scale.
static float quantise(sl_dtype dtype, const float* x, int64_t count, char* to) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float scale = largest / (dtype == SL_DTYPE_I8 ? 127.0f : 448.0f);
  for (int64_t i = 0; i < count; ++i) {
    const float v = scale == 0 ? 0 : x[i] / scale;
    to[i] = static_cast<char>(dtype == SL_DTYPE_I8 ? static_cast<uint8_t>(f32_to_i8(v)) : f32_to_e4m3(v));
  }
  return scale;
}

void write_kv(const cpu_device& d, const kv_view& c, int32_t layer, const plan_view& plan, int64_t token, int32_t head,
              const float* key, const float* value) {
  const int32_t sequence = plan.token_sequence[token], slot = plan.token_slot[token];
  const int64_t page = plan.page_ids[plan.page_indptr[sequence] + slot / c.page_size];
  const int64_t at = (page * c.kv_heads + head) * c.page_size + slot % c.page_size, size = element_size(c.dtype);
  const auto l = static_cast<uint64_t>(layer);
  char* keys = c.keys + l * c.key_layer_bytes + at * c.key_dim * size;
  char* values = c.values + l * c.value_layer_bytes + at * c.value_dim * size;
  if (c.key_scales != nullptr) {
    c.key_scales[l * c.scale_layer_count + static_cast<uint64_t>(at)] = quantise(c.dtype, key, c.key_dim, keys);
    c.value_scales[l * c.scale_layer_count + static_cast<uint64_t>(at)] = quantise(c.dtype, value, c.value_dim, values);
    return;
  }
  d.kernel.narrow(key, c.key_dim, {keys, c.dtype});
  d.kernel.narrow(value, c.value_dim, {values, c.dtype});
}

void register_attention_ops(op_table& table) {
  table.paged_attention = {paged_attention, attention_workspace<false>};
  table.cascade_attention = {cascade_attention, attention_workspace<true>};
  table.kv_append = {kv_append, kv_append_workspace};
  table.copy_pages.run = copy_pages;
  table.save_pages.run = move_pages<false>;
  table.load_pages.run = move_pages<true>;
}

}  // namespace sl::cpu
