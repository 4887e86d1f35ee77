// The reference device: numbers of every dtype, its op table, its weights.
#include <cstring>

#include "blocks.h"
#include "reference.h"

namespace sl::reference {
namespace {

class reference_device final : public device {
 public:
  explicit reference_device(bool rounded) : rounded(rounded) {}

  const op_table& ops() const override;
  std::unique_ptr<stream> create_stream(void*) override { return std::make_unique<reference_stream>(); }
  std::unique_ptr<event> create_event() override { return std::make_unique<host_event>(); }

  std::unique_ptr<weight> create_weight(stream&, const sl_weight_source& source) override {
    auto w = std::make_unique<reference_weight>();
    w->rows = source.rows;
    w->cols = source.cols;
    w->encoding = source.encoding;
    const auto count = static_cast<uint64_t>(source.rows * source.cols);
    uint64_t total = 0, available = 0;
    host_memory(total, available);
    if (total != 0 && count * sizeof(float) > available)
      throw error(SL_ERR_OUT_OF_MEMORY,
                  format("out of memory: wanted %llu bytes, %llu of %llu bytes are free",
                         static_cast<unsigned long long>(count * sizeof(float)),
                         static_cast<unsigned long long>(available), static_cast<unsigned long long>(total)));
    w->values.resize(count);
    dequantise_rows(source, 0, source.rows, w->values.data());
    return w;
  }

  bool supports_kv(sl_dtype dtype) const override {
    return dtype == SL_DTYPE_F32 || dtype == SL_DTYPE_F16 || dtype == SL_DTYPE_BF16 || dtype == SL_DTYPE_I8 ||
           dtype == SL_DTYPE_FP8_E4M3;
  }

  void info(sl_device_info& info) const override {
    info.backend = SL_BACKEND_REFERENCE;
    info.threads = 1;
    info.isa = SL_ISA_PORTABLE;
    info.multiprocessors = 0;
    info.compute_capability = 0;
    host_memory(info.memory_total, info.memory_free);
    std::snprintf(info.name, sizeof info.name, "reference (%s)", rounded ? "rounded" : "exact");
  }

  void counters(sl_counters&) const override {}
  void reset_counters() override {}

  const bool rounded;
};

template <typename Real>
op_table make_table() {
  op_table t;
  t.embedding.run = embedding<Real>;
  t.gather.run = gather<Real>;
  t.rms_norm.run = rms_norm<Real>;
  t.add_rms_norm.run = add_rms_norm<Real>;
  t.rms_norm_add.run = rms_norm_add<Real>;
  t.linear.run = linear<Real>;
  t.gated_linear.run = gated_linear<Real>;
  t.fused_qkv.run = fused_qkv<Real>;
  t.rope.run = rope<Real>;
  t.kv_append.run = kv_append<Real>;
  t.paged_attention.run = paged_attention<Real>;
  t.cascade_attention.run = paged_attention<Real>;  // the same result is all that it promises
  t.merge_states.run = merge_states<Real>;
  t.gated_activation.run = gated_activation<Real>;
  t.penalties.run = penalties<Real>;
  t.argmax.run = argmax<Real>;
  t.sample.run = sample<Real>;
  t.log_probs.run = log_probs<Real>;
  t.copy_pages.run = copy_pages<Real>;
  t.save_pages.run = save_pages<Real>;
  t.load_pages.run = load_pages<Real>;
  return t;
}

const op_table& reference_device::ops() const {
  static const op_table exact = make_table<double>(), naive = make_table<float>();
  return rounded ? naive : exact;
}

}  // namespace

float load(sl_dtype dtype, const void* data, int64_t index) {
  switch (dtype) {
    case SL_DTYPE_F32: return static_cast<const float*>(data)[index];
    case SL_DTYPE_F16: return f16_to_f32(static_cast<const uint16_t*>(data)[index]);
    case SL_DTYPE_BF16: return bf16_to_f32(static_cast<const uint16_t*>(data)[index]);
    case SL_DTYPE_I8: return static_cast<const int8_t*>(data)[index];
    case SL_DTYPE_FP8_E4M3: return e4m3_to_f32(static_cast<const uint8_t*>(data)[index]);
    default: throw error(SL_ERR_DTYPE, format("reference: no number is read from %s", name_of(dtype)));
  }
}

void store(sl_dtype dtype, void* data, int64_t index, double value) {
  const auto narrow = static_cast<float>(value);
  switch (dtype) {
    case SL_DTYPE_F32: static_cast<float*>(data)[index] = narrow; break;
    case SL_DTYPE_F16: static_cast<uint16_t*>(data)[index] = f32_to_f16(narrow); break;
    case SL_DTYPE_BF16: static_cast<uint16_t*>(data)[index] = f32_to_bf16(narrow); break;
    case SL_DTYPE_I8: static_cast<int8_t*>(data)[index] = f32_to_i8(narrow); break;
    case SL_DTYPE_FP8_E4M3: static_cast<uint8_t*>(data)[index] = f32_to_e4m3(narrow); break;
    default: throw error(SL_ERR_DTYPE, format("reference: no number is stored as %s", name_of(dtype)));
  }
}

float round_to(sl_dtype dtype, double value) {
  uint32_t bits = 0;
  store(dtype, &bits, 0, value);
  return load(dtype, &bits, 0);
}

}  // namespace sl::reference

namespace sl {

const backend& reference_backend() {
  static const backend entry = {
      [] { return int32_t{1}; },
      [](const sl_device_options& options) -> std::unique_ptr<device> {
        return std::make_unique<reference::reference_device>(options.rounded != 0);
      },
  };
  return entry;
}

}  // namespace sl
