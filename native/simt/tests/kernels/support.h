// Kernels on the executor against the reference, through the C ABI: a case runs on the reference (exact and rounded) and
// on simt under several seeds, and is as close to exact as sluice.h promises.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "sluice.h"

namespace kernel_tests {

struct failed { std::string what; };
void must(sl_status status, const char* call);
#define MUST(call) ::kernel_tests::must((call), #call)
#define EXPECT(condition) \
  do { if (!(condition)) throw ::kernel_tests::failed{std::string(__FILE__) + ":" + std::to_string(__LINE__) + ": " #condition}; } while (0)

struct random_source {
  uint64_t state;
  explicit random_source(uint64_t seed) : state(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint32_t bits() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return uint32_t(state >> 33) * 2654435769u ^ uint32_t(state >> 40);
  }
  float uniform() { return float(bits() >> 8) / 8388608.0f - 1.0f; }  // -1 .. 1
  int below(int n) { return int(bits() % uint32_t(n)); }
};

struct machine {
  sl_device* device = nullptr;
  sl_stream* stream = nullptr;
  bool reference;
  machine(sl_backend backend, int rounded, uint64_t seed);
  ~machine();
  machine(const machine&) = delete;
};

// A tensor on a machine, from and to floats. Its rows may have a gap between them.
class array {
 public:
  array() = default;
  array(machine& m, sl_dtype dtype, std::vector<int64_t> shape, const std::vector<float>& values = {}, int64_t gap = 0);
  array(array&& o) noexcept { *this = std::move(o); }
  array& operator=(array&& o) noexcept;
  ~array() { sl_buffer_release(t.buffer); }
  const sl_tensor* get() const { return t.rank ? &t : nullptr; }
  std::vector<float> floats() const;
  std::vector<int32_t> ints() const;
  sl_tensor t{};

 private:
  machine* m_ = nullptr;
  int64_t elements_ = 0;
  std::vector<char> bytes() const;
};
array ints(machine& m, const std::vector<int32_t>& values);
array longs(machine& m, const std::vector<int64_t>& values);
std::vector<float> noise(uint64_t seed, int64_t n, float scale = 1);

using outcome = std::vector<std::vector<float>>;
// dtype: what the results were rounded to, for the unit in the last place.
void compare(const std::string& name, sl_dtype dtype, const std::function<outcome(machine&)>& run);
// The same, to the bit against the exact reference.
void equal(const std::string& name, const std::function<outcome(machine&)>& run);
void check(const std::string& name, const std::function<void(machine&)>& run);  // on simt alone

constexpr sl_dtype activation_types[] = {SL_DTYPE_F32, SL_DTYPE_F16, SL_DTYPE_BF16};
const char* name_of(sl_dtype);

void rows_tests();
void weights_tests();
void attention_tests();
void sampling_tests();
void step_tests();

}  // namespace kernel_tests
