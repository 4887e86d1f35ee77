// The executor's inside: lanes, warps, blocks and the launch that is running. See README.md for how they fit together.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "fiber.h"
#include "simt/control.h"
#include "simt/device.h"
#include "simt/runtime.h"
#include "simt/views.h"

namespace simt {

struct warp;
struct block;

enum class state : uint8_t { ready, yielded, warp_wait, block_wait, done };

struct site { const char* file = nullptr; int line = 0; };
inline bool operator==(site a, site b) { return a.line == b.line && a.file == b.file; }

struct copy {  // one cp.async in flight
  char* to;
  const char* from;
  unsigned bytes, fill, group;
};

enum class access_kind : uint8_t { global_read, global_write, shared, shared_atomic };

struct access {  // for sectors and bank conflicts
  uint64_t address : 48, bytes : 8;
  access_kind kind : 8;
  const void* site;  // where in the kernel's code
};

struct lane : thread_context {
  simt::block* blk = nullptr;
  simt::warp* wrp = nullptr;
  fiber* fib = nullptr;
  unsigned index = 0;  // in the block
  state is = state::ready;
  site at;             // of the operation that it waits in
  const char* operation = "";
  std::vector<copy> copies;
  unsigned copy_groups = 0;  // committed so far
  std::vector<access> log;
  unsigned number() const { return index & 31; }
  unsigned bit() const { return 1u << number(); }
};

struct rendezvous {  // a warp operation that waits for its lanes; open while any has arrived
  unsigned mask = 0, arrived = 0;
  int kind = 0;
  site at;
  const char* operation = "";
  void* slots[32];
};

struct warp {
  simt::block* blk = nullptr;
  lane* lanes = nullptr;
  unsigned index = 0, all = 0;  // `all`: the lanes that it was made with
  unsigned ready = 0, yielded = 0, done = 0;
  unsigned rotate = 0;          // the lane to look at first
  uint32_t last_sync = 0;       // of the block's clock
  uint32_t sync_phase = 0;      // for TSan
  char sync_token[2] = {};
  rendezvous waiting[32];
  unsigned open = 0;            // of them
};

struct shared_array_entry {
  const void* key;
  const char* name;
  size_t at, bytes;
};

// What is known of two bytes of shared memory. A clock is the block's: it ticks at every barrier and __syncwarp.
struct shadow_cell {
  uint32_t written = 0;  // thread:10 pending:1 atomic:1 clock:20
  uint32_t read = 0;     // thread:10 several in the warp:1 in several warps:1 clock:20
};

struct block {
  uint3 index{};
  std::vector<lane> lanes;
  std::vector<warp> warps;
  uint32_t ready_warps = 0, yielded_warps = 0;
  unsigned live = 0, arrived = 0;
  site barrier;          // where the waiting threads wait
  site last_barrier;     // the last one that opened
  unsigned predicate_or = 0, predicate_and = 1, predicate_count = 0, result = 0;
  int barrier_kind = 0;
  bool early_exit_allowed = false;
  uint32_t barrier_phase = 0;
  char barrier_token[2] = {};
  uint32_t generation = 0;       // blocks that this one's memory has been
  char reuse_token[2] = {};

  char* memory = nullptr;  // shared memory, kept with the block for good
  shadow_cell* shadow = nullptr;  // zeroed; touched as far as it is used
  size_t capacity = 0, used = 0, dynamic_bytes = 0;
  uint32_t clock = 0, start = 0, last_sync = 0;
  std::vector<shared_array_entry> arrays;
};

struct kernel_call {
  std::string name;
  const void* function;
  dim3 grid, dim;
  size_t dynamic_shared, shared_limit;  // the limit is for static arrays and dynamic memory together
  std::function<void()> body;
};

struct running_launch {
  const kernel_call* call = nullptr;
  std::vector<unsigned long long> order;  // empty: ascending
  unsigned long long next = 0, total = 0;
  size_t resident = 1, window = 1;
  std::vector<block*> active;
  std::vector<block*> spare;  // kept from launch to launch, for their memory
  size_t turn = 0;
  uint64_t progress = 0, progress_seen = 0;
  int idle_rounds = 0;
  uint64_t random = 0;
  std::string failure;
  char start_token = 0, end_token = 0;  // for TSan
};

extern running_launch& run;

// Runs a launch to its end. Returns what went wrong, or nothing.
std::string run_kernel(const kernel_call&);

lane* self();
uint64_t next_random();
void wait_for_others();               // the caller's state says why
void make_ready(lane*);
void yield_lane();
void advanced();                      // something changed: not a deadlock
[[noreturn]] void fail(const std::string& what);  // ends the launch: unwinds to the lane's start
std::string where(const lane*);       // "block (0,0,0) warp 1 lane 3"
std::string where(const block*);
std::string lanes_text(unsigned mask);
std::string site_text(site);
std::string stuck_report();

void lane_exits(lane*);               // bookkeeping of barriers and warp operations
void start_shared(block*, size_t dynamic_bytes);
void sync_shared(block*);             // a barrier opened
void tick(block*);
void flush_log(warp*, unsigned lanes);
void log_access(const void* p, size_t bytes, access_kind, const void* site);
bool watched(const void* p);          // by the launch that is running
// The checks of views.h, for accesses that another instruction makes.
void touch_global(const void* p, size_t bytes, const char* low, const char* high, bool write, const void* site);
void touch_shared_read(const void* p, size_t bytes, const char* low, const char* high, const void* site);
void touch_shared_write(void* p, const void* value, size_t bytes, const char* low, const char* high, const void* site);
using warp_function = void (*)(unsigned mask, void* const* slots);
void meet(const char* operation, int kind, unsigned mask, void* slot, warp_function, const char* file, int line);

size_t resident_blocks(unsigned threads, size_t shared);  // on one multiprocessor

// Multiprocessor limits: those of an A100, but for what one block may ask for of shared memory, its static arrays included:
// there the least of all GPUs that the kernels are built for (8.6 and 8.9) says what fits.
constexpr size_t shared_per_block = 48 * 1024, shared_per_block_optin = 99 * 1024, shared_per_multiprocessor = 164 * 1024;
constexpr unsigned threads_per_multiprocessor = 2048, blocks_per_multiprocessor = 32;

// TSan learns of order between threads only here; elsewhere these are nothing.
#if defined(SIMT_TSAN)
void tsan_acquire(void*);
void tsan_release(void*);
void tsan_read(const void*, size_t);
void tsan_write(void*, size_t);
struct tsan_quiet {  // the executor's own bookkeeping, where it allocates or copies
  tsan_quiet();
  ~tsan_quiet();
};
#else
struct tsan_quiet { tsan_quiet() {} };
inline void tsan_acquire(void*) {}
inline void tsan_release(void*) {}
inline void tsan_read(const void*, size_t) {}
inline void tsan_write(void*, size_t) {}
#endif

}  // namespace simt
