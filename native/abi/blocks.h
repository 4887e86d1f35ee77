// The encodings of weights: sizes, and their exact meaning. Host code, used where weights are made.
#pragma once

#include "backend.h"

namespace sl {

// How many values share a block along K (1 for plain types, the group for GPTQ4, AWQ4, INT8), and a block's bytes in
// `data` (0 where the encoding alone does not tell: GPTQ4, AWQ4, INT8).
int64_t block_values(const sl_weight_source& source);
int64_t block_bytes(sl_encoding encoding);

// What stands between a zero point of GPTQ4 or AWQ4 and its four stored bits: 1 where it is stored minus one (so that a
// stored 15 is the zero point 16), else 0.
inline int zero_offset(sl_encoding encoding) { return encoding == SL_ENCODING_GPTQ4 ? 1 : 0; }

inline bool is_gptq(sl_encoding encoding) { return encoding == SL_ENCODING_GPTQ4 || encoding == SL_ENCODING_GPTQ4_V2; }

// Bytes of a source's parts.
struct source_bytes {
  int64_t data = 0, scales = 0, zeros = 0;
};
// Looks at encoding, rows, cols and group alone; throws SL_ERR_ARGUMENT or SL_ERR_SHAPE unless they fit each other.
source_bytes check_weight_shape(const sl_weight_source& source);

// Throws SL_ERR_ARGUMENT or SL_ERR_SHAPE unless every size in source fits, every pointer is there, and order is in range.
void check_weight_source(const sl_weight_source& source);

// The exact values of rows first .. first+count-1: out[count, K]. Each value is the product and sum that the encoding
// defines, rounded to f32 once a step as the format's own definition has it.
void dequantise_rows(const sl_weight_source& source, int64_t first, int64_t count, float* out);

// Conversions with round to nearest even; NaN stays NaN.
float f16_to_f32(uint16_t bits);
uint16_t f32_to_f16(float value);

// E4M3: 4 exponent bits of bias 7, 3 of mantissa, no infinities; what is larger becomes 448, the largest.   Source: Micikevicius et al. 2022.
float e4m3_to_f32(uint8_t bits);
uint8_t f32_to_e4m3(float value);

// To the nearest of -127 .. 127.
int8_t f32_to_i8(float value);
float bf16_to_f32(uint16_t bits);
uint16_t f32_to_bf16(float value);

}  // namespace sl
