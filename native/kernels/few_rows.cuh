// Products of at most 8 rows of x with rows of w on tensor cores, bound by the reading of w.
//
// A block keeps all of x in shared memory, as E, normalised on its way there if wanted, and goes through items of 16 rows of w
// (two groups of eight). `share` of its 8 warps share an item: each takes every share-th block of columns, so that neighbours
// read what is side by side; their sums meet in shared memory and are added in order. Loads run ahead of their use through
// the items, and the first ones start before x is there, for w does not depend on the kernel before.
#pragma once

#include "fragments.cuh"
#include "reduce.cuh"

namespace sl {
namespace SL_BACKEND_NS {

constexpr int few_most = 8, few_warps = 8, few_threads = 32 * few_warps;
constexpr int few_sums_row = 20;                        // floats: 16 rows of w, so that lanes of four rows of x write to different banks
constexpr int few_sums = few_most * few_sums_row;       // of a warp
constexpr int few_sums_bytes = 2 * few_warps * few_sums * 4;
// Blocks of columns whose loads are on their way, by what registers are left.
template <operand W> constexpr int few_ahead = W == operand::dense || W == operand::four ? 4 : 2;

struct few_input {
  any_input x, norm;  // x [T,K], norm [K] or absent
  long long stride;
  int tokens, cols;
  float eps;
  bool aligned, norm_aligned;
  gmem<const float> squares;  // of x by 16 columns [T,squares_stride], where whoever wrote x left them; or null
  long long squares_stride;
};

__host__ __device__ constexpr int few_columns(int cols) { return (cols + packed_block - 1) / packed_block * packed_block; }

// E is half, bfloat16, or signed char: then x is rounded to bytes by blocks of 32 columns (scale = the largest magnitude / 127).
template <typename E, operand W>
__host__ __device__ constexpr int few_row_bytes(int cols) {
  return sizeof(E) == 1 ? few_columns(cols) + 32 : x_row_bytes<W>(cols);
}
template <typename E>
__host__ __device__ constexpr int few_scale_bytes(int cols) { return sizeof(E) == 1 ? few_columns(cols) / 32 * few_most * 4 : 0; }
template <typename E, operand W>
__host__ __device__ constexpr size_t few_shared_bytes(int tokens, int cols) {
  return size_t(tokens) * size_t(few_row_bytes<E, W>(cols)) + size_t(few_scale_bytes<E>(cols)) + few_sums_bytes;
}

struct few_shared {
  smem<char> x;      // [tokens][row_bytes]
  smem<float> scales;  // of x in bytes: [columns / 32][8 rows of x]
  smem<float> sums;    // [2][warps][8 rows of x][few_sums_row]
  int row_bytes;
};

template <typename E, operand W>
__device__ __forceinline__ few_shared lay_out(smem<char> shared, const few_input& in) {
  few_shared s;
  s.row_bytes = few_row_bytes<E, W>(in.cols);
  s.x = shared;
  s.scales = view_as<float>(shared + in.tokens * s.row_bytes);
  s.sums = view_as<float>(shared + (in.tokens * s.row_bytes + few_scale_bytes<E>(in.cols)));
  return s;
}

// Four neighbours of x (columns k .. k + 3 of a row) to bytes, with the seven threads beside that have the rest of their 32 columns.
// The lane of a fragment that has columns 4 c + i and 16 + 4 c + i finds them in eight bytes, in the order of its weights' bytes:
// those of eight bits stand as they are; of the nibbles of a word every second is taken at once (packed.h).
template <operand W>
__device__ __forceinline__ void put_bytes(const few_shared& s, int t, int k, const float (&v)[4]) {
  float largest = fmaxf(fmaxf(fabsf(v[0]), fabsf(v[1])), fmaxf(fabsf(v[2]), fabsf(v[3])));
#pragma unroll
  for (int d = 1; d < 8; d *= 2) largest = fmaxf(largest, __shfl_xor_sync(all_lanes, largest, d));
  const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
  if (k % 32 == 0) s.scales[k / 32 * few_most + t] = largest / 127.0f;
  uint32_t q[4];
#pragma unroll
  for (int i = 0; i < 4; i++) q[i] = uint32_t(__float2int_rn(v[i] * inverse)) & 0xffu;
  const int c = k % 16 / 4, half_of = k % 32 / 16;
  const smem<unsigned char> lane = view_as<unsigned char>(s.x + (t * s.row_bytes + k / 32 * 32 + 8 * c));
  if constexpr (W == operand::eight) {
    view_as<uint32_t>(lane)[half_of] = q[0] | q[1] << 8 | q[2] << 16 | q[3] << 24;
  } else {
    lane[half_of] = (unsigned char)q[0], lane[2 + half_of] = (unsigned char)q[1];
    lane[4 + half_of] = (unsigned char)q[2], lane[6 + half_of] = (unsigned char)q[3];
  }
}

// Four of a row, zeros past its end.
__device__ __forceinline__ void read_four(float (&v)[4], const any_input& x, long long row, int k, int cols, bool aligned) {
  if (k >= cols) {
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = 0.0f;
    return;
  }
  x.load_some(v, row + k, cols - k, aligned);
}

// The mean square of row t out of the sums that were left of it, in every warp anew: what a barrier would cost more than.
__device__ __forceinline__ float mean_square(const few_input& in, int t) {
  float sum = 0.0f;
  for (int i = int(threadIdx.x) & 31; i < (in.cols + 15) / 16; i += 32) sum += in.squares[t * in.squares_stride + i];
  return warp_sum(sum) / float(in.cols);
}

// Ends behind a barrier.
template <typename E, operand W>
__device__ __forceinline__ void stage_x(const few_shared& s, const few_input& in) {
  SHARED_ARRAY(float, squares, few_most * few_warps);
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) / 32, columns = few_columns(in.cols);
  const auto put_four = [&](int t, int k, const float (&v)[4]) {
    if constexpr (sizeof(E) == 1) put_bytes<W>(s, t, k, v);  // a warp 128 columns: all of it or none
    else view_as<uint2>(s.x + (t * s.row_bytes + 2 * k))[0] = make_uint2(pairs<E>::pack(v[0], v[1]), pairs<E>::pack(v[2], v[3]));
  };
  if (in.squares) {
    // x is asked for before the sums are there: one way to memory and back, not two.
    constexpr int held = 4;
    for (int t = 0; t < in.tokens; t++) {
      float scale = 0.0f;
      for (int from = 4 * int(threadIdx.x); from - 4 * int(threadIdx.x) < columns; from += held * 4 * few_threads) {
        float v[held][4];
#pragma unroll
        for (int h = 0; h < held; h++) {
          const int k = from + h * 4 * few_threads;
          if (k < columns) read_four(v[h], in.x, t * in.stride, k, in.cols, in.aligned);
        }
        if (from == 4 * int(threadIdx.x)) scale = rsqrtf(mean_square(in, t) + in.eps);
#pragma unroll
        for (int h = 0; h < held; h++) {
          const int k = from + h * 4 * few_threads;
          if (k >= columns) break;
          float w[4];
          read_four(w, in.norm, 0, k, in.cols, in.norm_aligned);
#pragma unroll
          for (int i = 0; i < 4; i++) v[h][i] *= scale * w[i];
          put_four(t, k, v[h]);
        }
      }
    }
    __syncthreads();
    return;
  }
  if (in.norm.present()) {
    for (int t = 0; t < in.tokens; t++) {
      float sum = 0.0f;
      for (int k = 4 * int(threadIdx.x); k < columns; k += 4 * few_threads) {
        float v[4];
        read_four(v, in.x, t * in.stride, k, in.cols, in.aligned);
#pragma unroll
        for (int i = 0; i < 4; i++) sum += v[i] * v[i];
      }
      sum = warp_sum(sum);
      if (lane == 0) squares[t * few_warps + warp] = sum;
    }
    __syncthreads();
  }
  for (int t = 0; t < in.tokens; t++) {
    float scale = 1.0f;
    if (in.norm.present()) {
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < few_warps; i++) sum += squares[t * few_warps + i];
      scale = rsqrtf(sum / float(in.cols) + in.eps);
    }
    for (int k = 4 * int(threadIdx.x); k < columns; k += 4 * few_threads) {
      float v[4];
      read_four(v, in.x, t * in.stride, k, in.cols, in.aligned);
      if (in.norm.present()) {
        float w[4];
        read_four(w, in.norm, 0, k, in.cols, in.norm_aligned);
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] *= scale * w[i];
      }
      put_four(t, k, v);
    }
  }
  __syncthreads();
}

