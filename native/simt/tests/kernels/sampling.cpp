// penalties, argmax, sample, log_probs: equal to the reference to the bit where a token is chosen.
#include <cmath>

#include "support.h"

namespace kernel_tests {
namespace {

outcome as_floats(const std::vector<int32_t>& v) { return {std::vector<float>(v.begin(), v.end())}; }

std::vector<float> logits_of(int B, int V) {
  std::vector<float> l = noise(9, int64_t(B) * V, 10);
  for (int i = 0; i < V; i += 3) l[size_t(i)] = std::round(l[size_t(i)]);  // ties
  if (B > 1) {
    for (int i = 0; i < V; i++) l[size_t(V + i)] = NAN;
    if (V > 4) l[size_t(V + 4)] = -5e5f;
  }
  if (B > 2 && V > 7) l[size_t(2 * V + 3)] = -INFINITY, l[size_t(2 * V + 5)] = NAN;
  return l;
}

}  // namespace

void sampling_tests() {
  for (const int V : {1, 40, 513, 3000}) {
    const int B = 6;
    const std::string size = " V " + std::to_string(V);
    equal("argmax" + size, [&](machine& m) {
      const array l(m, SL_DTYPE_F32, {B, V}, logits_of(B, V), 3), ids = ints(m, std::vector<int32_t>(size_t(B)));
      MUST(sl_argmax(m.stream, l.get(), ids.get()));
      return as_floats(ids.ints());
    });
    for (int variant = 0; variant < 6; variant++)
      equal("sample" + size + " variant " + std::to_string(variant), [&](machine& m) {
        const auto same = [&](float v) { return array(m, SL_DTYPE_F32, {B}, std::vector<float>(size_t(B), v)); };
        const array l(m, SL_DTYPE_F32, {B, V}, logits_of(B, V));
        const array temperature(m, SL_DTYPE_F32, {B}, {1, 1, 0.7f, 0, 2, 0.1f});
        const array top_p = same(variant == 1 ? 0.5f : variant == 4 ? 0.9f : variant == 5 ? 0.0f : 1.0f);
        const array min_p = same(variant == 2 || variant == 4 ? 0.1f : 0.0f);
        const array top_k = ints(m, std::vector<int32_t>(size_t(B), variant == 3 ? 5 : variant == 4 ? 20 : 0));
        const array seed = longs(m, {1, 2, 3, -4, 5, int64_t(1) << 40}), position = longs(m, {0, 1, int64_t(1) << 33, 3, 4, 5});
        const array ids = ints(m, std::vector<int32_t>(size_t(B)));
        sl_sample_args a{};
        a.size = sizeof a, a.logits = l.get(), a.temperature = temperature.get(), a.top_k = top_k.get(), a.top_p = top_p.get();
        a.min_p = min_p.get(), a.seed = seed.get(), a.position = position.get(), a.ids = ids.get();
        MUST(sl_sample(m.stream, &a));
        return as_floats(ids.ints());
      });
    compare("log_probs" + size, SL_DTYPE_F32, [&](machine& m) {
      const int n = V < 7 ? V : 7;
      const array l(m, SL_DTYPE_F32, {B, V}, logits_of(B, V)), ids = ints(m, {0, 0, V - 1, -1, V, V / 2}), p(m, SL_DTYPE_F32, {B});
      const array top(m, SL_DTYPE_I32, {B, n}), top_p(m, SL_DTYPE_F32, {B, n});
      sl_log_probs_args a{};
      a.size = sizeof a, a.logits = l.get(), a.ids = ids.get(), a.log_probs = p.get(), a.top_ids = top.get(), a.top_log_probs = top_p.get();
      MUST(sl_log_probs(m.stream, &a));
      return outcome{p.floats(), top_p.floats(), as_floats(top.ints())[0]};
    });
    compare("penalties" + size, SL_DTYPE_F32, [&](machine& m) {
      const array l(m, SL_DTYPE_F32, {B, V}, noise(1, B * V, 5));
      const array history = ints(m, {0, 0, 0, V - 1, V, -1, V / 2, 0}), indptr = ints(m, {0, 3, 3, 6, 7, 8, 8});
      const array repetition(m, SL_DTYPE_F32, {B}, {1.2f, 1, 2, 1, 0.5f, 1}), presence(m, SL_DTYPE_F32, {B}, {0, 1, 0.5f, 2, 0, 0});
      const array frequency(m, SL_DTYPE_F32, {B}, {0.25f, 0, 0, 1, 0, 0});
      const array bias_ids = ints(m, {0, V - 1, V, 0}), bias(m, SL_DTYPE_F32, {4}, {1, -100, 5, 2}), bias_indptr = ints(m, {0, 2, 2, 3, 4, 4, 4});
      sl_penalties_args a{};
      a.size = sizeof a, a.logits = l.get(), a.history = history.get(), a.history_indptr = indptr.get(), a.repetition = repetition.get();
      a.presence = presence.get(), a.frequency = frequency.get(), a.bias_ids = bias_ids.get(), a.bias_values = bias.get();
      a.bias_indptr = bias_indptr.get();
      MUST(sl_penalties(m.stream, &a));
      return outcome{l.floats()};
    });
  }
}

}  // namespace kernel_tests
