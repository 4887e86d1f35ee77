// Weights, put into panels of 16 rows when they are made (the layouts: kernels.h), and single rows read back.
#include <algorithm>
#include <cstring>

#include "blocks.h"
#include "cpu.h"
#include "int4.h"

namespace sl::cpu {
namespace {

// ---- the files' blocks

uint16_t half_bits(const uint8_t* at) {
  uint16_t bits;
  std::memcpy(&bits, at, 2);
  return bits;
}

uint32_t word(const uint8_t* at) {
  uint32_t bits;
  std::memcpy(&bits, at, 4);
  return bits;
}

// Block b of 32 values along row n of a source, as whole numbers from 0, and what its format has for a scale.
struct source_block {
  uint8_t q[32];
  uint16_t scale, bias;  // f16
  float full;            // INT8
  uint8_t small_scale, small_min;
  int8_t signed_scale[2];  // Q6_K
};

void nibbles(const uint8_t* p, uint8_t* q) {  // 16 bytes: the low ones first
  for (int j = 0; j < 16; ++j) {
    q[j] = p[j] & 15;
    q[j + 16] = p[j] >> 4;
  }
}

void fifth_bits(const uint8_t* p, uint8_t* q) {
  const uint32_t bits = word(p);
  for (int j = 0; j < 32; ++j) q[j] = static_cast<uint8_t>(q[j] | (bits >> j & 1) << 4);
}

void read_super(const uint8_t* super, int part, bool five, source_block& out) {  // Q4_K, Q5_K
  out.scale = half_bits(super);
  out.bias = half_bits(super + 2);
  const uint8_t* s = super + 4;
  out.small_scale = static_cast<uint8_t>(part < 4 ? s[part] & 63 : (s[part + 4] & 15) | (s[part - 4] >> 6) << 4);
  out.small_min = static_cast<uint8_t>(part < 4 ? s[part + 4] & 63 : (s[part + 4] >> 4) | (s[part] >> 6) << 4);
  const uint8_t* q = super + (five ? 48 : 16) + part / 2 * 32;
  for (int j = 0; j < 32; ++j) {
    out.q[j] = part % 2 ? q[j] >> 4 : q[j] & 15;
    if (five) out.q[j] = static_cast<uint8_t>(out.q[j] | (super[16 + j] >> part & 1) << 4);
  }
}

void read_q6_k(const uint8_t* super, int part, source_block& out) {
  const int half = part / 4, quarter = part % 4;
  const uint8_t *low = super + half * 64 + quarter % 2 * 32, *high = super + 128 + half * 32;
  for (int j = 0; j < 32; ++j) {
    const int nibble = quarter < 2 ? low[j] & 15 : low[j] >> 4;
    out.q[j] = static_cast<uint8_t>(nibble | (high[j] >> (2 * quarter) & 3) << 4);
  }
  std::memcpy(out.signed_scale, super + 192 + half * 8 + quarter * 2, 2);
  out.scale = half_bits(super + 208);
}

void read_int8(const sl_weight_source& s, int64_t n, int64_t block, source_block& out) {
  const auto* data = static_cast<const uint8_t*>(s.data) + n * s.cols + block * kBlock;
  for (int j = 0; j < 32; ++j) out.q[j] = static_cast<uint8_t>(data[j] ^ 128);
  const int64_t group = n * (s.cols / s.group) + block * kBlock / s.group;
  std::memcpy(&out.full, static_cast<const uint8_t*>(s.scales) + group * 4, 4);
}

void read_block(const sl_weight_source& s, int64_t n, int64_t block, source_block& out) {
  if (s.encoding == SL_ENCODING_INT8) return read_int8(s, n, block, out);
  const int64_t bytes = block_bytes(s.encoding);
  const int64_t values = block_values(s);
  const uint8_t* p = static_cast<const uint8_t*>(s.data) + (n * (s.cols / values) + block * kBlock / values) * bytes;
  const int part = static_cast<int>(block % 8);
  out.scale = half_bits(p);
  switch (s.encoding) {
    case SL_ENCODING_Q4_0: nibbles(p + 2, out.q); break;
    case SL_ENCODING_Q4_1:
      out.bias = half_bits(p + 2);
      nibbles(p + 4, out.q);
      break;
    case SL_ENCODING_Q5_0:
      nibbles(p + 6, out.q);
      fifth_bits(p + 2, out.q);
      break;
    case SL_ENCODING_Q5_1:
      out.bias = half_bits(p + 2);
      nibbles(p + 8, out.q);
      fifth_bits(p + 4, out.q);
      break;
    case SL_ENCODING_Q8_0:
      for (int j = 0; j < 32; ++j) out.q[j] = static_cast<uint8_t>(p[2 + j] ^ 128);
      break;
    case SL_ENCODING_Q4_K: read_super(p, part, false, out); break;
    case SL_ENCODING_Q5_K: read_super(p, part, true, out); break;
    default: read_q6_k(p, part, out); break;
  }
}

// ---- panels

int bits_of(weight_format format) {
  switch (format) {
    case weight_format::int4:
    case weight_format::q4_half:
    case weight_format::q4_bias:
    case weight_format::q4_super: return 4;
    case weight_format::q5_half:
    case weight_format::q5_bias:
    case weight_format::q5_super: return 5;
    case weight_format::q6_super: return 6;
    case weight_format::q8_half:
    case weight_format::q8_full: return 8;
    case weight_format::f32: return 32;
    default: return 16;
  }
}

void put_values(uint8_t* p, int bits, int64_t lane, const uint8_t* q) {
  for (int k = 0; k < 32; ++k) {
    const int group = k / 4;
    const int64_t byte = lane * 4 + k % 4;
    if (bits == 8) {
      p[group * 64 + byte] = q[k];
      continue;
    }
    uint8_t& both = p[group % 4 * 64 + byte];
    both = static_cast<uint8_t>(both | (q[k] & 15) << (group / 4 * 4));
    if (bits == 5) p[256 + byte] = static_cast<uint8_t>(p[256 + byte] | (q[k] >> 4) << group);
    if (bits == 6) {
      uint8_t& plane = p[256 + group / 4 * 64 + byte];
      plane = static_cast<uint8_t>(plane | (q[k] >> 4) << (2 * (group % 4)));
    }
  }
}

uint8_t value_at(const uint8_t* p, int bits, int64_t lane, int k) {
  const int group = k / 4;
  const int64_t byte = lane * 4 + k % 4;
  if (bits == 8) return p[group * 64 + byte];
  int q = p[group % 4 * 64 + byte] >> (group / 4 * 4) & 15;
  if (bits == 5) q |= (p[256 + byte] >> group & 1) << 4;
  if (bits == 6) q |= (p[256 + group / 4 * 64 + byte] >> (2 * (group % 4)) & 3) << 4;
  return static_cast<uint8_t>(q);
}

// Lane's part of a block's scales, of the chunk whose scales begin at p.
void put_scales(uint8_t* p, weight_format format, int64_t part, int64_t lane, const source_block& s) {
  switch (format) {
    case weight_format::q4_half:
    case weight_format::q5_half:
    case weight_format::q8_half: std::memcpy(p + part * 32 + lane * 2, &s.scale, 2); break;
    case weight_format::q4_bias:
    case weight_format::q5_bias:
      std::memcpy(p + part * 64 + lane * 2, &s.scale, 2);
      std::memcpy(p + part * 64 + 32 + lane * 2, &s.bias, 2);
      break;
    case weight_format::q8_full: std::memcpy(p + part * 64 + lane * 4, &s.full, 4); break;
    case weight_format::q4_super:
    case weight_format::q5_super:
      std::memcpy(p + lane * 2, &s.scale, 2);
      std::memcpy(p + 32 + lane * 2, &s.bias, 2);
      p[64 + part * 32 + lane] = s.small_scale;
      p[64 + part * 32 + 16 + lane] = s.small_min;
      break;
    default:
      std::memcpy(p + lane * 2, &s.scale, 2);
      std::memcpy(p + 32 + part * 32 + lane, &s.signed_scale[0], 1);
      std::memcpy(p + 32 + part * 32 + 16 + lane, &s.signed_scale[1], 1);
  }
}

weight_format format_of(const sl_weight_source& s) {
  switch (s.encoding) {
    case SL_ENCODING_F16: return weight_format::f16;
    case SL_ENCODING_BF16: return weight_format::bf16;
    case SL_ENCODING_Q4_0: return weight_format::q4_half;
    case SL_ENCODING_Q4_1: return weight_format::q4_bias;
    case SL_ENCODING_Q5_0: return weight_format::q5_half;
    case SL_ENCODING_Q5_1: return weight_format::q5_bias;
    case SL_ENCODING_Q8_0: return weight_format::q8_half;
    case SL_ENCODING_Q4_K: return weight_format::q4_super;
    case SL_ENCODING_Q5_K: return weight_format::q5_super;
    case SL_ENCODING_Q6_K: return weight_format::q6_super;
    case SL_ENCODING_GPTQ4:
    case SL_ENCODING_GPTQ4_V2:
    case SL_ENCODING_AWQ4: return s.group % kBlock == 0 ? weight_format::int4 : weight_format::f32;
    case SL_ENCODING_INT8: return s.group % kBlock == 0 ? weight_format::q8_full : weight_format::f32;
    default: return weight_format::f32;
  }
}

// The columns sorted by group; empty where they stand so already. False where groups differ in size: then no block of
// 32 sorted columns need have one scale.
bool sort_columns(const sl_weight_source& s, std::vector<int32_t>& order) {
  if (s.order == nullptr) return true;
  std::vector<int32_t> groups(static_cast<size_t>(s.cols));
  std::memcpy(groups.data(), s.order, groups.size() * 4);
  order.resize(groups.size());
  for (size_t k = 0; k < order.size(); ++k) order[k] = static_cast<int32_t>(k);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return groups[static_cast<size_t>(a)] < groups[static_cast<size_t>(b)];
  });
  bool sorted = true;
  for (size_t k = 0; k < order.size(); ++k) {
    if (groups[static_cast<size_t>(order[k])] != static_cast<int32_t>(k) / s.group) return order.clear(), false;
    sorted = sorted && order[k] == static_cast<int32_t>(k);
  }
  if (sorted) order.clear();
  return true;
}

