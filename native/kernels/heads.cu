// rope: turns pair i of each head by positions[t] * inv_freq[i].   Source: Su et al. 2021.
// kv_append: puts k [T,Hkv,D] and v [T,Hkv,Dv] into the batch's slots.
// grid (T * heads) / 4   block 128: a warp a head   bound by latency and by moving each value once
#include "head_jobs.cuh"
#include "ops.h"

namespace sl {
namespace SL_BACKEND_NS {

constexpr int head_warps = 4;

__global__ void __launch_bounds__(32 * head_warps, 4)
    heads_kernel(head_jobs jobs, rotation r, device_plan plan, page_shape shape, int tokens, bool planned, float eps) {
  const int all = jobs.q.heads + jobs.k.heads + jobs.v.heads;
  const long long warp = (long long)blockIdx.x * head_warps + threadIdx.x / 32;
  const int t = int(warp / all);
  int h = int(warp % all);
  if (t >= tokens) return;  // a whole warp, and there is no barrier
  const bool padding = planned && t >= plan.num_tokens();
  if (h < jobs.q.heads) return process_head(jobs.q, r, plan, shape, t, h, padding, eps);
  h -= jobs.q.heads;
  if (h < jobs.k.heads) return process_head(jobs.k, r, plan, shape, t, h, padding, eps);
  process_head(jobs.v, r, plan, shape, t, h - jobs.k.heads, padding, eps);
}

void process_heads(stream& s, const head_jobs& jobs, const rotation& r, const device_plan& plan, page_shape shape, int64_t tokens,
                   bool planned, float eps) {
  const int64_t warps = tokens * (jobs.q.heads + jobs.k.heads + jobs.v.heads);
  launch(native(s), KERNEL(heads_kernel), blocks_for(warps, head_warps), 32 * head_warps, 0, jobs, r, plan, shape, int(tokens),
         planned, eps);
}

void rope_cuda(stream& s, const rope_args& a) {
  head_jobs jobs{};
  jobs.q = job_of(a.x, a.y, true);
  process_heads(s, jobs, rotation_of(a.inv_freq, a.positions.as<const int>(), a.scale, a.kind), device_plan(), page_shape(),
        a.x.shape[0], false, 0.0f);
}

void kv_append_cuda(stream& s, const kv_append_args& a) {
  head_jobs jobs{};
  jobs.k = append_job(a.k, a.cache, a.layer, true);
  jobs.v = append_job(a.v, a.cache, a.layer, false);
  jobs.k.turn = false;
  process_heads(s, jobs, rotation(), plan_of(*a.batch), shape_of(a.cache), a.k.shape[0], true, 0.0f);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
