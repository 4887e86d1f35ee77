// From a caller's sl_tensor to a checked view.
#pragma once

#include <initializer_list>

#include "objects.h"

namespace sl {

// A dtype set is a mask of 1 << dtype.
constexpr uint32_t only(sl_dtype d) { return 1u << d; }
constexpr uint32_t activations = 1u << SL_DTYPE_F32 | 1u << SL_DTYPE_F16 | 1u << SL_DTYPE_BF16;
constexpr uint32_t any_dtype = 0xff;

// Expected extents: a number, or any.
constexpr int64_t any = -1;

class checker {
 public:
  explicit checker(sl_stream& s) : s_(s) {}

  // pattern is the shape in the header's words ("[T,D]"), used in messages only. Throws unless the tensor lies within
  // its buffer and has the rank, the extents and a dtype of the set.
  view tensor(const sl_tensor* t, const char* name, const char* pattern, std::initializer_list<int64_t> shape, uint32_t dtypes);
  view optional(const sl_tensor* t, const char* name, const char* pattern, std::initializer_list<int64_t> shape, uint32_t dtypes) {
    return t == nullptr ? view{} : tensor(t, name, pattern, shape, dtypes);
  }

  const sl::weight* weight(sl_weight* w, const char* name, int64_t rows, int64_t cols);
  const batch_view* batch(sl_batch* b, sl_kv_cache* cache, int64_t rows);
  kv_view cache(sl_kv_cache* c, int32_t layer);

  // SL_ERR_ARGUMENT when an output and an input share memory. Views with gaps between their rows are not looked at: their
  // elements may lie between each other's.
  void apart(const view& out, const char* out_name, const view& in, const char* in_name);
  // The same, but the very same tensor is allowed.
  void apart_or_same(const view& out, const char* out_name, const view& in, const char* in_name);

  // For a graph under capture: what it must keep alive.
  void keep(object* o) { if (s_.capturing) s_.captured.emplace_back(o); }

 private:
  sl_stream& s_;
};

}  // namespace sl
