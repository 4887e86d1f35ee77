#!/usr/bin/env bash
# cuda13.sh: names that CUDA 12 and 13 removed, or whose calls they changed, are not in what nvcc compiles. A stand-in for compiling with
# nvcc 13 where only an older one is at hand.   Source: the release notes of CUDA 12.0 and 13.0, and their headers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
names=(
  # fields of cudaDeviceProp that 13 has no more
  clockRate deviceOverlap kernelExecTimeoutEnabled computeMode maxTexture1DLinear memoryClockRate singleToDoublePrecisionPerfRatio cooperativeMultiDeviceLaunch
  # other arguments since 12.0 or 13.0
  'cudaGraphInstantiate' cudaGraphExecUpdate cudaGraphKernelNodeCopyAttributes cudaGraphAddDependencies cudaGraphRemoveDependencies cudaGraphNodeGetDependencies
  cudaGraphNodeGetDependentNodes cudaGraphGetEdges cudaGraphAddNode cudaStreamGetCaptureInfo cudaStreamGetCaptureInfo_v2 cudaStreamUpdateCaptureDependencies
  cudaMemAdvise cudaMemPrefetchAsync cudaMemcpyBatchAsync cudaSignalExternalSemaphoresAsync cudaWaitExternalSemaphoresAsync cuCtxCreate
  # gone
  cudaLaunchCooperativeKernelMultiDevice cudaDeviceGetSharedMemConfig cudaDeviceSetSharedMemConfig cudaFuncSetSharedMemConfig cudaThreadSynchronize cudaThreadExit
  cudaBindTexture cudaUnbindTexture cudaGetTextureReference cudaBindSurfaceToArray cudaProfilerInitialize
  # vectors of four 64-bit numbers, which 13 deprecates for ones of a stated alignment
  double4 long4 ulong4 longlong4 ulonglong4
  # no _sync
  __shfl __shfl_up __shfl_down __shfl_xor __any __all __ballot
)
pattern="\\b($(IFS='|'; echo "${names[*]}"))\\b"
if grep -nE "$pattern" native/cuda/*.cpp native/cuda/*.h native/kernels/*; then
  echo "cuda13.sh: nvcc 13 does not take the above" >&2
  exit 1
fi
# What changed its name is asked for by version.
for call in cudaGetDriverEntryPoint; do
  if grep -nE "\\b$call\\(" native/cuda/*.cpp native/kernels/* | grep -v 'native/cuda/context.cpp'; then
    echo "cuda13.sh: $call was removed in 13: see native/cuda/context.cpp" >&2
    exit 1
  fi
done
grep -q 'CUDART_VERSION >= 12050' native/cuda/context.cpp || { echo "cuda13.sh: context.cpp no longer chooses cudaGetDriverEntryPointByVersion" >&2; exit 1; }
