#include "stream.h"

#include "device.h"
#include "error.h"

namespace sl {
namespace SL_BACKEND_NS {

cuda_stream::cuda_stream(const cuda_device& d, cudaStream_t imported) : device_(d), owned_(imported == nullptr) {
  if (owned_) {
    check(cudaStreamCreateWithFlags(&native, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  } else {
    CUcontext context = nullptr;
    if (driver().stream_context(imported, &context) != CUDA_SUCCESS || context != d.context())
      throw error(SL_ERR_ARGUMENT,
                  format("native_stream is no stream of the primary context of CUDA device %d", d.ordinal()));
    native = imported;
  }
  try {
    const uint64_t bytes = uint64_t(arrival_counters(d)) * sizeof *arrivals_;
    check_allocation(cudaMalloc(reinterpret_cast<void**>(&arrivals_), bytes), "cudaMalloc", bytes);
    check(cudaMemsetAsync(arrivals_, 0, bytes, native), "cudaMemsetAsync");
  } catch (...) {
    release_all();
    throw;
  }
}

cuda_stream::~cuda_stream() { release_all(); }

int64_t cuda_stream::arrival_counters(const device& d) { return int64_t(16 * most_sharing_blocks) * multiprocessors(d); }

void cuda_stream::release_all() noexcept {
  quietly(device_, [&] {
    if (arrivals_) cudaFree(arrivals_);  // waits for what runs
    if (owned_) cudaStreamDestroy(native);
  });
}

void* cuda_stream::allocate(uint64_t bytes, sl_memory memory) {
  context_scope scope(device_);
  void* p = nullptr;
  if (memory == SL_MEMORY_HOST) check_allocation(cudaMallocHost(&p, bytes), "cudaMallocHost", bytes);
  else check_allocation(cudaMallocAsync(&p, bytes, native), "cudaMallocAsync", bytes);
  return p;
}

void cuda_stream::release(void* data, uint64_t, sl_memory memory) noexcept {
  quietly(device_, [&] {
    if (memory == SL_MEMORY_HOST) {
      cudaStreamSynchronize(native);  // pinned memory has no free that the stream orders
      cudaFreeHost(data);
    } else {
      cudaFreeAsync(data, native);
    }
  });
}

pinned_staging& cuda_stream::staging() {
  if (!staging_) staging_ = std::make_unique<pinned_staging>(device_);
  return *staging_;
}

void cuda_stream::throw_if_capturing(const char* what) const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(native, &status), "cudaStreamIsCapturing");
  if (status != cudaStreamCaptureStatusNone) throw error(SL_ERR_STATE, format("%s cannot be captured", what));
}

void cuda_stream::upload(void* target, const void* source, uint64_t bytes) {
  context_scope scope(device_);
  throw_if_capturing("an upload, which reads the host's memory at the call,");
  check(cudaMemcpyAsync(target, source, bytes, cudaMemcpyHostToDevice, native), "cudaMemcpyAsync");
  // Pageable memory has been read by now; pinned memory has not.
  cudaPointerAttributes a;
  if (cudaPointerGetAttributes(&a, source) == cudaSuccess && a.type != cudaMemoryTypeUnregistered) synchronize();
  cudaGetLastError();
}

void cuda_stream::download(void* target, const void* source, uint64_t bytes) {
  context_scope scope(device_);
  check(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDeviceToHost, native), "cudaMemcpyAsync");
}

void cuda_stream::copy(void* target, const void* source, uint64_t bytes) {
  context_scope scope(device_);
  check(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDefault, native), "cudaMemcpyAsync");
}

void cuda_stream::fill(void* target, int byte, uint64_t bytes) {
  context_scope scope(device_);
  check(cudaMemsetAsync(target, byte, bytes, native), "cudaMemsetAsync");
}

void cuda_stream::synchronize() {
  context_scope scope(device_);
  check(cudaStreamSynchronize(native), "cudaStreamSynchronize");
}

void cuda_stream::begin_capture() {
  context_scope scope(device_);
  check(cudaStreamBeginCapture(native, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
}

std::unique_ptr<graph> cuda_stream::end_capture() {
  context_scope scope(device_);
  cudaGraph_t recorded = nullptr;
  check(cudaStreamEndCapture(native, &recorded), "cudaStreamEndCapture");
  auto g = std::make_unique<cuda_graph>(device_);
  const cudaError_t e = cudaGraphInstantiateWithFlags(&g->native, recorded, 0);
  cudaGraphDestroy(recorded);
  check(e, "cudaGraphInstantiateWithFlags");
  return g;
}

void cuda_stream::launch(graph& g) {
  context_scope scope(device_);
  check(cudaGraphLaunch(static_cast<cuda_graph&>(g).native, native), "cudaGraphLaunch");
}

void cuda_stream::record(event& e) {
  context_scope scope(device_);
  check(cudaEventRecord(static_cast<cuda_event&>(e).native, native), "cudaEventRecord");
}

void cuda_stream::wait(event& e) {
  context_scope scope(device_);
  check(cudaStreamWaitEvent(native, static_cast<cuda_event&>(e).native, 0), "cudaStreamWaitEvent");
}

void cuda_stream::check_pointer(const void* pointer) {
  context_scope scope(device_);
  cudaPointerAttributes a;
  const cudaError_t e = cudaPointerGetAttributes(&a, pointer);
  cudaGetLastError();
  if (e != cudaSuccess || (a.type != cudaMemoryTypeDevice && a.type != cudaMemoryTypeManaged))
    throw error(SL_ERR_ARGUMENT, format("%p is no memory of CUDA device %d", pointer, device_.ordinal()));
  // Memory of a pool belongs to its device and to no context.
  CUcontext context = nullptr;
  const CUresult r = driver().pointer_attribute(&context, CU_POINTER_ATTRIBUTE_CONTEXT,
                                                static_cast<CUdeviceptr>(reinterpret_cast<uintptr_t>(pointer)));
  if (r == CUDA_SUCCESS && context != nullptr && context != device_.context())
    throw error(SL_ERR_ARGUMENT, format("%p was allocated in another CUDA context than the primary one of device %d",
                                        pointer, device_.ordinal()));
  if (a.device != device_.ordinal())
    throw error(SL_ERR_ARGUMENT, format("%p is memory of CUDA device %d, not %d", pointer, a.device, device_.ordinal()));
}

// --- events and graphs ----------------------------------------------------------------------------------------------

cuda_event::cuda_event(const cuda_device& d) : device_(d) { check(cudaEventCreate(&native), "cudaEventCreate"); }

cuda_event::~cuda_event() {
  quietly(device_, [&] { cudaEventDestroy(native); });
}

void cuda_event::synchronize() {
  context_scope scope(device_);
  check(cudaEventSynchronize(native), "cudaEventSynchronize");
}

double cuda_event::milliseconds_since(event& start) {
  context_scope scope(device_);
  auto& from = static_cast<cuda_event&>(start);
  check(cudaEventSynchronize(from.native), "cudaEventSynchronize");
  check(cudaEventSynchronize(native), "cudaEventSynchronize");
  float ms = 0;
  check(cudaEventElapsedTime(&ms, from.native, native), "cudaEventElapsedTime");
  return ms;
}

cuda_graph::~cuda_graph() {
  quietly(device_, [&] { cudaGraphExecDestroy(native); });
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
