// GPTQ's and AWQ's nibbles, from their files' order to panels, and back.
#include "int4.h"

#include <algorithm>
#include <cstring>

#include "blocks.h"

namespace sl::cpu {
namespace {

template <typename T>
T read(const void* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

void pack_int4_panel(const sl_weight_source& s, const std::vector<int32_t>& order, int64_t panel, int64_t scales_offset,
                     uint8_t* p) {
  static constexpr int kAwqNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  const bool awq = s.encoding == SL_ENCODING_AWQ4;
  const auto* data = static_cast<const uint8_t*>(s.data);
  const auto* scales = static_cast<const uint8_t*>(s.scales);
  const auto* zeros = static_cast<const uint8_t*>(s.zeros);
  const int64_t first = panel * kPanelRows, rows = std::min(kPanelRows, s.rows - first), words_a_row = s.rows / 8;
  for (int64_t k = 0; k < s.cols; ++k) {
    const int64_t column = order.empty() ? k : order[static_cast<size_t>(k)];
    uint8_t* to = p + k / kInt4Word * kInt4WordBytes + k % kInt4Word / 2;
    for (int64_t lane = 0; lane < rows; ++lane) {
      const int64_t n = first + lane;
      const uint32_t bits = awq ? read<uint32_t>(data + (column * words_a_row + n / 8) * 4) >> (4 * kAwqNibble[n % 8])
                                : read<uint32_t>(data + (column / 8 * s.rows + n) * 4) >> (4 * (column % 8));
      to[4 * lane] = static_cast<uint8_t>(to[4 * lane] | (bits & 15) << (4 * (k % 2)));
    }
  }
  for (int64_t group = 0; group < s.cols / s.group; ++group) {
    uint8_t* to = p + scales_offset + group * kInt4GroupBytes;
    for (int64_t lane = 0; lane < rows; ++lane) {
      const int64_t n = first + lane;
      std::memcpy(to + 2 * lane, scales + (group * s.rows + n) * 2, 2);
      const int64_t nibble = awq ? kAwqNibble[n % 8] : n % 8;
      const uint32_t stored = read<uint32_t>(zeros + (group * words_a_row + n / 8) * 4) >> (4 * nibble) & 15;
      to[2 * kPanelRows + lane] = static_cast<uint8_t>(stored + static_cast<uint32_t>(zero_offset(s.encoding)));
    }
  }
}

void unpack_int4_row(const cpu_weight& w, int64_t row, float* out) {
  const packed_weight& p = w.packed;
  const uint8_t* panel = p.data + row / kPanelRows * p.panel_bytes;
  const int64_t lane = row % kPanelRows;
  for (int64_t k = 0; k < p.cols; ++k) {
    const uint8_t* group = panel + p.scales_offset + k / p.group * kInt4GroupBytes;
    const uint8_t both = panel[k / kInt4Word * kInt4WordBytes + 4 * lane + k % kInt4Word / 2];
    const float q = static_cast<float>(both >> (4 * (k % 2)) & 15) - static_cast<float>(group[2 * kPanelRows + lane]);
    out[w.order.empty() ? k : w.order[static_cast<size_t>(k)]] = f16_to_f32(read<uint16_t>(group + 2 * lane)) * q;
  }
}

}  // namespace sl::cpu
