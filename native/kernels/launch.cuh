// Launches a kernel on a stream:  launch(stream, KERNEL(rms_norm_kernel<T>), grid, block, shared_bytes, arguments...)
#pragma once

#include <cuda_runtime.h>

#include <tuple>
#include <utility>

namespace sl {
namespace SL_BACKEND_NS {

template <typename... P>
struct named_kernel {
  const char* name;
  void (*function)(P...);
};

template <typename... P>
named_kernel<P...> name_kernel(const char* name, void (*function)(P...)) { return {name, function}; }

#define KERNEL(...) name_kernel(#__VA_ARGS__, __VA_ARGS__)

// Dynamic shared memory that is asked for. Static arrays and dynamic memory together may be 48 KB without asking; asking early
// costs no query of a kernel's static bytes, which are below the other half.
constexpr size_t asked_shared_bytes = 24 * 1024;

// Counts the launch, and throws when it was refused (cuda/error.cpp).
void launched(const char* name, cudaError_t);

// Whether the current device may start a kernel while the one before it ends: sm_90 and up, where graphs keep such edges
// (CUDA 12.3). cuda/device.cpp.
bool launches_early();

// How a kernel follows the one before it on its stream. One that is launched early calls wait_for_previous_kernel() before it
// touches anything that another kernel writes, or reads what it writes itself.
enum class follow { in_order, early };

template <follow How, typename... P, typename... A>
void launch_as(cudaStream_t stream, named_kernel<P...> kernel, dim3 grid, dim3 block, size_t shared, A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "as many arguments as the kernel has parameters");
  if (shared > asked_shared_bytes) {
    // No launch, and not counted as one unless it is refused.
    const cudaError_t e = cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared));
    if (e != cudaSuccess) launched(kernel.name, e);
  }
  std::tuple<P...> bound{static_cast<P>(std::forward<A>(arguments))...};
#if defined(__CUDACC__)
  const auto start = [&](auto&... each) {
    void* addresses[] = {static_cast<void*>(&each)...};
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t c{};
    c.gridDim = grid, c.blockDim = block, c.dynamicSmemBytes = shared, c.stream = stream;
    c.attrs = &early;
    if constexpr (How == follow::early) c.numAttrs = launches_early() ? 1 : 0;
    return cudaLaunchKernelExC(&c, reinterpret_cast<const void*>(kernel.function), addresses);
  };
  launched(kernel.name, std::apply(start, bound));
#else
  // The executor's streams run in order.
  launched(kernel.name,
           ::simt::launch_kernel(kernel.name, reinterpret_cast<const void*>(kernel.function), grid, block, shared, stream,
                                 [function = kernel.function, bound] { std::apply(function, bound); }));
#endif
}

template <typename... P, typename... A>
void launch(cudaStream_t stream, named_kernel<P...> kernel, dim3 grid, dim3 block, size_t shared, A&&... arguments) {
  launch_as<follow::in_order>(stream, kernel, grid, block, shared, std::forward<A>(arguments)...);
}
template <typename... P, typename... A>
void launch_early(cudaStream_t stream, named_kernel<P...> kernel, dim3 grid, dim3 block, size_t shared, A&&... arguments) {
  launch_as<follow::early>(stream, kernel, grid, block, shared, std::forward<A>(arguments)...);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
