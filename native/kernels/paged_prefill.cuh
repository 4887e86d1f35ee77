// paged_prefill: paged attention on tensor cores, for tiles of 64 query rows (prompts, chunks) or 16 (decode, speculated tokens).
//   o[r,:] = softmax_j(cap(scale * q[r,:] . k[j,:]) + alibi, masked) . v[j,:]
// q, o {f16,bf16}, k and v of the same type or in eight bits with scales   D, Dv multiples of 8 (of 16 for eight bits) up to
// 256; 64, 128 and 256 are built
// grid: as many blocks as run at once, which share all tiles (attention_work.cuh)   block: 4 warps of 16 rows; or 2 or 4 warps that share 16 rows and part the keys
// shared: two or three stages of keys and values: 32 or 48 KB for D 64, 64 KB for 128, 72 or 96 KB for 256 with the queries; stages of eight bits are half as large
// A prompt is bound by the tensor cores, few rows on long sequences by memory: each key and value is read once a tile.
// Rows of shared memory are XOR-swizzled by 16 bytes, so that neither copies nor ldmatrix meet a bank twice.
// Source: Dao 2023 (FlashAttention-2), Kwon et al. 2023 (pages), Ainslie et al. 2023 (groups).
#pragma once

#include <algorithm>

#include "attention_tile.cuh"
#include "host.cuh"
#include "quantised.cuh"

