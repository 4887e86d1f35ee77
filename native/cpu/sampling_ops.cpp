// Ops on logits, a row a task. No row is sorted as a whole: the kept candidates are found by partial selection.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu.h"

namespace sl::cpu {
namespace {

// Word 0 of Philox4x32-10.   Source: Salmon et al. 2011.
uint32_t philox(uint64_t key, uint64_t position, uint32_t id) {
  uint32_t c0 = static_cast<uint32_t>(position), c1 = static_cast<uint32_t>(position >> 32), c2 = id, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c0;
}

float gumbel(uint32_t word) { return static_cast<float>(-std::log(-std::log((word + 0.5) / 4294967296.0))); }

const float* logits_of(const view& logits, int64_t b) { return logits.as<float>() + b * logits.stride[0]; }

// The lowest id of the largest logit; 0 where all are NaN.
int32_t arg_largest(const kernels& k, const float* logits, int64_t V) {
  const float top = k.largest(logits, V);
  for (int64_t i = 0; i < V; ++i)
    if (logits[i] == top) return static_cast<int32_t>(i);
  return 0;
}

// Row b of indptr as a range of [0, limit]: nothing has checked what lies on the device.
std::pair<int64_t, int64_t> range(const view& indptr, int64_t b, int64_t limit) {
  const int64_t first = std::clamp<int64_t>(indptr.as<int32_t>()[b], 0, limit);
  return {first, std::clamp<int64_t>(indptr.as<int32_t>()[b + 1], first, limit)};
}

// Larger logits first, lower ids first among equals.
struct by_logit {
  const float* logits;
  bool operator()(int32_t a, int32_t b) const { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; }
};

// All ids but those of NaN, the `count` largest first and in order.
int64_t rank_largest(const float* logits, int64_t V, int64_t count, int32_t* ids) {
  int64_t found = 0;
  for (int64_t i = 0; i < V; ++i)
    if (!std::isnan(logits[i])) ids[found++] = static_cast<int32_t>(i);
  count = std::min(count, found);
  const by_logit order{logits};
  if (count < found) std::nth_element(ids, ids + count, ids + found, order);
  std::sort(ids, ids + count, order);
  return found;
}

// ---- sample

struct sampler {
  const kernels& k;
  const float* logits;
  int64_t V;
  double temperature;
  int32_t top;
  int32_t* ids;

  // log(p) up to a constant that no step depends on. In f64 and without a sum, so it is the same on every backend.
  double log_p(int32_t id) const {
    return static_cast<double>(logits[id]) / temperature - static_cast<double>(logits[top]) / temperature;
  }

  // The fewest of ids[0..count), largest first, whose sum reaches top_p of their total: sorted in pieces that double,
  // because what is kept is most often short.
  int64_t keep_top_p(int64_t count, int64_t sorted, double top_p) const {
    double total = 0;
    for (int64_t i = 0; i < count; ++i) total += std::exp(log_p(ids[i]));
    double sum = 0;
    int64_t kept = 0;
    while (kept < count && (kept == 0 || sum < top_p * total)) {
      if (kept == sorted) {
        const int64_t next = std::min(count, std::max<int64_t>(128, 2 * sorted));
        if (next < count) std::nth_element(ids + sorted, ids + next, ids + count, by_logit{logits});
        std::sort(ids + sorted, ids + next, by_logit{logits});
        sorted = next;
      }
      sum += std::exp(log_p(ids[kept++]));
    }
    return kept;
  }

