/* sluice.h: the C ABI of Sluice, and its manual.

   1. Start            versions, status codes, errors
   2. Objects          device, stream, buffer, tensor, weight, KV cache, batch, graph, event
   3. Ops              what a decoder-only transformer is made of

   A first program: sl_device_open -> sl_stream_create -> sl_buffer_create -> sl_buffer_upload -> an op ->
   sl_buffer_download -> sl_stream_synchronize -> the releases, in any order.

   RULES THAT HOLD EVERYWHERE
   - Every function that can fail returns an sl_status. On failure nothing was launched, out-parameters are null or
     untouched, and sl_last_error() (per thread) tells which argument, what was found and what was expected.
   - No function exits the process or lets an exception out.
   - Handles are reference-counted inside: a child keeps its parent alive, so releases may come in any order, and
     releasing null does nothing. A handle must not be used after its release.
   - Ops run on a stream, in order. They never allocate and never synchronise, and may be captured into a graph.
     What they need beside their arguments comes from the stream's workspace: see sl_stream_measure.
   - Threads: a stream, and what is given to a call together with it, is used by one thread at a time (a second one
     gets SL_ERR_STATE). Different streams may be used at once. Weights are immutable and may be shared by all.
   - An output overlaps an input only where an op says so; dense tensors that do are refused (SL_ERR_ARGUMENT).
   - Structs that carry a `size` are extended at their end: set it to sizeof(the struct). Fields that are not set are 0,
     and 0 is a sensible default.

   DIMENSIONS
     T tokens of all sequences of a step, packed     B sequences       H query heads     Hkv KV heads (divides H)
     D head dim   Dv value head dim                  P page size in tokens               V vocabulary
     M, N, K: y[M,N] = x[M,K] * w[N,K]^T

   LAYOUTS
     activations       [T, D]: ragged, the rows of sequence b are query_indptr[b] .. query_indptr[b+1]
     KV cache          per layer, K and V pools each [pages, Hkv, P, D]; a sequence is a row of page ids and a length
     attention state   o [T, H, Dv] and lse2 [T, H], the log-sum-exp in base 2; a row that sees no key is o = 0, lse2 = -inf

   NUMBERS
     Sums are in f32 or wider. Each op says what it rounds to what (its precision record). A result is right when its
     error against the reference backend in exact mode is at most twice that of the reference's own loops rounded by
     the record, plus one unit in the last place.
     The same to the bit, alone or in any batch (reference and cpu): attention reduces chunks of SL_ATTENTION_CHUNK keys
     counted from position 0, merged from left to right; a row of a matmul sums in one order whatever the rows beside it. */
#ifndef SLUICE_H
#define SLUICE_H

#include <stdint.h>

#if defined(_WIN32)
#if defined(SL_BUILD)
#define SL_API __declspec(dllexport)
#else
#define SL_API __declspec(dllimport)
#endif
#else
#define SL_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- 1. Start */

enum sl_constants {
  SL_VERSION_MAJOR = 0,     /* changes when a caller must be rebuilt */
  SL_VERSION_MINOR = 6,     /* grows when something is added */
  SL_ATTENTION_CHUNK = 256, /* keys; shared prefixes begin and end at its multiples */
  SL_MAX_RANK = 4           /* dimensions of a tensor at most */
};

typedef int32_t sl_status;
enum sl_status_values {
  SL_OK = 0,
  SL_ERR_ARGUMENT = 1,      /* a null, a value out of its range, a struct of unknown size */
  SL_ERR_SHAPE = 2,         /* shapes, strides or lengths that do not fit each other or their buffer */
  SL_ERR_DTYPE = 3,         /* an element type that this op does not take there */
  SL_ERR_UNSUPPORTED = 4,   /* right, but this backend cannot do it */
  SL_ERR_NO_DEVICE = 5,     /* no such device; the text says what was tried */
  SL_ERR_OUT_OF_MEMORY = 6, /* the text says how much was wanted and free, in bytes */
  SL_ERR_WORKSPACE = 7,     /* the stream's workspace is smaller than the op needs */
  SL_ERR_STATE = 8,         /* not now: capturing, in use by another thread, no plan in the batch */
  SL_ERR_DEVICE_LOST = 9,   /* the device failed and stays so: open it anew */
  SL_ERR_INTERNAL = 10      /* a defect of this library */
};

/* Major version in the upper 16 bits, minor in the lower. A caller needs its own major, and at least its own minor. */
SL_API uint32_t sl_version(void);

/* What failed last on this thread, UTF-8; "" when nothing did. Valid until the thread's next failing call. */
SL_API const char* sl_last_error(void);

/* "SL_ERR_SHAPE" for SL_ERR_SHAPE; "SL_ERR_?" for a number that is no status. Static storage. */
SL_API const char* sl_status_name(sl_status status);

/* The size of every public struct and the offset of every field as this library was compiled, a line a struct:
   "sl_tensor 96 buffer:0 pointer:8 ...". For comparing both sides of the boundary. Static storage. */
SL_API const char* sl_abi_layout(void);

typedef struct sl_handle_counts {
  int64_t devices, streams, buffers, weights, kv_caches, batches, graphs, events;
} sl_handle_counts;

/* How many objects of each kind exist in this process; all zero after the last release.   SL_ERR_ARGUMENT. */
SL_API sl_status sl_live_handles(sl_handle_counts* counts);

/* ---------------------------------------------------------------- 2. Objects */

typedef struct sl_device sl_device;
typedef struct sl_stream sl_stream;
typedef struct sl_buffer sl_buffer;
typedef struct sl_weight sl_weight;
typedef struct sl_kv_cache sl_kv_cache;
typedef struct sl_batch sl_batch;
typedef struct sl_graph sl_graph;
typedef struct sl_event sl_event;

