#include "tensor.h"

namespace sl {
namespace {

std::string shape_text(const int64_t* shape, int32_t rank) {
  std::string text = "[";
  for (int32_t i = 0; i < rank; i++) text += (i > 0 ? "," : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string dtypes_text(uint32_t set) {
  std::string text;
  for (sl_dtype d = 0; d < 8; d++)
    if (set & only(d)) text += (text.empty() ? "" : ", ") + std::string(name_of(d));
  return text;
}

// Elements from the first to one past the last; throws where rows overlap or the count leaves 63 bits.
int64_t span_of(const sl_tensor& t, const char* name) {
  int64_t span = 1;
  for (int32_t i = t.rank - 1; i >= 0; i--) {
    if (t.shape[i] == 0) return 0;
    if (t.shape[i] == 1) continue;
    if (t.stride[i] < span)
      fail(SL_ERR_SHAPE, "tensor '%s': stride %lld of dimension %d is less than the %lld elements below it", name,
           (long long)t.stride[i], i, (long long)span);
    int64_t reach;
    if (__builtin_mul_overflow(t.shape[i] - 1, t.stride[i], &reach) || __builtin_add_overflow(span, reach, &span))
      fail(SL_ERR_SHAPE, "tensor '%s': shape %s with its strides exceeds 2^63 elements", name, shape_text(t.shape, t.rank).c_str());
  }
  return span;
}

}  // namespace

view checker::tensor(const sl_tensor* given, const char* name, const char* pattern, std::initializer_list<int64_t> shape,
                     uint32_t dtypes) {
  const sl_tensor& t = checked_pointer(given, name);
  size_t element = size_of(t.dtype);
  if (element == 0) fail(SL_ERR_DTYPE, "tensor '%s': dtype %d is unknown", name, t.dtype);
  if (!(dtypes & only(t.dtype)))
    fail(SL_ERR_DTYPE, "tensor '%s' is %s, expected %s", name, name_of(t.dtype), dtypes_text(dtypes).c_str());
  if (t.rank < 1 || t.rank > SL_MAX_RANK) fail(SL_ERR_SHAPE, "tensor '%s': rank %d, expected 1..%d", name, t.rank, SL_MAX_RANK);

  bool fits = t.rank == static_cast<int32_t>(shape.size());
  std::string expected = "[";
  int32_t i = 0;
  for (int64_t extent : shape) {
    expected += (i > 0 ? "," : "") + (extent == any ? std::string("any") : std::to_string(extent));
    if (fits && (extent == any ? t.shape[i] < 0 : t.shape[i] != extent)) fits = false;
    i++;
  }
  if (!fits)
    fail(SL_ERR_SHAPE, "tensor '%s' has the shape %s, expected %s = %s]", name, shape_text(t.shape, t.rank).c_str(), pattern,
         expected.c_str());
  if (t.shape[t.rank - 1] > 1 && t.stride[t.rank - 1] != 1)
    fail(SL_ERR_SHAPE, "tensor '%s': the last dimension's stride is %lld, expected 1", name, (long long)t.stride[t.rank - 1]);

  uint64_t bytes;
  if (__builtin_mul_overflow(static_cast<uint64_t>(span_of(t, name)), element, &bytes))
    fail(SL_ERR_SHAPE, "tensor '%s' exceeds 2^64 bytes", name);
  view v;
  v.dtype = t.dtype;
  v.rank = t.rank;
  // Dimensions of extent 1 get the stride that a dense tensor would have: kernels may then use any stride.
  int64_t dense = 1;
  for (int32_t d = t.rank - 1; d >= 0; d--) {
    v.shape[d] = t.shape[d];
    v.stride[d] = t.shape[d] > 1 ? t.stride[d] : dense;
    dense = t.shape[d] > 1 ? t.shape[d] * t.stride[d] : dense;
  }
  if (t.buffer != nullptr) {
    sl_buffer& b = checked(t.buffer, name);
    require_same_device(s_, b.stream->device.get(), name);
    if (t.offset % element != 0)
      fail(SL_ERR_SHAPE, "tensor '%s': offset %llu is no multiple of the element's %zu bytes", name, (unsigned long long)t.offset, element);
    if (t.offset > b.bytes || bytes > b.bytes - t.offset)
      fail(SL_ERR_SHAPE, "tensor '%s': %s %s at offset %llu needs %llu bytes, the buffer has %llu left", name,
           shape_text(t.shape, t.rank).c_str(), name_of(t.dtype), (unsigned long long)t.offset, (unsigned long long)bytes,
           (unsigned long long)(t.offset > b.bytes ? 0 : b.bytes - t.offset));
    v.data = static_cast<char*>(b.data) + t.offset;
    keep(&b);
  } else {
    if (t.pointer == nullptr) fail(SL_ERR_ARGUMENT, "tensor '%s' has neither a buffer nor a pointer", name);
    v.data = static_cast<char*>(t.pointer) + t.offset;
    if (reinterpret_cast<uintptr_t>(v.data) % element != 0)
      fail(SL_ERR_ARGUMENT, "tensor '%s': the imported address is not aligned to its element's %zu bytes", name, element);
    s_.impl->check_pointer(t.pointer);
  }
  return v;
}

namespace {

// Bytes from first to last of a view without gaps; 0 for others and for absent ones.
size_t dense_bytes(const view& v) {
  int64_t dense = 1;
  for (int32_t d = v.rank - 1; d >= 0; d--) {
    if (v.shape[d] > 1 && v.stride[d] != dense) return 0;
    dense *= v.shape[d];
  }
  return v ? static_cast<size_t>(dense) * size_of(v.dtype) : 0;
}

}  // namespace

void checker::apart(const view& out, const char* out_name, const view& in, const char* in_name) {
  size_t out_bytes = dense_bytes(out), in_bytes = dense_bytes(in);
  const char *a = out.as<const char>(), *b = in.as<const char>();
  if (out_bytes > 0 && in_bytes > 0 && a < b + in_bytes && b < a + out_bytes)
    fail(SL_ERR_ARGUMENT, "tensors '%s' and '%s' overlap, and this op reads one while it writes the other", out_name, in_name);
}

void checker::apart_or_same(const view& out, const char* out_name, const view& in, const char* in_name) {
  if (out.data != in.data || out.dtype != in.dtype) apart(out, out_name, in, in_name);
}

const sl::weight* checker::weight(sl_weight* w, const char* name, int64_t rows, int64_t cols) {
  sl_weight& h = checked(w, name);
  require_same_device(s_, h.device.get(), name);
  if ((rows != any && h.impl->rows != rows) || (cols != any && h.impl->cols != cols))
    fail(SL_ERR_SHAPE, "weight '%s' is [%lld,%lld], expected [%s,%s]", name, (long long)h.impl->rows, (long long)h.impl->cols,
         rows == any ? "any" : std::to_string(rows).c_str(), cols == any ? "any" : std::to_string(cols).c_str());
  keep(&h);
  return h.impl.get();
}

kv_view checker::cache(sl_kv_cache* c, int32_t layer) {
  sl_kv_cache& h = checked(c, "cache");
  require_same_device(s_, h.stream->device.get(), "cache");
  if (layer < 0 || layer >= h.view.layers)
    fail(SL_ERR_ARGUMENT, "layer is %d, the cache has the layers 0..%d", layer, h.view.layers - 1);
  keep(&h);
  return h.view;
}

const batch_view* checker::batch(sl_batch* b, sl_kv_cache* cache, int64_t rows) {
  sl_batch& h = checked(b, "batch");
  require_same_device(s_, h.stream->device.get(), "batch");
  if (h.cache.get() != cache) fail(SL_ERR_ARGUMENT, "argument 'batch' was made for another cache");
  if (!h.planned && !s_.measuring) fail(SL_ERR_STATE, "the batch has no plan yet: call sl_batch_update first");
  int64_t tokens = h.planned ? h.view.host.header->num_tokens : 0;
  if (rows < tokens)
    fail(SL_ERR_SHAPE, "the batch has %lld tokens, the tensors %lld rows", (long long)tokens, (long long)rows);
  if (rows > h.view.max_tokens)
    fail(SL_ERR_SHAPE, "the tensors have %lld rows, the batch was made for %d tokens", (long long)rows, h.view.max_tokens);
  keep(&h);
  if (s_.capturing) s_.captured_rows.emplace_back(&h, rows);
  return &h.view;
}

}  // namespace sl
