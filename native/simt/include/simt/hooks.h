// Host bodies of the PTX instructions that kernels/ptx.cuh wraps.
#pragma once

#include <cstdint>

#include "simt/device.h"
#include "simt/views.h"

namespace simt {

// cp.async: `fill` bytes beyond `bytes` are zeroed. The destination is poisoned now and written at the wait.
void async_copy(void* to, const char* to_low, const char* to_high, const void* from, const char* from_low,
                const char* from_high, unsigned bytes, unsigned fill);
void async_commit();
void async_wait(unsigned groups_left);

// ldmatrix.x1/x2/x4: the lane's own row of 16 bytes, and `count` 8x8 matrices of 16-bit elements.
void load_matrix(uint32_t* out, int count, bool transposed, const void* row, const char* low, const char* high, SIMT_SITE);

// mma.m16n8k16, row.col, f32 accumulation.
enum class mma_type { f16, bf16 };
void multiply_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], mma_type, SIMT_SITE);
// mma.m16n8k32, row.col, signed bytes, i32 accumulation.
void multiply_m16n8k32(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SIMT_SITE);

}  // namespace simt
