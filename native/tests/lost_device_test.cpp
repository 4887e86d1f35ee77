// A kernel that fails loses its device: every later call on it says so, releases stay safe, and a device opened anew
// after the last handle has gone computes again. On simt, where a wrong access is certain to be noticed.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "sluice.h"

namespace {

int passed = 0, failures = 0;

void expect(bool ok, const char* what) {
  (ok ? passed : failures)++;
  if (!ok) std::printf("FAILED: %s (last error: %s)\n", what, sl_last_error());
}

struct machine {
  sl_device* device = nullptr;
  sl_stream* stream = nullptr;
  machine() {
    sl_device_options o{};
    o.size = sizeof o, o.backend = SL_BACKEND_SIMT;
    expect(sl_device_open(&o, &device) == SL_OK, "a device opens");
    expect(sl_stream_create(device, nullptr, &stream) == SL_OK, "a stream is made");
  }
};

sl_tensor matrix(sl_buffer* buffer, int64_t rows, int64_t cols) {
  sl_tensor t{};
  t.buffer = buffer, t.dtype = SL_DTYPE_F32, t.rank = 2;
  t.shape[0] = rows, t.shape[1] = cols, t.stride[0] = cols, t.stride[1] = 1;
  return t;
}

sl_buffer* buffer_of(sl_stream* s, const std::vector<float>& values) {
  sl_buffer* b = nullptr;
  expect(sl_buffer_create(s, values.size() * 4, SL_MEMORY_DEVICE, &b) == SL_OK, "a buffer is made");
  expect(sl_buffer_upload(s, b, 0, values.data(), values.size() * 4) == SL_OK, "a buffer is filled");
  return b;
}

// Two rows of ones, normalised: ones.
sl_status normalise(sl_stream* s, std::vector<float>& result) {
  sl_buffer* x = buffer_of(s, std::vector<float>(128, 1.0f));
  sl_buffer* w = buffer_of(s, std::vector<float>(64, 1.0f));
  const sl_tensor xt = matrix(x, 2, 64);
  sl_tensor wt = matrix(w, 1, 64);
  wt.rank = 1, wt.shape[0] = 64, wt.stride[0] = 1;
  sl_status status = sl_rms_norm(s, &xt, &wt, 0.0f, &xt);
  result.assign(128, 0.0f);
  if (status == SL_OK) status = sl_buffer_download(s, x, 0, result.data(), 512);
  if (status == SL_OK) status = sl_stream_synchronize(s);
  sl_buffer_release(x), sl_buffer_release(w);
  return status;
}

}  // namespace

int main() {
  if (sl_device_count(SL_BACKEND_SIMT) == 0) {
    std::printf("the simt backend is not in this build\n0 passed, 0 failed, 1 skipped\n");
    return 0;
  }
  std::vector<float> result;
  {
    machine m, other;  // both play the one GPU of this process
    expect(normalise(m.stream, result) == SL_OK && result[127] == 1.0f, "the device computes");

    // The cache's pool as imported memory, said to have a row more than it has.
    sl_kv_cache_options co{};
    co.size = sizeof co, co.dtype = SL_DTYPE_F32, co.layers = 1, co.pages = 1, co.kv_heads = 1, co.key_dim = 64, co.value_dim = 64;
    sl_kv_cache* cache = nullptr;
    expect(sl_kv_cache_create(m.stream, &co, &cache) == SL_OK, "a cache is made");
    sl_tensor keys{};
    expect(sl_kv_cache_get_layer(cache, 0, &keys, nullptr) == SL_OK, "its pool is lent");
    sl_tensor wrong = matrix(nullptr, 17, 64);
    wrong.pointer = keys.pointer;
    const int32_t row = 16;  // of 0..15
    sl_buffer* rows = nullptr;
    expect(sl_buffer_create(m.stream, 4, SL_MEMORY_DEVICE, &rows) == SL_OK, "ids are made");
    expect(sl_buffer_upload(m.stream, rows, 0, &row, 4) == SL_OK, "ids are filled");
    sl_tensor ids{};
    ids.buffer = rows, ids.dtype = SL_DTYPE_I32, ids.rank = 1, ids.shape[0] = 1, ids.stride[0] = 1;
    sl_buffer* y = buffer_of(m.stream, std::vector<float>(64));
    const sl_tensor yt = matrix(y, 1, 64);
    sl_event* event = nullptr;
    expect(sl_event_create(m.device, &event) == SL_OK, "an event is made");
    expect(sl_gather(m.stream, &wrong, &ids, &yt) == SL_OK, "the wrong kernel is put on the stream");

    expect(sl_stream_synchronize(m.stream) == SL_ERR_DEVICE_LOST, "the stream's end tells that the device is lost");
    expect(std::strstr(sl_last_error(), "gather_kernel") != nullptr, "the text names the kernel");
    expect(sl_stream_synchronize(m.stream) == SL_ERR_DEVICE_LOST, "it stays lost");
    expect(sl_event_record(m.stream, event) == SL_ERR_DEVICE_LOST, "events are refused");
    sl_buffer* more = nullptr;
    expect(sl_buffer_create(m.stream, 64, SL_MEMORY_DEVICE, &more) == SL_ERR_DEVICE_LOST && more == nullptr, "memory is refused");
    sl_stream* second = nullptr;
    expect(sl_stream_create(m.device, nullptr, &second) == SL_ERR_DEVICE_LOST && second == nullptr, "streams are refused");
    expect(sl_stream_synchronize(other.stream) == SL_ERR_DEVICE_LOST, "a device of the same GPU is lost with it");

    sl_event_release(event), sl_buffer_release(y), sl_buffer_release(rows), sl_kv_cache_release(cache);
    sl_stream_release(m.stream), sl_device_release(m.device);
    sl_stream_release(other.stream), sl_device_release(other.device);
  }
  sl_handle_counts live{};
  expect(sl_live_handles(&live) == SL_OK && live.devices + live.streams + live.buffers + live.kv_caches + live.events == 0, "nothing is left of it");
  machine anew;
  expect(normalise(anew.stream, result) == SL_OK && result[0] == 1.0f, "a device opened anew computes");
  sl_stream_release(anew.stream), sl_device_release(anew.device);
  std::printf("%d passed, %d failed, 0 skipped\n", passed, failures);
  return failures != 0;
}
