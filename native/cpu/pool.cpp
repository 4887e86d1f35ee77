#include "pool.h"

#include <chrono>

#include "backend.h"

namespace sl::cpu {
namespace {

constexpr uint64_t kOpen = uint64_t{1} << 31, kInside = kOpen - 1, kEpoch = uint64_t{1} << 32;

// Between two ops of a step lie microseconds; after this long the machine is left in peace.
constexpr std::chrono::microseconds kSpin{50};

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins until ready() or for kSpin; tells which.
template <typename Ready>
bool spin_until(Ready ready) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

thread_pool::thread_pool(int threads) {
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (...) {  // no more threads to be had: those that started must be joined
    stop_ = true;
    { std::lock_guard lock(sleep_); }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    throw error(SL_ERR_OUT_OF_MEMORY, format("the system starts %zu of the %d threads that were asked for", workers_.size() + 1, threads));
  }
}

thread_pool::~thread_pool() {
  stop_ = true;
  { std::lock_guard lock(sleep_); }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void thread_pool::take_tasks(int thread) {
  for (int64_t task; (task = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) body_(context_, task, thread);
}

void thread_pool::run(int64_t count, task_body body, void* context) {
  if (count <= 0) return;
  if (count == 1 || workers_.empty()) {
    for (int64_t task = 0; task < count; ++task) body(context, task, 0);
    return;
  }
  std::lock_guard region(region_);
  body_ = body;
  context_ = context;
  count_ = count;
  next_.store(0, std::memory_order_relaxed);
  state_.store((state_.load(std::memory_order_relaxed) & ~(kEpoch - 1)) + kEpoch + kOpen);
  // A worker counts itself as a sleeper before it looks at the state a last time, so one of us sees the other.
  if (sleepers_.load() > 0) {
    { std::lock_guard lock(sleep_); }
    wake_.notify_all();
  }
  take_tasks(0);
  state_.fetch_and(~kOpen);
  const auto empty = [this] { return (state_.load(std::memory_order_acquire) & kInside) == 0; };
  while (!spin_until(empty)) std::this_thread::yield();  // a worker may have lost its core to another process
}

void thread_pool::work(int thread) {
  uint64_t done = 0;  // the epoch in which this worker has run out of tasks
  for (;;) {
    uint64_t seen = 0;
    const auto ready = [&] {
      seen = state_.load(std::memory_order_acquire);
      return (seen & kOpen) != 0 && seen / kEpoch != done;
    };
    if (!spin_until([&] { return ready() || stop_.load(std::memory_order_relaxed); })) {
      std::unique_lock lock(sleep_);
      ++sleepers_;
      wake_.wait(lock, [&] {
        seen = state_.load();
        return ((seen & kOpen) != 0 && seen / kEpoch != done) || stop_.load();
      });
      --sleepers_;
    }
    if (stop_.load(std::memory_order_relaxed)) return;
    if (!ready()) continue;
    if (!state_.compare_exchange_strong(seen, seen + 1, std::memory_order_acq_rel))
      continue;  // closed, or another came in
    done = seen / kEpoch;
    take_tasks(thread);
    state_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace sl::cpu
