// fused_qkv: q, k, v = rope(norm(rms_norm(x) * w^T + bias)), q to a tensor, k and v to the batch's slots of the cache
// x [T,C] in {f32,f16,bf16}   wq [H*D,C]   wk [Hkv*D,C]   wv [Hkv*Dv,C], each of any storage
// up to 16 rows: one launch, below.   grid (parts of heads, T / M)   block 256 or 512
//   shared: M rows of x as f32, 92 KB at most   moves the bytes of the weights once: bound by memory for one row
// more rows, products of 16 bits: one launch on tensor cores, fused_qkv_gemm.cuh
// else a launch each for norm, products and heads: where the record keeps products in f32, weights whose products would be of
//   different types, heads of more than 128 dims that want to be whole, and QK-norm over whole rows, whose sums cross blocks
#include "fused_qkv.cuh"
#include "gemv.cuh"
#include "ops.h"

namespace sl {
namespace SL_BACKEND_NS {

constexpr int qkv_staged = 20480;  // elements of x, of all M rows
constexpr int qkv_rows = 2;        // of w a warp reads at once
// Whole heads are few blocks of much work; four rows of x take more registers than so many threads can have.
template <int M> constexpr int qkv_most_threads = M == 1 ? 512 : 256;
constexpr int64_t qkv_few = 16;    // rows of x

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

