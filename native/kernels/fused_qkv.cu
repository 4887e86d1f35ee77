// fused_qkv: q, k, v = rope(norm(rms_norm(x) * w^T + bias)), q to a tensor, k and v to the batch's slots of the cache
// x [T,C] in {f32,f16,bf16}   wq [H*D,C]   wk [Hkv*D,C]   wv [Hkv*Dv,C], each of any storage
// few rows: one launch, below.   grid (parts of heads, T / M)   block 256 or 512
//   shared: M rows of x as f32, 92 KB at most   moves the bytes of the weights once: bound by memory for one row
// more rows, and QK-norm over whole rows (whose sums cross blocks): norm, three products, heads; as many launches
#include "gemv.cuh"
#include "head_jobs.cuh"
#include "linear.cuh"
#include "ops.h"

namespace sl {
namespace SL_BACKEND_NS {

constexpr int qkv_staged = 20480;  // elements of x, of all M rows
constexpr int qkv_rows = 2;        // of w a warp reads at once
// Whole heads are few blocks of much work; four rows of x take more registers than so many threads can have.
template <int M> constexpr int qkv_most_threads = M == 1 ? 512 : 256;
constexpr int64_t qkv_few = 16;    // rows of x

// One of the three projections. A head's places (heads.cuh) are cut into blocks of `width`: all of them where the head is
// normalised or its slot has a scale, else as few pairs as keep a block's warps busy, so that more blocks run.
struct projection {
  weight_view w;
  any_input bias;
  head_job job;  // of its x nothing is used
  int width, blocks_a_head;
};
struct projections { projection part[3]; };  // q, k, v

struct qkv_input {
  any_input x, norm;  // norm [C], or absent
  long long stride;
  int tokens;
  float eps;
  bool aligned;
};

// A lane's part of two rows of w, of whatever storage, by M rows of x.
template <int M>
__device__ __forceinline__ void read_rows(float (&sum)[M][qkv_rows], const weight_view& w, const int (&n)[qkv_rows], int part,
                                          int share, int k0, int count, smem<const float> xs) {
  const auto read = [&](auto units) {
    using Units = decltype(units);
    constexpr int width = Units::run * Units::octets;
    const int first = k0 / width + part * 32 + (int(threadIdx.x) & 31), end = (k0 + count + width - 1) / width;
    row_reader<Units, M, qkv_rows, (M == 1 && Units::octets == 4) ? 1 : 2> reader;  // by what registers are left
    reader.start(w, n, first, end, 32 * share);
    reader.run(sum, w, n, first, end, 32 * share, xs, staged_row(count), k0);
  };
  switch (w.kind) {
    case storage::f32: return read(dense_units<float>());
    case storage::f16: return read(dense_units<half>());
    case storage::bf16: return read(dense_units<__nv_bfloat16>());
    case storage::int8: return read(int8_units());
    default: return read(int4_units());
  }
}

// The norm is folded in: x * norm_weight is what the rows of w meet, each block sums the squares of x itself, and their root
// divides what comes out. `share` warps have each a part of the same rows' columns.
template <int M>
__global__ void __launch_bounds__(qkv_most_threads<M>)
    fused_qkv_kernel(projections all, qkv_input in, rotation r, device_plan plan, page_shape shape, int share, float qk_eps) {
  DYN_SHARED(float, shared);
  SHARED_ARRAY(float, squares, M * qkv_most_threads<M> / 32);
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
  const int first_token = int(blockIdx.y) * M;

  int block = int(blockIdx.x), which = 0;
  for (; which < 2 && block >= all.part[which].job.heads * all.part[which].blocks_a_head; which++)
    block -= all.part[which].job.heads * all.part[which].blocks_a_head;
  const projection& p = all.part[which];
  const int head = block / p.blocks_a_head, from = block % p.blocks_a_head * p.width, to = min(from + p.width, p.job.dim);
  const int turned = turned_dims(p.job, r);

  const int C = p.w.cols, most = qkv_staged / M, rows_at_once = warps / share * qkv_rows;
  const smem<float> xs = shared, out = shared + M * staged_row(min(C, most));  // out [share][M][width]
#pragma unroll 1
  for (int pass = 0; pass < to - from; pass += rows_at_once) {
    const int place = pass + warp / share * qkv_rows;
    int n[qkv_rows];
#pragma unroll
    for (int i = 0; i < qkv_rows; i++)
      n[i] = head * p.job.dim + dim_at(min(from + place + i, to - 1), turned, r.interleaved);
    float sum[M][qkv_rows] = {};
#pragma unroll 1
    for (int k0 = 0; k0 < C; k0 += most) {
      const int count = min(most, C - k0);
      if (pass == 0 || C > most) {
        if (pass > 0 || k0 > 0) __syncthreads();  // the part before has been used
        float square[M] = {};
        stage_rows<M>(xs, in.x, first_token, in.tokens, in.stride, C, k0, count, in.aligned,
                      [&](int m, int k, int valid, float (&v)[4]) {
#pragma unroll
                        for (int i = 0; i < 4; i++) {
                          square[m] += v[i] * v[i];
                          if (in.norm.present() && i < valid) v[i] *= in.norm.at(k + i);
                        }
                      });
#pragma unroll
        for (int m = 0; m < M; m++) {
          const float whole = warp_sum(square[m]);
          if (lane == 0 && pass == 0) squares[m * warps + warp] = k0 == 0 ? whole : squares[m * warps + warp] + whole;
        }
        __syncthreads();
      }
      read_rows<M>(sum, p.w, n, warp % share, share, k0, count, xs);
    }
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int i = 0; i < qkv_rows; i++) {
        const float whole = warp_sum(sum[m][i]);
        if (lane == 0 && place + i < to - from) out[(warp % share * M + m) * p.width + place + i] = whole;
      }
  }
  __syncthreads();

