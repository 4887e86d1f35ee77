// A step's plan: checked on the host, then copied to fixed addresses on the device.
#include <algorithm>
#include <utility>

#include "sharing.h"
#include "tensor.h"

using namespace sl;

namespace {

// The arrays of a plan lie one after another, each aligned to 16 bytes; the two of varying length last.
struct layout {
  explicit layout(const sl_batch_options& o) {
    auto place = [&](size_t count, size_t element) {
      size_t at = bytes;
      bytes = (bytes + count * element + 15) & ~size_t{15};
      return at;
    };
    size_t sequences = static_cast<size_t>(o.max_sequences), tokens = static_cast<size_t>(o.max_tokens);
    header = place(1, sizeof(plan_header));
    query_indptr = place(sequences + 1, 4);
    kv_lengths = place(sequences, 4);
    page_indptr = place(sequences + 1, 4);
    positions = place(tokens, 4);
    token_sequence = place(tokens, 4);
    token_slot = place(tokens, 4);
    mask_indptr = place(sequences + 1, 4);
    prefixes = place(static_cast<size_t>(o.max_prefixes), sizeof(sl_prefix));
    prefix_lengths = place(sequences, 4);
    prefix_indptr = place(static_cast<size_t>(o.max_prefixes) + 1, 4);
    prefix_parents = place(static_cast<size_t>(o.max_prefixes), 4);
    sequence_prefix = place(sequences, 4);
    page_ids = place(static_cast<size_t>(o.max_page_ids), 4);
    mask = place(static_cast<size_t>(o.max_mask_bytes), 1);
  }

  plan_view over(char* base) const {
    auto at = [&](size_t offset) { return reinterpret_cast<const int32_t*>(base + offset); };
    return {reinterpret_cast<const plan_header*>(base + header), at(query_indptr), at(kv_lengths), at(page_indptr),
            at(page_ids), at(positions), at(token_sequence), at(token_slot), reinterpret_cast<const uint8_t*>(base + mask),
            at(mask_indptr), reinterpret_cast<const sl_prefix*>(base + prefixes), at(prefix_lengths),
            at(prefix_indptr), at(prefix_parents), at(sequence_prefix)};
  }

