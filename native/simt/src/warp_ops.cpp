// Shuffles, votes and reductions of a warp.
#include <algorithm>

#include "executor.h"

namespace simt {
namespace {

struct shuffle_slot { uint64_t in, out; int argument, width; shuffle_kind kind; };

void do_shuffle(unsigned mask, void* const* slots) {
  for (unsigned m = mask; m; m &= m - 1) {
    const int i = __builtin_ctz(m);
    auto& s = *static_cast<shuffle_slot*>(slots[i]);
    const int first = i & ~(s.width - 1), last = first + s.width - 1;
    int from = i;
    switch (s.kind) {
      case shuffle_kind::from: from = first + (s.argument & (s.width - 1)); break;
      case shuffle_kind::up: from = i - s.argument < first ? i : i - s.argument; break;
      case shuffle_kind::down: from = i + s.argument > last ? i : i + s.argument; break;
      case shuffle_kind::exclusive_or: from = (i ^ s.argument) > last ? i : i ^ s.argument; break;
    }
    if (!(mask >> from & 1))
      fail("shuffle from an absent lane: " + where(self()->blk) + " warp " + std::to_string(self()->wrp->index) +
           ": lane " + std::to_string(i) + " reads lane " + std::to_string(from) + ", which is not in the mask" +
           site_text(self()->at));
    s.out = static_cast<shuffle_slot*>(slots[from])->in;
  }
}

struct vote_slot { unsigned in, out; };

unsigned vote(const char* name, int kind, unsigned mask, unsigned in, warp_function work, const char* file, int line) {
  vote_slot s{in, 0};
  meet(name, kind, mask, &s, work, file, line);
  return s.out;
}

template <typename F>
void to_all(unsigned mask, void* const* slots, unsigned start, F f) {
  unsigned r = start;
  for (unsigned m = mask; m; m &= m - 1) r = f(r, static_cast<vote_slot*>(slots[__builtin_ctz(m)])->in, __builtin_ctz(m));
  for (unsigned m = mask; m; m &= m - 1) static_cast<vote_slot*>(slots[__builtin_ctz(m)])->out = r;
}

unsigned ballot(const char* name, unsigned mask, int p, const char* file, int line) {
  return vote(name, 20, mask, p != 0, [](unsigned m, void* const* s) {
    to_all(m, s, 0, [](unsigned r, unsigned v, int i) { return r | v << i; });
  }, file, line);
}

}  // namespace

uint64_t shuffle(shuffle_kind kind, unsigned mask, uint64_t value, int argument, int width, const char* file, int line) {
  constexpr const char* names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
  shuffle_slot s{value, value, argument, width, kind};
  meet(names[int(kind)], 10 + int(kind), mask, &s, do_shuffle, file, line);
  return s.out;
}

unsigned __ballot_sync(unsigned mask, int p, const char* file, int line) {
  return ballot("__ballot_sync", mask, p, file, line);
}
int __any_sync(unsigned mask, int p, const char* file, int line) {
  return ballot("__any_sync", mask, p, file, line) != 0;
}
int __all_sync(unsigned mask, int p, const char* file, int line) {
  return ballot("__all_sync", mask, !p, file, line) == 0;
}
unsigned __match_any_sync(unsigned mask, unsigned value, const char* file, int line) {
  return vote("__match_any_sync", 21, mask, value, [](unsigned all, void* const* s) {
    for (unsigned m = all; m; m &= m - 1) {
      auto& mine = *static_cast<vote_slot*>(s[__builtin_ctz(m)]);
      mine.out = 0;
      for (unsigned o = all; o; o &= o - 1)
        if (static_cast<vote_slot*>(s[__builtin_ctz(o)])->in == mine.in) mine.out |= o & -o;
    }
  }, file, line);
}
unsigned __reduce_add_sync(unsigned mask, unsigned value, const char* file, int line) {
  return vote("__reduce_add_sync", 22, mask, value, [](unsigned m, void* const* s) {
    to_all(m, s, 0, [](unsigned r, unsigned v, int) { return r + v; });
  }, file, line);
}
unsigned __reduce_max_sync(unsigned mask, unsigned value, const char* file, int line) {
  return vote("__reduce_max_sync", 23, mask, value, [](unsigned m, void* const* s) {
    to_all(m, s, 0, [](unsigned r, unsigned v, int) { return std::max(r, v); });
  }, file, line);
}
unsigned __reduce_min_sync(unsigned mask, unsigned value, const char* file, int line) {
  return vote("__reduce_min_sync", 24, mask, value, [](unsigned m, void* const* s) {
    to_all(m, s, ~0u, [](unsigned r, unsigned v, int) { return std::min(r, v); });
  }, file, line);
}

}  // namespace simt
