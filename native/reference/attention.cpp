// Attention over paged keys and values, and what writes and copies pages.
#include "reference.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "instantiate.h"

namespace sl::reference {
namespace {

// The first element of a slot's vector in a layer's pool [pages, Hkv, P, dim], and the place of its scale.
int64_t place(const kv_view& c, int32_t page, int32_t head, int32_t slot) {
  return (int64_t{page} * c.kv_heads + head) * c.page_size + slot % c.page_size;
}

// The keys or values of a sequence for one KV head, as f32 [length, dim], and each one's scale (1 where there is none).
struct slots {
  std::vector<float> vectors, scales;
  int32_t dim = 0;

  void read(const kv_view& c, const char* pool, const float* all_scales, int32_t dim_, const int32_t* pages,
            int64_t length, int32_t head) {
    dim = dim_;
    vectors.resize(static_cast<size_t>(length * dim));
    scales.assign(static_cast<size_t>(length), 1.0f);
    for (int64_t j = 0; j < length; ++j) {
      const int64_t at = place(c, pages[j / c.page_size], head, static_cast<int32_t>(j));
      for (int32_t d = 0; d < dim; ++d) vectors[j * dim + d] = load(c.dtype, pool, at * dim + d);
      if (all_scales != nullptr) scales[j] = all_scales[at];
    }
  }
};

void write_vector(const kv_view& c, char* pool, float* scales, int64_t at, int32_t dim, const float* x) {
  float scale = 1;
  if (scales != nullptr) {  // a scale a token and head: the largest magnitude takes the type's largest value
    float largest = 0;
    for (int32_t d = 0; d < dim; ++d) largest = std::max(largest, std::fabs(x[d]));
    scale = largest / (c.dtype == SL_DTYPE_I8 ? 127.0f : 448.0f);
    scales[at] = scale;
  }
  for (int32_t d = 0; d < dim; ++d) store(c.dtype, pool, at * dim + d, scale == 0 ? 0 : x[d] / scale);
}

// One query head against one sequence. What it sees of slot j is decided by `sees`.
struct query {
  int64_t slot, position;
  const uint8_t* mask;  // this row's bits, or null
};

bool sees(const attention_args& a, const query& q, int64_t key) {
  if (a.window > 0 && key <= q.slot - a.window) return false;
  if (q.mask != nullptr) return q.mask[key / 8] >> (key % 8) & 1;
  return a.causal == 0 || key <= q.slot;
}

// sum = total * o, both relative to 2^max
template <typename Real>
struct state {
  Real max = -std::numeric_limits<Real>::infinity(), total = 0;
  std::vector<Real> sum;