  size_t bytes = 0;
  size_t header, query_indptr, kv_lengths, page_indptr, page_ids, positions, token_sequence, token_slot, mask, mask_indptr,
      prefixes, prefix_lengths, prefix_indptr, prefix_parents, sequence_prefix;
};

template <typename T>
T* writable(const T* p) { return const_cast<T*>(p); }

// A row-pointer array of a step: from 0, not falling, at most `capacity` in all.
int32_t check_indptr(const int32_t* indptr, int32_t rows, int32_t capacity, const char* name) {
  checked_pointer(indptr, name);
  if (indptr[0] != 0) fail(SL_ERR_ARGUMENT, "step.%s[0] is %d, expected 0", name, indptr[0]);
  for (int32_t b = 0; b < rows; b++)
    if (indptr[b + 1] < indptr[b])
      fail(SL_ERR_ARGUMENT, "step.%s falls from %d to %d at sequence %d", name, indptr[b], indptr[b + 1], b);
  if (indptr[rows] > capacity)
    fail(SL_ERR_SHAPE, "step.%s ends at %d, the batch was made for %d", name, indptr[rows], capacity);
  return indptr[rows];
}

void check_prefixes(const sl_batch_step& step, int32_t page_size, std::vector<sl_prefix>& sorted) {
  thread_local std::vector<int32_t> lengths, last;  // of each sequence: keys that prefixes cover, and the last of these
  lengths.assign(static_cast<size_t>(step.num_sequences), 0);
  last.assign(static_cast<size_t>(step.num_sequences), -1);
  sorted.assign(step.prefixes, step.prefixes + step.num_prefixes);
  std::sort(sorted.begin(), sorted.end(), [](const sl_prefix& a, const sl_prefix& b) {
    return a.first_key != b.first_key ? a.first_key < b.first_key : a.first_sequence < b.first_sequence;
  });
  for (int32_t i = 0; i < step.num_prefixes; i++) {
    const sl_prefix& p = sorted[static_cast<size_t>(i)];
    if (p.first_sequence < 0 || p.num_sequences < 1 || p.num_sequences > step.num_sequences - p.first_sequence)
      fail(SL_ERR_ARGUMENT, "prefix of %d sequences from %d: the step has %d", p.num_sequences, p.first_sequence, step.num_sequences);
    if (p.first_key < 0 || p.num_keys < 1 || p.first_key % SL_ATTENTION_CHUNK != 0 || p.num_keys % SL_ATTENTION_CHUNK != 0)
      fail(SL_ERR_ARGUMENT, "prefix of %d keys from %d: expected multiples of %d", p.num_keys, p.first_key, SL_ATTENTION_CHUNK);
    const int32_t* first_row = step.page_ids + step.page_indptr[p.first_sequence];
    const int32_t before = last[static_cast<size_t>(p.first_sequence)];
    for (int32_t b = p.first_sequence; b < p.first_sequence + p.num_sequences; b++) {
      int32_t& length = lengths[static_cast<size_t>(b)];
      if (length != p.first_key)
        fail(SL_ERR_ARGUMENT, "prefixes cover sequence %d up to key %d, the next one begins at %d", b, length, p.first_key);
      if (last[static_cast<size_t>(b)] != before)
        fail(SL_ERR_ARGUMENT, "prefix of %d keys from %d: the sequences %d and %d have different prefixes before it", p.num_keys, p.first_key, p.first_sequence, b);
      int32_t before_queries = step.kv_lengths[b] - (step.query_indptr[b + 1] - step.query_indptr[b]);
      if (p.num_keys > before_queries - p.first_key)
        fail(SL_ERR_ARGUMENT, "prefix of %d keys from %d: sequence %d has %d keys before its queries", p.num_keys, p.first_key, b, before_queries);
      const int32_t* row = step.page_ids + step.page_indptr[b];
      const int32_t first_page = p.first_key / page_size, count = p.num_keys / page_size;
      if (std::memcmp(row + first_page, first_row + first_page, static_cast<size_t>(count) * 4) != 0) {
        const int32_t page = static_cast<int32_t>(std::mismatch(row + first_page, row + first_page + count, first_row + first_page).first - row);
        fail(SL_ERR_ARGUMENT, "prefix: page %d of sequence %d is %d, of sequence %d it is %d", page, b, row[page], p.first_sequence, first_row[page]);
      }
      length = p.first_key + p.num_keys;
      last[static_cast<size_t>(b)] = i;
    }
  }
}

// Where the rows of shared prefixes stand, what follows what, and where each sequence's own keys begin.
void plan_prefixes(const sl_batch_step& step, const std::vector<sl_prefix>& shared, const batch_view& v) {
  const plan_view& h = v.host;
  int32_t *indptr = writable(h.prefix_indptr), *parents = writable(h.prefix_parents);
  int32_t *lengths = writable(h.prefix_lengths), *last = writable(h.sequence_prefix);
  std::fill(lengths, lengths + v.max_sequences, 0);
  std::fill(last, last + v.max_sequences, -1);
  int32_t rows = 0, index = 0;
  for (const sl_prefix& p : shared) {
    indptr[index] = rows, parents[index] = last[p.first_sequence];
    for (int32_t b = p.first_sequence; b < p.first_sequence + p.num_sequences; b++) lengths[b] = p.first_key + p.num_keys, last[b] = index;
    rows += step.query_indptr[p.first_sequence + p.num_sequences] - step.query_indptr[p.first_sequence];
    writable(h.prefixes)[index++] = p;
  }
  std::fill(indptr + index, indptr + v.max_prefixes + 1, rows);
}

}  // namespace

