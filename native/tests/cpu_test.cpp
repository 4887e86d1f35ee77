// The cpu backend, each instruction set of this processor (or the one of SLUICE_ISA), against the reference backend: closeness by the measure of
// sluice.h, and what must be equal to the bit. Last line: N passed, N failed, N skipped.
#include "cpu_test_support.h"

using namespace test;

namespace {

struct level {
  sl_isa isa;
  const char* name;
};
constexpr level levels[] = {{SL_ISA_PORTABLE, "portable"},       {SL_ISA_NEON, "neon"},
                            {SL_ISA_AVX2, "avx2"},               {SL_ISA_AVX512_VNNI, "avx512_vnni"},
                            {SL_ISA_AVX_VNNI, "avx_vnni"},       {SL_ISA_AVX512, "avx512"},
                            {SL_ISA_AVX512_BF16, "avx512_bf16"}};
constexpr size_t kWhole = 4;  // the first of them differ in every kernel, the others in products with weights

void name_isa(const char* name) {
#if defined(_WIN32)
  _putenv_s("SLUICE_ISA", name == nullptr ? "" : name);
#else
  name == nullptr ? unsetenv("SLUICE_ISA") : setenv("SLUICE_ISA", name, 1);
#endif
}

// Opens each level of [first, last) that is here; where SLUICE_ISA is set, those that it names.
void open_levels(size_t first, size_t last) {
  const char* forced = std::getenv("SLUICE_ISA");
  for (size_t i = first; i < last; ++i) {
    if (forced != nullptr && *forced != 0 && std::strcmp(forced, levels[i].name) != 0) continue;
    auto m = std::make_unique<machine>(SL_BACKEND_CPU, levels[i].isa, 2, 0, levels[i].name);
    if (m->device != nullptr) {
      cpus.push_back(std::move(m));
    } else {
      ++skipped;
      std::printf("skipped %s: %s\n", levels[i].name, sl_last_error());
    }
  }
}

// SLUICE_ISA decides where the options leave it open, and an unknown or absent one is an error that tells what there is.
void test_isa() {
  const char* given = std::getenv("SLUICE_ISA");
  const std::string before = given != nullptr ? given : "";
  sl_device_options o{};
  o.size = sizeof o;
  o.backend = SL_BACKEND_CPU;
  sl_device_info info{};
  info.size = sizeof info;
  const auto open = [&](const char* variable, sl_isa isa) {
    name_isa(variable);
    o.isa = isa;
    sl_device* device = nullptr;
    const sl_status status = sl_device_open(&o, &device);
    if (status == SL_OK) MUST(sl_device_get_info(device, &info));
    sl_device_release(device);
    return status;
  };
  for (const level& l : levels) {
    const std::string name = l.name;
    const sl_status asked = open(nullptr, l.isa);
    report(asked == SL_OK ? info.isa == l.isa : asked == SL_ERR_UNSUPPORTED, name + " is opened by its number");
    const sl_status named = open(l.name, SL_ISA_BEST);
    if (asked == SL_OK) {
      report(named == SL_OK && info.isa == l.isa, "SLUICE_ISA opens " + name);
    } else {
      const std::string text = sl_last_error();
      report(named == SL_ERR_UNSUPPORTED && text.find("SLUICE_ISA") != text.npos && text.find(name) != text.npos &&
                 text.find("here are portable") != text.npos,
             "SLUICE_ISA says what is here instead of " + name);
    }
  }
  report(open("avx3", SL_ISA_BEST) == SL_ERR_ARGUMENT && std::strstr(sl_last_error(), "SLUICE_ISA is 'avx3'") != nullptr &&
             std::strstr(sl_last_error(), "here are portable") != nullptr,
         "SLUICE_ISA of no instruction set is refused");
  report(open("avx3", SL_ISA_PORTABLE) == SL_OK && info.isa == SL_ISA_PORTABLE, "options come before SLUICE_ISA");
  name_isa(before.empty() ? nullptr : before.c_str());
}

}  // namespace

// cpu_test [weights]: with a word, products and embeddings alone, for where all of it takes long.
int main(int argc, char** argv) {
  const bool weights = argc > 1 && std::strcmp(argv[1], "weights") == 0;
  test_isa();
  exact = std::make_unique<machine>(SL_BACKEND_REFERENCE, SL_ISA_BEST, 0, 0, "reference, exact");
  rounded = std::make_unique<machine>(SL_BACKEND_REFERENCE, SL_ISA_BEST, 0, 1, "reference, rounded");
  open_levels(0, kWhole);
  for (int32_t threads : {1, 4}) {
    if (weights) break;
    cpus.push_back(
        std::make_unique<machine>(SL_BACKEND_CPU, SL_ISA_BEST, threads, 0, std::to_string(threads) + " threads"));
  }

  if (!weights) {
    test_rows();
    test_attention();
    test_sampling();
    test_graph();
    test_streams();
  }
  open_levels(kWhole, std::size(levels));
  test_weights();
  if (!weights) test_fused_qkv();
  cpus.clear();
  exact.reset();
  rounded.reset();
  std::printf("largest error: %.2f of what is allowed\n%d passed, %d failed, %d skipped\n", worst_ratio, passed, failed,
              skipped);
  return failed != 0;
}
