/* sluice_replay: runs op cases that the test suite wrote, without the .NET runtime, so that sanitizers and profilers see
   nothing but the library.

   sluice_replay --backend reference|cpu|cuda|simt [--threads N] [--seed S] [--repeat N] [--streams N] [--check yes] CASE...

   With --streams N the cases run on N threads at once, each with a stream of its own on one shared device. With --check yes
   results are held against the reference backend's, as the suite does: at most twice the error of its rounded loops, and a unit.
   Exit code 1 when a case failed; ops that a backend does not have are skipped and counted. Last line: N passed, N failed,
   N skipped. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sluice.h"

enum { MAX_NAMED = 32 };

typedef struct { int64_t bytes; void* data; } block;
typedef struct { char name[32]; sl_tensor tensor; block data; int is_output; } named_tensor;
typedef struct { char name[32]; sl_weight_source source; block parts[4]; sl_weight* weight; } named_weight;
typedef struct { char name[32]; double value; } named_scalar;

typedef struct {
  block title, op;
  int32_t padding, tensor_count, weight_count, scalar_count, has_cache;
  named_tensor tensors[MAX_NAMED];
  named_weight weights[MAX_NAMED];
  named_scalar scalars[MAX_NAMED];
  int32_t cache[7];                                   /* dtype, layers, pages, kv heads, D, Dv, P */
  block query, lengths, page_indptr, pages, positions, mask, mask_indptr, prefixes, history;
  named_tensor history_k, history_v;
} op_case;

typedef struct { sl_stream* stream; op_case* c; sl_kv_cache* cache; sl_batch *batch, *past; sl_tensor past_k, past_v; sl_buffer* host; } run;

static void die(const char* text) {
  fprintf(stderr, "sluice_replay: %s\n", text);
  exit(2);
}

/* ---- reading a case: little-endian, as OpCase.Write lays it out; every length is checked against what is left */

typedef struct { const char* at; const char* end; } reader;

static const void* take(reader* r, int64_t bytes) {
  if (bytes < 0 || bytes > r->end - r->at) die("the case file is cut short");
  const void* p = r->at;
  r->at += bytes;
  return p;
}
static int32_t i32(reader* r) { int32_t v; memcpy(&v, take(r, 4), 4); return v; }
static int64_t i64(reader* r) { int64_t v; memcpy(&v, take(r, 8), 8); return v; }
static double f64(reader* r) { double v; memcpy(&v, take(r, 8), 8); return v; }
static block bytes(reader* r) {
  block b;
  b.bytes = i64(r);
  const void* from = take(r, b.bytes);
  b.data = malloc((size_t)b.bytes + 1); /* its own allocation, so that AddressSanitizer sees its end */
  if (b.data == NULL) die("out of memory");
  memcpy(b.data, from, (size_t)b.bytes);
  ((char*)b.data)[b.bytes] = 0;
  return b;
}
static void name(reader* r, char out[32]) {
  block b = bytes(r);
  snprintf(out, 32, "%s", (char*)b.data);
  free(b.data);
}
static void shape(reader* r, sl_tensor* t) {
  t->dtype = i32(r);
  t->rank = i32(r);
  if (t->rank < 1 || t->rank > SL_MAX_RANK) die("a tensor's rank is not 1..4");
  for (int i = 0; i < t->rank; i++) t->shape[i] = i64(r);
  int64_t stride = 1;
  for (int i = t->rank - 1; i >= 0; i--) { t->stride[i] = stride; stride *= t->shape[i]; }
}
static int count(reader* r) {
  int32_t n = i32(r);
  if (n < 0 || n > MAX_NAMED) die("too many parts in a case");
  return n;
}