sl_batch::~sl_batch() {
  if (device_data != nullptr) stream->release_later(device_data, device_bytes, SL_MEMORY_DEVICE);
}

sl_status sl_batch_create(sl_stream* stream, sl_kv_cache* cache, const sl_batch_options* options, sl_batch** out) {
  return guard_stream("sl_batch_create", stream, [&](sl_stream& s) {
    checked_pointer(out, "batch") = nullptr;
    sl_batch_options o = checked_struct(options, "options");
    require_same_device(s, checked(cache, "cache").stream->device.get(), "cache");
    require_not_capturing(s, "a batch is made");
    auto within = [](const char* name, int32_t value, int32_t lowest, int32_t highest) {
      if (value < lowest || value > highest)
        fail(SL_ERR_ARGUMENT, "options.%s is %d, expected %d..%d", name, value, lowest, highest);
    };
    within("max_tokens", o.max_tokens, 1, 1 << 24);
    within("max_sequences", o.max_sequences, 1, 1 << 20);
    within("max_page_ids", o.max_page_ids, 1, 1 << 28);
    within("max_mask_bytes", o.max_mask_bytes, 0, 1 << 30);
    within("max_prefixes", o.max_prefixes, 0, 1 << 20);
    if (o.query_heads == 0) o.query_heads = cache->view.kv_heads;
    within("query_heads", o.query_heads, 1, 1 << 20);
    if (o.query_heads % cache->view.kv_heads != 0)
      fail(SL_ERR_ARGUMENT, "options.query_heads is %d, expected a multiple of the cache's %d heads", o.query_heads, cache->view.kv_heads);
    if (o.max_prefix_rows == 0) o.max_prefix_rows = 4 * o.max_tokens;
    within("max_prefix_rows", o.max_prefix_rows, 1, 1 << 28);
    within("sharing", o.sharing, SL_SHARING_BY_COST, SL_SHARING_ALWAYS);
    layout l(o);
    auto b = std::make_unique<sl_batch>(&s, cache);
    b->device_data = static_cast<char*>(s.impl->allocate(l.bytes, SL_MEMORY_DEVICE));
    b->device_bytes = l.bytes;  // before the mirror: the device tells how much it lacks
    b->host.resize(l.bytes);
    b->written.resize(static_cast<size_t>(cache->view.pages));
    b->pages_offset = l.page_ids;
    b->mask_offset = l.mask;
    b->view = {l.over(b->host.data()), l.over(b->device_data), o.max_tokens, o.max_sequences, o.max_page_ids, o.max_mask_bytes, o.max_prefixes, o.max_prefix_rows};
    b->query_heads = o.query_heads, b->sharing = o.sharing;
    *out = b.release();
  });
}

void sl_batch_release(sl_batch* batch) { release(batch); }

