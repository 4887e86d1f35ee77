// linear and embedding over every encoding: sizes that leave parts of a chunk, of a block and of a tile empty.
#include <cmath>

#include "support.h"

namespace kernel_tests {
namespace {

struct encoding { sl_encoding id; const char* name; int values, bytes; std::vector<int> halves; };  // halves: bytes that are f16
const encoding encodings[] = {
    {SL_ENCODING_F32, "f32", 1, 4, {}},          {SL_ENCODING_F16, "f16", 1, 2, {0}},
    {SL_ENCODING_BF16, "bf16", 1, 2, {}},        {SL_ENCODING_Q4_0, "q4_0", 32, 18, {0}},
    {SL_ENCODING_Q4_1, "q4_1", 32, 20, {0, 2}},  {SL_ENCODING_Q5_0, "q5_0", 32, 22, {0}},
    {SL_ENCODING_Q5_1, "q5_1", 32, 24, {0, 2}},  {SL_ENCODING_Q8_0, "q8_0", 32, 34, {0}},
    {SL_ENCODING_Q4_K, "q4_k", 256, 144, {0, 2}}, {SL_ENCODING_Q5_K, "q5_k", 256, 176, {0, 2}},
    {SL_ENCODING_Q6_K, "q6_k", 256, 210, {208}},
};

struct source {
  sl_weight_source s{};
  std::vector<uint8_t> data, scales, zeros;
  std::vector<int32_t> order;
};

void put_half(std::vector<uint8_t>& to, size_t at, float v) {
  const auto h = _Float16(v);
  std::memcpy(to.data() + at, &h, 2);
}

void random_bytes(random_source& r, std::vector<uint8_t>& to, size_t n) {
  to.resize(n);
  for (uint8_t& b : to) b = uint8_t(r.bits());
}

source make(const encoding& e, int64_t N, int64_t K) {
  random_source r(uint64_t(e.id) + 11);
  source w;
  w.s.size = sizeof w.s, w.s.encoding = e.id, w.s.rows = N, w.s.cols = K;
  const size_t blocks = size_t(N * K / e.values);
  random_bytes(r, w.data, blocks * size_t(e.bytes));
  for (size_t b = 0; b < blocks; b++) {
    for (const int at : e.halves) put_half(w.data, b * size_t(e.bytes) + size_t(at), r.uniform() * (e.values == 1 ? 1.0f : 0.02f));
    if (e.id == SL_ENCODING_F32) {
      const float v = r.uniform();
      std::memcpy(w.data.data() + 4 * b, &v, 4);
    }
    if (e.id == SL_ENCODING_BF16) w.data[2 * b + 1] = uint8_t((w.data[2 * b + 1] & 0x80) | 0x3f);
  }
  return w;
}

source make_grouped(sl_encoding id, int64_t N, int64_t K, int group, bool act_order) {
  random_source r(uint64_t(id) + uint64_t(group));
  source w;
  w.s.size = sizeof w.s, w.s.encoding = id, w.s.rows = N, w.s.cols = K, w.s.group = group;
  const size_t groups = size_t(K / group);
  if (id == SL_ENCODING_INT8) {
    random_bytes(r, w.data, size_t(N * K));
    w.scales.resize(size_t(N) * groups * 4);
    for (size_t i = 0; i < size_t(N) * groups; i++) {
      const float v = 0.01f + 0.01f * r.uniform();
      std::memcpy(w.scales.data() + 4 * i, &v, 4);
    }
    return w;
  }
  random_bytes(r, w.data, size_t(N * K / 2));
  random_bytes(r, w.zeros, groups * size_t(N) / 2);
  for (size_t g = 0; g < groups; g++) w.zeros[g * size_t(N) / 2] |= 15;  // stored 15: 16 in GPTQ4
  w.scales.resize(groups * size_t(N) * 2);
  for (size_t i = 0; i < groups * size_t(N); i++) put_half(w.scales, 2 * i, 0.02f * r.uniform());
  if (act_order)
    for (int64_t k = 0; k < K; k++) w.order.push_back(int32_t((k * 7) % K / group));
  return w;
}

struct weight {
  sl_weight* w = nullptr;
  weight(machine& m, source& s) {
    s.s.data = s.data.data(), s.s.data_bytes = s.data.size();
    s.s.scales = s.scales.empty() ? nullptr : s.scales.data(), s.s.scales_bytes = s.scales.size();
    s.s.zeros = s.zeros.empty() ? nullptr : s.zeros.data(), s.s.zeros_bytes = s.zeros.size();
    s.s.order = s.order.empty() ? nullptr : s.order.data(), s.s.order_bytes = s.order.size() * 4;
    MUST(sl_weight_create(m.stream, &s.s, &w));
  }
  ~weight() { sl_weight_release(w); }
};

void test(const std::string& name, source& s, std::initializer_list<int64_t> tokens) {
  const int64_t N = s.s.rows, K = s.s.cols;
  for (const sl_dtype t : activation_types)
    for (const int64_t T : tokens)
      compare("linear " + name + " x " + name_of(t) + " T " + std::to_string(T), t, [&](machine& m) {
        const weight w(m, s);
        const array x(m, t, {T, K}, noise(3, T * K)), bias(m, SL_DTYPE_F32, {N}, noise(4, N)), residual(m, t, {T, N}, noise(5, T * N)),
            y(m, t, {T, N}), plain(m, SL_DTYPE_F32, {T, N});
        sl_linear_args a{};
        a.size = sizeof a, a.x = x.get(), a.weight = w.w, a.bias = bias.get(), a.residual = residual.get(), a.y = y.get();
        MUST(sl_linear(m.stream, &a));
        a.bias = a.residual = nullptr, a.y = plain.get();
        MUST(sl_linear(m.stream, &a));
        outcome out{y.floats(), plain.floats()};
        a.bias = bias.get(), a.residual = residual.get(), a.y = y.get(), a.scale = 0.37f, a.soft_cap = T == 3 ? 0.0f : 3.0f;
        MUST(sl_linear(m.stream, &a));
        out.push_back(y.floats());
        return out;
      });
  for (const sl_dtype t : activation_types)
    compare("embedding " + name + " to " + name_of(t), t, [&](machine& m) {
      const weight w(m, s);
      const array ids = ints(m, {0, int32_t(N) - 1, -1, int32_t(N), 3}), y(m, t, {5, K});
      MUST(sl_embedding(m.stream, ids.get(), w.w, 1.5f, y.get()));
      return outcome{y.floats()};
    });
}

}  // namespace

void weights_tests() {
  for (const encoding& e : encodings) {
    // Rows that no tile divides; K of less than a chunk, of a chunk and a bit, and of several.
    const int64_t step = e.values == 1 ? 1 : e.values;
    for (const int64_t K : {step == 1 ? int64_t(37) : step, step == 1 ? int64_t(264) : 5 * step, step == 256 ? int64_t(2304) : int64_t(1056)}) {
      source s = make(e, 13, K);
      test(std::string(e.name) + " 13x" + std::to_string(K), s, {1, 3, 17});
    }
  }
  // Tiles of 128 rows: two by two are work for each of four multiprocessors.
  for (const int e : {1, 2, 3, 7}) {
    source s = make(encodings[e], 130, 224);
    test(std::string(encodings[e].name) + " 130x224", s, {129});
  }
  for (const int group : {8, 32, 128, 1152})
    for (const bool act_order : {false, true}) {
      source s = make_grouped(SL_ENCODING_GPTQ4, 16, 1152, group, act_order);
      test("gptq g" + std::to_string(group) + (act_order ? " act-order" : ""), s, {1, 5});
    }
  for (const bool act_order : {false, true}) {
    source s = make_grouped(SL_ENCODING_GPTQ4_V2, 16, 384, 64, act_order);
    test(std::string("gptq v2 g64") + (act_order ? " act-order" : ""), s, {1, 5});
  }
  source awq = make_grouped(SL_ENCODING_AWQ4, 24, 256, 128, false), int8 = make_grouped(SL_ENCODING_INT8, 9, 192, 64, false),
         odd = make_grouped(SL_ENCODING_INT8, 9, 30, 10, false);
  test("awq g128", awq, {1, 16});
  test("int8 g64", int8, {1, 16});
  test("int8 g10", odd, {2});
}

}  // namespace kernel_tests
