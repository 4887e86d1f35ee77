#include <chrono>
#include <cstdio>
#include <cstring>

#include "test.h"

namespace sl::SL_BACKEND_NS {

std::vector<test>& tests() {
  static std::vector<test> all;
  return all;
}

void launched(const char*, cudaError_t) {}  // the tests look at the stream

std::string failure() {
  const cudaError_t e = cudaDeviceSynchronize();
  if (e == cudaSuccess) return "";
  const std::string text = cudaGetErrorString(e);
  cudaDeviceReset();
  return text;
}

void expect_failure(const std::vector<std::string>& words, int line) {
  const std::string text = failure();
  if (words.empty() && !text.empty()) throw failed{"line " + std::to_string(line) + ": " + text};
  for (const std::string& w : words)
    if (text.find(w) == std::string::npos)
      throw failed{"line " + std::to_string(line) + ": '" + w + "' is not in: '" + text + "'"};
}

}  // namespace sl::SL_BACKEND_NS

// simt_tests [PART]: runs the tests whose names contain PART.
int main(int argc, char** argv) {
  using namespace sl::SL_BACKEND_NS;
  int good = 0, bad = 0;
  for (const test& t : tests()) {
    if (argc > 1 && !std::strstr(t.name, argv[1])) continue;
    const auto start = std::chrono::steady_clock::now();
    std::string what;
    try {
      t.body();
    } catch (const failed& f) {
      what = f.what;
    }
    const std::string left = failure();
    if (what.empty() && !left.empty()) what = "the device failed: " + left;
    simt::settings().seed = 0;
    const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    std::printf("%s %s (%.1f ms)%s%s\n", what.empty() ? "ok  " : "FAIL", t.name, ms, what.empty() ? "" : ": ", what.c_str());
    std::fflush(stdout);
    (what.empty() ? good : bad)++;
  }
  std::printf("%d passed, %d failed, 0 skipped\n", good, bad);
  return bad != 0;
}
