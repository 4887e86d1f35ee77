// What the kernels of fused_qkv share: the launchers' side of heads, and the order of a head's rows in fragments.
#pragma once

#include "head_jobs.cuh"
#include "linear.cuh"

namespace sl {
namespace SL_BACKEND_NS {

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
// Of kernels that have the products themselves.
inline head_jobs jobs_of(const fused_qkv_args& a) {
  const auto none = [&](const weight* w) { return matrix(nullptr, SL_DTYPE_F32, a.x.shape[0], w->rows); };
  return jobs_of(a, none(a.wq), none(a.wk), none(a.wv));
}

inline rotation turning(const fused_qkv_args& a) {
  return rotation_of(a.inv_freq, a.batch->device.positions, a.rope_scale, a.rope_kind);
}

// A head's norm, and a slot's scale, want the whole head in one block.
inline bool whole_q(const fused_qkv_args& a) { return bool(a.norm_q); }
inline bool whole_k(const fused_qkv_args& a) { return a.norm_k || a.cache.key_scales; }
inline bool whole_v(const fused_qkv_args& a) { return a.cache.value_scales != nullptr; }

// A head by 16 places (heads.cuh), a fragment's rows: where halves turn against each other, eight dims and the eight that they turn
// with; else 16 neighbours, of which the second eight may not be there.
struct head_rows {
  int dim, turned;
  bool interleaved;
  __host__ __device__ __forceinline__ int parts() const { return (dim + 15) / 16; }
  __device__ __forceinline__ bool paired(int part) const { return !interleaved && 16 * part < turned; }
  // The dim that row group `half` of a part begins with.
  __device__ __forceinline__ int first_dim(int part, int half) const {
    if (paired(part)) return 8 * part + half * (turned / 2);
    return min(16 * part + 8 * half, dim - 8);
  }
  // The row of its part at which the dim at a place stands.
  __device__ __forceinline__ int row_of(int place) const {
    const int in = place % 16;
    return paired(place / 16) ? in % 2 * 8 + in / 2 : in;
  }
};

// Products of 16-bit numbers on tensor cores, for heads whose dims go by eight (by 16 where halves turn).
void few_qkv_f16(stream&, const fused_qkv_args&);  // up to 8 rows of x; one launch
void few_qkv_bf16(stream&, const fused_qkv_args&);
void few_qkv_bytes(stream&, const fused_qkv_args&);
// More, of x normalised and as tiles take it; a launch for q, k and v of one operand.
void tile_qkv_f16(stream&, const fused_qkv_args&, const view& x, char* workspace);
void tile_qkv_bf16(stream&, const fused_qkv_args&, const view& x, char* workspace);
uint64_t tile_qkv_workspace(const device&, const fused_qkv_args&);

}  // namespace SL_BACKEND_NS
}  // namespace sl
