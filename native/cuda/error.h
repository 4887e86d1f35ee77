// From a CUDA error to the ABI's.
#pragma once

#include <cuda_runtime.h>

namespace sl {
namespace SL_BACKEND_NS {

// Throws unless `e` is success. `what` names the call, as in "cudaMallocAsync".
void check(cudaError_t e, const char* what);

// The same for a failed allocation of `bytes`: says how much was wanted and how much is free.
void check_allocation(cudaError_t e, const char* what, unsigned long long bytes);

// What launch.cuh calls after each launch.
void launched(const char* name, cudaError_t e);

}  // namespace SL_BACKEND_NS
}  // namespace sl