static op_case* read_case(const char* path) {
  FILE* f = fopen(path, "rb");
  if (f == NULL) die("cannot open a case file");
  fseek(f, 0, SEEK_END);
  long size = ftell(f);
  fseek(f, 0, SEEK_SET);
  char* all = malloc((size_t)size);
  if (all == NULL || fread(all, 1, (size_t)size, f) != (size_t)size) die("cannot read a case file");
  fclose(f);
  reader r = {all, all + size};
  op_case* c = calloc(1, sizeof *c);
  if (c == NULL || memcmp(take(&r, 8), "SLCASE2", 8) != 0) die("not a case file of this version");
  c->title = bytes(&r);
  c->op = bytes(&r);
  c->padding = i32(&r);
  int inputs = count(&r);
  for (int i = 0; i < inputs; i++) {
    named_tensor* t = &c->tensors[c->tensor_count++];
    name(&r, t->name);
    shape(&r, &t->tensor);
    t->data = bytes(&r);
  }
  int outputs = count(&r);
  for (int i = 0; i < outputs; i++) {
    char text[32];
    name(&r, text);
    named_tensor* t = NULL;
    for (int j = 0; j < c->tensor_count; j++)
      if (strcmp(c->tensors[j].name, text) == 0) t = &c->tensors[j];
    if (t == NULL) {
      if (c->tensor_count == MAX_NAMED) die("too many tensors in a case");
      t = &c->tensors[c->tensor_count++];
    }
    memcpy(t->name, text, sizeof text);
    shape(&r, &t->tensor);
    t->is_output = 1;
  }
  c->weight_count = count(&r);
  for (int i = 0; i < c->weight_count; i++) {
    named_weight* w = &c->weights[i];
    name(&r, w->name);
    w->source.size = sizeof w->source;
    w->source.encoding = i32(&r);
    w->source.rows = i64(&r);
    w->source.cols = i64(&r);
    w->source.group = i32(&r);
    for (int p = 0; p < 4; p++) w->parts[p] = bytes(&r);
    w->source.data = w->parts[0].data;
    w->source.data_bytes = (uint64_t)w->parts[0].bytes;
    w->source.scales = w->parts[1].bytes ? w->parts[1].data : NULL;
    w->source.scales_bytes = (uint64_t)w->parts[1].bytes;
    w->source.zeros = w->parts[2].bytes ? w->parts[2].data : NULL;
    w->source.zeros_bytes = (uint64_t)w->parts[2].bytes;
    w->source.order = w->parts[3].bytes ? w->parts[3].data : NULL;
    w->source.order_bytes = (uint64_t)w->parts[3].bytes;
  }
  c->scalar_count = count(&r);
  for (int i = 0; i < c->scalar_count; i++) { name(&r, c->scalars[i].name); c->scalars[i].value = f64(&r); }
  c->has_cache = i32(&r);
  if (c->has_cache) {
    for (int i = 0; i < 7; i++) c->cache[i] = i32(&r);
    block* arrays[] = {&c->query, &c->lengths, &c->page_indptr, &c->pages, &c->positions, &c->mask, &c->mask_indptr, &c->prefixes, &c->history};
    for (int i = 0; i < 9; i++) *arrays[i] = bytes(&r);
    shape(&r, &c->history_k.tensor);
    c->history_k.data = bytes(&r);
    shape(&r, &c->history_v.tensor);
    c->history_v.data = bytes(&r);
  }
  free(all);
  return c;
}

static void free_case(op_case* c) {
  free(c->title.data);
  free(c->op.data);
  for (int i = 0; i < c->tensor_count; i++) free(c->tensors[i].data.data);
  for (int i = 0; i < c->weight_count; i++)
    for (int p = 0; p < 4; p++) free(c->weights[i].parts[p].data);
  block* arrays[] = {&c->query, &c->lengths, &c->page_indptr, &c->pages, &c->positions, &c->mask, &c->mask_indptr, &c->prefixes, &c->history, &c->history_k.data, &c->history_v.data};
  for (int i = 0; i < 11; i++) free(arrays[i]->data);
  free(c);
}

/* ---- running it */

static const sl_tensor* tensor(run* r, const char* text) {
  for (int i = 0; i < r->c->tensor_count; i++)
    if (strcmp(r->c->tensors[i].name, text) == 0) return &r->c->tensors[i].tensor;
  return NULL;
}
static sl_weight* weight(run* r, const char* text) {
  for (int i = 0; i < r->c->weight_count; i++)
    if (strcmp(r->c->weights[i].name, text) == 0) return r->c->weights[i].weight;
  return NULL;
}
static double scalar(run* r, const char* text) {
  for (int i = 0; i < r->c->scalar_count; i++)
    if (strcmp(r->c->scalars[i].name, text) == 0) return r->c->scalars[i].value;
  return 0;
}

