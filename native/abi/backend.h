// What the ABI layer and a backend know of each other: checked arguments, the op table, and the objects that a backend
// makes. Above this line nothing knows a backend; below it nothing sees an unchecked argument.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "sluice.h"

namespace sl {

// Thrown anywhere below the boundary; native/abi turns it into a status and the thread's last error.
class error {
 public:
  error(sl_status status, std::string text) : status_(status), text_(std::move(text)) {}
  sl_status status() const { return status_; }
  const std::string& text() const { return text_; }

 private:
  sl_status status_;
  std::string text_;
};

// Windows has a printf of its own, which knows no %zu; MinGW's knows what the others know.
#if defined(__MINGW32__)
#define SL_PRINTF(pattern, first) __attribute__((format(gnu_printf, pattern, first)))
#elif defined(__GNUC__)
#define SL_PRINTF(pattern, first) __attribute__((format(printf, pattern, first)))
#else
#define SL_PRINTF(pattern, first)
#endif
SL_PRINTF(1, 2)
std::string format(const char* pattern, ...);  // printf into a string; defined in abi, never localised

size_t size_of(sl_dtype dtype);         // bytes an element
const char* name_of(sl_dtype dtype);    // "f32"
const char* name_of(sl_encoding_values encoding);

// A tensor after every check: an address on the stream's device. data is null for an absent optional tensor.
struct view {
  void* data = nullptr;
  sl_dtype dtype = SL_DTYPE_F32;
  int32_t rank = 0;
  int64_t shape[SL_MAX_RANK] = {};
  int64_t stride[SL_MAX_RANK] = {};  // elements; the last is 1