typedef int32_t sl_dtype;
enum sl_dtype_values {
  SL_DTYPE_F32 = 0,
  SL_DTYPE_F16 = 1,
  SL_DTYPE_BF16 = 2,
  SL_DTYPE_I32 = 3,
  SL_DTYPE_I64 = 4,
  SL_DTYPE_U8 = 5,
  SL_DTYPE_I8 = 6,
  SL_DTYPE_FP8_E4M3 = 7
};

/* - device: one backend on one device. It owns memory, weights and (cpu) a pool of threads. ------------------------ */

typedef int32_t sl_backend;
enum sl_backend_values {
  SL_BACKEND_REFERENCE = 0, /* plain loops: the truth that the others are measured against */
  SL_BACKEND_CPU = 1,       /* SIMD and threads */
  SL_BACKEND_CUDA = 2,      /* an NVIDIA GPU */
  SL_BACKEND_SIMT = 3       /* the CUDA backend's very code, executed on the CPU and checked access by access */
};

typedef int32_t sl_isa;
enum sl_isa_values {
  SL_ISA_BEST = 0,        /* what the environment variable SLUICE_ISA names in lower case ("avx2"), else the last of these that the processor has */
  SL_ISA_PORTABLE = 1,    /* the compiler's baseline */
  SL_ISA_NEON = 2,        /* AArch64 with the dot product of bytes */
  SL_ISA_AVX2 = 3,        /* AVX2, FMA and F16C */
  SL_ISA_AVX_VNNI = 4,    /* the same, and AVX-VNNI: products of bytes in 256 bits */
  SL_ISA_AVX512 = 5,      /* AVX-512 F, BW and VL */
  SL_ISA_AVX512_VNNI = 6, /* the same, and VNNI: products of bytes in 512 bits */
  SL_ISA_AVX512_BF16 = 7  /* the same, and BF16: products of bf16 */
};

typedef struct sl_device_options {
  uint32_t size;
  sl_backend backend;
  int32_t ordinal;         /* which GPU; 0 for the other backends */
  int32_t threads;         /* cpu: threads that compute, the caller's included; 0: one a physical core */
  sl_isa isa;              /* cpu: the instruction set; SL_ERR_UNSUPPORTED where processor or build lack it. SLUICE_ISA that names none: SL_ERR_ARGUMENT */
  int32_t rounded;         /* reference: 0 sums in double (exact mode); 1 naive f32 loops rounded by each op's record */
  int32_t multiprocessors; /* simt: how many to play; 0: four */
  int32_t int8_activations; /* cuda, simt: 1: up to 8 rows of x are rounded to int8 where sl_linear's record allows it */
  uint64_t seed;           /* simt: the order in which warps and blocks run */
  int32_t invariant;       /* cuda, simt: 1: a row's results are the same to the bit alone or in any batch, chunking or sharing, as they always are
                              on the other backends: attention in chunks of SL_ATTENTION_CHUNK keys, products by one kernel cut at fixed columns.
                              Slower; not with int8_activations */
  int32_t reserved;
} sl_device_options;

typedef struct sl_device_info {
  uint32_t size;
  sl_backend backend;
  int32_t threads;
  sl_isa isa;
  int32_t multiprocessors;
  int32_t compute_capability; /* 90 for sm_90; 0 where there is none */
  uint64_t memory_total;      /* bytes */
  uint64_t memory_free;       /* bytes, at this moment */
  char name[128];             /* UTF-8 */
} sl_device_info;

/* What a device has moved since the last reset. The cpu backend counts kv_bytes_read; simt counts all of it. */
typedef struct sl_counters {
  uint32_t size;
  uint32_t reserved;
  uint64_t launches;
  uint64_t bytes_read, bytes_written;     /* global memory, as asked for by the kernels */
  uint64_t sectors_read, sectors_written; /* 32-byte sectors touched by each warp's access */
  uint64_t bank_conflicts;                /* extra shared-memory passes */
  uint64_t mma;                           /* tensor-core instructions, counted a warp */
  uint64_t kv_bytes_read;                 /* of KV pages, by attention */
} sl_counters;

/* The same of one kernel, all its instantiations together. */
typedef struct sl_kernel_counters {
  uint32_t size;
  uint32_t reserved;
  uint64_t launches;
  uint64_t bytes_read, bytes_written;
  uint64_t sectors_read, sectors_written;
  uint64_t bank_conflicts;
  uint64_t mma;
  uint64_t kv_bytes_read;
  char name[64]; /* UTF-8 */
} sl_kernel_counters;

/* How a weight is kept on cuda and simt. */
enum sl_kept_values {
  SL_KEPT_DENSE = 0, /* 16 bits, row-major */
  SL_KEPT_FOUR = 1,  /* bits a number: Q4_0, Q4_1, Q4_K, GPTQ4, AWQ4 */
  SL_KEPT_FIVE = 2,  /* Q5_0, Q5_1, Q5_K */
  SL_KEPT_SIX = 3,   /* Q6_K */
  SL_KEPT_EIGHT = 4, /* Q8_0, INT8 */
  SL_KEPT_KINDS = 5
};

/* Which kernels take a product x * w^T, by the rows of x and how w is kept (cuda, simt). The best numbers are a device's own: measure
   them with sl_linear's route. A kernel that cannot take a shape leaves it to the next. */
typedef struct sl_switch_points {
  uint32_t size;
  int32_t few[SL_KEPT_KINDS];    /* up to so many rows (8 at most): one launch that keeps all of x by the side */
  int32_t narrow[SL_KEPT_KINDS]; /* above, up to so many: tiles of 16 rows of x */
  int32_t dense[SL_KEPT_KINDS];  /* from so many on: quantised weights go to 16 bits first, dense ones to the vendor's library where it is;
                                    0: never; -1: from 513 on where that library is. Between: tiles of 64 rows */
} sl_switch_points;

/* How many devices the backend has here; 0 where it is not built or there is no driver (sl_last_error then tells which). */
SL_API int32_t sl_device_count(sl_backend backend);

