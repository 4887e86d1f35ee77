// Streams, graphs and events over CUDA's.
#pragma once

#include <cuda_runtime.h>

#include "backend.h"
#include "staging.h"

namespace sl {
namespace SL_BACKEND_NS {

class cuda_device;

class cuda_event final : public event {
 public:
  explicit cuda_event(const cuda_device& d);
  ~cuda_event() override;
  void synchronize() override;
  double milliseconds_since(event& start) override;
  cudaEvent_t native = nullptr;

 private:
  const cuda_device& device_;
};

class cuda_graph final : public graph {
 public:
  explicit cuda_graph(const cuda_device& d) : device_(d) {}
  ~cuda_graph() override;
  cudaGraphExec_t native = nullptr;

 private:
  const cuda_device& device_;
};

class cuda_stream final : public stream {
 public:
  cuda_stream(const cuda_device& d, cudaStream_t imported);
  ~cuda_stream() override;

  void* allocate(uint64_t bytes, sl_memory memory) override;
  void release(void* data, uint64_t bytes, sl_memory memory) noexcept override;
  void upload(void* target, const void* source, uint64_t bytes) override;
  void download(void* target, const void* source, uint64_t bytes) override;
  void copy(void* target, const void* source, uint64_t bytes) override;
  void fill(void* target, int byte, uint64_t bytes) override;
  void synchronize() override;
  void begin_capture() override;
  std::unique_ptr<graph> end_capture() override;
  void launch(graph& g) override;
  void record(event& e) override;
  void wait(event& e) override;
  void check_pointer(const void* pointer) override;

  // Made when it is first asked for. Within the device's context.
  pinned_staging& staging();

  // Counters, zero between kernels: what several blocks share counts by them who is done. Tiles of products have one for each of their
  // blocks, of which most_sharing_blocks run on a multiprocessor; attention three for each of its own.
  static constexpr int most_sharing_blocks = 2;
  static int64_t arrival_counters(const device& d);
  unsigned* arrivals() const { return arrivals_; }

  cudaStream_t native = nullptr;

 private:
  void release_all() noexcept;
  void throw_if_capturing(const char* what) const;
  const cuda_device& device_;
  const bool owned_;
  std::unique_ptr<pinned_staging> staging_;
  unsigned* arrivals_ = nullptr;
};

inline cudaStream_t native(stream& s) { return static_cast<cuda_stream&>(s).native; }

}  // namespace SL_BACKEND_NS
}  // namespace sl