  // A warp a row of x from here on.
  const int t = first_token + warp;
  if (warp >= M || t >= in.tokens) return;
  float scale = 1.0f;
  if (in.norm.present()) {
    float sum = 0.0f;
    for (int i = 0; i < warps; i++) sum += squares[warp * warps + i];
    scale = rsqrtf(sum / float(C) + in.eps);
  }
  const auto raw = [&](int d) {
    const int place = place_of(d, turned, r.interleaved) - from;
    float sum = 0.0f;
    for (int i = 0; i < share; i++) sum += out[(i * M + warp) * p.width + place];
    sum *= scale;
    return p.bias.present() ? sum + p.bias.at((long long)head * p.job.dim + d) : sum;
  };
  process_places(p.job, raw, r, plan, shape, t, head, t >= plan.num_tokens(), qk_eps, from, to);
}

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


head_jobs jobs_of(const fused_qkv_args& a, const view& q, const view& k, const view& v) {
  head_jobs jobs{};
  jobs.q = job_of(heads_of(q, a.q.shape[1]), a.q, true);
  jobs.k = append_job(heads_of(k, a.cache.kv_heads), a.cache, a.layer, true);
  jobs.v = append_job(heads_of(v, a.cache.kv_heads), a.cache, a.layer, false);
  if (!a.whole_row_norm) jobs.q.norm = input_of(a.norm_q), jobs.k.norm = input_of(a.norm_k);
  return jobs;
}

rotation turning(const fused_qkv_args& a) {
  return rotation_of(a.inv_freq, a.batch->device.positions, a.rope_scale, a.rope_kind);
}

projection projection_of(const weight& w, const view& bias, const head_job& job, int width) {
  projection p{};
  p.w = view_of(static_cast<const cuda_weight&>(w)), p.bias = input_of(bias), p.job = job;
  p.width = width == 0 ? job.dim : std::min(width, job.dim);
  p.blocks_a_head = int(blocks_for(job.dim, p.width));
  return p;
}

template <int M>
void start_few(stream& s, const fused_qkv_args& a) {
  const int64_t T = a.x.shape[0], C = a.x.shape[1];
  const auto none = [&](const weight* w) { return matrix(nullptr, SL_DTYPE_F32, T, w->rows); };
  const head_jobs jobs = jobs_of(a, none(a.wq), none(a.wk), none(a.wv));
  // Blocks of 16 dims, or of 8, 4 or 2 by warps that share rows, until there are two for each multiprocessor.
  const int64_t dims = a.wq->rows + a.wk->rows + a.wv->rows;
  int share = 1;
  while (share < 8 && dims / (16 / share) * int64_t(blocks_for(T, M)) < 2 * multiprocessors(*s.owner)) share *= 2;
  const bool whole_q = bool(a.norm_q), whole_k = a.norm_k || a.cache.key_scales, whole_v = a.cache.value_scales;
  const projections all{{projection_of(*a.wq, a.bias_q, jobs.q, whole_q ? 0 : 16 / share),
                         projection_of(*a.wk, a.bias_k, jobs.k, whole_k ? 0 : 16 / share),
                         projection_of(*a.wv, a.bias_v, jobs.v, whole_v ? 0 : 16 / share)}};
  const unsigned threads = whole_q || whole_k || whole_v ? qkv_most_threads<M> : 256;
  unsigned blocks = 0;
  int width = 0;
  for (const projection& p : all.part) blocks += unsigned(p.job.heads * p.blocks_a_head), width = std::max(width, p.width);
  const size_t floats = size_t(M) * size_t(staged_row(int(std::min<int64_t>(C, qkv_staged / M)))) + size_t(share) * M * size_t(width);
  launch(native(s), KERNEL(fused_qkv_kernel<M>), dim3(blocks, blocks_for(T, M)), threads, floats * sizeof(float), all,
         qkv_input{input_of(a.x), input_of(a.norm_weight), a.x.stride[0], int(T), a.norm_eps, rows_aligned_16(a.x)}, turning(a),
         plan_of(*a.batch), shape_of(a.cache), share, a.qk_norm_eps);
}

bool few(const fused_qkv_args& a) { return a.x.shape[0] <= qkv_few && !a.whole_row_norm; }

}  // namespace

uint64_t fused_qkv_workspace(const device& d, const fused_qkv_args& a) {
  if (few(a)) return 0;
  uint64_t most = 0;
  for (const weight* w : {a.wq, a.wk, a.wv}) {
    // The projections read x's own rows or the normalised ones, which are aligned at least as well.
    for (const view& x : {a.x, matrix(nullptr, a.x.dtype, a.x.shape[0], a.x.shape[1])})
      most = std::max(most, linear_workspace(d, {x, w, view(), view(), matrix(nullptr, SL_DTYPE_F32, a.x.shape[0], w->rows)}));
  }
  return lay_out(a).bytes + most;
}

void fused_qkv_cuda(stream& s, const fused_qkv_args& a) {
  if (few(a)) return a.x.shape[0] == 1 ? start_few<1>(s, a) : start_few<4>(s, a);
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
  process_heads(s, jobs_of(a, q, k, v), turning(a), plan_of(*a.batch), shape_of(a.cache), T, true, a.qk_norm_eps);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
