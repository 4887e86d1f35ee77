// Ops on logits: the same ids as the reference, and close log-probabilities.
#include "cpu_test_support.h"

namespace test {
namespace {

tensor longs(std::vector<int64_t> values) {
  tensor x(SL_DTYPE_I64, {static_cast<int64_t>(values.size())});
  std::memcpy(x.data.data(), values.data(), values.size() * 8);
  return x;
}

bool same_ids(tensor& a, tensor& b) {
  return std::memcmp(a.data.data(), b.data.data(), static_cast<size_t>(a.count()) * 4) == 0;
}

}  // namespace

void test_sampling() {
  random_source r(2000);
  for (int64_t V : {1, 17, 1000, 32000}) {
    const int64_t B = 12;
    tensor logits = random_tensor(r, SL_DTYPE_F32, {B, V}, 8);
    for (int64_t i = 0; i < V; ++i) {
      logits.set(1 * V + i, std::floor(logits.at(1 * V + i)));  // many ties
      logits.set(2 * V + i, NAN);
      logits.set(3 * V + i, i % 3 ? logits.at(3 * V + i) : -5e5f);
      logits.set(4 * V + i, i % 2 ? NAN : logits.at(4 * V + i));
      logits.set(5 * V + i, -INFINITY);
    }
    const auto ids_of = [&](machine& m, const std::function<void(tensor&)>& run) {
      tensor ids(SL_DTYPE_I32, {B});
      run(ids);
      MUST(sl_stream_synchronize(m.stream));
      return ids;
    };
    const auto arg = [&](machine& m) {
      return ids_of(m, [&](tensor& ids) {
        tensor l = logits;
        MUST(sl_argmax(m.stream, l.get(), ids.get()));
      });
    };
    tensor truth = arg(*exact);
    for (auto& m : cpus) {
      tensor found = arg(*m);
      report(same_ids(truth, found), "argmax V " + std::to_string(V) + " on " + m->name);
    }
    for (int variant = 0; variant < 8; ++variant) {
      const auto draw = [&](machine& m) {
        return ids_of(m, [&](tensor& ids) {
          tensor l = logits, temperature(SL_DTYPE_F32, {B}), top_k(SL_DTYPE_I32, {B}), top_p(SL_DTYPE_F32, {B}),
                 min_p(SL_DTYPE_F32, {B});
          std::vector<int64_t> seeds, positions;
          for (int64_t b = 0; b < B; ++b) {
            temperature.set(b, b == 7 ? 0.0f : 0.5f + 0.25f * static_cast<float>(variant));
            top_k.as<int32_t>()[b] = variant % 2 ? 5 + 50 * variant : 0;
            top_p.set(b, variant & 2 ? 0.9f : 1.0f);
            min_p.set(b, variant & 4 ? 0.05f : 0.0f);
            seeds.push_back(b * 77 - 5 + (int64_t{variant} << 40));
            positions.push_back(b * 1000 + variant);
          }
          tensor seed = longs(seeds), position = longs(positions);
          sl_sample_args a{};
          a.size = sizeof a;
          a.logits = l.get();
          a.temperature = temperature.get();
          a.top_k = top_k.get();
          a.top_p = top_p.get();
          a.min_p = min_p.get();
          a.seed = seed.get();
          a.position = position.get();
          a.ids = ids.get();
          MUST(sl_sample(m.stream, &a));
        });
      };
      tensor drawn = draw(*exact);
      for (auto& m : cpus) {
        tensor found = draw(*m);
        report(same_ids(drawn, found),
               "sample V " + std::to_string(V) + " variant " + std::to_string(variant) + " on " + m->name);
      }
    }
    const int64_t n = std::min<int64_t>(V, 20);
    tensor plain = random_tensor(r, SL_DTYPE_F32, {B, V}, 8);
    for (int64_t i = 0; i < V; ++i) plain.set(V + i, -5e5f + static_cast<float>(r.below(40)));
    std::vector<tensor> ranks;
    compare("log_probs V " + std::to_string(V), [&](machine& m) {
      tensor l = plain,
             ids = integers({0, static_cast<int32_t>(V) - 1, -1, static_cast<int32_t>(V), 0, 0, 0, 0, 0, 0, 0, 0}),
             log_probs(SL_DTYPE_F32, {B}), top_ids(SL_DTYPE_I32, {B, n}), top(SL_DTYPE_F32, {B, n});
      sl_log_probs_args a{};
      a.size = sizeof a;
      a.logits = l.get();
      a.ids = ids.get();
      a.log_probs = log_probs.get();
      a.top_ids = top_ids.get();
      a.top_log_probs = top.get();
      MUST(sl_log_probs(m.stream, &a));
      ranks.push_back(top_ids);
      return std::vector<tensor>{log_probs, top};
    });
    for (size_t i = 1; i < ranks.size(); ++i)
      report(same_ids(ranks[0], ranks[i]), "log_probs' top ids, V " + std::to_string(V));
    compare("penalties V " + std::to_string(V), [&](machine& m) {
      random_source fixed(7);
      std::vector<int32_t> history, indptr{0}, bias_indptr{0}, bias_ids;
      std::vector<float> ones, bias_values;
      for (int64_t b = 0; b < B; ++b) {
        for (int i = 0; i < b * 3; ++i) history.push_back(fixed.below(static_cast<int32_t>(V) + 2) - 1);
        indptr.push_back(static_cast<int32_t>(history.size()));
        bias_ids.push_back(fixed.below(static_cast<int32_t>(V)));
        bias_values.push_back(fixed.uniform() * 9);
        bias_indptr.push_back(static_cast<int32_t>(bias_ids.size()));
        ones.push_back(1.0f + 0.1f * static_cast<float>(b));
      }
      tensor l = plain, h = integers(history), hp = integers(indptr), p = floats(ones), bi = integers(bias_ids),
             bv = floats(bias_values), bp = integers(bias_indptr);
      sl_penalties_args a{};
      a.size = sizeof a;
      a.logits = l.get();
      a.history = h.get();
      a.history_indptr = hp.get();
      a.repetition = p.get();
      a.presence = p.get();
      a.frequency = p.get();
      a.bias_ids = bi.get();
      a.bias_values = bv.get();
      a.bias_indptr = bp.get();
      MUST(sl_penalties(m.stream, &a));
      return std::vector<tensor>{l};
    });
  }
}

}  // namespace test
