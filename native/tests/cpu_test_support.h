// What the cpu tests stand on: devices through the C ABI, tensors in vectors, random data, and the measure of
// closeness.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sluice.h"

namespace test {

inline int passed = 0, failed = 0, skipped = 0;

inline void report(bool ok, const std::string& name, const std::string& detail = "") {
  (ok ? passed : failed)++;
  if (!ok) std::printf("FAILED %s%s%s\n", name.c_str(), detail.empty() ? "" : ": ", detail.c_str());
}

inline void must(sl_status status, const char* what) {
  if (status == SL_OK) return;
  std::printf("%s: %s: %s\n", what, sl_status_name(status), sl_last_error());
  std::exit(1);
}
#define MUST(call) ::test::must((call), #call)

// ---- random numbers: the same on every run

struct random_source {
  uint64_t state;
  explicit random_source(uint64_t seed) : state(seed * 0x9E3779B97F4A7C15u + 1) {}
  uint32_t bits() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state >> 33) * 2654435769u ^ static_cast<uint32_t>(state >> 40);
  }
  float uniform() { return static_cast<float>(bits() >> 8) / 8388608.0f - 1.0f; }  // -1 .. 1
  int32_t below(int32_t n) { return static_cast<int32_t>(bits() % static_cast<uint32_t>(n)); }
};

// ---- 16-bit numbers, by way of the compiler and of shifts: independent of the library's own

