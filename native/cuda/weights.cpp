// Weights: from a file's encoding to what the kernels read (kernels/weight.h, kernels/packed.h). Numbers keep their bits; what has no
// packed form becomes f32.
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
  if (borrowed) return;
  quietly(device_, [&] {
    for (char* part : {data, high, scales, supers}) cudaFree(part);
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

// Rows of a matrix in their packed places: some whole groups of eight rows.
struct slab {
  int64_t blocks;  // of 128 columns
  std::vector<char> data, high, scales, supers;
};

// `n` counts from the slab's first row.
void put_row(slab& s, int64_t n, const packed_row& row, const packed_format& f) {
  auto* words = reinterpret_cast<uint32_t*>(s.data.data());
  auto* high = reinterpret_cast<uint32_t*>(s.high.data());
  for (size_t k = 0; k < row.q.size(); k++) {
    const packed_place p = place_in_row(int(k));
    const uint32_t q = row.q[k];
    if (f.storage == storage::eight) {
      s.data[size_t(eight_byte(n, s.blocks, p))] = char(q);
      continue;
    }
    words[four_word(n, s.blocks, p)] |= (q & 15) << four_bit(p);
    if (f.storage == storage::five) high[lane_word(n, s.blocks, p, 1)] |= q >> 4 << fifth_bit(p);
    else if (f.storage == storage::six) high[sixth_word(n, s.blocks, p)] |= q >> 4 << sixth_bit(p);
  }
  const int64_t each = packed_block / f.group;
  const auto put = [n](std::vector<char>& to, const std::vector<uint8_t>& from, int64_t of_row, int64_t at_once) {
    // [of_row / at_once][8 rows][at_once]
    for (int64_t first = 0; first < int64_t(from.size()); first += at_once)
      std::memcpy(to.data() + (n / packed_rows * of_row + first) * packed_rows + n % packed_rows * at_once, from.data() + first,
                  size_t(std::min(at_once, int64_t(from.size()) - first)));
  };
  put(s.scales, row.scales, s.blocks * each * scale_size(f.scaling), each * scale_size(f.scaling));
  if (super_size(f.scaling) > 0) put(s.supers, row.supers, (s.blocks + 1) / 2 * super_size(f.scaling), super_size(f.scaling));
}

}  // namespace

std::unique_ptr<weight> cuda_device::create_weight(stream& s, const sl_weight_source& source) {
  context_scope scope(*this);
  auto w = std::make_unique<cuda_weight>(*this);
  const packed_format f = format_of(source);
  const int64_t N = source.rows, K = source.cols;
  w->rows = N, w->cols = K, w->encoding = source.encoding;
  w->storage = f.storage, w->scaling = f.scaling, w->group = f.group, w->center = f.center;

  // Bytes of eight rows, or of one where rows are not packed.
  const bool packed = w->quantised();
  const int64_t step = packed ? packed_rows : 1, steps = (N + step - 1) / step, blocks = packed_blocks(K);
  const int64_t each = packed ? packed_block / f.group : 0;
  const uint64_t data_step = !packed ? uint64_t(K) * (f.storage == storage::f32 ? 4 : 2) : uint64_t(blocks) * (f.storage == storage::eight ? 1024 : 512);
  const uint64_t high_step = f.storage == storage::five ? uint64_t(blocks) * 128 : f.storage == storage::six ? uint64_t(blocks) * 256 : 0;
  const uint64_t scale_step = uint64_t(blocks * each * packed_rows * scale_size(f.scaling));
  const uint64_t super_step = packed ? uint64_t((blocks + 1) / 2 * packed_rows * super_size(f.scaling)) : 0;
  w->data_bytes = uint64_t(steps) * data_step, w->high_bytes = uint64_t(steps) * high_step;
  w->scale_bytes = uint64_t(steps) * scale_step, w->super_bytes = uint64_t(steps) * super_step;
  w->data = static_cast<char*>(allocate(*this, w->data_bytes));
  w->high = static_cast<char*>(allocate(*this, w->high_bytes));
  w->scales = static_cast<char*>(allocate(*this, w->scale_bytes));
  w->supers = static_cast<char*>(allocate(*this, w->super_bytes));

  const cudaStream_t stream = native(s);
  pinned_staging& staging = static_cast<cuda_stream&>(s).staging();
  if (source.encoding == SL_ENCODING_F32 || f.storage == storage::f16 || f.storage == storage::bf16) {
    staging.send_all(w->data, source.data, w->data_bytes, stream);
  } else {
    // In slabs of rows, so that the host holds some megabytes and not the matrix.
    const int64_t at_once = std::max<int64_t>(1, (int64_t(4) << 20) / int64_t(data_step));
    slab part{blocks, {}, {}, {}, {}};
    packed_row row;
    for (int64_t first = 0; first < steps; first += at_once) {
      const int64_t count = std::min(at_once, steps - first), rows = std::min(count * step, N - first * step);
      part.data.assign(size_t(count) * data_step, 0);
      part.high.assign(size_t(count) * high_step, 0);
      part.scales.assign(size_t(count) * scale_step, 0);
      part.supers.assign(size_t(count) * super_step, 0);
      if (!packed) dequantise_rows(source, first, count, reinterpret_cast<float*>(part.data.data()));
      for (int64_t n = 0; packed && n < rows; n++) {
        row.read(source, first * step + n, f);
        put_row(part, n, row, f);
      }
      const auto send = [&](char* to, const std::vector<char>& from, uint64_t each_step) {
        if (!from.empty()) staging.send_all(to + uint64_t(first) * each_step, from.data(), from.size(), stream);
      };
      send(w->data, part.data, data_step), send(w->high, part.high, high_step);
      send(w->scales, part.scales, scale_step), send(w->supers, part.supers, super_step);
    }
  }
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");  // other streams may use it now
  return w;
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
