// The cpu backend: SIMD kernels of the processor's instruction set, and threads that the device owns.
//
// device.cpp makes the device and its table; *_ops.cpp split ops into tasks; weight.cpp packs; *_kernels.cpp compute.
// Ops run at the call and allocate nothing: what they need lies in the stream's workspace.
#pragma once

#include <atomic>

#include "host_device.h"
#include "kernels.h"
#include "pool.h"

namespace sl::cpu {

// A weight in panels (see kernels.h). GPTQ with act order keeps its columns sorted by group, and the x that it
// multiplies is put in the same order.
class cpu_weight final : public weight {
 public:
  ~cpu_weight() override {
    if (owned_) host_release(data_);
  }
  uint64_t bytes() const override { return bytes_; }

  packed_weight packed{};
  std::vector<int32_t> order;  // column k of the packed matrix is column order[k] of the file; empty: the same

  void allocate(uint64_t bytes);
  void borrow(const void* data, uint64_t bytes);  // of the caller's, which is only read
  uint8_t* data() { return static_cast<uint8_t*>(data_); }
  bool rounds_x() const { return cpu::rounds_x(packed.format); }

 private:
  void* data_ = nullptr;
  uint64_t bytes_ = 0;
  bool owned_ = true;
};

// A packed weight's bytes as they lie, and a weight of such bytes.
void describe_packed(const cpu_weight& w, sl_packed_weight& out);
std::unique_ptr<weight> adopt_weight(const sl_packed_weight& packed);

std::unique_ptr<weight> pack_weight(const sl_weight_source& source, thread_pool& pool);

// The exact values of a row, as dequantise_rows of the source gives them: out[K].
void unpack_row(const cpu_weight& w, int64_t row, float* out);

class cpu_device final : public device {
 public:
  cpu_device(const kernels& k, sl_isa isa, int threads) : kernel(k), isa(isa), pool(threads) {}

  const op_table& ops() const override;
  std::unique_ptr<stream> create_stream(void* native_stream) override;
  std::unique_ptr<event> create_event() override { return std::make_unique<host_event>(); }
  std::unique_ptr<weight> create_weight(stream&, const sl_weight_source& source) override {
    return pack_weight(source, pool);
  }
  void get_packed(const weight& w, sl_packed_weight& out) const override { describe_packed(static_cast<const cpu_weight&>(w), out); }
  std::unique_ptr<weight> create_packed(const sl_packed_weight& packed) override { return adopt_weight(packed); }
  bool supports_kv(sl_dtype dtype) const override {
    return dtype == SL_DTYPE_F32 || dtype == SL_DTYPE_F16 || dtype == SL_DTYPE_BF16 || dtype == SL_DTYPE_I8 || dtype == SL_DTYPE_FP8_E4M3;
  }
  void info(sl_device_info& info) const override;
  void counters(sl_counters& counters) const override { counters.kv_bytes_read = kv_bytes_read; }
  void reset_counters() override { kv_bytes_read = 0; }

  const kernels& kernel;
  const sl_isa isa;
  mutable thread_pool pool;
  std::atomic<uint64_t> kv_bytes_read{0};
};

inline cpu_device& device_of(stream& s) { return static_cast<cpu_device&>(*s.owner); }
inline const cpu_device& device_of(const device& d) { return static_cast<const cpu_device&>(d); }

// Hands out pieces of a workspace; with a null base it only counts, so that what an op asks for and what it takes are
// the same code.
class arena {
 public:
  explicit arena(char* base) : base_(base) {}
  template <typename T>
  T* take(int64_t count) {
    char* at = base_ + used_;
    used_ += (static_cast<uint64_t>(count) * sizeof(T) + 63) / 64 * 64;
    return base_ != nullptr ? reinterpret_cast<T*>(at) : nullptr;
  }
  uint64_t used() const { return used_; }

 private:
  char* base_;
  uint64_t used_ = 0;
};

inline char* at(const view& v, int64_t i, int64_t j = 0) {
  const int64_t second = v.rank > 1 ? v.stride[1] : 0;
  return v.as<char>() + (i * v.stride[0] + j * second) * static_cast<int64_t>(v.dtype == SL_DTYPE_F32 ? 4 : 2);
}
inline row row_of(const view& v, int64_t i, int64_t j = 0) { return {at(v, i, j), v.dtype}; }

// Rows worth a task of their own where each costs about `cost` loads or adds.
inline int64_t rows_per_task(int64_t rows, int64_t cost, int threads) {
  const int64_t enough = 16384 / (cost > 0 ? cost : 1) + 1, even = (rows + 4 * threads - 1) / (4 * threads);
  return enough > even ? enough : even;
}

// body(row, thread) for every row, in tasks of several.
template <typename Body>
void for_rows(const cpu_device& d, int64_t rows, int64_t cost, Body&& body) {
  const int64_t step = rows_per_task(rows, cost, d.pool.threads());
  d.pool.parallel((rows + step - 1) / step, [&](int64_t task, int thread) {
    for (int64_t r = task * step; r < rows && r < (task + 1) * step; ++r) body(r, thread);
  });
}

// body(row, first, count) for pieces of every row: with one token a row is all there is.
template <typename Body>
void for_pieces(const cpu_device& d, int64_t rows, int64_t cols, Body&& body) {
  const int64_t piece = 2048, pieces = (cols + piece - 1) / piece;
  for_rows(d, rows * pieces, 4 * (cols < piece ? cols : piece), [&](int64_t i, int) {
    const int64_t first = i % pieces * piece;
    body(i / pieces, first, cols - first < piece ? cols - first : piece);
  });
}

// cos and sin of position * inv_freq[i], times scale.
void rope_angles(const view& inv_freq, int64_t position, float scale, float* cosines, float* sines);

// A head's key and value (f32) into its token's slot.
void write_kv(const cpu_device& d, const kv_view& cache, int32_t layer, const plan_view& plan, int64_t token,
              int32_t head, const float* key, const float* value);

void register_linear_ops(op_table& table);
void register_row_ops(op_table& table);
void register_attention_ops(op_table& table);
void register_sampling_ops(op_table& table);

}  // namespace sl::cpu
