// dequantise: out[n,k] = w[n,k], rows of a quantised weight as E = f16 or bf16, row-major, for kernels and a library that take dense ones
// w [N,K] quantised, K a multiple of 8   out [rows,K]
// grid a warp eight rows by 128 columns   block 256   moves the bytes of w's rows once and 2 * rows * K: bound by memory
#include "linear.cuh"
#include "products.cuh"

namespace sl {
namespace SL_BACKEND_NS {

template <typename E, operand W>
__global__ void __launch_bounds__(256) dequantise_kernel(gmem<E> out, weight_view w, int first_group, int groups) {
  const int unit = int(blockIdx.x) * 8 + int(threadIdx.x) / 32, lane = int(threadIdx.x) & 31;
  if (unit >= groups * w.blocks) return;  // a whole warp, and there is no barrier
  const int group = unit / w.blocks, block = unit % w.blocks, row = group * packed_rows + lane / 4;
  held_row<W> h{};
  load_row<W>(h, w, source_of<W>(w), first_group + group, block);
  const bool valid = first_group * packed_rows + row < w.rows;
  constexpr bool by_16 = W == operand::six, may_bias = W == operand::four || W == operand::five;
#pragma unroll
  for (int j = 0; j < packed_block / 32; j++)
#pragma unroll
    for (int s = 0; s < 2; s++) {
      uint32_t pair[2];
      make_pairs<E, W>(pair, h, j, s, w.center);
      const float2 scale = read_scale(h, w, by_16 ? 2 * j + s : j);
      // A lane has four neighbours; the four lanes of a row fill a sector.
      const int k = block * packed_block + 32 * j + 16 * s + 4 * (lane & 3);
      if (valid && k < w.cols)
        view_as<uint2>(out + ((long long)row * w.cols + k))[0] = make_uint2(scaled_pair<E, may_bias>(pair[0], scale), scaled_pair<E, may_bias>(pair[1], scale));
    }
}

void dequantise(stream& s, const cuda_weight& w, int64_t first_row, int64_t rows, sl_dtype type, char* to) {
  const int groups = int(blocks_for(rows, packed_rows));
  for_operand(operand_of(w), [&](auto which) {
    constexpr operand W = decltype(which)::value;
    if constexpr (W != operand::dense) {
      const auto start = [&](auto e) {
        using E = decltype(e);
        launch(native(s), KERNEL(dequantise_kernel<E, W>), unsigned(blocks_for(groups * packed_blocks(w.cols), 8)), 256, 0, reinterpret_cast<E*>(to), view_of(w),
               int(first_row / packed_rows), groups);
      };
      if (type == SL_DTYPE_F16) start(half());
      else start(__nv_bfloat16());
    }
  });
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