int64_t panel_count(int64_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }

// The sizes of a weight's panels in a format; no data yet.
packed_weight panels_of(const sl_weight_source& s, weight_format format) {
  const int64_t cols = format == weight_format::bf16 ? s.cols + s.cols % 2 : s.cols, values = cols * bits_of(format) * kPanelRows / 8;
  int64_t used = values;
  if (format == weight_format::int4) used += s.cols / s.group * kInt4GroupBytes;
  if (rounds_x(format)) used = layout_of(format).panel_bytes(s.cols / kBlock);
  const int64_t panel_bytes = (used + 63) / 64 * 64;
  if (panel_bytes > INT64_MAX / panel_count(s.rows))
    throw error(SL_ERR_OUT_OF_MEMORY, "out of memory: the weight exceeds 2^63 bytes");
  return {nullptr, s.rows, s.cols, panel_bytes, values, format, format == weight_format::int4 ? s.group : 0};
}

uint64_t packed_size(const packed_weight& p) { return static_cast<uint64_t>(p.panel_bytes * panel_count(p.rows)); }

// The ABI's number of a layout: the backend's, kLayoutVersion, the format's.
uint64_t layout_id(weight_format format) {
  return uint64_t{SL_BACKEND_CPU} << 56 | static_cast<uint64_t>(kLayoutVersion) << 16 | static_cast<uint64_t>(format);
}