/* Opens a device. Any thread.
   SL_ERR_ARGUMENT, SL_ERR_NO_DEVICE, SL_ERR_UNSUPPORTED (isa), SL_ERR_OUT_OF_MEMORY. */
SL_API sl_status sl_device_open(const sl_device_options* options, sl_device** device);
SL_API void sl_device_release(sl_device* device);

/* Set info->size first. Any thread. */
SL_API sl_status sl_device_get_info(sl_device* device, sl_device_info* info);

/* Set counters->size first. Synchronise the streams whose work is to be counted first. Any thread. */
SL_API sl_status sl_device_get_counters(sl_device* device, sl_counters* counters);
SL_API sl_status sl_device_reset_counters(sl_device* device);

/* The device's switch points; set points->size first. They may be changed until the device has its first stream: workspaces and
   graphs depend on them. Any thread.   SL_ERR_ARGUMENT, SL_ERR_UNSUPPORTED (reference, cpu), SL_ERR_STATE (set, after a stream). */
SL_API sl_status sl_device_get_switch_points(sl_device* device, sl_switch_points* points);
SL_API sl_status sl_device_set_switch_points(sl_device* device, const sl_switch_points* points);

/* The kernels that ran since the last reset, by index from 0 in the order of their names (simt; the other backends count
   none). Past the last one the name is empty. Set counters->size first. Any thread.   SL_ERR_ARGUMENT. */
SL_API sl_status sl_device_get_kernel_counters(sl_device* device, int32_t index, sl_kernel_counters* counters);

/* - stream: an ordered queue and its workspace. reference and cpu run at the call. --------------------------------- */

/* native_stream: a CUstream to work on (cuda; it stays the caller's), or null for a stream of its own.
   SL_ERR_ARGUMENT, SL_ERR_UNSUPPORTED, SL_ERR_DEVICE_LOST. */
SL_API sl_status sl_stream_create(sl_device* device, void* native_stream, sl_stream** stream);
SL_API void sl_stream_release(sl_stream* stream);

/* Waits until all that was put on the stream is done, and reports what failed in it. */
SL_API sl_status sl_stream_synchronize(sl_stream* stream);

/* Between sl_stream_measure(stream, 1) and sl_stream_measure(stream, 0) ops are checked in full and not run; the
   largest workspace that any of them asks for is kept. An op's need depends on its tensors' shapes and on a batch's
   capacity, never on its current plan. */
SL_API sl_status sl_stream_measure(sl_stream* stream, int32_t on);
SL_API sl_status sl_stream_get_measured(sl_stream* stream, uint64_t* bytes);

/* Makes the workspace at least that large. Not while capturing; invalidates graphs captured with a smaller one. */
SL_API sl_status sl_stream_reserve(sl_stream* stream, uint64_t bytes);

/* - buffer: device memory, or host memory that the device reads fast (pinned). ------------------------------------- */

typedef int32_t sl_memory;
enum sl_memory_values { SL_MEMORY_DEVICE = 0, SL_MEMORY_HOST = 1 };

/* Allocates, aligned to 256 bytes, contents undefined. Allocation and release are ordered on the stream: a buffer used
   on another stream must be released after an event makes this one wait for it.
   SL_ERR_ARGUMENT (0 bytes), SL_ERR_OUT_OF_MEMORY, SL_ERR_STATE (capturing). */
SL_API sl_status sl_buffer_create(sl_stream* stream, uint64_t bytes, sl_memory memory, sl_buffer** buffer);
SL_API void sl_buffer_release(sl_buffer* buffer);
SL_API sl_status sl_buffer_get_size(sl_buffer* buffer, uint64_t* bytes);

/* The address of a SL_MEMORY_HOST buffer for reading and writing by the caller while no work that uses it is pending.
   SL_ERR_ARGUMENT for device memory. */
SL_API sl_status sl_buffer_get_host_pointer(sl_buffer* buffer, void** pointer);

/* source is read before the call returns. */
SL_API sl_status sl_buffer_upload(sl_stream* stream, sl_buffer* buffer, uint64_t offset, const void* source, uint64_t bytes);
/* target is filled when the stream has been synchronised. */
SL_API sl_status sl_buffer_download(sl_stream* stream, sl_buffer* buffer, uint64_t offset, void* target, uint64_t bytes);
/* The ranges must not overlap. */
SL_API sl_status sl_buffer_copy(sl_stream* stream, sl_buffer* source, uint64_t source_offset, sl_buffer* target,
                                uint64_t target_offset, uint64_t bytes);
SL_API sl_status sl_buffer_fill(sl_stream* stream, sl_buffer* buffer, uint64_t offset, int32_t byte, uint64_t bytes);

/* - tensor: a value, not a handle. --------------------------------------------------------------------------------- */

/* A view of a buffer (bounds are checked at each use), or of imported memory (buffer null; pointer is memory of the
   stream's device: a CUdeviceptr for cuda, an address for the others). The last dimension's stride is 1. Strides of
   dimensions of extent 1 are not looked at. */
typedef struct sl_tensor {
  sl_buffer* buffer;
  void* pointer;
  uint64_t offset; /* bytes, a multiple of the element's size */
  sl_dtype dtype;
  int32_t rank; /* 1 .. SL_MAX_RANK */
  int64_t shape[SL_MAX_RANK];
  int64_t stride[SL_MAX_RANK]; /* elements */
} sl_tensor;

/* - weight: an immutable matrix [N, K], made from its file's encoding and repacked as the backend likes. ----------- */