  explicit operator bool() const { return data != nullptr; }
  template <typename T>
  T* as() const { return static_cast<T*>(data); }
};

// ---------------------------------------------------------------- objects that a backend makes

// Repacked as the backend likes. Immutable after its creation.
class weight {
 public:
  virtual ~weight() = default;
  virtual uint64_t bytes() const = 0;  // of device memory
  int64_t rows = 0, cols = 0;          // [N, K]
  sl_encoding encoding = SL_ENCODING_F32;
  int32_t group = 0;                   // of its source
};

// Pools of pages, resolved: layer l's keys lie at keys + l * key_layer_bytes, [pages, Hkv, P, D] without gaps.
struct kv_view {
  char* keys = nullptr;
  char* values = nullptr;
  float* key_scales = nullptr;    // [layers, pages, Hkv, P] for FP8_E4M3 and I8, else null
  float* value_scales = nullptr;
  uint64_t key_layer_bytes = 0, value_layer_bytes = 0, scale_layer_count = 0;
  sl_dtype dtype = SL_DTYPE_F32;
  int32_t layers = 0, pages = 0, kv_heads = 0, key_dim = 0, value_dim = 0, page_size = 0;
};

// What a page has in one pool: bytes of a layer, layer_bytes from one layer to the next in the pool and none between them in
// host memory, where the page's first layer lies at host_offset. pool is null where the cache has no such pool.
struct page_part {
  char* pool = nullptr;
  uint64_t layer_bytes = 0, bytes = 0, host_offset = 0;
};
// A page in host memory as sluice.h describes it: keys, values, key scales, value scales.
struct page_layout {
  std::array<page_part, 4> parts;
  uint64_t bytes = 0;
};
page_layout layout_of_page(const kv_view& cache);  // defined in abi

// A step's plan. The arrays lie in one allocation at fixed addresses; lengths in it change from step to step, also
// between the capture of a graph and its replays. All of it has been checked.
struct plan_header {
  int32_t num_tokens, num_sequences, num_prefixes, max_kv_length;
  int32_t max_query_length, has_mask, reserved0, reserved1;
};
struct plan_view {
  const plan_header* header;      // 1
  const int32_t* query_indptr;    // [max_sequences + 1]; past num_sequences: num_tokens
  const int32_t* kv_lengths;      // [max_sequences]; past num_sequences: 0
  const int32_t* page_indptr;     // [max_sequences + 1]
  const int32_t* page_ids;        // [max_page_ids]
  const int32_t* positions;       // [max_tokens]
  const int32_t* token_sequence;  // [max_tokens]: the sequence of each row; past num_tokens: -1
  const int32_t* token_slot;      // [max_tokens]: the KV slot of each row; past num_tokens: -1
  const uint8_t* mask;            // [max_mask_bytes]
  const int32_t* mask_indptr;     // [max_sequences + 1], always valid: empty rows where there is no mask
  // Those that are shared (sharing.h), which need not be the step's own.
  const sl_prefix* prefixes;       // [max_prefixes], sorted by first_key, then by first_sequence
  const int32_t* prefix_lengths;   // [max_sequences]: the keys of each sequence that they cover
  const int32_t* prefix_indptr;    // [max_prefixes + 1]: query rows of those before each; past num_prefixes: all
  const int32_t* prefix_parents;   // [max_prefixes]: which covers the keys before one's own, or -1
  const int32_t* sequence_prefix;  // [max_sequences]: the one that covers its last shared keys, or -1
};
struct batch_view {
  plan_view host;    // to plan by, at the call; not stable between a capture and its replays
  plan_view device;  // for kernels; the same addresses on backends whose memory is the host's
  int32_t max_tokens, max_sequences, max_page_ids, max_mask_bytes, max_prefixes, max_prefix_rows;
};

// What attention costs a device, in nanoseconds of all of it; by these a plan chooses which prefixes are shared.
struct sharing_costs {
  double byte = 0;     // of keys, values or states that are moved; 0: whatever is shared is faster
  double product = 0;  // a multiplication and addition
  double start = 0;    // of the launch for prefixes
  int32_t few_rows = 1, tile_rows = 64;  // query rows of a KV head that read a key together: of one sequence if they are few; of more
  bool levels = true;  // prefixes may follow prefixes
};

// Query rows of shared prefixes that an op of T rows may meet.
inline int64_t prefix_rows(const batch_view& b, int64_t T) { return b.max_prefix_rows < T * b.max_prefixes ? b.max_prefix_rows : T * b.max_prefixes; }

// ---------------------------------------------------------------- checked arguments, a struct an op

constexpr int64_t square_columns = 16;  // of y whose squares are one sum
inline int64_t square_sums(int64_t columns) { return (columns + square_columns - 1) / square_columns; }

struct embedding_args { view ids; const weight* table; float scale; view y; };
struct gather_args { view x, rows, y; };
struct rms_norm_args { view x, w; float eps; view y; };
struct add_rms_norm_args { view x, residual, w; float eps; view y; };
struct rms_norm_add_args { view x, w, residual; float eps; view y; };
struct linear_args {
  view x;
  const weight* w;
  view bias, residual, y;
  float scale = 1, soft_cap = 0;  // scale is never 0
  sl_route route = SL_ROUTE_ANY;
  view squares = {};              // of y, by 16 columns
};
struct gated_linear_args {
  view x, norm_weight;
  const weight *gate, *up;
  view bias_gate, bias_up, y;
  float norm_eps;
  sl_activation activation;
  view squares = {};  // of x, by 16 columns: the norm may read them instead of x
};
struct fused_qkv_args {
  view x, norm_weight;
  const weight *wq, *wk, *wv;
  view bias_q, bias_k, bias_v, norm_q, norm_k, inv_freq;
  bool whole_row_norm;  // norm_q [H*D] and norm_k [Hkv*D], not [D]
  kv_view cache;
  const batch_view* batch;
  view q;
  int32_t layer;
  float norm_eps, qk_norm_eps, rope_scale;  // rope_scale is never 0
  sl_rope_kind rope_kind;
  view squares = {};  // of x, as in gated_linear
};
struct rope_args { view x, positions, inv_freq, y; float scale; sl_rope_kind kind; };
struct kv_append_args { kv_view cache; int32_t layer; const batch_view* batch; view k, v; };
struct attention_args {
  kv_view cache;
  const batch_view* batch;
  view q, o, lse2, sinks, alibi_slopes;
  int32_t layer, window, causal;
  float scale, soft_cap;  // scale is never 0
};
struct merge_states_args { view o, lse2, y, y_lse2; };
struct gated_activation_args { view gate, up, y; sl_activation activation; };
struct penalties_args {
  view logits, history, history_indptr, repetition, presence, frequency, bias_ids, bias_values, bias_indptr;
};
struct argmax_args { view logits, ids; };
struct sample_args { view logits, temperature, top_k, top_p, min_p, seed, position, ids; };
struct log_probs_args { view logits, ids, log_probs, top_ids, top_log_probs; };
struct copy_pages_args { kv_view cache; std::vector<std::pair<int32_t, int32_t>> pairs; };  // (source, target)
struct host_pages_args { kv_view cache; std::vector<int32_t> pages; char* host; };  // pages[i] at host + i * layout_of_page().bytes

class stream;
class device;

// run puts the op on the stream; workspace says how many bytes of the stream's workspace it will want, from shapes and
// capacities only. A null run means that the backend does not have the op.
template <typename Args>
struct op {
  void (*run)(stream&, const Args&) = nullptr;
  uint64_t (*workspace)(const device&, const Args&) = nullptr;
};

struct op_table {
  op<embedding_args> embedding;
  op<gather_args> gather;
  op<rms_norm_args> rms_norm;
  op<add_rms_norm_args> add_rms_norm;
  op<rms_norm_add_args> rms_norm_add;
  op<linear_args> linear;
  op<gated_linear_args> gated_linear;
  op<fused_qkv_args> fused_qkv;
  op<rope_args> rope;
  op<kv_append_args> kv_append;
  op<attention_args> paged_attention;
  op<attention_args> cascade_attention;
  op<merge_states_args> merge_states;
  op<gated_activation_args> gated_activation;
  op<penalties_args> penalties;
  op<argmax_args> argmax;
  op<sample_args> sample;
  op<log_probs_args> log_probs;
  op<copy_pages_args> copy_pages;
  op<host_pages_args> save_pages, load_pages;
};

// ---------------------------------------------------------------- what a backend implements

class graph {
 public:
  virtual ~graph() = default;
};

class event {
 public:
  virtual ~event() = default;
  virtual void synchronize() = 0;
  virtual double milliseconds_since(event& start) = 0;  // both recorded
};

class stream {
 public:
  virtual ~stream() = default;

