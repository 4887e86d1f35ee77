// What the kernels of fused_qkv share: the three projections as one list of blocks, and the launchers' side of them.
#pragma once

#include "head_jobs.cuh"
#include "linear.cuh"

namespace sl {
namespace SL_BACKEND_NS {

// One of the three projections. A head's places (heads.cuh) are cut into parts of `width`: one where the head is normalised or
// its slot has a scale, else as the kernel likes. A block takes a part, or several whole heads.
struct projection {
  weight_view w;
  any_input bias;
  head_job job;  // of its x nothing is used
  int width, blocks_a_head, heads_a_block;
  __host__ __device__ __forceinline__ int blocks() const { return (job.heads + heads_a_block - 1) / heads_a_block * blocks_a_head; }
};
struct projections { projection part[3]; };  // q, k, v

struct qkv_input {
  any_input x, norm;  // norm [C], or absent
  long long stride;
  int tokens;
  float eps;
  bool aligned, norm_aligned;
};

// Which projection a block works for, and its number among that one's blocks.
struct qkv_block { int which, at; };
__device__ __forceinline__ qkv_block block_of(const projections& all, int block) {
  int which = 0;
  for (; which < 2 && block >= all.part[which].blocks(); which++) block -= all.part[which].blocks();
  return {which, block};
}

inline view matrix(char* data, sl_dtype dtype, int64_t rows, int64_t cols) {
  view v;
  v.data = data, v.dtype = dtype, v.rank = 2;
  v.shape[0] = rows, v.shape[1] = cols, v.stride[0] = cols, v.stride[1] = 1;
  return v;
}

inline view heads_of(const view& m, int64_t heads) {
  view v = m;
  v.rank = 3;
  v.shape[1] = heads, v.shape[2] = m.shape[1] / heads;
  v.stride[1] = v.shape[2], v.stride[2] = 1;
  return v;
}


inline head_jobs jobs_of(const fused_qkv_args& a, const view& q, const view& k, const view& v) {
  head_jobs jobs{};
  jobs.q = job_of(heads_of(q, a.q.shape[1]), a.q, true);
  jobs.k = append_job(heads_of(k, a.cache.kv_heads), a.cache, a.layer, true);
  jobs.v = append_job(heads_of(v, a.cache.kv_heads), a.cache, a.layer, false);
  if (!a.whole_row_norm) jobs.q.norm = input_of(a.norm_q), jobs.k.norm = input_of(a.norm_k);
  return jobs;
}

inline rotation turning(const fused_qkv_args& a) {
  return rotation_of(a.inv_freq, a.batch->device.positions, a.rope_scale, a.rope_kind);
}

inline projection projection_of(const weight& w, const view& bias, const head_job& job, int width) {
  projection p{};
  p.w = view_of(static_cast<const cuda_weight&>(w)), p.bias = input_of(bias), p.job = job;
  p.width = width == 0 ? job.dim : std::min(width, job.dim);
  p.blocks_a_head = int(blocks_for(job.dim, p.width)), p.heads_a_block = 1;
  return p;
}

inline qkv_input input_of(const fused_qkv_args& a) {
  return {input_of(a.x), input_of(a.norm_weight), a.x.stride[0], int(a.x.shape[0]), a.norm_eps, rows_aligned_16(a.x), aligned_16(a.norm_weight.data)};
}

// A head's norm, and a slot's scale, want the whole head in one block.
inline bool whole_q(const fused_qkv_args& a) { return bool(a.norm_q); }
inline bool whole_k(const fused_qkv_args& a) { return a.norm_k || a.cache.key_scales; }
inline bool whole_v(const fused_qkv_args& a) { return a.cache.value_scales != nullptr; }

// Many rows on tensor cores, with products of 16 bits.
void fused_qkv_f16(stream&, const fused_qkv_args&);
void fused_qkv_bf16(stream&, const fused_qkv_args&);

}  // namespace SL_BACKEND_NS
}  // namespace sl
