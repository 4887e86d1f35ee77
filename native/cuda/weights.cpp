// Weights: from a file's encoding to what the kernels read (kernels/weight.h). Values are kept: four-bit encodings stay
// four-bit, five to eight become a signed byte, and what fits neither becomes f32.
#include <cstring>
#include <vector>

#include "blocks.h"
#include "device.h"
#include "error.h"
#include "packed.h"
#include "quants.h"
#include "stream.h"
#include "weight.h"

namespace sl {
namespace SL_BACKEND_NS {

cuda_weight::~cuda_weight() {
  quietly(device_, [&] {
    cudaFree(data);
    cudaFree(groups);
  });
}

namespace {

void* allocate(const cuda_device& d, uint64_t bytes) {
  void* p = nullptr;
  if (bytes == 0) return p;
  cudaError_t e = cudaMalloc(&p, bytes);
  if (e == cudaErrorMemoryAllocation) {
    // The pool of streams' memory keeps what was freed: a cache that is gone may be in the way.
    cudaGetLastError();
    cudaMemPool_t pool;
    check(cudaDeviceGetDefaultMemPool(&pool, d.ordinal()), "cudaDeviceGetDefaultMemPool");
    check(cudaMemPoolTrimTo(pool, 0), "cudaMemPoolTrimTo");
    e = cudaMalloc(&p, bytes);
  }
  check_allocation(e, "cudaMalloc", bytes);
  return p;
}

struct plan {
  sl::SL_BACKEND_NS::storage storage;
  int group;
};

bool in_order(const sl_weight_source& s) {
  for (int64_t k = 0; s.order && k < s.cols; k++)
    if (s.order[k] != k / s.group) return false;
  return true;
}

plan plan_of(const sl_weight_source& s) {
  switch (s.encoding) {
    case SL_ENCODING_F16: return {storage::f16, 1};
    case SL_ENCODING_BF16: return {storage::bf16, 1};
    case SL_ENCODING_Q4_0: return {storage::int4_zero, 32};
    case SL_ENCODING_Q4_1: return {storage::int4_bias, 32};
    case SL_ENCODING_Q4_K: return {storage::int4_wide, 32};
    case SL_ENCODING_GPTQ4:
    case SL_ENCODING_GPTQ4_V2:
    case SL_ENCODING_AWQ4:
      if (s.group % 8 == 0 && in_order(s)) return {storage::int4_zero, s.group};
      return {storage::f32, 1};  // groups across a word, or rows out of order
    case SL_ENCODING_Q5_0:
    case SL_ENCODING_Q5_1:
    case SL_ENCODING_Q5_K:
    case SL_ENCODING_Q8_0: return {storage::int8, 32};
    case SL_ENCODING_Q6_K: return {storage::int8, 16};
    case SL_ENCODING_INT8:
      if (s.group % 8 == 0) return {storage::int8, s.group};
      return {storage::f32, 1};
    default: return {storage::f32, 1};
  }
}

// Each group's two numbers: binary16 where the file has them so, else f32.
void put_groups(char* to, const std::vector<float>& scale, const std::vector<float>& second, bool halves) {
  for (size_t g = 0; g < scale.size(); g++) {
    if (halves) {
      const uint16_t both[2] = {f32_to_f16(scale[g]), f32_to_f16(second[g])};
      std::memcpy(to + g * 4, both, 4);
    } else {
      const float both[2] = {scale[g], second[g]};
      std::memcpy(to + g * 8, both, 8);
    }
  }
}

void put_int4(char* to, const std::vector<int>& q) {
  auto* words = reinterpret_cast<uint32_t*>(to);
  for (size_t k = 0; k < q.size(); k++) words[int4_word((long long)k)] |= uint32_t(q[k]) << int4_bit((long long)k);
}

void put_int8(char* to, const std::vector<int>& q) {
  for (size_t k = 0; k < q.size(); k++) to[int8_byte((long long)k)] = char(q[k]);
}

}  // namespace

std::unique_ptr<weight> cuda_device::create_weight(stream& s, const sl_weight_source& source) {
  context_scope scope(*this);
  auto w = std::make_unique<cuda_weight>(*this);
  const plan p = plan_of(source);
  const int64_t N = source.rows, K = source.cols;
  w->rows = N, w->cols = K, w->encoding = source.encoding;
  w->storage = p.storage, w->group = p.group;

  const bool four = p.storage == storage::int4_zero || p.storage == storage::int4_bias || p.storage == storage::int4_wide;
  const bool quantised = four || p.storage == storage::int8;
  const uint64_t group_bytes = p.storage == storage::int4_zero || p.storage == storage::int4_bias ? 4 : 8;
  const uint64_t row_bytes = quantised ? uint64_t(units_of(K, four ? int4_unit : int8_unit)) * 16
                                       : uint64_t(K) * (p.storage == storage::f32 ? 4 : 2);
  const uint64_t row_group_bytes = quantised ? uint64_t(K / p.group) * group_bytes : 0;
  w->data_bytes = uint64_t(N) * row_bytes, w->group_bytes = uint64_t(N) * row_group_bytes;
  w->data = static_cast<char*>(allocate(*this, w->data_bytes));
  w->groups = static_cast<char*>(allocate(*this, w->group_bytes));

  const cudaStream_t stream = native(s);
  pinned_staging& staging = static_cast<cuda_stream&>(s).staging();
  const auto upload = [&](char* to, const void* from, uint64_t bytes) {
    staging.send_all(to, from, bytes, stream);
  };
  const bool as_it_is = source.encoding == SL_ENCODING_F32 || p.storage == storage::f16 || p.storage == storage::bf16;
  if (as_it_is) {
    upload(w->data, source.data, w->data_bytes);
  } else {
    // In slabs of rows, so that the host holds some megabytes and not the matrix.
    const int64_t slab = std::max<int64_t>(1, (int64_t(4) << 20) / int64_t(row_bytes));
    std::vector<char> data, groups;
    row_quants row;
    for (int64_t first = 0; first < N; first += slab) {
      const int64_t count = std::min(slab, N - first);
      data.assign(size_t(count) * row_bytes, 0);
      groups.assign(size_t(count) * row_group_bytes, 0);
      if (!quantised) dequantise_rows(source, first, count, reinterpret_cast<float*>(data.data()));
      for (int64_t n = 0; quantised && n < count; n++) {
        row.read(source, first + n, p.group);
        char* to = data.data() + size_t(n) * row_bytes;
        if (four) put_int4(to, row.q);
        else put_int8(to, row.q);
        put_groups(groups.data() + size_t(n) * row_group_bytes, row.scale, row.second, group_bytes == 4);
      }
      upload(w->data + uint64_t(first) * row_bytes, data.data(), data.size());
      upload(w->groups + uint64_t(first) * row_group_bytes, groups.data(), groups.size());
    }
  }
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");  // other streams may use it now
  return w;
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
