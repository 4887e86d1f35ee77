// A matrix [N, K] on the device, as the kernels read it.
#pragma once

#include "backend.h"

namespace sl {
namespace SL_BACKEND_NS {

enum class storage {
  f32, f16, bf16,                // row-major
  four, five, six, eight         // bits, as packed.h lays them out: w = scale * (q - center) + bias
};

// What stands behind the groups' scales and biases.
enum class scaling {
  half,          // f16 scale
  half_zero,     // f16 scale, f16 zero point: bias = -scale * zero
  half_bias,     // f16 scale, f16 bias
  full,          // f32 scale
  super,         // u8 factor, u8 minimum by 32; f16 d, f16 dmin by 256: scale = d * factor, bias = -(dmin * minimum)
  super_signed,  // i8 factor by 16; f16 d by 256: scale = d * factor
  any,           // of kernels that look it up when they run
};

class cuda_device;

class cuda_weight final : public weight {
 public:
  explicit cuda_weight(const cuda_device& d) : device_(d) {}
  ~cuda_weight() override;
  uint64_t bytes() const override { return data_bytes + high_bytes + scale_bytes + super_bytes; }
  bool quantised() const { return storage >= sl::SL_BACKEND_NS::storage::four; }

  sl::SL_BACKEND_NS::storage storage = storage::f32;
  sl::SL_BACKEND_NS::scaling scaling = scaling::half;
  int32_t group = 1;       // weights along K that share a scale, as they are kept: 32, 64 or 128; 16 of six bits
  int32_t center = 0;      // q that stands for 0
  char* data = nullptr;    // row-major values, or the low four or all eight bits
  char* high = nullptr;    // the fifth and sixth
  char* scales = nullptr;
  char* supers = nullptr;  // of blocks of 256: [N / 8][blocks][8]
  uint64_t data_bytes = 0, high_bytes = 0, scale_bytes = 0, super_bytes = 0;

  template <typename T>
  const T* values() const { return reinterpret_cast<const T*>(data); }

  bool borrowed = false;  // data is a stream's, for one op

 private:
  const cuda_device& device_;
};

// Bytes of a group's scale (and bias).
constexpr int scale_size(scaling s) {
  switch (s) {
    case scaling::half:
    case scaling::super: return 2;
    case scaling::super_signed: return 1;
    default: return 4;
  }
}
constexpr int super_size(scaling s) { return s == scaling::super ? 4 : s == scaling::super_signed ? 2 : 0; }

}  // namespace SL_BACKEND_NS
}  // namespace sl
