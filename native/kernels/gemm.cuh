// A tile of x * w^T on tensor cores: BM rows of x by 128 rows of w, along K in steps of 64.
//
// Both operands travel by cp.async through a ring of stages in shared memory. x and dense weights lie there as rows of 128
// bytes, whose 16-byte chunk c of row r stands at c ^ (r % 8), so that ldmatrix meets no bank twice. Quantised weights
// lie there as they are in memory (packed.h) beside their groups' numbers, and become 16-bit values in registers: a lane
// reads one word of a column and has its part of two products (four bits) or one (eight). x that is not of the
// products' type, or whose rows are not aligned, comes through registers one step ahead.
#pragma once

#include <type_traits>

#include "packed.cuh"
#include "ptx.cuh"

namespace sl {
namespace SL_BACKEND_NS {

enum class operand { dense, int4, int8 };

// Two neighbours along K, as a register of a fragment.
template <typename E> __device__ __forceinline__ uint32_t pack_pair(float a, float b);
template <> __device__ __forceinline__ uint32_t pack_pair<half>(float a, float b) {
  const half2 v = __floats2half2_rn(a, b);
  uint32_t bits;
  memcpy(&bits, &v, 4);
  return bits;
}
template <> __device__ __forceinline__ uint32_t pack_pair<__nv_bfloat16>(float a, float b) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
  uint32_t bits;
  memcpy(&bits, &v, 4);
  return bits;
}

struct x_rows {
  any_input data;
  long long stride;
  int rows, cols;
  bool aligned;
};

// No change to x on its way.
struct as_it_is {
  __device__ __forceinline__ void operator()(int, int, float (&)[8]) const {}
};

template <typename E, operand W, bool Direct, int MF, int WarpsM, int Stages>
struct gemm_tile {
  static constexpr int warps_n = 4, NF = 4;  // fragments of 8 columns a warp
  static constexpr int threads = 32 * WarpsM * warps_n;
  static constexpr int BM = 16 * MF * WarpsM, BN = 128, BK = 64;
  static constexpr int x_bytes = BM * BK * 2;
  static constexpr int w_row_bytes = W == operand::dense ? 128 : W == operand::int8 ? 64 : 32;
  static constexpr int w_bytes = BN * w_row_bytes;
  static constexpr int slots = 4;  // groups that a step can meet: they are multiples of 16 weights
  static constexpr int group_bytes = W == operand::dense ? 0 : slots * BN * 8;
  static constexpr int stage_bytes = x_bytes + w_bytes + group_bytes;
  static constexpr int out_row = BN + 8;  // floats: the four rows that a half-warp writes at once lie in different banks
  static constexpr int shared_bytes = Stages * stage_bytes > BM * out_row * 4 ? Stages * stage_bytes : BM * out_row * 4;
  static constexpr int octets = BM * BK / 8 / threads;  // of x a thread and step, where it comes through registers

  x_rows x;
  weight_view w;
  smem<char> shared;
  int row0;        // the tile's first row of x
  int steps_from, steps_to;
  float sum[MF][NF][4];

  __device__ __forceinline__ int warp_row() const { return int(threadIdx.x) / 32 / warps_n * (16 * MF); }
  __device__ __forceinline__ int warp_column() const { return int(threadIdx.x) / 32 % warps_n * (8 * NF); }
  __device__ __forceinline__ smem<char> stage(int i) const { return shared + i * stage_bytes; }

  // Rows past the last of x or w are the last again: their sums are not stored.
  __device__ __forceinline__ void load_x(smem<char> to, int step) const {
    const gmem<const E> from = of_type();
#pragma unroll
    for (int i = 0; i < BM * 8 / threads; i++) {
      const int at = int(threadIdx.x) + i * threads, row = at / 8, chunk = at % 8, k = step * BK + 8 * chunk;
      const bool valid = k < x.cols;
      cp_async_16_or_zero(view_as<E>(to + (row * 128 + (chunk ^ (row & 7)) * 16)),
                          from + ((long long)min(row0 + row, x.rows - 1) * x.stride + (valid ? k : 0)), valid);
    }
  }

