// pages: whole pages in all layers, to[target, layer] = from[source, layer]: within the cache's pools (copy_pages), from them to
// pinned memory of the host (save_pages), and back (load_pages)
// grid (pairs, layers), a launch a pool   block 256   moves 2 * pairs * layers * page bytes: bound by memory, or by the bus
#include "host.cuh"
#include "ops.h"

namespace sl {
namespace SL_BACKEND_NS {

// The pairs travel as a kernel argument: nothing has to outlive the call.
constexpr int pairs_a_launch = 128, page_threads = 256;
struct page_pairs { int source[pairs_a_launch], target[pairs_a_launch]; };
// From one page to the next and from one layer to the next: bytes on the host's side of the launch, words in the kernel.
struct page_strides { long long page, layer; };

// The kernel reads and writes the host's memory itself: a copy engine would want a call for each page, layer and pool, of a few
// kilobytes. A thread has four loads on their way before its first store: over the bus each takes a microsecond or more.
template <typename Word>
__global__ void __launch_bounds__(page_threads) copy_pages_kernel(gmem<Word> to, gmem<const Word> from, page_pairs pairs, page_strides to_strides,
                                                                  page_strides from_strides, long long words) {
  constexpr int on_the_way = 4;
  to += pairs.target[blockIdx.x] * to_strides.page + blockIdx.y * to_strides.layer;
  from += pairs.source[blockIdx.x] * from_strides.page + blockIdx.y * from_strides.layer;
  for (long long first = threadIdx.x; first < words; first += on_the_way * page_threads) {
    Word w[on_the_way];
#pragma unroll
    for (int i = 0; i < on_the_way; i++)
      if (first + i * page_threads < words) w[i] = from[first + i * page_threads];
#pragma unroll
    for (int i = 0; i < on_the_way; i++)
      if (first + i * page_threads < words) to[first + i * page_threads] = w[i];
  }
}

// pair(i) gives the i-th source and target.
template <typename Word, typename Pair>
static void start(stream& s, char* to, const char* from, page_strides to_strides, page_strides from_strides, uint64_t bytes, int layers,
                  size_t count, Pair pair) {
  constexpr long long size = sizeof(Word);
  for (size_t first = 0; first < count; first += pairs_a_launch) {
    page_pairs p{};
    const size_t n = std::min<size_t>(pairs_a_launch, count - first);
    for (size_t i = 0; i < n; i++) std::tie(p.source[i], p.target[i]) = pair(first + i);
    launch(native(s), KERNEL(copy_pages_kernel<Word>), dim3(unsigned(n), unsigned(layers)), page_threads, 0, reinterpret_cast<Word*>(to),
           reinterpret_cast<const Word*>(from), p, page_strides{to_strides.page / size, to_strides.layer / size},
           page_strides{from_strides.page / size, from_strides.layer / size}, (long long)(bytes) / size);
  }
}

// By the widest words that every stride allows. Pools and parts of a page in host memory begin at multiples of 16 bytes.
template <typename Pair>
static void copy(stream& s, char* to, const char* from, page_strides to_strides, page_strides from_strides, uint64_t bytes, int layers,
                 size_t count, Pair pair) {
  const uint64_t all = uint64_t(to_strides.page | to_strides.layer | from_strides.page | from_strides.layer) | bytes;
  const auto with = [&](auto word) { start<decltype(word)>(s, to, from, to_strides, from_strides, bytes, layers, count, pair); };
  if (all % 16 == 0) with(uint4());
  else if (all % 4 == 0) with(uint32_t());
  else if (all % 2 == 0) with(uint16_t());
  else with((unsigned char)0);
}

// each(part, strides in the pool, strides in host memory)
template <typename Each>
static void for_pools(const kv_view& c, Each each) {
  const page_layout page = layout_of_page(c);
  for (const page_part& part : page.parts)
    if (part.pool != nullptr)
      each(part, page_strides{(long long)part.bytes, (long long)part.layer_bytes}, page_strides{(long long)page.bytes, (long long)part.bytes});
}

void copy_pages_cuda(stream& s, const copy_pages_args& a) {
  for_pools(a.cache, [&](const page_part& part, page_strides in_pool, page_strides) {
    copy(s, part.pool, part.pool, in_pool, in_pool, part.bytes, a.cache.layers, a.pairs.size(), [&](size_t i) { return a.pairs[i]; });
  });
}

void save_pages_cuda(stream& s, const host_pages_args& a) {
  for_pools(a.cache, [&](const page_part& part, page_strides in_pool, page_strides in_host) {
    copy(s, a.host + part.host_offset, part.pool, in_host, in_pool, part.bytes, a.cache.layers, a.pages.size(),
         [&](size_t i) { return std::pair(a.pages[i], int32_t(i)); });
  });
}

void load_pages_cuda(stream& s, const host_pages_args& a) {
  for_pools(a.cache, [&](const page_part& part, page_strides in_pool, page_strides in_host) {
    copy(s, part.pool, a.host + part.host_offset, in_pool, in_host, part.bytes, a.cache.layers, a.pages.size(),
         [&](size_t i) { return std::pair(int32_t(i), a.pages[i]); });
  });
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
