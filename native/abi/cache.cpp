// Weights and KV caches: what lives as long as a model does.
#include <algorithm>

#include "blocks.h"
#include "tensor.h"

using namespace sl;

page_layout sl::layout_of_page(const kv_view& c) {
  const uint64_t slots = uint64_t(c.kv_heads) * uint64_t(c.page_size), element = size_of(c.dtype), scales = c.scale_layer_count * sizeof(float);
  page_layout l;
  l.parts = {{{c.keys, c.key_layer_bytes, slots * uint64_t(c.key_dim) * element, 0},
              {c.values, c.value_layer_bytes, slots * uint64_t(c.value_dim) * element, 0},
              {reinterpret_cast<char*>(c.key_scales), scales, slots * sizeof(float), 0},
              {reinterpret_cast<char*>(c.value_scales), scales, slots * sizeof(float), 0}}};
  for (page_part& p : l.parts) {
    p.host_offset = l.bytes;
    if (p.pool != nullptr) l.bytes += (uint64_t(c.layers) * p.bytes + 15) / 16 * 16;
  }
  return l;
}

sl_kv_cache::~sl_kv_cache() {
  if (view.keys != nullptr) stream->release_later(view.keys, key_bytes, SL_MEMORY_DEVICE);
  if (view.values != nullptr) stream->release_later(view.values, value_bytes, SL_MEMORY_DEVICE);
  if (view.key_scales != nullptr) stream->release_later(view.key_scales, scale_bytes, SL_MEMORY_DEVICE);
  if (view.value_scales != nullptr) stream->release_later(view.value_scales, scale_bytes, SL_MEMORY_DEVICE);
}

sl_weight::~sl_weight() {
  impl.reset();
  if (released != nullptr) released(context);
}

sl_status sl_weight_create(sl_stream* stream, const sl_weight_source* source, sl_weight** out) {
  return guard_stream("sl_weight_create", stream, [&](sl_stream& s) {
    checked_pointer(out, "weight") = nullptr;
    sl_weight_source checked_source = checked_struct(source, "source");
    require_not_capturing(s, "a weight is made");
    check_weight_source(checked_source);
    auto w = std::make_unique<sl_weight>(s.device.get());
    w->impl = s.device->impl->create_weight(*s.impl, checked_source);
    w->impl->rows = checked_source.rows;
    w->impl->cols = checked_source.cols;
    w->impl->encoding = checked_source.encoding;
    w->impl->group = checked_source.group;
    *out = w.release();
  });
}

sl_status sl_weight_create_packed(sl_stream* stream, const sl_packed_weight* packed, sl_release released, void* context, sl_weight** out) {
  return guard_stream("sl_weight_create_packed", stream, [&](sl_stream& s) {
    checked_pointer(out, "weight") = nullptr;
    const sl_packed_weight p = checked_struct(packed, "packed");
    require_not_capturing(s, "a weight is made");
    sl_weight_source source{};
    source.encoding = p.encoding;
    source.rows = p.rows;
    source.cols = p.cols;
    source.group = p.group;
    check_weight_shape(source);
    auto w = std::make_unique<sl_weight>(s.device.get());
    w->impl = s.device->impl->create_packed(p);
    w->impl->rows = p.rows;
    w->impl->cols = p.cols;
    w->impl->encoding = p.encoding;
    w->impl->group = p.group;
    w->released = released;
    w->context = context;
    *out = w.release();
  });
}

sl_status sl_weight_get_packed(sl_weight* weight, sl_packed_weight* packed) {
  return guard("sl_weight_get_packed", [&] {
    sl_packed_weight full = checked_struct(static_cast<const sl_packed_weight*>(packed), "packed");
    const sl_weight& w = checked(weight, "weight");
    const uint32_t size = full.size;
    full = {};
    full.size = size;
    full.encoding = w.impl->encoding;
    full.rows = w.impl->rows;
    full.cols = w.impl->cols;
    full.group = w.impl->group;
    w.device->impl->get_packed(*w.impl, full);
    std::memcpy(packed, &full, size);
  });
}

void sl_weight_release(sl_weight* weight) { release(weight); }

sl_status sl_weight_get_info(sl_weight* weight, sl_weight_info* info) {
  return guard("sl_weight_get_info", [&] {
    sl_weight_info full = checked_struct(static_cast<const sl_weight_info*>(info), "info");
    const sl::weight& w = *checked(weight, "weight").impl;
    full.encoding = w.encoding;
    full.rows = w.rows;
    full.cols = w.cols;
    full.bytes = w.bytes();
    std::memcpy(info, &full, full.size);
  });
}