// sum[0..1]: rows 2c and 2c + 1 of x by row r of group a; sum[2..3]: of group b. Adds a block of columns.
template <typename E, operand W, scaling S>
__device__ __forceinline__ void add_block(float (&sum)[4], const held_row<W>& a, const held_row<W>& b, const weight_view& wa, const weight_view& wb,
                                          int block, const few_shared& s, const few_input& in) {
  const int r = (int(threadIdx.x) & 31) / 4;
  const auto x_pairs = [&](uint32_t (&x)[2][2], int k) {
    x[0][0] = x[0][1] = x[1][0] = x[1][1] = 0;
    if (r < in.tokens) load_x_pairs<E, W>(x, s.x + r * s.row_bytes, k);
  };
  const auto multiply = [&](float (&to)[4], int j, int p, const uint32_t (&x)[2][2]) {
    uint32_t low[2], high[2];
    make_pairs<E, W>(low, a, j, p, wa.center);
    make_pairs<E, W>(high, b, j, p, wb.center);
    const uint32_t both[4] = {low[0], high[0], low[1], high[1]};
    mma_m16n8k16<E>(to, both, x[p]);
  };
  if constexpr (W == operand::dense) {
#pragma unroll
    for (int j = 0; j < 2; j++) {
      uint32_t x[2][2];
      x_pairs(x, block * 64 + 32 * j);
      multiply(sum, j, 0, x);
      multiply(sum, j, 1, x);
    }
  } else {
    row_scales sa, sb;  // six bits have too many, and read each where it is used
    constexpr bool by_16 = W == operand::six;
    if constexpr (!by_16) read_scales<S>(sa, a, wa), read_scales<S>(sb, b, wb);
    const bool biased = S == scaling::any ? wa.has_bias() || wb.has_bias() : has_bias(S);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      uint32_t x[2][2];
      x_pairs(x, block * packed_block + 32 * j);
      float part[4] = {}, of_x[4] = {};
#pragma unroll
      for (int p = 0; p < 2; p++) {
        multiply(part, j, p, x);
        if (!by_16 && p == 0) continue;
        float scale_a, scale_b;
        if constexpr (by_16) scale_a = read_scale(a, wa, 2 * j + p).x, scale_b = read_scale(b, wb, 2 * j + p).x;
        else scale_a = sa.scale[j], scale_b = sb.scale[j];
        sum[0] += scale_a * part[0], sum[1] += scale_a * part[1];
        sum[2] += scale_b * part[2], sum[3] += scale_b * part[3];
        part[0] = part[1] = part[2] = part[3] = 0.0f;
      }
      if constexpr (W == operand::four || W == operand::five) {  // the others have none
        if (biased) {
          sum_x<E>(of_x, x);
          sum[0] += sa.bias[j] * of_x[0], sum[1] += sa.bias[j] * of_x[1];
          sum[2] += sb.bias[j] * of_x[0], sum[3] += sb.bias[j] * of_x[1];
        }
      }
    }
  }
}

