#include "support.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>

namespace kernel_tests {
namespace {

int good = 0, bad = 0;
std::vector<std::unique_ptr<machine>> machines;  // exact, rounded, then simt under its seeds

size_t size_of(sl_dtype t) {
  return t == SL_DTYPE_I64 ? 8 : t == SL_DTYPE_F16 || t == SL_DTYPE_BF16 ? 2 : t == SL_DTYPE_U8 || t == SL_DTYPE_I8 ? 1 : 4;
}

void put(char* to, sl_dtype t, float v) {
  if (t == SL_DTYPE_F32) std::memcpy(to, &v, 4);
  if (t == SL_DTYPE_I32) {
    const auto i = int32_t(v);
    std::memcpy(to, &i, 4);
  }
  if (t == SL_DTYPE_F16) {
    const auto h = _Float16(v);
    std::memcpy(to, &h, 2);
  }
  if (t == SL_DTYPE_BF16) {
    uint32_t u;
    std::memcpy(&u, &v, 4);
    const uint16_t h = std::isnan(v) ? uint16_t(0x7fc0) : uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
    std::memcpy(to, &h, 2);
  }
}

float take(const char* from, sl_dtype t) {
  if (t == SL_DTYPE_I32) {
    int32_t i;
    std::memcpy(&i, from, 4);
    return float(i);
  }
  if (t == SL_DTYPE_F16) {
    _Float16 h;
    std::memcpy(&h, from, 2);
    return float(h);
  }
  uint32_t u = 0;
  if (t == SL_DTYPE_BF16) std::memcpy(reinterpret_cast<char*>(&u) + 2, from, 2);
  else std::memcpy(&u, from, 4);
  float v;
  std::memcpy(&v, &u, 4);
  return v;
}

double unit(sl_dtype t, double magnitude) {
  const int digits = t == SL_DTYPE_F32 ? 23 : t == SL_DTYPE_F16 ? 10 : 7;
  return std::exp2(std::floor(std::log2(std::max(magnitude, 1e-30))) - digits);
}

void report(const std::string& name, const std::string& what) {
  (what.empty() ? good : bad)++;
  if (!what.empty()) std::printf("FAIL %s: %s\n", name.c_str(), what.c_str());
}

std::string far_off(sl_dtype t, const std::vector<float>& exact, const std::vector<float>& rounded, const std::vector<float>& found) {
  double allowed = 0, error = 0, magnitude = 0;
  size_t where = 0;
  if (exact.size() != found.size()) return "sizes differ";
  for (size_t i = 0; i < exact.size(); i++) {
    if (!std::isfinite(exact[i])) {
      if (std::isnan(exact[i]) ? !std::isnan(found[i]) : exact[i] != found[i]) error = INFINITY, where = i;
      continue;
    }
    magnitude = std::max(magnitude, double(std::fabs(exact[i])));
    allowed = std::max(allowed, std::fabs(double(rounded[i]) - double(exact[i])));
    const double e = std::fabs(double(found[i]) - double(exact[i]));
    if (!(e <= error)) error = std::isnan(e) ? INFINITY : e, where = i;
  }
  allowed = 2 * allowed + unit(t, magnitude);
  if (error <= allowed) return "";
  char text[200];
  std::snprintf(text, sizeof text, "error %g, allowed %g, at %zu of %zu: exact %g, found %g", error, allowed, where, exact.size(),
                double(exact[where]), double(found[where]));
  return text;
}

void on_simt(const std::string& name, const std::function<std::string(machine&)>& run) {
  for (size_t i = 2; i < machines.size(); i++) {
    std::string what;
    try {
      what = run(*machines[i]);
    } catch (const failed& f) {
      what = f.what;
    }
    report(name + " on simt " + std::to_string(i - 2), what);
  }
}

}  // namespace

void must(sl_status status, const char* call) {
  if (status != SL_OK) throw failed{std::string(call) + ": " + sl_status_name(status) + ": " + sl_last_error()};
}

const char* name_of(sl_dtype t) { return t == SL_DTYPE_F32 ? "f32" : t == SL_DTYPE_F16 ? "f16" : "bf16"; }

machine::machine(sl_backend backend, int rounded, uint64_t seed) : reference(backend == SL_BACKEND_REFERENCE) {
  sl_device_options o{};
  o.size = sizeof o, o.backend = backend, o.rounded = rounded, o.seed = seed;
  MUST(sl_device_open(&o, &device));
  MUST(sl_stream_create(device, nullptr, &stream));
  MUST(sl_stream_reserve(stream, 32 << 20));
}
machine::~machine() {
  sl_stream_release(stream);
  sl_device_release(device);
}

array::array(machine& m, sl_dtype dtype, std::vector<int64_t> shape, const std::vector<float>& values, int64_t gap) : m_(&m) {
  t.dtype = dtype, t.rank = int32_t(shape.size());
  elements_ = 1;
  for (int i = t.rank - 1; i >= 0; i--) {
    t.shape[i] = shape[size_t(i)];
    t.stride[i] = elements_;
    elements_ *= t.shape[i];
    if (i == t.rank - 1 && t.rank > 1) elements_ += gap;
  }
  std::vector<char> raw(size_t(std::max<int64_t>(elements_, 1)) * size_of(dtype), char(0xff));
  const int64_t width = t.shape[t.rank - 1];
  for (size_t i = 0; i < values.size(); i++) {
    const int64_t at = t.rank > 1 ? int64_t(i) / width * t.stride[t.rank - 2] + int64_t(i) % width : int64_t(i);
    put(raw.data() + size_t(at) * size_of(dtype), dtype, values[i]);
  }
  MUST(sl_buffer_create(m.stream, raw.size(), SL_MEMORY_DEVICE, &t.buffer));
  MUST(sl_buffer_upload(m.stream, t.buffer, 0, raw.data(), raw.size()));
}

array& array::operator=(array&& o) noexcept {
  std::swap(t, o.t), std::swap(m_, o.m_), std::swap(elements_, o.elements_);
  return *this;
}

std::vector<char> array::bytes() const {
  std::vector<char> raw(size_t(elements_) * size_of(t.dtype));
  if (raw.empty()) return raw;
  MUST(sl_buffer_download(m_->stream, t.buffer, 0, raw.data(), raw.size()));
  MUST(sl_stream_synchronize(m_->stream));
  return raw;
}

std::vector<float> array::floats() const {
  const std::vector<char> raw = bytes();
  std::vector<float> out;
  const int64_t width = t.shape[t.rank - 1];
  for (int64_t i = 0; i < elements_; i++)
    if (t.rank == 1 || i % t.stride[t.rank - 2] < width) out.push_back(take(raw.data() + size_t(i) * size_of(t.dtype), t.dtype));
  return out;
}

std::vector<int32_t> array::ints() const {
  std::vector<int32_t> out(static_cast<size_t>(elements_));
  const std::vector<char> raw = bytes();
  std::memcpy(out.data(), raw.data(), raw.size());
  return out;
}

array ints(machine& m, const std::vector<int32_t>& values) {
  array a(m, SL_DTYPE_I32, {int64_t(values.size())});
  if (!values.empty()) MUST(sl_buffer_upload(m.stream, a.t.buffer, 0, values.data(), values.size() * 4));
  return a;
}
array longs(machine& m, const std::vector<int64_t>& values) {
  array a(m, SL_DTYPE_I64, {int64_t(values.size())});
  if (!values.empty()) MUST(sl_buffer_upload(m.stream, a.t.buffer, 0, values.data(), values.size() * 8));
  return a;
}

std::vector<float> noise(uint64_t seed, int64_t n, float scale) {
  random_source r(seed);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = r.uniform() * scale;
  return v;
}

void compare(const std::string& name, sl_dtype dtype, const std::function<outcome(machine&)>& run) {
  const outcome exact = run(*machines[0]), rounded = run(*machines[1]);
  on_simt(name, [&](machine& m) {
    const outcome found = run(m);
    for (size_t i = 0; i < exact.size(); i++)
      if (const std::string what = far_off(dtype, exact[i], rounded[i], found[i]); !what.empty())
        return "#" + std::to_string(i) + " " + what;
    return std::string();
  });
}

void equal(const std::string& name, const std::function<outcome(machine&)>& run) {
  const outcome exact = run(*machines[0]);
  on_simt(name, [&](machine& m) {
    const outcome found = run(m);
    for (size_t i = 0; i < exact.size(); i++)
      for (size_t j = 0; j < exact[i].size(); j++)
        if (std::memcmp(&exact[i][j], &found[i][j], 4) != 0 && !(std::isnan(exact[i][j]) && std::isnan(found[i][j])))
          return "#" + std::to_string(i) + " at " + std::to_string(j) + ": " + std::to_string(exact[i][j]) + ", found " +
                 std::to_string(found[i][j]);
    return std::string();
  });
}

void check(const std::string& name, const std::function<void(machine&)>& run) {
  on_simt(name, [&](machine& m) {
    run(m);
    return std::string();
  });
}

}  // namespace kernel_tests

int main() {
  using namespace kernel_tests;
  try {
    machines.push_back(std::make_unique<machine>(SL_BACKEND_REFERENCE, 0, 0));
    machines.push_back(std::make_unique<machine>(SL_BACKEND_REFERENCE, 1, 0));
    // The executor is one for the process: the seeds are set one after another, a round each.
    for (const uint64_t seed : {uint64_t(1), uint64_t(42)}) {
      machines.resize(2);
      machines.push_back(std::make_unique<machine>(SL_BACKEND_SIMT, 0, seed));
      rows_tests(), weights_tests(), attention_tests(), sampling_tests(), step_tests();
    }
    machines.clear();
    sl_handle_counts live;
    MUST(sl_live_handles(&live));
    report("Every handle is gone at the end", live.devices + live.buffers + live.streams + live.weights ? "handles are left" : "");
  } catch (const failed& f) {
    report("setting up", f.what);
  }
  std::printf("%d passed, %d failed, 0 skipped\n", good, bad);
  return bad != 0;
}