  const qkv_block b = block_of(all, int(blockIdx.x));
  const projection& p = all.part[b.which];
  const int head = b.at / p.blocks_a_head, from = b.at % p.blocks_a_head * p.width, to = min(from + p.width, p.job.dim);
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
                        float w[4] = {1.0f, 1.0f, 1.0f, 1.0f};
                        if (in.norm.present()) {
                          if (valid >= 4 && in.norm_aligned) in.norm.load_four(w, k);
                          else
                            for (int i = 0; i < 4 && i < valid; i++) w[i] = in.norm.at(k + i);
                        }
#pragma unroll
                        for (int i = 0; i < 4; i++) square[m] += v[i] * v[i], v[i] *= w[i];
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

// The workspace: the normalised x in q's dtype, q, k and v in f32, and what a projection wants.
struct qkv_workspace {
  uint64_t x, q, k, v, projection, bytes;
};
// The projections take x in q's type, which may be narrower.
bool rounds_x(const fused_qkv_args& a) { return a.x.dtype != a.q.dtype && a.x.shape[1] % 4 == 0; }
bool changes_x(const fused_qkv_args& a) { return a.norm_weight || rounds_x(a); }

qkv_workspace lay_out(const fused_qkv_args& a) {
  const auto T = uint64_t(a.x.shape[0]);
  qkv_workspace w{};
  w.q = padded(changes_x(a) ? T * uint64_t(a.x.shape[1]) * size_of(a.q.dtype) : 0);
  w.k = w.q + padded(T * uint64_t(a.wq->rows) * 4);
  w.v = w.k + padded(T * uint64_t(a.wk->rows) * 4);
  w.bytes = w.projection = w.v + padded(T * uint64_t(a.wv->rows) * 4);
  return w;
}

template <int M>
void start_few(stream& s, const fused_qkv_args& a) {
  const int64_t T = a.x.shape[0], C = a.x.shape[1];
  const auto none = [&](const weight* w) { return matrix(nullptr, SL_DTYPE_F32, T, w->rows); };
  const head_jobs jobs = jobs_of(a, none(a.wq), none(a.wk), none(a.wv));
  // Blocks of 16 dims, or of 8, 4 or 2 by warps that share rows, until there are two for each multiprocessor.
  const int64_t dims = a.wq->rows + a.wk->rows + a.wv->rows;
  // Their sums meet in shared memory, beside x: 99 KB in all is what every device of sm_80 and up has.
  constexpr size_t most_shared = 99 * 1024 - size_t(M) * qkv_most_threads<M> / 32 * sizeof(float) - 64;
  const size_t staged = size_t(M) * size_t(staged_row(int(std::min<int64_t>(C, qkv_staged / M)))) * sizeof(float);
  int64_t whole = 16;
  if (whole_q(a) || whole_k(a)) whole = std::max<int64_t>(whole, a.cache.key_dim);
  if (whole_v(a)) whole = std::max<int64_t>(whole, a.cache.value_dim);
  int share = 1;
  while (share < 8 && dims / (16 / share) * int64_t(blocks_for(T, M)) < 2 * multiprocessors(*s.owner) &&
         staged + size_t(2 * share) * M * size_t(whole) * sizeof(float) <= most_shared)
    share *= 2;
  const projections all{{projection_of(*a.wq, a.bias_q, jobs.q, whole_q(a) ? 0 : 16 / share),
                         projection_of(*a.wk, a.bias_k, jobs.k, whole_k(a) ? 0 : 16 / share),
                         projection_of(*a.wv, a.bias_v, jobs.v, whole_v(a) ? 0 : 16 / share)}};
  const unsigned threads = whole_q(a) || whole_k(a) || whole_v(a) ? qkv_most_threads<M> : 256;
  unsigned blocks = 0;
  int width = 0;
  for (const projection& p : all.part) blocks += unsigned(p.blocks()), width = std::max(width, p.width);
  const size_t floats = size_t(M) * size_t(staged_row(int(std::min<int64_t>(C, qkv_staged / M)))) + size_t(share) * M * size_t(width);
  launch(native(s), KERNEL(fused_qkv_kernel<M>), dim3(blocks, blocks_for(T, M)), threads, floats * sizeof(float), all,
         input_of(a), turning(a), plan_of(*a.batch), shape_of(a.cache), share, a.qk_norm_eps);
}

bool few(const fused_qkv_args& a) { return a.x.shape[0] <= qkv_few && !a.whole_row_norm; }

// The type of the products that tensor cores would take the weight's for, or f32 for none.
sl_dtype products_of(const fused_qkv_args& a, const weight* each) {
  const auto& w = static_cast<const cuda_weight&>(*each);
  switch (w.storage) {
    case storage::f32: return SL_DTYPE_F32;
    case storage::f16: return SL_DTYPE_F16;
    case storage::bf16: return SL_DTYPE_BF16;
    default: return w.group % 16 == 0 ? a.q.dtype : SL_DTYPE_F32;
  }
}

// The type that one launch for many rows multiplies in, or f32 where it cannot.
sl_dtype many(const fused_qkv_args& a) {
  const sl_dtype type = products_of(a, a.wq);
  if (a.whole_row_norm || products_of(a, a.wk) != type || products_of(a, a.wv) != type) return SL_DTYPE_F32;
  const bool too_wide = (a.cache.key_dim > 128 && (whole_q(a) || whole_k(a))) || (a.cache.value_dim > 128 && whole_v(a));
  return too_wide ? SL_DTYPE_F32 : type;
}

}  // namespace

uint64_t fused_qkv_workspace(const device& d, const fused_qkv_args& a) {
  if (few(a) || many(a) != SL_DTYPE_F32) return 0;
  uint64_t most = 0;
  for (const weight* w : {a.wq, a.wk, a.wv}) {
    // The projections read x's own rows or the normalised ones, which are aligned at least as well.
    for (const view& x : {a.x, matrix(nullptr, a.q.dtype, a.x.shape[0], a.x.shape[1])})
      most = std::max(most, linear_workspace(d, {x, w, view(), view(), matrix(nullptr, SL_DTYPE_F32, a.x.shape[0], w->rows)}));
  }
  return lay_out(a).bytes + most;
}

void fused_qkv_cuda(stream& s, const fused_qkv_args& a) {
  if (few(a)) return a.x.shape[0] == 1 ? start_few<1>(s, a) : start_few<4>(s, a);
  switch (many(a)) {
    case SL_DTYPE_F16: return fused_qkv_f16(s, a);
    case SL_DTYPE_BF16: return fused_qkv_bf16(s, a);
    default: break;
  }
  const qkv_workspace w = lay_out(a);
  const int64_t T = a.x.shape[0];
  view x = a.x;
  if (changes_x(a)) x = matrix(s.workspace + w.x, a.q.dtype, T, a.x.shape[1]);
  if (a.norm_weight) rms_norm_cuda(s, {a.x, a.norm_weight, a.norm_eps, x});
  else if (rounds_x(a)) round_rows(s, a.x, x);
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
