// Sectors and bank conflicts. The k-th access of each lane since the warp last came together is taken for one
// instruction, as it is wherever the lanes do not diverge between.
#include <algorithm>

#include "executor.h"

namespace simt {
namespace {

constexpr size_t log_capacity = 256;

uint64_t sectors_of(const access* a, int n) {
  uint64_t seen[32 * 3];
  size_t k = 0;
  for (int i = 0; i < n; i++) {
    const uint64_t first = a[i].address / 32, last = (a[i].address + a[i].bytes - 1) / 32;
    for (uint64_t s = first; s <= last && k < std::size(seen); s++)
      if (k == 0 || seen[k - 1] != s) seen[k++] = s;
  }
  std::sort(seen, seen + k);
  return uint64_t(std::unique(seen, seen + k) - seen);
}

// A warp's 4-byte accesses go in one pass, 8-byte ones by half-warps, 16-byte ones by quarters. In a pass a bank gives
// one word, to any number of lanes.
uint64_t conflicts_of(const access* a, int n) {
  const int lanes = a[0].bytes == 16 ? 8 : a[0].bytes == 8 ? 16 : 32;
  uint64_t extra = 0;
  for (int start = 0; start < n; start += lanes) {
    uint64_t words[32 * 4];
    size_t k = 0;
    for (int i = start; i < std::min(n, start + lanes); i++)
      for (int b = 0; b < std::max<int>(a[i].bytes, 4); b += 4)
        if (k < std::size(words)) words[k++] = (a[i].address + unsigned(b)) / 4;
    std::sort(words, words + k);
    k = size_t(std::unique(words, words + k) - words);
    unsigned depth[32] = {}, most = 1;
    for (size_t i = 0; i < k; i++) most = std::max(most, ++depth[words[i] & 31]);
    extra += most - 1;
  }
  return extra;
}

}  // namespace

void log_access(const void* p, size_t bytes, uint8_t kind) {
  tsan_quiet quiet;
  lane* me = self();
  me->log.push_back({reinterpret_cast<uintptr_t>(p), uint8_t(bytes), kind});
  if (me->log.size() >= log_capacity) flush_log(me->wrp, me->wrp->all);
}

void flush_log(warp* w, unsigned lanes) {
  tsan_quiet quiet;
  size_t longest = 0;
  for (unsigned m = lanes; m; m &= m - 1) longest = std::max(longest, w->lanes[__builtin_ctz(m)].log.size());
  for (size_t k = 0; k < longest; k++) {
    access by_kind[3][32];
    int n[3] = {};
    for (unsigned m = lanes; m; m &= m - 1) {
      const lane& l = w->lanes[__builtin_ctz(m)];
      if (k < l.log.size()) by_kind[l.log[k].kind][n[l.log[k].kind]++] = l.log[k];
    }
    if (n[0]) count().sectors_read += sectors_of(by_kind[0], n[0]);
    if (n[1]) count().sectors_written += sectors_of(by_kind[1], n[1]);
    if (n[2]) count().bank_conflicts += conflicts_of(by_kind[2], n[2]);
  }
  if (longest)
    for (unsigned m = lanes; m; m &= m - 1) w->lanes[__builtin_ctz(m)].log.clear();
}

}  // namespace simt
