// What reference and cpu share: memory that is the host's, a stream that runs at the call, graphs of closures.
#pragma once

#include <chrono>

#include "backend.h"

namespace sl {

class host_graph final : public graph {
 public:
  std::vector<std::function<void()>> nodes;
};

class host_event final : public event {
 public:
  void synchronize() override {}
  double milliseconds_since(event& start) override;
  std::chrono::steady_clock::time_point at;
};

class host_stream : public stream {
 public:
  void* allocate(uint64_t bytes, sl_memory memory) override;
  void release(void* data, uint64_t bytes, sl_memory memory) noexcept override;
  void upload(void* target, const void* source, uint64_t bytes) override;
  void download(void* target, const void* source, uint64_t bytes) override;
  void copy(void* target, const void* source, uint64_t bytes) override;
  void fill(void* target, int byte, uint64_t bytes) override;
  void synchronize() override {}
  void begin_capture() override;
  std::unique_ptr<graph> end_capture() override;
  void launch(graph& g) override;
  void record(event& e) override;
  void wait(event&) override {}
  bool capture(std::function<void()> node) override;
  bool keeps_closures() const override { return capturing_ != nullptr; }
  void check_pointer(const void*) override {}

 private:
  std::unique_ptr<host_graph> capturing_;
};

// Memory of this machine: total and available bytes, 0 where the system does not tell.
void host_memory(uint64_t& total, uint64_t& available);

// Aligned to 256 bytes; throws SL_ERR_OUT_OF_MEMORY with the numbers.
void* host_allocate(uint64_t bytes);
void host_release(void* data) noexcept;

}  // namespace sl
