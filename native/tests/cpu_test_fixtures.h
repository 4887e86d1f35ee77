// Weights of every encoding, and caches with sequences in them.
#pragma once

#include "cpu_test_support.h"

namespace test {

struct source {
  sl_weight_source s{};
  std::vector<uint8_t> data, scales, zeros;
  std::vector<int32_t> order;
};

inline const char* const kEncodings[] = {"f32",  "f16",  "bf16", "q4_0",  "q4_1", "q5_0", "q5_1",    "q8_0",
                                         "q4_k", "q5_k", "q6_k", "gptq4", "awq4", "int8", "gptq4_v2"};

// Random blocks: any bits are values, but scales are small f16 numbers.
inline source random_source_of(random_source& r, sl_encoding encoding, int64_t N, int64_t K, int32_t group = 0,
                               bool act_order = false) {
  struct layout {
    int64_t values, bytes;
    std::vector<int64_t> halves;
  };
  static const layout layouts[] = {{1, 4, {}},         {1, 2, {}},         {1, 2, {}},       {32, 18, {0}},
                                   {32, 20, {0, 2}},   {32, 22, {0}},      {32, 24, {0, 2}}, {32, 34, {0}},
                                   {256, 144, {0, 2}}, {256, 176, {0, 2}}, {256, 210, {208}}};
  source w;
  w.s.size = sizeof w.s;
  w.s.encoding = encoding;
  w.s.rows = N;
  w.s.cols = K;
  const auto fill = [&](std::vector<uint8_t>& bytes, int64_t count) {
    bytes.resize(static_cast<size_t>(count));
    for (auto& b : bytes) b = static_cast<uint8_t>(r.bits());
  };
  const auto half = [&](std::vector<uint8_t>& bytes, int64_t at) {
    const uint16_t h = to_half(0.01f * r.uniform());
    std::memcpy(bytes.data() + at, &h, 2);
  };
  if (encoding <= SL_ENCODING_BF16) {
    w.data.resize(static_cast<size_t>(N * K * layouts[encoding].bytes));
    for (int64_t i = 0; i < N * K; ++i) {
      const float f = r.uniform();
      const uint16_t h = encoding == SL_ENCODING_F16 ? to_half(f) : to_brain(f);
      if (encoding == SL_ENCODING_F32) std::memcpy(w.data.data() + 4 * i, &f, 4);
      else std::memcpy(w.data.data() + 2 * i, &h, 2);
    }
  } else if (encoding <= SL_ENCODING_Q6_K) {
    const layout& l = layouts[encoding];
    fill(w.data, N * K / l.values * l.bytes);
    for (int64_t b = 0; b < N * K / l.values; ++b)
      for (int64_t at : l.halves) half(w.data, b * l.bytes + at);
  } else {
    w.s.group = group;
    const int64_t groups = K / group;
    if (encoding == SL_ENCODING_INT8) {
      fill(w.data, N * K);
      w.scales.resize(static_cast<size_t>(N * groups * 4));
      for (int64_t i = 0; i < N * groups; ++i) {
        const float f = 0.01f * r.uniform();
        std::memcpy(w.scales.data() + 4 * i, &f, 4);
      }
    } else {
      fill(w.data, N * K / 2);
      w.scales.resize(static_cast<size_t>(N * groups * 2));
      for (int64_t i = 0; i < N * groups; ++i) half(w.scales, 2 * i);
      fill(w.zeros, groups * N / 2);
      for (int64_t i = 0; i < groups; ++i) w.zeros[static_cast<size_t>(i * N / 2)] |= 15;  // stored 15: 16 in GPTQ4
      if (act_order) {
        for (int64_t k = 0; k < K; ++k) w.order.push_back(static_cast<int32_t>(k / group));
        for (int64_t k = K - 1; k > 0; --k)
          std::swap(w.order[static_cast<size_t>(k)],
                    w.order[static_cast<size_t>(r.below(static_cast<int32_t>(k + 1)))]);
      }
    }
  }
  return w;
}

struct weight {
  sl_weight* w = nullptr;
  weight(machine& m, source& s) {
    s.s.data = s.data.data();
    s.s.data_bytes = s.data.size();
    s.s.scales = s.scales.empty() ? nullptr : s.scales.data();
    s.s.scales_bytes = s.scales.size();
    s.s.zeros = s.zeros.empty() ? nullptr : s.zeros.data();
    s.s.zeros_bytes = s.zeros.size();
    s.s.order = s.order.empty() ? nullptr : s.order.data();
    s.s.order_bytes = s.order.size() * 4;
    MUST(sl_weight_create(m.stream, &s.s, &w));
  }
  weight(const weight&) = delete;
  ~weight() { sl_weight_release(w); }
};

struct attention_case {
  std::string name;
  int32_t H, Hkv, D, Dv, P;
  sl_dtype q_dtype, kv_dtype;
  int32_t causal, window;
  float soft_cap;
  bool sinks, alibi, mask;
};

struct sequence {
  int32_t q_len, kv_length;
};

// A cache with pages of NaN, sequences with keys and values appended, and the step that queries them.
struct scene {
  machine& m;
  const attention_case& c;
  std::vector<sequence> sequences;
  int32_t shared;  // keys that all sequences share, as whole pages
  sl_kv_cache* cache = nullptr;
  sl_batch* batch = nullptr;
  std::vector<int32_t> page_indptr{0}, page_ids;