#define TRY(call) do { sl_status status_ = (call); if (status_ != SL_OK) return status_; } while (0)

static int64_t elements(const sl_tensor* t) {
  int64_t n = 1;
  for (int i = 0; i < t->rank; i++) n *= t->shape[i];
  return n;
}
static int64_t size_of(sl_dtype d) { static const int64_t sizes[] = {4, 2, 2, 4, 8, 1, 1, 1}; return sizes[d]; }

static sl_status place(run* r, sl_tensor* t, const block* data) {
  uint64_t size = (uint64_t)(elements(t) * size_of(t->dtype));
  TRY(sl_buffer_create(r->stream, size ? size : 1, SL_MEMORY_DEVICE, &t->buffer));
  if (data->data != NULL) return sl_buffer_upload(r->stream, t->buffer, 0, data->data, (uint64_t)data->bytes);
  return sl_buffer_fill(r->stream, t->buffer, 0, 255, size ? size : 1);
}

/* The rows of the pool that the step wrote; the driver reads them as the tests do. */
/* An input's values on the host: of an op that takes them there. */
static const block* values(run* r, const char* text) {
  for (int i = 0; i < r->c->tensor_count; i++)
    if (strcmp(r->c->tensors[i].name, text) == 0) return &r->c->tensors[i].data;
  die("a case lacks an input");
  return NULL;
}

static sl_status read_cache(run* r) {
  sl_tensor pools[2];
  TRY(sl_kv_cache_get_layer(r->cache, 0, &pools[0], &pools[1]));
  for (int i = 0; i < 2; i++) {
    const sl_tensor* out = tensor(r, i == 0 ? "cache_k" : "cache_v");
    sl_tensor rows = pools[i];
    rows.rank = 2;
    rows.shape[0] = pools[i].shape[0] * pools[i].shape[1] * pools[i].shape[2];
    rows.shape[1] = rows.stride[0] = pools[i].shape[3];
    rows.stride[1] = 1;
    if (out != NULL) TRY(sl_gather(r->stream, &rows, tensor(r, "cache_rows"), out));
  }
  return SL_OK;
}

