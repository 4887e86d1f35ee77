#include "device.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>

#include "error.h"
#include "platform.h"
#include "stream.h"

namespace sl {
namespace SL_BACKEND_NS {
namespace {

// After a failed kernel the process's primary context is of no more use. It is made anew when the last device that
// stood on it is gone and the next one is opened.
std::mutex opening;
int open_devices = 0;
bool context_failed = false;

constexpr int least_capability = 80;  // of the kernels' code: asynchronous copies, bfloat16 on tensor cores

// What cannot be asked, as after a failed kernel, is not held against the device.
int capability_of(int ordinal) {
  int major = 0, minor = 0;
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal) == cudaSuccess &&
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal) == cudaSuccess)
    return major * 10 + minor;
  cudaGetLastError();
  return least_capability;
}

}  // namespace

int32_t count_devices() {
  int n = 0, driver_version = 0;
  const cudaError_t e = cudaGetDeviceCount(&n);
  if (e == cudaSuccess && n > 0) {
    int best = 0;
    for (int i = 0; i < n; i++) best = std::max(best, capability_of(i));
    if (best >= least_capability) return n;
    throw error(SL_ERR_NO_DEVICE, format("no CUDA device of compute capability 8.0 or more: the best of %d has %d.%d", n, best / 10, best % 10));
  }
  cudaGetLastError();
  cudaDriverGetVersion(&driver_version);
  throw error(SL_ERR_NO_DEVICE,
              format("no CUDA device: cudaGetDeviceCount says '%s' (%s); this library needs CUDA %d.%d, the driver offers %d.%d",
                     e == cudaSuccess ? "0 devices" : cudaGetErrorString(e), cudaGetErrorName(e), CUDART_VERSION / 1000,
                     CUDART_VERSION % 1000 / 10, driver_version / 1000, driver_version % 1000 / 10));
}

std::unique_ptr<device> open_device(const sl_device_options& o) {
  const int n = count_devices();
  if (o.ordinal < 0 || o.ordinal >= n)
    throw error(SL_ERR_NO_DEVICE, format("there is no CUDA device %d: this machine has %d", o.ordinal, n));
  if (const int c = capability_of(o.ordinal); c < least_capability)
    throw error(SL_ERR_NO_DEVICE, format("CUDA device %d has compute capability %d.%d: the kernels need 8.0", o.ordinal, c / 10, c % 10));
  if (o.invariant != 0 && o.int8_activations != 0)
    throw error(SL_ERR_ARGUMENT, "options.invariant and options.int8_activations: activations are rounded to int8 for few rows alone, so a row would depend on its batch");
  enter_platform(&o);
  try {
    std::unique_ptr<device> opened = std::make_unique<cuda_device>(o);
    enter_platform(nullptr);
    return opened;
  } catch (...) {
    enter_platform(nullptr);
    throw;
  }
}

cuda_device::cuda_device(const sl_device_options& o) : ordinal_(o.ordinal), options_(o) {
  const int ordinal = ordinal_;
  std::lock_guard guard(opening);
  CUcontext before = nullptr;
  driver().get_current(&before);
  CUdevice handle = 0;
  if (driver().device_get(&handle, ordinal) != CUDA_SUCCESS)
    throw error(SL_ERR_NO_DEVICE, format("the CUDA driver does not know device %d", ordinal));
  if (context_failed && open_devices == 0) {
    cudaSetDevice(ordinal);
    cudaDeviceReset();
    context_failed = false;
  }
  if (driver().retain_primary(&context_, handle) != CUDA_SUCCESS)
    throw error(SL_ERR_NO_DEVICE, format("the primary context of CUDA device %d cannot be made", ordinal));
  try {
    driver().set_current(context_);
    cudaDeviceProp p;
    check(cudaGetDeviceProperties(&p, ordinal), "cudaGetDeviceProperties");
    std::snprintf(name_, sizeof name_, "%.127s", p.name);
    multiprocessors_ = p.multiProcessorCount;
    shared_bytes_ = int64_t(p.sharedMemPerMultiprocessor);
    capability_ = p.major * 10 + p.minor;
    // What streams free stays in the pool: giving it back to the system at each synchronisation costs milliseconds.
    cudaMemPool_t pool;
    check(cudaDeviceGetDefaultMemPool(&pool, ordinal), "cudaDeviceGetDefaultMemPool");
    unsigned long long keep = ~0ull;
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep), "cudaMemPoolSetAttribute");
  } catch (...) {
    driver().set_current(before);
    driver().release_primary(handle);
    throw;
  }
  driver().set_current(before);
  open_devices++;
  reset_platform_counters(&options_);  // another device may have stood at this address
}

