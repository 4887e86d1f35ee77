// The encodings of weights, byte by byte. Source of the GGUF block layouts: ggml's quantisation formats (MIT); of GPTQ
// and AWQ: AutoGPTQ's and AutoAWQ's packing. Each value is made by the very operations of the format's definition, in
// their order, so that it is equal to the bit to what other engines call the value of a file.
#include "blocks.h"

#include <cmath>
#include <cstring>

namespace sl {
namespace {

template <typename T>
T read(const void* at) {
  T value;
  std::memcpy(&value, at, sizeof value);  // blocks of a mapped file are aligned to nothing
  return value;
}

float half_at(const uint8_t* at) { return f16_to_f32(read<uint16_t>(at)); }

void dequantise_q4_0(const uint8_t* block, float* out) {  // f16 d, 16 bytes: value j low nibble of j, 16+j high
  const float d = half_at(block);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>((block[2 + j] & 15) - 8);
    out[j + 16] = d * static_cast<float>((block[2 + j] >> 4) - 8);
  }
}

void dequantise_q4_1(const uint8_t* block, float* out) {  // f16 d, f16 m, 16 bytes
  const float d = half_at(block), m = half_at(block + 2);
  for (int j = 0; j < 16; ++j) {
    const float low = d * static_cast<float>(block[4 + j] & 15), high = d * static_cast<float>(block[4 + j] >> 4);
    out[j] = low + m;
    out[j + 16] = high + m;
  }
}

void dequantise_q5_0(const uint8_t* block, float* out) {  // f16 d, u32 fifth bits, 16 bytes
  const float d = half_at(block);
  const uint32_t high = read<uint32_t>(block + 2);
  for (int j = 0; j < 16; ++j) {
    const int a = (block[6 + j] & 15) | static_cast<int>(high >> j & 1) << 4;
    const int b = (block[6 + j] >> 4) | static_cast<int>(high >> (j + 16) & 1) << 4;
    out[j] = d * static_cast<float>(a - 16);
    out[j + 16] = d * static_cast<float>(b - 16);
  }
}

void dequantise_q5_1(const uint8_t* block, float* out) {  // f16 d, f16 m, u32 fifth bits, 16 bytes
  const float d = half_at(block), m = half_at(block + 2);
  const uint32_t high = read<uint32_t>(block + 4);
  for (int j = 0; j < 16; ++j) {
    const int a = (block[8 + j] & 15) | static_cast<int>(high >> j & 1) << 4;
    const int b = (block[8 + j] >> 4) | static_cast<int>(high >> (j + 16) & 1) << 4;
    const float low = d * static_cast<float>(a), upper = d * static_cast<float>(b);
    out[j] = low + m;
    out[j + 16] = upper + m;
  }
}

void dequantise_q8_0(const uint8_t* block, float* out) {  // f16 d, 32 signed bytes
  const float d = half_at(block);
  for (int j = 0; j < 32; ++j) out[j] = d * static_cast<float>(static_cast<int8_t>(block[2 + j]));
}

// The six-bit scale and minimum of part j of eight, from the twelve bytes that Q4_K and Q5_K share.
void scale_and_min(const uint8_t* packed, int j, int& scale, int& min) {
  if (j < 4) {
    scale = packed[j] & 63;
    min = packed[j + 4] & 63;
  } else {
    scale = (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4;
    min = (packed[j + 4] >> 4) | (packed[j] >> 6) << 4;
  }
}

void dequantise_q4_k(const uint8_t* block, float* out) {  // f16 d, f16 dmin, 12 bytes of scales, 128 bytes
  const float d = half_at(block), dmin = half_at(block + 2);
  const uint8_t* q = block + 16;
  for (int part = 0; part < 8; ++part) {
    int scale, min;
    scale_and_min(block + 4, part, scale, min);
    const float step = d * static_cast<float>(scale), offset = dmin * static_cast<float>(min);
    for (int j = 0; j < 32; ++j) {
      const int byte = q[part / 2 * 32 + j];
      const float product = step * static_cast<float>(part % 2 ? byte >> 4 : byte & 15);
      out[part * 32 + j] = product - offset;
    }
  }
}

void dequantise_q5_k(const uint8_t* block, float* out) {  // f16 d, f16 dmin, 12 of scales, 32 of fifth bits, 128 bytes
  const float d = half_at(block), dmin = half_at(block + 2);
  const uint8_t *high = block + 16, *q = block + 48;
  for (int part = 0; part < 8; ++part) {
    int scale, min;
    scale_and_min(block + 4, part, scale, min);
    const float step = d * static_cast<float>(scale), offset = dmin * static_cast<float>(min);
    for (int j = 0; j < 32; ++j) {
      const int byte = q[part / 2 * 32 + j];
      const int value = (part % 2 ? byte >> 4 : byte & 15) | (high[j] >> part & 1) << 4;
      const float product = step * static_cast<float>(value);
      out[part * 32 + j] = product - offset;
    }
  }
}

void dequantise_q6_k(const uint8_t* block, float* out) {  // 128 of low nibbles, 64 of upper bits, 16 i8 scales, f16 d
  const uint8_t *low = block, *high = block + 128;
  const uint8_t* scales = block + 192;
  const float d = half_at(block + 208);
  for (int half = 0; half < 2; ++half) {
    for (int quarter = 0; quarter < 4; ++quarter) {
      for (int j = 0; j < 32; ++j) {
        const int byte = low[half * 64 + (quarter % 2) * 32 + j];
        const int nibble = quarter < 2 ? byte & 15 : byte >> 4;
        const int value = (nibble | (high[half * 32 + j] >> (2 * quarter) & 3) << 4) - 32;
        const int scale = static_cast<int8_t>(scales[half * 8 + quarter * 2 + j / 16]);
        const float step = d * static_cast<float>(scale);
        out[half * 128 + quarter * 32 + j] = step * static_cast<float>(value);
      }
    }
  }
}

using dequantise_block = void (*)(const uint8_t*, float*);

struct block_type {
  int64_t values, bytes;
  dequantise_block dequantise;
};

// The types whose rows are blocks along K; values 0 for the others.
block_type type_of(sl_encoding encoding) {
  switch (encoding) {
    case SL_ENCODING_F32: return {1, 4, nullptr};
    case SL_ENCODING_F16: return {1, 2, nullptr};
    case SL_ENCODING_BF16: return {1, 2, nullptr};
    case SL_ENCODING_Q4_0: return {32, 18, dequantise_q4_0};
    case SL_ENCODING_Q4_1: return {32, 20, dequantise_q4_1};
    case SL_ENCODING_Q5_0: return {32, 22, dequantise_q5_0};
    case SL_ENCODING_Q5_1: return {32, 24, dequantise_q5_1};
    case SL_ENCODING_Q8_0: return {32, 34, dequantise_q8_0};
    case SL_ENCODING_Q4_K: return {256, 144, dequantise_q4_k};
    case SL_ENCODING_Q5_K: return {256, 176, dequantise_q5_k};
    case SL_ENCODING_Q6_K: return {256, 210, dequantise_q6_k};
    default: return {0, 0, nullptr};
  }
}

void dequantise_gptq_row(const sl_weight_source& s, int64_t n, float* out) {
  const auto* data = static_cast<const uint8_t*>(s.data);
  const auto* scales = static_cast<const uint8_t*>(s.scales);
  const auto* zeros = static_cast<const uint8_t*>(s.zeros);
  for (int64_t k = 0; k < s.cols; ++k) {
    const int64_t group = s.order != nullptr ? read<int32_t>(s.order + k) : k / s.group;
    const auto q = static_cast<int>(read<uint32_t>(data + (k / 8 * s.rows + n) * 4) >> (4 * (k % 8)) & 15);
    const auto z = static_cast<int>(read<uint32_t>(zeros + (group * (s.rows / 8) + n / 8) * 4) >> (4 * (n % 8)) & 15) +
                   zero_offset(s.encoding);
    out[k] = half_at(scales + (group * s.rows + n) * 2) * static_cast<float>(q - z);
  }
}

void dequantise_awq_row(const sl_weight_source& s, int64_t n, float* out) {
  static constexpr int kNibbleOfColumn[8] = {0, 4, 1, 5, 2, 6, 3, 7};  // inverse of AWQ's order 0 2 4 6 1 3 5 7
  const auto* data = static_cast<const uint8_t*>(s.data);
  const auto* scales = static_cast<const uint8_t*>(s.scales);
  const auto* zeros = static_cast<const uint8_t*>(s.zeros);
  const int shift = 4 * kNibbleOfColumn[n % 8];
  for (int64_t k = 0; k < s.cols; ++k) {
    const int64_t group = k / s.group;
    const auto q = static_cast<int>(read<uint32_t>(data + (k * (s.rows / 8) + n / 8) * 4) >> shift & 15);
    const auto z = static_cast<int>(read<uint32_t>(zeros + (group * (s.rows / 8) + n / 8) * 4) >> shift & 15);
    out[k] = half_at(scales + (group * s.rows + n) * 2) * static_cast<float>(q - z);
  }
}

void dequantise_int8_row(const sl_weight_source& s, int64_t n, float* out) {
  const auto* data = static_cast<const int8_t*>(s.data) + n * s.cols;
  const auto* scales = static_cast<const uint8_t*>(s.scales);
  for (int64_t k = 0; k < s.cols; ++k)
    out[k] = read<float>(scales + (n * (s.cols / s.group) + k / s.group) * 4) * static_cast<float>(data[k]);
}

[[noreturn]] void refuse(sl_status status, const sl_weight_source& s, const std::string& what) {
  throw error(status,
              format("weight %lld x %lld %s: %s", static_cast<long long>(s.rows), static_cast<long long>(s.cols),
                     name_of(static_cast<sl_encoding_values>(s.encoding)), what.c_str()));
}

void expect_bytes(const sl_weight_source& s, const char* what, const void* data, uint64_t found, int64_t wanted) {
  if (found != static_cast<uint64_t>(wanted))
    refuse(SL_ERR_SHAPE, s,
           format("%s needs %lld bytes, got %llu", what, static_cast<long long>(wanted),
                  static_cast<unsigned long long>(found)));
  if (wanted != 0 && data == nullptr) refuse(SL_ERR_ARGUMENT, s, format("%s is null", what));
}

}  // namespace

int64_t block_values(const sl_weight_source& source) {
  switch (source.encoding) {
    case SL_ENCODING_GPTQ4:
    case SL_ENCODING_GPTQ4_V2:
    case SL_ENCODING_AWQ4:
    case SL_ENCODING_INT8: return source.group;
    default: return type_of(source.encoding).values;
  }
}

int64_t block_bytes(sl_encoding encoding) { return type_of(encoding).bytes; }

source_bytes check_weight_shape(const sl_weight_source& s) {
  const bool grouped = is_gptq(s.encoding) || s.encoding == SL_ENCODING_AWQ4 || s.encoding == SL_ENCODING_INT8;
  const block_type type = type_of(s.encoding);
  if (!grouped && type.values == 0)
    throw error(SL_ERR_ARGUMENT, format("weight: encoding %d is not known", s.encoding));
  constexpr int64_t kMost = INT32_MAX;  // so that no product below overflows
  if (s.rows <= 0 || s.cols <= 0 || s.rows > kMost || s.cols > kMost)
    refuse(SL_ERR_SHAPE, s, "rows and cols must be 1 .. 2^31 - 1");

  source_bytes bytes;
  if (!grouped) {
    if (s.group != 0) refuse(SL_ERR_ARGUMENT, s, format("group is %d, this encoding takes 0", s.group));
    if (s.cols % type.values != 0)
      refuse(SL_ERR_SHAPE, s, format("cols must be a multiple of %d", static_cast<int>(type.values)));
    bytes.data = s.cols / type.values * type.bytes;
    if (bytes.data > INT64_MAX / s.rows) refuse(SL_ERR_SHAPE, s, "too large");
    bytes.data *= s.rows;
  } else {
    if (s.group <= 0 || s.cols % s.group != 0)
      refuse(SL_ERR_SHAPE, s,
             format("group %d must be 1 or more and divide cols (a file's -1, one group a row, is given as cols)",
                    s.group));
    const int64_t groups = s.cols / s.group;
    if (s.encoding == SL_ENCODING_INT8) {
      bytes.data = s.rows * s.cols;
      bytes.scales = s.rows * groups * 4;
    } else {
      if (s.rows % 8 != 0) refuse(SL_ERR_SHAPE, s, "rows must be a multiple of 8");
      if (is_gptq(s.encoding) && s.cols % 8 != 0) refuse(SL_ERR_SHAPE, s, "cols must be a multiple of 8");
      bytes.data = s.cols * s.rows / 2;
      bytes.scales = groups * s.rows * 2;
      bytes.zeros = groups * (s.rows / 8) * 4;
    }
  }
  return bytes;
}

void check_weight_source(const sl_weight_source& s) {
  const source_bytes bytes = check_weight_shape(s);
  expect_bytes(s, "data", s.data, s.data_bytes, bytes.data);
  expect_bytes(s, "scales", s.scales, s.scales_bytes, bytes.scales);
  expect_bytes(s, "zeros", s.zeros, s.zeros_bytes, bytes.zeros);
  if (s.order == nullptr) {
    expect_bytes(s, "order", s.order, s.order_bytes, 0);
    return;
  }
  if (!is_gptq(s.encoding)) refuse(SL_ERR_ARGUMENT, s, "order is for GPTQ4 and GPTQ4_V2 only");
  expect_bytes(s, "order", s.order, s.order_bytes, s.cols * 4);
  for (int64_t k = 0; k < s.cols; ++k) {
    const auto group = read<int32_t>(s.order + k);
    if (group < 0 || group >= s.cols / s.group)
      refuse(SL_ERR_ARGUMENT, s,
             format("order[%lld] is %d, of %lld groups", static_cast<long long>(k), group,
                    static_cast<long long>(s.cols / s.group)));
  }
}

void dequantise_rows(const sl_weight_source& s, int64_t first, int64_t count, float* out) {
  const block_type type = type_of(s.encoding);
  for (int64_t n = first; n < first + count; ++n, out += s.cols) {
    const auto* row = static_cast<const uint8_t*>(s.data);
    if (type.values != 0) row += n * (s.cols / type.values * type.bytes);
    switch (s.encoding) {
      case SL_ENCODING_F32: std::memcpy(out, row, static_cast<size_t>(s.cols) * 4); break;
      case SL_ENCODING_F16:
        for (int64_t k = 0; k < s.cols; ++k) out[k] = half_at(row + 2 * k);
        break;
      case SL_ENCODING_BF16:
        for (int64_t k = 0; k < s.cols; ++k) out[k] = bf16_to_f32(read<uint16_t>(row + 2 * k));
        break;
      case SL_ENCODING_GPTQ4:
      case SL_ENCODING_GPTQ4_V2: dequantise_gptq_row(s, n, out); break;
      case SL_ENCODING_AWQ4: dequantise_awq_row(s, n, out); break;
      case SL_ENCODING_INT8: dequantise_int8_row(s, n, out); break;
      default:
        for (int64_t b = 0; b < s.cols / type.values; ++b) type.dequantise(row + b * type.bytes, out + b * type.values);
    }
  }
}

float f16_to_f32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16, exponent = bits >> 10 & 31, mantissa = bits & 1023;
  uint32_t result;
  if (exponent == 31) {
    result = sign | 0x7f800000u | mantissa << 13;
  } else if (exponent != 0) {
    result = sign | (exponent + 112) << 23 | mantissa << 13;
  } else {
    const float value = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal, exact in f32
    std::memcpy(&result, &value, 4);
    result |= sign;
  }
  float value;
  std::memcpy(&value, &result, 4);
  return value;
}

