// Streams run lazily and in order, events order them, graphs replay.
#include "test.h"

namespace sl::SL_BACKEND_NS {

__global__ void add_kernel(gmem<float> y, gmem<const float> x, float v) { y[threadIdx.x] = x[threadIdx.x] + v; }

struct stream_guard {
  cudaStream_t s;
  stream_guard() { cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking); }
  ~stream_guard() { cudaStreamDestroy(s); }
};

TEST(Work_runs_only_when_the_host_waits) {
  stream_guard s;
  device_array<float> x(32, 1.0f);
  float* host;
  cudaMallocHost(&host, 128);
  launch(s.s, KERNEL(add_kernel), 1, 32, 0, x.data, x.data, 1.0f);
  cudaMemcpyAsync(host, x.data, 128, cudaMemcpyDeviceToHost, s.s);
  EXPECT(host[0] != 2.0f);  // a host that reads now has forgotten to wait
  EXPECT(cudaStreamSynchronize(s.s) == cudaSuccess);
  EXPECT(host[0] == 2.0f);
  cudaFreeHost(host);
}

TEST(A_missing_wait_between_streams_shows_and_an_event_mends_it) {
  for (const bool wait : {false, true}) {
    stream_guard a, b;
    cudaEvent_t e;
    cudaEventCreateWithFlags(&e, cudaEventDisableTiming);
    device_array<float> x(32, 1.0f), y(32);
    launch(a.s, KERNEL(add_kernel), 1, 32, 0, x.data, x.data, 1.0f);
    cudaEventRecord(e, a.s);
    launch(a.s, KERNEL(add_kernel), 1, 32, 0, x.data, x.data, 100.0f);
    if (wait) cudaStreamWaitEvent(b.s, e);
    launch(b.s, KERNEL(add_kernel), 1, 32, 0, y.data, x.data, 10.0f);
    EXPECT(cudaStreamSynchronize(b.s) == cudaSuccess);
    EXPECT(y.host()[0] == (wait ? 12.0f : 11.0f));
    cudaEventDestroy(e);
  }
}

TEST(A_graph_replays_with_the_arguments_of_capture_and_the_data_of_replay) {
  stream_guard s, t;
  cudaEvent_t e;
  cudaEventCreate(&e);
  device_array<float> x(32, 1.0f), y(32), z(32);
  EXPECT(cudaStreamBeginCapture(s.s, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  launch(s.s, KERNEL(add_kernel), 1, 32, 0, y.data, x.data, 1.0f);
  cudaEventRecord(e, s.s);
  cudaStreamWaitEvent(t.s, e);
  launch(t.s, KERNEL(add_kernel), 1, 32, 0, z.data, y.data, 1.0f);
  cudaEventRecord(e, t.s);
  cudaStreamWaitEvent(s.s, e);
  cudaGraph_t g;
  EXPECT(cudaStreamEndCapture(s.s, &g) == cudaSuccess);
  EXPECT(y.host()[0] == 0.0f);  // recorded, not run
  cudaGraphExec_t x1;
  EXPECT(cudaGraphInstantiate(&x1, g, nullptr, nullptr, 0) == cudaSuccess);
  cudaGraphDestroy(g);
  for (int i = 0; i < 3; i++) {
    const std::vector<float> values(32, float(i));
    cudaMemcpy(x.data, values.data(), 128, cudaMemcpyHostToDevice);
    EXPECT(cudaGraphLaunch(x1, s.s) == cudaSuccess);
    EXPECT(cudaStreamSynchronize(s.s) == cudaSuccess);
    EXPECT(z.host()[31] == float(i) + 2.0f);
  }
  cudaGraphExecDestroy(x1);
  cudaEventDestroy(e);
}

TEST(Waiting_while_capturing_is_refused) {
  stream_guard s;
  cudaStreamBeginCapture(s.s, cudaStreamCaptureModeThreadLocal);
  EXPECT(cudaStreamSynchronize(s.s) == cudaErrorStreamCaptureUnsupported);
  cudaGraph_t g;
  EXPECT(cudaStreamEndCapture(s.s, &g) == cudaErrorStreamCaptureInvalidated);
  cudaGetLastError();
}

TEST(Events_tell_time) {
  stream_guard s;
  cudaEvent_t a, b;
  cudaEventCreate(&a), cudaEventCreate(&b);
  device_array<float> x(32);
  cudaEventRecord(a, s.s);
  launch(s.s, KERNEL(add_kernel), 100, 32, 0, x.data, x.data, 1.0f);
  cudaEventRecord(b, s.s);
  float ms = -1;
  EXPECT(cudaEventSynchronize(b) == cudaSuccess);
  EXPECT(cudaEventElapsedTime(&ms, a, b) == cudaSuccess && ms >= 0);
  cudaEventDestroy(a), cudaEventDestroy(b);
}

TEST(Freed_memory_stays_until_the_stream_gets_there) {
  stream_guard s;
  float *x, *y;
  EXPECT(cudaMallocAsync(&x, 128, s.s) == cudaSuccess && cudaMallocAsync(&y, 128, s.s) == cudaSuccess);
  cudaMemsetAsync(x, 0, 128, s.s);
  launch(s.s, KERNEL(add_kernel), 1, 32, 0, y, x, 5.0f);
  cudaFreeAsync(x, s.s);
  float host[32];
  cudaMemcpyAsync(host, y, 128, cudaMemcpyDeviceToHost, s.s);
  cudaFreeAsync(y, s.s);
  EXPECT(cudaStreamSynchronize(s.s) == cudaSuccess && host[0] == 5.0f);
  void* p;
  EXPECT(cudaMalloc(&p, size_t(1) << 40) == cudaErrorMemoryAllocation);
  cudaGetLastError();
}

TEST(Bad_launches_are_refused) {
  device_array<float> x(32);
  launch(nullptr, KERNEL(add_kernel), 1, 2048, 0, x.data, x.data, 1.0f);
  EXPECT(cudaGetLastError() == cudaErrorInvalidConfiguration);
  launch(nullptr, KERNEL(add_kernel), 0, 32, 0, x.data, x.data, 1.0f);
  EXPECT(cudaGetLastError() == cudaErrorInvalidConfiguration);
}

}  // namespace sl::SL_BACKEND_NS
