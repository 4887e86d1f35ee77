// gated_linear: y[t,f] = act(x[t] . gate[f] + bias_gate[f]) * (x[t] . up[f] + bias_up[f]), x normalised first, on tensor cores
// A fragment of 16 rows is eight of the gate and the same eight of up, so that a thread has what it multiplies.
// few_gated, up to 8 rows of x, and tile_gated, more: as in linear_products.cuh; the norm is within the first, and before the second
#include "activation.cuh"
#include "gated_linear.h"
#include "products.cuh"

namespace sl {
namespace SL_BACKEND_NS {

struct gated_output {
  any_output y;
  any_input bias_gate, bias_up;
  long long stride;
  int features, activation;
  __device__ __forceinline__ void put(int t, int f, float gate, float up) const {
    if (f >= features) return;
    if (bias_gate.present()) gate += bias_gate.at(f);
    if (bias_up.present()) up += bias_up.at(f);
    y.put(t * stride + f, activate(gate, activation) * up);
  }
};

// Both are kept alike (gated_linear.cu): told so, the compiler decides once how scales are read, and not for each pair of ways.
__device__ __forceinline__ weight_view like(const weight_view& gate, weight_view up) {
  up.kind = gate.kind, up.scale_kind = gate.scale_kind, up.group = gate.group, up.scale_bytes = gate.scale_bytes, up.scale_shift = gate.scale_shift;
  up.rows = gate.rows, up.cols = gate.cols, up.blocks = gate.blocks, up.super_blocks = gate.super_blocks, up.aligned = gate.aligned;
  return up;
}

template <typename E, operand W, scaling S>
__global__ void __launch_bounds__(few_threads, 2)
    few_gated_kernel(gated_output out, weight_view gate, weight_view given_up, few_input in, int share, int items) {
  DYN_SHARED(char, shared);
  allow_next_kernel();
  const weight_view up = like(gate, given_up);
  const few_items of_block(items, share);
  few_products<E, W, S>(
      shared, in, gate, up, of_block.rounds(), share,
      [&](int round, int slot, int& a, int& b) {
        a = b = of_block.at(round, slot);
        return a < items;
      },
      [&](int round, auto value) {
        for (int i = int(threadIdx.x); i < 8 * of_block.at_once * in.tokens; i += few_threads) {
          const int row = i % 8, slot = i / 8 % of_block.at_once, t = i / (8 * of_block.at_once);
          if (of_block.at(round, slot) < items) out.put(t, of_block.at(round, slot) * 8 + row, value(slot, row, t), value(slot, 8 + row, t));
        }
      });
}

template <typename Tile, typename E, operand W>
__global__ void __launch_bounds__(256, Tile::BM == 16 && W != operand::eight ? 2 : 1)  // two matrices of bytes take more registers
    tile_gated_kernel(gated_output out, weight_view gate, weight_view given_up, tile_input in, tile_plan plan, gmem<float> partial, gmem<unsigned> arrivals) {
  DYN_SHARED(char, shared);
  allow_next_kernel();
  const weight_view up = like(gate, given_up);
  wait_for_previous_kernel();
  constexpr int features = Tile::BN / 2;
  const int last = (gate.rows - 1) / packed_rows;
  stream_tiles<Tile>(
      shared, in, plan, partial, arrivals, [&](int) { return weight_pair{gate, up}; },
      [&](int tile, int i) { return min(tile * (features / packed_rows) + i / 2, last); },
      [&](smem<float> sums, int row0, int tile) {
        for (int at = int(threadIdx.x); at < Tile::BM * features; at += Tile::threads) {
          const int row = at / features, f = at % features, column = f / 8 * 16 + f % 8, t = row0 + row;
          if (t < in.rows) out.put(t, tile * features + f, sums[row * Tile::out_row + column], sums[row * Tile::out_row + column + 8]);
        }
      });
}

inline gated_output output_of(const gated_linear_args& a) {
  return {output_of(a.y), input_of(a.bias_gate), input_of(a.bias_up), a.y.stride[0], int(a.y.shape[1]), a.activation};
}

template <typename E>
void start_few_gated(stream& s, const gated_linear_args& a) {
  const cuda_weight &gate = as_cuda(a.gate), &up = as_cuda(a.up);
  for_format_of<E>(gate, [&](auto which, auto how) {
    constexpr operand W = decltype(which)::value;
    constexpr scaling S = decltype(how)::value;
    const int share = few_share<W>(int(gate.cols)), items = int(blocks_for(gate.rows, packed_rows));
    launch_early(native(s), KERNEL(few_gated_kernel<E, W, S>), unsigned(few_blocks(items, share, *s.owner)), few_threads,
           few_shared_bytes<E, W>(int(a.x.shape[0]), int(gate.cols)), output_of(a), view_of(gate), view_of(up),
           few_input_of(a.x, a.norm_weight, a.norm_eps, a.squares), share, items);
  });
}

template <typename E>
void start_tile_gated(stream& s, const gated_linear_args& a, const view& x, char* workspace) {
  const cuda_weight &gate = as_cuda(a.gate), &up = as_cuda(a.up);
  const bool narrow = narrow_wanted(*s.owner, gate, x.shape[0]);
  const tile_plan plan = plan_tiles(x.shape[0], 2 * gate.rows, gate.cols, *s.owner, narrow);
  for_operand(operand_of(gate), [&](auto which) {
    constexpr operand W = decltype(which)::value;
    const auto start = [&](auto tile) {
      using Tile = decltype(tile);
      launch_early(native(s), KERNEL(tile_gated_kernel<Tile, E, W>), unsigned(plan.blocks), Tile::threads, Tile::shared_bytes, output_of(a), view_of(gate),
             view_of(up), tile_input_of(x), plan, reinterpret_cast<float*>(workspace), static_cast<cuda_stream&>(s).arrivals());
    };
    if (narrow) start(narrow_tile<E, W>());
    else start(wide_tile<E, W>());
  });
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
