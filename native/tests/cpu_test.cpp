// The cpu backend, each instruction set of this processor, against the reference backend: closeness by the measure of
// sluice.h, and what must be equal to the bit. Last line: N passed, N failed, N skipped.
#include "cpu_test_support.h"

using namespace test;

int main() {
  exact = std::make_unique<machine>(SL_BACKEND_REFERENCE, SL_ISA_BEST, 0, 0, "reference, exact");
  rounded = std::make_unique<machine>(SL_BACKEND_REFERENCE, SL_ISA_BEST, 0, 1, "reference, rounded");
  const std::pair<sl_isa, const char*> isas[] = {
      {SL_ISA_PORTABLE, "portable"}, {SL_ISA_AVX2, "avx2"}, {SL_ISA_AVX512, "avx512"}};
  for (const auto& [isa, name] : isas) {
    auto m = std::make_unique<machine>(SL_BACKEND_CPU, isa, 2, 0, name);
    if (m->device != nullptr) {
      cpus.push_back(std::move(m));
    } else {
      ++skipped;
      std::printf("skipped %s: %s\n", name, sl_last_error());
    }
  }
  for (int32_t threads : {1, 4})
    cpus.push_back(
        std::make_unique<machine>(SL_BACKEND_CPU, SL_ISA_BEST, threads, 0, std::to_string(threads) + " threads"));

  test_rows();
  test_weights();
  test_attention();
  test_sampling();
  test_fused_qkv();
  test_graph();
  test_streams();
  cpus.clear();
  exact.reset();
  rounded.reset();
  std::printf("largest error: %.2f of what is allowed\n%d passed, %d failed, %d skipped\n", worst_ratio, passed, failed,
              skipped);
  return failed != 0;
}