typedef int32_t sl_encoding;
enum sl_encoding_values {
  SL_ENCODING_F32 = 0,
  SL_ENCODING_F16 = 1,
  SL_ENCODING_BF16 = 2,
  SL_ENCODING_Q4_0 = 3, /* the GGUF block types: rows of blocks along K */
  SL_ENCODING_Q4_1 = 4,
  SL_ENCODING_Q5_0 = 5,
  SL_ENCODING_Q5_1 = 6,
  SL_ENCODING_Q8_0 = 7,
  SL_ENCODING_Q4_K = 8,
  SL_ENCODING_Q5_K = 9,
  SL_ENCODING_Q6_K = 10,
  SL_ENCODING_GPTQ4 = 11, /* data i32 [K/8, N], scales f16 [K/group, N], zeros i32 [K/group, N/8] (stored minus one), order i32 [K] or null */
  SL_ENCODING_AWQ4 = 12,  /* data i32 [K, N/8] interleaved, scales f16 [K/group, N], zeros i32 [K/group, N/8] */
  SL_ENCODING_INT8 = 13,  /* data i8 [N, K], scales f32 [N, K/group] */
  SL_ENCODING_GPTQ4_V2 = 14 /* as GPTQ4, the zeros stored as they are (checkpoint_format "gptq_v2") */
};

typedef struct sl_weight_source {
  uint32_t size;
  sl_encoding encoding;
  int64_t rows;  /* N: outputs */
  int64_t cols;  /* K: inputs; a multiple of the encoding's block */
  int32_t group; /* GPTQ4, AWQ4, INT8: inputs that share a scale, dividing K (K itself: one scale a row); else 0 */
  int32_t reserved;
  const void* data;
  uint64_t data_bytes; /* exactly what the encoding needs */
  const void* scales;
  uint64_t scales_bytes;
  const void* zeros;
  uint64_t zeros_bytes;
  const int32_t* order; /* GPTQ4 and GPTQ4_V2 with act order: the group of each input */
  uint64_t order_bytes;
} sl_weight_source;

typedef struct sl_weight_info {
  uint32_t size;
  sl_encoding encoding;
  int64_t rows, cols;
  uint64_t bytes; /* of device memory that it takes */
} sl_weight_info;

/* Reads the host memory in source before it returns. Contents are not trusted: a value that would reach outside (order)
   is refused.   SL_ERR_ARGUMENT, SL_ERR_SHAPE, SL_ERR_UNSUPPORTED, SL_ERR_OUT_OF_MEMORY. */
SL_API sl_status sl_weight_create(sl_stream* stream, const sl_weight_source* source, sl_weight** weight);
SL_API void sl_weight_release(sl_weight* weight);
SL_API sl_status sl_weight_get_info(sl_weight* weight, sl_weight_info* info);

/* A weight as its device keeps it: for keeping a copy, and for making the weight again without packing. */
typedef struct sl_packed_weight {
  uint32_t size;
  sl_encoding encoding;
  int64_t rows, cols;
  int32_t group;       /* as in sl_weight_source */
  int32_t reserved;
  uint64_t layout;     /* how the bytes lie: bytes of one layout, encoding, shape and group are interchangeable. Another version of the
                          library may lay them out otherwise, and then has other numbers */
  const void* data;    /* aligned to 64 */
  uint64_t data_bytes;
  const int32_t* order; /* [K]: column k of the bytes is column order[k] of the matrix; or null: the same */
  uint64_t order_bytes;
} sl_packed_weight;

/* Where the weight's bytes lie; set packed->size to sizeof. They are not to be written, and are there as long as the weight.
   SL_ERR_ARGUMENT, SL_ERR_UNSUPPORTED (all but cpu). */
SL_API sl_status sl_weight_get_packed(sl_weight* weight, sl_packed_weight* packed);

/* What the library calls when it needs a caller's memory no more, on any thread; it must not call the library. */
typedef void (*sl_release)(void* context);

/* Makes a weight of bytes as sl_weight_get_packed gave them, which may come from a file: whatever they hold, nothing outside of
   them is read. data is used where it lies and must stay as it is until released(context) is called, once, when the weight and all
   that keeps it are gone; order is read before the call returns. On failure released is not called. released may be null.
   SL_ERR_ARGUMENT, SL_ERR_SHAPE, SL_ERR_UNSUPPORTED (all but cpu; a layout that is not this library's for such a weight). */
SL_API sl_status sl_weight_create_packed(sl_stream* stream, const sl_packed_weight* packed, sl_release released, void* context,
                                         sl_weight** weight);

/* - KV cache: pools of pages for all layers. ----------------------------------------------------------------------- */

typedef struct sl_kv_cache_options {
  uint32_t size;
  sl_dtype dtype;    /* F32, F16, BF16; FP8_E4M3 and I8 (a scale a token and head) where the backend has them */
  int32_t layers;
  int32_t pages;
  int32_t kv_heads;  /* Hkv */
  int32_t key_dim;   /* D */
  int32_t value_dim; /* Dv */
  int32_t page_size; /* P: tokens a page, 1 .. 256, dividing SL_ATTENTION_CHUNK; 0: 16 */
} sl_kv_cache_options;

/* Contents are undefined until appended: no op reads a slot at or past a sequence's length.
   SL_ERR_ARGUMENT, SL_ERR_UNSUPPORTED, SL_ERR_OUT_OF_MEMORY. */
SL_API sl_status sl_kv_cache_create(sl_stream* stream, const sl_kv_cache_options* options, sl_kv_cache** cache);
SL_API void sl_kv_cache_release(sl_kv_cache* cache);

/* The pools of a layer as tensors: keys [pages, Hkv, P, D], values [pages, Hkv, P, Dv]. They keep no reference: use
   them while the cache lives. Either may be null. */
SL_API sl_status sl_kv_cache_get_layer(sl_kv_cache* cache, int32_t layer, sl_tensor* keys, sl_tensor* values);

/* Copies whole pages within the cache, in all layers: page targets[i] = page sources[i]. Host arrays, read before the
   call returns. No page may be a target twice, nor both source and target.   SL_ERR_ARGUMENT. */
