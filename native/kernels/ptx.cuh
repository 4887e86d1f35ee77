// PTX instructions, each wrapped once: assembly under nvcc, a host body in the executor. Kernels hold no assembly.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "mem.cuh"

#if !defined(__CUDACC__)
#include "simt/hooks.h"
#endif

namespace sl {
namespace SL_BACKEND_NS {

// --- asynchronous copies from global to shared memory, 16 bytes a thread (sm_80) -------------------------------------

// Through L2 only, and fetching 128 bytes into it: a neighbour wants the rest.
template <typename T>
__device__ __forceinline__ void cp_async_16(smem<T> to, gmem<const T> from) {
#if defined(__CUDACC__)
  const unsigned address = unsigned(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
#else
  simt::async_copy(to.p, to.low, to.high, from.p, from.low, from.high, 16, 0);
#endif
}

// Zeroes instead where `valid` is false; `from` is not read then.
template <typename T>
__device__ __forceinline__ void cp_async_16_or_zero(smem<T> to, gmem<const T> from, bool valid) {
#if defined(__CUDACC__)
  const unsigned address = unsigned(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(valid ? 16 : 0)
               : "memory");
#else
  simt::async_copy(to.p, to.low, to.high, from.p, from.low, from.high, valid ? 16 : 0, valid ? 0 : 16);
#endif
}

// 4 or 8 bytes, through L1: what neighbours and later copies read again.
template <typename T>
__device__ __forceinline__ void cp_async_small(smem<T> to, gmem<const T> from) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "4 or 8 bytes");
#if defined(__CUDACC__)
  const unsigned address = unsigned(__cvta_generic_to_shared(to));
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(address), "l"(from), "n"(int(sizeof(T))) : "memory");
#else
  simt::async_copy(to.p, to.low, to.high, from.p, from.low, from.high, sizeof(T), 0);
#endif
}

__device__ __forceinline__ void cp_async_commit() {
#if defined(__CUDACC__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  simt::async_commit();
#endif
}

// Waits until at most `Left` of this thread's groups are in flight. Others see the bytes after a barrier.
template <int Left>
__device__ __forceinline__ void cp_async_wait() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
#else
  simt::async_wait(Left);
#endif
}

// --- tensor cores -----------------------------------------------------------------------------------------------

// Four 8x8 matrices of 16-bit elements. Lane l gives the address of row l % 8 of matrix l / 8.
template <typename T>
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], smem<const T> row) {
#if defined(__CUDACC__)
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(unsigned(__cvta_generic_to_shared(row))) : "memory");
#else
  simt::load_matrix(r, 4, false, row.p, row.low, row.high);
#endif
}

template <typename T>
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&r)[4], smem<const T> row) {
#if defined(__CUDACC__)
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(unsigned(__cvta_generic_to_shared(row))) : "memory");
#else
  simt::load_matrix(r, 4, true, row.p, row.low, row.high);
#endif
}

// d[16,8] += a[16,16] * b[16,8]; T is half or __nv_bfloat16, d is f32.
template <typename T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

template <>
__device__ __forceinline__ void mma_m16n8k16<half>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(__CUDACC__)
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  simt::multiply_m16n8k16(d, a, b, simt::mma_type::f16);
#endif
}

template <>
__device__ __forceinline__ void mma_m16n8k16<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4],
                                                            const uint32_t (&b)[2]) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  simt::multiply_m16n8k16(d, a, b, simt::mma_type::bf16);
#endif
}

// d[16,8] += a[16,32] * b[32,8] of signed bytes; d is i32, and exact.
__device__ __forceinline__ void mma_m16n8k32(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(__CUDACC__)
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  simt::multiply_m16n8k32(d, a, b);
#endif
}

// --- arithmetic ---------------------------------------------------------------------------------------------------

// 2^x and log2(x), to about 2^-22 relative; ex2(-inf) is 0 and lg2(0) is -inf.
__device__ __forceinline__ float ex2(float x) {
#if defined(__CUDACC__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

__device__ __forceinline__ float lg2(float x) {
#if defined(__CUDACC__)
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return log2f(x);
#endif
}

// Any function of three bits, bit by bit: Table is its value for a = 0xf0, b = 0xcc, c = 0xaa.
template <int Table>
__device__ __forceinline__ uint32_t lop3(uint32_t a, uint32_t b, uint32_t c) {
#if defined(__CUDACC__)
  uint32_t r;
  asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(r) : "r"(a), "r"(b), "r"(c), "n"(Table));
  return r;
#else
  uint32_t r = 0;
  for (int i = 0; i < 8; i++)
    if (Table >> i & 1) r |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
  return r;
#endif
}

// --- loads, stores and hints ----------------------------------------------------------------------------------------

// 16 bytes that nothing writes while the kernel runs and nobody reads twice: past L1, and a whole 256 bytes into L2.
__device__ __forceinline__ uint4 load_stream_16(gmem<const uint4> p) {
#if defined(__CUDACC__)
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
#else
  return p[0];
#endif
}

// What other blocks have written: past L1, which does not know of it.
__device__ __forceinline__ float load_l2(gmem<const float> p) {
#if defined(__CUDACC__)
  float v;
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
  return v;
#else
  simt::acquire_now(p.p);
  return p[0];
#endif
}
__device__ __forceinline__ float4 load_l2(gmem<const float4> p) {
#if defined(__CUDACC__)
  float4 v;
  asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p) : "memory");
  return v;
#else
  simt::acquire_now(p.p);
  return p[0];
#endif
}

template <typename T>
__device__ __forceinline__ void prefetch_l2(gmem<const T> p) {
#if defined(__CUDACC__)
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#else
  (void)p;
#endif
}

__device__ __forceinline__ unsigned load_acquire(gmem<const unsigned> p) {
#if defined(__CUDACC__)
  unsigned v;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
#else
  simt::acquire(p.p);
  return p[0];
#endif
}

__device__ __forceinline__ void store_release(gmem<unsigned> p, unsigned v) {
#if defined(__CUDACC__)
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
#else
  simt::release(p.p);
  p[0] = v;
#endif
}

// --- programmatic dependent launch (sm_90; nothing on older ones) -----------------------------------------------------

// Waits for the kernels before this one, when it was launched early.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel start its blocks as this one's drain.
__device__ __forceinline__ void allow_next_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