static sl_status execute(run* r) {
  const char* op = r->c->op.data;
  sl_stream* s = r->stream;
  if (strcmp(op, "embedding") == 0) return sl_embedding(s, tensor(r, "ids"), weight(r, "table"), (float)scalar(r, "scale"), tensor(r, "y"));
  if (strcmp(op, "gather") == 0) return sl_gather(s, tensor(r, "x"), tensor(r, "rows"), tensor(r, "y"));
  if (strcmp(op, "rms_norm") == 0) return sl_rms_norm(s, tensor(r, "x"), tensor(r, "w"), (float)scalar(r, "eps"), tensor(r, "y"));
  if (strcmp(op, "add_rms_norm") == 0)
    return sl_add_rms_norm(s, tensor(r, "x"), tensor(r, "residual"), tensor(r, "w"), (float)scalar(r, "eps"), tensor(r, "y"));
  if (strcmp(op, "rms_norm_add") == 0)
    return sl_rms_norm_add(s, tensor(r, "x"), tensor(r, "w"), (float)scalar(r, "eps"), tensor(r, "residual"), tensor(r, "y"));
  if (strcmp(op, "linear") == 0) {
    sl_linear_args a = {.size = sizeof a, .scale = (float)scalar(r, "scale"), .soft_cap = (float)scalar(r, "soft_cap"), .x = tensor(r, "x"), .weight = weight(r, "w"), .bias = tensor(r, "bias"), .residual = tensor(r, "residual"), .y = tensor(r, "y"), .squares = tensor(r, "squares"), .route = (sl_route)scalar(r, "route")};
    return sl_linear(s, &a);
  }
  if (strcmp(op, "rope") == 0) {
    sl_rope_args a = {.size = sizeof a, .kind = (sl_rope_kind)scalar(r, "kind"), .x = tensor(r, "x"), .positions = tensor(r, "positions"), .inv_freq = tensor(r, "inv_freq"), .y = tensor(r, "y"), .scale = (float)scalar(r, "scale")};
    return sl_rope(s, &a);
  }
  if (strcmp(op, "kv_append") == 0) {
    TRY(sl_kv_append(s, r->cache, 0, r->batch, tensor(r, "k"), tensor(r, "v")));
    return read_cache(r);
  }
  if (strcmp(op, "copy_pages") == 0) {
    const block *sources = values(r, "sources"), *targets = values(r, "targets");
    TRY(sl_kv_cache_copy_pages(s, r->cache, sources->data, targets->data, (int32_t)(sources->bytes / 4)));
    return read_cache(r);
  }
  if (strcmp(op, "save_pages") == 0) {
    const block* pages = values(r, "pages");
    const sl_tensor* saved = tensor(r, "saved");
    const uint64_t offset = (uint64_t)scalar(r, "offset");
    TRY(sl_kv_cache_save_pages(s, r->cache, pages->data, (int32_t)(pages->bytes / 4), r->host, offset));
    return sl_buffer_copy(s, r->host, offset, saved->buffer, 0, (uint64_t)(elements(saved) * size_of(saved->dtype)));
  }
  if (strcmp(op, "load_pages") == 0) {
    const block* pages = values(r, "pages");
    TRY(sl_kv_cache_load_pages(s, r->cache, pages->data, (int32_t)(pages->bytes / 4), r->host, (uint64_t)scalar(r, "offset")));
    return read_cache(r);
  }
  if (strcmp(op, "gated_linear") == 0) {
    sl_gated_linear_args a = {.size = sizeof a, .activation = (sl_activation)scalar(r, "activation"), .x = tensor(r, "x"), .norm_weight = tensor(r, "norm_weight"), .gate = weight(r, "gate"), .up = weight(r, "up"),
                              .bias_gate = tensor(r, "bias_gate"), .bias_up = tensor(r, "bias_up"), .y = tensor(r, "y"), .norm_eps = 1e-5f, .squares = tensor(r, "squares")};
    return sl_gated_linear(s, &a);
  }
  if (strcmp(op, "fused_qkv") == 0) {
    sl_fused_qkv_args a = {.size = sizeof a, .x = tensor(r, "x"), .norm_weight = tensor(r, "norm_weight"), .wq = weight(r, "wq"), .wk = weight(r, "wk"), .wv = weight(r, "wv"),
                           .bias_q = tensor(r, "bias_q"), .bias_k = tensor(r, "bias_k"), .bias_v = tensor(r, "bias_v"), .norm_q = tensor(r, "norm_q"), .norm_k = tensor(r, "norm_k"),
                           .inv_freq = tensor(r, "inv_freq"), .cache = r->cache, .batch = r->batch, .q = tensor(r, "q"), .norm_eps = 1e-5f, .qk_norm_eps = 1e-6f,
                           .rope_scale = (float)scalar(r, "rope_scale"), .rope_kind = (sl_rope_kind)scalar(r, "kind"), .squares = tensor(r, "squares")};
    TRY(sl_fused_qkv(s, &a));
    return read_cache(r);
  }
  if (strcmp(op, "paged_attention") == 0 || strcmp(op, "cascade_attention") == 0) {
    sl_attention_args a = {.size = sizeof a, .cache = r->cache, .batch = r->batch, .q = tensor(r, "q"), .o = tensor(r, "o"), .lse2 = tensor(r, "lse2_out"), .sinks = tensor(r, "sinks"),
                           .alibi_slopes = tensor(r, "alibi_slopes"), .scale = (float)scalar(r, "scale"), .soft_cap = (float)scalar(r, "soft_cap"),
                           .window = (int32_t)scalar(r, "window"), .causal = scalar(r, "causal") != 0};
    return op[0] == 'p' ? sl_paged_attention(s, &a) : sl_cascade_attention(s, &a);
  }
  if (strcmp(op, "merge_states") == 0) return sl_merge_states(s, tensor(r, "o"), tensor(r, "lse2"), tensor(r, "y"), tensor(r, "y_lse2"));
  if (strcmp(op, "gated_activation") == 0)
    return sl_gated_activation(s, (sl_activation)scalar(r, "activation"), tensor(r, "gate"), tensor(r, "up"), tensor(r, "y"));
  if (strcmp(op, "penalties") == 0) {
    sl_penalties_args a = {.size = sizeof a, .logits = tensor(r, "logits"), .history = tensor(r, "history"), .history_indptr = tensor(r, "history_indptr"), .repetition = tensor(r, "repetition"),
                           .presence = tensor(r, "presence"), .frequency = tensor(r, "frequency"), .bias_ids = tensor(r, "bias_ids"), .bias_values = tensor(r, "bias_values"), .bias_indptr = tensor(r, "bias_indptr")};
    return sl_penalties(s, &a);
  }
  if (strcmp(op, "argmax") == 0) return sl_argmax(s, tensor(r, "logits"), tensor(r, "ids"));
  if (strcmp(op, "sample") == 0) {
    sl_sample_args a = {.size = sizeof a, .logits = tensor(r, "logits"), .temperature = tensor(r, "temperature"), .top_k = tensor(r, "top_k"), .top_p = tensor(r, "top_p"),
                        .min_p = tensor(r, "min_p"), .seed = tensor(r, "seed"), .position = tensor(r, "position"), .ids = tensor(r, "ids")};
    return sl_sample(s, &a);
  }
  if (strcmp(op, "log_probs") == 0) {
    sl_log_probs_args a = {.size = sizeof a, .logits = tensor(r, "logits"), .ids = tensor(r, "ids"), .log_probs = tensor(r, "log_probs"), .top_ids = tensor(r, "top_ids"), .top_log_probs = tensor(r, "top_log_probs")};
    return sl_log_probs(s, &a);
  }
  die("a case names an op that the driver does not know");
  return SL_ERR_ARGUMENT;
}