// Where value k of a row stands in a dense panel.
int64_t dense_at(weight_format format, int64_t k, int64_t lane) {
  if (format == weight_format::bf16) return k / 2 * 4 * kPanelRows + lane * 4 + k % 2 * 2;
  return (k * kPanelRows + lane) * (format == weight_format::f32 ? 4 : 2);
}

void pack_dense_panel(const sl_weight_source& s, weight_format format, int64_t panel, uint8_t* p) {
  const int64_t first = panel * kPanelRows, rows = std::min(kPanelRows, s.rows - first), K = s.cols;
  const bool plain = format != weight_format::f32 || s.encoding == SL_ENCODING_F32;
  std::vector<float> row(plain ? 0 : static_cast<size_t>(K));
  const int64_t size = format == weight_format::f32 ? 4 : 2;
  for (int64_t lane = 0; lane < rows; ++lane) {
    const auto* source = static_cast<const uint8_t*>(s.data) + (first + lane) * K * size;
    if (!plain) {
      dequantise_rows(s, first + lane, 1, row.data());
      source = reinterpret_cast<const uint8_t*>(row.data());
    }
    for (int64_t k = 0; k < K; ++k) std::memcpy(p + dense_at(format, k, lane), source + k * size, static_cast<size_t>(size));
  }
}

}  // namespace

