// The few driver API types that the backend names. Its functions are found through cudaGetDriverEntryPoint, as with the
// real driver, so that nothing links to libcuda.
#pragma once

#include "cuda_runtime.h"

#define CUDA_SUCCESS ::simt::CUresult(0)
#define CUDAAPI

namespace simt {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUstream = cudaStream_t;
struct context_state;
using CUcontext = context_state*;
enum CUpointer_attribute { CU_POINTER_ATTRIBUTE_CONTEXT = 1, CU_POINTER_ATTRIBUTE_MEMORY_TYPE = 2 };

}  // namespace simt
