// Where each encoding keeps its integers: the layouts are described in abi/blocks.cpp, which gives their values.
#include "quants.h"

#include <algorithm>
#include <cstring>

#include "blocks.h"
#include "packed.h"

namespace sl {
namespace SL_BACKEND_NS {
namespace {

template <typename T>
T read_as(const void* at) {
  T v;
  std::memcpy(&v, at, sizeof v);
  return v;
}
void scale_and_min(const uint8_t* packed, int j, uint8_t& scale, uint8_t& min) {
  if (j < 4) {
    scale = packed[j] & 63, min = packed[j + 4] & 63;
  } else {
    scale = uint8_t((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4);
    min = uint8_t((packed[j + 4] >> 4) | (packed[j] >> 6) << 4);
  }
}

constexpr int nibble_of_awq_column[8] = {0, 4, 1, 5, 2, 6, 3, 7};

bool is_awq(const sl_weight_source& s) { return s.encoding == SL_ENCODING_AWQ4; }

int shift_of(const sl_weight_source& s, int64_t n) { return 4 * (is_awq(s) ? nibble_of_awq_column[n % 8] : int(n % 8)); }

// GPTQ's and AWQ's zero point of a row's group.
int zero_at(const sl_weight_source& s, int64_t n, int64_t g) {
  const auto word = read_as<uint32_t>(static_cast<const uint8_t*>(s.zeros) + (g * (s.rows / 8) + n / 8) * 4);
  return int(word >> shift_of(s, n) & 15) + (is_awq(s) ? 0 : zero_offset(s.encoding));
}

// The zero point of all groups of all rows, or -1.
int only_zero(const sl_weight_source& s) {
  const auto* words = static_cast<const uint8_t*>(s.zeros);
  const auto first = read_as<uint32_t>(words);
  if (first != (first & 15) * 0x11111111u) return -1;
  for (int64_t i = 1; i < s.cols / s.group * (s.rows / 8); i++)
    if (read_as<uint32_t>(words + i * 4) != first) return -1;
  return zero_at(s, 0, 0);
}

bool in_order(const sl_weight_source& s) {
  for (int64_t k = 0; s.order && k < s.cols; k++)
    if (s.order[k] != k / s.group) return false;
  return true;
}

// A group as it is kept: a block of 128, or a part of one; 0 where nothing fits.
int kept_group(int64_t group, int64_t cols) {
  if (group >= cols || group % packed_block == 0) return packed_block;
  return group == 64 ? 64 : group % 32 == 0 ? 32 : 0;
}

template <typename T>
void put_bytes(std::vector<uint8_t>& to, int64_t at, T v) { std::memcpy(to.data() + at * int64_t(sizeof v), &v, sizeof v); }

}  // namespace

packed_format format_of(const sl_weight_source& s) {
  constexpr packed_format floats{storage::f32, scaling::full, 1, 0};
  switch (s.encoding) {
    case SL_ENCODING_F16: return {storage::f16, scaling::full, 1, 0};
    case SL_ENCODING_BF16: return {storage::bf16, scaling::full, 1, 0};
    case SL_ENCODING_Q4_0: return {storage::four, scaling::half, 32, 8};
    case SL_ENCODING_Q4_1: return {storage::four, scaling::half_bias, 32, 0};
    case SL_ENCODING_Q5_0: return {storage::five, scaling::half, 32, 16};
    case SL_ENCODING_Q5_1: return {storage::five, scaling::half_bias, 32, 0};
    case SL_ENCODING_Q8_0: return {storage::eight, scaling::half, 32, 128};
    case SL_ENCODING_Q4_K: return {storage::four, scaling::super, 32, 0};
    case SL_ENCODING_Q5_K: return {storage::five, scaling::super, 32, 0};
    case SL_ENCODING_Q6_K: return {storage::six, scaling::super_signed, 16, 32};
    case SL_ENCODING_GPTQ4:
    case SL_ENCODING_GPTQ4_V2:
    case SL_ENCODING_AWQ4: {
      const int group = kept_group(s.group, s.cols);
      if (!in_order(s) || group == 0) return floats;
      const int zero = only_zero(s);
      return zero >= 0 ? packed_format{storage::four, scaling::half, group, zero} : packed_format{storage::four, scaling::half_zero, group, 0};
    }
    case SL_ENCODING_INT8: {
      const int group = kept_group(s.group, s.cols);
      return group == 0 ? floats : packed_format{storage::eight, scaling::full, group, 128};
    }
    default: return floats;
  }
}

// `first` is the block's first weight.
void packed_row::read_block(sl_encoding encoding, const uint8_t* b, int64_t first) {
  uint8_t* out = q.data() + first;
  const auto nibbles = [&](const uint8_t* bytes, const uint8_t* fifth) {
    const uint32_t high = fifth ? read_as<uint32_t>(fifth) : 0;
    for (int j = 0; j < 16; j++) {
      out[j] = uint8_t((bytes[j] & 15) | (high >> j & 1) << 4);
      out[j + 16] = uint8_t((bytes[j] >> 4) | (high >> (j + 16) & 1) << 4);
    }
  };
  switch (encoding) {
    case SL_ENCODING_Q4_0: nibbles(b + 2, nullptr), put_bytes(scales, first / 32, read_as<uint16_t>(b)); return;
    case SL_ENCODING_Q4_1: nibbles(b + 4, nullptr), put_bytes(scales, first / 32, read_as<uint32_t>(b)); return;
    case SL_ENCODING_Q5_0: nibbles(b + 6, b + 2), put_bytes(scales, first / 32, read_as<uint16_t>(b)); return;
    case SL_ENCODING_Q5_1: nibbles(b + 8, b + 4), put_bytes(scales, first / 32, read_as<uint32_t>(b)); return;
    case SL_ENCODING_Q8_0:
      for (int j = 0; j < 32; j++) out[j] = uint8_t(b[2 + j] + 128);
      put_bytes(scales, first / 32, read_as<uint16_t>(b));
      return;
    case SL_ENCODING_Q4_K:
    case SL_ENCODING_Q5_K: {
      const bool five = encoding == SL_ENCODING_Q5_K;
      const uint8_t* low = b + (five ? 48 : 16);
      for (int part = 0; part < 8; part++) {
        uint8_t both[2];
        scale_and_min(b + 4, part, both[0], both[1]);
        put_bytes(scales, first / 32 + part, read_as<uint16_t>(both));
        for (int j = 0; j < 32; j++) {
          const int byte = low[part / 2 * 32 + j];
          out[part * 32 + j] = uint8_t((part % 2 ? byte >> 4 : byte & 15) | (five ? (b[16 + j] >> part & 1) << 4 : 0));
        }
      }
      put_bytes(supers, first / 256, read_as<uint32_t>(b));
      return;
    }
    default:  // Q6_K
      for (int j = 0; j < 256; j++) {
        const int part = j / 128, quarter = j % 128 / 32, i = j % 32;
        const int byte = b[part * 64 + quarter % 2 * 32 + i];
        out[j] = uint8_t((quarter < 2 ? byte & 15 : byte >> 4) | (b[128 + part * 32 + i] >> (2 * quarter) & 3) << 4);
      }
      std::memcpy(scales.data() + first / 16, b + 192, 16);
      put_bytes(supers, first / 256, read_as<uint16_t>(b + 208));
  }
}

// GPTQ, AWQ and INT8: a file's groups, and those that are kept.
void packed_row::read_grouped(const sl_weight_source& s, int64_t n, const packed_format& f) {
  const auto* data = static_cast<const uint8_t*>(s.data);
  const int64_t K = s.cols, groups = K / s.group;
  const bool eight = s.encoding == SL_ENCODING_INT8;
  for (int64_t k = 0; k < K; k++) {
    if (eight) q[size_t(k)] = uint8_t(data[n * K + k] + 128);
    else if (is_awq(s)) q[size_t(k)] = uint8_t(read_as<uint32_t>(data + (k * (s.rows / 8) + n / 8) * 4) >> shift_of(s, n) & 15);
    else q[size_t(k)] = uint8_t(read_as<uint32_t>(data + (k / 8 * s.rows + n) * 4) >> (4 * (k % 8)) & 15);
  }
  for (int64_t kept = 0; kept < (K + f.group - 1) / f.group; kept++) {
    const int64_t g = std::min(kept * f.group / s.group, groups - 1);
    if (eight) {
      put_bytes(scales, kept, read_as<uint32_t>(static_cast<const uint8_t*>(s.scales) + (n * groups + g) * 4));
      continue;
    }
    const auto scale = read_as<uint16_t>(static_cast<const uint8_t*>(s.scales) + (g * s.rows + n) * 2);
    if (f.scaling == scaling::half) put_bytes(scales, kept, scale);
    else put_bytes(scales, kept, uint32_t(scale) | uint32_t(f32_to_f16(float(zero_at(s, n, g)))) << 16);
  }
}

void packed_row::read(const sl_weight_source& s, int64_t n, const packed_format& f) {
  q.assign(size_t(s.cols), 0);
  scales.assign(size_t((s.cols + f.group - 1) / f.group * scale_size(f.scaling)), 0);
  supers.assign(size_t((s.cols + super_block - 1) / super_block * super_size(f.scaling)), 0);
  switch (s.encoding) {
    case SL_ENCODING_GPTQ4:
    case SL_ENCODING_GPTQ4_V2:
    case SL_ENCODING_AWQ4:
    case SL_ENCODING_INT8: return read_grouped(s, n, f);
    default: break;
  }
  const auto* data = static_cast<const uint8_t*>(s.data);
  const int64_t values = block_values(s), bytes = block_bytes(s.encoding);
  for (int64_t b = 0; b < s.cols / values; b++) read_block(s.encoding, data + (n * (s.cols / values) + b) * bytes, b * values);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