sl_status sl_kv_cache_create(sl_stream* stream, const sl_kv_cache_options* options, sl_kv_cache** out) {
  return guard_stream("sl_kv_cache_create", stream, [&](sl_stream& s) {
    checked_pointer(out, "cache") = nullptr;
    sl_kv_cache_options o = checked_struct(options, "options");
    require_not_capturing(s, "a cache is made");
    if (o.page_size == 0) o.page_size = 16;
    auto within = [](const char* name, int32_t value, int32_t highest) {
      if (value < 1 || value > highest) fail(SL_ERR_ARGUMENT, "options.%s is %d, expected 1..%d", name, value, highest);
    };
    within("layers", o.layers, 65536);
    within("pages", o.pages, INT32_MAX - 1);
    within("kv_heads", o.kv_heads, 65536);
    within("key_dim", o.key_dim, 4096);
    within("value_dim", o.value_dim, 4096);
    within("page_size", o.page_size, SL_ATTENTION_CHUNK);
    if (SL_ATTENTION_CHUNK % o.page_size != 0)
      fail(SL_ERR_ARGUMENT, "options.page_size is %d, expected a divisor of %d", o.page_size, SL_ATTENTION_CHUNK);
    constexpr uint32_t kv_dtypes = activations | only(SL_DTYPE_FP8_E4M3) | only(SL_DTYPE_I8);
    if (size_of(o.dtype) == 0 || !(kv_dtypes & only(o.dtype)))
      fail(SL_ERR_DTYPE, "options.dtype is %s, expected f32, f16, bf16, fp8_e4m3 or i8", name_of(o.dtype));
    if (!s.device->impl->supports_kv(o.dtype))
      fail(SL_ERR_UNSUPPORTED, "this backend has no %s KV cache; take f16 or f32", name_of(o.dtype));

    auto bytes_of = [&](int64_t dim, size_t element) {
      uint64_t bytes = element;
      for (int64_t factor : {int64_t{o.layers}, int64_t{o.pages}, int64_t{o.kv_heads}, int64_t{o.page_size}, dim})
        if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(factor), &bytes))
          fail(SL_ERR_ARGUMENT, "a cache of %d layers x %d pages exceeds 2^64 bytes", o.layers, o.pages);
      return bytes;
    };
    auto c = std::make_unique<sl_kv_cache>(&s);
    kv_view& v = c->view;
    v.dtype = o.dtype;
    v.layers = o.layers;
    v.pages = o.pages;
    v.kv_heads = o.kv_heads;
    v.key_dim = o.key_dim;
    v.value_dim = o.value_dim;
    v.page_size = o.page_size;
    c->key_bytes = bytes_of(o.key_dim, size_of(o.dtype));
    c->value_bytes = bytes_of(o.value_dim, size_of(o.dtype));
    v.key_layer_bytes = c->key_bytes / o.layers;
    v.value_layer_bytes = c->value_bytes / o.layers;
    v.keys = static_cast<char*>(s.impl->allocate(c->key_bytes, SL_MEMORY_DEVICE));
    v.values = static_cast<char*>(s.impl->allocate(c->value_bytes, SL_MEMORY_DEVICE));
    if (o.dtype == SL_DTYPE_I8 || o.dtype == SL_DTYPE_FP8_E4M3) {
      c->scale_bytes = bytes_of(1, sizeof(float));
      v.scale_layer_count = c->scale_bytes / sizeof(float) / o.layers;
      v.key_scales = static_cast<float*>(s.impl->allocate(c->scale_bytes, SL_MEMORY_DEVICE));
      v.value_scales = static_cast<float*>(s.impl->allocate(c->scale_bytes, SL_MEMORY_DEVICE));
    }
    *out = c.release();
  });
}

void sl_kv_cache_release(sl_kv_cache* cache) { release(cache); }

sl_status sl_kv_cache_get_layer(sl_kv_cache* cache, int32_t layer, sl_tensor* keys, sl_tensor* values) {
  return guard("sl_kv_cache_get_layer", [&] {
    const kv_view& v = checked(cache, "cache").view;
    if (layer < 0 || layer >= v.layers) fail(SL_ERR_ARGUMENT, "layer is %d, the cache has the layers 0..%d", layer, v.layers - 1);
    auto fill = [&](sl_tensor* t, char* pool, uint64_t layer_bytes, int32_t dim) {
      if (t == nullptr) return;
      *t = sl_tensor{};
      t->pointer = pool + layer_bytes * layer;
      t->dtype = v.dtype;
      t->rank = 4;
      const int64_t shape[4] = {v.pages, v.kv_heads, v.page_size, dim};
      int64_t stride = 1;
      for (int i = 3; i >= 0; i--) {
        t->shape[i] = shape[i];
        t->stride[i] = stride;
        stride *= shape[i];
      }
    };
    fill(keys, v.keys, v.key_layer_bytes, v.key_dim);
    fill(values, v.values, v.value_layer_bytes, v.value_dim);
  });
}