static sl_status reserve(run* r, sl_status (*ops)(run*)) {
  uint64_t needed = 0;
  TRY(sl_stream_measure(r->stream, 1));
  sl_status status = ops(r);
  TRY(sl_stream_measure(r->stream, 0));
  if (status != SL_OK) return status;
  TRY(sl_stream_get_measured(r->stream, &needed));
  return sl_stream_reserve(r->stream, needed);
}

static sl_status append_history(run* r) { return sl_kv_append(r->stream, r->cache, 0, r->past, &r->past_k, &r->past_v); }

static sl_status history_tensors(run* r) {
  TRY(place(r, &r->c->history_k.tensor, &r->c->history_k.data));
  return place(r, &r->c->history_v.tensor, &r->c->history_v.data);
}

static sl_tensor rows_of(const sl_tensor* t, int32_t first, int32_t count) {
  sl_tensor part = *t;
  part.offset += (uint64_t)(first * t->stride[0] * size_of(t->dtype));
  part.shape[0] = count;
  return part;
}

static sl_status append_sequence(run* r, int32_t sequence, int32_t first, int32_t count) {
  const int32_t *indptr = r->c->page_indptr.data, *ids = r->c->pages.data;
  const int32_t query[] = {0, count}, pages[] = {0, indptr[sequence + 1] - indptr[sequence]};
  sl_batch_options size = {.size = sizeof size, .max_tokens = count, .max_sequences = 1, .max_page_ids = pages[1]};
  sl_batch_step step = {.size = sizeof step, .num_sequences = 1, .query_indptr = query, .kv_lengths = &count, .page_indptr = pages, .page_ids = ids + indptr[sequence]};
  r->past_k = rows_of(&r->c->history_k.tensor, first, count);
  r->past_v = rows_of(&r->c->history_v.tensor, first, count);
  TRY(sl_batch_create(r->stream, r->cache, &size, &r->past));
  sl_status status = sl_batch_update(r->stream, r->past, &step);
  if (status == SL_OK) status = reserve(r, append_history);
  if (status == SL_OK) status = append_history(r);
  sl_batch_release(r->past);
  r->past = NULL;
  return status;
}