bool launches_early() {
#if defined(CUDART_VERSION) && CUDART_VERSION >= 12030
  static const bool driver_knows = [] {
    int version = 0;
    return cudaDriverGetVersion(&version) == cudaSuccess && version >= 12030;
  }();
  static std::atomic<int> capabilities[64] = {};  // 0: not asked yet
  int ordinal = 0;
  if (!driver_knows || cudaGetDevice(&ordinal) != cudaSuccess || ordinal >= 64) return false;
  int major = capabilities[ordinal];
  if (major == 0 && cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal) == cudaSuccess) capabilities[ordinal] = major;
  return major >= 9;
#else
  return false;
#endif
}

cuda_device::~cuda_device() {
  quietly(*this, [&] { library_.reset(); });
  std::lock_guard guard(opening);
  open_devices--;
  if (lost) context_failed = true;
  CUdevice handle = 0;
  if (driver().device_get(&handle, ordinal_) == CUDA_SUCCESS) driver().release_primary(handle);
}

matrix_library* cuda_device::library() const {
  std::call_once(library_looked_for_, [&] {
    context_scope scope(*this);
    library_ = open_matrix_library();
  });
  return library_.get();
}

const op_table& cuda_device::ops() const { return op_table_of_kernels(); }

std::unique_ptr<stream> cuda_device::create_stream(void* native_stream) {
  context_scope scope(*this);
  return std::make_unique<cuda_stream>(*this, static_cast<cudaStream_t>(native_stream));
}

std::unique_ptr<event> cuda_device::create_event() {
  context_scope scope(*this);
  return std::make_unique<cuda_event>(*this);
}

bool cuda_device::supports_kv(sl_dtype d) const {
  return d == SL_DTYPE_F32 || d == SL_DTYPE_F16 || d == SL_DTYPE_BF16 || d == SL_DTYPE_I8 || d == SL_DTYPE_FP8_E4M3;
}

sharing_costs cuda_device::costs_of_sharing(sl_dtype kv) const {
  // A multiprocessor's part of the memory's rate, and half of what its tensor (or, for f32, its ordinary) cores could do: 25 and 16 bytes, 870 and 435
  // products (55) a nanosecond on sm_90 and sm_80. Guesses, as long as no device has been measured.
  const bool newer = capability_ >= 90;
  const double bytes = newer ? 25 : 16, products = kv == SL_DTYPE_F32 ? 55 : newer ? 870 : 435, launch_ns = newer ? 2000 : 3000;
  sharing_costs c;
  c.byte = 1 / (bytes * multiprocessors_), c.product = 1 / (products * multiprocessors_), c.start = launch_ns;
  c.few_rows = kv == SL_DTYPE_F32 ? 32 : 16, c.tile_rows = kv == SL_DTYPE_F32 ? 32 : 64;
  c.levels = !invariant();  // sums of a prefix that follows another would meet its own first
  return c;
}

void cuda_device::info(sl_device_info& i) const {
  context_scope scope(*this);
  i.backend = this_backend;
  i.threads = 0;
  i.isa = SL_ISA_BEST;
  i.multiprocessors = multiprocessors_;
  i.compute_capability = capability_;
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  i.memory_total = total, i.memory_free = free;
  std::snprintf(i.name, sizeof i.name, "%s", name_);
}

void cuda_device::counters(sl_counters& c) const {
  c.launches = launches.load();
  add_counters(&options_, c);
}

void cuda_device::reset_counters() {
  launches = 0;
  reset_platform_counters(&options_);
}

std::vector<sl_kernel_counters> cuda_device::kernel_counters() const { return platform_kernel_counters(&options_); }

}  // namespace SL_BACKEND_NS
}  // namespace sl