#if defined(__aarch64__)
using float16 = __fp16;  // g++ has _Float16 there from version 13 on
#else
using float16 = _Float16;
#endif
inline uint16_t to_half(float f) {
  const auto h = static_cast<float16>(f);
  uint16_t bits;
  std::memcpy(&bits, &h, 2);
  return bits;
}
inline float from_half(uint16_t bits) {
  float16 h;
  std::memcpy(&h, &bits, 2);
  return static_cast<float>(h);
}
inline uint16_t to_brain(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float from_brain(uint16_t h) {
  const uint32_t bits = static_cast<uint32_t>(h) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

inline size_t size_of(sl_dtype t) { return t == SL_DTYPE_I64 ? 8 : t == SL_DTYPE_F16 || t == SL_DTYPE_BF16 ? 2 : 4; }
inline const char* name_of(sl_dtype t) { return t == SL_DTYPE_F16 ? "f16" : t == SL_DTYPE_BF16 ? "bf16" : "f32"; }

// A tensor without gaps, in host memory.
struct tensor {
  std::vector<char> data;
  sl_tensor t{};

  tensor() = default;
  tensor(sl_dtype dtype, std::vector<int64_t> shape) {
    int64_t count = 1;
    t.dtype = dtype;
    t.rank = static_cast<int32_t>(shape.size());
    for (int i = t.rank - 1; i >= 0; --i) {
      t.shape[i] = shape[static_cast<size_t>(i)];
      t.stride[i] = count;
      count *= t.shape[i];
    }
    data.assign(static_cast<size_t>(count) * size_of(dtype) + 64, static_cast<char>(0xff));  // NaN until written
  }
  int64_t count() const {
    int64_t n = 1;
    for (int i = 0; i < t.rank; ++i) n *= t.shape[i];
    return n;
  }
  const sl_tensor* get() {
    t.pointer = data.data();
    return t.rank == 0 ? nullptr : &t;
  }
  float at(int64_t i) const {
    const char* p = data.data() + static_cast<size_t>(i) * size_of(t.dtype);
    if (t.dtype == SL_DTYPE_F32) return *reinterpret_cast<const float*>(p);
    const uint16_t h = *reinterpret_cast<const uint16_t*>(p);
    return t.dtype == SL_DTYPE_F16 ? from_half(h) : from_brain(h);
  }
  void set(int64_t i, float f) {
    char* p = data.data() + static_cast<size_t>(i) * size_of(t.dtype);
    if (t.dtype == SL_DTYPE_F32) *reinterpret_cast<float*>(p) = f;
    else *reinterpret_cast<uint16_t*>(p) = t.dtype == SL_DTYPE_F16 ? to_half(f) : to_brain(f);
  }
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(data.data());
  }
  bool same(const tensor& other) const {
    return count() == other.count() &&
           std::memcmp(data.data(), other.data.data(), static_cast<size_t>(count()) * size_of(t.dtype)) == 0;
  }
};

inline tensor random_tensor(random_source& r, sl_dtype dtype, std::vector<int64_t> shape, float scale = 1) {
  tensor x(dtype, std::move(shape));
  for (int64_t i = 0; i < x.count(); ++i) x.set(i, r.uniform() * scale);
  return x;
}
inline tensor integers(std::vector<int32_t> values) {
  tensor x(SL_DTYPE_I32, {static_cast<int64_t>(values.size())});
  if (!values.empty()) std::memcpy(x.data.data(), values.data(), values.size() * 4);
  return x;
}
inline tensor floats(std::vector<float> values) {
  tensor x(SL_DTYPE_F32, {static_cast<int64_t>(values.size())});
  std::memcpy(x.data.data(), values.data(), values.size() * 4);
  return x;
}

// ---- devices

struct machine {
  sl_device* device = nullptr;
  sl_stream* stream = nullptr;
  std::string name;

  machine(sl_backend backend, sl_isa isa, int32_t threads, int32_t rounded, std::string label)
      : name(std::move(label)) {
    sl_device_options o{};
    o.size = sizeof o;
    o.backend = backend;
    o.isa = isa;
    o.threads = threads;
    o.rounded = rounded;
    const sl_status status = sl_device_open(&o, &device);
    if (status == SL_ERR_UNSUPPORTED) return;  // device stays null
    must(status, "sl_device_open");
    open_stream();
  }
  machine(const machine&) = delete;
  ~machine() {
    sl_stream_release(stream);
    sl_device_release(device);
  }
  void open_stream() {
    MUST(sl_stream_create(device, nullptr, &stream));
    MUST(sl_stream_reserve(stream, uint64_t{96} << 20));
  }
};

// ---- closeness: twice the naive error, plus one unit in the last place of the largest value

inline double unit(sl_dtype dtype, double magnitude) {
  const double digits = dtype == SL_DTYPE_F32 ? 23 : dtype == SL_DTYPE_F16 ? 10 : 7;
  return std::exp2(std::floor(std::log2(std::max(magnitude, 1e-30))) - digits);
}

inline double worst_ratio = 0;  // of error to what was allowed

inline void close(const std::string& name, const tensor& exact, const tensor& rounded, const tensor& found) {
  double allowed = 0, error = 0, magnitude = 0;
  int64_t where = 0;
  for (int64_t i = 0; i < exact.count(); ++i) {
    const double e = exact.at(i), r = rounded.at(i), f = found.at(i);
    if (std::isnan(e) || std::isinf(e)) {
      if (std::isnan(e) ? !std::isnan(f) : e != f) error = INFINITY, where = i;
      continue;
    }
    magnitude = std::max(magnitude, std::fabs(e));
    allowed = std::max(allowed, std::fabs(r - e));
    if (!(std::fabs(f - e) <= error)) error = std::isnan(f) ? INFINITY : std::fabs(f - e), where = i;
  }
  allowed = 2 * allowed + unit(exact.t.dtype, magnitude);
  worst_ratio = std::max(worst_ratio, error / allowed);
  char detail[256];
  std::snprintf(detail, sizeof detail, "error %g, allowed %g, at %lld of %lld: exact %g, found %g", error, allowed,
                static_cast<long long>(where), static_cast<long long>(exact.count()),
                static_cast<double>(exact.at(where)), static_cast<double>(found.at(where)));
  report(error <= allowed, name, detail);
}

// ---- who takes part

inline std::vector<std::unique_ptr<machine>> cpus;  // each instruction set with 2 threads, then the best with 1 and 4
inline std::unique_ptr<machine> exact, rounded;     // the reference

// Runs on all; the outcome of each cpu must be close to exact.
inline void compare(const std::string& name, const std::function<std::vector<tensor>(machine&)>& run) {
  const std::vector<tensor> e = run(*exact), r = run(*rounded);
  for (auto& m : cpus) {
    const std::vector<tensor> f = run(*m);
    for (size_t i = 0; i < e.size(); ++i) close(name + " #" + std::to_string(i) + " on " + m->name, e[i], r[i], f[i]);
  }
}

inline void equal(const std::string& name, const tensor& a, const tensor& b) {
  report(a.same(b), name, "not equal to the bit");
}

void test_rows();
void test_weights();
void test_attention();
void test_sampling();
void test_fused_qkv();
void test_graph();
void test_streams();

}  // namespace test
