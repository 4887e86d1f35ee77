#include "fiber.h"

#include <boost/context/detail/fcontext.hpp>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include <sys/mman.h>

#if defined(SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(SIMT_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace simt {
namespace {

namespace ctx = boost::context::detail;

constexpr uint64_t canary = 0x736c756963652121;
constexpr size_t stacks_per_slab = 64;

std::vector<fiber*>& pool = *new std::vector<fiber*>;  // outlives everything
fiber host;

#if defined(SIMT_ASAN)
const void* host_bottom = nullptr;
size_t host_size = 0;
#endif

fiber* arrival_from = nullptr;  // who jumped, told to who resumes

void arrived(fiber* self, ctx::transfer_t t) {
  fiber* const from = static_cast<fiber*>(t.data);
  from->context = t.fctx;
#if defined(SIMT_ASAN)
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(self->sanitizer, &bottom, &size);
  if (from == &host) host_bottom = bottom, host_size = size;
#endif
  (void)self;
}

void enter(ctx::transfer_t t) {
  fiber* const from = static_cast<fiber*>(t.data);
  (void)from;
  fiber* const self = arrival_from;
  arrived(self, t);
  // The entry was left at the stack's low end, behind the canary.
  fiber_entry entry;
  std::memcpy(&entry, self->stack + sizeof canary, sizeof entry);
  entry();
  std::abort();
}

void make(fiber* f, fiber_entry entry) {
  std::memcpy(f->stack, &canary, sizeof canary);
  std::memcpy(f->stack + sizeof canary, &entry, sizeof entry);
  f->context = ctx::make_fcontext(f->stack + stack_bytes, stack_bytes, enter);
#if defined(SIMT_ASAN)
  f->sanitizer = nullptr;
#endif
  f->used = false;
}

void grow() {
  void* slab = mmap(nullptr, stacks_per_slab * stack_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (slab == MAP_FAILED) throw std::bad_alloc();
  for (size_t i = stacks_per_slab; i-- > 0;) {
    fiber* f = new fiber;
    f->stack = static_cast<char*>(slab) + i * stack_bytes;
    pool.push_back(f);
  }
}

}  // namespace

fiber* host_fiber() { return &host; }

fiber* take_fiber(fiber_entry entry) {
  if (pool.empty()) grow();
  fiber* f = pool.back();
  pool.pop_back();
  if (!f->context) make(f, entry);
  return f;
}

void give_fiber(fiber* f) { pool.push_back(f); }

void abandon_fiber(fiber* f) {
#if defined(SIMT_ASAN)
  __asan_unpoison_memory_region(f->stack, stack_bytes);
#endif
  f->context = nullptr;
  pool.push_back(f);
}

bool overflowed(const fiber* f) { return std::memcmp(f->stack, &canary, sizeof canary) != 0; }

void switch_fiber(fiber* from, fiber* to) {
  arrival_from = to;
#if defined(SIMT_ASAN)
  const void* bottom = to == &host ? host_bottom : to->stack;
  const size_t size = to == &host ? host_size : stack_bytes;
  __sanitizer_start_switch_fiber(&from->sanitizer, bottom, size);
#elif defined(SIMT_TSAN)
  if (from == &host) host.sanitizer = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to->sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
  arrived(from, ctx::jump_fcontext(to->context, from));
}

void renew_identity(fiber* f, bool running) {
#if defined(SIMT_TSAN)
  void* const old = f->sanitizer;
  f->sanitizer = __tsan_create_fiber(0);
  if (running) __tsan_switch_to_fiber(f->sanitizer, __tsan_switch_to_fiber_no_sync);
  if (old) __tsan_destroy_fiber(old);
#else
  (void)f, (void)running;
#endif
}

}  // namespace simt
