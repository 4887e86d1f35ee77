// The cpu device: which instruction set, how many threads, the op table.
#include <cstdio>
#include <cstring>
#include <thread>

#include "cpu.h"
#if defined(SL_CPU_X86)
#include <cpuid.h>
#endif

namespace sl::cpu {
namespace {

class cpu_stream final : public host_stream {};

bool has(sl_isa isa) {
#if defined(SL_CPU_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  if (isa == SL_ISA_AVX2) return avx2;
  if (isa == SL_ISA_AVX512) return avx512;
#endif
  return isa == SL_ISA_PORTABLE;
}

const kernels& table_of(sl_isa isa) {
#if defined(SL_CPU_X86)
  if (isa == SL_ISA_AVX2) return avx2::table();
  if (isa == SL_ISA_AVX512) return avx512::table();
#endif
  (void)isa;
  return portable::table();
}

const char* name_of(sl_isa isa) {
  switch (isa) {
    case SL_ISA_AVX2: return "avx2";
    case SL_ISA_AVX512: return "avx512";
    default: return "portable";
  }
}

// The processor's own name, without the blanks around it.
std::string processor() {
#if defined(SL_CPU_X86)
  unsigned words[12] = {};
  for (unsigned leaf = 0; leaf < 3; leaf++) {
    unsigned* w = words + 4 * leaf;
    if (__get_cpuid(0x80000002 + leaf, w, w + 1, w + 2, w + 3) == 0) return "x86-64";
  }
  char text[49] = {};
  std::memcpy(text, words, 48);
  std::string name(text);
  name.erase(0, name.find_first_not_of(' '));
  name.erase(name.find_last_not_of(' ') + 1);
  return name.empty() ? "x86-64" : name;
#else
  return "processor";
#endif
}

std::unique_ptr<device> open(const sl_device_options& options) {
  sl_isa isa = options.isa;
  if (isa == SL_ISA_BEST) isa = has(SL_ISA_AVX512) ? SL_ISA_AVX512 : has(SL_ISA_AVX2) ? SL_ISA_AVX2 : SL_ISA_PORTABLE;
  if (isa < SL_ISA_BEST || isa > SL_ISA_AVX512)
    throw error(SL_ERR_ARGUMENT, format("isa is %d, expected 0 .. %d", options.isa, static_cast<int>(SL_ISA_AVX512)));
  if (!has(isa)) throw error(SL_ERR_UNSUPPORTED, format("this processor lacks %s", name_of(isa)));
  if (options.threads < 0 || options.threads > 1024)
    throw error(SL_ERR_ARGUMENT, format("threads is %d, expected 0 .. 1024", options.threads));
  int threads = options.threads;
  if (threads == 0) threads = static_cast<int>(std::thread::hardware_concurrency());
  return std::make_unique<cpu_device>(table_of(isa), isa, threads > 0 ? threads : 1);
}

op_table make_table() {
  op_table table;
  register_linear_ops(table);
  register_row_ops(table);
  register_attention_ops(table);
  register_sampling_ops(table);
  return table;
}

}  // namespace

const op_table& cpu_device::ops() const {
  static const op_table table = make_table();
  return table;
}

std::unique_ptr<stream> cpu_device::create_stream(void* native_stream) {
  if (native_stream != nullptr) throw error(SL_ERR_UNSUPPORTED, "the cpu backend has no native streams");
  return std::make_unique<cpu_stream>();
}

void cpu_device::info(sl_device_info& info) const {
  info.backend = SL_BACKEND_CPU;
  info.threads = pool.threads();
  info.isa = isa;
  info.multiprocessors = 0;
  info.compute_capability = 0;
  host_memory(info.memory_total, info.memory_free);
  std::snprintf(info.name, sizeof info.name, "%s", processor().c_str());
}

}  // namespace sl::cpu

namespace sl {

const backend& cpu_backend() {
  static const backend entry = {[] { return int32_t{1}; }, cpu::open};
  return entry;
}

}  // namespace sl
