// A tile of w * x^T on tensor cores, for more rows of x than few_rows.cuh takes: 16 or 64 rows of x by 128 rows of w (or 256).
//
// x, already in E, travels by cp.async through a ring of stages of 128 columns. Weights go from memory to the registers of the one
// warp that wants them, a block ahead of their use, and become fragments there (fragments.cuh); no other warp reads them.
// With few rows of x scales meet the sums of a group, with many the weights, so that they are applied once for all of them.
//
// Where tiles alone would leave multiprocessors idle or end unevenly, blocks take equal parts of all tiles' columns one after the
// other (stream-K: Osama et al. 2023). Sums of a tile that several blocks share meet in the workspace; the last to arrive
// adds them in the blocks' order.
#pragma once

#include "arrive.cuh"
#include "fragments.cuh"

namespace sl {
namespace SL_BACKEND_NS {

struct tile_input {
  gmem<const char> x;  // E [T,K]: rows aligned to 16 bytes, and zeros where K is no multiple of 8
  long long stride;    // elements
  int rows, cols;
};

// How a product is cut: `blocks` blocks take `units` units of 128 columns of a tile, those of a tile in a row.
// parts: 1, or (invariant) into how many at fixed places a tile's columns are cut, each summed from nothing and added in order, by a block each or
// all by one.
struct tile_plan {
  int tiles_m, tiles_n, steps, blocks, parts;
  __device__ __forceinline__ bool in_order() const { return parts > 1 && blocks == tiles_m * tiles_n; }
  __device__ __forceinline__ int end_of_part(int step) const {
    const int part = int(((long long)step * parts + parts - 1) / steps);  // steps * part / parts <= step, the last such
    return int((long long)steps * (part + 1) / parts);
  }
  __host__ __device__ __forceinline__ long long units() const { return (long long)tiles_m * tiles_n * steps; }
  __host__ __device__ __forceinline__ long long first_of(int block) const { return units() * block / blocks; }
  __device__ __forceinline__ int block_of(long long unit) const {
    int b = int(unit * blocks / units());
    while (first_of(b + 1) <= unit) b++;
    while (first_of(b) > unit) b--;
    return b;
  }
};

template <typename E, operand W, int TN, int RT, int Stages>
struct weight_tile {
  static constexpr int warps = 8, threads = 32 * warps;
  static constexpr int BM = 8 * TN, BN = 16 * RT * warps, BK = packed_block;
  static constexpr int row_bytes = x_row_bytes<W>(BK), stage_bytes = BM * row_bytes;
  static constexpr int out_row = BN + 4;  // floats: lanes of four rows of x write to different banks
  static constexpr int out_bytes = BM * out_row * 4;
  // Tiles of 16 rows have room for the sums of the parts before, which registers have not.
  static constexpr int working_bytes = Stages * stage_bytes > out_bytes ? Stages * stage_bytes : out_bytes;
  static constexpr int shared_bytes = working_bytes + (BM == 16 ? BM * BN * 4 : 0);
  static constexpr bool scales_sums = TN <= 2, by_16 = W == operand::six, may_bias = W == operand::four || W == operand::five;
  static constexpr int halves = BK / block_columns<W>;  // blocks of columns of a stage

  float sum[RT][TN][4];

  struct held_tile { held_row<W> row[RT][2]; };  // of a block of columns

  // groups: eight rows of wa, and eight of wb, of each of the warp's fragments.
  __device__ __forceinline__ void load_w(held_tile& h, const weight_view& wa, const weight_view& wb, const lane_source<W>& a, const lane_source<W>& b, int block,
                                         const int (&groups)[RT][2]) const {
#pragma unroll
    for (int t = 0; t < RT; t++) load_row(h.row[t][0], wa, a, groups[t][0], block), load_row(h.row[t][1], wb, b, groups[t][1], block);
  }

