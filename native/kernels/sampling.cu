// argmax, sample, log_probs over logits [B,V] f32
// grid B, a row each   block up to 1024   each pass reads V logits: bound by latency for few rows
#include <algorithm>

#include "host.cuh"
#include "ops.h"
#include "ranking.cuh"
#include "softmax.cuh"

namespace sl {
namespace SL_BACKEND_NS {

// The rows of a call. Their addresses are multiples of 16 bytes, or are read one by one.
struct logit_rows {
  gmem<const float> first;
  long long stride;
  int V;
  bool aligned;
  __device__ __forceinline__ logit_row operator[](long long b) const { return {first + b * stride, V, aligned}; }
};

static logit_rows rows_of(const view& logits) {
  const bool aligned = aligned_16(logits.data) && (logits.shape[0] == 1 || logits.stride[0] % 4 == 0);
  return {logits.as<const float>(), logits.stride[0], int(logits.shape[1]), aligned};
}

// Threads for a row: 16 logits each at least, for the barriers cost more than few of them.
static unsigned threads_for(int64_t V) { return unsigned(std::clamp<int64_t>((V + 511) / 512 * 32, 128, ranking_threads)); }

__global__ void __launch_bounds__(ranking_threads) argmax_kernel(gmem<int> ids, logit_rows logits) {
  const unsigned long long best = largest_key(logits[blockIdx.x]);
  if (threadIdx.x == 0) ids[blockIdx.x] = id_of(best);
}

void argmax_cuda(stream& s, const argmax_args& a) {
  launch(native(s), KERNEL(argmax_kernel), unsigned(a.logits.shape[0]), threads_for(a.logits.shape[1]), 0, a.ids.as<int>(),
         rows_of(a.logits));
}

// --- sample -----------------------------------------------------------------------------------------------------------

// Word 0 of Philox4x32-10.   Source: Salmon et al. 2011.
__device__ __forceinline__ unsigned philox(unsigned long long key, unsigned long long position, unsigned id) {
  unsigned c0 = unsigned(position), c1 = unsigned(position >> 32), c2 = id, c3 = 0;
  unsigned k0 = unsigned(key), k1 = unsigned(key >> 32);
  for (int round = 0; round < 10; round++) {
    const unsigned long long p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
    c0 = unsigned(p1 >> 32) ^ c1 ^ k0;
    c2 = unsigned(p0 >> 32) ^ c3 ^ k1;
    c1 = unsigned(p1), c3 = unsigned(p0);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return c0;
}

struct sample_rows {
  gmem<const float> temperature, top_p, min_p;
  gmem<const int> top_k;
  gmem<const long long> seed, position;
};

__global__ void __launch_bounds__(ranking_threads) sample_kernel(gmem<int> ids, logit_rows all, sample_rows rows) {
  const int b = int(blockIdx.x);
  const logit_row logits = all[b];
  const unsigned long long top = largest_key(logits);
  const double temperature = double(rows.temperature[b]);
  const float top_logit = logits[id_of(top)];
  if (!(temperature > 0) || !isfinite(top_logit)) {  // the same for the whole block
    if (threadIdx.x == 0) ids[b] = id_of(top);
    return;
  }
  // log(p) up to a constant, which none of the steps depends on.
  const double shift = double(top_logit) / temperature;
  const auto log_p = [&](float v) { return double(v) / temperature - shift; };
  // Below that log(p) a probability is nothing against 2^-44, and no Gumbel number (at most 22.9) lifts it to the largest
  // logit's lowest score (-3.2). Told in f32, so that most of a vocabulary costs no f64, which many GPUs have little of.
  const float negligible = top_logit - 31.5f * float(temperature);
  // Probabilities relative to the largest as whole numbers: their sums are exact, in any order.
  const auto mass = [&](float v) {
    return v < negligible ? 0ull : (unsigned long long)(exp(log_p(v)) * 17592186044416.0);  // 2^44
  };

  unsigned long long lowest = 1;  // of the kept keys
  const int k = rows.top_k[b];
  if (k > 0 && k < logits.V) {
    const unsigned long long kth = threshold_key(logits, (unsigned long long)k, [](float, unsigned long long) { return 1ull; });
    if (kth > lowest) lowest = kth;
  }
  const double top_p = double(rows.top_p[b]);
  if (top_p < 1) {
    SHARED_ARRAY(unsigned long long, total, 1);
    if (threadIdx.x == 0) total[0] = 0;
    __syncthreads();
    unsigned long long mine = 0;
    logits.each([&](int i, float v) {
      if (rank_key(v, unsigned(i)) >= lowest) mine += mass(v);
    });
    atomicAdd(total + 0, mine);
    __syncthreads();
    const double wanted = ceil(top_p * double(total[0]));
    const unsigned long long target = wanted < 1 ? 1 : (unsigned long long)wanted;
    const unsigned long long kept = lowest;
    const unsigned long long last =
        threshold_key(logits, target, [&](float v, unsigned long long key) { return key >= kept ? mass(v) : 0ull; });
    if (last > lowest) lowest = last;
  }
  const double min_p = double(rows.min_p[b]);
  const unsigned long long seed = (unsigned long long)rows.seed[b], position = (unsigned long long)rows.position[b];
  unsigned long long best = 0;
  float best_score = SL_NEGATIVE_INFINITY;
  const float inverse_temperature = float(1.0 / temperature);
  logits.each([&](int i, float v) {
    const unsigned long long key = rank_key(v, unsigned(i));
    if (key < lowest || v < negligible) return;
    const unsigned word = philox(seed, position, unsigned(i));
    // A score in f32, never below the exact one by more than the margin: who cannot be this thread's best is passed over.
    const float rest = fminf((float(0xffffffffu - word) + 0.5f) * 2.3283064365386963e-10f, 0.99999994f);  // 1 - u
    if ((v - top_logit) * inverse_temperature - logf(-log1pf(-rest)) < best_score - 0.01f) return;
    const double lp = log_p(v);
    if (min_p > 0 && key != top && !(exp(lp) >= min_p)) return;
    const double u = (double(word) + 0.5) / 4294967296.0;
    const float score = float(lp) + float(-log(-log(u)));
    const unsigned long long scored = rank_key(score, unsigned(i));
    if (scored > best) best = scored, best_score = score;
  });
  best = block_max(best);
  if (threadIdx.x == 0) ids[b] = id_of(best);
}

void sample_cuda(stream& s, const sample_args& a) {
  const sample_rows rows = {a.temperature.as<const float>(), a.top_p.as<const float>(), a.min_p.as<const float>(),
                            a.top_k.as<const int>(), reinterpret_cast<const long long*>(a.seed.data),
                            reinterpret_cast<const long long*>(a.position.data)};
  launch(native(s), KERNEL(sample_kernel), unsigned(a.logits.shape[0]), threads_for(a.logits.shape[1]), 0, a.ids.as<int>(),
         rows_of(a.logits), rows);
}

// --- log_probs ----------------------------------------------------------------------------------------------------------

struct log_prob_outputs {
  gmem<const int> ids;  // null where no id is asked for
  gmem<float> log_probs;
  gmem<int> top_ids;    // null where n = 0
  gmem<float> top_log_probs;
  long long top_ids_stride, top_log_probs_stride;
  int n;
};

__global__ void __launch_bounds__(ranking_threads) log_probs_kernel(log_prob_outputs out, logit_rows all) {
  const long long b = blockIdx.x;
  const logit_row logits = all[b];
  const int V = logits.V;
  unsigned long long key = largest_key(logits);
  const float top = logits[id_of(key)];
  double sum = 0;
  logits.each([&](int, float v) {
    if (!isnan(v)) sum += exp(double(v) - double(top));
  });
  const double shift = double(top) + log(block_sum_f64(sum));
  if (threadIdx.x == 0 && out.ids) {
    const int id = out.ids[b];
    out.log_probs[b] = id >= 0 && id < V ? float(double(logits[id]) - shift) : __int_as_float(0x7fc00000);
  }
  for (int i = 0; i < out.n; i++) {  // the next largest each time: n is small
    if (threadIdx.x == 0) {
      // Where NaN leaves fewer than n, the rest is id 0 with NaN.
      out.top_ids[b * out.top_ids_stride + i] = id_of(key);
      out.top_log_probs[b * out.top_log_probs_stride + i] =
          key ? float(double(logits[id_of(key)]) - shift) : __int_as_float(0x7fc00000);
    }
    unsigned long long next = 0;
    logits.each([&](int j, float v) {
      const unsigned long long k = rank_key(v, unsigned(j));
      if (k < key && k > next) next = k;
    });
    key = block_max(next);
  }
}

void log_probs_cuda(stream& s, const log_probs_args& a) {
  log_prob_outputs out{};
  if (a.ids) out.ids = a.ids.as<const int>(), out.log_probs = a.log_probs.as<float>();
  if (a.top_ids) {
    out.top_ids = a.top_ids.as<int>(), out.top_log_probs = a.top_log_probs.as<float>();
    out.top_ids_stride = a.top_ids.stride[0], out.top_log_probs_stride = a.top_log_probs.stride[0];
    out.n = int(a.top_ids.shape[1]);
  }
  launch(native(s), KERNEL(log_probs_kernel), unsigned(a.logits.shape[0]), threads_for(a.logits.shape[1]), 0, out,
         rows_of(a.logits));
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
