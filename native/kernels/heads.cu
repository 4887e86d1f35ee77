// rope: turns pair i of each head by positions[t] * inv_freq[i].   Source: Su et al. 2021.
// kv_append: puts k [T,Hkv,D] and v [T,Hkv,Dv] into the batch's slots.
// fused_qkv: norm, three projections, bias, QK-norm, RoPE, append; composed of the kernels of its parts for now.
// grid (T * heads) / 4   block 128: a warp a head   bound by latency and by moving each value once
#include "heads.cuh"
#include "linear.cuh"
#include "ops.h"

namespace sl {
namespace SL_BACKEND_NS {

constexpr int head_warps = 4;

struct head_jobs { head_job q, k, v; };  // a job without heads is absent

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

static void start(stream& s, const head_jobs& jobs, const rotation& r, const device_plan& plan, page_shape shape,
                  int64_t tokens, bool planned, float eps) {
  const int64_t warps = tokens * (jobs.q.heads + jobs.k.heads + jobs.v.heads);
  launch(native(s), KERNEL(heads_kernel), blocks_for(warps, head_warps), 32 * head_warps, 0, jobs, r, plan, shape, int(tokens),
         planned, eps);
}

static head_job job_of(const view& x, const view& y, bool turn) {
  head_job j{};
  j.x = input_of(x), j.y = output_of(y);
  j.x_token = x.stride[0], j.x_head = x.stride[1], j.y_token = y.stride[0], j.y_head = y.stride[1];
  j.heads = int(x.shape[1]), j.dim = int(x.shape[2]);
  j.turn = turn;
  return j;
}

static head_job append_job(const view& x, const kv_view& cache, int32_t layer, bool keys) {
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

static rotation rotation_of(const view& inv_freq, const int* positions, float scale, sl_rope_kind kind) {
  rotation r{};
  if (!inv_freq) return r;
  r.inv_freq = inv_freq.as<const float>(), r.positions = positions;
  r.turned = int(2 * inv_freq.shape[0]), r.scale = scale, r.interleaved = kind == SL_ROPE_INTERLEAVED;
  return r;
}

void rope_cuda(stream& s, const rope_args& a) {
  head_jobs jobs{};
  jobs.q = job_of(a.x, a.y, true);
  start(s, jobs, rotation_of(a.inv_freq, a.positions.as<const int>(), a.scale, a.kind), device_plan(), page_shape(),
        a.x.shape[0], false, 0.0f);
}

void kv_append_cuda(stream& s, const kv_append_args& a) {
  head_jobs jobs{};
  jobs.k = append_job(a.k, a.cache, a.layer, true);
  jobs.v = append_job(a.v, a.cache, a.layer, false);
  jobs.k.turn = false;
  start(s, jobs, rotation(), plan_of(*a.batch), shape_of(a.cache), a.k.shape[0], true, 0.0f);
}

// --- fused_qkv ------------------------------------------------------------------------------------------------------

namespace {

uint64_t padded(uint64_t bytes) { return (bytes + 255) / 256 * 256; }

// The workspace: the normalised x in x's dtype, q, k and v in f32, and what a projection wants.
struct qkv_workspace {
  uint64_t x, q, k, v, projection, bytes;
};
qkv_workspace lay_out(const fused_qkv_args& a) {
  const auto T = uint64_t(a.x.shape[0]);
  qkv_workspace w{};
  w.q = padded(a.norm_weight ? T * uint64_t(a.x.shape[1]) * size_of(a.x.dtype) : 0);
  w.k = w.q + padded(T * uint64_t(a.wq->rows) * 4);
  w.v = w.k + padded(T * uint64_t(a.wk->rows) * 4);
  w.bytes = w.projection = w.v + padded(T * uint64_t(a.wv->rows) * 4);
  return w;
}

view matrix(char* data, sl_dtype dtype, int64_t rows, int64_t cols) {
  view v;
  v.data = data, v.dtype = dtype, v.rank = 2;
  v.shape[0] = rows, v.shape[1] = cols, v.stride[0] = cols, v.stride[1] = 1;
  return v;
}

view heads_of(const view& m, int64_t heads) {
  view v = m;
  v.rank = 3;
  v.shape[1] = heads, v.shape[2] = m.shape[1] / heads;
  v.stride[1] = v.shape[2], v.stride[2] = 1;
  return v;
}

}  // namespace

uint64_t fused_qkv_workspace(const device& d, const fused_qkv_args& a) {
  uint64_t most = 0;
  for (const weight* w : {a.wq, a.wk, a.wv}) {
    // The projections read x's own rows or the normalised ones, which are aligned at least as well.
    for (const view& x : {a.x, matrix(nullptr, a.x.dtype, a.x.shape[0], a.x.shape[1])}) most = std::max(most, linear_workspace(d, {x, w, view(), view(), matrix(nullptr, SL_DTYPE_F32, a.x.shape[0], w->rows)}));
  }
  return lay_out(a).bytes + most;
}

void fused_qkv_cuda(stream& s, const fused_qkv_args& a) {
  const qkv_workspace w = lay_out(a);
  const int64_t T = a.x.shape[0];
  view x = a.x;
  if (a.norm_weight) {
    x = matrix(s.workspace + w.x, a.x.dtype, T, a.x.shape[1]);
    rms_norm_cuda(s, {a.x, a.norm_weight, a.norm_eps, x});
  }
  const view q = matrix(s.workspace + w.q, SL_DTYPE_F32, T, a.wq->rows), k = matrix(s.workspace + w.k, SL_DTYPE_F32, T, a.wk->rows),
             v = matrix(s.workspace + w.v, SL_DTYPE_F32, T, a.wv->rows);
  linear_in(s, {x, a.wq, a.bias_q, view(), q}, s.workspace + w.projection);
  linear_in(s, {x, a.wk, a.bias_k, view(), k}, s.workspace + w.projection);
  linear_in(s, {x, a.wv, a.bias_v, view(), v}, s.workspace + w.projection);

  if (a.whole_row_norm && a.norm_q) rms_norm_cuda(s, {q, a.norm_q, a.qk_norm_eps, q});
  if (a.whole_row_norm && a.norm_k) rms_norm_cuda(s, {k, a.norm_k, a.qk_norm_eps, k});

  head_jobs jobs{};
  jobs.q = job_of(heads_of(q, a.q.shape[1]), a.q, true);
  if (!a.whole_row_norm) jobs.q.norm = input_of(a.norm_q);
  jobs.k = append_job(heads_of(k, a.cache.kv_heads), a.cache, a.layer, true);
  if (!a.whole_row_norm) jobs.k.norm = input_of(a.norm_k);
  jobs.v = append_job(heads_of(v, a.cache.kv_heads), a.cache, a.layer, false);
  start(s, jobs, rotation_of(a.inv_freq, a.batch->device.positions, a.rope_scale, a.rope_kind), plan_of(*a.batch),
        shape_of(a.cache), T, true, a.qk_norm_eps);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
