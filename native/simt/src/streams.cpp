// Streams, events and graphs. A stream is a queue of tasks that runs when the host waits for it; a graph is a list of
// them. An event's wait runs the recording stream as far as the record, which keeps CUDA's order and no more.
#include <algorithm>

#include "executor.h"
#include "runtime_state.h"

namespace simt {
namespace {

stream_state null_stream;
std::vector<stream_state*> streams;

bool capturing_anywhere() {
  return std::any_of(streams.begin(), streams.end(), [](stream_state* s) { return s->capture != nullptr; });
}

// Runs the queue until `until` says so.
template <typename F>
cudaError_t run_queue(stream_state* s, F until) {
  while (!s->queue.empty() && !until()) {
    if (sticky() != cudaSuccess) {
      s->queue.clear();  // a failed context runs nothing more
      break;
    }
    task t = std::move(s->queue.front());
    s->queue.pop_front();
    if (const cudaError_t e = t(); e != cudaSuccess) return e;
  }
  return sticky();
}

}  // namespace

stream_state* resolve(cudaStream_t s) { return s == nullptr || s == cudaStreamLegacy ? &null_stream : s; }

bool alive(stream_state* s) {
  return s == &null_stream || std::find(streams.begin(), streams.end(), s) != streams.end();
}

cudaError_t drain(stream_state* s) {
  return run_queue(s, [] { return false; });
}

cudaError_t drain_everything() {
  std::vector<stream_state*> all = streams;
  all.push_back(&null_stream);
  // The order of independent streams is nobody's promise.
  if (settings().seed & 1) std::reverse(all.begin(), all.end());
  for (stream_state* s : all)
    if (const cudaError_t e = drain(s); e != cudaSuccess) return e;
  return sticky();
}

void release_streams() {
  for (stream_state* s : streams) s->queue.clear(), s->capture.reset();
  null_stream.queue.clear();
}

// The legacy null stream and the streams that are not cudaStreamNonBlocking wait for each other.
static void legacy_order(stream_state* s) {
  if (s == &null_stream) {
    for (stream_state* o : streams)
      if (!(o->flags & cudaStreamNonBlocking) && !o->queue.empty())
        s->queue.push_back([o] { return alive(o) ? drain(o) : cudaSuccess; });
  } else if (!(s->flags & cudaStreamNonBlocking) && !null_stream.queue.empty()) {
    s->queue.push_back([] { return drain(&null_stream); });
  }
}

cudaError_t enqueue(cudaStream_t stream, task t) {
  stream_state* s = resolve(stream);
  if (!alive(s)) return report(cudaErrorInvalidResourceHandle);
  if (sticky() != cudaSuccess) return report(sticky());
  if (s->capture) {
    if (!s->capture->valid) return report(cudaErrorStreamCaptureInvalidated);
    s->capture->tasks.push_back(std::move(t));
    return cudaSuccess;
  }
  legacy_order(s);
  s->queue.push_back(std::move(t));
  return cudaSuccess;
}

cudaError_t before_blocking(cudaStream_t stream) {
  stream_state* s = resolve(stream);
  if (!alive(s)) return report(cudaErrorInvalidResourceHandle);
  if (s->capture) {
    s->capture->valid = false;
    return report(cudaErrorStreamCaptureUnsupported);
  }
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
  std::lock_guard guard(lock());
  if (sticky() != cudaSuccess) return report(sticky());
  auto* s = new stream_state;
  s->flags = flags;
  streams.push_back(s);
  *out = s;
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* out) { return cudaStreamCreateWithFlags(out, cudaStreamDefault); }

cudaError_t cudaStreamDestroy(cudaStream_t s) {
  std::lock_guard guard(lock());
  if (!alive(s) || s == &null_stream) return report(cudaErrorInvalidResourceHandle);
  drain(s);  // CUDA lets the work finish
  streams.erase(std::find(streams.begin(), streams.end(), s));
  delete s;
  return cudaSuccess;
}

cudaError_t cudaStreamGetFlags(cudaStream_t s, unsigned* flags) {
  std::lock_guard guard(lock());
  if (!alive(resolve(s))) return report(cudaErrorInvalidResourceHandle);
  *flags = resolve(s)->flags;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  std::lock_guard guard(lock());
  if (const cudaError_t e = before_blocking(stream); e != cudaSuccess) return e;
  legacy_order(resolve(stream));
  return report(drain(resolve(stream)));
}
cudaError_t cudaStreamQuery(cudaStream_t s) { return cudaStreamSynchronize(s); }

cudaError_t cudaDeviceSynchronize() {
  std::lock_guard guard(lock());
  if (capturing_anywhere()) return report(cudaErrorStreamCaptureUnsupported);
  return report(drain_everything());
}

// --- events --------------------------------------------------------------------------------------------------------

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned flags) {
  std::lock_guard guard(lock());
  if (sticky() != cudaSuccess) return report(sticky());
  *out = new event_state;
  (*out)->flags = flags;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* out) { return cudaEventCreateWithFlags(out, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t e) {
  std::lock_guard guard(lock());
  delete e;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  std::lock_guard guard(lock());
  stream_state* s = resolve(stream);
  if (!event || !alive(s)) return report(cudaErrorInvalidResourceHandle);
  if (s->capture) {
    event->capture = s->capture;
    return cudaSuccess;
  }
  auto point = std::make_shared<event_point>();
  event->point = point, event->recorded_in = s, event->capture.reset();
  return enqueue(stream, [point] {
    point->reached = true;
    point->at = std::chrono::steady_clock::now();
    return cudaSuccess;
  });
}

static cudaError_t reach(const std::shared_ptr<event_point>& point, stream_state* in) {
  if (!point || point->reached || !alive(in)) return sticky();
  return run_queue(in, [&] { return point->reached; });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  std::lock_guard guard(lock());
  stream_state* s = resolve(stream);
  if (!event || !alive(s)) return report(cudaErrorInvalidResourceHandle);
  if (event->capture) {
    if (s->capture && s->capture != event->capture) return report(cudaErrorStreamCaptureIsolation);
    s->capture = event->capture;  // the stream joins the capture
    return cudaSuccess;
  }
  if (!event->point) return cudaSuccess;
  if (s->capture) return report(cudaErrorStreamCaptureIsolation);
  return enqueue(stream, [point = event->point, in = event->recorded_in] { return reach(point, in); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  std::lock_guard guard(lock());
  if (!event) return report(cudaErrorInvalidResourceHandle);
  if (event->capture) return report(cudaErrorStreamCaptureUnsupported);
  return report(reach(event->point, event->recorded_in));
}
cudaError_t cudaEventQuery(cudaEvent_t e) { return cudaEventSynchronize(e); }

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  std::lock_guard guard(lock());
  if (!from || !to || (from->flags | to->flags) & cudaEventDisableTiming) return report(cudaErrorInvalidResourceHandle);
  if (!from->point || !to->point) return report(cudaErrorInvalidResourceHandle);
  if (!from->point->reached || !to->point->reached) return cudaErrorNotReady;
  *ms = std::chrono::duration<float, std::milli>(to->point->at - from->point->at).count();
  return cudaSuccess;
}

// --- graphs --------------------------------------------------------------------------------------------------------

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  std::lock_guard guard(lock());
  stream_state* s = resolve(stream);
  if (!alive(s)) return report(cudaErrorInvalidResourceHandle);
  if (s == &null_stream || s->capture) return report(cudaErrorStreamCaptureUnsupported);
  s->capture = std::make_shared<graph_state>();
  s->captures_itself = true;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* out) {
  std::lock_guard guard(lock());
  stream_state* s = resolve(stream);
  *out = nullptr;
  if (!alive(s) || !s->capture || !s->captures_itself) return report(cudaErrorInvalidValue);
  const std::shared_ptr<graph_state> g = s->capture;
  for (stream_state* o : streams)
    if (o->capture == g) o->capture.reset();
  s->captures_itself = false;
  if (!g->valid) return report(cudaErrorStreamCaptureInvalidated);
  *out = new graph_state{g->tasks, true};
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  std::lock_guard guard(lock());
  stream_state* s = resolve(stream);
  if (!alive(s)) return report(cudaErrorInvalidResourceHandle);
  *status = !s->capture        ? cudaStreamCaptureStatusNone
            : s->capture->valid ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusInvalidated;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t g, cudaGraphNode_t*, char*, size_t) {
  std::lock_guard guard(lock());
  if (!g) return report(cudaErrorInvalidValue);
  *out = new graph_exec_state{g->tasks};
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* out, cudaGraph_t g, unsigned long long) {
  return cudaGraphInstantiate(out, g, nullptr, nullptr, 0);
}

cudaError_t cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t*, size_t* n) {
  std::lock_guard guard(lock());
  *n = g->tasks.size();
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t stream) {
  std::lock_guard guard(lock());
  if (!g) return report(cudaErrorInvalidValue);
  for (const task& t : g->tasks)
    if (const cudaError_t e = enqueue(stream, t); e != cudaSuccess) return e;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) {
  std::lock_guard guard(lock());
  delete g;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
  std::lock_guard guard(lock());
  delete g;
  return cudaSuccess;
}

}  // namespace simt
