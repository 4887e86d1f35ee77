// Stands in for CUDA's header when g++ builds a .cu file for the executor.
#pragma once

#include "simt/types.h"
#include "simt/runtime.h"
#include "simt/device.h"
#include "simt/math.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

using namespace simt;
