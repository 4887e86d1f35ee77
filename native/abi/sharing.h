// Which shared prefixes a step's plan reads once for all of their sequences.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"

namespace sl {

// What there is to choose from, checked: a tree, in which each prefix begins where the one before it in its sequences ends.
struct sharing_step {
  const int32_t* query_indptr;
  const kv_view* cache;
  int32_t query_heads, max_rows;
  sl_sharing sharing;
};

// Of `prefixes` (sorted by first_key, then by first_sequence) leaves those that are worth it, in the same order. One that is not
// becomes part of those behind it, which then begin earlier; a sequence behind it without such reads its keys itself.
void choose_shared(std::vector<sl_prefix>& prefixes, const sharing_step& step, const sharing_costs& costs);

}  // namespace sl
