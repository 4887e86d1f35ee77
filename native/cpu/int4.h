// Panels of GPTQ and AWQ weights (format int4: the layout stands in kernels.h).
#pragma once

#include "cpu.h"

namespace sl::cpu {

constexpr int64_t kInt4Word = 8;                           // values of a 32-bit word
constexpr int64_t kInt4WordBytes = 4 * kPanelRows;         // a word of each row
constexpr int64_t kInt4GroupBytes = (2 + 1) * kPanelRows;  // an f16 scale and a u8 zero point of each row

// Rows 16 * panel .. of the source to p, which is zero; order as in cpu_weight.
void pack_int4_panel(const sl_weight_source& source, const std::vector<int32_t>& order, int64_t panel,
                     int64_t scales_offset, uint8_t* p);

void unpack_int4_row(const cpu_weight& w, int64_t row, float* out);  // out[K], the exact values

}  // namespace sl::cpu