static sl_status make_cache(run* r) {
  op_case* c = r->c;
  sl_kv_cache_options options = {.size = sizeof options, .dtype = c->cache[0], .layers = c->cache[1], .pages = c->cache[2], .kv_heads = c->cache[3],
                                 .key_dim = c->cache[4], .value_dim = c->cache[5], .page_size = c->cache[6]};
  TRY(sl_kv_cache_create(r->stream, &options, &r->cache));
  int32_t sequences = (int32_t)(c->lengths.bytes / 4), page_ids = (int32_t)(c->pages.bytes / 4), history = 0;
  const int32_t* past = c->history.data;
  /* One sequence a step: those that share a prefix write the same pages. */
  TRY(history_tensors(r));
  for (int32_t b = 0; b < sequences; history += past[b++])
    if (past[b] > 0) TRY(append_sequence(r, b, history, past[b]));
  int32_t tokens = ((const int32_t*)c->query.data)[sequences] + c->padding;
  sl_batch_options size = {.size = sizeof size, .max_tokens = tokens ? tokens : 1, .max_sequences = sequences ? sequences : 1, .max_page_ids = page_ids ? page_ids : 1,
                           .max_mask_bytes = (int32_t)c->mask.bytes, .max_prefixes = (int32_t)(c->prefixes.bytes / (int64_t)sizeof(sl_prefix))};
  TRY(sl_batch_create(r->stream, r->cache, &size, &r->batch));
  sl_batch_step step = {.size = sizeof step, .num_sequences = sequences, .query_indptr = c->query.data, .kv_lengths = c->lengths.data, .page_indptr = c->page_indptr.data, .page_ids = c->pages.data,
                        .positions = c->positions.bytes ? c->positions.data : NULL, .mask = c->mask.bytes ? c->mask.data : NULL, .mask_indptr = c->mask.bytes ? c->mask_indptr.data : NULL,
                        .prefixes = c->prefixes.bytes ? c->prefixes.data : NULL, .num_prefixes = size.max_prefixes};
  return sl_batch_update(r->stream, r->batch, &step);
}

/* Host memory with what a case has saved in it; a case that saves finds its own. */
static sl_status make_host(run* r) {
  const sl_tensor* saved = tensor(r, "saved");
  if (saved == NULL) return SL_OK;
  const uint64_t offset = (uint64_t)scalar(r, "offset"), size = (uint64_t)(elements(saved) * size_of(saved->dtype));
  TRY(sl_buffer_create(r->stream, offset + size, SL_MEMORY_HOST, &r->host));
  return sl_buffer_copy(r->stream, saved->buffer, 0, r->host, offset, size);
}

/* results: null, or a place for the bytes of each output; an empty one for other tensors. */
static sl_status replay(run* r, int repeat, block* results) {
  op_case* c = r->c;
  for (int i = 0; i < c->tensor_count; i++) TRY(place(r, &c->tensors[i].tensor, &c->tensors[i].data));
  for (int i = 0; i < c->weight_count; i++) TRY(sl_weight_create(r->stream, &c->weights[i].source, &c->weights[i].weight));
  if (c->has_cache) TRY(make_cache(r));
  TRY(make_host(r));
  TRY(reserve(r, execute));
  for (int i = 0; i < repeat; i++) TRY(execute(r));
  for (int i = 0; i < c->tensor_count; i++) {
    named_tensor* t = &c->tensors[i];
    int64_t size = elements(&t->tensor) * size_of(t->tensor.dtype);
    if (!t->is_output || size == 0) continue;
    block out = {size, malloc((size_t)size)};
    if (out.data == NULL) die("out of memory");
    sl_status status = sl_buffer_download(r->stream, t->tensor.buffer, 0, out.data, (uint64_t)size);
    if (status == SL_OK) status = sl_stream_synchronize(r->stream);
    if (results != NULL) results[i] = out;
    else free(out.data);
    if (status != SL_OK) return status;
  }
  return sl_stream_synchronize(r->stream);
}

/* ---- comparing */