  // Row(i) is the row of w that column i of the tile stands for.
  template <typename Row>
  __device__ __forceinline__ void load_w(smem<char> to, int step, Row row_of) const {
    if (W == operand::dense && !w.aligned) return load_w_singly(to, step, row_of);
    constexpr int pieces = w_row_bytes / 16;  // of a row
    const int units = W == operand::dense ? w.cols / 8 : int(units_of(w.cols, W == operand::int4 ? int4_unit : int8_unit));
#pragma unroll
    for (int i = 0; i < BN * pieces / threads; i++) {
      const int at = int(threadIdx.x) + i * threads, row = at / pieces, piece = at % pieces;
      const int unit = step * pieces + piece;
      const int place = W == operand::dense ? piece ^ (row & 7) : W == operand::int8 ? piece ^ (row >> 1 & 3) : piece ^ (row >> 2 & 1);
      const bool valid = unit < units;
      cp_async_16_or_zero(view_as<uint4>(to + (row * w_row_bytes + place * 16)),
                          view_as<uint4>(w.data) + ((long long)row_of(row) * units + (valid ? unit : 0)), valid);
    }
    if (W == operand::dense) return;
    const smem<char> groups = to + w_bytes;
    const int first = w.group_of(step * BK), last = min(w.group_of(min(step * BK + BK, w.cols) - 1), w.row_groups - 1);
    for (int at = int(threadIdx.x); at < (last - first + 1) * BN; at += threads) {
      const int slot = at / BN, row = at % BN;
      const long long from = (long long)row_of(row) * w.row_groups + first + slot;
      if (w.halves()) cp_async_small(view_as<uint32_t>(groups) + at, view_as<uint32_t>(w.groups) + from);
      else cp_async_small(view_as<uint2>(groups) + at, view_as<uint2>(w.groups) + from);
    }
  }

  // Rows that do not begin at 16 bytes.
  template <typename Row>
  __device__ __forceinline__ void load_w_singly(smem<char> to, int step, Row row_of) const {
    const gmem<const E> from = view_as<E>(w.data);
    for (int at = int(threadIdx.x); at < BN * 8; at += threads) {
      const int row = at / 8, chunk = at % 8, k = step * BK + 8 * chunk;
      E v[8];
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] = k + i < w.cols ? E(from[(long long)row_of(row) * w.cols + k + i]) : from_float<E>(0.0f);
      uint4 raw;
      memcpy(&raw, v, 16);
      view_as<uint4>(to + (row * 128 + (chunk ^ (row & 7)) * 16))[0] = raw;
    }
  }

  __device__ __forceinline__ gmem<const E> of_type() const {
    if constexpr (std::is_same_v<E, half>) return x.data.f16;
    else return x.data.bf16;
  }

  // A thread's octets of x for a step, on their way in registers.
  struct held_x { float v[Direct ? 1 : octets][8]; };
  __device__ __forceinline__ void fetch_x(held_x& h, int step) const {
    if constexpr (!Direct) {
#pragma unroll
      for (int i = 0; i < octets; i++) {
        const int at = int(threadIdx.x) + i * threads, row = at / 8, k = step * BK + 8 * (at % 8);
        x.data.load_octet(h.v[i], (long long)min(row0 + row, x.rows - 1) * x.stride + k, x.cols - k, x.aligned);
      }
    }
  }
  // Not before the products that the loads hide behind.
  template <typename Change>
  __device__ __forceinline__ void put_x(held_x& h, smem<char> to, int step, Change change) const {
    if constexpr (!Direct) {
#pragma unroll
      for (int i = 0; i < octets; i++) {
        const int at = int(threadIdx.x) + i * threads, row = at / 8, chunk = at % 8;
        float (&v)[8] = h.v[i];
        if (step * BK + 8 * chunk < x.cols) change(row, step * BK + 8 * chunk, v);
        view_as<uint4>(to + (row * 128 + (chunk ^ (row & 7)) * 16))[0] =
            make_uint4(pack_pair<E>(v[0], v[1]), pack_pair<E>(v[2], v[3]), pack_pair<E>(v[4], v[5]), pack_pair<E>(v[6], v[7]));
      }
    }
  }