  void merge(const state& other) {
    if (other.total == 0 && std::isinf(other.max)) return;
    const Real top = std::fmax(max, other.max);
    const Real before = std::isinf(max) ? 0 : std::exp2(max - top), here = std::exp2(other.max - top);
    for (size_t d = 0; d < sum.size(); ++d) sum[d] = sum[d] * before + other.sum[d] * here;
    total = total * before + other.total * here;
    max = top;
  }
};

template <typename Real>
void attend_chunk(const attention_args& a, const query& q, const std::vector<Real>& row, int64_t head,
                  const slots& keys, const slots& values, int64_t first, int64_t last, state<Real>& result) {
  constexpr Real kLog2e = static_cast<Real>(1.44269504088896340736);
  Real scores[SL_ATTENTION_CHUNK];
  result.max = -std::numeric_limits<Real>::infinity();
  result.total = 0;
  std::fill(result.sum.begin(), result.sum.end(), Real{0});
  for (int64_t j = first; j < last; ++j) {
    if (!sees(a, q, j)) continue;
    Real score = 0;
    for (int32_t d = 0; d < keys.dim; ++d) score += row[d] * static_cast<Real>(keys.vectors[j * keys.dim + d]);
    score *= static_cast<Real>(keys.scales[j]) * static_cast<Real>(a.scale);
    if (a.soft_cap > 0) score = static_cast<Real>(a.soft_cap) * std::tanh(score / static_cast<Real>(a.soft_cap));
    if (a.alibi_slopes) score += static_cast<Real>(load(a.alibi_slopes, head)) * static_cast<Real>(j - q.position);
    scores[j - first] = score * kLog2e;
    result.max = std::fmax(result.max, scores[j - first]);
  }
  for (int64_t j = first; j < last; ++j) {
    if (!sees(a, q, j)) continue;
    Real p = std::isinf(result.max) ? Real{0} : std::exp2(scores[j - first] - result.max);
    result.total += p;
    if (is_rounded<Real> && a.q.dtype != SL_DTYPE_F32) p = round_to(a.q.dtype, p);
    p *= static_cast<Real>(values.scales[j]);
    for (int32_t d = 0; d < values.dim; ++d) result.sum[d] += p * static_cast<Real>(values.vectors[j * values.dim + d]);
  }
}

}  // namespace

void write_kv(const kv_view& c, int32_t layer, const plan_view& plan, int64_t token, int32_t head, const float* key,
              const float* value) {
  const int32_t sequence = plan.token_sequence[token], slot = plan.token_slot[token];
  const int32_t page = plan.page_ids[plan.page_indptr[sequence] + slot / c.page_size];
  const int64_t at = place(c, page, head, slot);
  const auto l = static_cast<uint64_t>(layer);
  write_vector(c, c.keys + l * c.key_layer_bytes,
               c.key_scales != nullptr ? c.key_scales + l * c.scale_layer_count : nullptr, at, c.key_dim, key);
  write_vector(c, c.values + l * c.value_layer_bytes,
               c.value_scales != nullptr ? c.value_scales + l * c.scale_layer_count : nullptr, at, c.value_dim, value);
}

template <typename Real>
void kv_append(stream&, const kv_append_args& a) {
  const plan_view& plan = a.batch->device;
  std::vector<float> key(static_cast<size_t>(a.cache.key_dim)), value(static_cast<size_t>(a.cache.value_dim));
  for (int64_t t = 0; t < a.k.shape[0] && t < plan.header->num_tokens; ++t) {
    for (int32_t h = 0; h < a.cache.kv_heads; ++h) {
      for (int32_t d = 0; d < a.cache.key_dim; ++d) key[d] = load(a.k, t, h, d);
      for (int32_t d = 0; d < a.cache.value_dim; ++d) value[d] = load(a.v, t, h, d);
      write_kv(a.cache, a.layer, plan, t, h, key.data(), value.data());
    }
  }
}

template <typename Real>
void paged_attention(stream&, const attention_args& a) {
  const plan_view& plan = a.batch->device;
  const kv_view& c = a.cache;
  const int64_t D = c.key_dim, Dv = c.value_dim, group = a.q.shape[1] / c.kv_heads;
  const auto layer = static_cast<uint64_t>(a.layer);
  const float* key_scales = c.key_scales != nullptr ? c.key_scales + layer * c.scale_layer_count : nullptr;
  const float* value_scales = c.value_scales != nullptr ? c.value_scales + layer * c.scale_layer_count : nullptr;
  constexpr Real kNone = -std::numeric_limits<Real>::infinity(), kLog2e = static_cast<Real>(1.44269504088896340736);
  std::vector<Real> row(static_cast<size_t>(D));
  slots keys, values;
  state<Real> all, chunk;
  all.sum.resize(static_cast<size_t>(Dv));
  chunk.sum.resize(static_cast<size_t>(Dv));

  const auto attend = [&](int64_t t, int64_t h, int32_t b, int64_t length) {
    const bool custom = plan.mask_indptr[b + 1] > plan.mask_indptr[b];
    const int64_t i = t - plan.query_indptr[b];
    const query q = {plan.token_slot[t], plan.positions[t],
                     custom ? plan.mask + plan.mask_indptr[b] + i * ((length + 7) / 8) : nullptr};
    for (int64_t d = 0; d < D; ++d) row[d] = load(a.q, t, h, d);
    all.max = kNone;
    all.total = 0;
    std::fill(all.sum.begin(), all.sum.end(), Real{0});
    // Chunks begin at position 0 and are merged from left to right, whatever is computed beside them.
    for (int64_t first = 0; first < length; first += SL_ATTENTION_CHUNK) {
      attend_chunk(a, q, row, h, keys, values, first, std::min<int64_t>(length, first + SL_ATTENTION_CHUNK), chunk);
      all.merge(chunk);
    }
    if (a.sinks && load(a.sinks, h) > -INFINITY) {  // a logit with no value
      chunk.max = static_cast<Real>(load(a.sinks, h)) * kLog2e;
      chunk.total = 1;
      std::fill(chunk.sum.begin(), chunk.sum.end(), Real{0});
      all.merge(chunk);
    }
    const bool empty = std::isinf(all.max) && all.max < 0;
    for (int64_t d = 0; d < Dv; ++d) store(a.o, t, h, d, empty ? 0 : all.sum[d] / all.total);
    if (a.lse2) store(a.lse2, t, h, empty ? kNone : all.max + std::log2(all.total));
  };

  for (int32_t b = 0; b < plan.header->num_sequences; ++b) {
    const int64_t length = plan.kv_lengths[b];
    const int32_t* pages = plan.page_ids + plan.page_indptr[b];
    if (plan.query_indptr[b] == plan.query_indptr[b + 1]) continue;
    for (int32_t kv_head = 0; kv_head < c.kv_heads; ++kv_head) {
      keys.read(c, c.keys + layer * c.key_layer_bytes, key_scales, c.key_dim, pages, length, kv_head);
      values.read(c, c.values + layer * c.value_layer_bytes, value_scales, c.value_dim, pages, length, kv_head);
      for (int64_t t = plan.query_indptr[b]; t < plan.query_indptr[b + 1]; ++t)
        for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) attend(t, h, b, length);
    }
  }
  for (int64_t t = plan.header->num_tokens; t < a.q.shape[0]; ++t) {  // padding
    for (int64_t h = 0; h < a.q.shape[1]; ++h) {
      for (int64_t d = 0; d < Dv; ++d) store(a.o, t, h, d, 0);
      if (a.lse2) store(a.lse2, t, h, kNone);
    }
  }
}