SL_API sl_status sl_kv_cache_copy_pages(sl_stream* stream, sl_kv_cache* cache, const int32_t* sources,
                                        const int32_t* targets, int32_t count);

/* The bytes that one page takes in host memory, all layers together; a multiple of 16. A saved page is, in this order,
     keys         [layers, Hkv, P, D]
     values       [layers, Hkv, P, Dv]
     key scales   [layers, Hkv, P] f32, for FP8_E4M3 and I8 alone
     value scales [layers, Hkv, P] f32, for FP8_E4M3 and I8 alone
   each without gaps and from the next multiple of 16 bytes on; bytes between them are neither read nor written.
   Any thread.   SL_ERR_ARGUMENT. */
SL_API sl_status sl_kv_cache_get_page_bytes(sl_kv_cache* cache, uint64_t* bytes);

/* Whole pages to host memory, in all layers: page pages[i] goes to byte offset + i * (the page's bytes) of the buffer.
   pages is a host array, read before the call returns; a page may stand in it more than once. buffer is SL_MEMORY_HOST
   of the stream's device, and offset a multiple of 16 (better of 128: buses carry whole lines). Ordered on the stream, and
   done when the stream has come so far: until then the buffer's bytes are not the caller's, while the pages may be given
   to whatever follows on the stream. Not while capturing.
   SL_ERR_ARGUMENT, SL_ERR_SHAPE (the buffer is too small), SL_ERR_STATE (capturing). */
SL_API sl_status sl_kv_cache_save_pages(sl_stream* stream, sl_kv_cache* cache, const int32_t* pages, int32_t count,
                                        sl_buffer* buffer, uint64_t offset);

/* The way back: page pages[i] becomes what lies at byte offset + i * (the page's bytes) of the buffer, be it the page
   that was saved there or another, of this cache or of one with the same options but for `pages`. No page may stand in
   pages twice. All else as in sl_kv_cache_save_pages. */
SL_API sl_status sl_kv_cache_load_pages(sl_stream* stream, sl_kv_cache* cache, const int32_t* pages, int32_t count,
                                        sl_buffer* buffer, uint64_t offset);

/* - batch: one step's plan. Made once a step on the host, checked, and used by every layer. ------------------------ */

/* Which of a step's prefixes sl_cascade_attention reads once for all of their sequences. */
typedef int32_t sl_sharing;
enum sl_sharing_values {
  SL_SHARING_BY_COST = 0, /* those that are faster so, by the device's own costs */
  SL_SHARING_ALWAYS = 1   /* all that there is room for */
};

typedef struct sl_batch_options {
  uint32_t size;
  int32_t max_tokens;     /* T */
  int32_t max_sequences;  /* B */
  int32_t max_page_ids;   /* page ids of all sequences together */
  int32_t max_mask_bytes; /* 0: no custom masks */
  int32_t max_prefixes;   /* 0: no shared prefixes */
  int32_t query_heads;    /* H of the attention that will read the plan; 0: Hkv. What sharing costs depends on it, no result does */
  int32_t max_prefix_rows; /* query rows of all shared prefixes, each counted at every level that it has; 0: 4 * max_tokens. Of more levels the
                              ones that save least are left to their sequences */
  sl_sharing sharing;
} sl_batch_options;

/* Keys [first_key, first_key + num_keys) are the very same pages in all of these neighbouring sequences. */
typedef struct sl_prefix {
  int32_t first_sequence, num_sequences;
  int32_t first_key, num_keys; /* multiples of SL_ATTENTION_CHUNK */
} sl_prefix;

/* A step. Host arrays, read before the call returns. Sequence b has q_len = query_indptr[b+1] - query_indptr[b] query
   rows; query row i of b sits in KV slot kv_lengths[b] - q_len + i, and with causal attention sees the slots up to it. */
typedef struct sl_batch_step {
  uint32_t size;
  int32_t num_sequences;           /* B, 0 allowed */
  const int32_t* query_indptr;     /* [B+1], from 0, not falling; the last is num_tokens */
  const int32_t* kv_lengths;       /* [B], keys of each sequence after this step's append; >= q_len */
  const int32_t* page_indptr;      /* [B+1] into page_ids; a row has ceil(kv_length / P) pages or more */
  const int32_t* page_ids;         /* in 0 .. pages-1; a page that this step writes to is written by one row. Others may read it:
                                      attention reads a layer's keys when all of the step's are there */
  const int32_t* positions;        /* [num_tokens] for RoPE and ALiBi, >= 0; null: the slot */
  const uint8_t* mask;             /* custom mask, or null: bits, lowest first; row i of sequence b begins at byte
                                      mask_indptr[b] + i * ceil(kv_length / 8); 1: query i sees that key */
  const int32_t* mask_indptr;      /* [B+1], bytes; an empty row means causal */
  const sl_prefix* prefixes;       /* shared prefixes, a tree, or null: those that cover a sequence tile [0, x) without gap or
                                      overlap, x <= kv_length - q_len, and the sequences of one have the same ones before it */
  int32_t num_prefixes;
  int32_t reserved;
} sl_batch_step;

/* SL_ERR_ARGUMENT, SL_ERR_OUT_OF_MEMORY. */
SL_API sl_status sl_batch_create(sl_stream* stream, sl_kv_cache* cache, const sl_batch_options* options, sl_batch** batch);
SL_API void sl_batch_release(sl_batch* batch);

/* Checks the step in full (ranges, lengths, that prefixes share their pages) and puts it at the batch's fixed device
   addresses, ordered on the stream. Not while capturing: a captured graph reads whatever plan is there at replay.
   SL_ERR_ARGUMENT, SL_ERR_SHAPE (exceeds the batch's capacity), SL_ERR_STATE. */
SL_API sl_status sl_batch_update(sl_stream* stream, sl_batch* batch, const sl_batch_step* step);

