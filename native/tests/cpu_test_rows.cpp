// Norms, activations, RoPE, gather, merges of attention states.
#include "cpu_test_support.h"

namespace test {

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
      const tensor same_dtype = random_tensor(r, dtype, {5, D});
      compare("rms_norm_add " + name, [&](machine& m) {
        tensor a = x, b = w, c = same_dtype, y(dtype, {5, D}), into_x = x, into_residual = same_dtype;
        MUST(sl_rms_norm_add(m.stream, a.get(), b.get(), 1e-5f, c.get(), y.get()));
        MUST(sl_rms_norm_add(m.stream, into_x.get(), b.get(), 1e-5f, c.get(), into_x.get()));
        MUST(sl_rms_norm_add(m.stream, a.get(), b.get(), 1e-5f, into_residual.get(), into_residual.get()));
        return std::vector<tensor>{y, into_x, into_residual};
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

}  // namespace test
