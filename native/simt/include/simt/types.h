// CUDA's plain types: vectors with CUDA's alignment, and grid dimensions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simt {

struct uint3 { unsigned x, y, z; };

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};

#define SIMT_VECTORS(T, name, align2, align4)                                    \
  struct alignas(align2) name##2 { T x, y; };                                    \
  struct alignas(align4) name##4 { T x, y, z, w; };                              \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                     \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

SIMT_VECTORS(signed char, char, 2, 4)
SIMT_VECTORS(unsigned char, uchar, 2, 4)
SIMT_VECTORS(short, short, 4, 8)
SIMT_VECTORS(unsigned short, ushort, 4, 8)
SIMT_VECTORS(int, int, 8, 16)
SIMT_VECTORS(unsigned, uint, 8, 16)
SIMT_VECTORS(float, float, 8, 16)
SIMT_VECTORS(long long, longlong, 16, 16)
SIMT_VECTORS(unsigned long long, ulonglong, 16, 16)
SIMT_VECTORS(double, double, 16, 16)
#undef SIMT_VECTORS

struct float3 { float x, y, z; };
struct int3 { int x, y, z; };

}  // namespace simt
