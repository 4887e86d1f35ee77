// fused_qkv with products of binary16: a file of its own, so that the two compile side by side.
#include "qkv_products.cuh"

namespace sl {
namespace SL_BACKEND_NS {

void few_qkv_f16(stream& s, const fused_qkv_args& a) { start_few_qkv<half>(s, a); }
void tile_qkv_f16(stream& s, const fused_qkv_args& a, const view& x, char* workspace) { start_tile_qkv<half>(s, a, x, workspace); }

uint64_t tile_qkv_workspace(const device& d, const fused_qkv_args& a) {
  uint64_t most = 0;
  const bool narrow = narrow_wanted(d, as_cuda(a.wq), a.x.shape[0]);
  for (operand kind : {operand::dense, operand::four, operand::five, operand::six, operand::eight}) {
    int tiles;
    const tile_size size = tile_size_of(narrow);
    tiles_of(a, kind, size.bn, tiles);
    if (tiles > 0) most = std::max(most, tiles_workspace(a.x.shape[0], int64_t(tiles) * size.bn, a.x.shape[1], d, narrow));
  }
  return most;
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