namespace sl {
namespace SL_BACKEND_NS {

template <typename T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  const T pair[2] = {from_float<T>(low), from_float<T>(high)};
  uint32_t r;
  memcpy(&r, pair, 4);
  return r;
}

template <typename T>
__device__ __forceinline__ gmem<const T> typed(const any_input& x);
template <>
__device__ __forceinline__ gmem<const half> typed<half>(const any_input& x) {
  return x.f16;
}
template <>
__device__ __forceinline__ gmem<const __nv_bfloat16> typed<__nv_bfloat16>(const any_input& x) {
  return x.bf16;
}

constexpr float finite_limit = 3.0e38f;

template <typename T>
constexpr uint32_t exponent_bits = 0x7c00u;
template <>
constexpr uint32_t exponent_bits<__nv_bfloat16> = 0x7f80u;

// Which of the two elements of a word are infinite or NaN: their bits set.
template <typename T>
__device__ __forceinline__ uint32_t not_finite(uint32_t pair) {
  constexpr uint32_t bits = exponent_bits<T>;
  return ((pair & bits) == bits ? 0xffffu : 0u) | ((pair >> 16 & bits) == bits ? 0xffff0000u : 0u);
}

// DC: what D and Dv are padded to. Rows 16 * WarpsM; each of WarpsN warps takes its part of every tile of Kt keys.
// Eight: the cache has eight bits an element. For many rows a tile is copied as it is and then widened, once for all warps; for few, whose keys each
// belong to one warp, fragments are widened in registers (Direct; 256 dims leave no room for it), and shared memory sees no more bytes than the cache has.
template <typename T, int DC_, int WarpsM_, int WarpsN_, int Kt_, bool Eight_>
struct prefill_shape {
  static constexpr bool Eight = Eight_, Direct = Eight_ && WarpsM_ == 1 && DC_ <= 128;
  static constexpr int DC = DC_, WarpsM = WarpsM_, WarpsN = WarpsN_, Kt = Kt_;
  static constexpr int blocks = WarpsM > 1 || DC > 128
                                    ? 2
                                    : (DC <= 64 ? 4 : 3) - (Eight ? 1 : 0);  // of a multiprocessor, as registers allow
  static constexpr int Rows = 16 * WarpsM, Threads = 32 * WarpsM * WarpsN, Keys = Kt / WarpsN;
  static constexpr int Stages =
      WarpsM == 1 && (DC <= 64 || Direct) ? 3 : 2;          // some 32 KB under way at any time, in all blocks 64
  static constexpr bool holds_q = DC <= 128;                // in registers; else its place in shared memory is its own
  static constexpr int stage = (Direct ? 1 : 2) * Kt * DC;  // elements of T
  static constexpr int stages =
      Eight && !Direct ? stage + stage / 2 : Stages * stage;  // widened: one, and one as it is copied
  static constexpr int staging = stages + (holds_q ? 0 : Rows * DC);
  static constexpr int merged = WarpsN * Rows * (DC + 8);  // floats
  static constexpr size_t shared = staging * sizeof(T) > merged * 4 ? staging * sizeof(T) : merged * 4;
  static_assert(Keys % 16 == 0 && Threads >= Kt && Rows <= 2 * Kt && Stages <= 3, "");
};

// Which of four e4m3 numbers are NaN: their bits set.
__device__ __forceinline__ uint32_t nan_bytes(uint32_t four) {
  return (((four & 0x7f7f7f7fu) + 0x01010101u) >> 7 & 0x01010101u) * 0xffu;
}

template <typename T, typename S>
// Without a number of blocks ptxas aims at three for one of the shapes, and spills.
__global__ void __launch_bounds__(S::Threads, S::blocks)
    paged_prefill_kernel(tile_params p, device_plan plan, page_shape shape) {
  allow_next_kernel();
  constexpr int DC = S::DC, Kt = S::Kt, Chunks = DC / 8, NK = S::Keys / 8;
  DYN_SHARED(T, staging);                              // [2 stages][keys, values][Kt][DC], and the queries' [Rows][DC]
  SHARED_ARRAY(long long, key_rows, 4 * Kt);           // of the tiles n & 3: the pools' rows, -1 for none
  SHARED_ARRAY(float, scales, S::Eight ? 8 * Kt : 1);  // of the same tiles: keys', values'
  SHARED_ARRAY(softmax_state, states, S::WarpsN * S::Rows);
  early_exit_allowed();  // whole blocks
  SHARED_ARRAY(block_work<S::Rows>, work, 1);
  SHARED_ARRAY(query_tile, piece, 1);
  SHARED_ARRAY(int, found, 4);
  const int thread = int(threadIdx.x), lane = thread & 31, warp = thread / 32;
  const int warp_row = warp % S::WarpsM * 16, warp_key = warp / S::WarpsM * S::Keys;
  // The plan is written before any kernel of its step, so the search need not wait; all else does, and who leaves does, for those behind.
  bool more = next_piece<S::Rows>(work, piece, found, true, p, plan);
  wait_for_previous_kernel();
  for (; more; more = next_piece<S::Rows>(work, piece, found, false, p, plan)) {
    query_tile tile = get_words<query_tile>(piece);
    const tile_keys range = keys_of(tile, p, plan);
    const int base = range.first / Kt * Kt, tiles = range.first < range.last ? (range.last - base + Kt - 1) / Kt : 0;
    const auto chunk_at = [](int row, int chunk) { return row * DC + ((chunk ^ (row & 7)) * 8); };
    // Direct: where 16 bytes of a row lie. What the lanes of a fragment ask for at once, of keys or of values, lies in different banks.
    const auto byte_at = [](int row, int chunk) {
      return ((row * (DC / 16) + chunk) ^ (row >> 1 & 3) << 1 ^ (DC >= 128 ? (row & 1) << 2 : 0)) * 16;
    };
    // Direct: a lane's 16 bytes of a key are its parts of four fragments, so the queries' dims stand in that order.
    const auto query_at = [](int row, int chunk) {
      return row * DC + ((chunk ^ (row & 7) ^ (S::Direct ? chunk / 8 << (DC == 128 ? 1 : 0) : 0)) * 8);
    };

    // --- copies: rows of the pools two tiles ahead, their contents one tile ahead --------------------------------------
    const auto find_row = [&](int n) -> long long {
      const int key = base + n * Kt + thread;
      if (key < range.first || key >= range.last) return -1;
      return page_row(shape, plan.page_ids[tile.page_row + (key >> shape.page_shift)], tile.kv_head, key);
    };
    const gmem<const T> key_pool = view_as<const T>(p.keys), value_pool = view_as<const T>(p.values);
    const int key_chunks = (p.D + 15) / 16 * 2,
              value_chunks = (p.Dv + 15) / 16 * 2;  // with the zeros that fill a step of 16
    const smem<unsigned char> narrow = view_as<unsigned char>(staging + S::stage);  // [keys, values][Kt][DC]
    const auto put_row = [&](int n, long long row, float key_scale, float value_scale) {
      if (thread >= Kt) return;
      key_rows[(n & 3) * Kt + thread] = row;
      if constexpr (S::Eight) {
        scales[(n & 3) * 2 * Kt + thread] = key_scale;
        scales[((n & 3) * 2 + 1) * Kt + thread] = value_scale;
      }
    };
    const auto scale_at = [&](gmem<const float> all, long long row) {
      return S::Eight && row >= 0 ? float(all[row]) : 0.0f;
    };
    const smem<unsigned char> bytes = view_as<unsigned char>(staging);
    const auto copy = [&](int n) {
      if constexpr (S::Direct) {
        const smem<unsigned char> to = bytes + n % S::Stages * (2 * Kt * DC);
#pragma unroll
        for (int i = thread; i < Kt * (DC / 16); i += S::Threads) {
          const int row = i / (DC / 16), chunk = i % (DC / 16), d = chunk * 16;
          const long long from = key_rows[(n & 3) * Kt + row];
          if (chunk / 4 * 64 < p.D)
            cp_async_16_or_zero<unsigned char>(to + byte_at(row, chunk), p.keys + (from < 0 ? 0 : from * p.D + d),
                                               from >= 0 && d < p.D);
          if (chunk / 2 * 32 < p.Dv)
            cp_async_16_or_zero<unsigned char>(to + (Kt * DC + byte_at(row, chunk)),
                                               p.values + (from < 0 ? 0 : from * p.Dv + d), from >= 0 && d < p.Dv);
        }
        return;
      }
      if constexpr (S::Eight) {
#pragma unroll
        for (int i = thread; i < Kt * (DC / 16); i += S::Threads) {
          const int row = i / (DC / 16), d = i % (DC / 16) * 16;
          const long long from = key_rows[(n & 3) * Kt + row];
          if (d < p.D)
            cp_async_16_or_zero<unsigned char>(narrow + (row * DC + d), p.keys + (from < 0 ? 0 : from * p.D + d),
                                               from >= 0);
          if (d < p.Dv)
            cp_async_16_or_zero<unsigned char>(narrow + ((Kt + row) * DC + d),
                                               p.values + (from < 0 ? 0 : from * p.Dv + d), from >= 0);
        }
        return;
      }
      const smem<T> to = staging + n % S::Stages * S::stage;
#pragma unroll
      for (int i = thread; i < Kt * Chunks; i += S::Threads) {
        const int row = i / Chunks, chunk = i % Chunks;
        const long long from = key_rows[(n & 3) * Kt + row];
        // What no row may see is zero and not what lies there: zero times NaN would be NaN.
        if (chunk < key_chunks)
          cp_async_16_or_zero<T>(to + chunk_at(row, chunk), key_pool + (from < 0 ? 0 : from * p.D + chunk * 8),
                                 from >= 0 && chunk * 8 < p.D);
        if (chunk < value_chunks)
          cp_async_16_or_zero<T>(to + (Kt * DC + chunk_at(row, chunk)),
                                 value_pool + (from < 0 ? 0 : from * p.Dv + chunk * 8), from >= 0 && chunk * 8 < p.Dv);
      }
    };

    const auto widen = [&]() {
#pragma unroll 2
      for (int i = thread; i < 2 * Kt * (DC / 16); i += S::Threads) {
        const int row = i / (DC / 16) % Kt, chunk = i % (DC / 16), half_of = i / (DC / 16) / Kt;  // 0: keys, 1: values
        if (chunk * 16 >= (half_of == 0 ? p.D : p.Dv)) continue;
        const uint4 raw = view_as<uint4>(narrow + i * 16)[0];
        const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
        uint32_t wide[8];
#pragma unroll
        for (int w = 0; w < 4; w++) widen_4<T>(wide[2 * w], wide[2 * w + 1], words[w], p.kv_dtype);
        // Threads 4 apart begin with different halves: their chunks lie 8 apart, in the same banks.
        const bool swap = DC > 64 && (chunk & 4) != 0;
        const uint4 low = {wide[0], wide[1], wide[2], wide[3]}, high = {wide[4], wide[5], wide[6], wide[7]};
        const smem<T> to = staging + half_of * Kt * DC;
        view_as<uint4>(to + chunk_at(row, 2 * chunk + (swap ? 1 : 0)))[0] = swap ? high : low;
        view_as<uint4>(to + chunk_at(row, 2 * chunk + (swap ? 0 : 1)))[0] = swap ? low : high;
      }
    };

    // --- the queries, through shared memory into fragments -------------------------------------------------------------
    // Over the stage that is filled last.
    const smem<T> q_rows = staging + (!S::holds_q              ? S::stages
                                      : S::Eight && !S::Direct ? 0
                                                               : (S::Stages - 1) * S::stage);
    const gmem<const T> q = typed<T>(p.q);
    uint32_t held_q[S::holds_q ? DC / 16 : 1][4];
    if (tiles > 0) {
      for (int n = 0; n < S::Stages; n++) {
        const long long row = thread < Kt ? find_row(n) : -1;
        put_row(n, row, scale_at(p.key_scales, row), scale_at(p.value_scales, row));
      }
#pragma unroll 4
      for (int i = thread; i < S::Rows * Chunks; i += S::Threads) {
        const int row = i / Chunks, chunk = i % Chunks;
        uint4 raw = {0, 0, 0, 0};
        if (row < tile.rows && chunk * 8 < p.D) {
          const row_place at = place_of(tile, p, row);
          const gmem<const T> from = q + (at.token * p.q_token + at.head * p.q_head + chunk * 8);
          if (p.q_vectors) {
            raw = view_as<uint4>(from)[0];
          } else {
            T each[8];
            for (int e = 0; e < 8; e++) each[e] = from[e];
            memcpy(&raw, each, 16);
          }
        }
        if constexpr (S::Direct) {
          const uint32_t pairs[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
          for (int k = 0; k < 4; k++)
            view_as<uint32_t>(q_rows + (query_at(row, chunk / 8 * 8 + chunk % 2 * 4 + k) + chunk % 8 / 2 * 2))[0] =
                pairs[k];
        } else {
          view_as<uint4>(q_rows + query_at(row, chunk))[0] = raw;
        }
      }
      __syncthreads();
#pragma unroll
      for (int n = 0; n < S::Stages - 1; n++) {
        if (n < tiles) copy(n);
        cp_async_commit();
      }
    }
    const auto load_q = [&](uint32_t(&a)[4], int step) {
      ldmatrix_x4<T>(a, q_rows + query_at(warp_row + lane % 16, step * 2 + lane / 16));
    };
    if constexpr (S::holds_q) {
      if (tiles > 0) {
#pragma unroll
        for (int step = 0; step < DC / 16; step++)
          if ((S::Direct ? step / 4 * 64 : step * 16) < p.D) load_q(held_q[step], step);
      }
    }

    const bool has_rows = warp_row < tile.rows;  // of a tile with few rows most warps only help to copy
    // --- this thread's two rows of the fragments: lane / 4 and that plus 8 ---------------------------------------------
    seen_keys seen[2];
    float slope[2], offset[2];  // ALiBi: slope * key - offset
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int row = warp_row + lane / 4 + 8 * i;
      const row_place at = place_of(tile, p, min(row, tile.rows - 1));
      seen[i] = seen_by(p, plan, at.token);
      seen[i].first = max(seen[i].first, range.first),
      seen[i].last = row < tile.rows ? min(seen[i].last, range.last) : 0;
      slope[i] = p.slopes && tiles > 0 ? p.slopes[at.head] * log2_e : 0.0f;
      offset[i] = p.slopes && tiles > 0 ? float(plan.positions[at.token]) : 0.0f;
    }
    float max[2] = {SL_NEGATIVE_INFINITY, SL_NEGATIVE_INFINITY}, sum[2] = {}, acc[DC / 8][4] = {};
    float value_unit[2] =
        {};  // Eight: a row's sums are in units of the largest scale it has met, so that probabilities round as ever

    for (int n = 0; n < tiles; n++) {
      cp_async_wait<S::Stages - 2>();
      __syncthreads();  // this tile is there, and everyone has done with the stage that is filled next
      if constexpr (S::Eight && !S::Direct) {
        widen();
        __syncthreads();
      }
      if (n + S::Stages - 1 < tiles) copy(n + S::Stages - 1);
      cp_async_commit();
      const long long next_row = n + S::Stages < tiles && thread < Kt ? find_row(n + S::Stages) : -1;
      const float next_key_scale = scale_at(p.key_scales, next_row),
                  next_value_scale = scale_at(p.value_scales, next_row);

      const smem<T> keys = staging + (S::Eight && !S::Direct ? 0 : n % S::Stages * S::stage), values = keys + Kt * DC;
      const smem<unsigned char> key_bytes = bytes + n % S::Stages * (2 * Kt * DC),
                                value_bytes = key_bytes + Kt * DC;  // Direct
      const int first = base + n * Kt;
      const bool edge = first < range.all_first || first + Kt > range.all_last;

      float score[NK][4] = {};
      if (has_rows) {
        if constexpr (S::Direct) {
#pragma unroll
          for (int m = 0; m < DC / 64; m++) {
            if (m * 64 >= p.D) continue;
#pragma unroll
            for (int j = 0; j < NK; j++) {
              const uint4 raw = view_as<uint4>(key_bytes + byte_at(warp_key + j * 8 + lane / 4, m * 4 + lane % 4))[0];
              const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
              for (int step = 0; step < 4; step++) {
                uint32_t b[2];
                widen_4<T>(b[0], b[1], words[step], p.kv_dtype);
                mma_m16n8k16<T>(score[j], held_q[m * 4 + step], b);
              }
            }
          }
        }
#pragma unroll
        for (int step = 0; step < DC / 16 && !S::Direct; step++) {
          if (step * 16 < p.D) {
            uint32_t a[4];
            if constexpr (!S::holds_q) load_q(a, step);
#pragma unroll
            for (int j = 0; j < NK; j += 2) {
              uint32_t b[4];
              ldmatrix_x4<T>(b, keys + chunk_at(warp_key + j * 8 + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
              const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
              if constexpr (S::holds_q) {
                mma_m16n8k16<T>(score[j], held_q[step], low);
                mma_m16n8k16<T>(score[j + 1], held_q[step], high);
              } else {
                mma_m16n8k16<T>(score[j], a, low);
                mma_m16n8k16<T>(score[j + 1], a, high);
              }
            }
          }
        }

        const int own = first + warp_key + lane % 4 * 2;  // the key of score[0][0]
        const smem<const float> own_scales = scales + (S::Eight ? (n & 3) * 2 * Kt + own - first : 0);
        if constexpr (S::Eight) {
#pragma unroll
          for (int j = 0; j < NK; j++) {
            const float2 of = view_as<float2>(own_scales + j * 8)[0];
            score[j][0] *= of.x, score[j][1] *= of.y, score[j][2] *= of.x, score[j][3] *= of.y;
          }
        }
#pragma unroll
        for (int j = 0; j < NK; j++)
#pragma unroll
          for (int e = 0; e < 4; e++) {
            score[j][e] = score_of(score[j][e], p);
            if (p.slopes) score[j][e] += slope[e / 2] * (float(own + j * 8 + e % 2) - offset[e / 2]);
            if (edge && !sees(seen[e / 2], plan, own + j * 8 + e % 2)) score[j][e] = SL_NEGATIVE_INFINITY;
          }
#pragma unroll
        for (int i = 0; i < 2; i++) {
          float top = max[i];
#pragma unroll
          for (int j = 0; j < NK; j++) top = fmaxf(top, fmaxf(score[j][2 * i], score[j][2 * i + 1]));
          top = fmaxf(top, __shfl_xor_sync(all_lanes, top, 1));
          top = fmaxf(top, __shfl_xor_sync(all_lanes, top, 2));
          const float keep = rescale(max[i], top), from = top == SL_NEGATIVE_INFINITY ? 0.0f : top;
          max[i] = top, sum[i] *= keep;
#pragma unroll
          for (int d = 0; d < DC / 8; d++) acc[d][2 * i] *= keep, acc[d][2 * i + 1] *= keep;
#pragma unroll
          for (int j = 0; j < NK; j++) {
            score[j][2 * i] = ex2(score[j][2 * i] - from), score[j][2 * i + 1] = ex2(score[j][2 * i + 1] - from);
            sum[i] += score[j][2 * i] + score[j][2 * i + 1];
          }
        }

        if constexpr (S::Eight) {
#pragma unroll
          for (int i = 0; i < 2; i++) {
            float unit = fmaxf(value_unit[i], 1e-30f);
#pragma unroll
            for (int j = 0; j < NK; j++) {  // of keys that the row sees: what stands beside it must not change its bits
              const float2 of = view_as<float2>(own_scales + Kt + j * 8)[0];
              if (score[j][2 * i] != 0.0f && of.x < finite_limit) unit = fmaxf(unit, of.x);
              if (score[j][2 * i + 1] != 0.0f && of.y < finite_limit) unit = fmaxf(unit, of.y);
            }
            unit = fmaxf(unit, __shfl_xor_sync(all_lanes, unit, 1));
            unit = fmaxf(unit, __shfl_xor_sync(all_lanes, unit, 2));
            const float keep = value_unit[i] / unit, inverse = 1.0f / unit;
            value_unit[i] = unit;
#pragma unroll
            for (int d = 0; d < DC / 8; d++) acc[d][2 * i] *= keep, acc[d][2 * i + 1] *= keep;
#pragma unroll
            for (int j = 0; j < NK; j++) {
              const float2 of = view_as<float2>(own_scales + Kt + j * 8)[0];
              // Zero times an unseen key's scale is zero, whatever that is.
              score[j][2 * i] = score[j][2 * i] == 0.0f ? 0.0f : score[j][2 * i] * (of.x * inverse);
              score[j][2 * i + 1] = score[j][2 * i + 1] == 0.0f ? 0.0f : score[j][2 * i + 1] * (of.y * inverse);
            }
          }
        }

      }  // has_rows

      // A value that is infinite or NaN belongs to the rows that see it, and zero times it would reach the others too: it
      // is added where it is seen, and zero for the product. Where all rows see all keys there are no others.
      if constexpr (S::Direct) {
        if (edge && p.kv_dtype == SL_DTYPE_FP8_E4M3) {
          const auto value_words = [&](auto f) {
            for (int i = thread; i < Kt * (DC / 16); i += S::Threads)
              if (i % (DC / 16) / 2 * 32 < p.Dv) f(view_as<uint4>(value_bytes + byte_at(i / (DC / 16), i % (DC / 16))));
          };
          bool found = false;
          value_words([&](smem<uint4> at) {
            const uint4 v = at[0];
            found = found || (nan_bytes(v.x) | nan_bytes(v.y) | nan_bytes(v.z) | nan_bytes(v.w)) != 0;
          });
          if (__syncthreads_or(found)) {
#pragma unroll 1
            for (int j = 0; j < S::Keys; j++) {
              const bool yes[2] = {sees(seen[0], plan, first + warp_key + j),
                                   sees(seen[1], plan, first + warp_key + j)};
#pragma unroll
              for (int some = 0; some < DC / 32; some++) {
                if (some * 32 >= p.Dv) continue;
                const uint2 raw =
                    view_as<uint2>(value_bytes + (byte_at(warp_key + j, some * 2 + lane % 4 / 2) + lane % 2 * 8))[0];
                const uint32_t odd[2] = {nan_bytes(raw.x), nan_bytes(raw.y)};
#pragma unroll
                for (int e = 0; e < 4; e++)
#pragma unroll
                  for (int c = 0; c < 4; c++)
                    if ((odd[c % 2] >> (8 * e) & 1) != 0 && yes[c / 2])
                      acc[some * 4 + e][c] = __uint_as_float(0x7fffffffu);
              }
            }
            __syncthreads();
            value_words([&](smem<uint4> at) {
              uint4 v = at[0];
              v.x &= ~nan_bytes(v.x), v.y &= ~nan_bytes(v.y), v.z &= ~nan_bytes(v.z), v.w &= ~nan_bytes(v.w);
              at[0] = v;
            });
            __syncthreads();
          }
        }
      } else if (edge) {
        const auto value_words = [&](auto f) {
          for (int i = thread; i < Kt * Chunks; i += S::Threads)
            if (i % Chunks < value_chunks) f(view_as<uint4>(values + chunk_at(i / Chunks, i % Chunks)));
        };
        bool found = false;
        value_words([&](smem<uint4> at) {
          const uint4 v = at[0];
          found = found || (not_finite<T>(v.x) | not_finite<T>(v.y) | not_finite<T>(v.z) | not_finite<T>(v.w)) != 0;
        });
        if (__syncthreads_or(found)) {
#pragma unroll 1
          for (int j = 0; j < S::Keys; j++) {
            const bool yes[2] = {sees(seen[0], plan, first + warp_key + j), sees(seen[1], plan, first + warp_key + j)};
#pragma unroll
            for (int d = 0; d < DC / 8; d++) {
              if (d < value_chunks) {
                const uint32_t pair = view_as<uint32_t>(values + (chunk_at(warp_key + j, d) + lane % 4 * 2))[0];
                const uint32_t odd = not_finite<T>(pair) & pair;
                T each[2];
                memcpy(each, &odd, 4);
#pragma unroll
                for (int e = 0; e < 4; e++)
                  if (yes[e / 2]) acc[d][e] += to_float(each[e % 2]);
              }
            }
          }
          __syncthreads();
          value_words([&](smem<uint4> at) {
            uint4 v = at[0];
            v.x &= ~not_finite<T>(v.x), v.y &= ~not_finite<T>(v.y), v.z &= ~not_finite<T>(v.z),
                v.w &= ~not_finite<T>(v.w);
            at[0] = v;
          });
          __syncthreads();
        }
      }

#pragma unroll
      for (int j = 0; j < NK && has_rows; j += 2) {
        const uint32_t a[4] = {pack<T>(score[j][0], score[j][1]), pack<T>(score[j][2], score[j][3]),
                               pack<T>(score[j + 1][0], score[j + 1][1]), pack<T>(score[j + 1][2], score[j + 1][3])};
        if constexpr (S::Direct) {
#pragma unroll
          for (int some = 0; some < DC / 32; some++) {
            if (some * 32 >= p.Dv) continue;
            // Four dims of four keys: a dim of two neighbouring keys is a pair of a fragment.
            uint32_t words[4];
#pragma unroll
            for (int k = 0; k < 4; k++) {
              const int key = warp_key + j * 8 + lane % 4 * 2 + k / 2 * 8 + k % 2;
              words[k] = view_as<uint32_t>(value_bytes + (byte_at(key, some * 2 + lane / 16) + lane / 4 % 4 * 4))[0];
            }
            uint32_t b[4][2];
#pragma unroll
            for (int half_of = 0; half_of < 2; half_of++) {
              const uint32_t low = words[2 * half_of], high = words[2 * half_of + 1];
              widen_4<T>(b[0][half_of], b[1][half_of], __byte_perm(low, high, 0x5140), p.kv_dtype);
              widen_4<T>(b[2][half_of], b[3][half_of], __byte_perm(low, high, 0x7362), p.kv_dtype);
            }
#pragma unroll
            for (int e = 0; e < 4; e++) mma_m16n8k16<T>(acc[some * 4 + e], a, b[e]);
          }
        }
#pragma unroll
        for (int d = 0; d < DC / 8 && !S::Direct; d += 2) {
          if (d < value_chunks) {
            uint32_t b[4];
            ldmatrix_x4_transposed<T>(b, values + chunk_at(warp_key + j * 8 + lane % 16, d + lane / 16));
            const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
            mma_m16n8k16<T>(acc[d], a, low);
            mma_m16n8k16<T>(acc[d + 1], a, high);
          }
        }
      }
      put_row(n + S::Stages, next_row, next_key_scale, next_value_scale);
    }

    // --- the sums, through shared memory: the warps that parted the keys meet, and stores are whole ----------------------
    constexpr int width = DC + 8;
    const smem<float> merged = view_as<float>(staging);  // [WarpsN][Rows][width], over the staging
    __syncthreads();
    const int own_row = warp / S::WarpsM * S::Rows + warp_row + lane / 4;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      sum[i] = sum[i] + __shfl_xor_sync(all_lanes, sum[i], 1);
      sum[i] = sum[i] + __shfl_xor_sync(all_lanes, sum[i], 2);
      const float unit = S::Eight ? value_unit[i] : 1.0f;
      const smem<float> to = merged + (own_row + 8 * i) * width;
      if constexpr (S::Direct) {
#pragma unroll
        for (int some = 0; some < DC / 32; some++) {
          // Neighbouring rows begin with different halves, in different banks.
          const bool swap = (lane / 4 & 1) != 0;
#pragma unroll
          for (int half_of = 0; half_of < 2; half_of++) {
            float four[4];
#pragma unroll
            for (int e = 0; e < 4; e++) four[e] = acc[some * 4 + e][2 * i + half_of];
#pragma unroll
            for (int e = 0; e < 4; e++) {
              const float other = acc[some * 4 + e][2 * i + 1 - half_of];
              four[e] = (swap ? other : four[e]) * unit;
            }
            const int place = (half_of != 0) != swap ? 4 : 0;
            view_as<float4>(to + (some * 32 + lane % 4 * 8 + place))[0] = float4{four[0], four[1], four[2], four[3]};
          }
        }
      }
#pragma unroll
      for (int d = 0; d < DC / 8 && !S::Direct; d++)
        view_as<float2>(to + (d * 8 + lane % 4 * 2))[0] = float2{acc[d][2 * i] * unit, acc[d][2 * i + 1] * unit};
      const softmax_state state = {max[i], sum[i]};
      if (lane % 4 == 0) states[own_row + 8 * i] = state;
    }
    __syncthreads();
    tile = get_words<query_tile>(piece);  // again, so that what only results need is not kept
    for (int i = thread; i < tile.rows * (DC / 4); i += S::Threads) {
      const int row = i / (DC / 4), d = i % (DC / 4) * 4;
      if (d >= p.Dv) continue;
      softmax_state all = empty_softmax();
      float v[4] = {};
#pragma unroll
      for (int w = 0; w < S::WarpsN; w++) {
        const int at = w * S::Rows + row;
        float keep, add;
        all = merge(all, states[at], keep, add);
        const float4 part = view_as<float4>(merged + (at * width + d))[0];
        v[0] = v[0] * keep + part.x * add, v[1] = v[1] * keep + part.y * add;
        v[2] = v[2] * keep + part.z * add, v[3] = v[3] * keep + part.w * add;
      }
      put_sums(p, plan, tile, row, d, v, all);
    }
    finish_piece(p, plan, tile);
  }
}

// Calls f with the shape for tiles of so many rows and the larger of D and Dv.
template <typename T, bool Eight, typename F>
auto with_prefill_shape(int rows, int dims, F f) {
  if (rows == 16) {
    if (dims <= 64) return f(prefill_shape<T, 64, 1, 4, 64, Eight>());
    if (dims <= 128) return f(prefill_shape<T, 128, 1, 4, 64, Eight>());
    return f(prefill_shape<T, 256, 1, 2, 32, Eight>());
  }
  if (dims <= 64) return f(prefill_shape<T, 64, 4, 1, 64, Eight>());
  if (dims <= 128) return f(prefill_shape<T, 128, 4, 1, 64, Eight>());
  return f(prefill_shape<T, 256, 4, 1, 32, Eight>());
}

// Blocks of a multiprocessor that run at once where it has so many bytes of shared memory.
template <bool Eight>
int prefill_blocks(int rows, int dims, int64_t shared) {
  constexpr int64_t beside = 7 * 1024;  // static arrays, and what the system keeps for itself
  return with_prefill_shape<half, Eight>(rows, dims, [&](auto shape) {
    using S = decltype(shape);
    return int(std::max<int64_t>(1, std::min<int64_t>(S::blocks, shared / (int64_t(S::shared) + beside))));
  });
}

template <typename T, bool Eight>
void prefill(stream& s, const tile_params& p, const device_plan& plan, page_shape shape, int rows) {
  with_prefill_shape<T, Eight>(rows, p.D > p.Dv ? p.D : p.Dv, [&](auto of) {
    using S = decltype(of);
    launch_early(native(s), KERNEL(paged_prefill_kernel<T, S>), unsigned(p.blocks), S::Threads, S::shared, p, plan,
                 shape);
  });
}

// A file each.
extern template void prefill<half, false>(stream&, const tile_params&, const device_plan&, page_shape, int);
extern template void prefill<half, true>(stream&, const tile_params&, const device_plan&, page_shape, int);
extern template void prefill<__nv_bfloat16, false>(stream&, const tile_params&, const device_plan&, page_shape, int);
extern template void prefill<__nv_bfloat16, true>(stream&, const tile_params&, const device_plan&, page_shape, int);

}  // namespace SL_BACKEND_NS
}  // namespace sl
