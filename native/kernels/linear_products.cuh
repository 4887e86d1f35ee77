// linear: y[t,n] = cap(scale * (sum_k x[t,k] * w[n,k] + bias[n])) + residual[t,n] on tensor cores
// x [T,K] in {f32,f16,bf16}   w [N,K] 16-bit or quantised   products of E = f16 or bf16, sums in f32
//
// few_linear, up to 8 rows of x: grid 2 blocks a multiprocessor at most, going through N by 16 rows   block 256
//   shared x as E, 97 KB at most   moves the bytes of w once: bound by memory
// tile_linear, more: grid parts of all tiles' columns   block 256   shared up to 67 KB
//   bound by memory below some 100 rows of x, and by the tensor cores above
#include "products.cuh"

namespace sl {
namespace SL_BACKEND_NS {

template <typename E, operand W, scaling S>
__global__ void __launch_bounds__(few_threads, 2) few_linear_kernel(epilogue out, weight_view w, few_input in, int share, int items) {
  DYN_SHARED(char, shared);
  allow_next_kernel();
  const few_items of_block(items, share);
  const int last = (w.rows - 1) / packed_rows;
  few_products<E, W, S>(
      shared, in, w, w, of_block.rounds(), share,
      [&](int round, int slot, int& a, int& b) {
        const int item = of_block.at(round, slot);
        a = 2 * item, b = min(2 * item + 1, last);
        return item < items;
      },
      [&](int round, auto value) {
        const int all = 16 * of_block.at_once * in.tokens;
        for (int i = int(threadIdx.x); i < (all + 31) / 32 * 32; i += few_threads) {  // whole warps
          const int row = i % 16, slot = i / 16 % of_block.at_once, t = i / (16 * of_block.at_once), n = of_block.at(round, slot) * 16 + row;
          const bool valid = i < all && n < w.rows;
          float v = 0.0f;
          if (valid) v = out.put(t, n, value(slot, row, t));
          if (out.squares) out.put_squares<16>(t, n, v * v, valid);
        }
      });
}

template <typename Tile, typename E, operand W>
__global__ void __launch_bounds__(256, Tile::BM == 16 ? 2 : 1)
    tile_linear_kernel(epilogue out, weight_view w, tile_input in, tile_plan plan, gmem<float> partial, gmem<unsigned> arrivals) {
  DYN_SHARED(char, shared);
  allow_next_kernel();
  wait_for_previous_kernel();
  const int last = (w.rows - 1) / packed_rows;
  stream_tiles<Tile>(
      shared, in, plan, partial, arrivals, [&](int) { return weight_pair{w, w}; }, [&](int tile, int i) { return min(tile * (Tile::BN / packed_rows) + i, last); },
      [&](smem<float> sums, int row0, int tile) {
        for (int at = int(threadIdx.x); at < Tile::BM * Tile::BN / 4; at += Tile::threads) {
          const int row = at / (Tile::BN / 4), column = at % (Tile::BN / 4) * 4, t = row0 + row, n = tile * Tile::BN + column;
          const bool valid = t < in.rows && n < w.rows;
          if (!valid && !out.squares) continue;
          float v[4] = {};
          if (valid) {
            const float4 four = view_as<float4>(sums + (row * Tile::out_row + column))[0];
            v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
            out.put_four(t, n, w.rows, v);
          }
          if (out.squares) out.put_squares<4>(t, n, v[0] * v[0] + v[1] * v[1] + v[2] * v[2] + v[3] * v[3], valid);
        }
      });
}

template <typename E>
void start_few_linear(stream& s, const linear_args& a, const cuda_weight& w) {
  for_format_of<E>(w, [&](auto which, auto how) {
    constexpr operand W = decltype(which)::value;
    constexpr scaling S = decltype(how)::value;
    const int share = few_share<W>(int(w.cols)), items = int(blocks_for(w.rows, 16));
    const auto start = [&](auto how) {
      launch_as<decltype(how)::value>(native(s), KERNEL(few_linear_kernel<E, W, S>), unsigned(few_blocks(items, share, *s.owner)), few_threads,
                                      few_shared_bytes<E, W>(int(a.x.shape[0]), int(w.cols)), epilogue_of(a), view_of(w), few_input_of(a.x, view(), 0.0f), share, items);
    };
    // It reads w before it waits, and a borrowed one was written by the kernel ahead.
    if (w.borrowed) start(std::integral_constant<follow, follow::in_order>());
    else start(std::integral_constant<follow, follow::early>());
  });
}

template <typename E>
void start_tile_linear(stream& s, const linear_args& a, const cuda_weight& w, bool narrow, char* workspace) {
  const tile_plan plan = plan_tiles(a.x.shape[0], w.rows, w.cols, *s.owner, narrow);
  for_operand(operand_of(w), [&](auto which) {
    constexpr operand W = decltype(which)::value;
    const auto start = [&](auto tile) {
      using Tile = decltype(tile);
      launch_early(native(s), KERNEL(tile_linear_kernel<Tile, E, W>), unsigned(plan.blocks), Tile::threads, Tile::shared_bytes, epilogue_of(a), view_of(w),
             tile_input_of(a.x), plan, reinterpret_cast<float*>(workspace), static_cast<cuda_stream&>(s).arrivals());
    };
    if (narrow) start(narrow_tile<E, W>());
    else start(wide_tile<E, W>());
  });
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