  // Rows past the last are the last again, columns past the last zeros.
  __device__ __forceinline__ void load_x(smem<char> to, const tile_input& in, int row0, int step) const {
    const gmem<const E> from = view_as<E>(in.x);
#pragma unroll
    for (int i = 0; i < (BM * 16 + threads - 1) / threads; i++) {
      const int at = int(threadIdx.x) + i * threads, row = at / 16, k = step * BK + at % 16 * 8;
      if (BM * 16 % threads != 0 && at >= BM * 16) break;
      const bool valid = k < in.cols;
      cp_async_16_or_zero(view_as<E>(to + (row * row_bytes + at % 16 * 16)), from + ((long long)min(row0 + row, in.rows - 1) * in.stride + (valid ? k : 0)), valid);
    }
  }

  __device__ __forceinline__ void multiply(const held_tile& h, const weight_view& wa, const weight_view& wb, smem<char> xs) {
    const int lane = int(threadIdx.x) & 31;
    if constexpr (W == operand::dense) {
#pragma unroll
      for (int j = 0; j < block_columns<W> / 32; j++) {
        uint32_t a[RT][2][4];
#pragma unroll
        for (int t = 0; t < RT; t++)
#pragma unroll
          for (int p = 0; p < 2; p++) {
            uint32_t low[2], high[2];
            make_pairs<E, W>(low, h.row[t][0], j, p, 0.0f);
            make_pairs<E, W>(high, h.row[t][1], j, p, 0.0f);
            a[t][p][0] = low[0], a[t][p][1] = high[0], a[t][p][2] = low[1], a[t][p][3] = high[1];
          }
        products(a, xs, 32 * j, lane);
      }
    } else {
      const bool biased = wa.has_bias() || wb.has_bias();
#pragma unroll
      for (int j = 0; j < BK / 32; j++) {
        uint32_t a[RT][2][4];
        float2 scales[RT][2][by_16 ? 2 : 1] = {};  // of the 32 columns, or of their halves
#pragma unroll
        for (int t = 0; t < RT; t++)
#pragma unroll
          for (int p = 0; p < 2; p++) {
            if (by_16 || p == 0) {
              scales[t][0][p] = read_scale(h.row[t][0], wa, by_16 ? 2 * j + p : j);
              scales[t][1][p] = read_scale(h.row[t][1], wb, by_16 ? 2 * j + p : j);
            }
            const float2 of_low = scales[t][0][by_16 ? p : 0], of_high = scales[t][1][by_16 ? p : 0];
            uint32_t low[2], high[2];
            make_pairs<E, W>(low, h.row[t][0], j, p, wa.center);
            make_pairs<E, W>(high, h.row[t][1], j, p, wb.center);
#pragma unroll
            for (int e = 0; e < 2; e++) {
              a[t][p][2 * e] = scales_sums ? low[e] : scaled_pair<E, may_bias>(low[e], of_low);
              a[t][p][2 * e + 1] = scales_sums ? high[e] : scaled_pair<E, may_bias>(high[e], of_high);
            }
          }
        if (scales_sums) scaled_products(a, xs, 32 * j, lane, scales, biased);
        else products(a, xs, 32 * j, lane);
      }
    }
  }

  __device__ __forceinline__ void products(const uint32_t (&a)[RT][2][4], smem<char> xs, int k, int lane) {
#pragma unroll
    for (int n = 0; n < TN; n++) {
      uint32_t x[2][2];
      load_x_pairs<E, W>(x, xs + (8 * n + lane / 4) * row_bytes, k);
#pragma unroll
      for (int t = 0; t < RT; t++)
#pragma unroll
        for (int p = 0; p < 2; p++) mma_m16n8k16<E>(sum[t][n], a[t][p], x[p]);
    }
  }

  __device__ __forceinline__ void scaled_products(const uint32_t (&a)[RT][2][4], smem<char> xs, int k, int lane,
                                                  const float2 (&scales)[RT][2][by_16 ? 2 : 1], bool biased) {
#pragma unroll
    for (int n = 0; n < TN; n++) {
      uint32_t x[2][2];
      load_x_pairs<E, W>(x, xs + (8 * n + lane / 4) * row_bytes, k);
      float of_x[4] = {};
      if (may_bias && biased) sum_x<E>(of_x, x);
#pragma unroll
      for (int t = 0; t < RT; t++) {
        float part[4] = {};
#pragma unroll
        for (int p = 0; p < 2; p++) {
          mma_m16n8k16<E>(part, a[t][p], x[p]);
          if (!by_16 && p == 0) continue;
#pragma unroll
          for (int e = 0; e < 4; e++) {
            const float2 g = scales[t][e / 2][by_16 ? p : 0];
            sum[t][n][e] += g.x * part[e];
            if (may_bias && biased) sum[t][n][e] += g.y * of_x[e % 2];
            part[e] = 0.0f;
          }
        }
      }
    }
  }

