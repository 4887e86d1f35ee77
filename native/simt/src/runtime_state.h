// State of the runtime calls, behind one lock. Kernels run under it, one at a time.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "simt/runtime.h"

namespace simt {

using task = std::function<cudaError_t()>;

struct event_point {  // one record of an event
  bool reached = false;
  std::chrono::steady_clock::time_point at;
};

struct graph_state {
  std::vector<task> tasks;  // in the order of capture, which respects every edge
  bool valid = true;
};
struct graph_exec_state { std::vector<task> tasks; };

struct stream_state {
  unsigned flags = 0;
  std::deque<task> queue;
  std::shared_ptr<graph_state> capture;
  bool captures_itself = false;  // it began the capture, others joined by an event
};

struct event_state {
  unsigned flags = 0;
  std::shared_ptr<event_point> point;   // the last record, null before the first
  stream_state* recorded_in = nullptr;
  std::shared_ptr<graph_state> capture;  // it was recorded in a capture
};

struct allocation {
  size_t bytes;
  bool host;
};

std::recursive_mutex& lock();
std::map<const char*, allocation>& allocations();
const std::pair<const char* const, allocation>* allocation_at(const void* p);

stream_state* resolve(cudaStream_t);        // the null stream's state for 0
bool alive(stream_state*);
cudaError_t enqueue(cudaStream_t, task);     // or records it, under capture
cudaError_t drain(stream_state*);           // runs what is queued
cudaError_t drain_everything();
cudaError_t before_blocking(cudaStream_t);  // refuses under capture
void release_streams();                     // at cudaDeviceReset
void release_allocations();                 // at cudaDeviceReset

cudaError_t report(cudaError_t);            // remembers it for cudaGetLastError
cudaError_t sticky();                       // the context's error after a failed kernel
void set_failed(cudaError_t, const std::string& text);

}  // namespace simt
