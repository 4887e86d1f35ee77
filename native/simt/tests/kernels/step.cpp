// The backend's objects: fused_qkv with its workspace, graphs whose plan changes between replays, events, counters,
// pinned memory, foreign pointers.
#include <cmath>

#include "support.h"

namespace kernel_tests {
namespace {

struct matrix {
  sl_weight* w = nullptr;
  matrix(machine& m, int64_t N, int64_t K, uint64_t seed) {
    const std::vector<float> v = noise(seed, N * K, 0.2f);
    sl_weight_source s{};
    s.size = sizeof s, s.encoding = SL_ENCODING_F32, s.rows = N, s.cols = K, s.data = v.data(), s.data_bytes = v.size() * 4;
    MUST(sl_weight_create(m.stream, &s, &w));
  }
  ~matrix() { sl_weight_release(w); }
};

// Three steps of one sequence, each replayed from one graph when `graph` is on.
outcome steps(machine& m, sl_dtype t, bool qk_norm, bool whole, bool bias, int kind, bool graph) {
  constexpr int C = 48, H = 4, Hkv = 2, D = 16;
  sl_kv_cache_options co{};
  co.size = sizeof co, co.dtype = t, co.layers = 1, co.pages = 4, co.kv_heads = Hkv, co.key_dim = co.value_dim = D, co.page_size = 4;
  sl_kv_cache* cache;
  MUST(sl_kv_cache_create(m.stream, &co, &cache));
  sl_batch_options bo{};
  bo.size = sizeof bo, bo.max_tokens = 6, bo.max_sequences = 2, bo.max_page_ids = 8;
  sl_batch* batch;
  MUST(sl_batch_create(m.stream, cache, &bo, &batch));
  outcome out;
  {
    const matrix wq(m, H * D, C, 1), wk(m, Hkv * D, C, 2), wv(m, Hkv * D, C, 3);
    const array norm(m, SL_DTYPE_F32, {C}, noise(4, C)), q(m, t, {3, H, D}), o(m, t, {3, H, D}), inv(m, SL_DTYPE_F32, {D / 2}, noise(5, D / 2)),
        x(m, t, {3, C}, noise(6, 3 * C, 2)), bq(m, t, {H * D}, noise(7, H * D)), bk(m, t, {Hkv * D}, noise(8, Hkv * D)),
        nq(m, t, {whole ? H * D : D}, noise(9, whole ? H * D : D)),
        nk(m, t, {whole ? Hkv * D : D}, noise(10, whole ? Hkv * D : D));
    sl_fused_qkv_args a{};
    a.size = sizeof a, a.x = x.get(), a.norm_weight = norm.get(), a.wq = wq.w, a.wk = wk.w, a.wv = wv.w, a.inv_freq = inv.get();
    if (bias) a.bias_q = bq.get(), a.bias_k = bk.get();
    if (qk_norm) a.norm_q = nq.get(), a.norm_k = nk.get();
    a.cache = cache, a.batch = batch, a.q = q.get(), a.norm_eps = a.qk_norm_eps = 1e-5f, a.rope_kind = kind;
    sl_attention_args at{};
    at.size = sizeof at, at.cache = cache, at.batch = batch, at.q = q.get(), at.o = o.get(), at.causal = 1;
    const auto run = [&] {
      MUST(sl_fused_qkv(m.stream, &a));
      MUST(sl_paged_attention(m.stream, &at));
    };
    MUST(sl_stream_measure(m.stream, 1));
    run();
    MUST(sl_stream_measure(m.stream, 0));

    const int32_t pages[] = {3, 1, 2}, page_indptr[] = {0, 3};
    sl_graph* recorded = nullptr;
    int length = 0;
    for (const int32_t tokens : {3, 1, 2}) {
      length += tokens;
      const int32_t indptr[] = {0, tokens}, lengths[] = {length};
      sl_batch_step s{};
      s.size = sizeof s, s.num_sequences = 1, s.query_indptr = indptr, s.kv_lengths = lengths, s.page_indptr = page_indptr, s.page_ids = pages;
      MUST(sl_batch_update(m.stream, batch, &s));
      if (graph && !recorded) {
        MUST(sl_graph_begin(m.stream));
        run();
        MUST(sl_graph_end(m.stream, &recorded));
      }
      if (graph) MUST(sl_graph_launch(m.stream, recorded));
      else run();
      out.push_back(q.floats());
      out.push_back(o.floats());
    }
    sl_graph_release(recorded);
  }
  sl_batch_release(batch);
  sl_kv_cache_release(cache);
  return out;
}

}  // namespace

void step_tests() {
  for (const sl_dtype t : activation_types)
    for (const bool graph : {false, true})
      for (int variant = 0; variant < 4; variant++)
        compare(std::string("fused_qkv and attention ") + name_of(t) + (graph ? " in a graph " : " ") + std::to_string(variant), t,
                [&](machine& m) { return steps(m, t, variant % 2 == 1, variant == 3, variant == 2, variant % 2, graph); });
  check("Counters count", [](machine& m) {
    MUST(sl_device_reset_counters(m.device));
    const array x(m, SL_DTYPE_F32, {2, 256}, noise(1, 512)), w(m, SL_DTYPE_F32, {256}, noise(2, 256)), y(m, SL_DTYPE_F32, {2, 256});
    MUST(sl_rms_norm(m.stream, x.get(), w.get(), 1e-5f, y.get()));
    MUST(sl_stream_synchronize(m.stream));
    sl_counters c{};
    c.size = sizeof c;
    MUST(sl_device_get_counters(m.device, &c));
    EXPECT(c.launches == 1 && c.bytes_written == 2048 && c.bytes_read == 4096);  // the row once, the weight once a row
    EXPECT(c.sectors_written == 64 && c.bank_conflicts == 0);
  });
  check("Work on two streams is ordered by an event, and events tell time", [](machine& m) {
    sl_stream* other;
    sl_event *e, *f;
    MUST(sl_stream_create(m.device, nullptr, &other));
    MUST(sl_event_create(m.device, &e));
    MUST(sl_event_create(m.device, &f));
    const array x(m, SL_DTYPE_F32, {1, 64}, noise(1, 64)), w(m, SL_DTYPE_F32, {64}, noise(2, 64)), y(m, SL_DTYPE_F32, {1, 64}),
        z(m, SL_DTYPE_F32, {1, 64});
    MUST(sl_rms_norm(m.stream, x.get(), w.get(), 1e-5f, y.get()));
    MUST(sl_event_record(m.stream, e));
    MUST(sl_event_wait(other, e));
    MUST(sl_rms_norm(other, y.get(), w.get(), 1e-5f, z.get()));
    MUST(sl_event_record(other, f));
    double ms = -1;
    MUST(sl_event_elapsed(e, f, &ms));
    EXPECT(ms >= 0);
    EXPECT(std::isfinite(z.floats()[0]));
    sl_event_release(e), sl_event_release(f), sl_stream_release(other);
  });
  check("A host pointer is no device memory", [](machine& m) {
    float host[64] = {};
    sl_tensor t{};
    t.pointer = host, t.dtype = SL_DTYPE_F32, t.rank = 2, t.shape[0] = 1, t.shape[1] = 64, t.stride[0] = 64, t.stride[1] = 1;
    const array w(m, SL_DTYPE_F32, {64}, noise(2, 64));
    EXPECT(sl_rms_norm(m.stream, &t, w.get(), 1e-5f, &t) == SL_ERR_ARGUMENT);
  });
  check("Too large an allocation says how much was wanted and is free", [](machine& m) {
    sl_buffer* b = nullptr;
    EXPECT(sl_buffer_create(m.stream, uint64_t(1) << 40, SL_MEMORY_DEVICE, &b) == SL_ERR_OUT_OF_MEMORY && !b);
    EXPECT(std::string(sl_last_error()).find("wanted 1099511627776 bytes") != std::string::npos);
  });
  check("Pinned memory goes up and down", [](machine& m) {
    sl_buffer *host, *device;
    MUST(sl_buffer_create(m.stream, 256, SL_MEMORY_HOST, &host));
    MUST(sl_buffer_create(m.stream, 256, SL_MEMORY_DEVICE, &device));
    void* p;
    MUST(sl_buffer_get_host_pointer(host, &p));
    std::memset(p, 7, 256);
    MUST(sl_buffer_upload(m.stream, device, 0, p, 256));
    std::memset(p, 0, 256);  // the upload has read it
    MUST(sl_buffer_download(m.stream, device, 0, p, 256));
    MUST(sl_stream_synchronize(m.stream));
    EXPECT(static_cast<char*>(p)[255] == 7);
    sl_buffer_release(host), sl_buffer_release(device);
  });
}

}  // namespace kernel_tests