  // The sums of the tile over steps [from, to), in shared memory as [BM][out_row] behind a barrier. group(i): the i-th eight rows of the
  // tile, of wa (even i) or wb.
  template <typename Groups>
  __device__ __forceinline__ smem<float> run(smem<char> shared, const tile_input& in, const weight_view& wa, const weight_view& wb, int row0, int from,
                                             int to, Groups group) {
#pragma unroll
    for (int t = 0; t < RT; t++)
#pragma unroll
      for (int n = 0; n < TN; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) sum[t][n][i] = 0.0f;
    const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) / 32;
    int groups[RT][2];
#pragma unroll
    for (int t = 0; t < RT; t++)
#pragma unroll
      for (int i = 0; i < 2; i++) groups[t][i] = group((warp * RT + t) * 2 + i);
    const lane_source<W> source_a = source_of<W>(wa), source_b = source_of<W>(wb);
    held_tile now, next;
    if (from < to) load_w(now, wa, wb, source_a, source_b, from * halves, groups);
#pragma unroll
    for (int i = 0; i < Stages - 1; i++) {
      if (from + i < to) load_x(shared + i * stage_bytes, in, row0, from + i);
      cp_async_commit();
    }
#pragma unroll 1
    for (int step = from; step < to; step++) {
      cp_async_wait<Stages - 2>();
      __syncthreads();  // this stage is there, and everyone has used the one that the next copies overwrite
      const int ahead = step + Stages - 1;
      if (ahead < to) load_x(shared + (ahead - from) % Stages * stage_bytes, in, row0, ahead);
      cp_async_commit();
#pragma unroll
      for (int p = 0; p < halves; p++) {
        const int block = step * halves + p + 1;
        if (block < to * halves) load_w(next, wa, wb, source_a, source_b, block, groups);
        multiply(now, wa, wb, shared + (step - from) % Stages * stage_bytes + p * block_columns<W> * 2);
        now = next;
      }
    }
    cp_async_wait<0>();
    __syncthreads();

