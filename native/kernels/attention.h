// What the attention kernels' files know of each other's launchers.
#pragma once

#include "backend.h"
#include "merge.cuh"

namespace sl {
namespace SL_BACKEND_NS {

// States that not every token has: those of the levels of shared prefixes, `splits` of each, before all others.
struct prefix_states {
  const int* token_sequence = nullptr;
  const int* level_lengths = nullptr;  // [levels][max_sequences]
  int levels = 0, splits = 1, max_sequences = 0;
};

// o [S,T,H,Dv], lse2 [S,T,H] -> y, y_lse2 (may be absent), with a further logit a head that has no value (may be absent)
// for the tokens before *num_tokens (null: all).
merge_rows rows_to_merge(const view& o, const view& lse2, const view& sinks, const int* num_tokens, const prefix_states&, const view& y,
                         const view& y_lse2);
void merge_states(stream&, const merge_rows&);

}  // namespace SL_BACKEND_NS
}  // namespace sl
