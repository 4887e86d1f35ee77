// Ops on logits. Their definitions are exact (which token is drawn is not a matter of tolerance), so both modes share
// them but for the arithmetic of penalties and log-probabilities.
#include "reference.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

#include "instantiate.h"

namespace sl::reference {
namespace {

// Word 0 of Philox4x32-10.   Source: Salmon et al. 2011.
uint32_t philox(uint64_t key, uint64_t position, uint32_t id) {
  uint32_t c[4] = {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), id, 0};
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c[0], p1 = uint64_t{0xCD9E8D57u} * c[2];
    const uint32_t next[4] = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
                              static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    std::copy(next, next + 4, c);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c[0];
}

float gumbel(uint64_t key, uint64_t position, uint32_t id) {
  const double u = (philox(key, position, id) + 0.5) / 4294967296.0;
  return static_cast<float>(-std::log(-std::log(u)));
}

int32_t largest(const float* logits, int64_t count) {
  int32_t best = 0;
  bool found = false;
  for (int64_t i = 0; i < count; ++i) {
    if (std::isnan(logits[i])) continue;
    if (!found || logits[i] > logits[best]) best = static_cast<int32_t>(i);
    found = true;
  }
  return best;
}

// Ids by logit, largest first, the lowest id first among equals; NaN is left out.
std::vector<int32_t> ranked(const float* logits, int64_t count) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i)
    if (!std::isnan(logits[i])) ids.push_back(static_cast<int32_t>(i));
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  return ids;
}

// Row b of indptr as a range of [0, limit]: its numbers live on the device, where nothing has checked them.
std::pair<int64_t, int64_t> range(const view& indptr, int64_t b, int64_t limit) {
  const int64_t first = std::clamp<int64_t>(indptr.as<int32_t>()[b], 0, limit);
  return {first, std::clamp<int64_t>(indptr.as<int32_t>()[b + 1], first, limit)};
}

}  // namespace

template <typename Real>
void penalties(stream&, const penalties_args& a) {
  const int64_t V = a.logits.shape[1];
  for (int64_t b = 0; b < a.logits.shape[0]; ++b) {
    float* logits = a.logits.as<float>() + b * a.logits.stride[0];
    if (a.history) {
      std::map<int32_t, int64_t> counts;
      const auto [first, last] = range(a.history_indptr, b, a.history.shape[0]);
      for (int64_t i = first; i < last; ++i) {
        const int32_t id = a.history.as<int32_t>()[i];
        if (id >= 0 && id < V) ++counts[id];
      }
      const Real repetition = load(a.repetition, b), presence = load(a.presence, b), frequency = load(a.frequency, b);
      for (const auto& [id, count] : counts) {
        Real l = logits[id];
        l = l > 0 ? l / repetition : l * repetition;
        logits[id] = static_cast<float>(l - (presence + static_cast<Real>(count) * frequency));
      }
    }
    if (a.bias_ids) {
      const auto [first, last] = range(a.bias_indptr, b, a.bias_ids.shape[0]);
      for (int64_t i = first; i < last; ++i) {
        const int32_t id = a.bias_ids.as<int32_t>()[i];
        if (id >= 0 && id < V) logits[id] += a.bias_values.as<float>()[i];
      }
    }
  }
}

template <typename Real>
void argmax(stream&, const argmax_args& a) {
  for (int64_t b = 0; b < a.logits.shape[0]; ++b)
    a.ids.as<int32_t>()[b] = largest(a.logits.as<float>() + b * a.logits.stride[0], a.logits.shape[1]);
}

template <typename Real>
void sample(stream&, const sample_args& a) {
  const int64_t V = a.logits.shape[1];
  for (int64_t b = 0; b < a.logits.shape[0]; ++b) {
    const float* logits = a.logits.as<float>() + b * a.logits.stride[0];
    const double temperature = a.temperature.as<float>()[b];
    const int32_t top = largest(logits, V);
    if (!(temperature > 0) || !std::isfinite(logits[top])) {
      a.ids.as<int32_t>()[b] = top;
      continue;
    }
    // log(p) up to a constant, which no step below depends on: relative to the largest it is exact and needs no sum.
    const auto log_p = [&](int32_t id) {
      return static_cast<double>(logits[id]) / temperature - static_cast<double>(logits[top]) / temperature;
    };
    std::vector<int32_t> kept = ranked(logits, V);
    const int32_t k = a.top_k.as<int32_t>()[b];
    if (k > 0 && static_cast<size_t>(k) < kept.size()) kept.resize(static_cast<size_t>(k));
    const double top_p = a.top_p.as<float>()[b];
    if (top_p < 1) {
      double total = 0, sum = 0;
      for (int32_t id : kept) total += std::exp(log_p(id));
      size_t count = 0;
      while (count < kept.size() && (count == 0 || sum < top_p * total)) sum += std::exp(log_p(kept[count++]));
      kept.resize(count);
    }
    const double min_p = a.min_p.as<float>()[b];
    if (min_p > 0) {
      size_t count = 1;
      while (count < kept.size() && std::exp(log_p(kept[count])) >= min_p) ++count;
      kept.resize(count);
    }
    const auto seed = static_cast<uint64_t>(a.seed.as<int64_t>()[b]),
               position = static_cast<uint64_t>(a.position.as<int64_t>()[b]);
    std::sort(kept.begin(), kept.end());
    int32_t best = kept.front();
    float best_score = -std::numeric_limits<float>::infinity();
    for (int32_t id : kept) {
      const float score = static_cast<float>(log_p(id)) + gumbel(seed, position, static_cast<uint32_t>(id));
      if (score > best_score) {
        best_score = score;
        best = id;
      }
    }
    a.ids.as<int32_t>()[b] = best;
  }
}

template <typename Real>
void log_probs(stream&, const log_probs_args& a) {
  const int64_t V = a.logits.shape[1];
  for (int64_t b = 0; b < a.logits.shape[0]; ++b) {
    const float* logits = a.logits.as<float>() + b * a.logits.stride[0];
    const Real top = logits[largest(logits, V)];
    Real total = 0;
    for (int64_t i = 0; i < V; ++i)
      if (!std::isnan(logits[i])) total += std::exp(static_cast<Real>(logits[i]) - top);
    const Real shift = std::log(total);
    const auto log_p = [&](int32_t id) { return static_cast<float>(static_cast<Real>(logits[id]) - top - shift); };
    if (a.ids) {
      const int32_t id = a.ids.as<int32_t>()[b];
      a.log_probs.as<float>()[b] = id >= 0 && id < V ? log_p(id) : std::numeric_limits<float>::quiet_NaN();
    }
    if (a.top_ids) {
      const std::vector<int32_t> ids = ranked(logits, V);
      for (int64_t i = 0; i < a.top_ids.shape[1]; ++i) {
        // Where NaN leaves fewer than n, the rest is id 0 with NaN.
        const bool known = static_cast<size_t>(i) < ids.size();
        a.top_ids.as<int32_t>()[b * a.top_ids.stride[0] + i] = known ? ids[static_cast<size_t>(i)] : 0;
        store(a.top_log_probs, b, i,
              known ? log_p(ids[static_cast<size_t>(i)]) : std::numeric_limits<float>::quiet_NaN());
      }
    }
  }
}

SL_INSTANTIATE(penalties)
SL_INSTANTIATE(argmax)
SL_INSTANTIATE(sample)
SL_INSTANTIATE(log_probs)

}  // namespace sl::reference