  scene(machine& m, const attention_case& c, std::vector<sequence> list, int32_t shared = 0)
      : m(m), c(c), sequences(std::move(list)), shared(shared) {
    int32_t next = shared / c.P, tokens = 0;
    for (const sequence& s : sequences) {
      const int32_t pages = (s.kv_length + c.P - 1) / c.P;
      for (int32_t i = 0; i < pages; ++i) page_ids.push_back(i < shared / c.P ? i : next++);
      page_indptr.push_back(static_cast<int32_t>(page_ids.size()));
      tokens += s.kv_length;
    }
    // Ids run backwards: no kernel may lean on neighbouring pages.
    for (int32_t& id : page_ids) id = next - 1 - id;
    sl_kv_cache_options o{};
    o.size = sizeof o;
    o.dtype = c.kv_dtype;
    o.layers = 2;
    o.pages = std::max(1, next);
    o.kv_heads = c.Hkv;
    o.key_dim = c.D;
    o.value_dim = c.Dv;
    o.page_size = c.P;
    MUST(sl_kv_cache_create(m.stream, &o, &cache));
    for (int32_t layer = 0; layer < 2; ++layer) {
      sl_tensor pools[2];
      MUST(sl_kv_cache_get_layer(cache, layer, &pools[0], &pools[1]));
      for (const sl_tensor& t : pools) {
        const auto bytes = static_cast<size_t>(t.shape[0] * t.shape[1] * t.shape[2] * t.shape[3]) * size_of(t.dtype);
        if (t.pointer != nullptr) std::memset(static_cast<char*>(t.pointer) + t.offset, 0xff, bytes);
        else MUST(sl_buffer_fill(m.stream, t.buffer, t.offset, 0xff, bytes));
      }
    }
    sl_batch_options b{};
    b.size = sizeof b;
    b.max_tokens = tokens + 3;
    b.max_sequences = static_cast<int32_t>(sequences.size()) + 1;
    b.max_page_ids = static_cast<int32_t>(page_ids.size()) + 4;
    b.max_mask_bytes = 1 << 20;
    b.max_prefixes = 8;
    MUST(sl_batch_create(m.stream, cache, &b, &batch));
    append();
  }
  scene(const scene&) = delete;
  ~scene() {
    sl_batch_release(batch);
    sl_kv_cache_release(cache);
  }

  // A token's key, value and query hang on the sequence (0 within what is shared) and its slot alone.
  uint64_t seed_of(size_t b, int32_t slot) const {
    return (slot < shared ? 0 : b * 100003) + static_cast<uint64_t>(slot) * 17 + 3;
  }

  void update(const std::vector<int32_t>& q, const std::vector<int32_t>& lengths, const std::vector<uint8_t>& mask,
              const std::vector<int32_t>& mask_indptr, const std::vector<sl_prefix>& prefixes) {
    sl_batch_step s{};
    s.size = sizeof s;
    s.num_sequences = static_cast<int32_t>(lengths.size());
    s.query_indptr = q.data();
    s.kv_lengths = lengths.data();
    s.page_indptr = page_indptr.data();
    s.page_ids = page_ids.data();
    if (!mask.empty()) {
      s.mask = mask.data();
      s.mask_indptr = mask_indptr.data();
    }
    s.prefixes = prefixes.empty() ? nullptr : prefixes.data();
    s.num_prefixes = static_cast<int32_t>(prefixes.size());
    MUST(sl_batch_update(m.stream, batch, &s));
  }

