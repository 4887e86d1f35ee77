#include "pool.h"

#include <algorithm>
#include <chrono>

#include "backend.h"

namespace sl::cpu {
namespace {

constexpr uint64_t kOpen = uint64_t{1} << 31, kInside = kOpen - 1, kEpoch = uint64_t{1} << 32;
constexpr uint64_t kLast = (uint64_t{1} << 32) - 1;  // of a stretch

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

thread_pool::thread_pool(int threads) : stretches_(static_cast<size_t>(threads > 1 ? threads : 1)) {
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
  std::atomic<uint64_t>& own = stretches_[static_cast<size_t>(thread)].left;
  for (uint64_t left = own.load(std::memory_order_relaxed); left >> 32 < (left & kLast);) {
    if (!own.compare_exchange_weak(left, left + (uint64_t{1} << 32), std::memory_order_relaxed)) continue;
    body_(context_, first_ + static_cast<int64_t>(left >> 32), thread);
    left = own.load(std::memory_order_relaxed);
  }
  for (;;) {
    std::atomic<uint64_t>* longest = nullptr;
    uint64_t most = 0, seen = 0;
    for (stretch& other : stretches_) {
      const uint64_t left = other.left.load(std::memory_order_relaxed), last = left & kLast;
      if (left >> 32 >= last || last - (left >> 32) <= most) continue;
      longest = &other.left;
      most = last - (left >> 32);
      seen = left;
    }
    if (longest == nullptr) return;
    if (longest->compare_exchange_strong(seen, seen - 1, std::memory_order_relaxed))
      body_(context_, first_ + static_cast<int64_t>((seen & kLast) - 1), thread);
  }
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
  for (int64_t first = 0; first < count; first += static_cast<int64_t>(kLast)) run_stretches(first, std::min(count - first, static_cast<int64_t>(kLast)));
}

void thread_pool::run_stretches(int64_t first, int64_t count) {
  first_ = first;
  const auto threads = static_cast<int64_t>(stretches_.size());
  for (int64_t i = 0; i < threads; ++i) {
    const auto from = static_cast<uint64_t>(count * i / threads), to = static_cast<uint64_t>(count * (i + 1) / threads);
    stretches_[static_cast<size_t>(i)].left.store(from << 32 | to, std::memory_order_relaxed);
  }
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
