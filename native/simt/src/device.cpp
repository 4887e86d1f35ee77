// The device itself: properties, errors, launches, and the driver calls that the backend looks up by name.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "cuda.h"
#include "executor.h"
#include "runtime_state.h"

namespace simt {

struct context_state {};

namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local context_state* current_context = nullptr;
cudaError_t context_error = cudaSuccess;
std::string context_failure;
std::map<const void*, size_t> dynamic_shared_limits;
context_state primary;

size_t shared_limit(const void* function) {
  const auto it = dynamic_shared_limits.find(function);
  return it == dynamic_shared_limits.end() ? shared_per_block : it->second;
}

}  // namespace

std::recursive_mutex& lock() {
  static std::recursive_mutex m;
  return m;
}

options& settings() {
  static options o = [] {
    options from_environment;
    if (const char* s = std::getenv("SLUICE_SIMT_SEED")) from_environment.seed = std::strtoull(s, nullptr, 10);
    if (const char* s = std::getenv("SLUICE_SIMT_SMS"))
      if (const int n = std::atoi(s); n > 0) from_environment.multiprocessors = n;
    if (const char* s = std::getenv("SLUICE_SIMT_COUNT")) from_environment.count_accesses = std::atoi(s) != 0;
    return from_environment;
  }();
  return o;
}

namespace {

struct role {
  uint64_t seed = 0;
  int multiprocessors = 0;
  const void* owner = nullptr;
  watched_range watching[2] = {};
};
thread_local role played;
watched_range watching_now[2];  // of the launch that is running

role current_role() {
  return played.multiprocessors > 0 ? played : role{settings().seed, settings().multiprocessors, nullptr, {}};
}

std::map<const void*, std::map<std::string, counters>>& accounts() {
  static std::map<const void*, std::map<std::string, counters>> all;
  return all;
}

// A launch runs later, on whatever thread waits for it, as what it was launched as.
struct role_scope {
  explicit role_scope(const role& r) : before{settings().seed, settings().multiprocessors, nullptr, {}} {
    settings().seed = r.seed, settings().multiprocessors = r.multiprocessors;
    watching_now[0] = r.watching[0], watching_now[1] = r.watching[1];
  }
  ~role_scope() { settings().seed = before.seed, settings().multiprocessors = before.multiprocessors; }
  role before;
};

}  // namespace

void play_as(uint64_t seed, int multiprocessors, const void* owner) { played = {seed, multiprocessors, owner, {}}; }
void watch_reads(watched_range first, watched_range second) { played.watching[0] = first, played.watching[1] = second; }

bool watched(const void* p) {
  for (const watched_range& w : watching_now)
    if (w.bytes && size_t(static_cast<const char*>(p) - static_cast<const char*>(w.low)) < w.bytes) return true;
  return false;
}

counters& counters::operator+=(const counters& o) {
  launches += o.launches, bytes_read += o.bytes_read, bytes_written += o.bytes_written;
  sectors_read += o.sectors_read, sectors_written += o.sectors_written, bank_conflicts += o.bank_conflicts;
  mma += o.mma, kv_bytes_read += o.kv_bytes_read;
  return *this;
}

counters counters::operator-(const counters& o) const {
  return {launches - o.launches, bytes_read - o.bytes_read, bytes_written - o.bytes_written, sectors_read - o.sectors_read,
          sectors_written - o.sectors_written, bank_conflicts - o.bank_conflicts, mma - o.mma, kv_bytes_read - o.kv_bytes_read};
}

std::map<std::string, counters> account_of(const void* owner) {
  std::lock_guard guard(lock());
  return accounts()[owner];
}

void reset_account(const void* owner) {
  std::lock_guard guard(lock());
  accounts().erase(owner);
}

counters& count() {
  static counters c;
  return c;
}

std::string failure_text() {
  std::lock_guard guard(lock());
  return context_failure;
}

