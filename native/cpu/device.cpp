// The cpu device: which instruction set, how many threads, the op table.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#include "cpu.h"
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(SL_CPU_X86)
#include <cpuid.h>
#elif defined(SL_CPU_ARM) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace sl::cpu {
namespace {

class cpu_stream final : public host_stream {};

constexpr const char* kNames[] = {"best", "portable", "neon", "avx2", "avx_vnni", "avx512", "avx512_vnni", "avx512_bf16"};
static_assert(std::size(kNames) == SL_ISA_AVX512_BF16 + 1);

#if defined(SL_CPU_X86)
// The compiler's checks ask whether the system saves the registers too; what is added here uses no others.
bool leaf_7_1_eax(int bit) {
  unsigned eax = 0, ebx, ecx, edx;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> bit & 1) != 0;
}

bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl");
}
bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

template <auto Linear, auto RowTile>
kernels with_quantised(kernels base) {
  base.quantised_linear = Linear;
  base.row_tile = RowTile;
  return base;
}
const kernels& avx_vnni_table() {
  static const kernels all = with_quantised<avx_vnni::quantised_linear, avx_vnni::row_tile>(avx2::table());
  return all;
}
const kernels& avx512_vnni_table() {
  static const kernels all = with_quantised<avx512_vnni::quantised_linear, avx512_vnni::row_tile>(avx512::table());
  return all;
}
const kernels& avx512_bf16_table() {
  static const kernels all = [] {
    kernels table = avx512_vnni_table();
    table.bf16_linear = avx512_bf16::bf16_linear;
    table.rounds_to_bf16 = true;
    return table;
  }();
  return all;
}
#elif defined(SL_CPU_ARM)
bool has_neon() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
  return true;  // each of Apple's 64-bit processors for computers
#else
  return false;
#endif
}
#endif

struct level {
  sl_isa isa;
  bool (*here)();  // on this processor
  const kernels& (*table)();
};

// What this build has kernels for, the best last.
constexpr level kLevels[] = {
    {SL_ISA_PORTABLE, [] { return true; }, portable::table},
#if defined(SL_CPU_X86)
    {SL_ISA_AVX2, has_avx2, avx2::table},
    {SL_ISA_AVX_VNNI, [] { return has_avx2() && leaf_7_1_eax(4); }, avx_vnni_table},
    {SL_ISA_AVX512, has_avx512, avx512::table},
    {SL_ISA_AVX512_VNNI, has_avx512_vnni, avx512_vnni_table},
    {SL_ISA_AVX512_BF16, [] { return has_avx512_vnni() && leaf_7_1_eax(5); }, avx512_bf16_table},
#elif defined(SL_CPU_ARM)
    {SL_ISA_NEON, has_neon, neon::table},
#endif
};

// Null where processor or build lack it.
const level* find(sl_isa isa) {
  const level* found = nullptr;
  for (const level& l : kLevels)
    if ((isa == SL_ISA_BEST || l.isa == isa) && l.here()) found = &l;
  return found;
}

std::string names_here() {
  std::string names;
  for (const level& l : kLevels)
    if (l.here()) names.append(names.empty() ? "" : ", ").append(kNames[l.isa]);
  return names;
}

const level& choose(sl_isa isa) {
  const char* variable = isa == SL_ISA_BEST ? std::getenv("SLUICE_ISA") : nullptr;
  const std::string asked = variable != nullptr ? variable : "";
  if (!asked.empty()) {
    while (isa <= SL_ISA_AVX512_BF16 && asked != kNames[isa]) ++isa;
    if (isa > SL_ISA_AVX512_BF16)
      throw error(SL_ERR_ARGUMENT, format("the environment variable SLUICE_ISA is '%s', which is no instruction set; here are %s",
                                          asked.c_str(), names_here().c_str()));
  }
  if (const level* found = find(isa)) return *found;
  throw error(SL_ERR_UNSUPPORTED,
              format("%sthis processor or build lacks %s; here are %s",
                     asked.empty() ? "" : "the environment variable SLUICE_ISA asks for what is not here: ", kNames[isa],
                     names_here().c_str()));
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

// The cores that this process may run on: threads that share one share its arithmetic and its caches. Where the system does not
// tell, its logical processors.
int physical_cores() {
  const int logical = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return logical;
  std::set<std::string> cores;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (!CPU_ISSET(i, &allowed)) continue;
    std::ifstream file(format("/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", i));
    std::string siblings;
    if (!std::getline(file, siblings)) return logical;
    cores.insert(siblings);
  }
  return cores.empty() ? logical : static_cast<int>(cores.size());
#else
  return logical;
#endif
}

std::unique_ptr<device> open(const sl_device_options& options) {
  if (options.isa < SL_ISA_BEST || options.isa > SL_ISA_AVX512_BF16)
    throw error(SL_ERR_ARGUMENT, format("isa is %d, expected 0 .. %d", options.isa, static_cast<int>(SL_ISA_AVX512_BF16)));
  if (options.threads < 0 || options.threads > 1024)
    throw error(SL_ERR_ARGUMENT, format("threads is %d, expected 0 .. 1024", options.threads));
  int threads = options.threads;
  if (threads == 0) threads = physical_cores();
  const level& best = choose(options.isa);
  return std::make_unique<cpu_device>(best.table(), best.isa, threads > 0 ? threads : 1);
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
