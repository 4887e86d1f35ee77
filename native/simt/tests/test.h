// A test is a function; one line of output each, and the count at the end.
#pragma once

#include <cuda_runtime.h>

#include <string>
#include <vector>

#include "launch.cuh"
#include "mem.cuh"
#include "ptx.cuh"
#include "simt/control.h"

namespace sl::SL_BACKEND_NS {

struct failed { std::string what; };

struct test {
  const char* name;
  void (*body)();
};
std::vector<test>& tests();

struct registration {
  registration(const char* name, void (*body)()) { tests().push_back({name, body}); }
};

#define TEST(name)                                        \
  static void name();                                     \
  static const registration name##_registration(#name, name); \
  static void name()

#define EXPECT(condition) \
  do { if (!(condition)) throw failed{std::string(__FILE__) + ":" + std::to_string(__LINE__) + ": " #condition}; } while (0)

// Runs what is queued and returns what the device says went wrong, "" for nothing; the device is usable after.
std::string failure();

// Each of `words` stands in the failure's text.
void expect_failure(const std::vector<std::string>& words, int line);
#define EXPECT_FAILURE(...) expect_failure({__VA_ARGS__}, __LINE__)
#define EXPECT_NO_FAILURE() expect_failure({}, __LINE__)

template <typename T>
struct device_array {
  T* data = nullptr;
  size_t n;
  explicit device_array(size_t n, T value = T()) : n(n) {
    cudaMalloc(&data, n * sizeof(T));
    const std::vector<T> all(n, value);
    cudaMemcpy(data, all.data(), n * sizeof(T), cudaMemcpyHostToDevice);
  }
  explicit device_array(const std::vector<T>& v) : n(v.size()) {
    cudaMalloc(&data, n * sizeof(T));
    cudaMemcpy(data, v.data(), n * sizeof(T), cudaMemcpyHostToDevice);
  }
  ~device_array() { cudaFree(data); }
  std::vector<T> host() const {
    std::vector<T> v(n);
    cudaMemcpy(v.data(), data, n * sizeof(T), cudaMemcpyDeviceToHost);
    return v;
  }
};

}  // namespace sl::SL_BACKEND_NS
