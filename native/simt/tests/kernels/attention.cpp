// kv_append, paged_attention, cascade_attention, and pages copied, saved and loaded: head dims, groups, page sizes, masks, splits, ragged queries.
#include <cmath>

#include "support.h"

namespace kernel_tests {
namespace {

struct options {
  int H = 4, Hkv = 2, D = 64, Dv = 64, P = 16;
  sl_dtype q = SL_DTYPE_F32, kv = SL_DTYPE_F32;
  int causal = 1, window = 0;
  float soft_cap = 0;
  bool sinks = false, alibi = false, mask = false;
  int capacity = 0;  // further page ids that the batch is made for: more splits
};
struct sequence { int queries, length; };

outcome attend(machine& m, const options& o, const std::vector<sequence>& sequences) {
  std::vector<int32_t> page_indptr{0}, pages, all{0}, queries{0}, lengths, mask_indptr{0};
  std::vector<uint8_t> mask;
  int total = 0;
  for (const sequence& s : sequences) total += (s.length + o.P - 1) / o.P;
  for (const sequence& s : sequences) {
    for (int i = 0; i < (s.length + o.P - 1) / o.P; i++) pages.push_back(total - int(pages.size()));  // backwards; page 0 unused
    page_indptr.push_back(int(pages.size()));
    all.push_back(all.back() + s.length), queries.push_back(queries.back() + s.queries), lengths.push_back(s.length);
    if (o.mask && mask_indptr.size() % 2 == 1)  // every other sequence
      for (int i = 0; i < s.queries * ((s.length + 7) / 8); i++) mask.push_back(uint8_t(i * 37 + 5));
    mask_indptr.push_back(int(mask.size()));
  }
  sl_kv_cache_options co{};
  co.size = sizeof co, co.dtype = o.kv, co.layers = 2, co.pages = total + 2, co.kv_heads = o.Hkv, co.key_dim = o.D,
  co.value_dim = o.Dv, co.page_size = o.P;
  sl_kv_cache* cache;
  MUST(sl_kv_cache_create(m.stream, &co, &cache));
  sl_tensor pool[2];
  MUST(sl_kv_cache_get_layer(cache, 1, &pool[0], &pool[1]));
  const int T = queries.back(), padded = T + 2;
  sl_batch_options bo{};
  bo.size = sizeof bo, bo.max_tokens = std::max(all.back(), padded), bo.max_sequences = int(sequences.size()) + 1;
  bo.max_page_ids = int(pages.size()) + 1 + o.capacity, bo.max_mask_bytes = 1 << 16;
  sl_batch* batch;
  MUST(sl_batch_create(m.stream, cache, &bo, &batch));
  sl_batch_step step{};
  step.size = sizeof step, step.num_sequences = int(sequences.size()), step.kv_lengths = lengths.data();
  step.page_indptr = page_indptr.data(), step.page_ids = pages.data(), step.query_indptr = all.data();
  MUST(sl_batch_update(m.stream, batch, &step));
  {
    const int64_t n = all.back();
    const array k(m, o.q, {n, o.Hkv, o.D}, noise(1, n * o.Hkv * o.D)), v(m, o.q, {n, o.Hkv, o.Dv}, noise(2, n * o.Hkv * o.Dv));
    MUST(sl_kv_append(m.stream, cache, 1, batch, k.get(), v.get()));
  }
  step.query_indptr = queries.data();
  if (o.mask) step.mask = mask.data(), step.mask_indptr = mask_indptr.data();
  MUST(sl_batch_update(m.stream, batch, &step));

  const array q(m, o.q, {padded, o.H, o.D}, noise(3, padded * o.H * o.D, 2)), y(m, o.q, {padded, o.H, o.Dv}),
      lse(m, SL_DTYPE_F32, {padded, o.H});
  array sinks, slopes;
  if (o.sinks) sinks = array(m, SL_DTYPE_F32, {o.H}, noise(4, o.H, 2));
  if (o.alibi) slopes = array(m, SL_DTYPE_F32, {o.H}, noise(5, o.H, 0.1f));
  sl_attention_args a{};
  a.size = sizeof a, a.layer = 1, a.cache = cache, a.batch = batch, a.q = q.get(), a.o = y.get(), a.lse2 = lse.get();
  a.sinks = sinks.get(), a.alibi_slopes = slopes.get(), a.soft_cap = o.soft_cap, a.window = o.window, a.causal = o.causal;
  MUST(sl_paged_attention(m.stream, &a));
  outcome out{y.floats(), lse.floats()};
  MUST(sl_cascade_attention(m.stream, &a));
  out.push_back(y.floats());
  const int32_t from = pages.back(), to = 0;  // a copied page reads the same
  MUST(sl_kv_cache_copy_pages(m.stream, cache, &from, &to, 1));
  pages.back() = 0;
  MUST(sl_batch_update(m.stream, batch, &step));
  MUST(sl_paged_attention(m.stream, &a));
  out.push_back(y.floats());
  // So does one that was in host memory: the second of two there, so that the first's bytes lie before it.
  uint64_t page_bytes;
  sl_buffer* host;
  const int32_t saved[] = {to, to}, loaded = total + 1;
  MUST(sl_kv_cache_get_page_bytes(cache, &page_bytes));
  MUST(sl_buffer_create(m.stream, 16 + 2 * page_bytes, SL_MEMORY_HOST, &host));
  MUST(sl_kv_cache_save_pages(m.stream, cache, saved, 2, host, 16));
  MUST(sl_kv_cache_load_pages(m.stream, cache, &loaded, 1, host, 16 + page_bytes));
  pages.back() = loaded;
  MUST(sl_batch_update(m.stream, batch, &step));
  MUST(sl_paged_attention(m.stream, &a));
  out.push_back(y.floats());
  sl_buffer_release(host);
  sl_batch_release(batch);
  sl_kv_cache_release(cache);
  return out;
}

void test(const std::string& name, const options& o, const std::vector<sequence>& sequences) {
  compare("paged_attention " + name, o.q, [&](machine& m) { return attend(m, o, sequences); });
}

}  // namespace

void attention_tests() {
  const std::vector<sequence> decode{{1, 1}, {1, 17}, {1, 16}, {1, 33}}, ragged{{3, 20}, {1, 1}, {5, 5}, {2, 49}}, longer{{1, 700}, {2, 300}};
  for (const sl_dtype q : activation_types)
    for (const sl_dtype kv : activation_types) {
      options o;
      o.q = q, o.kv = kv;
      test(std::string("q ") + name_of(q) + " kv " + name_of(kv), o, decode);
      test(std::string("ragged q ") + name_of(q) + " kv " + name_of(kv), o, ragged);
    }
  for (const int group : {1, 3, 4, 7, 8, 9})
    for (const sl_dtype kv : {SL_DTYPE_F32, SL_DTYPE_F16}) {
      options o;
      o.H = group * 2, o.kv = kv;
      test("group " + std::to_string(group) + " " + name_of(kv), o, decode);
    }
  for (const int D : {8, 16, 32, 80, 128, 256})
    for (const sl_dtype kv : {SL_DTYPE_F32, SL_DTYPE_BF16}) {
      options o;
      o.D = o.Dv = D, o.kv = kv;
      test("D " + std::to_string(D) + " " + name_of(kv), o, decode);
    }
  for (const auto& [D, Dv] : {std::pair(5, 7), {36, 64}, {192, 128}}) {
    options o;
    o.D = D, o.Dv = Dv, o.kv = SL_DTYPE_F16;
    test("D " + std::to_string(D) + " Dv " + std::to_string(Dv), o, ragged);
  }
  for (const int P : {1, 2, 8, 64, 256}) {
    options o;
    o.P = P, o.kv = SL_DTYPE_F16;
    test("P " + std::to_string(P), o, decode);
  }
  for (const int variant : {0, 1, 2, 3, 4, 5, 6}) {
    options o;
    o.H = 6, o.kv = SL_DTYPE_F16;
    if (variant == 0) o.causal = 0;
    if (variant == 1) o.window = 5;
    if (variant == 2) o.soft_cap = 3;
    if (variant == 3) o.sinks = true;
    if (variant == 4) o.alibi = true;
    if (variant == 5) o.mask = true;
    if (variant == 6) o.window = 19, o.soft_cap = 10, o.sinks = o.alibi = o.mask = true;
    test("variant " + std::to_string(variant), o, ragged);
    o.capacity = 1000;
    test("long, variant " + std::to_string(variant), o, longer);
  }
}

}  // namespace kernel_tests
