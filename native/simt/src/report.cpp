// Words for what went wrong: who, where, and what the others were doing.
#include <algorithm>
#include <cstring>

#include "executor.h"

namespace simt {

std::string site_text(site s) {
  if (!s.file) return "";
  const char* slash = std::strrchr(s.file, '/');
  return std::string(" at ") + (slash ? slash + 1 : s.file) + ":" + std::to_string(s.line);
}

std::string lanes_text(unsigned mask) {
  std::string out;
  for (int i = 0; i < 32;) {
    if (!(mask >> i & 1)) { i++; continue; }
    int last = i;
    while (last < 31 && mask >> (last + 1) & 1) last++;
    if (!out.empty()) out += ",";
    out += std::to_string(i);
    if (last > i) out += "-" + std::to_string(last);
    i = last + 1;
  }
  return out.empty() ? "none" : out;
}

std::string where(const block* b) {
  return "block (" + std::to_string(b->index.x) + "," + std::to_string(b->index.y) + "," + std::to_string(b->index.z) + ")";
}

std::string where(const lane* l) {
  return where(l->blk) + " warp " + std::to_string(l->wrp->index) + " lane " + std::to_string(l->number());
}

namespace {

// Lanes of a warp that are in one state and place, as a clause.
std::string warp_text(const warp& w) {
  std::string out;
  unsigned seen = 0;
  for (int i = 0; i < 32; i++) {
    if (!(w.all >> i & 1) || seen >> i & 1) continue;
    const lane& l = w.lanes[i];
    unsigned same = 0;
    for (int j = i; j < 32; j++) {
      if (!(w.all >> j & 1)) continue;
      const lane& o = w.lanes[j];
      const bool waits = l.is == state::warp_wait || l.is == state::block_wait;
      if (o.is == l.is && (!waits || o.at == l.at)) same |= 1u << j;
    }
    seen |= same;
    out += out.empty() ? "" : ", ";
    out += "lanes " + lanes_text(same);
    switch (l.is) {
      case state::done: out += " have ended"; break;
      case state::yielded: out += " wait for memory to change"; break;
      case state::ready: out += " are ready"; break;
      default: out += std::string(" wait in ") + l.operation + site_text(l.at);
    }
  }
  return out;
}

}  // namespace

std::string stuck_report() {
  // A warp operation whose lanes are elsewhere is the cause; threads that spin are only its victims.
  for (const block* b : run.active)
    for (const warp& w : b->warps)
      if (w.open)
        return "divergent warp operation: " + where(b) + " warp " + std::to_string(w.index) + ": " + warp_text(w);
  std::string out = "no progress: ";
  size_t told = 0;
  for (const block* b : run.active) {
    for (const warp& w : b->warps) {
      if (w.done == w.all) continue;
      if (told++ == 4) return out + "; and others";
      out += (told > 1 ? "; " : "") + where(b) + " warp " + std::to_string(w.index) + ": " + warp_text(w);
    }
  }
  return out;
}

}  // namespace simt