  virtual void* allocate(uint64_t bytes, sl_memory memory) = 0;  // aligned to 256; throws SL_ERR_OUT_OF_MEMORY
  virtual void release(void* data, uint64_t bytes, sl_memory memory) noexcept = 0;  // ordered after what was put on the stream
  virtual void upload(void* target, const void* source, uint64_t bytes) = 0;  // source is read before it returns
  virtual void download(void* target, const void* source, uint64_t bytes) = 0;  // target is filled at the next synchronize
  virtual void copy(void* target, const void* source, uint64_t bytes) = 0;
  virtual void fill(void* target, int byte, uint64_t bytes) = 0;
  virtual void synchronize() = 0;

  virtual void begin_capture() = 0;
  virtual std::unique_ptr<graph> end_capture() = 0;
  virtual void launch(graph& g) = 0;
  virtual void record(event& e) = 0;
  virtual void wait(event& e) = 0;

  // Backends that run at the call keep closures while capturing; the others capture what they are given.
  virtual bool capture(std::function<void()>) { return false; }
  virtual bool keeps_closures() const { return false; }

  // Throws SL_ERR_ARGUMENT unless the imported pointer is memory of this stream's device.
  virtual void check_pointer(const void* pointer) = 0;

  // Set by abi: the reserved workspace, aligned to 256. Its contents are anything ("dirty") at each op.
  char* workspace = nullptr;
  uint64_t workspace_bytes = 0;

  device* owner = nullptr;
};

class device {
 public:
  virtual ~device() = default;
  virtual const op_table& ops() const = 0;
  virtual std::unique_ptr<stream> create_stream(void* native_stream) = 0;
  virtual std::unique_ptr<event> create_event() = 0;
  // Sizes and contents have been checked. Device memory of a weight is not ordered on the stream's later work: when the
  // call returns the weight may be used on any stream, and its destructor may run on any thread.
  virtual std::unique_ptr<weight> create_weight(stream& s, const sl_weight_source& source) = 0;
  // layout, data and order of a weight of this device, the sizes included.
  virtual void get_packed(const weight&, sl_packed_weight&) const {
    throw error(SL_ERR_UNSUPPORTED, "this backend does not give its weights' bytes; cpu does");
  }
  // Encoding, shape and group have been checked; layout, data and order have not. data stays the caller's.
  virtual std::unique_ptr<weight> create_packed(const sl_packed_weight&) {
    throw error(SL_ERR_UNSUPPORTED, "this backend makes no weights of packed bytes; cpu does");
  }
  virtual bool supports_kv(sl_dtype dtype) const = 0;
  virtual sharing_costs costs_of_sharing(sl_dtype) const { return {}; }  // by the cache's type
  virtual void info(sl_device_info& info) const = 0;  // fills all but size
  virtual void counters(sl_counters& counters) const = 0;
  virtual std::vector<sl_kernel_counters> kernel_counters() const { return {}; }  // sizes unset
  virtual void reset_counters() = 0;
  // Null on backends that have none. Changed before the first stream is made, and not after.
  virtual sl_switch_points* switch_points() { return nullptr; }
};

// A backend is what its one entry function returns.
struct backend {
  int32_t (*count)();  // devices; throws SL_ERR_NO_DEVICE with what was tried, instead of 0, where a reason is known
  std::unique_ptr<device> (*open)(const sl_device_options& options);
};

const backend& reference_backend();
const backend& cpu_backend();
const backend& cuda_backend();
const backend& simt_backend();

}  // namespace sl
