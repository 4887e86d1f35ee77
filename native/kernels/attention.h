// Merging of attention states, as the split attention and the op use it.
#pragma once

#include "backend.h"

namespace sl {
namespace SL_BACKEND_NS {

// o [S,T,H,Dv], lse2 [S,T,H] -> y, y_lse2 (may be absent), with a further logit a head that has no value (may be absent)
// for the tokens before *num_tokens (null: all).
void merge_states(stream&, const view& o, const view& lse2, const view& sinks, const int* num_tokens, const view& y,
                  const view& y_lse2);

}  // namespace SL_BACKEND_NS
}  // namespace sl