/* What a plan does about the prefixes of its step. */
typedef struct sl_batch_info {
  uint32_t size;
  int32_t num_tokens, num_sequences;
  int32_t num_prefixes;   /* that are shared; one that is not may have become part of those behind it */
  int32_t prefix_rows;    /* query rows of these */
  int32_t reserved;
  int64_t keys;           /* of all sequences: what sl_paged_attention reads, where a sequence's rows fit one tile */
  int64_t keys_shared;    /* what sl_cascade_attention reads: those of a shared prefix once */
} sl_batch_info;

/* The plan in force; set info->size first. One thread at a time with sl_batch_update.   SL_ERR_ARGUMENT, SL_ERR_STATE (no plan yet). */
SL_API sl_status sl_batch_get_info(sl_batch* batch, sl_batch_info* info);

/* - graph: ops recorded once and replayed. ------------------------------------------------------------------------- */

/* From here until sl_graph_end the stream's ops are recorded and not run. Tensors may have more rows than the batch has
   tokens: such rows are padding, so one graph serves every batch up to its T; a launch with more is SL_ERR_SHAPE. The graph keeps what it uses alive. */
SL_API sl_status sl_graph_begin(sl_stream* stream);
SL_API sl_status sl_graph_end(sl_stream* stream, sl_graph** graph);
SL_API sl_status sl_graph_launch(sl_stream* stream, sl_graph* graph);
SL_API void sl_graph_release(sl_graph* graph);

/* - event: a point in a stream. ------------------------------------------------------------------------------------ */

SL_API sl_status sl_event_create(sl_device* device, sl_event** event);
SL_API void sl_event_release(sl_event* event);
SL_API sl_status sl_event_record(sl_stream* stream, sl_event* event);
/* Work put on the stream from now on waits for the event. One that was never recorded does not wait. */
SL_API sl_status sl_event_wait(sl_stream* stream, sl_event* event);
SL_API sl_status sl_event_synchronize(sl_event* event);
/* Milliseconds between two recorded events, as the device saw them; synchronises with both.   SL_ERR_STATE. */
SL_API sl_status sl_event_elapsed(sl_event* start, sl_event* end, double* milliseconds);

/* ---------------------------------------------------------------- 3. Ops

   "activation dtype" is F32, F16 or BF16, one for all activations of a call unless said otherwise. Norm weights and
   biases are F32 or the activation dtype. Every op may return SL_ERR_ARGUMENT, SL_ERR_SHAPE, SL_ERR_DTYPE,
   SL_ERR_UNSUPPORTED, SL_ERR_WORKSPACE, SL_ERR_STATE, SL_ERR_DEVICE_LOST. An empty T is allowed and does nothing. */

/* y[t,:] = scale * table[ids[t],:].   ids I32 [T], table [V,D], y [T,D]. An id outside 0..V-1 gives a row of NaN
   (ids live on the device, so the host cannot look).   Rounded: y. */
SL_API sl_status sl_embedding(sl_stream* stream, const sl_tensor* ids, sl_weight* table, float scale, const sl_tensor* y);

/* y[i,:] = x[rows[i],:].   rows I32 [R], x [T,D], y [R,D], any dtype. A row outside 0..T-1 gives NaN (zero for integers). */
SL_API sl_status sl_gather(sl_stream* stream, const sl_tensor* x, const sl_tensor* rows, const sl_tensor* y);

/* y = x normalised by its root mean square, times w: y[t,d] = x[t,d] / sqrt(mean_d(x[t,:]^2) + eps) * w[d].
   x, y [T,D], w [D]. x may be F32 for any y; y may be x.   Rounded: y; all else f32.   Source: Zhang and Sennrich 2019. */
SL_API sl_status sl_rms_norm(sl_stream* stream, const sl_tensor* x, const sl_tensor* w, float eps, const sl_tensor* y);

/* residual += x; y = rms_norm(residual, w).   x, residual, y [T,D], w [D]. y may be x; residual may be F32 for any x.
   Rounded: residual, then y from the unrounded sum or the rounded one. */
SL_API sl_status sl_add_rms_norm(sl_stream* stream, const sl_tensor* x, const sl_tensor* residual, const sl_tensor* w,
                                 float eps, const sl_tensor* y);

/* y = residual + rms_norm(x, w): the norm after a block (Gemma 2, OLMo 2).   x, residual, y [T,D], w [D]. residual and y,
   of one type, may be F32 for any x. y may be residual or x.   Rounded: y. */
SL_API sl_status sl_rms_norm_add(sl_stream* stream, const sl_tensor* x, const sl_tensor* w, float eps,
                                 const sl_tensor* residual, const sl_tensor* y);

typedef int32_t sl_route;
enum sl_route_values { SL_ROUTE_ANY = 0, SL_ROUTE_FEW = 1, SL_ROUTE_NARROW = 2, SL_ROUTE_WIDE = 3, SL_ROUTE_DENSE = 4 };

typedef struct sl_linear_args {
  uint32_t size;
  float scale;               /* 0: 1 */
  const sl_tensor* x;        /* [T,K] */
  sl_weight* weight;         /* [N,K] */
  const sl_tensor* bias;     /* [N], or null */
  const sl_tensor* residual; /* [T,N] of y's type, or null; may be y */
  const sl_tensor* y;        /* [T,N]; may be F32 for any x; any type for an x of F32 */
  float soft_cap;            /* 0: none */
  sl_route route;            /* cuda, simt: the kernels that are to take it, for measuring them; SL_ERR_UNSUPPORTED where they cannot.
                                0: by the device's switch points. The others have one way */
  const sl_tensor* squares;  /* out F32 [T,ceil(N/16)], or null; with it y is F32 */
} sl_linear_args;