  // A step a sequence: two of them that wrote a shared page in one step would race.
  void append() {
    for (size_t b = 0; b < sequences.size(); ++b) {
      const int32_t length = sequences[b].kv_length, indptr[2] = {0, length},
                    pages[2] = {0, page_indptr[b + 1] - page_indptr[b]};
      if (length == 0) continue;
      sl_batch_step s{};
      s.size = sizeof s;
      s.num_sequences = 1;
      s.query_indptr = indptr;
      s.kv_lengths = &length;
      s.page_indptr = pages;
      s.page_ids = page_ids.data() + page_indptr[b];
      MUST(sl_batch_update(m.stream, batch, &s));
      tensor k(c.q_dtype, {length, c.Hkv, c.D}), v(c.q_dtype, {length, c.Hkv, c.Dv});
      for (int32_t slot = 0; slot < length; ++slot) {
        random_source r(seed_of(b, slot));
        for (int64_t i = 0; i < int64_t{c.Hkv} * c.D; ++i) k.set(int64_t{slot} * c.Hkv * c.D + i, r.uniform());
        for (int64_t i = 0; i < int64_t{c.Hkv} * c.Dv; ++i) v.set(int64_t{slot} * c.Hkv * c.Dv + i, r.uniform());
      }
      MUST(sl_kv_append(m.stream, cache, 1, batch, k.get(), v.get()));
    }
  }

  // Queries the sequences' last q_len slots up to `cut` keys less, in one step.
  std::vector<tensor> query(const std::vector<sl_prefix>& prefixes, bool cascade, int64_t padding = 0) {
    std::vector<int32_t> q{0}, lengths, mask_indptr{0};
    std::vector<uint8_t> mask;
    for (size_t b = 0; b < sequences.size(); ++b) {
      const sequence& s = sequences[b];
      q.push_back(q.back() + s.q_len);
      lengths.push_back(s.kv_length);
      if (c.mask && b % 2 == 0) {  // the other sequences stay causal
        for (int32_t i = 0; i < s.q_len; ++i) {
          random_source r(seed_of(b, s.kv_length - s.q_len + i) + 7);
          for (int32_t byte = 0; byte < (s.kv_length + 7) / 8; ++byte)
            mask.push_back(i == 1 ? 0 : static_cast<uint8_t>(r.bits()));
        }
      }
      mask_indptr.push_back(static_cast<int32_t>(mask.size()));
    }
    update(q, lengths, mask, mask_indptr, prefixes);
    const int64_t T = q.back() + padding;
    tensor queries(c.q_dtype, {T, c.H, c.D}), o(c.q_dtype, {T, c.H, c.Dv}), lse(SL_DTYPE_F32, {T, c.H});
    int64_t t = 0;
    for (size_t b = 0; b < sequences.size(); ++b) {
      for (int32_t slot = sequences[b].kv_length - sequences[b].q_len; slot < sequences[b].kv_length; ++slot, ++t) {
        random_source r(b * 1000003 + static_cast<uint64_t>(slot) * 31 + 5);
        for (int64_t i = 0; i < int64_t{c.H} * c.D; ++i) queries.set(t * c.H * c.D + i, 2 * r.uniform());
      }
    }
    tensor sinks, slopes;
    if (c.sinks) sinks = tensor(SL_DTYPE_F32, {c.H});
    if (c.alibi) slopes = tensor(SL_DTYPE_F32, {c.H});
    for (int32_t h = 0; h < c.H; ++h) {
      if (c.sinks) sinks.set(h, 0.5f * static_cast<float>(h) - 1);
      if (c.alibi) slopes.set(h, 0.05f * static_cast<float>(h + 1));
    }
    sl_attention_args a{};
    a.size = sizeof a;
    a.layer = 1;
    a.cache = cache;
    a.batch = batch;
    a.q = queries.get();
    a.o = o.get();
    a.lse2 = lse.get();
    a.sinks = sinks.get();
    a.alibi_slopes = slopes.get();
    a.soft_cap = c.soft_cap;
    a.window = c.window;
    a.causal = c.causal;
    if (cascade) MUST(sl_cascade_attention(m.stream, &a));
    else MUST(sl_paged_attention(m.stream, &a));
    return {o, lse};
  }
};

}  // namespace test