static double value_at(sl_dtype dtype, const void* data, int64_t i) {
  if (dtype == SL_DTYPE_I32) return ((const int32_t*)data)[i];
  if (dtype == SL_DTYPE_I8) return ((const int8_t*)data)[i];
  if (dtype == SL_DTYPE_F32) return ((const float*)data)[i];
  int bits = dtype == SL_DTYPE_FP8_E4M3 ? ((const uint8_t*)data)[i] : ((const uint16_t*)data)[i], mantissa, exponent, sign;
  if (dtype == SL_DTYPE_BF16) {
    const uint32_t wide = (uint32_t)bits << 16;
    float f;
    memcpy(&f, &wide, 4);
    return f;
  }
  if (dtype == SL_DTYPE_F16) {
    sign = bits >> 15, exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const double v = exponent == 31 ? (mantissa ? NAN : INFINITY) : exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return sign ? -v : v;
  }
  sign = bits >> 7, exponent = bits >> 3 & 15, mantissa = bits & 7;
  const double v = (bits & 127) == 127 ? NAN : exponent == 0 ? ldexp(mantissa, -9) : ldexp(8 + mantissa, exponent - 10);
  return sign ? -v : v;
}

static double unit(sl_dtype dtype, double v) {
  if (dtype == SL_DTYPE_I8) return 1;
  const int bits = dtype == SL_DTYPE_F32 ? 23 : dtype == SL_DTYPE_F16 ? 10 : dtype == SL_DTYPE_FP8_E4M3 ? 3 : 7;
  const int lowest = dtype == SL_DTYPE_F16 ? -14 : dtype == SL_DTYPE_FP8_E4M3 ? -6 : -126;
  int exponent = lowest;
  if (v != 0) exponent = (int)floor(log2(fabs(v)));
  return ldexp(1, (exponent > lowest ? exponent : lowest) - bits);
}

/* Tolerance.AssertClose of the suite; prints the first value that is too far away. */
static int close_enough(const op_case* c, const block* truth, const block* naive, const block* found) {
  for (int i = 0; i < c->tensor_count; i++) {
    if (found[i].data == NULL) continue;
    const sl_dtype dtype = c->tensors[i].tensor.dtype;
    const int64_t n = elements(&c->tensors[i].tensor);
    double error = 0;
    for (int64_t j = 0; j < n; j++) {
      const double t = value_at(dtype, truth[i].data, j);
      if (isfinite(t)) error = fmax(error, fabs(value_at(dtype, naive[i].data, j) - t));
    }
    for (int64_t j = 0; j < n; j++) {
      const double t = value_at(dtype, truth[i].data, j), f = value_at(dtype, found[i].data, j);
      const double bound = dtype == SL_DTYPE_I32 ? 0 : 2 * error + unit(dtype, isfinite(t) ? t : 0);
      if (isfinite(t) ? fabs(f - t) <= bound : isnan(t) ? isnan(f) : f == t) continue;
      printf("FAILED %s: %s[%lld] is %.9g, the truth %.9g, allowed %.3g\n", (char*)c->title.data, c->tensors[i].name, (long long)j, f, t, bound);
      return 0;
    }
  }
  return 1;
}

static void release(run* r) {
  for (int t = 0; t < r->c->tensor_count; t++) {
    sl_buffer_release(r->c->tensors[t].tensor.buffer);
    r->c->tensors[t].tensor.buffer = NULL;
  }
  sl_buffer_release(r->c->history_k.tensor.buffer);
  sl_buffer_release(r->c->history_v.tensor.buffer);
  r->c->history_k.tensor.buffer = r->c->history_v.tensor.buffer = NULL;
  sl_buffer_release(r->host);
  for (int w = 0; w < r->c->weight_count; w++) sl_weight_release(r->c->weights[w].weight);
  sl_batch_release(r->batch);
  sl_kv_cache_release(r->cache);
  sl_stream_release(r->stream);
}

static sl_status run_on(sl_device* device, op_case* c, int repeat, block* results) {
  run r = {.c = c};
  sl_status status = sl_stream_create(device, NULL, &r.stream);
  if (status == SL_OK) status = replay(&r, repeat, results);
  release(&r);
  return status;
}

enum { TESTED, EXACT, ROUNDED, DEVICES };

typedef struct { sl_device** devices; char** paths; int path_count, repeat, passed, failed, skipped; } job;

