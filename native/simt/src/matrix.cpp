// ldmatrix and mma: 32 lanes meet, and the last to arrive moves or multiplies for all. The maps of which lane holds
// which element are those of the PTX manual, "Matrix Fragments for mma.m16n8k16", "mma.m16n8k32" and "ldmatrix".
#include <cstring>

#include "executor.h"
#include "simt/bfloat16.h"
#include "simt/half.h"
#include "simt/hooks.h"

namespace simt {
namespace {

struct matrix_slot { uint16_t row[8]; uint32_t out[4]; int count; bool transposed; };

void do_load(unsigned, void* const* slots) {
  const auto slot = [&](int i) -> matrix_slot& { return *static_cast<matrix_slot*>(slots[i]); };
  const int count = slot(0).count;
  const bool transposed = slot(0).transposed;
  for (int m = 0; m < count; m++)
    for (int t = 0; t < 32; t++) {
      const int r = t / 4, c = t % 4 * 2;
      const uint16_t low = transposed ? slot(8 * m + c).row[r] : slot(8 * m + r).row[c];
      const uint16_t high = transposed ? slot(8 * m + c + 1).row[r] : slot(8 * m + r).row[c + 1];
      slot(t).out[m] = uint32_t(high) << 16 | low;
    }
}

struct multiply_slot { uint32_t a[4], b[2]; float d[4]; mma_type type; };

float element(const uint32_t* registers, int i, mma_type type) {
  const uint16_t bits = uint16_t(registers[i / 2] >> (16 * (i & 1)));
  return type == mma_type::f16 ? float_from_half_bits(bits) : bits_as<float>(uint32_t(bits) << 16);
}

void do_multiply(unsigned, void* const* slots) {
  count().mma++;
  float a[16][16], b[16][8];
  for (int t = 0; t < 32; t++) {
    const auto& s = *static_cast<const multiply_slot*>(slots[t]);
    const int group = t / 4, in_group = t % 4;
    for (int i = 0; i < 8; i++) {
      const int row = (i < 2 || (i >= 4 && i < 6)) ? group : group + 8;
      const int column = in_group * 2 + (i & 1) + (i < 4 ? 0 : 8);
      a[row][column] = element(s.a, i, s.type);
    }
    for (int i = 0; i < 4; i++) b[in_group * 2 + (i & 1) + (i < 2 ? 0 : 8)][group] = element(s.b, i, s.type);
  }
  for (int t = 0; t < 32; t++) {
    auto& s = *static_cast<multiply_slot*>(slots[t]);
    for (int i = 0; i < 4; i++) {
      const int row = t / 4 + (i < 2 ? 0 : 8), column = t % 4 * 2 + (i & 1);
      float sum = s.d[i];
      for (int k = 0; k < 16; k++) sum += a[row][k] * b[k][column];
      s.d[i] = sum;
    }
  }
}

struct multiply_bytes_slot { uint32_t a[4], b[2]; int d[4]; };

void do_multiply_bytes(unsigned, void* const* slots) {
  count().mma++;
  int a[16][32], b[32][8];
  const auto byte = [](const uint32_t* registers, int i) { return int(int8_t(registers[i / 4] >> (8 * (i & 3)) & 0xff)); };
  for (int t = 0; t < 32; t++) {
    const auto& s = *static_cast<const multiply_bytes_slot*>(slots[t]);
    const int group = t / 4, in_group = t % 4;
    for (int i = 0; i < 16; i++) a[group + (i / 4 % 2) * 8][in_group * 4 + (i & 3) + (i < 8 ? 0 : 16)] = byte(s.a, i);
    for (int i = 0; i < 8; i++) b[in_group * 4 + (i & 3) + (i < 4 ? 0 : 16)][group] = byte(s.b, i);
  }
  for (int t = 0; t < 32; t++) {
    auto& s = *static_cast<multiply_bytes_slot*>(slots[t]);
    for (int i = 0; i < 4; i++) {
      const int row = t / 4 + (i < 2 ? 0 : 8), column = t % 4 * 2 + (i & 1);
      for (int k = 0; k < 32; k++) s.d[i] += a[row][k] * b[k][column];
    }
  }
}

}  // namespace

void load_matrix(uint32_t* out, int n, bool transposed, const void* row, const char* low, const char* high,
                 const char* file, int line) {
  matrix_slot s;
  s.count = n, s.transposed = transposed;
  // Lane l owns row l % 8 of matrix l / 8; the addresses of the lanes beyond 8 * n are not looked at.
  if (int(self()->number()) < 8 * n) {
    touch_shared_read(row, 16, low, high, __builtin_return_address(0));
    tsan_read(row, 16);
    std::memcpy(s.row, row, 16);
  }
  meet("ldmatrix", 30 + n + (transposed ? 8 : 0), 0xffffffffu, &s, do_load, file, line);
  std::memcpy(out, s.out, size_t(n) * 4);
}

void multiply_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], mma_type type, const char* file,
                       int line) {
  multiply_slot s;
  std::memcpy(s.a, a, sizeof a), std::memcpy(s.b, b, sizeof b), std::memcpy(s.d, d, sizeof d);
  s.type = type;
  meet("mma.m16n8k16", 50 + int(type), 0xffffffffu, &s, do_multiply, file, line);
  std::memcpy(d, s.d, sizeof d);
}

void multiply_m16n8k32(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const char* file, int line) {
  multiply_bytes_slot s;
  std::memcpy(s.a, a, sizeof a), std::memcpy(s.b, b, sizeof b), std::memcpy(s.d, d, sizeof d);
  meet("mma.m16n8k32", 52, 0xffffffffu, &s, do_multiply_bytes, file, line);
  std::memcpy(d, s.d, sizeof d);
}

}  // namespace simt