  // B fragments of products 2u and 2u + 1 of a step.
  __device__ __forceinline__ void dense_fragments(uint32_t (&b)[2][NF][2], smem<char> ws, int u) const {
    const int lane = int(threadIdx.x) & 31;
#pragma unroll
    for (int s = 0; s < 2; s++)
#pragma unroll
      for (int f = 0; f < NF; f += 2) {
        const int row = warp_column() + 8 * f + (lane & 7) + lane / 16 * 8, chunk = 2 * (2 * u + s) + (lane / 8 & 1);
        uint32_t r[4];
        ldmatrix_x4<E>(r, smem<const E>(view_as<E>(ws + (row * 128 + (chunk ^ (row & 7)) * 16))));
        b[s][f][0] = r[0], b[s][f][1] = r[1], b[s][f + 1][0] = r[2], b[s][f + 1][1] = r[3];
      }
  }

  // w = scale * q + offset for the numbers that come out of the words below.
  __device__ __forceinline__ float2 scale_of(smem<char> groups, int slot, int row, float bias) const {
    float2 g;
    if (w.halves()) {
      const half2 both = view_as<half2>(groups)[slot * BN + row];
      g = __half22float2(both);
    } else {
      g = view_as<float2>(groups)[slot * BN + row];
    }
    return make_float2(g.x, w.has_zero() ? -(bias + g.y) * g.x : g.y - bias * g.x);
  }