// A small integer, without the slower conversion: as the last places of an f32 of 3 * 2^22.
__device__ __forceinline__ float exact_float(int v) { return __int_as_float(0x4b400000 + v) - 12582912.0f; }

// The same with x in bytes: integer products, exact within the columns that share a scale of w and of x.
template <operand W, scaling S>
__device__ __forceinline__ void add_bytes(float (&sum)[4], const held_row<W>& a, const held_row<W>& b, const weight_view& wa, const weight_view& wb, int block,
                                          const few_shared& s, const few_input& in) {
  const int lane = int(threadIdx.x) & 31, r = lane / 4, c = lane & 3;
  row_scales sa, sb;
  constexpr bool by_16 = W == operand::six;
  if constexpr (!by_16) read_scales<S>(sa, a, wa), read_scales<S>(sb, b, wb);
#pragma unroll
  for (int j = 0; j < 4; j++) {
    uint32_t x[2] = {0, 0};
    if (r < in.tokens) {
      const uint2 v = view_as<uint2>(s.x + (r * s.row_bytes + block * packed_block + 32 * j + 8 * c))[0];
      x[0] = v.x, x[1] = v.y;
    }
    const int at = (block * 4 + j) * few_most + 2 * c;
    const float first = 2 * c < in.tokens ? float(s.scales[at]) : 0.0f, second = 2 * c + 1 < in.tokens ? float(s.scales[at + 1]) : 0.0f;
    uint32_t of_a[2], of_b[2];
    make_bytes<W>(of_a, a, j), make_bytes<W>(of_b, b, j);
    // Of six bits each 16 columns have a scale, and every second byte.
    constexpr int parts = by_16 ? 2 : 1;
#pragma unroll
    for (int p = 0; p < parts; p++) {
      const uint32_t mask = parts == 1 ? 0xffffffffu : p == 0 ? 0x00ff00ffu : 0xff00ff00u;
      const uint32_t fragment[4] = {of_a[0] & mask, of_b[0] & mask, of_a[1] & mask, of_b[1] & mask};
      int product[4] = {}, of_x[4] = {};
      mma_m16n8k32(product, fragment, x);
      if (W != operand::eight) {  // whose bytes have their signs
        const uint32_t one = 0x01010101u & mask, ones[4] = {one, one, one, one};
        mma_m16n8k32(of_x, ones, x);
      }
      float2 ga, gb;
      if constexpr (by_16) ga = read_scale(a, wa, 2 * j + p), gb = read_scale(b, wb, 2 * j + p);
      else ga = make_float2(sa.scale[j], sa.bias[j]), gb = make_float2(sb.scale[j], sb.bias[j]);
      const float less_a = ga.y - ga.x * wa.center, less_b = gb.y - gb.x * wb.center;
      if constexpr (W == operand::eight) {
        sum[0] += first * (ga.x * exact_float(product[0])), sum[1] += second * (ga.x * exact_float(product[1]));
        sum[2] += first * (gb.x * exact_float(product[2])), sum[3] += second * (gb.x * exact_float(product[3]));
      } else {
        const float x0 = exact_float(of_x[0]), x1 = exact_float(of_x[1]);
        sum[0] += first * (ga.x * exact_float(product[0]) + less_a * x0), sum[1] += second * (ga.x * exact_float(product[1]) + less_a * x1);
        sum[2] += first * (gb.x * exact_float(product[2]) + less_b * x0), sum[3] += second * (gb.x * exact_float(product[3]) + less_b * x1);
      }
    }
  }
}

