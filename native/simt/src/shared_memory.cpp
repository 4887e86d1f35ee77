// Shared memory of a block and what is known about its bytes. For every two bytes: who wrote them last and who read
// them last, at which tick of the block's clock. Two accesses by different threads are in order only when a barrier, or
// a __syncwarp of their own warp, lies between; a write that is not in order with another access is a race.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "executor.h"
#include "shadow.h"

namespace simt {
namespace {

constexpr uint32_t clock_limit = 1u << 20;
constexpr size_t red_zone = 64;  // between arrays, so that neighbours do not touch

uint32_t thread_of(uint32_t cell) { return cell & 1023; }
uint32_t clock_of(uint32_t cell) { return cell >> 12; }
constexpr uint32_t pending = 1 << 10, by_atomic = 1 << 11;
constexpr uint32_t several_in_warp = 1 << 10, several_warps = 1 << 11;

uint32_t cell_of(const lane* l, uint32_t flags = 0) { return l->index | flags | l->blk->clock << 12; }

// An access by `thread` at `clock`, seen from `me` now.
bool in_order(const lane* me, uint32_t thread, uint32_t clock) {
  if (clock <= me->blk->last_sync) return true;
  return thread / 32 == me->index / 32 && (thread == me->index || clock <= me->wrp->last_sync);
}

const shared_array_entry* array_at(const block* b, const char* p) {
  const size_t at = size_t(p - b->memory);
  for (const auto& a : b->arrays)
    if (at >= a.at && at < a.at + a.bytes) return &a;
  return nullptr;
}

std::string place(const block* b, const char* p) {
  const shared_array_entry* a = array_at(b, p);
  if (!a) return "shared memory";
  return "shared array '" + std::string(a->name) + "' byte " + std::to_string(size_t(p - b->memory) - a->at);
}

std::string thread_text(uint32_t thread) {
  return "warp " + std::to_string(thread / 32) + " lane " + std::to_string(thread % 32);
}

[[noreturn]] void race(const lane* me, const char* p, const char* verb, uint32_t other, const char* other_verb) {
  const bool same_warp = other / 32 == me->index / 32;
  fail("race: " + where(me) + " " + verb + " " + place(me->blk, p) + ", which " + thread_text(other) + " " + other_verb +
       (same_warp ? " without a __syncwarp between" : " without a barrier between") +
       (me->blk->last_barrier.file ? "; the block's last barrier was" + site_text(me->blk->last_barrier) : ""));
}

void check_bounds(const char* p, size_t bytes, const char* low, const char* high, const char* verb) {
  if (p >= low && p + bytes <= high) {
    if (reinterpret_cast<uintptr_t>(p) % std::min<size_t>(bytes, 16) == 0) return;
    fail("misaligned access: " + where(self()) + " " + verb + " " + std::to_string(bytes) + " bytes of " +
         place(self()->blk, p));
  }
  const block* b = self()->blk;
  const shared_array_entry* a = array_at(b, low);
  fail("out of bounds: " + where(self()) + " " + verb + " " + std::to_string(bytes) + " bytes at byte " +
       std::to_string(p - low) + " of shared array '" + (a ? a->name : "?") + "', which has " +
       std::to_string(high - low));
}

struct cells { shadow_cell *first, *last; };
cells cells_at(block* b, const char* p, size_t bytes) {
  const size_t at = size_t(p - b->memory);
  return {&b->shadow[at / 2], &b->shadow[(at + bytes - 1) / 2]};
}

const char* address(const block* b, const shadow_cell* c) { return b->memory + 2 * (c - b->shadow); }

void restart_clock(block* b) {
  // Everything before is long ago: still written, and in order with all that comes.
  for (size_t i = 0; i < b->capacity / 2; i++) {
    shadow_cell& c = b->shadow[i];
    if (clock_of(c.written) >= b->start && c.written) c.written = (c.written & 4095) | 1u << 12;
    else c.written = 0;
    c.read = 0;
  }
  b->start = 1, b->last_sync = 1, b->clock = 2;
  for (warp& w : b->warps) w.last_sync = 0;
}

}  // namespace

void tick(block* b) {
  if (++b->clock == clock_limit) restart_clock(b);
}

void sync_shared(block* b) {
  b->last_sync = b->clock;
  tick(b);
}

void start_shared(block* b, size_t dynamic_bytes) {
  const size_t wanted = shared_per_block_optin + 64 * (red_zone + 128);
  if (!b->memory) {
    b->memory = static_cast<char*>(std::aligned_alloc(128, (wanted + 127) / 128 * 128));
    b->capacity = wanted;
    b->shadow = static_cast<shadow_cell*>(std::calloc(wanted / 2, sizeof(shadow_cell)));
  }
  b->arrays.clear();
  b->used = 0, b->dynamic_bytes = dynamic_bytes;
  if (b->clock > clock_limit / 2) {
    std::fill(b->shadow, b->shadow + b->capacity / 2, shadow_cell{});
    b->clock = 0;
  }
  b->last_sync = b->clock;
  b->start = ++b->clock;
}

// All ones are NaN in every float type. Not by memset, which ThreadSanitizer would take for the thread's own write.
static void fill_ones(volatile char* p, size_t bytes) {
  for (size_t i = 0; i + 8 <= bytes; i += 8) *reinterpret_cast<volatile uint64_t*>(p + i) = ~uint64_t(0);
  for (size_t i = bytes / 8 * 8; i < bytes; i++) p[i] = char(0xff);
}

shared_span shared_array(const void* key, const char* name, size_t bytes) {
  tsan_quiet quiet;
  block* b = self()->blk;
  for (const auto& a : b->arrays)
    if (a.key == key) return {b->memory + a.at, b->memory + a.at + a.bytes};
  const size_t at = (b->used + 127) / 128 * 128;
  size_t all = bytes;
  for (const auto& a : b->arrays) all += (a.bytes + 15) / 16 * 16;
  if (all > run.call->shared_limit || at + bytes > b->capacity) {
    fail("too much shared memory: " + where(b) + " at array '" + name + "', " + std::to_string(all) + " bytes in all, " +
         std::to_string(run.call->shared_limit) + " allowed");
  }
  fill_ones(b->memory + at, bytes);
  b->arrays.push_back({key, name, at, bytes});
  b->used = at + bytes + red_zone;
  return {b->memory + at, b->memory + at + bytes};
}

shared_span dynamic_shared(const char* name) {
  static const char key = 0;
  return shared_array(&key, name, self()->blk->dynamic_bytes);
}

void check_shared_read(const void* p, size_t bytes, const char* low, const char* high) {
  touch_shared_read(p, bytes, low, high, __builtin_return_address(0));
}
void check_shared_write(void* p, const void* value, size_t bytes, const char* low, const char* high) {
  touch_shared_write(p, value, bytes, low, high, __builtin_return_address(0));
}

void touch_shared_read(const void* where_at, size_t bytes, const char* low, const char* high, const void* site) {
  const char* p = static_cast<const char*>(where_at);
  check_bounds(p, bytes, low, high, "reads");
  lane* me = self();
  block* b = me->blk;
  if (settings().count_accesses) log_access(p, bytes, access_kind::shared, site);
  const bool races = settings().check_races && bytes > 1;
  const auto [first, last] = cells_at(b, p, bytes);
  for (shadow_cell* c = first; c <= last; c++) {
    const uint32_t w = c->written, clock = clock_of(w);
    if (clock < b->start || w == 0)
      fail("unwritten shared memory: " + where(me) + " reads " + place(b, address(b, c)) + ", which no thread has written");
    if (w & pending)
      fail("cp.async not waited for: " + where(me) + " reads " + place(b, address(b, c)) + ", which a cp.async of " +
           thread_text(thread_of(w)) + " is still to write");
    if (!races) continue;
    if (!in_order(me, thread_of(w), clock)) race(me, address(b, c), "reads", thread_of(w), "wrote");
    const uint32_t r = c->read;
    uint32_t flags = 0;
    if (clock_of(r) > b->last_sync && thread_of(r) != me->index) {
      if (r & several_warps || thread_of(r) / 32 != me->index / 32) flags = several_warps;
      else if (clock_of(r) > me->wrp->last_sync) flags = several_in_warp;
    } else if (clock_of(r) > b->last_sync) {
      flags = r & (several_in_warp | several_warps);
    }
    c->read = cell_of(me, flags);
  }
}

void touch_shared_write(void* where_at, const void* value, size_t bytes, const char* low, const char* high,
                        const void* site) {
  char* p = static_cast<char*>(where_at);
  check_bounds(p, bytes, low, high, "writes");
  lane* me = self();
  block* b = me->blk;
  if (settings().count_accesses) log_access(p, bytes, access_kind::shared, site);
  const bool races = settings().check_races && bytes > 1;
  // Threads that write the same value agree, whoever is last.
  const bool changes = !value || std::memcmp(p, value, bytes) != 0;
  const auto [first, last] = cells_at(b, p, bytes);
  for (shadow_cell* c = first; c <= last; c++) {
    if (races) {
      const uint32_t w = c->written, r = c->read;
      if (w && clock_of(w) >= b->start && changes && !in_order(me, thread_of(w), clock_of(w)))
        race(me, address(b, c), "writes", thread_of(w), w & pending ? "is copying to by cp.async" : "wrote");
      if (r && clock_of(r) > b->last_sync) {
        const bool ordered = r & several_warps     ? false
                             : r & several_in_warp ? thread_of(r) / 32 == me->index / 32 && clock_of(r) <= me->wrp->last_sync
                                                   : in_order(me, thread_of(r), clock_of(r));
        if (!ordered && changes) race(me, address(b, c), "writes", thread_of(r), "read");
      }
    }
    c->written = cell_of(me);
  }
}

// --- cp.async ------------------------------------------------------------------------------------------------------

void mark_pending(char* p, size_t bytes) {
  block* b = self()->blk;
  const auto [first, last] = cells_at(b, p, bytes);
  for (shadow_cell* c = first; c <= last; c++) c->written |= pending;
}

void mark_written(char* p, size_t bytes) {
  block* b = self()->blk;
  const auto [first, last] = cells_at(b, p, bytes);
  for (shadow_cell* c = first; c <= last; c++) c->written = cell_of(self());
}

// --- atomics: in order with each other, whoever does them -----------------------------------------------------------

void check_shared_atomic(void* where_at, size_t bytes, const char* low, const char* high) {
  char* p = static_cast<char*>(where_at);
  check_bounds(p, bytes, low, high, "updates");
  lane* me = self();
  block* b = me->blk;
  const auto [first, last] = cells_at(b, p, bytes);
  for (shadow_cell* c = first; c <= last; c++) {
    const uint32_t w = c->written;
    if (w == 0 || clock_of(w) < b->start)
      fail("unwritten shared memory: " + where(me) + " updates " + place(b, p) + ", which no thread has written");
    if (settings().check_races && !(w & by_atomic) && !in_order(me, thread_of(w), clock_of(w)))
      race(me, p, "updates", thread_of(w), "wrote");
    c->written = cell_of(me, by_atomic);
  }
}

}  // namespace simt
