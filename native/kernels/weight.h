// A matrix [N, K] on the device, as the kernels read it.
#pragma once

#include "backend.h"

namespace sl {
namespace SL_BACKEND_NS {

enum class storage {
  f32, f16, bf16,  // row-major
  int4_zero,       // w = scale * (q - zero), scale and zero a half2 by group: Q4_0, GPTQ, AWQ
  int4_bias,       // w = scale * q + bias, a half2 by group: Q4_1
  int4_wide,       // the same, a float2 by group: Q4_K, whose scales are products
  int8,            // w = scale * q + bias, a float2 by group: the other encodings
};

class cuda_device;

class cuda_weight final : public weight {
 public:
  explicit cuda_weight(cuda_device& d) : device_(d) {}
  ~cuda_weight() override;
  uint64_t bytes() const override { return data_bytes + group_bytes; }

  sl::SL_BACKEND_NS::storage storage = storage::f32;
  char* data = nullptr;    // row-major values, or units as packed.h describes them
  char* groups = nullptr;  // [N, K / group]
  uint64_t data_bytes = 0, group_bytes = 0;
  int32_t group = 1;       // weights along K that share a scale

  template <typename T>
  const T* values() const { return reinterpret_cast<const T*>(data); }
  template <typename T>
  const T* scales() const { return reinterpret_cast<const T*>(groups); }

 private:
  cuda_device& device_;
};

}  // namespace SL_BACKEND_NS
}  // namespace sl