// The items of a block that goes through all of them with the others of the grid.
struct few_items {
  int items, at_once, first, stride;
  __device__ __forceinline__ few_items(int items, int share)
      : items(items), at_once(few_warps / share), first(int(blockIdx.x) * at_once), stride(int(gridDim.x) * at_once) {}
  __device__ __forceinline__ int rounds() const { return first < items ? (items - first + stride - 1) / stride : 0; }
  __device__ __forceinline__ int at(int round, int slot) const { return first + round * stride + slot; }
};

// In each round of `rounds` a block takes few_warps / share items, a slot each. groups(round, slot, a, b) gives an item's groups of eight
// rows, of wa and of wb, or false where there is none; finish(round, value) puts a round's results, value(slot, row of 16, row of x).
template <typename E, operand W, scaling S = scaling::any, int ahead = few_ahead<W>, typename Groups, typename Finish>
__device__ __forceinline__ void few_products(smem<char> shared, const few_input& in, const weight_view& wa, const weight_view& wb, int rounds, int share,
                                             Groups groups, Finish finish) {
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) / 32, part = warp % share, slot = warp / share;
  const few_shared s = lay_out<E, W>(shared, in);
  const int blocks = (in.cols + block_columns<W> - 1) / block_columns<W>, steps = (blocks + share - 1) / share;

  const lane_source<W> source_a = source_of<W>(wa), source_b = source_of<W>(wb);
  held_row<W> a[ahead] = {}, b[ahead] = {};
  int load_round = 0, load_step = 0, load_a = 0, load_b = 0;
  bool loads = false;
  const auto load = [&](int i) {
    const int block = load_step * share + part;
    if (load_step == 0) loads = load_round < rounds && groups(load_round, slot, load_a, load_b);
    if (loads && block < blocks) load_row<W, S>(a[i], wa, source_a, load_a, block), load_row<W, S>(b[i], wb, source_b, load_b, block);
    if (++load_step == steps) load_step = 0, load_round++;
  };
#pragma unroll
  for (int i = 0; i < ahead; i++) load(i);
  wait_for_previous_kernel();
  stage_x<E, W>(s, in);

  int round = 0, step = 0;
  bool adds = false;
  float sum[4] = {};
  while (round < rounds) {
#pragma unroll
    for (int i = 0; i < ahead; i++) {
      if (round < rounds) {
        const int block = step * share + part;
        if (step == 0) {
          int of_a, of_b;
          adds = groups(round, slot, of_a, of_b);
        }
        if (adds && block < blocks) {
          if constexpr (sizeof(E) == 1) add_bytes<W, S>(sum, a[i], b[i], wa, wb, block, s, in);
          else add_block<E, W, S>(sum, a[i], b[i], wa, wb, block, s, in);
        }
        load(i);
        if (++step == steps) {
          // Sums of this round lie apart from those that others may still read.
          const smem<float> mine = s.sums + ((round & 1) * few_warps + warp) * few_sums;
          const int r = lane / 4, c = lane & 3;
          mine[2 * c * few_sums_row + r] = sum[0], mine[(2 * c + 1) * few_sums_row + r] = sum[1];
          mine[2 * c * few_sums_row + 8 + r] = sum[2], mine[(2 * c + 1) * few_sums_row + 8 + r] = sum[3];
          sum[0] = sum[1] = sum[2] = sum[3] = 0.0f;
          __syncthreads();
          const smem<float> all = s.sums + (round & 1) * few_warps * few_sums;
          finish(round, [&](int of_slot, int row, int t) {
            float v = all[of_slot * share * few_sums + t * few_sums_row + row];
            for (int w = 1; w < share; w++) v += all[(of_slot * share + w) * few_sums + t * few_sums_row + row];
            return v;
          });
          step = 0, round++;
        }
      }
    }
  }
}

// --- the launchers' side --------------------------------------------------------------------------------------------------

// Warps that share an item: each is to have two blocks of columns at least.
template <operand W>
int few_share(int cols) {
  const int blocks = (cols + block_columns<W> - 1) / block_columns<W>;
  int share = few_warps;
  while (share > 1 && blocks < 2 * share) share /= 2;
  return share;
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
