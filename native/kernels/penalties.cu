// penalties: for each distinct token of a row's history, seen c times: l = l > 0 ? l / r : l * r; l -= presence + c * frequency.
// Then l[id] += value for each bias.   logits [B,V] f32, in place
// grid B, a row each   block 256   workspace B * V counts, of which the history's are used: bound by latency
#include "host.cuh"
#include "ops.h"

namespace sl {
namespace SL_BACKEND_NS {

struct penalty_rows {
  gmem<const int> history, history_indptr, bias_ids, bias_indptr;
  gmem<const float> repetition, presence, frequency, bias_values;
  int history_length, bias_length;
};

// A number from the device, where nothing has checked it, as an index into 0..limit.
__device__ __forceinline__ int clamped(int v, int low, int limit) { return v < low ? low : v > limit ? limit : v; }

__global__ void __launch_bounds__(256)
    penalties_kernel(gmem<float> logits, gmem<int> counts, penalty_rows p, int V, long long stride) {
  const long long b = blockIdx.x;
  const int thread = int(threadIdx.x), threads = int(blockDim.x);
  logits += b * stride;
  counts += b * V;
  if (p.history) {
    const int first = clamped(p.history_indptr[b], 0, p.history_length);
    const int last = clamped(p.history_indptr[b + 1], first, p.history_length);
    const auto each = [&](auto f) {
      for (int i = first + thread; i < last; i += threads) {
        const int id = p.history[i];
        if (id >= 0 && id < V) f(id);
      }
    };
    // Only the counts of the history's own tokens are made, and looked at: a vocabulary is longer than most histories.
    each([&](int id) { counts[id] = 0; });
    __syncthreads();
    each([&](int id) { atomicAdd(counts + id, 1); });
    __syncthreads();
    const float repetition = p.repetition[b], presence = p.presence[b], frequency = p.frequency[b];
    each([&](int id) {
      const int count = atomicExch(counts + id, 0);  // who comes first takes it all
      if (count == 0) return;
      float l = logits[id];
      l = l > 0.0f ? l / repetition : l * repetition;
      logits[id] = l - (presence + float(count) * frequency);
    });
    __syncthreads();
  }
  if (p.bias_ids) {
    const int first = clamped(p.bias_indptr[b], 0, p.bias_length), last = clamped(p.bias_indptr[b + 1], first, p.bias_length);
    for (int i = first + thread; i < last; i += threads) {
      const int id = p.bias_ids[i];
      if (id >= 0 && id < V) atomicAdd(logits + id, p.bias_values[i]);
    }
  }
}

uint64_t penalties_workspace(const device&, const penalties_args& a) {
  return a.history ? uint64_t(a.logits.shape[0] * a.logits.shape[1]) * 4 : 0;
}

void penalties_cuda(stream& s, const penalties_args& a) {
  penalty_rows p{};
  if (a.history) {
    p.history = a.history.as<const int>(), p.history_indptr = a.history_indptr.as<const int>();
    p.repetition = a.repetition.as<const float>(), p.presence = a.presence.as<const float>();
    p.frequency = a.frequency.as<const float>(), p.history_length = int(a.history.shape[0]);
  }
  if (a.bias_ids) {
    p.bias_ids = a.bias_ids.as<const int>(), p.bias_indptr = a.bias_indptr.as<const int>();
    p.bias_values = a.bias_values.as<const float>(), p.bias_length = int(a.bias_ids.shape[0]);
  }
  launch(native(s), KERNEL(penalties_kernel), unsigned(a.logits.shape[0]), 256, 0, a.logits.as<float>(),
         reinterpret_cast<int*>(s.workspace), p, int(a.logits.shape[1]), a.logits.stride[0]);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
