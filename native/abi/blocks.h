// The encodings of weights: sizes, and their exact meaning. Host code, used where weights are made.
#pragma once

#include "backend.h"

namespace sl {

// How many values share a block along K (1 for plain types, the group for GPTQ4, AWQ4, INT8), and a block's bytes in
// `data` (0 where the encoding alone does not tell: GPTQ4, AWQ4, INT8).
int64_t block_values(const sl_weight_source& source);
int64_t block_bytes(sl_encoding encoding);

// Throws SL_ERR_ARGUMENT or SL_ERR_SHAPE unless every size in source fits, every pointer is there, and order is in range.
void check_weight_source(const sl_weight_source& source);

// The exact values of rows first .. first+count-1: out[count, K]. Each value is the product and sum that the encoding
// defines, rounded to f32 once a step as the format's own definition has it.
void dequantise_rows(const sl_weight_source& source, int64_t first, int64_t count, float* out);

// Conversions with round to nearest even; NaN stays NaN.
float f16_to_f32(uint16_t bits);
uint16_t f32_to_f16(float value);
float bf16_to_f32(uint16_t bits);
uint16_t f32_to_bf16(float value);

}  // namespace sl
