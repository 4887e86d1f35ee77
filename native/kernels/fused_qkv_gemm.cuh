// fused_qkv for many rows: the tiles of gemm.cuh over the columns of q, k and v, and the heads' end within the block.
// x [T,C]   wq, wk, wv 16-bit, 8-bit or 4-bit, also mixed   products of E, sums in f32
// grid (tiles of 64 rows of x by whole heads, or by 128 places of one)   block 256   shared 72 KB
// bound by the tensor cores; each block sums the squares of its rows of x first, from L2
#include "fused_qkv.cuh"
#include "gemm.cuh"
#include "reduce.cuh"

namespace sl {
namespace SL_BACKEND_NS {

template <typename E, operand W> using qkv_tile = gemm_tile<E, W, false, 2, 2, 3>;

template <typename E, operand W, typename Change>
__device__ __forceinline__ smem<float> multiply_qkv(const qkv_input& in, const weight_view& w, smem<char> shared, smem<const int> rows,
                                                    int row0, Change change) {
  qkv_tile<E, W> tile;
  tile.x = {in.x, in.stride, in.tokens, w.cols, in.aligned};
  tile.w = w, tile.shared = shared, tile.row0 = row0;
  tile.steps_from = 0, tile.steps_to = (w.cols + tile.BK - 1) / tile.BK;
  return tile.run([=](int i) { return int(rows[i]); }, change);
}

template <typename E>
__global__ void __launch_bounds__(256, 2)
    fused_qkv_gemm_kernel(projections all, qkv_input in, rotation r, device_plan plan, page_shape shape, int tiles_m, float qk_eps) {
  using Tile = qkv_tile<E, operand::dense>;
  DYN_SHARED(char, shared);
  SHARED_ARRAY(int, rows, Tile::BN);    // of w, by the tile's columns
  SHARED_ARRAY(float, scales, Tile::BM);  // the norm of each row of x
  SHARED_ARRAY(int, part, 4);             // what the end needs lies here meanwhile: the products take all registers
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) / 32;
  const int row0 = int(blockIdx.x) % tiles_m * Tile::BM;
  const qkv_block b = block_of(all, int(blockIdx.x) / tiles_m);
  const projection& p = all.part[b.which];
  const int C = p.w.cols, dim = p.job.dim, turned = turned_dims(p.job, r);
  {
    const int head = b.at / p.blocks_a_head * p.heads_a_block, heads = min(p.heads_a_block, p.job.heads - head);
    const int from = b.at % p.blocks_a_head * p.width, to = min(from + p.width, dim);
    if (threadIdx.x == 0) part[0] = head, part[1] = heads, part[2] = from, part[3] = to;
    for (int i = int(threadIdx.x); i < Tile::BN; i += Tile::threads) {
      const int h = min(i / p.width, heads - 1), place = min(from + i % p.width, to - 1);
      rows[i] = (head + h) * dim + dim_at(place, turned, r.interleaved);
    }
  }
  if (in.norm.present()) {
    for (int row = warp; row < Tile::BM; row += Tile::threads / 32) {
      const long long at = (long long)min(row0 + row, in.tokens - 1) * in.stride;
      float sum = 0.0f;
      for (int k = lane * 8; k < C; k += 256) {
        float v[8];
        in.x.load_octet(v, at + k, C - k, in.aligned);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += v[i] * v[i];
      }
      sum = warp_sum(sum);
      if (lane == 0) scales[row] = rsqrtf(sum / float(C) + in.eps);
    }
  }
  __syncthreads();

  const auto normalise = [&](int row, int k, float (&v)[8]) {
    if (!in.norm.present()) return;
    const float scale = scales[row];
#pragma unroll
    for (int half_run = 0; half_run < 8; half_run += 4) {
      float w[4];
      in.norm.load_some(w, k + half_run, C - k - half_run, in.norm_aligned);
#pragma unroll
      for (int i = 0; i < 4; i++) v[half_run + i] *= scale * w[i];
    }
  };
  const smem<const int> columns = rows;
  smem<float> sums = view_as<float>(shared);
  switch (p.w.kind) {
    case storage::f16:
    case storage::bf16: sums = multiply_qkv<E, operand::dense>(in, p.w, shared, columns, row0, normalise); break;
    case storage::int8: sums = multiply_qkv<E, operand::int8>(in, p.w, shared, columns, row0, normalise); break;
    default: sums = multiply_qkv<E, operand::int4>(in, p.w, shared, columns, row0, normalise); break;
  }

  // A warp a head of a row from here on.
  const int head = part[0], heads = part[1], from = part[2], to = part[3];
  for (int i = warp; i < Tile::BM * heads; i += Tile::threads / 32) {
    const int row = i / heads, h = i % heads, t = row0 + row;
    if (t >= in.tokens) break;
    const auto raw = [&](int d) {
      const float v = sums[row * Tile::out_row + h * p.width + place_of(d, turned, r.interleaved) - from];
      return p.bias.present() ? v + p.bias.at((long long)(head + h) * dim + d) : v;
    };
    process_places(p.job, raw, r, plan, shape, t, head + h, t >= plan.num_tokens(), qk_eps, from, to);
  }
}

template <typename E>
void start_qkv_gemm(stream& s, const fused_qkv_args& a) {
  using Tile = qkv_tile<E, operand::dense>;
  const int64_t T = a.x.shape[0];
  const auto none = [&](const weight* w) { return matrix(nullptr, SL_DTYPE_F32, T, w->rows); };
  const head_jobs jobs = jobs_of(a, none(a.wq), none(a.wk), none(a.wv));
  projections all{{projection_of(*a.wq, a.bias_q, jobs.q, Tile::BN), projection_of(*a.wk, a.bias_k, jobs.k, Tile::BN),
                   projection_of(*a.wv, a.bias_v, jobs.v, Tile::BN)}};
  unsigned blocks = 0;
  for (projection& p : all.part) {
    if (p.width == p.job.dim) p.heads_a_block = Tile::BN / p.job.dim;
    blocks += unsigned(p.blocks());
  }
  const unsigned tiles_m = blocks_for(T, Tile::BM);
  constexpr int shared = std::max({int(Tile::shared_bytes), int(qkv_tile<E, operand::int8>::shared_bytes), int(qkv_tile<E, operand::int4>::shared_bytes)});
  launch(native(s), KERNEL(fused_qkv_gemm_kernel<E>), tiles_m * blocks, Tile::threads, shared, all, input_of(a), turning(a),
         plan_of(*a.batch), shape_of(a.cache), int(tiles_m), a.qk_norm_eps);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
