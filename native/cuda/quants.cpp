// Where each encoding keeps its integers: the layouts are described in abi/blocks.cpp, which gives their values.
#include "quants.h"

#include <cstring>

#include "blocks.h"

namespace sl {
namespace SL_BACKEND_NS {
namespace {

template <typename T>
T read_as(const void* at) {
  T v;
  std::memcpy(&v, at, sizeof v);
  return v;
}
float half_at(const void* at) { return f16_to_f32(read_as<uint16_t>(at)); }

void scale_and_min(const uint8_t* packed, int j, int& scale, int& min) {
  if (j < 4) {
    scale = packed[j] & 63, min = packed[j + 4] & 63;
  } else {
    scale = (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4;
    min = (packed[j + 4] >> 4) | (packed[j] >> 6) << 4;
  }
}

}  // namespace

// `first` is the block's first weight.
void row_quants::read_block(sl_encoding encoding, const uint8_t* b, int64_t first) {
  int* out = q.data() + first;
  float *s = scale.data(), *o = second.data();
  const auto nibbles = [&](const uint8_t* bytes, const uint8_t* fifth, int offset) {
    const uint32_t high = fifth ? read_as<uint32_t>(fifth) : 0;
    for (int j = 0; j < 16; j++) {
      out[j] = ((bytes[j] & 15) | int(high >> j & 1) << 4) - offset;
      out[j + 16] = ((bytes[j] >> 4) | int(high >> (j + 16) & 1) << 4) - offset;
    }
  };
  switch (encoding) {
    case SL_ENCODING_Q4_0: nibbles(b + 2, nullptr, 0), s[first / 32] = half_at(b), o[first / 32] = 8; return;
    case SL_ENCODING_Q4_1: nibbles(b + 4, nullptr, 0), s[first / 32] = half_at(b), o[first / 32] = half_at(b + 2); return;
    case SL_ENCODING_Q5_0: nibbles(b + 6, b + 2, 16), s[first / 32] = half_at(b), o[first / 32] = 0; return;
    case SL_ENCODING_Q5_1: nibbles(b + 8, b + 4, 0), s[first / 32] = half_at(b), o[first / 32] = half_at(b + 2); return;
    case SL_ENCODING_Q8_0:
      for (int j = 0; j < 32; j++) out[j] = int8_t(b[2 + j]);
      s[first / 32] = half_at(b), o[first / 32] = 0;
      return;
    case SL_ENCODING_Q4_K:
    case SL_ENCODING_Q5_K: {
      const bool five = encoding == SL_ENCODING_Q5_K;
      const uint8_t* low = b + (five ? 48 : 16);
      for (int part = 0; part < 8; part++) {
        int factor, min;
        scale_and_min(b + 4, part, factor, min);
        s[first / 32 + part] = half_at(b) * float(factor), o[first / 32 + part] = -(half_at(b + 2) * float(min));
        for (int j = 0; j < 32; j++) {
          const int byte = low[part / 2 * 32 + j];
          out[part * 32 + j] = (part % 2 ? byte >> 4 : byte & 15) | (five ? (b[16 + j] >> part & 1) << 4 : 0);
        }
      }
      return;
    }
    default:  // Q6_K
      for (int j = 0; j < 256; j++) {
        const int part = j / 128, quarter = j % 128 / 32, i = j % 32;
        const int byte = b[part * 64 + quarter % 2 * 32 + i];
        out[j] = ((quarter < 2 ? byte & 15 : byte >> 4) | (b[128 + part * 32 + i] >> (2 * quarter) & 3) << 4) - 32;
      }
      for (int g = 0; g < 16; g++) s[first / 16 + g] = half_at(b + 208) * float(int8_t(b[192 + g])), o[first / 16 + g] = 0;
  }
}

void row_quants::read_gptq(const sl_weight_source& s, int64_t n) {
  const auto* data = static_cast<const uint8_t*>(s.data);
  for (int64_t k = 0; k < s.cols; k++) q[size_t(k)] = int(read_as<uint32_t>(data + (k / 8 * s.rows + n) * 4) >> (4 * (k % 8)) & 15);
  for (int64_t g = 0; g < s.cols / s.group; g++) {
    scale[size_t(g)] = half_at(static_cast<const uint8_t*>(s.scales) + (g * s.rows + n) * 2);
    const auto zeros = read_as<uint32_t>(static_cast<const uint8_t*>(s.zeros) + (g * (s.rows / 8) + n / 8) * 4);
    second[size_t(g)] = float(int(zeros >> (4 * (n % 8)) & 15) + zero_offset(s.encoding));
  }
}

void row_quants::read_awq(const sl_weight_source& s, int64_t n) {
  static constexpr int nibble_of_column[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  const int shift = 4 * nibble_of_column[n % 8];
  const auto* data = static_cast<const uint8_t*>(s.data);
  for (int64_t k = 0; k < s.cols; k++) q[size_t(k)] = int(read_as<uint32_t>(data + (k * (s.rows / 8) + n / 8) * 4) >> shift & 15);
  for (int64_t g = 0; g < s.cols / s.group; g++) {
    scale[size_t(g)] = half_at(static_cast<const uint8_t*>(s.scales) + (g * s.rows + n) * 2);
    const auto zeros = read_as<uint32_t>(static_cast<const uint8_t*>(s.zeros) + (g * (s.rows / 8) + n / 8) * 4);
    second[size_t(g)] = float(int(zeros >> shift & 15));
  }
}

void row_quants::read(const sl_weight_source& s, int64_t n, int group) {
  q.assign(size_t(s.cols), 0);
  scale.assign(size_t(s.cols / group), 0);
  second.assign(size_t(s.cols / group), 0);
  const auto* data = static_cast<const uint8_t*>(s.data);
  switch (s.encoding) {
    case SL_ENCODING_GPTQ4:
    case SL_ENCODING_GPTQ4_V2: return read_gptq(s, n);
    case SL_ENCODING_AWQ4: return read_awq(s, n);
    case SL_ENCODING_INT8:
      for (int64_t k = 0; k < s.cols; k++) q[size_t(k)] = int8_t(data[n * s.cols + k]);
      for (int64_t g = 0; g < s.cols / group; g++)
        scale[size_t(g)] = read_as<float>(static_cast<const uint8_t*>(s.scales) + (n * (s.cols / group) + g) * 4);
      return;
    default: break;
  }
  const int64_t values = block_values(s), bytes = block_bytes(s.encoding);
  for (int64_t b = 0; b < s.cols / values; b++) read_block(s.encoding, data + (n * (s.cols / values) + b) * bytes, b * values);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