template <typename Real>
void copy_pages(stream&, const copy_pages_args& a) {
  const kv_view& c = a.cache;
  const uint64_t slots = static_cast<uint64_t>(c.kv_heads) * static_cast<uint64_t>(c.page_size);
  const auto copy = [&](char* pool, uint64_t layer_bytes, uint64_t page_bytes, int32_t source, int32_t target) {
    for (int32_t l = 0; l < c.layers; ++l) {
      char* layer = pool + static_cast<uint64_t>(l) * layer_bytes;
      std::memcpy(layer + static_cast<uint64_t>(target) * page_bytes,
                  layer + static_cast<uint64_t>(source) * page_bytes, page_bytes);
    }
  };
  for (const auto& [source, target] : a.pairs) {
    copy(c.keys, c.key_layer_bytes, slots * static_cast<uint64_t>(c.key_dim) * size_of(c.dtype), source, target);
    copy(c.values, c.value_layer_bytes, slots * static_cast<uint64_t>(c.value_dim) * size_of(c.dtype), source, target);
    if (c.key_scales == nullptr) continue;
    copy(reinterpret_cast<char*>(c.key_scales), c.scale_layer_count * sizeof(float), slots * sizeof(float), source,
         target);
    copy(reinterpret_cast<char*>(c.value_scales), c.scale_layer_count * sizeof(float), slots * sizeof(float), source,
         target);
  }
}

// move(pool, host, bytes) for each piece: a pool's bytes of one page and layer.
template <typename Move>
static void for_pieces(const host_pages_args& a, Move move) {
  const page_layout page = layout_of_page(a.cache);
  for (size_t i = 0; i < a.pages.size(); ++i)
    for (const page_part& part : page.parts)
      for (uint64_t l = 0; part.pool != nullptr && l < static_cast<uint64_t>(a.cache.layers); ++l)
        move(part.pool + l * part.layer_bytes + static_cast<uint64_t>(a.pages[i]) * part.bytes,
             a.host + i * page.bytes + part.host_offset + l * part.bytes, part.bytes);
}

template <typename Real>
void save_pages(stream&, const host_pages_args& a) {
  for_pieces(a, [](const char* pool, char* host, uint64_t bytes) { std::memcpy(host, pool, bytes); });
}

template <typename Real>
void load_pages(stream&, const host_pages_args& a) {
  for_pieces(a, [](char* pool, const char* host, uint64_t bytes) { std::memcpy(pool, host, bytes); });
}

SL_INSTANTIATE(kv_append)
template void paged_attention<float>(stream&, const attention_args&);
template void paged_attention<double>(stream&, const attention_args&);
SL_INSTANTIATE(copy_pages)
template void save_pages<float>(stream&, const host_pages_args&);
template void save_pages<double>(stream&, const host_pages_args&);
template void load_pages<float>(stream&, const host_pages_args&);
template void load_pages<double>(stream&, const host_pages_args&);

}  // namespace sl::reference
