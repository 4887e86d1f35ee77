// linear and embedding with every encoding.
#include "cpu_test_fixtures.h"

namespace test {

static tensor linear(machine& m, sl_weight* w, tensor x, tensor bias, tensor residual, sl_dtype y_dtype, int64_t N,
                     float scale = 0, float soft_cap = 0) {
  tensor y(y_dtype, {x.t.shape[0], N});
  sl_linear_args a{};
  a.size = sizeof a;
  a.x = x.get();
  a.weight = w;
  a.bias = bias.get();
  a.residual = residual.get();
  a.y = y.get();
  a.scale = scale;
  a.soft_cap = soft_cap;
  MUST(sl_linear(m.stream, &a));
  return y;
}

void test_weights() {
  struct variant {
    sl_encoding encoding;
    int32_t group;
    bool order;
  };
  std::vector<variant> variants;
  for (int e = SL_ENCODING_F32; e <= SL_ENCODING_Q6_K; ++e) variants.push_back({e, 0, false});
  for (int32_t group : {16, 24, 32, 128, 384}) {
    variants.push_back({SL_ENCODING_GPTQ4, group, false});
    variants.push_back({SL_ENCODING_GPTQ4, group, true});
    variants.push_back({SL_ENCODING_GPTQ4_V2, group, group == 128});
    variants.push_back({SL_ENCODING_AWQ4, group, false});
    variants.push_back({SL_ENCODING_INT8, group, false});
  }
  int seed = 1;
  for (const variant& v : variants) {
    random_source r(static_cast<uint64_t>(seed++));
    const std::string name =
        std::string(kEncodings[v.encoding]) + (v.group ? " g" + std::to_string(v.group) : "") + (v.order ? " act" : "");
    const int64_t K = v.encoding <= SL_ENCODING_BF16                                     ? 301
                      : v.encoding >= SL_ENCODING_Q4_K && v.encoding <= SL_ENCODING_Q6_K ? 768
                                                                                         : 384,
                  N = 200;
    source s = random_source_of(r, v.encoding, N, K, v.group, v.order);
    for (int64_t T : {int64_t{0}, int64_t{1}, int64_t{7}, int64_t{64}}) {
      const sl_dtype dtype = T == 7 ? (seed % 2 ? SL_DTYPE_F16 : SL_DTYPE_BF16) : SL_DTYPE_F32;
      const sl_dtype y_dtype = T == 7 && seed % 3 ? dtype : SL_DTYPE_F32;
      const tensor x = random_tensor(r, dtype, {T, K});
      const tensor bias = T == 1 ? tensor() : random_tensor(r, dtype == SL_DTYPE_BF16 ? SL_DTYPE_F32 : dtype, {N});
      const tensor residual = T == 64 ? random_tensor(r, y_dtype, {T, N}) : tensor();
      compare("linear " + name + " T " + std::to_string(T), [&](machine& m) {
        weight w(m, s);
        return std::vector<tensor>{linear(m, w.w, x, bias, residual, y_dtype, N),
                                   linear(m, w.w, x, bias, residual, y_dtype, N, 0.37f, T == 7 ? 0.0f : 3.0f)};
      });
    }
    // A row's result is the same to the bit whatever the number of rows.
    const tensor many = random_tensor(r, SL_DTYPE_F32, {512, K});
    for (auto& m : cpus) {
      weight w(*m, s);
      const tensor all = linear(*m, w.w, many, {}, {}, SL_DTYPE_F32, N, 0.7f, 5);
      bool same = true;
      for (int64_t T : {1, 2, 3, 5, 7, 16, 64}) {
        const int64_t from = T * 5;
        tensor some(SL_DTYPE_F32, {T, K});
        std::memcpy(some.as<float>(), const_cast<tensor&>(many).as<float>() + from * K, static_cast<size_t>(T * K * 4));
        tensor y = linear(*m, w.w, some, {}, {}, SL_DTYPE_F32, N, 0.7f, 5);
        same = same && std::memcmp(y.as<float>(), const_cast<tensor&>(all).as<float>() + from * N,
                                   static_cast<size_t>(T * N * 4)) == 0;
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

}  // namespace test
