// Sectors and bank conflicts. Between two meetings of a warp each lane logs its accesses; the n-th access that lanes
// make from one place in the code is taken for one instruction, whatever other lanes do in between.
#include <algorithm>

#include "executor.h"

namespace simt {
namespace {

// A lane that goes on for so long without a meeting is counted alone.
constexpr size_t log_capacity = 1 << 14, log_kept = 1 << 10;

struct lane_access {
  access what;
  unsigned lane, order;
};

// Touched by the accesses of one instruction, each once.
uint64_t sectors_of(const lane_access* a, int n) {
  uint64_t seen[32 * 4];
  size_t k = 0;
  for (int i = 0; i < n; i++) {
    const uint64_t first = a[i].what.address / 32, last = (a[i].what.address + a[i].what.bytes - 1) / 32;
    for (uint64_t s = first; s <= last && k < std::size(seen); s++)
      if (k == 0 || seen[k - 1] != s) seen[k++] = s;
  }
  std::sort(seen, seen + k);
  return uint64_t(std::unique(seen, seen + k) - seen);
}

// A warp's 4-byte accesses go in one pass, 8-byte ones by half-warps, 16-byte ones by quarters (so ldmatrix too: eight
// rows a pass). In a pass a bank gives one word, to any number of lanes; an atomic is a pass of its own for each lane.
uint64_t conflicts_of(const lane_access* a, int n) {
  const bool atomic = a[0].what.kind == access_kind::shared_atomic;
  const unsigned lanes = a[0].what.bytes == 16 ? 8 : a[0].what.bytes == 8 ? 16 : 32;
  uint64_t extra = 0;
  for (int start = 0; start < n;) {
    const unsigned part = a[start].lane / lanes;
    uint64_t words[32 * 4];
    size_t k = 0;
    for (; start < n && a[start].lane / lanes == part; start++)
      for (unsigned b = 0; b < std::max<unsigned>(a[start].what.bytes, 4); b += 4)
        if (k < std::size(words)) words[k++] = (a[start].what.address + b) / 4;
    std::sort(words, words + k);
    if (!atomic) k = size_t(std::unique(words, words + k) - words);
    unsigned depth[32] = {}, most = 1;
    for (size_t i = 0; i < k; i++) most = std::max(most, ++depth[words[i] & 31]);
    extra += most - 1;
  }
  return extra;
}

// One instruction: the same place, one access a lane, in the order of lanes.
void count_instruction(const lane_access* a, int n) {
  switch (a[0].what.kind) {
    case access_kind::global_read: count().sectors_read += sectors_of(a, n); break;
    case access_kind::global_write: count().sectors_written += sectors_of(a, n); break;
    default: count().bank_conflicts += conflicts_of(a, n);
  }
}

bool together(const access& a, const access& b) { return a.site == b.site && a.kind == b.kind && a.bytes == b.bytes; }

// Lanes went different ways: what they did is sorted by place, and by how often they had been there.
void count_diverged(warp* w, unsigned lanes, size_t from) {
  std::vector<lane_access> all;
  for (unsigned m = lanes; m; m &= m - 1) {
    const auto i = unsigned(__builtin_ctz(m));
    const std::vector<access>& log = w->lanes[i].log;
    const size_t first = all.size();
    for (size_t k = from; k < log.size(); k++) all.push_back({log[k], i, unsigned(k)});
    const auto by_place = [](const lane_access& a, const lane_access& b) {
      if (a.what.site != b.what.site) return a.what.site < b.what.site;
      if (a.what.kind != b.what.kind) return a.what.kind < b.what.kind;
      if (a.what.bytes != b.what.bytes) return a.what.bytes < b.what.bytes;
      return a.order < b.order;
    };
    std::sort(all.begin() + std::ptrdiff_t(first), all.end(), by_place);
    for (size_t k = first, times = 0; k < all.size(); k++) {
      times = k > first && together(all[k].what, all[k - 1].what) ? times + 1 : 0;
      all[k].order = unsigned(times);
    }
  }
  std::sort(all.begin(), all.end(), [](const lane_access& a, const lane_access& b) {
    if (a.what.site != b.what.site) return a.what.site < b.what.site;
    if (a.what.kind != b.what.kind) return a.what.kind < b.what.kind;
    if (a.what.bytes != b.what.bytes) return a.what.bytes < b.what.bytes;
    return a.order != b.order ? a.order < b.order : a.lane < b.lane;
  });
  for (size_t k = 0; k < all.size();) {
    size_t end = k + 1;
    while (end < all.size() && together(all[k].what, all[end].what) && all[end].order == all[k].order) end++;
    count_instruction(&all[k], int(end - k));
    k = end;
  }
}

}  // namespace

void log_access(const void* p, size_t bytes, access_kind kind, const void* site) {
  tsan_quiet quiet;
  lane* me = self();
  me->log.push_back({reinterpret_cast<uintptr_t>(p), uint8_t(bytes), kind, site});
  if (me->log.size() >= log_capacity) flush_log(me->wrp, me->wrp->all);
}

void flush_log(warp* w, unsigned lanes) {
  tsan_quiet quiet;
  size_t longest = 0;
  for (unsigned m = lanes; m; m &= m - 1) longest = std::max(longest, w->lanes[__builtin_ctz(m)].log.size());
  if (longest == 0) return;
  for (size_t k = 0; k < longest; k++) {
    lane_access at[32];
    int n = 0;
    bool same = true;
    for (unsigned m = lanes; m; m &= m - 1) {
      const auto i = unsigned(__builtin_ctz(m));
      const std::vector<access>& log = w->lanes[i].log;
      if (k >= log.size()) continue;
      at[n] = {log[k], i, 0};
      same = same && together(at[0].what, at[n].what);
      n++;
    }
    if (!same) {
      count_diverged(w, lanes, k);
      break;
    }
    count_instruction(at, n);
  }
  for (unsigned m = lanes; m; m &= m - 1) {
    std::vector<access>& log = w->lanes[__builtin_ctz(m)].log;
    log.clear();
    if (log.capacity() > log_kept) log.shrink_to_fit();
  }
}

}  // namespace simt
