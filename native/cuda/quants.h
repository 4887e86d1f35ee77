// What stands in a quantised row of a file, in the numbers of kernels/packed.h.
#pragma once

#include <vector>

#include "backend.h"
#include "weight.h"

namespace sl {
namespace SL_BACKEND_NS {

struct packed_format {
  sl::SL_BACKEND_NS::storage storage;
  sl::SL_BACKEND_NS::scaling scaling;
  int group;   // columns that share a scale, as it is kept: a file's group may be kept as several of the same scale
  int center;
};

// Five- and six-bit numbers stay so; GPTQ and AWQ with one zero point for all of a matrix keep no others. Numbers that have no
// packed form become f32.
packed_format format_of(const sl_weight_source& source);

struct packed_row {
  std::vector<uint8_t> q;       // [K], from 0
  std::vector<uint8_t> scales;  // [ceil(K / group)], scale_size bytes each
  std::vector<uint8_t> supers;  // [ceil(K / 256)], super_size bytes each
  void read(const sl_weight_source& source, int64_t row, const packed_format& format);

 private:
  void read_block(sl_encoding encoding, const uint8_t* block, int64_t first);
  void read_grouped(const sl_weight_source& source, int64_t row, const packed_format& format);
};

}  // namespace SL_BACKEND_NS
}  // namespace sl