/* v = scale * (x * weight^T + bias); with soft_cap v = soft_cap * tanh(v / soft_cap); y = v + residual.
   Rounded: y. For F16 and BF16 weights x may be rounded to the weight's type first; for the GGUF block types (Q4_0 ..
   Q6_K) and INT8 x may be rounded to int8 by blocks of 32 along K (scale = the block's largest magnitude / 127), and the
   products of a block are then exact. GPTQ4, GPTQ4_V2 and AWQ4, made for 16-bit activations, take x as it is. With F16
   or BF16 activations the dequantised weight may be rounded to x's type. Sums in f32.
   squares[t,i] = the sum of y[t,n]^2 over 16 i <= n < 16 (i + 1), for the norm of y that comes next: where y is written anyway, which
   costs less than another reading of it. */
SL_API sl_status sl_linear(sl_stream* stream, const sl_linear_args* args);

typedef int32_t sl_activation;
enum sl_activation_values {
  SL_ACTIVATION_SILU = 0,
  SL_ACTIVATION_GELU_TANH = 1,
  SL_ACTIVATION_GELU_ERF = 2,
  SL_ACTIVATION_RELU = 3
};

typedef struct sl_gated_linear_args {
  uint32_t size;
  sl_activation activation;
  const sl_tensor* x;           /* [T,C]; may be F32 for any y */
  const sl_tensor* norm_weight; /* [C]: RMSNorm first; or null: x as it is */
  sl_weight* gate;              /* [F,C] */
  sl_weight* up;                /* [F,C] */
  const sl_tensor* bias_gate;   /* [F], or null */
  const sl_tensor* bias_up;
  const sl_tensor* y;           /* [T,F] */
  float norm_eps;
  uint32_t reserved;
  const sl_tensor* squares;     /* F32 [T,ceil(C/16)]: what sl_linear wrote of an x of F32; or null. With norm_weight alone */
} sl_gated_linear_args;

/* y = act(x * gate^T + bias_gate) * (x * up^T + bias_up), x normalised first: the first half of a gated feed-forward.
   The norm's mean square is taken from squares where they are given, or from x, as the backend likes.
   Rounded: x, normalised or not, to y's dtype, then as sl_linear of such an x; what is activated and multiplied may be rounded to y's dtype; y. */
SL_API sl_status sl_gated_linear(sl_stream* stream, const sl_gated_linear_args* args);

typedef int32_t sl_rope_kind;
enum sl_rope_kind_values {
  SL_ROPE_HALF = 0,       /* pairs (i, i + R/2): "neox", Hugging Face's rotate-half */
  SL_ROPE_INTERLEAVED = 1 /* pairs (2i, 2i+1): GGUF's llama */
};

typedef struct sl_fused_qkv_args {
  uint32_t size;
  int32_t layer;
  const sl_tensor* x;           /* [T,C]; may be F32 for any q */
  const sl_tensor* norm_weight; /* [C]: RMSNorm first; or null: x as it is */
  sl_weight* wq;                /* [H*D, C] */
  sl_weight* wk;                /* [Hkv*D, C] */
  sl_weight* wv;                /* [Hkv*Dv, C] */
  const sl_tensor* bias_q;      /* [H*D], or null */
  const sl_tensor* bias_k;
  const sl_tensor* bias_v;
  const sl_tensor* norm_q;      /* QK-norm, or null. [D]: RMSNorm of each head of q; [H*D]: of the whole row */
  const sl_tensor* norm_k;      /* [D] or [Hkv*D]; of norm_q's kind where both are there */
  const sl_tensor* inv_freq;    /* F32 [R/2], R <= D even: the first R dims of a head turn; null: no RoPE */
  sl_kv_cache* cache;
  sl_batch* batch;
  const sl_tensor* q;           /* out [T,H,D] */
  float norm_eps;               /* of the norm of x */
  float qk_norm_eps;
  float rope_scale;             /* multiplies cos and sin (YaRN's attention factor); 0: 1 */
  sl_rope_kind rope_kind;
  const sl_tensor* squares;     /* as in sl_gated_linear_args */
} sl_fused_qkv_args;

/* Norm, the three projections, bias, QK-norm, RoPE at the batch's positions, append of K and V to the batch's slots.
   Rounded: x, normalised or not, to q's dtype, then as sl_linear of such an x; q to its dtype, K and V to the cache's; all else f32. */
SL_API sl_status sl_fused_qkv(sl_stream* stream, const sl_fused_qkv_args* args);

typedef struct sl_rope_args {
  uint32_t size;
  sl_rope_kind kind;
  const sl_tensor* x;         /* [T,H,D] */
  const sl_tensor* positions; /* I32 [T] */
  const sl_tensor* inv_freq;  /* F32 [R/2] */
  const sl_tensor* y;         /* [T,H,D]; may be x */
  float scale;                /* multiplies cos and sin; 0: 1 */
  uint32_t reserved;
} sl_rope_args;

/* Turns pair i of each head by positions[t] * inv_freq[i]; dims past R are copied. Angles in f32 at least: positions up
   to 2^20 within 1e-4.   Rounded: y.   Source: Su et al. 2021. */
SL_API sl_status sl_rope(sl_stream* stream, const sl_rope_args* args);

/* Writes k [T,Hkv,D] and v [T,Hkv,Dv] to the batch's slots of a layer.   Rounded: to the cache's dtype. */
SL_API sl_status sl_kv_append(sl_stream* stream, sl_kv_cache* cache, int32_t layer, sl_batch* batch, const sl_tensor* k,
                              const sl_tensor* v);