static void* work(void* argument) {
  job* j = argument;
  for (int i = 0; i < j->path_count; i++) {
    op_case* c = read_case(j->paths[i]);
    block results[DEVICES][MAX_NAMED] = {{{0, NULL}}};
    const int check = j->devices[EXACT] != NULL;
    sl_status status = run_on(j->devices[TESTED], c, j->repeat, check ? results[TESTED] : NULL);
    if (status == SL_OK && check) status = run_on(j->devices[EXACT], c, j->repeat, results[EXACT]);
    if (status == SL_OK && check) status = run_on(j->devices[ROUNDED], c, j->repeat, results[ROUNDED]);
    if (status == SL_ERR_UNSUPPORTED) {
      j->skipped++;
    } else if (status != SL_OK) {
      j->failed++;
      printf("FAILED %s: %s: %s\n", (char*)c->title.data, sl_status_name(status), sl_last_error());
    } else if (check && !close_enough(c, results[EXACT], results[ROUNDED], results[TESTED])) {
      j->failed++;
    } else {
      j->passed++;
    }
    for (int d = 0; d < DEVICES; d++)
      for (int t = 0; t < MAX_NAMED; t++) free(results[d][t].data);
    free_case(c);
  }
  return NULL;
}

int main(int argc, char** argv) {
  sl_device_options options = {.size = sizeof options, .backend = SL_BACKEND_CPU};
  int repeat = 1, streams = 1, check = 0, first = 1;
  for (; first + 1 < argc && strncmp(argv[first], "--", 2) == 0; first += 2) {
    const char* value = argv[first + 1];
    if (strcmp(argv[first], "--threads") == 0) options.threads = atoi(value);
    else if (strcmp(argv[first], "--seed") == 0) options.seed = strtoull(value, NULL, 10);
    else if (strcmp(argv[first], "--repeat") == 0) repeat = atoi(value);
    else if (strcmp(argv[first], "--streams") == 0) streams = atoi(value);
    else if (strcmp(argv[first], "--check") == 0) check = strcmp(value, "yes") == 0;
    else if (strcmp(argv[first], "--backend") == 0) {
      static const char* const names[] = {"reference", "cpu", "cuda", "simt"};
      options.backend = -1;
      for (int b = 0; b < 4; b++)
        if (strcmp(value, names[b]) == 0) options.backend = b;
    } else die("usage: sluice_replay --backend NAME [--threads N] [--seed S] [--repeat N] [--streams N] [--check yes] CASE...");
  }
  if (first >= argc || streams < 1 || streams > 64) die("usage: sluice_replay --backend NAME [--threads N] [--seed S] [--repeat N] [--streams N] [--check yes] CASE...");

  sl_device* devices[DEVICES] = {NULL};
  if (sl_device_open(&options, &devices[TESTED]) != SL_OK) die(sl_last_error());
  for (int d = EXACT; check && d < DEVICES; d++) {
    const sl_device_options reference = {.size = sizeof reference, .backend = SL_BACKEND_REFERENCE, .rounded = d == ROUNDED};
    if (sl_device_open(&reference, &devices[d]) != SL_OK) die(sl_last_error());
  }
  job jobs[64];
  pthread_t threads[64];
  for (int i = 0; i < streams; i++) {
    jobs[i] = (job){devices, argv + first, argc - first, repeat, 0, 0, 0};
    if (pthread_create(&threads[i], NULL, work, &jobs[i]) != 0) die("cannot start a thread");
  }
  int passed = 0, failed = 0, skipped = 0;
  for (int i = 0; i < streams; i++) {
    pthread_join(threads[i], NULL);
    passed += jobs[i].passed;
    failed += jobs[i].failed;
    skipped += jobs[i].skipped;
  }
  for (int d = 0; d < DEVICES; d++) sl_device_release(devices[d]);
  sl_handle_counts live;
  sl_live_handles(&live);
  if (live.devices + live.streams + live.buffers + live.weights + live.kv_caches + live.batches + live.graphs + live.events != 0) {
    printf("FAILED: handles are left over\n");
    failed++;
  }
  printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed > 0;
}