sl_status sl_kv_cache_copy_pages(sl_stream* stream, sl_kv_cache* cache, const int32_t* sources, const int32_t* targets,
                                 int32_t count) {
  return guard_stream("sl_kv_cache_copy_pages", stream, [&](sl_stream& s) {
    sl_kv_cache& c = checked(cache, "cache");
    require_same_device(s, c.stream->device.get(), "cache");
    require_not_capturing(s, "pages are copied");
    if (count < 0 || count > c.view.pages) fail(SL_ERR_ARGUMENT, "count is %d, expected 0..%d", count, c.view.pages);
    if (count == 0) return;
    checked_pointer(sources, "sources");
    checked_pointer(targets, "targets");
    std::vector<int32_t> written(targets, targets + count);
    std::sort(written.begin(), written.end());
    copy_pages_args a{c.view, {}};
    a.pairs.reserve(count);
    for (int32_t i = 0; i < count; i++) {
      for (int32_t page : {sources[i], targets[i]})
        if (page < 0 || page >= c.view.pages) fail(SL_ERR_ARGUMENT, "copy %d: page %d, the cache has the pages 0..%d", i, page, c.view.pages - 1);
      if (i > 0 && written[i] == written[i - 1]) fail(SL_ERR_ARGUMENT, "page %d is a target twice", written[i]);
      if (std::binary_search(written.begin(), written.end(), sources[i]))
        fail(SL_ERR_ARGUMENT, "page %d is both source and target", sources[i]);
      a.pairs.emplace_back(sources[i], targets[i]);
    }
    const auto& op = s.device->impl->ops().copy_pages;
    if (op.run == nullptr) fail(SL_ERR_UNSUPPORTED, "this backend cannot copy pages");
    if (!s.measuring) op.run(*s.impl, a);
  });
}

sl_status sl_kv_cache_get_page_bytes(sl_kv_cache* cache, uint64_t* bytes) {
  return guard("sl_kv_cache_get_page_bytes", [&] { checked_pointer(bytes, "bytes") = layout_of_page(checked(cache, "cache").view).bytes; });
}

namespace {

// Saving and loading: they differ in whether a page may be named twice.
void move_pages(sl_stream& s, sl_kv_cache* cache, const int32_t* pages, int32_t count, sl_buffer* buffer, uint64_t offset,
                const char* what, bool loads) {
  sl_kv_cache& c = checked(cache, "cache");
  require_same_device(s, c.stream->device.get(), "cache");
  sl_buffer& b = checked(buffer, "buffer");
  require_same_device(s, b.stream->device.get(), "buffer");
  require_not_capturing(s, what);
  if (b.memory != SL_MEMORY_HOST) fail(SL_ERR_ARGUMENT, "argument 'buffer' is device memory, expected host memory; create it as SL_MEMORY_HOST");
  if (offset % 16 != 0) fail(SL_ERR_ARGUMENT, "offset is %llu, expected a multiple of 16", (unsigned long long)offset);
  if (count < 0 || count > c.view.pages) fail(SL_ERR_ARGUMENT, "count is %d, expected 0..%d", count, c.view.pages);
  if (count == 0) return;
  checked_pointer(pages, "pages");
  host_pages_args a{c.view, std::vector<int32_t>(pages, pages + count), nullptr};
  for (int32_t i = 0; i < count; i++)
    if (a.pages[i] < 0 || a.pages[i] >= c.view.pages)
      fail(SL_ERR_ARGUMENT, "pages[%d] is %d, the cache has the pages 0..%d", i, a.pages[i], c.view.pages - 1);
  if (loads) {
    std::vector<int32_t> sorted = a.pages;
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
    if (twice != sorted.end()) fail(SL_ERR_ARGUMENT, "page %d is a target twice", *twice);
  }
  uint64_t bytes = 0;
  const uint64_t page_bytes = layout_of_page(c.view).bytes;
  if (__builtin_mul_overflow(page_bytes, static_cast<uint64_t>(count), &bytes))
    fail(SL_ERR_SHAPE, "%d pages of %llu bytes exceed 2^64 bytes", count, (unsigned long long)page_bytes);
  a.host = range(s, buffer, offset, bytes, "buffer");
  const auto& op = loads ? s.device->impl->ops().load_pages : s.device->impl->ops().save_pages;
  if (op.run == nullptr) fail(SL_ERR_UNSUPPORTED, "this backend moves no pages between a cache and host memory");
  if (!s.measuring) op.run(*s.impl, a);
}

}  // namespace

sl_status sl_kv_cache_save_pages(sl_stream* stream, sl_kv_cache* cache, const int32_t* pages, int32_t count, sl_buffer* buffer,
                                 uint64_t offset) {
  return guard_stream("sl_kv_cache_save_pages", stream,
                      [&](sl_stream& s) { move_pages(s, cache, pages, count, buffer, offset, "pages are saved", false); });
}

sl_status sl_kv_cache_load_pages(sl_stream* stream, sl_kv_cache* cache, const int32_t* pages, int32_t count, sl_buffer* buffer,
                                 uint64_t offset) {
  return guard_stream("sl_kv_cache_load_pages", stream,
                      [&](sl_stream& s) { move_pages(s, cache, pages, count, buffer, offset, "pages are loaded", true); });
}
