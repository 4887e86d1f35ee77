// paged_attention and cascade_attention: close to the truth, and equal to the bit however the work is cut.
#include "cpu_test_fixtures.h"

namespace test {

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
        for (int32_t at = first; at < length; at += step == 1 ? 53 : step == 7 ? 21 : step) {
          const int32_t count = std::min(step, length - at);
          all.sequences[0] = {count, at + count};
          const std::vector<tensor> part = all.query({}, false);
          for (int i = 0; i < 2; ++i) {
            const auto row = static_cast<size_t>(whole[static_cast<size_t>(i)].count() / (length - first)) *
                             size_of(whole[static_cast<size_t>(i)].t.dtype);
            same =
                same && std::memcmp(whole[static_cast<size_t>(i)].data.data() + static_cast<size_t>(at - first) * row,
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
    report(counters.kv_bytes_read == 2000 * key, "flat attention reads each sequence's keys on " + m->name,
           std::to_string(counters.kv_bytes_read));
    MUST(sl_device_reset_counters(m->device));
    s.query({{0, 3, 0, 512}}, true);
    MUST(sl_device_get_counters(m->device, &counters));
    report(counters.kv_bytes_read == (512 + 188 + 188 + 88) * key, "cascade reads the prefix once on " + m->name,
           std::to_string(counters.kv_bytes_read));
  }
}

}  // namespace test
