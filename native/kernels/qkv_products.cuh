// fused_qkv on tensor cores: q, k, v = rope(norm(x * w^T + bias)), q to a tensor, k and v to the batch's slots of the cache
// x [T,C] in {f32,f16,bf16}   wq [H*D,C]   wk [Hkv*D,C]   wv [Hkv*Dv,C], 16-bit or quantised, also mixed   products of E, sums in f32
//
// few_qkv, up to 8 rows of x: one launch. The norm of x is on its way to shared memory; q, k and v have blocks of their own, by their
//   bytes; a block goes through 16 places of a head after the other, or through whole heads where these are normalised or scaled
// tile_qkv, more: tiles of whole heads, or of 16 places and more of one
#include "fused_qkv.cuh"
#include "products.cuh"

namespace sl {
namespace SL_BACKEND_NS {

struct qkv_part {
  weight_view w;
  any_input bias;
  head_job job;  // of its x nothing is used
  operand kind;
  int turned;             // dims that turn
  int share, whole;       // few_qkv: warps an item; whether heads are whole
  int first, count;       // its blocks, or its tiles of rows of w
  int heads_a_tile;       // tile_qkv: 0 where a head is more than one tile
};
struct qkv_parts {
  qkv_part part[3];
  int parts;
  bool interleaved;
  __device__ __forceinline__ int of(int i) const {
    int which = 0;
    while (which + 1 < parts && i >= part[which].first + part[which].count) which++;
    return which;
  }
};

__device__ __forceinline__ head_rows rows_of(const qkv_part& p, bool interleaved) { return {p.job.dim, p.turned, interleaved}; }

// --- few rows ------------------------------------------------------------------------------------------------------------

template <typename E, operand W>
__device__ __forceinline__ void few_qkv_part(smem<char> shared, const qkv_part& p, const few_input& in, const rotation& r, const device_plan& plan,
                                             page_shape shape, float qk_eps) {
  const int warp = int(threadIdx.x) / 32, at_once = few_warps / p.share, dim = p.job.dim;
  const head_rows rows = rows_of(p, r.interleaved);
  const int parts = rows.parts(), block = int(blockIdx.x) - p.first, heads = p.job.heads;
  // Items of a block: parts of heads in turn with the other blocks, or all parts of a head and then of the next of its own.
  const int all = p.whole ? heads : heads * parts, mine = (all - block * at_once + p.count * at_once - 1) / (p.count * at_once);
  const int rounds = p.whole ? mine * parts : mine;
  const auto item_of = [&](int round, int slot) { return (p.whole ? round / parts : round) * p.count * at_once + block * at_once + slot; };
  const auto head_of = [&](int round, int slot) { return p.whole ? item_of(round, slot) : item_of(round, slot) / parts; };
  const auto part_of = [&](int round, int slot) { return p.whole ? round % parts : item_of(round, slot) % parts; };
  // Whole heads gather here, by places; a block has one at a time then.
  const smem<float> gathered = view_as<float>(shared + int(few_shared_bytes<E, W>(in.tokens, in.cols)));
  few_products<E, W, scaling::any, W == operand::dense || W == operand::four ? 2 : 1>(  // what registers the heads leave
      shared, in, p.w, p.w, rounds, p.share,
      [&](int round, int slot, int& a, int& b) {
        const int head = head_of(round, slot), part = part_of(round, slot);
        a = (head * dim + rows.first_dim(part, 0)) / packed_rows, b = (head * dim + rows.first_dim(part, 1)) / packed_rows;
        return head < heads;
      },
      [&](int round, auto value) {
        const auto put = [&](int head, int t, int from, int to, auto of_place) {
          const auto raw = [&](int d) {
            const float v = of_place(place_of(d, rows.turned, r.interleaved));
            return p.bias.present() ? v + p.bias.at((long long)head * dim + d) : v;
          };
          process_places(p.job, raw, r, plan, shape, t, head, t >= plan.num_tokens(), qk_eps, from, to);
        };
        if (!p.whole) {
          for (int i = warp; i < at_once * in.tokens; i += few_warps) {
            const int slot = i % at_once, t = i / at_once, head = head_of(round, slot), part = part_of(round, slot);
            if (head < heads)
              put(head, t, 16 * part, min(16 * part + 16, dim), [&](int place) { return value(slot, rows.row_of(place), t); });
          }
          return;
        }
        const int part = round % parts;
        for (int i = int(threadIdx.x); i < 16 * in.tokens; i += few_threads) {
          const int place = 16 * part + i % 16, t = i / 16;
          if (place < dim) gathered[t * dim + place] = value(0, rows.row_of(place), t);
        }
        if (part + 1 < parts) return;
        __syncthreads();
        for (int t = warp; t < in.tokens; t += few_warps) put(head_of(round, 0), t, 0, dim, [&](int place) { return float(gathered[t * dim + place]); });
        __syncthreads();  // the next head's places come there
      });
}

template <typename E>
__global__ void __launch_bounds__(few_threads, 2)
    few_qkv_kernel(qkv_parts all, few_input in, rotation r, device_plan plan, page_shape shape, float qk_eps) {
  DYN_SHARED(char, shared);
  allow_next_kernel();
  const qkv_part& p = all.part[all.of(int(blockIdx.x))];
  switch (p.kind) {
    case operand::dense:
      if constexpr (sizeof(E) > 1) few_qkv_part<E, operand::dense>(shared, p, in, r, plan, shape, qk_eps);
      return;
    case operand::four: return few_qkv_part<E, operand::four>(shared, p, in, r, plan, shape, qk_eps);
    case operand::five: return few_qkv_part<E, operand::five>(shared, p, in, r, plan, shape, qk_eps);
    case operand::six: return few_qkv_part<E, operand::six>(shared, p, in, r, plan, shape, qk_eps);
    case operand::eight: return few_qkv_part<E, operand::eight>(shared, p, in, r, plan, shape, qk_eps);
  }
}

// --- tiles ---------------------------------------------------------------------------------------------------------------

template <typename Tile, typename E, operand W>
__global__ void __launch_bounds__(256, Tile::BM == 16 ? 2 : 1)
    tile_qkv_kernel(qkv_parts all, tile_input in, tile_plan tiles, rotation r, device_plan plan, page_shape shape, float qk_eps, gmem<float> partial,
                    gmem<unsigned> arrivals) {
  DYN_SHARED(char, shared);
  allow_next_kernel();
  wait_for_previous_kernel();
  constexpr int tile_parts = Tile::BN / 16;
  // A tile's first head, and the first of its parts.
  const auto start_of = [&](const qkv_part& p, int tile, int& head, int& part) {
    const int parts = rows_of(p, r.interleaved).parts(), a_head = (parts + tile_parts - 1) / tile_parts, at = tile - p.first;
    head = p.heads_a_tile ? at * p.heads_a_tile : at / a_head;
    part = p.heads_a_tile ? 0 : at % a_head * tile_parts;
  };
  stream_tiles<Tile>(
      shared, in, tiles, partial, arrivals, [&](int tile) {
        const weight_view& w = all.part[all.of(tile)].w;
        return weight_pair{w, w};
      },
      [&](int tile, int i) {
        const qkv_part& p = all.part[all.of(tile)];
        const head_rows rows = rows_of(p, r.interleaved);
        int head, part;
        start_of(p, tile, head, part);
        const int parts = rows.parts();
        if (p.heads_a_tile) head = min(head + min(i / 2 / parts, p.heads_a_tile - 1), p.job.heads - 1), part = i / 2 % parts;
        else part = min(part + i / 2, parts - 1);
        return (head * p.job.dim + rows.first_dim(part, i % 2)) / packed_rows;
      },
      [&](smem<float> sums, int row0, int tile) {
        const qkv_part& p = all.part[all.of(tile)];
        const head_rows rows = rows_of(p, r.interleaved);
        const int warp = int(threadIdx.x) / 32, dim = p.job.dim, parts = rows.parts();
        int first_head, first_part;
        start_of(p, tile, first_head, first_part);
        const int heads = p.heads_a_tile ? min(p.heads_a_tile, p.job.heads - first_head) : 1;
        const int from = 16 * first_part, to = p.heads_a_tile ? dim : min(from + Tile::BN, dim);
        for (int i = warp; i < Tile::BM * heads; i += Tile::warps) {
          const int row = i / heads, h = i % heads, head = first_head + h, t = row0 + row;
          if (t >= in.rows) break;
          const auto raw = [&](int d) {
            const int place = place_of(d, rows.turned, r.interleaved);
            const float v = sums[row * Tile::out_row + (h * parts + place / 16 - first_part) * 16 + rows.row_of(place)];
            return p.bias.present() ? v + p.bias.at((long long)head * dim + d) : v;
          };
          process_places(p.job, raw, r, plan, shape, t, head, t >= plan.num_tokens(), qk_eps, from, to);
        }
      });
}

// --- the launchers' side --------------------------------------------------------------------------------------------------

inline void parts_of(const fused_qkv_args& a, qkv_part (&all)[3]) {
  const head_jobs jobs = jobs_of(a);
  const weight* weights[3] = {a.wq, a.wk, a.wv};
  const view* biases[3] = {&a.bias_q, &a.bias_k, &a.bias_v};
  const head_job* of[3] = {&jobs.q, &jobs.k, &jobs.v};
  const bool whole[3] = {whole_q(a), whole_k(a), whole_v(a)};
  for (int i = 0; i < 3; i++) {
    const cuda_weight& w = as_cuda(weights[i]);
    all[i] = {};
    all[i].w = view_of(w), all[i].bias = input_of(*biases[i]), all[i].job = *of[i], all[i].kind = operand_of(w);
    all[i].turned = of[i]->turn && a.inv_freq ? int(2 * a.inv_freq.shape[0]) : 0, all[i].whole = whole[i];
  }
}

template <typename E>
void start_few_qkv(stream& s, const fused_qkv_args& a) {
  qkv_parts all{};
  all.parts = 3;
  parts_of(a, all.part);
  // Each part's blocks: one for each round of items, or its part of what runs at once, by its bytes.
  int64_t wanted[3], total = 0;
  double bytes[3], total_bytes = 0;
  size_t shared = 0;
  const int tokens = int(a.x.shape[0]), cols = int(a.x.shape[1]);
  const weight* weights[3] = {a.wq, a.wk, a.wv};
  for (int i = 0; i < 3; i++) {
    qkv_part& p = all.part[i];
    const int parts = (p.job.dim + 15) / 16;
    for_operand_of<E>(p.kind, [&](auto which) {
      constexpr operand W = decltype(which)::value;
      p.share = p.whole ? few_warps : few_share<W>(cols);
      shared = std::max(shared, few_shared_bytes<E, W>(tokens, cols) + (p.whole ? size_t(tokens) * size_t(p.job.dim) * 4 : 0));
    });
    wanted[i] = blocks_for(p.whole ? p.job.heads : p.job.heads * parts, few_warps / p.share), total += wanted[i];
    bytes[i] = double(weights[i]->bytes()), total_bytes += bytes[i];
  }
  const int64_t at_once = 2 * int64_t(multiprocessors(*s.owner));
  int blocks = 0;
  for (int i = 0; i < 3; i++) {
    all.part[i].first = blocks;
    all.part[i].count = int(total <= at_once ? wanted[i] : std::clamp<int64_t>(int64_t(double(at_once) * bytes[i] / total_bytes), 1, wanted[i]));
    blocks += all.part[i].count;
  }
  launch_early(native(s), KERNEL(few_qkv_kernel<E>), unsigned(blocks), few_threads, shared, all, few_input_of(a.x, a.norm_weight, a.norm_eps, a.squares), turning(a),
         plan_of(*a.batch), shape_of(a.cache), a.qk_norm_eps);
}

// The parts of one operand, as tiles of `bn` rows of w; none taken twice.
inline qkv_parts tiles_of(const fused_qkv_args& a, operand kind, int bn, int& tiles) {
  qkv_part each[3];
  parts_of(a, each);
  qkv_parts some{};
  tiles = 0;
  for (qkv_part& p : each) {
    if (p.kind != kind) continue;
    const int parts = (p.job.dim + 15) / 16;
    p.heads_a_tile = parts * 16 <= bn ? bn / (parts * 16) : 0;
    p.first = tiles;
    p.count = p.heads_a_tile ? int(blocks_for(p.job.heads, p.heads_a_tile)) : p.job.heads * int(blocks_for(parts * 16, bn));
    tiles += p.count;
    some.part[some.parts++] = p;
  }
  return some;
}

template <typename E>
void start_tile_qkv(stream& s, const fused_qkv_args& a, const view& x, char* workspace) {
  const int64_t T = x.shape[0];
  const bool narrow = narrow_wanted(*s.owner, as_cuda(a.wq), T);
  const tile_size size = tile_size_of(narrow);
  for (operand kind : {operand::dense, operand::four, operand::five, operand::six, operand::eight}) {
    int tiles;
    const qkv_parts some = tiles_of(a, kind, size.bn, tiles);
    if (tiles == 0) continue;
    const tile_plan cut = plan_tiles(T, int64_t(tiles) * size.bn, x.shape[1], *s.owner, narrow);
    for_operand(kind, [&](auto which) {
      constexpr operand W = decltype(which)::value;
      const auto start = [&](auto tile) {
        using Tile = decltype(tile);
        launch_early(native(s), KERNEL(tile_qkv_kernel<Tile, E, W>), unsigned(cut.blocks), Tile::threads, Tile::shared_bytes, some, tile_input_of(x), cut, turning(a),
               plan_of(*a.batch), shape_of(a.cache), a.qk_norm_eps, reinterpret_cast<float*>(workspace), static_cast<cuda_stream&>(s).arrivals());
      };
      if (narrow) start(narrow_tile<E, W>());
      else start(wide_tile<E, W>());
    });
  }
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