sl_status sl_batch_update(sl_stream* stream, sl_batch* batch, const sl_batch_step* given) {
  return guard_stream("sl_batch_update", stream, [&](sl_stream& s) {
    sl_batch& b = checked(batch, "batch");
    require_same_device(s, b.stream->device.get(), "batch");
    require_not_capturing(s, "a batch is updated");
    sl_batch_step step = checked_struct(given, "step");
    const batch_view& v = b.view;
    const int32_t page_size = b.cache->view.page_size, pages = b.cache->view.pages, sequences = step.num_sequences;
    if (sequences < 0) fail(SL_ERR_ARGUMENT, "step.num_sequences is %d", sequences);
    if (sequences > v.max_sequences)
      fail(SL_ERR_SHAPE, "step.num_sequences is %d, the batch was made for %d", sequences, v.max_sequences);

    // Everything is checked before anything is written: a refused step leaves the last plan in force.
    int32_t tokens = check_indptr(step.query_indptr, sequences, v.max_tokens, "query_indptr");
    int32_t page_count = check_indptr(step.page_indptr, sequences, v.max_page_ids, "page_indptr");
    int32_t max_kv = 0, max_query = 0;
    if (sequences > 0) checked_pointer(step.kv_lengths, "step.kv_lengths");
    if (page_count > 0) checked_pointer(step.page_ids, "step.page_ids");
    // One pass without a branch, for there are thousands of them; which it was is looked for afterwards.
    uint32_t highest = 0;
    for (int32_t i = 0; i < page_count; i++) highest = std::max(highest, static_cast<uint32_t>(step.page_ids[i]));
    if (page_count > 0 && highest >= static_cast<uint32_t>(pages)) {
      int32_t i = 0;
      while (static_cast<uint32_t>(step.page_ids[i]) < static_cast<uint32_t>(pages)) i++;
      fail(SL_ERR_ARGUMENT, "step.page_ids[%d] is %d, the cache has the pages 0..%d", i, step.page_ids[i], pages - 1);
    }
    for (int32_t q = 0; q < sequences; q++) {
      int32_t length = step.kv_lengths[q], queries = step.query_indptr[q + 1] - step.query_indptr[q];
      int64_t room = static_cast<int64_t>(step.page_indptr[q + 1] - step.page_indptr[q]) * page_size;
      if (length < queries)
        fail(SL_ERR_ARGUMENT, "step.kv_lengths[%d] is %d, less than the sequence's %d query rows", q, length, queries);
      if (length > room)
        fail(SL_ERR_ARGUMENT, "step.kv_lengths[%d] is %d, its pages hold %lld tokens", q, length, (long long)room);
      max_kv = std::max(max_kv, length);
      max_query = std::max(max_query, queries);
    }
    if (step.positions != nullptr)
      for (int32_t t = 0; t < tokens; t++)
        if (step.positions[t] < 0) fail(SL_ERR_ARGUMENT, "step.positions[%d] is %d", t, step.positions[t]);
    int32_t mask_bytes = 0;
    if (step.mask != nullptr || step.mask_indptr != nullptr) {
      checked_pointer(step.mask, "step.mask");
      mask_bytes = check_indptr(step.mask_indptr, sequences, v.max_mask_bytes, "mask_indptr");
      for (int32_t q = 0; q < sequences; q++) {
        int64_t row = step.mask_indptr[q + 1] - step.mask_indptr[q];
        int64_t needed = static_cast<int64_t>(step.query_indptr[q + 1] - step.query_indptr[q]) * ((int64_t{step.kv_lengths[q]} + 7) / 8);
        if (row != 0 && row != needed)
          fail(SL_ERR_ARGUMENT, "step.mask_indptr: sequence %d has %lld bytes, expected %lld or 0", q, (long long)row, (long long)needed);
      }
    }
    // A slot that two rows of tokens write would hold either's: pages with query rows belong to one sequence, once.
    if (++b.updates == 0) {
      std::fill(b.written.begin(), b.written.end(), 0);
      b.updates = 1;
    }
    for (int32_t q = 0; q < sequences; q++) {
      int32_t end = step.kv_lengths[q], begin = end - (step.query_indptr[q + 1] - step.query_indptr[q]);
      const int32_t* row = step.page_ids + step.page_indptr[q];
      for (int32_t page = begin / page_size; begin < end && page <= (end - 1) / page_size; page++)
        if (std::exchange(b.written[static_cast<size_t>(row[page])], b.updates) == b.updates)
          fail(SL_ERR_ARGUMENT, "page %d is written twice in one step: the pages that a step appends to belong to one sequence each", row[page]);
    }
    if (step.num_prefixes < 0) fail(SL_ERR_ARGUMENT, "step.num_prefixes is %d", step.num_prefixes);
    if (step.num_prefixes > v.max_prefixes)
      fail(SL_ERR_SHAPE, "step.num_prefixes is %d, the batch was made for %d", step.num_prefixes, v.max_prefixes);
    if (step.num_prefixes > 0) checked_pointer(step.prefixes, "step.prefixes");
    thread_local std::vector<sl_prefix> sorted;
    check_prefixes(step, page_size, sorted);
    const kv_view& cache = b.cache->view;
    choose_shared(sorted, {step.query_indptr, &cache, b.query_heads, v.max_prefix_rows, b.sharing}, s.device->impl->costs_of_sharing(cache.dtype));

    const plan_view& h = v.host;
    *writable(h.header) = {tokens, sequences, static_cast<int32_t>(sorted.size()), max_kv, max_query, mask_bytes > 0, 0, 0};
    auto rows = [&](const int32_t* to, const int32_t* from, int32_t count, int32_t capacity, int32_t rest) {
      int32_t* out = writable(to);
      if (count > 0) std::memcpy(out, from, static_cast<size_t>(count) * 4);
      std::fill(out + count, out + capacity, rest);
    };
    rows(h.query_indptr, step.query_indptr, sequences + 1, v.max_sequences + 1, tokens);
    rows(h.kv_lengths, step.kv_lengths, sequences, v.max_sequences, 0);
    rows(h.page_indptr, step.page_indptr, sequences + 1, v.max_sequences + 1, page_count);
    rows(h.mask_indptr, step.mask_indptr, mask_bytes > 0 ? sequences + 1 : 0, v.max_sequences + 1, mask_bytes);
    plan_prefixes(step, sorted, v);
    if (page_count > 0) std::memcpy(writable(h.page_ids), step.page_ids, static_cast<size_t>(page_count) * 4);
    if (mask_bytes > 0) std::memcpy(writable(h.mask), step.mask, static_cast<size_t>(mask_bytes));
    int32_t *positions = writable(h.positions), *sequence_of = writable(h.token_sequence), *slots = writable(h.token_slot);
    for (int32_t q = 0; q < sequences; q++) {
      int32_t first = step.query_indptr[q], end = step.query_indptr[q + 1], slot = step.kv_lengths[q] - (end - first);
      for (int32_t t = first; t < end; t++, slot++) {
        sequence_of[t] = q;
        slots[t] = slot;
        positions[t] = step.positions != nullptr ? step.positions[t] : slot;
      }
    }
    std::fill(positions + tokens, positions + v.max_tokens, 0);
    std::fill(sequence_of + tokens, sequence_of + v.max_tokens, -1);
    std::fill(slots + tokens, slots + v.max_tokens, -1);
    s.impl->upload(b.device_data, b.host.data(), b.pages_offset + static_cast<uint64_t>(page_count) * 4);
    if (mask_bytes > 0) s.impl->upload(b.device_data + b.mask_offset, b.host.data() + b.mask_offset, static_cast<uint64_t>(mask_bytes));
    b.planned = true;
  });
}

sl_status sl_batch_get_info(sl_batch* batch, sl_batch_info* info) {
  return guard("sl_batch_get_info", [&] {
    sl_batch_info full = checked_struct(static_cast<const sl_batch_info*>(info), "info");
    const sl_batch& b = checked(batch, "batch");
    if (!b.planned) fail(SL_ERR_STATE, "the batch has no plan yet: sl_batch_update makes one");
    const plan_view& h = b.view.host;
    full.num_tokens = h.header->num_tokens, full.num_sequences = h.header->num_sequences, full.num_prefixes = h.header->num_prefixes;
    full.prefix_rows = h.prefix_indptr[h.header->num_prefixes];
    full.keys = full.keys_shared = 0;
    for (int32_t i = 0; i < full.num_sequences; i++) full.keys += h.kv_lengths[i], full.keys_shared += h.kv_lengths[i] - h.prefix_lengths[i];
    for (int32_t i = 0; i < full.num_prefixes; i++) full.keys_shared += h.prefixes[i].num_keys;
    std::memcpy(info, &full, full.size);
  });
}
