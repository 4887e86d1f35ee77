// The launchers' side of heads.cuh: from tensors to jobs.
#pragma once

#include "heads.cuh"
#include "host.cuh"

namespace sl {
namespace SL_BACKEND_NS {

struct head_jobs { head_job q, k, v; };  // a job without heads is absent

inline head_job job_of(const view& x, const view& y, bool turn) {
  head_job j{};
  j.x = input_of(x), j.y = output_of(y);
  j.x_token = x.stride[0], j.x_head = x.stride[1], j.y_token = y.stride[0], j.y_head = y.stride[1];
  j.heads = int(x.shape[1]), j.dim = int(x.shape[2]);
  j.turn = turn;
  return j;
}

inline head_job append_job(const view& x, const kv_view& cache, int32_t layer, bool keys) {
  head_job j = job_of(x, view(), keys);
  if (has_scales(cache)) {
    j.eight = pool_of(cache, layer, keys).as<unsigned char>();
    j.scales = scales_of(cache, layer, keys), j.eight_dtype = cache.dtype;
  } else {
    j.y = output_of(pool_of(cache, layer, keys));
  }
  j.to_cache = true;
  return j;
}

inline rotation rotation_of(const view& inv_freq, const int* positions, float scale, sl_rope_kind kind) {
  rotation r{};
  if (!inv_freq) return r;
  r.inv_freq = inv_freq.as<const float>(), r.positions = positions;
  r.turned = int(2 * inv_freq.shape[0]), r.scale = scale, r.interleaved = kind == SL_ROPE_INTERLEAVED;
  return r;
}

// A warp a head of every job; `planned` rows end at the plan's tokens.
void process_heads(stream& s, const head_jobs& jobs, const rotation& r, const device_plan& plan, page_shape shape, int64_t tokens,
                   bool planned, float eps);

}  // namespace SL_BACKEND_NS
}  // namespace sl
