// Which CUDA thread runs next. A thread that has to wait switches straight to the next one: first in its warp, then in
// its block, then in another block that is resident. Blocks are started as others end, or when nothing else can move,
// up to as many as the device holds at once.
#include "executor.h"

#include <algorithm>

#if defined(SIMT_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" {
void __tsan_read_range(void*, unsigned long);
void __tsan_write_range(void*, unsigned long);
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#endif

namespace simt {

thread_context* current = nullptr;
running_launch& run = *new running_launch;  // outlives everything

#if defined(SIMT_TSAN)
void tsan_acquire(void* p) { __tsan_acquire(p); }
void tsan_release(void* p) { __tsan_release(p); }
void tsan_read(const void* p, size_t n) { __tsan_read_range(const_cast<void*>(p), n); }
void tsan_write(void* p, size_t n) { __tsan_write_range(p, n); }
tsan_quiet::tsan_quiet() { AnnotateIgnoreReadsBegin("", 0), AnnotateIgnoreWritesBegin("", 0); }
tsan_quiet::~tsan_quiet() { AnnotateIgnoreWritesEnd("", 0), AnnotateIgnoreReadsEnd("", 0); }
#endif

lane* self() { return static_cast<lane*>(current); }
void advanced() { run.progress++; }

uint64_t next_random() {  // xorshift64*
  run.random ^= run.random >> 12, run.random ^= run.random << 25, run.random ^= run.random >> 27;
  return run.random * 0x2545f4914f6cdd1dull;
}

namespace {

struct kernel_failed { std::string what; };

bool seeded() { return settings().seed != 0; }
// Rounds in which every thread looked again and nothing changed: then nothing ever will.
constexpr int hopeless_rounds = 64;

void lane_main() {
  for (;;) {
    lane* me = self();
    tsan_acquire(&run.start_token);
    tsan_acquire(&me->blk->reuse_token[~me->blk->generation & 1]);
    try {
      run.call->body();
      if (overflowed(me->fib))
        fail("stack overflow: " + where(me) + " needs more than its " + std::to_string(stack_bytes / 1024) + " KB");
      lane_exits(me);
    } catch (const kernel_failed& f) {
      run.failure = f.what;
    }
    if (!run.failure.empty()) switch_fiber(self()->fib, host_fiber());  // does not come back
    tsan_release(&me->blk->reuse_token[me->blk->generation & 1]);
    tsan_release(&run.end_token);
    wait_for_others();  // comes back as another lane
  }
}

void admit() {
  const kernel_call& call = *run.call;
  const unsigned long long linear = run.order.empty() ? run.next : run.order[run.next];
  run.next++;
  block* b;
  if (run.spare.empty()) b = new block;
  else b = run.spare.back(), run.spare.pop_back();

  const unsigned threads = call.dim.x * call.dim.y * call.dim.z;
  b->index = {unsigned(linear % call.grid.x), unsigned(linear / call.grid.x % call.grid.y),
              unsigned(linear / call.grid.x / call.grid.y)};
  b->lanes.resize(threads);
  b->warps.resize((threads + 31) / 32);
  b->live = threads, b->arrived = 0;
  b->ready_warps = b->yielded_warps = 0;
  b->barrier = b->last_barrier = {};
  b->early_exit_allowed = false;
  b->generation++;
  start_shared(b, call.dynamic_shared);

  for (unsigned i = 0; i < threads; i++) {
    lane& l = b->lanes[i];
    l.blk = b, l.wrp = &b->warps[i / 32], l.index = i, l.is = state::ready, l.fib = nullptr, l.at = {};
    l.thread = {i % call.dim.x, i / call.dim.x % call.dim.y, i / call.dim.x / call.dim.y};
    l.block_index = b->index, l.block_dim = call.dim, l.grid_dim = call.grid;
    l.copies.clear();
    l.copy_groups = 0;
    l.log.clear();
  }
  for (unsigned w = 0; w < b->warps.size(); w++) {
    warp& v = b->warps[w];
    const unsigned n = std::min(32u, threads - 32 * w);
    v.blk = b, v.lanes = &b->lanes[32 * w], v.index = w;
    v.all = n == 32 ? ~0u : (1u << n) - 1;
    v.ready = v.all, v.yielded = v.done = 0;
    v.rotate = seeded() ? unsigned(next_random() & 31) : 0;
    v.last_sync = 0;
    v.open = 0;
    b->ready_warps |= 1u << w;
  }
  run.active.push_back(b);
}

int pick_bit(uint32_t set, unsigned rotate) {
  const uint32_t turned = rotate ? set >> rotate | set << (32 - rotate) : set;
  return int((unsigned(__builtin_ctz(turned)) + rotate) & 31);
}

lane* take(warp& w) {
  const int i = pick_bit(w.ready, w.rotate);
  w.ready &= ~(1u << i);
  if (!w.ready) w.blk->ready_warps &= ~(1u << w.index);
  return &w.lanes[i];
}

lane* take(block& b) {
  return take(b.warps[size_t(pick_bit(b.ready_warps, seeded() ? unsigned(next_random() & 31) : 0))]);
}

// Those that waited for a change look again.
void wake_yielded() {
  for (block* b : run.active) {
    for (uint32_t m = b->yielded_warps; m; m &= m - 1) {
      warp& w = b->warps[size_t(__builtin_ctz(m))];
      for (uint32_t l = w.yielded; l; l &= l - 1) w.lanes[__builtin_ctz(l)].is = state::ready;
      w.ready |= w.yielded, w.yielded = 0;
    }
    b->ready_warps |= b->yielded_warps, b->yielded_warps = 0;
  }
}

void retire_finished() {
  for (size_t i = 0; i < run.active.size();) {
    if (run.active[i]->live == 0) {
      run.spare.push_back(run.active[i]);
      run.active[i] = run.active.back();
      run.active.pop_back();
    } else {
      i++;
    }
  }
}

lane* next_lane(lane* from) {
  if (from && from->wrp->ready) return take(*from->wrp);
  if (from && from->blk->ready_warps) return take(*from->blk);
  for (;;) {
    retire_finished();
    while (run.active.size() < run.window && run.next < run.total) admit();
    if (run.active.empty()) return nullptr;
    const size_t n = run.active.size();
    const size_t start = seeded() ? size_t(next_random() % n) : 0;
    for (size_t i = 0; i < n; i++)
      if (block& b = *run.active[(start + i) % n]; b.ready_warps) return take(b);

    bool any_yielded = false;
    for (block* b : run.active) any_yielded |= b->yielded_warps != 0;
    const bool moved = run.progress != run.progress_seen;
    run.progress_seen = run.progress;
    run.idle_rounds = moved ? 0 : run.idle_rounds + 1;
    if (!(moved && any_yielded)) {
      if (run.active.size() < run.resident && run.next < run.total) {
        admit();
        run.idle_rounds = 0;
      } else if (!any_yielded || run.idle_rounds > hopeless_rounds) {
        run.failure = stuck_report();
        return nullptr;
      }
    }
    wake_yielded();
  }
}

// Makes `l` the running thread. `from` is the stack that we are on.
void resume(fiber* from, lane* l) {
  current = l;
  if (!l->fib) {
    l->fib = take_fiber(lane_main);
    l->fib->owner = l;
    renew_identity(l->fib, l->fib == from);
  }
  if (l->fib != from) switch_fiber(from, l->fib);
}

void abandon_all() {
  for (block* b : run.active) {
    for (lane& l : b->lanes)
      if (l.fib) abandon_fiber(l.fib), l.fib = nullptr;
    run.spare.push_back(b);
  }
  run.active.clear();
}

}  // namespace

void wait_for_others() {
  lane* me = self();
  fiber* const mine = me->fib;
  const bool done = me->is == state::done;
  if (done) me->fib = nullptr, give_fiber(mine);
  lane* next;
  {
    tsan_quiet quiet;
    next = next_lane(me);
  }
  if (next) {
    resume(mine, next);
  } else {
    switch_fiber(mine, host_fiber());
  }
  // Here again: as the same lane, or, when it had ended, as the one that took its fiber.
}

void make_ready(lane* l) {
  l->is = state::ready;
  l->wrp->ready |= l->bit();
  l->blk->ready_warps |= 1u << l->wrp->index;
}

void yield_lane() {
  lane* me = self();
  me->is = state::yielded;
  me->wrp->yielded |= me->bit();
  me->blk->yielded_warps |= 1u << me->wrp->index;
  wait_for_others();
}

void fail(const std::string& what) {
  throw kernel_failed{what};
}

size_t resident_blocks(unsigned threads, size_t shared) {
  const unsigned rounded = (threads + 31) / 32 * 32;
  size_t n = std::min(blocks_per_multiprocessor, threads_per_multiprocessor / rounded);
  if (shared) n = std::min(n, shared_per_multiprocessor / (shared + 1024));  // 1 KB of each is the system's
  return n;
}

std::string run_kernel(const kernel_call& call) {
  count().launches++;
  run.call = &call;
  run.next = 0;
  run.total = 1ull * call.grid.x * call.grid.y * call.grid.z;
  run.random = (settings().seed + 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull | 1;
  run.progress = run.progress_seen = 0, run.idle_rounds = 0;
  run.failure.clear();
  const unsigned threads = call.dim.x * call.dim.y * call.dim.z;
  run.resident = std::max<size_t>(1, resident_blocks(threads, call.dynamic_shared)) * size_t(settings().multiprocessors);
  run.window = seeded() ? 1 + next_random() % std::min<size_t>(run.resident, 4) : 1;
  run.order.clear();
  if (seeded() && run.total <= run.resident) {
    for (unsigned long long i = 0; i < run.total; i++) run.order.push_back(i);
    for (size_t i = run.order.size(); i > 1; i--) std::swap(run.order[i - 1], run.order[next_random() % i]);
  }
  tsan_release(&run.start_token);
  if (lane* first = next_lane(nullptr)) resume(host_fiber(), first);
  tsan_acquire(&run.end_token);
  if (!run.failure.empty()) abandon_all();
  current = nullptr;
  if (run.failure.empty()) return {};
  return "kernel " + call.name + ": " + run.failure;
}

}  // namespace simt