  // A nibble becomes the low bits of a bfloat16 of 128 + q, which is an f32 in either half of a register. 128 * scale
  // added and taken away costs 2^-17 of the scale: nothing beside the rounding to 16 bits that follows.
  __device__ __forceinline__ void int4_fragments(uint32_t (&b)[2][NF][2], smem<char> ws, int u, int step) const {
    const int lane = int(threadIdx.x) & 31;
    const int k = step * BK + 32 * u, first = w.group_of(step * BK);
    const int low_slot = min(w.group_of(k), w.row_groups - 1) - first, high_slot = min(w.group_of(k + 16), w.row_groups - 1) - first;
#pragma unroll
    for (int f = 0; f < NF; f++) {
      const int row = warp_column() + 8 * f + lane / 4;
      const uint32_t word = view_as<uint32_t>(ws + (row * 32 + (u ^ (row >> 2 & 1)) * 16))[lane & 3];
      float2 g = scale_of(ws + w_bytes, low_slot, row, 128.0f);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        if (j == 2 && high_slot != low_slot) g = scale_of(ws + w_bytes, high_slot, row, 128.0f);
        const uint32_t both = lop3<and_or>(word >> (4 * j), 0x000f000fu, 0x43004300u);
        const float low = __uint_as_float(both << 16), high = __uint_as_float(both & 0xffff0000u);
        b[j / 2][f][j % 2] = pack_pair<E>(low * g.x + g.y, high * g.x + g.y);
      }
    }
  }

  __device__ __forceinline__ void int8_fragments(uint32_t (&b)[2][NF][2], smem<char> ws, int u, int step) const {
    const int lane = int(threadIdx.x) & 31;
    const int first = w.group_of(step * BK);
#pragma unroll
    for (int s = 0; s < 2; s++) {
      const int slot = min(w.group_of(step * BK + 32 * u + 16 * s), w.row_groups - 1) - first;
#pragma unroll
      for (int f = 0; f < NF; f++) {
        const int row = warp_column() + 8 * f + lane / 4;
        const uint32_t word = view_as<uint32_t>(ws + (row * 64 + ((2 * u + s) ^ (row >> 1 & 3)) * 16))[lane & 3] ^ 0x80808080u;
        const float2 g = scale_of(ws + w_bytes, slot, row, 0.0f);
#pragma unroll
        for (int i = 0; i < 2; i++)
          b[s][f][i] = pack_pair<E>(signed_byte(word, 2 * i) * g.x + g.y, signed_byte(word, 2 * i + 1) * g.x + g.y);
      }
    }
  }

  __device__ __forceinline__ void multiply(smem<char> xs, int step) {
    const int lane = int(threadIdx.x) & 31;
    const smem<char> ws = xs + x_bytes;
#pragma unroll
    for (int u = 0; u < BK / 32; u++) {
      uint32_t b[2][NF][2];
      if constexpr (W == operand::dense) dense_fragments(b, ws, u);
      else if constexpr (W == operand::int4) int4_fragments(b, ws, u, step);
      else int8_fragments(b, ws, u, step);
#pragma unroll
      for (int s = 0; s < 2; s++)
#pragma unroll
        for (int m = 0; m < MF; m++) {
          const int row = warp_row() + 16 * m + (lane & 15), chunk = 2 * (2 * u + s) + lane / 16;
          uint32_t a[4];
          ldmatrix_x4<E>(a, smem<const E>(view_as<E>(xs + (row * 128 + (chunk ^ (row & 7)) * 16))));
#pragma unroll
          for (int f = 0; f < NF; f++) mma_m16n8k16<E>(sum[m][f], a, b[s][f]);
        }
    }
  }

  // The sums of the tile over steps [steps_from, steps_to), then in shared memory as [BM][out_row] behind a barrier.
  template <typename Row, typename Change>
  __device__ __forceinline__ smem<float> run(Row row_of, Change change) {
#pragma unroll
    for (int m = 0; m < MF; m++)
#pragma unroll
      for (int f = 0; f < NF; f++)
#pragma unroll
        for (int i = 0; i < 4; i++) sum[m][f][i] = 0.0f;

    held_x held;
    const int steps = steps_to - steps_from;
#pragma unroll
    for (int i = 0; i < Stages - 1; i++) {
      if (i < steps) {
        if (Direct) load_x(stage(i), steps_from + i);
        load_w(stage(i) + x_bytes, steps_from + i, row_of);
      }
      cp_async_commit();
    }
    if (steps > 0) fetch_x(held, steps_from), put_x(held, stage(0), steps_from, change);
#pragma unroll 1
    for (int i = 0; i < steps; i++) {
      cp_async_wait<Stages - 2>();
      __syncthreads();  // this step is there, and everyone has used the one that the next copies overwrite
      const int ahead = i + Stages - 1;
      if (ahead < steps) {
        if (Direct) load_x(stage(ahead % Stages), steps_from + ahead);
        load_w(stage(ahead % Stages) + x_bytes, steps_from + ahead, row_of);
      }
      cp_async_commit();
      if (i + 1 < steps) fetch_x(held, steps_from + i + 1);
      multiply(stage(i % Stages), steps_from + i);
      if (i + 1 < steps) put_x(held, stage((i + 1) % Stages), steps_from + i + 1, change);
    }
    cp_async_wait<0>();
    __syncthreads();

    const smem<float> out = view_as<float>(shared);
    const int lane = int(threadIdx.x) & 31;
#pragma unroll
    for (int m = 0; m < MF; m++)
#pragma unroll
      for (int f = 0; f < NF; f++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const int row = warp_row() + 16 * m + 8 * h + lane / 4, column = warp_column() + 8 * f + 2 * (lane & 3);
          view_as<float2>(out + (row * out_row + column))[0] = make_float2(sum[m][f][2 * h], sum[m][f][2 * h + 1]);
        }
    __syncthreads();
    return out;
  }
};

}  // namespace SL_BACKEND_NS
}  // namespace sl