void cpu_weight::allocate(uint64_t bytes) {
  data_ = host_allocate(bytes);
  bytes_ = bytes;
}

std::unique_ptr<weight> pack_weight(const sl_weight_source& s, thread_pool& pool) {
  auto w = std::make_unique<cpu_weight>();
  w->rows = s.rows;
  w->cols = s.cols;
  w->encoding = s.encoding;
  weight_format format = format_of(s);
  if (!sort_columns(s, w->order)) format = weight_format::f32;
  if (format == weight_format::f32) w->order.clear();

  w->packed = panels_of(s, format);
  const int64_t panels = panel_count(s.rows), bits = bits_of(format), panel_bytes = w->packed.panel_bytes,
                values = w->packed.scales_offset;
  w->allocate(packed_size(w->packed));
  w->packed.data = w->data();
  const block_layout layout = layout_of(format);

  // Each panel is first written by a thread of the pool, which spreads its pages over the machine's memories.
  std::atomic<bool> failed{false};
  pool.parallel(panels, [&](int64_t panel, int) {
    uint8_t* p = w->data() + panel * panel_bytes;
    std::memset(p, 0, static_cast<size_t>(panel_bytes));  // rows past the last are zero
    if (format == weight_format::int4) return pack_int4_panel(s, w->order, panel, values, p);
    if (!rounds_x(format)) {
      try {
        pack_dense_panel(s, format, panel, p);
      } catch (...) { failed = true; }
      return;
    }
    const int64_t first = panel * kPanelRows, rows = std::min(kPanelRows, s.rows - first);
    source_block block{};
    for (int64_t lane = 0; lane < rows; ++lane) {
      for (int64_t b = 0; b < s.cols / kBlock; ++b) {
        read_block(s, first + lane, b, block);
        put_values(p + layout.block_at(b), static_cast<int>(bits), lane, block.q);
        put_scales(p + layout.scales_at(b), format, b % layout.blocks, lane, block);
      }
    }
  });
  if (failed) throw error(SL_ERR_OUT_OF_MEMORY, "out of memory: no room to unpack a row of a weight");
  return w;
}

void cpu_weight::borrow(const void* data, uint64_t bytes) {
  data_ = const_cast<void*>(data);
  bytes_ = bytes;
  owned_ = false;
}

void describe_packed(const cpu_weight& w, sl_packed_weight& out) {
  out.layout = layout_id(w.packed.format);
  out.data = w.packed.data;
  out.data_bytes = w.bytes();
  out.order = w.order.empty() ? nullptr : w.order.data();
  out.order_bytes = w.order.size() * sizeof(int32_t);
}

