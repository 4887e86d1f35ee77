// The reference backend: every op as the loops that its definition says, on one thread. It is the truth that the other
// backends are measured against, and the shortest text that tells what each op means; its speed is that of a model of
// some million parameters, and its ops allocate.
//
// Each op is a template over Real: double is exact mode, where only stores round; float is rounded mode, the naive
// loops that round as the op's precision record in sluice.h says. The second one's distance from the first is what an
// honest implementation of that record may be wrong by.
#pragma once

#include <cmath>
#include <type_traits>

#include "host_device.h"

namespace sl::reference {

template <typename Real>
constexpr bool is_rounded = std::is_same_v<Real, float>;

float load(sl_dtype dtype, const void* data, int64_t index);
void store(sl_dtype dtype, void* data, int64_t index, double value);

// value as it is after a store to dtype.
float round_to(sl_dtype dtype, double value);

inline float load(const view& v, int64_t i) { return load(v.dtype, v.data, i * v.stride[0]); }
inline float load(const view& v, int64_t i, int64_t j) {
  return load(v.dtype, v.data, i * v.stride[0] + j * v.stride[1]);
}
inline float load(const view& v, int64_t i, int64_t j, int64_t k) {
  return load(v.dtype, v.data, i * v.stride[0] + j * v.stride[1] + k * v.stride[2]);
}
inline void store(const view& v, int64_t i, double value) { store(v.dtype, v.data, i * v.stride[0], value); }
inline void store(const view& v, int64_t i, int64_t j, double value) {
  store(v.dtype, v.data, i * v.stride[0] + j * v.stride[1], value);
}
inline void store(const view& v, int64_t i, int64_t j, int64_t k, double value) {
  store(v.dtype, v.data, i * v.stride[0] + j * v.stride[1] + k * v.stride[2], value);
}

// The exact values of a weight, whatever its file held.
class reference_weight final : public weight {
 public:
  std::vector<float> values;  // [N, K]
  uint64_t bytes() const override { return values.size() * sizeof(float); }
};

class reference_stream final : public host_stream {};

// x [count, K] * w^T -> y [count, N], sums in Real; x has been rounded as the record says.
template <typename Real>
void multiply(const std::vector<Real>& x, int64_t count, const reference_weight& w, std::vector<Real>& y);

// What a linear makes of its input by the record (rounded mode only): see sl_linear.
void round_input(std::vector<float>& x, int64_t cols, sl_encoding encoding);

template <typename Real>
void normalise(Real* x, int64_t count, const view& w, float eps);  // RMSNorm in place

template <typename Real>
void turn(Real* head, const view& inv_freq, int64_t position, float scale, sl_rope_kind kind);  // RoPE in place

template <typename Real>
Real activate(Real x, sl_activation kind);

// Puts a token's key and value vectors of one head into its slot.
void write_kv(const kv_view& cache, int32_t layer, const plan_view& plan, int64_t token, int32_t head, const float* key,
              const float* value);

// The ops; each is instantiated for float and double.
template <typename Real>
void embedding(stream&, const embedding_args& a);
template <typename Real>
void gather(stream&, const gather_args& a);
template <typename Real>
void rms_norm(stream&, const rms_norm_args& a);
template <typename Real>
void add_rms_norm(stream&, const add_rms_norm_args& a);
template <typename Real>
void rms_norm_add(stream&, const rms_norm_add_args& a);
template <typename Real>
void linear(stream&, const linear_args& a);
template <typename Real>
void gated_linear(stream&, const gated_linear_args& a);
template <typename Real>
void fused_qkv(stream&, const fused_qkv_args& a);
template <typename Real>
void rope(stream&, const rope_args& a);
template <typename Real>
void kv_append(stream&, const kv_append_args& a);
template <typename Real>
void paged_attention(stream&, const attention_args& a);
template <typename Real>
void merge_states(stream&, const merge_states_args& a);
template <typename Real>
void gated_activation(stream&, const gated_activation_args& a);
template <typename Real>
void penalties(stream&, const penalties_args& a);
template <typename Real>
void argmax(stream&, const argmax_args& a);
template <typename Real>
void sample(stream&, const sample_args& a);
template <typename Real>
void log_probs(stream&, const log_probs_args& a);
template <typename Real>
void copy_pages(stream&, const copy_pages_args& a);
template <typename Real>
void save_pages(stream&, const host_pages_args& a);
template <typename Real>
void load_pages(stream&, const host_pages_args& a);

}  // namespace sl::reference