cudaError_t report(cudaError_t e) {
  if (e != cudaSuccess) last_error = e;
  return e;
}
cudaError_t sticky() { return context_error; }
void set_failed(cudaError_t e, const std::string& text) { context_error = e, context_failure = text; }

// --- errors --------------------------------------------------------------------------------------------------------

#define SIMT_ERRORS(X)                                                                                              \
  X(cudaSuccess, "no error") X(cudaErrorInvalidValue, "invalid argument")                                           \
  X(cudaErrorMemoryAllocation, "out of memory") X(cudaErrorInvalidConfiguration, "invalid configuration argument")  \
  X(cudaErrorNoDevice, "no CUDA-capable device is detected") X(cudaErrorInvalidDevice, "invalid device ordinal")    \
  X(cudaErrorInvalidResourceHandle, "invalid resource handle") X(cudaErrorNotReady, "device not ready")             \
  X(cudaErrorIllegalAddress, "an illegal memory access was encountered")                                            \
  X(cudaErrorLaunchOutOfResources, "too many resources requested for launch")                                       \
  X(cudaErrorLaunchFailure, "unspecified launch failure") X(cudaErrorNotSupported, "operation not supported")       \
  X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")                          \
  X(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture")                   \
  X(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream")

const char* cudaGetErrorName(cudaError_t e) {
#define X(name, text) if (e == name) return #name;
  SIMT_ERRORS(X)
#undef X
  return "cudaErrorUnknown";
}

const char* cudaGetErrorString(cudaError_t e) {
  if (e == cudaErrorLaunchFailure) {
    std::lock_guard guard(lock());
    static std::string text;
    if (!context_failure.empty()) return (text = context_failure).c_str();
  }
#define X(name, words) if (e == name) return words;
  SIMT_ERRORS(X)
#undef X
  return "unknown error";
}

cudaError_t cudaPeekAtLastError() { return context_error != cudaSuccess ? context_error : last_error; }
cudaError_t cudaGetLastError() {
  const cudaError_t e = cudaPeekAtLastError();
  last_error = cudaSuccess;
  return e;
}

// --- device --------------------------------------------------------------------------------------------------------

cudaError_t cudaGetDeviceCount(int* n) { *n = 1; return cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  if (device != 0) return report(cudaErrorInvalidDevice);
  current_context = &primary;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) { *device = 0; return cudaSuccess; }

// Ends the context: what it had allocated goes with it, also what could not be freed after a failed kernel.
cudaError_t cudaDeviceReset() {
  std::lock_guard guard(lock());
  release_streams();
  release_allocations();
  context_error = last_error = cudaSuccess;
  context_failure.clear();
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device != 0) return report(cudaErrorInvalidDevice);
  *p = {};
  std::snprintf(p->name, sizeof p->name, "simt (%d multiprocessors played on the CPU)", current_role().multiprocessors);
  size_t free;
  cudaMemGetInfo(&free, &p->totalGlobalMem);
  p->sharedMemPerBlock = shared_per_block, p->sharedMemPerBlockOptin = shared_per_block_optin;
  p->sharedMemPerMultiprocessor = shared_per_multiprocessor;
  p->regsPerBlock = 65536, p->warpSize = 32, p->maxThreadsPerBlock = 1024, p->major = 8, p->minor = 0;
  p->multiProcessorCount = current_role().multiprocessors;
  p->maxThreadsPerMultiProcessor = int(threads_per_multiprocessor);
  p->l2CacheSize = 1 << 20;
  p->maxGridSize[0] = 0x7fffffff, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr a, int device) {
  cudaDeviceProp p;
  if (const cudaError_t e = cudaGetDeviceProperties(&p, device); e != cudaSuccess) return e;
  switch (a) {
    case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = int(p.sharedMemPerMultiprocessor); break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = int(p.sharedMemPerBlockOptin); break;
    case cudaDevAttrMemoryPoolsSupported: *value = 1; break;
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
    default: return report(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* v) { *v = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* v) { *v = CUDART_VERSION; return cudaSuccess; }

// --- driver calls --------------------------------------------------------------------------------------------------

namespace {

CUresult context_get_current(CUcontext* c) { *c = current_context; return 0; }
CUresult context_set_current(CUcontext c) { current_context = c; return 0; }
CUresult primary_retain(CUcontext* c, CUdevice) { *c = &primary; return 0; }
CUresult primary_release(CUdevice) { return 0; }
CUresult stream_context(CUstream, CUcontext* c) { *c = &primary; return 0; }
CUresult device_get(CUdevice* d, int ordinal) { *d = ordinal; return ordinal == 0 ? 0 : 101; }
CUresult pointer_attribute(void* out, CUpointer_attribute a, CUdeviceptr p) {
  std::lock_guard guard(lock());
  if (a != CU_POINTER_ATTRIBUTE_CONTEXT || !allocation_at(reinterpret_cast<void*>(p))) return 1;
  *static_cast<CUcontext*>(out) = &primary;
  return 0;
}

}  // namespace

cudaError_t cudaGetDriverEntryPoint(const char* symbol, void** out, unsigned long long) {
  const std::map<std::string, void*> calls = {
      {"cuCtxGetCurrent", reinterpret_cast<void*>(context_get_current)},
      {"cuCtxSetCurrent", reinterpret_cast<void*>(context_set_current)},
      {"cuDeviceGet", reinterpret_cast<void*>(device_get)},
      {"cuDevicePrimaryCtxRetain", reinterpret_cast<void*>(primary_retain)},
      {"cuDevicePrimaryCtxRelease", reinterpret_cast<void*>(primary_release)},
      {"cuStreamGetCtx", reinterpret_cast<void*>(stream_context)},
      {"cuPointerGetAttribute", reinterpret_cast<void*>(pointer_attribute)},
  };
  const auto it = calls.find(symbol);
  *out = it == calls.end() ? nullptr : it->second;
  return *out ? cudaSuccess : cudaErrorNotSupported;
}

// --- launches ------------------------------------------------------------------------------------------------------

cudaError_t set_function_attribute(const void* function, cudaFuncAttribute a, int value) {
  std::lock_guard guard(lock());
  if (a == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (value < 0 || size_t(value) > shared_per_block_optin) return report(cudaErrorInvalidValue);
    dynamic_shared_limits[function] = size_t(value);
  }
  return cudaSuccess;
}

cudaError_t occupancy(int* blocks, const void* function, int threads, size_t shared) {
  std::lock_guard guard(lock());
  if (threads < 1 || threads > 1024) return report(cudaErrorInvalidValue);
  *blocks = shared > shared_limit(function) ? 0 : int(resident_blocks(unsigned(threads), shared));
  return cudaSuccess;
}

cudaError_t launch_kernel(const char* name, const void* function, dim3 grid, dim3 block, size_t shared,
                          cudaStream_t stream, std::function<void()> body) {
  std::lock_guard guard(lock());
  const unsigned long long threads = 1ull * block.x * block.y * block.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 ||
      threads == 0 || threads > 1024 || block.z > 64)
    return report(cudaErrorInvalidConfiguration);
  if (shared > shared_limit(function)) return report(cudaErrorInvalidValue);
  const size_t all = dynamic_shared_limits.count(function) ? shared_per_block_optin : shared_per_block;
  return enqueue(stream, [call = kernel_call{name, function, grid, block, shared, all, std::move(body)}, as = current_role()] {
    const role_scope scope(as);
    const counters before = count();
    const std::string failure = run_kernel(call);
    accounts()[as.owner][call.name.substr(0, call.name.find('<'))] += count() - before;
    if (failure.empty()) return cudaSuccess;
    set_failed(cudaErrorLaunchFailure, failure);
    return cudaErrorLaunchFailure;
  });
}

}  // namespace simt
