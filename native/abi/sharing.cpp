// A model of what a key costs, and a walk through the tree of prefixes by it.
#include "sharing.h"

#include <algorithm>

namespace sl {
namespace {

// What the rows of `tokens` tokens pay for each key that they see: its bytes, from memory for one tile of rows and from a cache for the
// others, or the products with it, whichever takes longer.
class key_costs {
 public:
  key_costs(const sharing_step& step, const sharing_costs& costs) : c_(costs), group_(step.query_heads / step.cache->kv_heads) {
    const kv_view& k = *step.cache;
    const int64_t dims = int64_t{k.key_dim} + k.value_dim;
    bytes_ = (dims * int64_t(size_of(k.dtype)) + (k.key_scales != nullptr ? 8 : 0)) * k.kv_heads;
    products_ = double(dims) * k.kv_heads;
    state_bytes_ = 2.0 * 4 * (k.value_dim + 2) * step.query_heads;  // there and back
  }

  double key(int64_t tokens) const {
    if (tokens == 0) return 0;
    constexpr double from_cache = 0.4;
    const int64_t rows = tokens * group_, tile = rows <= c_.few_rows ? c_.few_rows : c_.tile_rows, tiles = (rows + tile - 1) / tile;
    return std::max(c_.byte * bytes_ * (1 + from_cache * double(tiles - 1)), c_.product * products_ * double(tiles * tile));
  }
  double states(int64_t tokens) const { return c_.byte * state_bytes_ * double(tokens); }

 private:
  const sharing_costs& c_;
  int64_t group_;
  double bytes_, products_, state_bytes_;
};

struct node {
  sl_prefix prefix;
  int64_t tokens;
  double gain;  // of being shared, over its keys being read by those behind it
  bool kept;
};

}  // namespace

void choose_shared(std::vector<sl_prefix>& prefixes, const sharing_step& step, const sharing_costs& costs) {
  if (prefixes.empty()) return;
  const bool by_cost = step.sharing == SL_SHARING_BY_COST && costs.byte > 0;
  sharing_costs bytes_alone = costs;
  bytes_alone.byte = 1, bytes_alone.product = 0;  // where there is no room for all, what saves most bytes is kept
  const key_costs cost(step, costs.byte > 0 ? costs : bytes_alone);
  const auto tokens_of = [&](int32_t from, int32_t count) { return int64_t{step.query_indptr[from + count]} - step.query_indptr[from]; };
  thread_local std::vector<node> nodes;
  thread_local std::vector<int32_t> behind;  // [sequences]: the kept prefix that comes next, or -1
  nodes.clear();
  int32_t sequences = 0;
  for (const sl_prefix& p : prefixes) {
    nodes.push_back({p, tokens_of(p.first_sequence, p.num_sequences), 0, true});
    sequences = std::max(sequences, p.first_sequence + p.num_sequences);
  }

  // From the leaves up: what the keys would cost those behind.
  double flat = 0, shared = 0;
  const auto walk = [&] {
    behind.assign(static_cast<size_t>(sequences), -1);
    flat = shared = 0;
    for (size_t i = nodes.size(); i-- > 0;) {
      node& n = nodes[i];
      double each = 0, all = 0;
      for (int32_t b = n.prefix.first_sequence, end = b + n.prefix.num_sequences; b < end; b++) {
        const int32_t next = behind[static_cast<size_t>(b)];
        const double alone = cost.key(tokens_of(b, 1));
        all += alone;
        if (next < 0) each += alone;
        else if (b == n.prefix.first_sequence || behind[static_cast<size_t>(b) - 1] != next) each += cost.key(nodes[static_cast<size_t>(next)].tokens);
      }
      const double keys = n.prefix.num_keys, own = cost.key(n.tokens), states = cost.states(n.tokens);
      flat += keys * all;
      n.gain = keys * (each - own) - states;
      const bool deep = !costs.levels && n.prefix.first_key > 0;
      n.kept = n.kept && !deep && !(by_cost && n.gain <= 0);
      shared += n.kept ? keys * own + states : keys * each;
      for (int32_t b = n.prefix.first_sequence; n.kept && b < n.prefix.first_sequence + n.prefix.num_sequences; b++)
        behind[static_cast<size_t>(b)] = static_cast<int32_t>(i);
    }
  };
  walk();
  const auto rows = [&] {
    int64_t sum = 0;
    for (const node& n : nodes) sum += n.kept ? n.tokens : 0;
    return sum;
  };
  for (int64_t over = rows() - step.max_rows; over > 0; over = rows() - step.max_rows) {
    node* least = nullptr;
    for (node& n : nodes)
      if (n.kept && n.tokens > 0 && (least == nullptr || n.gain / double(n.tokens) < least->gain / double(least->tokens))) least = &n;
    least->kept = false;
    walk();
  }
  if (by_cost && shared + costs.start >= flat)
    for (node& n : nodes) n.kept = false;

  // Who is kept begins where the kept one before it in its sequences ends.
  thread_local std::vector<int32_t> covered;
  covered.assign(static_cast<size_t>(sequences), 0);
  prefixes.clear();
  for (const node& n : nodes) {
    if (!n.kept) continue;
    sl_prefix p = n.prefix;
    const int32_t end = p.first_key + p.num_keys;
    p.first_key = covered[static_cast<size_t>(p.first_sequence)];
    p.num_keys = end - p.first_key;
    for (int32_t b = p.first_sequence; b < p.first_sequence + p.num_sequences; b++) covered[static_cast<size_t>(b)] = end;
    prefixes.push_back(p);
  }
  std::sort(prefixes.begin(), prefixes.end(), [](const sl_prefix& a, const sl_prefix& b) {
    return a.first_key != b.first_key ? a.first_key < b.first_key : a.first_sequence < b.first_sequence;
  });
}

}  // namespace sl
