// Rendezvous: of a block (__syncthreads) and of the lanes in a mask (warp operations). The last to arrive does the work
// of a warp operation for all. What cannot meet is an error here, as soon as it is certain.
#include "executor.h"

namespace simt {
namespace {

enum : int { plain_barrier, or_barrier, and_barrier, count_barrier };
constexpr const char* barrier_names[] = {"__syncthreads", "__syncthreads_or", "__syncthreads_and", "__syncthreads_count"};

void open_barrier(block* b) {
  if (b->live < b->lanes.size() && !b->early_exit_allowed) {
    unsigned first = 0, n = 0;
    for (const lane& l : b->lanes)
      if (l.is == state::done && n++ == 0) first = l.index;
    fail("threads left before a barrier: " + where(b) + ": " + std::to_string(n) + " threads, the first in warp " +
         std::to_string(first / 32) + " (lane " + std::to_string(first & 31) + "), ended while the others wait in " +
         barrier_names[b->barrier_kind] + site_text(b->barrier));
  }
  b->result = b->barrier_kind == or_barrier ? b->predicate_or
              : b->barrier_kind == and_barrier ? b->predicate_and : b->predicate_count;
  b->predicate_or = 0, b->predicate_and = 1, b->predicate_count = 0;
  b->arrived = 0;
  b->last_barrier = b->barrier;
  b->barrier_phase ^= 1;
  sync_shared(b);
  for (warp& w : b->warps) {
    flush_log(&w, w.all);
    const unsigned waiting = w.all & ~w.done;
    for (unsigned m = waiting; m; m &= m - 1) w.lanes[__builtin_ctz(m)].is = state::ready;
    w.ready |= waiting;
    if (waiting) b->ready_warps |= 1u << w.index;
  }
  advanced();
}

int block_barrier(int kind, int predicate, const char* file, int line) {
  lane* me = self();
  block* b = me->blk;
  const site here{file, line};
  if (b->arrived && (!(b->barrier == here) || b->barrier_kind != kind)) {
    const lane* other = nullptr;
    for (const lane& l : b->lanes)
      if (l.is == state::block_wait) { other = &l; break; }
    fail("barrier divergence: " + where(me) + " is in " + barrier_names[kind] + site_text(here) + " while warp " +
         std::to_string(other->wrp->index) + " lane " + std::to_string(other->number()) + " of the block waits in " +
         barrier_names[b->barrier_kind] + site_text(b->barrier));
  }
  b->barrier = here, b->barrier_kind = kind;
  b->predicate_or |= predicate != 0, b->predicate_and &= predicate != 0, b->predicate_count += predicate != 0;
  me->is = state::block_wait, me->at = here, me->operation = barrier_names[kind];
  const uint32_t phase = b->barrier_phase;
  tsan_release(&b->barrier_token[phase]);
  if (++b->arrived == b->live) open_barrier(b);
  wait_for_others();
  tsan_acquire(&b->barrier_token[phase]);
  return int(b->result);
}

[[noreturn]] void divergent(const lane* me, const char* operation, site at, unsigned mask, const rendezvous& other) {
  fail("divergent warp operation: " + where(me->blk) + " warp " + std::to_string(me->wrp->index) + ": lane " +
       std::to_string(me->number()) + " is in " + operation + site_text(at) + " for lanes " + lanes_text(mask) +
       " while lanes " + lanes_text(other.arrived) + " wait in " + other.operation + site_text(other.at) + " for lanes " +
       lanes_text(other.mask));
}

[[noreturn]] void left_early(const warp* w, unsigned gone, const rendezvous& r) {
  fail("divergent warp operation: " + where(w->blk) + " warp " + std::to_string(w->index) + ": lanes " +
       lanes_text(gone) + " have ended, but lanes " + lanes_text(r.arrived) + " are in " + r.operation +
       site_text(r.at) + " for lanes " + lanes_text(r.mask));
}

void close(warp* w, rendezvous* r) {
  tsan_quiet quiet;
  const rendezvous& last = w->waiting[--w->open];
  if (r != &last) *r = last;
}

}  // namespace

void __syncthreads(const char* file, int line) { block_barrier(plain_barrier, 0, file, line); }
int __syncthreads_or(int p, const char* file, int line) { return block_barrier(or_barrier, p, file, line); }
int __syncthreads_and(int p, const char* file, int line) { return block_barrier(and_barrier, p, file, line); }
int __syncthreads_count(int p, const char* file, int line) { return block_barrier(count_barrier, p, file, line); }

void allow_early_exit() { self()->blk->early_exit_allowed = true; }

void meet(const char* operation, int kind, unsigned mask, void* slot, warp_function work, const char* file, int line) {
  lane* me = self();
  warp* w = me->wrp;
  const site here{file, line};
  if (!(mask & me->bit()))
    fail("divergent warp operation: " + where(me) + " calls " + operation + site_text(here) +
         " with a mask that leaves it out: lanes " + lanes_text(mask));
  mask &= w->all;  // lanes beyond the block's last thread count as absent, as they do on the GPU

  rendezvous* r = nullptr;
  for (unsigned i = 0; i < w->open; i++) {
    rendezvous& open = w->waiting[i];
    if (open.mask == mask && open.kind == kind && open.at == here) r = &open;
    // It waits for this lane, and this lane would wait for those in it: they can never meet.
    else if (open.mask & me->bit() && open.arrived & mask) divergent(me, operation, here, mask, open);
  }
  if (!r) {
    r = &w->waiting[w->open++];
    r->mask = mask, r->arrived = 0, r->kind = kind, r->at = here, r->operation = operation;
  }
  r->arrived |= me->bit();
  r->slots[me->number()] = slot;
  me->operation = operation, me->at = here;
  if (const unsigned gone = mask & w->done) left_early(w, gone, *r);

  if (r->arrived != mask) {
    me->is = state::warp_wait;
    wait_for_others();
    return;
  }
  flush_log(w, mask | w->done);  // what lanes that have ended did before belongs to what the others did
  if (work) work(mask, r->slots);
  close(w, r);
  for (unsigned m = mask & ~me->bit(); m; m &= m - 1) w->lanes[__builtin_ctz(m)].is = state::ready;
  w->ready |= mask & ~me->bit();
  if (w->ready) w->blk->ready_warps |= 1u << w->index;
  advanced();
}

void __syncwarp(unsigned mask, const char* file, int line) {
  warp* w = self()->wrp;
  char* token = &w->sync_token[w->sync_phase];
  tsan_release(token);
  meet("__syncwarp", -1, mask, nullptr, [](unsigned, void* const*) {
    warp* v = self()->wrp;
    v->sync_phase ^= 1;
    tick(v->blk);
    v->last_sync = v->blk->clock - 1;
  }, file, line);
  tsan_acquire(token);
}

void lane_exits(lane* l) {
  warp* w = l->wrp;
  block* b = l->blk;
  l->is = state::done;
  w->done |= l->bit();
  b->live--;
  if (w->done == w->all) flush_log(w, w->all);
  for (unsigned i = 0; i < w->open; i++)
    if (w->waiting[i].mask & l->bit()) left_early(w, l->bit(), w->waiting[i]);
  if (b->live && b->arrived == b->live) open_barrier(b);
  advanced();
}

}  // namespace simt
