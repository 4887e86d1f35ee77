// Stackful fibers over Boost's fcontext, with the annotations that the sanitizers need. One OS thread runs them all.
#pragma once

#include <cstddef>

namespace simt {

struct lane;

struct fiber {
  void* context = nullptr;  // where to resume
  char* stack = nullptr;    // lowest address
  lane* owner = nullptr;    // the CUDA thread that it runs
  void* sanitizer = nullptr;  // ASan's fake stack, or TSan's fiber
  bool used = false;        // holds frames of a thread: to be made anew when that thread is abandoned
};

// ASan's frames are several times as large.
#if defined(SIMT_ASAN) || defined(SIMT_TSAN)
constexpr size_t stack_bytes = 256 * 1024;
#else
constexpr size_t stack_bytes = 64 * 1024;
#endif

using fiber_entry = void (*)();  // never returns

fiber* take_fiber(fiber_entry);   // from the pool
void give_fiber(fiber*);          // back to the pool; the caller may still be running on it
void abandon_fiber(fiber*);       // the same, dropping its frames; not to be called on it
bool overflowed(const fiber*);    // the canary at the end of its stack is gone
fiber* host_fiber();              // the OS thread's own stack
void switch_fiber(fiber* from, fiber* to);

// For TSan: the thread that a fiber plays changed, though its stack did not.
void renew_identity(fiber*, bool running);

}  // namespace simt