uint16_t f32_to_f16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and up round to infinity
  if (magnitude < 0x38800000u) {  // below 2^-14: the sum with 2^-1 rounds at the subnormals' last place
    float absolute;
    std::memcpy(&absolute, &magnitude, 4);
    const float shifted = absolute + 0.5f;
    uint32_t rounded;
    std::memcpy(&rounded, &shifted, 4);
    return static_cast<uint16_t>(sign | (rounded - 0x3f000000u));
  }
  const uint32_t odd = magnitude >> 13 & 1;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

float bf16_to_f32(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

uint16_t f32_to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);  // a quiet NaN
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

float e4m3_to_f32(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  float value;
  if (exponent == 15 && mantissa == 7) value = std::nanf("");
  else if (exponent == 0) value = std::ldexp(static_cast<float>(mantissa), -9);
  else value = std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return bits & 128 ? -value : value;
}

uint8_t f32_to_e4m3(float value) {
  const auto sign = static_cast<uint8_t>(std::signbit(value) ? 128 : 0);
  const float magnitude = std::fabs(value);
  if (!(magnitude <= 448.0f))
    return std::isnan(value) ? static_cast<uint8_t>(sign | 127) : static_cast<uint8_t>(sign | 126);
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude in [2^(exponent-1), 2^exponent)
  const int step = (exponent - 1 < -6 ? -6 : exponent - 1) - 3;
  const int units = static_cast<int>(std::nearbyint(std::ldexp(magnitude, -step)));  // 0 .. 16 steps of 2^step
  // The fields count on from each other: 16 steps of one exponent are 8 of the next.
  return static_cast<uint8_t>(sign | (units < 8 ? units : (step + 9) * 8 + units));
}

int8_t f32_to_i8(float value) {
  return static_cast<int8_t>(std::fmax(-127.0f, std::fmin(127.0f, std::nearbyint(value))));  // NaN becomes a limit
}

}  // namespace sl
