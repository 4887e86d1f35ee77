// Ops on rows: norms, activations, embedding of plain tables, gather, RoPE, merge.
#include <cmath>

#include "support.h"

namespace kernel_tests {

void rows_tests() {
  struct shape { int64_t T, D, gap; };
  for (const sl_dtype t : activation_types)
    for (const auto& [T, D, gap] : {shape{1, 1, 0}, {3, 7, 0}, {2, 64, 0}, {5, 896, 0}, {2, 900, 8}, {1, 4096, 16}, {1, 40000, 0}})
      for (const sl_dtype wt : {sl_dtype{SL_DTYPE_F32}, t}) {
        const std::string name = std::string(name_of(t)) + " " + std::to_string(T) + "x" + std::to_string(D);
        const auto make = [&](machine& m, uint64_t seed) { return array(m, t, {T, D}, noise(seed, T * D, 3), gap); };
        compare("rms_norm " + name, t, [&](machine& m) {
          const array x = make(m, 1), w(m, wt, {D}, noise(2, D)), y(m, t, {T, D});
          MUST(sl_rms_norm(m.stream, x.get(), w.get(), 1e-5f, y.get()));
          MUST(sl_rms_norm(m.stream, x.get(), w.get(), 1e-5f, x.get()));  // in place
          return outcome{y.floats(), x.floats()};
        });
        compare("add_rms_norm " + name, t, [&](machine& m) {
          const array x = make(m, 1), r = make(m, 3), w(m, wt, {D}, noise(2, D)), y(m, t, {T, D});
          MUST(sl_add_rms_norm(m.stream, x.get(), r.get(), w.get(), 1e-5f, y.get()));
          const array other = make(m, 1), wide(m, SL_DTYPE_F32, {T, D}, noise(5, T * D, 3), gap);
          MUST(sl_add_rms_norm(m.stream, other.get(), wide.get(), w.get(), 1e-5f, y.get()));
          return outcome{r.floats(), wide.floats(), y.floats()};
        });
        compare("rms_norm_add " + name, t, [&](machine& m) {
          const array x = make(m, 1), r = make(m, 3), w(m, wt, {D}, noise(2, D)), y(m, t, {T, D});
          MUST(sl_rms_norm_add(m.stream, x.get(), w.get(), 1e-5f, r.get(), y.get()));
          MUST(sl_rms_norm_add(m.stream, x.get(), w.get(), 1e-5f, r.get(), r.get()));
          MUST(sl_rms_norm_add(m.stream, x.get(), w.get(), 1e-5f, y.get(), x.get()));
          return outcome{y.floats(), r.floats(), x.floats()};
        });
      }
  for (const sl_dtype t : activation_types)
    for (int kind = 0; kind < 4; kind++)
      for (const int64_t F : {1, 31, 256, 1000})
        compare("gated_activation " + std::to_string(kind) + " " + name_of(t) + " " + std::to_string(F), t, [&](machine& m) {
          const array gate(m, t, {3, F}, noise(1, 3 * F, 8)), up(m, t, {3, F}, noise(2, 3 * F)), y(m, t, {3, F}, {}, 5);
          MUST(sl_gated_activation(m.stream, kind, gate.get(), up.get(), y.get()));
          return outcome{y.floats()};
        });
  for (const sl_dtype t : activation_types) {
    equal(std::string("gather ") + name_of(t), [&](machine& m) {
      const array x(m, t, {5, 9}, noise(1, 45)), rows = ints(m, {4, 0, -1, 5, 2}), y(m, t, {5, 9});
      MUST(sl_gather(m.stream, x.get(), rows.get(), y.get()));
      return outcome{y.floats()};
    });
    for (int kind = 0; kind < 2; kind++)
      for (const int turned : {2, 16, 64})
        compare("rope " + std::to_string(kind) + " " + name_of(t) + " " + std::to_string(turned), t, [&](machine& m) {
          const array x(m, t, {4, 3, 64}, noise(1, 4 * 3 * 64)), y(m, t, {4, 3, 64}), positions = ints(m, {0, 1, 777, 1 << 20});
          std::vector<float> f;
          for (int i = 0; i < turned / 2; i++) f.push_back(std::pow(10000.0f, -2.0f * float(i) / float(turned)));
          const array inv(m, SL_DTYPE_F32, {turned / 2}, f);
          sl_rope_args a{};
          a.size = sizeof a, a.kind = kind, a.x = x.get(), a.positions = positions.get(), a.inv_freq = inv.get(), a.y = y.get();
          a.scale = 1.25f;
          MUST(sl_rope(m.stream, &a));
          return outcome{y.floats()};
        });
    compare(std::string("merge_states ") + name_of(t), t, [&](machine& m) {
      std::vector<float> o = noise(1, 3 * 2 * 4 * 20), l = noise(2, 3 * 2 * 4, 20);
      for (int i = 0; i < 20; i++) o[size_t(i)] = NAN;  // an empty state may hold anything
      l[0] = -INFINITY, l[3] = l[11] = l[19] = -INFINITY;
      const array states(m, t, {3, 2, 4, 20}, o), lse(m, SL_DTYPE_F32, {3, 2, 4}, l), y(m, t, {2, 4, 20}), y_lse(m, SL_DTYPE_F32, {2, 4});
      MUST(sl_merge_states(m.stream, states.get(), lse.get(), y.get(), y_lse.get()));
      return outcome{y.floats(), y_lse.floats()};
    });
  }
}

}  // namespace kernel_tests
