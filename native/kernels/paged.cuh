// Where a key or value lies. A layer's pool is [pages, Hkv, P, D]; a sequence is a row of page ids and a length.
#pragma once

#include "mem.cuh"

namespace sl {
namespace SL_BACKEND_NS {

// What kernels need of a step's plan; all of it is read on the device, because a graph is replayed with other plans.
struct device_plan {
  gmem<const int> header;          // num_tokens, num_sequences, ...
  gmem<const int> query_indptr;    // [B+1]
  gmem<const int> kv_lengths;      // [B]
  gmem<const int> page_indptr;     // [B+1]
  gmem<const int> page_ids;
  gmem<const int> positions;       // [T]
  gmem<const int> token_sequence;  // [T]
  gmem<const int> token_slot;      // [T]
  gmem<const unsigned char> mask;
  gmem<const int> mask_indptr;     // [B+1]
  __device__ __forceinline__ int num_tokens() const { return header[0]; }
};

struct page_shape {
  int kv_heads, page_shift;  // a page holds 2^page_shift slots: the size divides 256
};

// The row of D elements that holds a slot's key or value of a head. Pools are larger than 2^31 elements.
__device__ __forceinline__ long long page_row(page_shape s, int page, int head, int slot) {
  return (((long long)page * s.kv_heads + head) << s.page_shift) + (slot & ((1 << s.page_shift) - 1));
}

// The row of a token's own slot.
__device__ __forceinline__ long long token_row(const device_plan& p, page_shape s, int token, int head) {
  const int slot = p.token_slot[token];
  const int page = p.page_ids[p.page_indptr[p.token_sequence[token]] + (slot >> s.page_shift)];
  return page_row(s, page, head, slot);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
