// The device's threads. parallel() runs tasks 0 .. count-1 on them and on the caller's own, each once, and returns when
// all are done. Streams on several threads may call at once: their regions run one after the other.
//
// Each thread has an equal stretch of tasks and takes them in order, so that what it reads of memory is one stream; who has come to
// its end takes from the end of the longest stretch that is left, so that a core that is taken away for a while holds up one task.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace sl::cpu {

class thread_pool {
 public:
  explicit thread_pool(int threads);
  ~thread_pool();
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // body(task, thread): thread is 0 .. threads()-1, one at a time in each, for scratch memory. It must not throw.
  template <typename Body>
  void parallel(int64_t count, Body&& body) {
    using type = std::remove_reference_t<Body>;
    run(
        count, [](void* context, int64_t task, int thread) { (*static_cast<type*>(context))(task, thread); }, &body);
  }

 private:
  using task_body = void (*)(void* context, int64_t task, int thread);

  // Tasks first .. last-1 that nobody has taken: first << 32 | last.
  struct alignas(64) stretch {
    std::atomic<uint64_t> left{0};
  };

  void run(int64_t count, task_body body, void* context);
  void run_stretches(int64_t first, int64_t count);
  void work(int thread);
  void take_tasks(int thread);

  // epoch << 32 | open << 31 | workers inside. A region is opened, joined by whoever is awake, closed when no task is
  // left to take, and over when the last worker has gone out: the caller never waits for a sleeper.
  std::atomic<uint64_t> state_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};

  // Of the open region; written before it opens, read by workers inside.
  task_body body_ = nullptr;
  void* context_ = nullptr;
  int64_t first_ = 0;  // task 0 of the stretches
  std::vector<stretch> stretches_;

  std::mutex region_;  // held by the caller of a region
  std::mutex sleep_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace sl::cpu
