// fused_qkv followed by attention: eager, from a graph, and on several streams of one device at once.
#include <thread>

#include "cpu_test_fixtures.h"

namespace test {
namespace {

struct qkv_case {
  sl_encoding q, k, v;
  sl_dtype dtype;
  bool norm, bias;
  enum { none, heads, rows } qk_norm;
  sl_rope_kind rope;
};

// Projects a step's tokens into a cache; returns q and what stands in the cache, by attention over it.
std::vector<tensor> qkv(machine& m, const qkv_case& c, int32_t tokens, sl_graph** graph = nullptr, int replays = 0) {
  random_source r(31);
  const attention_case shape = {"", 6, 2, 32, 32, 16, c.dtype, SL_DTYPE_F32, 1, 0, 0, false, false, false};
  const int64_t C = 256;
  source sq = random_source_of(r, c.q, 6 * 32, C, 64), sk = random_source_of(r, c.k, 2 * 32, C, 64),
         sv = random_source_of(r, c.v, 2 * 32, C, 64);
  weight wq(m, sq), wk(m, sk), wv(m, sv);
  scene s(m, shape, {{tokens, tokens + 40}, {1, 33}});
  tensor x = random_tensor(r, c.dtype, {tokens + 3, C}), norm = random_tensor(r, SL_DTYPE_F32, {C}),
         bias_q = random_tensor(r, c.dtype, {192}), bias_kv = random_tensor(r, SL_DTYPE_F32, {64}),
         norm_q = random_tensor(r, SL_DTYPE_F32, {c.qk_norm == c.rows ? 192 : 32}),
         norm_k = random_tensor(r, SL_DTYPE_F32, {c.qk_norm == c.rows ? 64 : 32}), q(c.dtype, {tokens + 3, 6, 32}),
         o(c.dtype, {tokens + 3, 6, 32});
  std::vector<float> freq;
  for (int i = 0; i < 12; ++i) freq.push_back(std::pow(10000.0f, -static_cast<float>(i) / 12));
  tensor inv_freq = floats(freq);
  sl_fused_qkv_args a{};
  a.size = sizeof a;
  a.layer = 1;
  a.x = x.get();
  a.norm_weight = c.norm ? norm.get() : nullptr;
  a.wq = wq.w;
  a.wk = wk.w;
  a.wv = wv.w;
  a.bias_q = c.bias ? bias_q.get() : nullptr;
  a.bias_k = c.bias ? bias_kv.get() : nullptr;
  a.bias_v = c.bias ? bias_kv.get() : nullptr;
  a.norm_q = c.qk_norm != c.none ? norm_q.get() : nullptr;
  a.norm_k = c.qk_norm != c.none ? norm_k.get() : nullptr;
  a.inv_freq = inv_freq.get();
  a.cache = s.cache;
  a.batch = s.batch;
  a.q = q.get();
  a.norm_eps = a.qk_norm_eps = 1e-5f;
  a.rope_kind = c.rope;
  sl_attention_args t{};
  t.size = sizeof t;
  t.layer = 1;
  t.cache = s.cache;
  t.batch = s.batch;
  t.q = q.get();
  t.o = o.get();
  t.causal = 1;
  const auto run = [&] {
    MUST(sl_fused_qkv(m.stream, &a));
    MUST(sl_paged_attention(m.stream, &t));
  };
  s.update({0, tokens, tokens + 1}, {tokens + 40, 33}, {}, {}, {});
  if (graph == nullptr) {
    run();
    return {q, o};
  }
  // Captured with one plan, replayed with another: the graph must read the plan that is there.
  s.update({0, 1, 2}, {tokens + 40, 33}, {}, {}, {});
  MUST(sl_graph_begin(m.stream));
  run();
  MUST(sl_graph_end(m.stream, graph));
  s.update({0, tokens, tokens + 1}, {tokens + 40, 33}, {}, {}, {});
  for (int i = 0; i < replays; ++i) MUST(sl_graph_launch(m.stream, *graph));
  sl_graph_release(*graph);
  return {q, o};
}

const qkv_case qkv_cases[] = {
    {SL_ENCODING_F32, SL_ENCODING_F32, SL_ENCODING_F32, SL_DTYPE_F32, true, true, qkv_case::heads, SL_ROPE_HALF},
    {SL_ENCODING_Q4_K, SL_ENCODING_Q4_K, SL_ENCODING_Q6_K, SL_DTYPE_F32, true, false, qkv_case::rows,
     SL_ROPE_INTERLEAVED},
    {SL_ENCODING_GPTQ4, SL_ENCODING_F16, SL_ENCODING_Q8_0, SL_DTYPE_F16, false, true, qkv_case::heads, SL_ROPE_HALF},
    {SL_ENCODING_Q4_0, SL_ENCODING_GPTQ4_V2, SL_ENCODING_F32, SL_DTYPE_BF16, false, false, qkv_case::rows,
     SL_ROPE_HALF},
    {SL_ENCODING_BF16, SL_ENCODING_BF16, SL_ENCODING_BF16, SL_DTYPE_BF16, true, true, qkv_case::none, SL_ROPE_HALF},
};

}  // namespace

void test_fused_qkv() {
  int index = 0;
  for (const qkv_case& c : qkv_cases) {
    for (int32_t tokens : {1, 9, 40}) {
      compare("fused_qkv " + std::to_string(index) + ", tokens " + std::to_string(tokens),
              [&](machine& m) { return qkv(m, c, tokens); });
    }
    ++index;
  }
}

void test_graph() {
  std::vector<machine*> machines = {exact.get()};
  for (auto& m : cpus) machines.push_back(m.get());
  for (machine* m : machines) {
    sl_graph* graph = nullptr;
    const std::vector<tensor> eager = qkv(*m, qkv_cases[0], 9), replayed = qkv(*m, qkv_cases[0], 9, &graph, 2);
    equal("a graph's replay is as the ops on " + m->name, eager[1], replayed[1]);
  }
}

// Several streams of one device, on threads of their own.
void test_streams() {
  machine shared(SL_BACKEND_CPU, SL_ISA_BEST, 3, 0, "shared");
  machine* streams[4];
  std::vector<tensor> alone[4], together[4];
  for (int i = 0; i < 4; ++i) alone[i] = qkv(shared, qkv_cases[i], 40);
  for (auto*& m : streams) {
    m = new machine(SL_BACKEND_REFERENCE, SL_ISA_BEST, 0, 0, "shared");  // its device gives way to the shared one
    sl_stream_release(m->stream);
    sl_device_release(m->device);
    m->device = nullptr;
    sl_device* own = m->device;
    m->device = shared.device;
    m->open_stream();
    m->device = own;
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      for (int n = 0; n < 20; ++n) together[i] = qkv(*streams[i], qkv_cases[i], 40);
    });
  for (auto& t : threads) t.join();
  for (int i = 0; i < 4; ++i) {
    equal("streams at once do not disturb each other, " + std::to_string(i), alone[i][1], together[i][1]);
    delete streams[i];
  }
}

}  // namespace test
