// The integers behind a quantised row: w[k] = scale[g] * q[k] + second[g], or scale[g] * (q[k] - second[g]) for the
// encodings with a zero point (Q4_0, GPTQ, AWQ); g = k / group.
#pragma once

#include <vector>

#include "backend.h"

namespace sl {
namespace SL_BACKEND_NS {

struct row_quants {
  std::vector<int> q;
  std::vector<float> scale, second;
  void read(const sl_weight_source& source, int64_t row, int group);

 private:
  void read_block(sl_encoding encoding, const uint8_t* block, int64_t first);
  void read_gptq(const sl_weight_source& source, int64_t row);
  void read_awq(const sl_weight_source& source, int64_t row);
};

}  // namespace SL_BACKEND_NS
}  // namespace sl
