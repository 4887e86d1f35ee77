// The cpu backend, each instruction set of this processor, against the reference backend: closeness by the measure of
// sluice.h, and what must be equal to the bit. Last line: N passed, N failed, N skipped.
#include <thread>

#include "cpu_test_support.h"

using namespace test;

namespace {

std::vector<std::unique_ptr<machine>> cpus;  // [isa], then the best with 1 and 4 threads
std::unique_ptr<machine> exact, rounded;

// Runs on all; the outcome of each cpu must be close to exact.
void compare(const std::string& name, const std::function<std::vector<tensor>(machine&)>& run) {
  const std::vector<tensor> e = run(*exact), r = run(*rounded);
  for (auto& m : cpus) {
    const std::vector<tensor> f = run(*m);
    for (size_t i = 0; i < e.size(); ++i) close(name + " #" + std::to_string(i) + " on " + m->name, e[i], r[i], f[i]);
  }
}

void equal(const std::string& name, const tensor& a, const tensor& b) { report(a.same(b), name, "not equal to the bit"); }

// ---------------------------------------------------------------- weights

struct source {
  sl_weight_source s{};
  std::vector<uint8_t> data, scales, zeros;
  std::vector<int32_t> order;
};

const char* const kEncodings[] = {"f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q5_k", "q6_k", "gptq4", "awq4", "int8"};

// Random blocks: any bits are values, but scales are small f16 numbers.
source random_source_of(random_source& r, sl_encoding encoding, int64_t N, int64_t K, int32_t group = 0, bool act_order = false) {
  struct layout { int64_t values, bytes; std::vector<int64_t> halves; };
  static const layout layouts[] = {{1, 4, {}}, {1, 2, {}}, {1, 2, {}}, {32, 18, {0}}, {32, 20, {0, 2}}, {32, 22, {0}}, {32, 24, {0, 2}},
                                   {32, 34, {0}}, {256, 144, {0, 2}}, {256, 176, {0, 2}}, {256, 210, {208}}};
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
      if (act_order) {
        for (int64_t k = 0; k < K; ++k) w.order.push_back(static_cast<int32_t>(k / group));
        for (int64_t k = K - 1; k > 0; --k) std::swap(w.order[static_cast<size_t>(k)], w.order[static_cast<size_t>(r.below(static_cast<int32_t>(k + 1)))]);
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

tensor linear(machine& m, sl_weight* w, tensor x, tensor bias, tensor residual, sl_dtype y_dtype, int64_t N) {
  tensor y(y_dtype, {x.t.shape[0], N});
  sl_linear_args a{};
  a.size = sizeof a;
  a.x = x.get();
  a.weight = w;
  a.bias = bias.get();
  a.residual = residual.get();
  a.y = y.get();
  MUST(sl_linear(m.stream, &a));
  return y;
}

void test_weights() {
  struct variant { sl_encoding encoding; int32_t group; bool order; };
  std::vector<variant> variants;
  for (int e = SL_ENCODING_F32; e <= SL_ENCODING_Q6_K; ++e) variants.push_back({e, 0, false});
  for (int32_t group : {16, 32, 128}) {
    variants.push_back({SL_ENCODING_GPTQ4, group, false});
    variants.push_back({SL_ENCODING_GPTQ4, group, true});
    variants.push_back({SL_ENCODING_AWQ4, group, false});
    variants.push_back({SL_ENCODING_INT8, group, false});
  }
  int seed = 1;
  for (const variant& v : variants) {
    random_source r(static_cast<uint64_t>(seed++));
    const std::string name = std::string(kEncodings[v.encoding]) + (v.group ? " g" + std::to_string(v.group) : "") + (v.order ? " act" : "");
    const int64_t K = v.encoding <= SL_ENCODING_BF16 ? 301 : v.encoding >= SL_ENCODING_Q4_K && v.encoding <= SL_ENCODING_Q6_K ? 768 : 384, N = 200;
    source s = random_source_of(r, v.encoding, N, K, v.group, v.order);
    for (int64_t T : {int64_t{0}, int64_t{1}, int64_t{7}, int64_t{64}}) {
      const sl_dtype dtype = T == 7 ? (seed % 2 ? SL_DTYPE_F16 : SL_DTYPE_BF16) : SL_DTYPE_F32;
      const sl_dtype y_dtype = T == 7 && seed % 3 ? dtype : SL_DTYPE_F32;
      const tensor x = random_tensor(r, dtype, {T, K});
      const tensor bias = T == 1 ? tensor() : random_tensor(r, dtype == SL_DTYPE_BF16 ? SL_DTYPE_F32 : dtype, {N});
      const tensor residual = T == 64 ? random_tensor(r, y_dtype, {T, N}) : tensor();
      compare("linear " + name + " T " + std::to_string(T), [&](machine& m) {
        weight w(m, s);
        return std::vector<tensor>{linear(m, w.w, x, bias, residual, y_dtype, N)};
      });
    }
    // A row's result is the same to the bit whatever the number of rows.
    const tensor many = random_tensor(r, SL_DTYPE_F32, {512, K});
    for (auto& m : cpus) {
      weight w(*m, s);
      const tensor all = linear(*m, w.w, many, {}, {}, SL_DTYPE_F32, N);
      bool same = true;
      for (int64_t T : {1, 2, 3, 5, 7, 16, 64}) {
        const int64_t from = T * 5;
        tensor some(SL_DTYPE_F32, {T, K});
        std::memcpy(some.as<float>(), const_cast<tensor&>(many).as<float>() + from * K, static_cast<size_t>(T * K * 4));
        tensor y = linear(*m, w.w, some, {}, {}, SL_DTYPE_F32, N);
        same = same && std::memcmp(y.as<float>(), const_cast<tensor&>(all).as<float>() + from * N, static_cast<size_t>(T * N * 4)) == 0;
      }
      report(same, "rows are independent: " + name + " on " + m->name);
    }
    // Embedding reads the exact values back.
    compare("embedding " + name, [&](machine& m) {
      weight w(m, s);
      tensor ids = integers({0, 15, 16, 199, 7, -1, 200}), y(SL_DTYPE_F32, {7, K});
      MUST(sl_embedding(m.stream, ids.get(), w.w, 1.5f, y.get()));
      return std::vector<tensor>{y};
    });
  }
  // What is not finite must come out as such, not as a number.
  for (auto& m : cpus) {
    random_source r(99);
    source s = random_source_of(r, SL_ENCODING_Q4_0, 32, 64);
    weight w(*m, s);
    tensor x = random_tensor(r, SL_DTYPE_F32, {2, 64});
    x.set(3, NAN);
    x.set(64 + 40, INFINITY);
    const tensor y = linear(*m, w.w, x, {}, {}, SL_DTYPE_F32, 32);
    report(std::isnan(y.at(0)) && !std::isfinite(y.at(32)), "linear keeps NaN and infinity on " + m->name);
  }
}

// ---------------------------------------------------------------- rows

void test_rows() {
  random_source r(1000);
  for (sl_dtype dtype : {SL_DTYPE_F32, SL_DTYPE_F16, SL_DTYPE_BF16}) {
    for (int64_t D : {8, 96, 301, 896}) {
      const std::string name = std::string(name_of(dtype)) + " D " + std::to_string(D);
      const tensor x = random_tensor(r, dtype, {5, D}, 3), w = random_tensor(r, D % 2 ? SL_DTYPE_F32 : dtype, {D}),
                   residual = random_tensor(r, D == 96 ? SL_DTYPE_F32 : dtype, {5, D});
      compare("rms_norm " + name, [&](machine& m) {
        tensor a = x, b = w;
        MUST(sl_rms_norm(m.stream, a.get(), b.get(), 1e-5f, a.get()));
        return std::vector<tensor>{a};
      });
      compare("add_rms_norm " + name, [&](machine& m) {
        tensor a = x, b = w, c = residual, y(dtype, {5, D});
        MUST(sl_add_rms_norm(m.stream, a.get(), c.get(), b.get(), 1e-5f, y.get()));
        return std::vector<tensor>{c, y};
      });
      for (int activation = 0; activation <= SL_ACTIVATION_RELU; ++activation) {
        tensor gate = random_tensor(r, dtype, {5, D}, 12);
        gate.set(0, 100);
        gate.set(1, -100);
        gate.set(2, 0);
        compare("gated_activation " + std::to_string(activation) + " " + name, [&](machine& m) {
          tensor g = gate, up = x;
          MUST(sl_gated_activation(m.stream, activation, g.get(), up.get(), g.get()));
          return std::vector<tensor>{g};
        });
      }
    }
    for (sl_rope_kind kind : {SL_ROPE_HALF, SL_ROPE_INTERLEAVED}) {
      const tensor x = random_tensor(r, dtype, {4, 3, 80});
      std::vector<float> freq;
      for (int i = 0; i < 36; ++i) freq.push_back(std::pow(10000.0f, -static_cast<float>(i) / 36));
      compare("rope " + std::to_string(kind) + " " + name_of(dtype), [&](machine& m) {
        tensor a = x, positions = integers({0, 1, 4097, 1 << 20}), f = floats(freq);
        sl_rope_args args{};
        args.size = sizeof args;
        args.kind = kind;
        args.x = a.get();
        args.positions = positions.get();
        args.inv_freq = f.get();
        args.y = a.get();
        args.scale = 1.25f;
        MUST(sl_rope(m.stream, &args));
        return std::vector<tensor>{a};
      });
    }
    for (int64_t Dv : {5, 64}) {
      tensor o = random_tensor(r, dtype, {4, 6, 3, Dv}), lse(SL_DTYPE_F32, {4, 6, 3});
      for (int64_t i = 0; i < lse.count(); ++i) {
        const bool empty = r.below(3) == 0 || i % 18 == 0;
        lse.set(i, empty ? -INFINITY : r.uniform() * 20 - (i % 18 == 1 ? 5e5f : 0));
        if (empty)
          for (int64_t d = 0; d < Dv; ++d) o.set(i * Dv + d, NAN);
      }
      compare("merge_states " + std::string(name_of(dtype)), [&](machine& m) {
        tensor a = o, l = lse, y(dtype, {6, 3, Dv}), y_lse(SL_DTYPE_F32, {6, 3});
        MUST(sl_merge_states(m.stream, a.get(), l.get(), y.get(), y_lse.get()));
        return std::vector<tensor>{y, y_lse};
      });
    }
    compare("gather " + std::string(name_of(dtype)), [&](machine& m) {
      random_source fixed(5);
      tensor x = random_tensor(fixed, dtype, {6, 33}), rows = integers({5, 0, 0, -1, 6}), y(dtype, {5, 33});
      MUST(sl_gather(m.stream, x.get(), rows.get(), y.get()));
      return std::vector<tensor>{y};
    });
  }
}

// ---------------------------------------------------------------- attention

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

  scene(machine& m, const attention_case& c, std::vector<sequence> list, int32_t shared = 0) : m(m), c(c), sequences(std::move(list)), shared(shared) {
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
    b.max_tokens = std::max(1, tokens);
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
  uint64_t seed_of(size_t b, int32_t slot) const { return (slot < shared ? 0 : b * 100003) + static_cast<uint64_t>(slot) * 17 + 3; }

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

  void append() {
    std::vector<int32_t> q{0}, lengths;
    for (const sequence& s : sequences) {
      q.push_back(q.back() + s.kv_length);
      lengths.push_back(s.kv_length);
    }
    if (q.back() == 0) return;
    update(q, lengths, {}, {}, {});
    tensor k(c.q_dtype, {q.back(), c.Hkv, c.D}), v(c.q_dtype, {q.back(), c.Hkv, c.Dv});
    int64_t t = 0;
    for (size_t b = 0; b < sequences.size(); ++b) {
      for (int32_t slot = 0; slot < sequences[b].kv_length; ++slot, ++t) {
        random_source r(seed_of(b, slot));
        for (int64_t i = 0; i < int64_t{c.Hkv} * c.D; ++i) k.set(t * c.Hkv * c.D + i, r.uniform());
        for (int64_t i = 0; i < int64_t{c.Hkv} * c.Dv; ++i) v.set(t * c.Hkv * c.Dv + i, r.uniform());
      }
    }
    MUST(sl_kv_append(m.stream, cache, 1, batch, k.get(), v.get()));
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
          for (int32_t byte = 0; byte < (s.kv_length + 7) / 8; ++byte) mask.push_back(i == 1 ? 0 : static_cast<uint8_t>(r.bits()));
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

void test_attention() {
  const sl_dtype f32 = SL_DTYPE_F32, f16 = SL_DTYPE_F16, bf16 = SL_DTYPE_BF16;
  const std::vector<attention_case> cases = {
      {"mha", 2, 2, 64, 64, 16, f32, f32, 1, 0, 0, false, false, false},
      {"group 3, D 80/48", 6, 2, 80, 48, 16, f32, f16, 1, 0, 0, false, false, false},
      {"group 7, P 1", 14, 2, 64, 64, 1, f16, f16, 1, 0, 0, false, false, false},
      {"group 8, P 256, window", 8, 1, 128, 128, 256, bf16, bf16, 1, 100, 0, false, false, false},
      {"group 4, D 8, cap, sinks", 8, 2, 8, 8, 4, f32, f32, 1, 0, 5, true, false, false},
      {"alibi, no causal", 4, 2, 33, 17, 32, f32, bf16, 0, 0, 0, false, true, false},
      {"mask, sinks", 4, 4, 64, 64, 16, f32, f32, 1, 0, 0, true, false, true},
      {"mask, window, cap", 4, 1, 32, 32, 64, f16, f32, 0, 300, 30, false, false, true},
  };
  const std::vector<std::vector<sequence>> batches = {
      {{1, 1}}, {{1, 513}, {1, 16}, {1, 17}, {0, 5}, {1, 900}}, {{7, 7}, {0, 0}, {64, 300}, {1, 257}}, {{20, 1030}}};
  for (const attention_case& c : cases) {
    int index = 0;
    for (const auto& batch : batches) {
      compare("paged_attention " + c.name + ", batch " + std::to_string(index++), [&](machine& m) {
        scene s(m, c, batch);
        return s.query({}, false, 3);
      });
    }
    // The tokens of one sequence in steps of 1, 7, 64 and all at once: the same to the bit, on each device.
    const int32_t first = 240, length = 560;
    std::vector<machine*> machines = {exact.get(), rounded.get()};
    for (auto& m : cpus) machines.push_back(m.get());
    for (machine* m : machines) {
      if (c.mask || !c.causal) continue;  // there a row's result hangs on the step's length by definition
      scene all(*m, c, {{length - first, length}});
      std::vector<tensor> whole = all.query({}, false);
      bool same = true;
      for (int32_t step : {1, 7, 64}) {
        for (int32_t at = first; at < length; at += step == 1 ? 53 : step) {
          const int32_t count = std::min(step, length - at);
          all.sequences[0] = {count, at + count};
          const std::vector<tensor> part = all.query({}, false);
          for (int i = 0; i < 2; ++i) {
            const auto row = static_cast<size_t>(whole[static_cast<size_t>(i)].count() / (length - first)) * size_of(whole[static_cast<size_t>(i)].t.dtype);
            same = same && std::memcmp(whole[static_cast<size_t>(i)].data.data() + static_cast<size_t>(at - first) * row,
                                       part[static_cast<size_t>(i)].data.data(), row * static_cast<size_t>(count)) == 0;
          }
        }
      }
      report(same, "chunks of 1, 7 and 64 are as all at once: " + c.name + " on " + m->name);
    }
    // Prefixes of two levels, read once, against each sequence alone and flat.
    for (machine* m : machines) {
      const std::vector<sequence> sequences = {{1, 1100}, {3, 800}, {1, 769}, {1, 1025}};
      scene s(*m, c, sequences, 512);
      const std::vector<sl_prefix> prefixes = {{0, 4, 0, 256}, {0, 2, 256, 256}, {2, 2, 256, 256}};
      const std::vector<tensor> flat = s.query(prefixes, false), shared = s.query(prefixes, true);
      equal("cascade is flat to the bit: " + c.name + " on " + m->name, flat[0], shared[0]);
      equal("cascade's lse2 is flat's: " + c.name + " on " + m->name, flat[1], shared[1]);
    }
  }
  for (auto& m : cpus) {  // the same whatever the number of threads, and bytes as they should be
    const attention_case& c = cases[2];
    const std::vector<sequence> sequences = {{1, 700}, {1, 700}, {1, 600}};
    scene s(*m, c, sequences, 512), other(*cpus.front(), c, sequences, 512);
    if (m->name.find("threads") != std::string::npos) {
      scene best(*cpus[cpus.size() - 3], c, sequences, 512);
      equal("threads do not show: " + m->name, best.query({}, false)[0], s.query({}, false)[0]);
    }
    const uint64_t key = 2 * (64 + 64) * 2;
    sl_counters counters{};
    counters.size = sizeof counters;
    MUST(sl_device_reset_counters(m->device));
    s.query({{0, 3, 0, 512}}, false);
    MUST(sl_device_get_counters(m->device, &counters));
    report(counters.kv_bytes_read == 2000 * key, "flat attention reads each sequence's keys on " + m->name, std::to_string(counters.kv_bytes_read));
    MUST(sl_device_reset_counters(m->device));
    s.query({{0, 3, 0, 512}}, true);
    MUST(sl_device_get_counters(m->device, &counters));
    report(counters.kv_bytes_read == (512 + 188 + 188 + 88) * key, "cascade reads the prefix once on " + m->name, std::to_string(counters.kv_bytes_read));
  }
}

#include "cpu_test_steps.inc"

}  // namespace

int main() {
  exact = std::make_unique<machine>(SL_BACKEND_REFERENCE, SL_ISA_BEST, 0, 0, "reference, exact");
  rounded = std::make_unique<machine>(SL_BACKEND_REFERENCE, SL_ISA_BEST, 0, 1, "reference, rounded");
  const std::pair<sl_isa, const char*> isas[] = {{SL_ISA_PORTABLE, "portable"}, {SL_ISA_AVX2, "avx2"}, {SL_ISA_AVX512, "avx512"}};
  for (const auto& [isa, name] : isas) {
    auto m = std::make_unique<machine>(SL_BACKEND_CPU, isa, 2, 0, name);
    if (m->device != nullptr) {
      cpus.push_back(std::move(m));
    } else {
      ++skipped;
      std::printf("skipped %s: %s\n", name, sl_last_error());
    }
  }
  for (int32_t threads : {1, 4})
    cpus.push_back(std::make_unique<machine>(SL_BACKEND_CPU, SL_ISA_BEST, threads, 0, std::to_string(threads) + " threads"));

  test_rows();
  test_weights();
  test_attention();
  test_sampling();
  test_fused_qkv();
  test_graph();
  test_streams();
  cpus.clear();
  exact.reset();
  rounded.reset();
  std::printf("largest error: %.2f of what is allowed\n%d passed, %d failed, %d skipped\n", worst_ratio, passed, failed, skipped);
  return failed != 0;
}