std::unique_ptr<weight> adopt_weight(const sl_packed_weight& p) {
  sl_weight_source s{};
  s.encoding = p.encoding;
  s.rows = p.rows;
  s.cols = p.cols;
  s.group = p.group;
  // Act order whose groups differ in size is the one thing that a source's shape does not tell.
  weight_format format = format_of(s);
  if (is_gptq(p.encoding) && p.layout == layout_id(weight_format::f32)) format = weight_format::f32;
  if (p.layout != layout_id(format))
    throw error(
        SL_ERR_UNSUPPORTED,
        sl::format("packed.layout is %llx, and such a weight lies as %llx here: pack it anew",
                   static_cast<unsigned long long>(p.layout), static_cast<unsigned long long>(layout_id(format))));

  auto w = std::make_unique<cpu_weight>();
  w->packed = panels_of(s, format);
  const uint64_t bytes = packed_size(w->packed), columns = static_cast<uint64_t>(p.cols);
  if (p.data_bytes != bytes)
    throw error(SL_ERR_SHAPE,
                sl::format("packed.data has %llu bytes, expected %llu", static_cast<unsigned long long>(p.data_bytes),
                           static_cast<unsigned long long>(bytes)));
  if (p.data == nullptr || reinterpret_cast<uintptr_t>(p.data) % 64 != 0)
    throw error(SL_ERR_ARGUMENT, "packed.data is null or not aligned to 64 bytes");
  if (p.order != nullptr || p.order_bytes != 0) {
    if (format != weight_format::int4 || !is_gptq(p.encoding))
      throw error(SL_ERR_ARGUMENT, "packed.order is for GPTQ4 and GPTQ4_V2 in groups only");
    if (p.order == nullptr || p.order_bytes != columns * sizeof(int32_t))
      throw error(SL_ERR_SHAPE, sl::format("packed.order has %llu bytes, expected %llu",
                                           static_cast<unsigned long long>(p.order_bytes),
                                           static_cast<unsigned long long>(columns * sizeof(int32_t))));
    w->order.resize(columns);
    std::memcpy(w->order.data(), p.order, p.order_bytes);
    std::vector<bool> taken(columns);
    for (size_t k = 0; k < columns; ++k) {
      const int32_t column = w->order[k];
      if (column < 0 || column >= p.cols || taken[static_cast<size_t>(column)])
        throw error(
            SL_ERR_ARGUMENT,
            sl::format("packed.order[%zu] is %d, which is no column or one that stood there before", k, column));
      taken[static_cast<size_t>(column)] = true;
    }
  }

  w->borrow(p.data, bytes);
  w->packed.data = static_cast<const uint8_t*>(p.data);
  return w;
}

void unpack_row(const cpu_weight& w, int64_t row, float* out) {
  const packed_weight& p = w.packed;
  const uint8_t* panel = p.data + row / kPanelRows * p.panel_bytes;
  const int64_t lane = row % kPanelRows;
  if (p.format == weight_format::int4) return unpack_int4_row(w, row, out);
  if (!w.rounds_x()) {
    for (int64_t k = 0; k < p.cols; ++k) {
      const uint8_t* at = panel + dense_at(p.format, k, lane);
      if (p.format == weight_format::f32) std::memcpy(out + k, at, 4);
      else out[k] = p.format == weight_format::f16 ? f16_to_f32(half_bits(at)) : bf16_to_f32(half_bits(at));
    }
    return;
  }
  const int bits = bits_of(p.format);
  const block_layout layout = layout_of(p.format);
  for (int64_t b = 0; b < p.cols / kBlock; ++b) {
    const uint8_t* block = panel + layout.block_at(b);
    const uint8_t* scales = panel + layout.scales_at(b);
    const int64_t part = b % layout.blocks;
    float scale[2] = {0, 0}, bias = 0, zero = 0;
    switch (p.format) {
      case weight_format::q4_half:
      case weight_format::q5_half:
      case weight_format::q8_half:
        scale[0] = scale[1] = f16_to_f32(half_bits(scales + part * 32 + lane * 2));
        zero = static_cast<float>(1 << (bits - 1));
        break;
      case weight_format::q4_bias:
      case weight_format::q5_bias:
        scale[0] = scale[1] = f16_to_f32(half_bits(scales + part * 64 + lane * 2));
        bias = f16_to_f32(half_bits(scales + part * 64 + 32 + lane * 2));
        break;
      case weight_format::q8_full:
        std::memcpy(&scale[0], scales + part * 64 + lane * 4, 4);
        scale[1] = scale[0];
        zero = 128;
        break;
      case weight_format::q4_super:
      case weight_format::q5_super: {
        const uint8_t* own = scales + 64 + part * 32;
        scale[0] = scale[1] = f16_to_f32(half_bits(scales + lane * 2)) * static_cast<float>(own[lane]);
        bias = -(f16_to_f32(half_bits(scales + 32 + lane * 2)) * static_cast<float>(own[16 + lane]));
        break;
      }
      default: {
        const float d = f16_to_f32(half_bits(scales + lane * 2));
        for (int half = 0; half < 2; ++half)
          scale[half] = d * static_cast<float>(static_cast<int8_t>(scales[32 + part * 32 + half * 16 + lane]));
        zero = 32;
      }
    }
    for (int k = 0; k < 32; ++k) {
      const float product = scale[k / 16] * (static_cast<float>(value_at(block, bits, lane, k)) - zero);
      out[b * kBlock + k] = bias == 0 ? product : product + bias;  // -0 stays -0 where there is no bias
    }
  }
}

}  // namespace sl::cpu