typedef struct sl_attention_args {
  uint32_t size;
  int32_t layer;
  sl_kv_cache* cache;
  sl_batch* batch;
  const sl_tensor* q;            /* [T,H,D] */
  const sl_tensor* o;            /* out [T,H,Dv] */
  const sl_tensor* lse2;         /* out F32 [T,H], or null */
  const sl_tensor* sinks;        /* F32 [H]: a further logit in each row's softmax that adds nothing to o; or null */
  const sl_tensor* alibi_slopes; /* F32 [H]: adds slope * (key's slot - the query's position) to the score; or null */
  float scale;                   /* of q.k; 0: 1/sqrt(D) */
  float soft_cap;                /* s = cap * tanh(s / cap); 0: none */
  int32_t window;                /* a query in slot i sees the keys j with i - window < j; 0: all */
  int32_t causal;                /* 1: keys up to the query's slot; a custom mask of the batch takes its place */
} sl_attention_args;

/* o = softmax(cap(scale * q.k) + alibi, masked) . v over paged KV, for ragged queries: decode (1 row a sequence),
   prefill, chunks of a prefill, and the few rows of speculated tokens. H is a multiple of Hkv. lse2 includes the sink.
   Rows past the batch's tokens become o = 0, lse2 = -inf. Prefixes of the batch are not looked at.
   Rounded: o; the probabilities may be rounded to q's dtype before the product with v; all else f32.
   Source: Kwon et al. 2023 (pages), Milakov and Gimelshein 2018 (online softmax), Dao et al. 2023 (split-KV). */
SL_API sl_status sl_paged_attention(sl_stream* stream, const sl_attention_args* args);

/* The same result; each prefix that the batch's plan shares (sl_sharing) is read once for all of its sequences. On reference and cpu the same to the
   bit as sl_paged_attention.   Source: Juravsky et al. 2024, Ye et al. 2024. */
SL_API sl_status sl_cascade_attention(sl_stream* stream, const sl_attention_args* args);

/* Merges S attention states over disjoint keys: o [S,T,H,Dv], lse2 F32 [S,T,H] -> y [T,H,Dv], y_lse2 F32 [T,H] or null.
   A state with lse2 = -inf counts for nothing, whatever its o holds. From left to right.   Rounded: y. */
SL_API sl_status sl_merge_states(sl_stream* stream, const sl_tensor* o, const sl_tensor* lse2, const sl_tensor* y,
                                 const sl_tensor* y_lse2);

/* y = act(gate) * up.   gate, up, y [T,F]; y may be gate or up.   Rounded: y. */
SL_API sl_status sl_gated_activation(sl_stream* stream, sl_activation activation, const sl_tensor* gate,
                                     const sl_tensor* up, const sl_tensor* y);

typedef struct sl_penalties_args {
  uint32_t size;
  uint32_t reserved;
  const sl_tensor* logits;         /* F32 [B,V], changed in place */
  const sl_tensor* history;        /* I32 [n]: token ids of all rows, ids outside 0..V-1 are passed over; or null */
  const sl_tensor* history_indptr; /* I32 [B+1] into history */
  const sl_tensor* repetition;     /* F32 [B]; 1: none */
  const sl_tensor* presence;       /* F32 [B]; 0: none */
  const sl_tensor* frequency;      /* F32 [B]; 0: none */
  const sl_tensor* bias_ids;       /* I32 [m]: logit bias, or null */
  const sl_tensor* bias_values;    /* F32 [m] */
  const sl_tensor* bias_indptr;    /* I32 [B+1] */
} sl_penalties_args;

/* For each distinct token of a row's history, seen c times: l = l > 0 ? l / repetition : l * repetition, then
   l -= presence + c * frequency. Then l[id] += value for each bias. */
SL_API sl_status sl_penalties(sl_stream* stream, const sl_penalties_args* args);

/* ids[b] = the lowest id of the largest logit.   logits F32 [B,V], ids I32 [B]. NaN never wins; a row of nothing but NaN gives 0. */
SL_API sl_status sl_argmax(sl_stream* stream, const sl_tensor* logits, const sl_tensor* ids);

typedef struct sl_sample_args {
  uint32_t size;
  uint32_t reserved;
  const sl_tensor* logits;      /* F32 [B,V], not changed */
  const sl_tensor* temperature; /* F32 [B]; 0: arg-max */
  const sl_tensor* top_k;       /* I32 [B]; 0: all */
  const sl_tensor* top_p;       /* F32 [B]; 1: all */
  const sl_tensor* min_p;       /* F32 [B]; 0: all */
  const sl_tensor* seed;        /* I64 [B] */
  const sl_tensor* position;    /* I64 [B]: of the token to be drawn in its sequence */
  const sl_tensor* ids;         /* out I32 [B] */
} sl_sample_args;

/* Draws one token a row: p = softmax(logits / temperature); keep the top_k largest; of these the fewest, largest first,
   whose sum reaches top_p of their total; of these the ones of at least min_p times the largest. Among the kept, the id
   with the largest log(p) + g, where g = -log(-log(u)) and u is word 0 of Philox4x32-10 with the key (seed's low, high
   32 bits) and the counter (position's low, high, id, 0), as (word + 0.5) / 2^32 in f64, g in f32: the same token
   for the same logits on every backend, in any batch. Ties go to the lowest id, in every step.
   Source: Holtzman et al. 2019 (top-p), Salmon et al. 2011 (Philox), Gumbel 1954. */
SL_API sl_status sl_sample(sl_stream* stream, const sl_sample_args* args);

typedef struct sl_log_probs_args {
  uint32_t size;
  uint32_t reserved;
  const sl_tensor* logits;        /* F32 [B,V] */
  const sl_tensor* ids;           /* I32 [B], or null */
  const sl_tensor* log_probs;     /* out F32 [B]: of ids; null with ids */
  const sl_tensor* top_ids;       /* out I32 [B,n], largest first, or null */
  const sl_tensor* top_log_probs; /* out F32 [B,n]; null with top_ids */
} sl_log_probs_args;

/* Natural log-softmax of the logits at the given ids and at the n largest. An id outside 0..V-1 gives NaN. n <= V. */
SL_API sl_status sl_log_probs(sl_stream* stream, const sl_log_probs_args* args);

#ifdef __cplusplus
}
#endif
#endif