  int32_t draw(uint64_t seed, uint64_t position, int64_t count) const {
    // No noise exceeds that of the largest word, so whatever lies further below the best so far cannot win.
    const float most = gumbel(0xffffffffu);
    int32_t best = top;
    float best_score = static_cast<float>(log_p(top)) + gumbel(philox(seed, position, static_cast<uint32_t>(top)));
    for (int64_t i = 0; i < count; ++i) {
      const int32_t id = ids[i];
      const auto p = static_cast<float>(log_p(id));
      if (p + most < best_score || id == top) continue;
      const float score = p + gumbel(philox(seed, position, static_cast<uint32_t>(id)));
      if (score > best_score || (score == best_score && id < best)) {
        best_score = score;
        best = id;
      }
    }
    return best;
  }
};

void sample(stream& s, const sample_args& a) {
  cpu_device& d = device_of(s);
  const int64_t V = a.logits.shape[1];
  arena space(s.workspace);
  auto* scratch = space.take<int32_t>(d.pool.threads() * V);
  d.pool.parallel(a.logits.shape[0], [&](int64_t b, int thread) {
    const float* logits = logits_of(a.logits, b);
    const int32_t top = arg_largest(d.kernel, logits, V);
    const double temperature = a.temperature.as<float>()[b];
    int32_t& id = a.ids.as<int32_t>()[b];
    id = top;
    if (!(temperature > 0) || !std::isfinite(logits[top])) return;

    const sampler row{d.kernel, logits, V, temperature, top, scratch + thread * V};
    const int64_t k = a.top_k.as<int32_t>()[b];
    const double top_p = a.top_p.as<float>()[b], min_p = a.min_p.as<float>()[b];
    const bool cut = k > 0 && k < V;
    int64_t count = rank_largest(logits, V, cut ? k : 0, row.ids);
    int64_t sorted = 0;
    if (cut) count = sorted = std::min(count, k);
    if (top_p < 1) count = row.keep_top_p(count, sorted, top_p);
    if (min_p > 0) {
      count = std::remove_if(row.ids, row.ids + count,
                             [&](int32_t i) { return i != top && !(std::exp(row.log_p(i)) >= min_p); }) -
              row.ids;
    }
    id = row.draw(static_cast<uint64_t>(a.seed.as<int64_t>()[b]), static_cast<uint64_t>(a.position.as<int64_t>()[b]),
                  count);
  });
}

uint64_t sample_workspace(const device& d, const sample_args& a) {
  arena space(nullptr);
  space.take<int32_t>(device_of(d).pool.threads() * a.logits.shape[1]);
  return space.used();
}

// ---- the others

void penalties(stream& s, const penalties_args& a) {
  cpu_device& d = device_of(s);
  const int64_t V = a.logits.shape[1];
  arena space(s.workspace);
  auto* scratch = space.take<int32_t>(a.history ? a.history.shape[0] * d.pool.threads() : 0);
  d.pool.parallel(a.logits.shape[0], [&](int64_t b, int thread) {
    float* logits = a.logits.as<float>() + b * a.logits.stride[0];
    if (a.history) {
      const auto [first, last] = range(a.history_indptr, b, a.history.shape[0]);
      int32_t* ids = scratch + thread * a.history.shape[0];
      const int64_t count = std::copy(a.history.as<int32_t>() + first, a.history.as<int32_t>() + last, ids) - ids;
      std::sort(ids, ids + count);
      const float repetition = a.repetition.as<float>()[b], presence = a.presence.as<float>()[b],
                  frequency = a.frequency.as<float>()[b];
      for (int64_t i = 0, next = 0; i < count; i = next) {
        while (next < count && ids[next] == ids[i]) ++next;
        if (ids[i] < 0 || ids[i] >= V) continue;
        float& l = logits[ids[i]];
        l = l > 0 ? l / repetition : l * repetition;
        l -= presence + static_cast<float>(next - i) * frequency;
      }
    }
    if (a.bias_ids) {
      const auto [first, last] = range(a.bias_indptr, b, a.bias_ids.shape[0]);
      for (int64_t i = first; i < last; ++i) {
        const int32_t id = a.bias_ids.as<int32_t>()[i];
        if (id >= 0 && id < V) logits[id] += a.bias_values.as<float>()[i];
      }
    }
  });
}

uint64_t penalties_workspace(const device& d, const penalties_args& a) {
  arena space(nullptr);
  space.take<int32_t>(a.history ? a.history.shape[0] * device_of(d).pool.threads() : 0);
  return space.used();
}

void argmax(stream& s, const argmax_args& a) {
  cpu_device& d = device_of(s);
  d.pool.parallel(a.logits.shape[0], [&](int64_t b, int) {
    a.ids.as<int32_t>()[b] = arg_largest(d.kernel, logits_of(a.logits, b), a.logits.shape[1]);
  });
}

void log_probs(stream& s, const log_probs_args& a) {
  cpu_device& d = device_of(s);
  const int64_t V = a.logits.shape[1];
  arena space(s.workspace);
  auto* scratch = space.take<int32_t>(a.top_ids ? V * d.pool.threads() : 0);
  d.pool.parallel(a.logits.shape[0], [&](int64_t b, int thread) {
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    const float* logits = logits_of(a.logits, b);
    const float top = d.kernel.largest(logits, V);
    const double shift = static_cast<double>(top) + std::log(d.kernel.sum_exp(logits, V, top));
    const auto log_p = [&](int32_t id) { return static_cast<float>(static_cast<double>(logits[id]) - shift); };
    if (a.ids) {
      const int32_t id = a.ids.as<int32_t>()[b];
      a.log_probs.as<float>()[b] = id >= 0 && id < V ? log_p(id) : kNan;
    }
    if (a.top_ids) {
      const int64_t n = a.top_ids.shape[1];
      int32_t* ids = scratch + thread * V;
      const int64_t found = rank_largest(logits, V, n, ids);
      for (int64_t i = 0; i < n; ++i) {  // where NaN leaves fewer than n, the rest is id 0 with NaN
        a.top_ids.as<int32_t>()[b * a.top_ids.stride[0] + i] = i < found ? ids[i] : 0;
        a.top_log_probs.as<float>()[b * a.top_log_probs.stride[0] + i] = i < found ? log_p(ids[i]) : kNan;
      }
    }
  });
}

uint64_t log_probs_workspace(const device& d, const log_probs_args& a) {
  arena space(nullptr);
  space.take<int32_t>(a.top_ids ? a.logits.shape[1] * device_of(d).pool.threads() : 0);
  return space.used();
}

}  // namespace

void register_sampling_ops(op_table& table) {
  table.penalties = {penalties, penalties_workspace};
  table.argmax.run = argmax;
  table.sample = {sample, sample_workspace};
  table.log_probs = {log_probs, log_probs_workspace};
}

}  // namespace sl::cpu
