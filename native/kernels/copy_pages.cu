// copy_pages: page targets[i] = page sources[i], in all layers
// grid (pairs, layers)   block 256   moves 2 * pairs * layers * page bytes: bound by memory
#include "host.cuh"
#include "ops.h"

namespace sl {
namespace SL_BACKEND_NS {

// The pairs travel as a kernel argument: nothing has to outlive the call, and a graph keeps them.
constexpr int pairs_a_launch = 128;
struct page_pairs { int source[pairs_a_launch], target[pairs_a_launch]; };

template <typename Word>
__global__ void __launch_bounds__(256) copy_pages_kernel(gmem<Word> pool, page_pairs pairs, long long page_words,
                                                         long long layer_words) {
  const long long layer = blockIdx.y * layer_words;
  const long long from = layer + pairs.source[blockIdx.x] * page_words, to = layer + pairs.target[blockIdx.x] * page_words;
  for (long long i = threadIdx.x; i < page_words; i += blockDim.x) pool[to + i] = Word(pool[from + i]);
}

template <typename Word>
static void start(stream& s, const copy_pages_args& a, char* pool, uint64_t page_bytes, uint64_t layer_bytes) {
  for (size_t first = 0; first < a.pairs.size(); first += pairs_a_launch) {
    page_pairs p{};
    const size_t n = std::min<size_t>(pairs_a_launch, a.pairs.size() - first);
    for (size_t i = 0; i < n; i++) p.source[i] = a.pairs[first + i].first, p.target[i] = a.pairs[first + i].second;
    launch(native(s), KERNEL(copy_pages_kernel<Word>), dim3(unsigned(n), unsigned(a.cache.layers)), 256, 0,
           reinterpret_cast<Word*>(pool), p, (long long)(page_bytes / sizeof(Word)), (long long)(layer_bytes / sizeof(Word)));
  }
}

void copy_pages_cuda(stream& s, const copy_pages_args& a) {
  const kv_view& c = a.cache;
  const auto copy = [&](char* pool, int dim, uint64_t layer_bytes) {
    const uint64_t page_bytes = uint64_t(c.kv_heads) * uint64_t(c.page_size) * uint64_t(dim) * size_of(c.dtype);
    if (page_bytes % 16 == 0 && layer_bytes % 16 == 0) start<uint4>(s, a, pool, page_bytes, layer_bytes);
    else if (page_bytes % 2 == 0) start<uint16_t>(s, a, pool, page_bytes, layer_bytes);
    else start<unsigned char>(s, a, pool, page_bytes, layer_bytes);
  };
  copy(c.keys, c.key_dim, c.key_layer_bytes);
  copy(c.values, c.value_dim, c.value_layer_bytes);
  if (!has_scales(c)) return;
  const uint64_t scale_bytes = uint64_t(c.kv_heads) * uint64_t(c.page_size) * 4;
  start<uint32_t>(s, a, reinterpret_cast<char*>(c.key_scales), scale_bytes, c.scale_layer_count * 4);
  start<uint32_t>(s, a, reinterpret_cast<char*>(c.value_scales), scale_bytes, c.scale_layer_count * 4);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