    const smem<float> out = view_as<float>(shared);
    const int r = lane / 4, c = lane & 3;
#pragma unroll
    for (int t = 0; t < RT; t++)
#pragma unroll
      for (int n = 0; n < TN; n++) {
        const int column = (warp * RT + t) * 16 + r, row = (8 * n + 2 * c) * out_row;
        out[row + column] = sum[t][n][0], out[row + out_row + column] = sum[t][n][1];
        out[row + column + 8] = sum[t][n][2], out[row + out_row + column + 8] = sum[t][n][3];
      }
    __syncthreads();
    return out;
  }
};

struct weight_pair { const weight_view &even, &odd; };

// A block's share of a product. weights(tile) is what even and odd groups are of (once for both, so that the compiler sees where they are
// the same, and does not prepare for each pair of ways to read scales), groups(tile, i) the i-th group of eight rows;
// finish(sums, first row of x, tile) puts a tile's results from [BM][out_row] in shared memory.
template <typename Tile, typename Weights, typename Groups, typename Finish>
__device__ __forceinline__ void stream_tiles(smem<char> shared, const tile_input& in, const tile_plan& plan, gmem<float> partial, gmem<unsigned> arrivals,
                                             Weights weights, Groups groups, Finish finish) {
  const int block = int(blockIdx.x);
  const long long end = plan.first_of(block + 1);
  constexpr bool may_order = Tile::BM == 16;  // who is invariant takes no other
  for (long long unit = plan.first_of(block); unit < end;) {
    const int tile = int(unit / plan.steps), from = int(unit % plan.steps);
    const bool in_order = may_order && plan.in_order();
    const int to = in_order ? plan.end_of_part(from) : int(min((long long)plan.steps, from + (end - unit)));
    // Eight tiles along T before the next along N: blocks that run together share both operands in L2.
    const int band = tile / (8 * plan.tiles_n), in_band = tile % (8 * plan.tiles_n), wide = min(8, plan.tiles_m - 8 * band);
    const int row0 = (8 * band + in_band % wide) * Tile::BM, tile_n = in_band / wide;
    Tile t;
    const weight_pair w = weights(tile_n);
    const smem<float> sums = t.run(shared, in, w.even, w.odd, row0, from, to, [&](int i) { return groups(tile_n, i); });
    unit += to - from;
    if (in_order) {
      if constexpr (may_order) {
        for (int at = int(threadIdx.x); at < Tile::BM * Tile::BN / 4; at += Tile::threads) {  // each thread its own
          const smem<float4> v = view_as<float4>(sums + (at / (Tile::BN / 4) * Tile::out_row + at % (Tile::BN / 4) * 4));
          const smem<float4> before = view_as<float4>(shared + Tile::working_bytes) + at;
          float4 all = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
          if (from > 0) all = before[0];
          const float4 more = v[0];
          all.x += more.x, all.y += more.y, all.z += more.z, all.w += more.w;
          if (to == plan.steps) v[0] = all;
          else before[0] = all;
        }
      }
      __syncthreads();
      if (to < plan.steps) continue;
    } else if (to - from < plan.steps) {
      // A block shares its first tile with those before it, or its last with those behind it.
      const auto part = [&](int b, bool of_first_tile) { return partial + (2ll * b + (of_first_tile ? 0 : 1)) * (Tile::BM * Tile::BN); };
      const long long tile_unit = (long long)tile * plan.steps;
      const int first = plan.block_of(tile_unit), final = plan.block_of(tile_unit + plan.steps - 1);
      const gmem<float> mine = part(block, from > 0);
      for (int at = int(threadIdx.x); at < Tile::BM * Tile::BN / 4; at += Tile::threads)
        view_as<float4>(mine)[at] = view_as<float4>(sums + (at / (Tile::BN / 4) * Tile::out_row + at % (Tile::BN / 4) * 4))[0];
      if (!arrives_last(arrivals + first, unsigned(final - first + 1))) continue;
      for (int at = int(threadIdx.x); at < Tile::BM * Tile::BN / 4; at += Tile::threads) {
        float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        for (int b = first; b <= final; b++) {
          const float4 more = load_l2(gmem<const float4>(view_as<float4>(part(b, plan.first_of(b) > tile_unit)) + at));
          v.x += more.x, v.y += more.y, v.z += more.z, v.w += more.w;
        }
        view_as<float4>(sums + (at / (Tile::BN / 4) * Tile::out_row + at % (Tile::BN / 4) * 4))[0] = v;
      }
      __syncthreads();
    }
    finish(sums, row0, tile_n);
    __syncthreads();  // the next tile's copies take their place
  }
}

// --- the launchers' side --------------------------------------------------------------------------------------------------

constexpr int tile_least = 4;  // units that are worth a block

// `at_once`: blocks that run side by side on the device.
inline tile_plan plan_tiles(int64_t T, int64_t N, int64_t K, int bm, int bn, int64_t at_once, bool invariant) {
  tile_plan p{int((T + bm - 1) / bm), int((N + bn - 1) / bn), int((K + packed_block - 1) / packed_block), 0, 1};
  const int64_t tiles = int64_t(p.tiles_m) * p.tiles_n;
  if (invariant) {
    // As many as keep the device busy at one tile of rows, whatever T is.
    p.parts = int(std::max<int64_t>(1, std::min<int64_t>(at_once / p.tiles_n, p.steps / tile_least)));
    p.blocks = int(tiles * p.parts <= at_once ? tiles * p.parts : tiles);
    return p;
  }
  // Many rounds of whole tiles end evenly enough.
  p.blocks = int(tiles >= 4 * at_once ? tiles : std::max(std::min(tiles, at_once), std::min(at_once, int64_t(p.units()) / tile_least)));
  return p;
}
inline uint64_t partial_bytes(const tile_plan& p, int bm, int bn) {
  return p.units() % p.blocks == 0 && p.units() / p.blocks % p.steps == 0 ? 0 : uint64_t(p.blocks) * 2 * uint64_t(bm) * uint64_t(bn) * 4;
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
