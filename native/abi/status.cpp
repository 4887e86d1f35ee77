// Versions, status names, the thread's last error, live handles, and the struct layout as compiled.
#include <cstdarg>
#include <cstddef>
#include <cstdio>

#include "objects.h"

namespace sl {
namespace {

thread_local std::string last_error;
std::atomic<int64_t> live[8];

std::string vformat(const char* pattern, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  int length = std::vsnprintf(nullptr, 0, pattern, again);
  va_end(again);
  std::string text(length > 0 ? static_cast<size_t>(length) : 0, '\0');
  if (length > 0) std::vsnprintf(text.data(), text.size() + 1, pattern, arguments);
  return text;
}

}  // namespace

std::string format(const char* pattern, ...) {
  va_list arguments;
  va_start(arguments, pattern);
  std::string text = vformat(pattern, arguments);
  va_end(arguments);
  return text;
}

void fail(sl_status status, const char* pattern, ...) {
  va_list arguments;
  va_start(arguments, pattern);
  std::string text = vformat(pattern, arguments);
  va_end(arguments);
  throw error(status, std::move(text));
}

sl_status set_last_error(const char* function, sl_status status, const char* text) noexcept {
  try {
    last_error = function;
    last_error += ": ";
    last_error += text;
  } catch (...) {
    last_error.clear();  // no memory for the text; the status still tells
  }
  return status;
}

size_t size_of(sl_dtype dtype) {
  switch (dtype) {
    case SL_DTYPE_F32: case SL_DTYPE_I32: return 4;
    case SL_DTYPE_F16: case SL_DTYPE_BF16: return 2;
    case SL_DTYPE_I64: return 8;
    case SL_DTYPE_U8: case SL_DTYPE_I8: case SL_DTYPE_FP8_E4M3: return 1;
    default: return 0;
  }
}

const char* name_of(sl_dtype dtype) {
  static const char* const names[] = {"f32", "f16", "bf16", "i32", "i64", "u8", "i8", "fp8_e4m3"};
  return dtype >= 0 && dtype < 8 ? names[dtype] : "unknown dtype";
}

const char* name_of(sl_encoding_values encoding) {
  static const char* const names[] = {"f32",  "f16",  "bf16", "q4_0", "q4_1",  "q5_0", "q5_1",
                                      "q8_0", "q4_k", "q5_k", "q6_k", "gptq4", "awq4", "int8"};
  return encoding >= 0 && encoding < 14 ? names[encoding] : "unknown encoding";
}

const char* name_of(kind k) {
  static const char* const names[] = {"device", "stream", "buffer", "weight", "kv cache", "batch", "graph", "event"};
  return names[static_cast<uint32_t>(k) - static_cast<uint32_t>(kind::device)];
}

void count_handle(kind k, int64_t change) noexcept {
  live[static_cast<uint32_t>(k) - static_cast<uint32_t>(kind::device)].fetch_add(change, std::memory_order_relaxed);
}

}  // namespace sl

uint32_t sl_version(void) { return (SL_VERSION_MAJOR << 16) | SL_VERSION_MINOR; }

const char* sl_last_error(void) { return sl::last_error.c_str(); }

const char* sl_status_name(sl_status status) {
  static const char* const names[] = {"SL_OK",         "SL_ERR_ARGUMENT",      "SL_ERR_SHAPE",     "SL_ERR_DTYPE",
                                      "SL_ERR_UNSUPPORTED", "SL_ERR_NO_DEVICE", "SL_ERR_OUT_OF_MEMORY",
                                      "SL_ERR_WORKSPACE",   "SL_ERR_STATE",     "SL_ERR_DEVICE_LOST", "SL_ERR_INTERNAL"};
  return status >= 0 && status <= SL_ERR_INTERNAL ? names[status] : "SL_ERR_?";
}

const char* sl_abi_layout(void) {
#define SL_STRUCT(name) "\n" #name, sizeof(name)
#define SL_FIELD(name, field) " " #field ":", offsetof(name, field)
  static const struct { const char* text; size_t number; } parts[] = {
#include "layout.g.inc"
  };
#undef SL_STRUCT
#undef SL_FIELD
  static const std::string layout = [] {
    std::string all;
    for (const auto& part : parts) {
      all += part.text;
      if (part.text[0] == '\n') all += ' ';
      all += std::to_string(part.number);
    }
    return all.substr(1);
  }();
  return layout.c_str();
}

sl_status sl_live_handles(sl_handle_counts* counts) {
  return sl::guard("sl_live_handles", [&] {
    sl::checked_pointer(counts, "counts");
    int64_t* out = &counts->devices;
    for (int i = 0; i < 8; i++) out[i] = sl::live[i].load(std::memory_order_relaxed);
  });
}
