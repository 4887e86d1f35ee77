// What device code sees beside memory: who it is, barriers, warp operations, fences.
// Barriers and warp operations take their source line, so that a divergence can name both.
#pragma once

#include <cstring>
#include <type_traits>

#include "simt/types.h"

#define SIMT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define threadIdx (::simt::current->thread)
#define blockIdx (::simt::current->block_index)
#define blockDim (::simt::current->block_dim)
#define gridDim (::simt::current->grid_dim)

namespace simt {

constexpr int warpSize = 32;

struct thread_context {
  uint3 thread, block_index;
  dim3 block_dim, grid_dim;
};

// The CUDA thread that is running. Kernels of one process run one at a time, on one OS thread each.
extern thread_context* current;

void __syncthreads(SIMT_SITE);
int __syncthreads_or(int predicate, SIMT_SITE);
int __syncthreads_and(int predicate, SIMT_SITE);
int __syncthreads_count(int predicate, SIMT_SITE);
void __syncwarp(unsigned mask = 0xffffffffu, SIMT_SITE);

// Lets a thread end before a barrier that others wait at: legal from sm_70 on, and otherwise reported, because it is
// more often a mistake.
void allow_early_exit();

enum class shuffle_kind { from, up, down, exclusive_or };
uint64_t shuffle(shuffle_kind, unsigned mask, uint64_t value, int argument, int width, const char* file, int line);

template <typename T>
T shuffle_as(shuffle_kind kind, unsigned mask, T value, int argument, int width, const char* file, int line) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle(kind, mask, bits, argument, width, file, line);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

template <typename T>
T __shfl_sync(unsigned mask, T v, int lane, int width = 32, SIMT_SITE) {
  return shuffle_as(shuffle_kind::from, mask, v, lane, width, file, line);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, SIMT_SITE) {
  return shuffle_as(shuffle_kind::up, mask, v, int(delta), width, file, line);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, SIMT_SITE) {
  return shuffle_as(shuffle_kind::down, mask, v, int(delta), width, file, line);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, SIMT_SITE) {
  return shuffle_as(shuffle_kind::exclusive_or, mask, v, bits, width, file, line);
}

unsigned __ballot_sync(unsigned mask, int predicate, SIMT_SITE);
int __any_sync(unsigned mask, int predicate, SIMT_SITE);
int __all_sync(unsigned mask, int predicate, SIMT_SITE);
unsigned __match_any_sync(unsigned mask, unsigned value, SIMT_SITE);
unsigned __reduce_add_sync(unsigned mask, unsigned value, SIMT_SITE);
unsigned __reduce_max_sync(unsigned mask, unsigned value, SIMT_SITE);
unsigned __reduce_min_sync(unsigned mask, unsigned value, SIMT_SITE);

// Fences order nothing here: one thread runs at a time. They are a place to let others run.
void __threadfence();
void __threadfence_block();
void __threadfence_system();
void __nanosleep(unsigned);
[[noreturn]] void __trap();
long long clock64();

}  // namespace simt
