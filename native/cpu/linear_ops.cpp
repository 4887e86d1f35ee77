// Ops with a weight: embedding, linear, gated_linear, fused_qkv. Rows of x are brought into the form that the weight's kernel takes,
// then panels of the weight and blocks of rows become tasks.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "cpu.h"

namespace sl::cpu {
namespace {

// bf16 weights whose kernel takes x in bf16.
bool takes_bf16(const cpu_device& d, const cpu_weight& w) { return w.packed.format == weight_format::bf16 && d.kernel.rounds_to_bf16; }

// Weights that take x in the same form share its preparation.
bool same_input(const cpu_device& d, const cpu_weight& a, const cpu_weight& b) {
  return a.rounds_x() == b.rounds_x() && takes_bf16(d, a) == takes_bf16(d, b) && a.order == b.order;
}

// Rows of x in the form that a weight multiplies; any number of weights may share them.
struct linear_input {
  const uint8_t* packed = nullptr;
  const float* x = nullptr;
  int64_t x_stride = 0;
};

// x (rows [T, K]), or its rows' RMS norms where there is a norm, rounded to x's dtype.
struct input_rows {
  const view& x;
  const view& norm;
  float eps;
};

// The values of a tile of rows as a weight that rounds x takes them, made from normalised ones in a thread's own memory.
int64_t tile_floats(const view& x) { return kMostTileRows * x.shape[1]; }

view own_rows(const view& x, void* data) {
  view own = x;
  own.data = data;
  own.stride[0] = x.shape[1];
  own.stride[1] = 1;
  return own;
}

void normalise(const cpu_device& d, const input_rows& in, int64_t t, const row& y) {
  d.kernel.rms_norm(row_of(in.x, t), {in.norm.data, in.norm.dtype}, in.x.shape[1], in.eps, row{}, y);
}

// Counts what prepare_input takes.
void reserve_input(const cpu_device& d, const input_rows& in, const cpu_weight& w, arena& space) {
  const int64_t T = in.x.shape[0], K = w.cols;
  if (w.rounds_x()) {
    space.take<uint8_t>(packed_bytes(T, K));
    if (in.norm) space.take<float>(d.pool.threads() * tile_floats(in.x));
    return;
  }
  if (in.norm) space.take<float>(T * K);
  if (takes_bf16(d, w)) {
    space.take<uint16_t>(T * (K + K % 2));
    if (in.x.dtype == SL_DTYPE_F16) space.take<float>(d.pool.threads() * K);
    return;
  }
  if (in.x.dtype != SL_DTYPE_F32) space.take<float>(T * K);
  if (!w.order.empty()) space.take<float>(T * K);
}

// Made in `space` where they are not usable as they stand.
linear_input prepare_input(cpu_device& d, const input_rows& rows, const cpu_weight& w, arena& space) {
  const int64_t T = rows.x.shape[0], K = w.cols;
  linear_input in;
  if (!w.rounds_x()) {
    view x = rows.x;
    if (rows.norm) {
      x = own_rows(x, space.take<float>(T * K));
      for_rows(d, T, K, [&](int64_t t, int) { normalise(d, rows, t, row_of(x, t)); });
    }
    if (takes_bf16(d, w)) {
      in.x_stride = K + K % 2;
      auto* rounded = space.take<uint16_t>(T * in.x_stride);
      float* wide = x.dtype == SL_DTYPE_F16 ? space.take<float>(d.pool.threads() * K) : nullptr;
      for_rows(d, T, K, [&](int64_t t, int thread) {
        uint16_t* y = rounded + t * in.x_stride;
        if (K % 2 != 0) y[K] = 0;
        if (x.dtype == SL_DTYPE_BF16) {
          std::memcpy(y, at(x, t), static_cast<size_t>(K * 2));
          return;
        }
        const float* from = x.dtype == SL_DTYPE_F32 ? reinterpret_cast<const float*>(at(x, t)) : wide + thread * K;
        if (x.dtype == SL_DTYPE_F16) d.kernel.widen(row_of(x, t), K, 1.0f, wide + thread * K);
        d.kernel.narrow(from, K, {y, SL_DTYPE_BF16});
      });
      in.packed = reinterpret_cast<const uint8_t*>(rounded);
      return in;
    }
    in.x = x.as<float>();
    in.x_stride = x.stride[0];
    if (x.dtype != SL_DTYPE_F32) {
      auto* wide = space.take<float>(T * K);
      for_rows(d, T, K, [&](int64_t t, int) { d.kernel.widen(row_of(x, t), K, 1.0f, wide + t * K); });
      in.x = wide;
      in.x_stride = K;
    }
    if (!w.order.empty()) {  // act order: the columns of x as the weight's stand
      auto* sorted = space.take<float>(T * K);
      for_rows(d, T, 4 * K, [&](int64_t t, int) {
        const float* from = in.x + t * in.x_stride;
        for (int64_t k = 0; k < K; ++k) sorted[t * K + k] = from[w.order[static_cast<size_t>(k)]];
      });
      in.x = sorted;
      in.x_stride = K;
    }
    return in;
  }
  auto* packed = space.take<uint8_t>(packed_bytes(T, K));
  float* normalised = rows.norm ? space.take<float>(d.pool.threads() * tile_floats(rows.x)) : nullptr;
  // Tiles of the most rows, and smaller ones for what is left over. Where tiles are fewer than threads each is cut along K: whole blocks of
  // several cache lines, for rows of a tile share lines. The norm needs whole rows, and each piece then makes it for itself.
  const int64_t step = d.kernel.row_tile(kMostTileRows), whole = T / step;
  int64_t rest = 0;
  for (int64_t m = whole * step; m < T; m += d.kernel.row_tile(T - m)) ++rest;
  const int64_t blocks = K / kBlock, tiles = whole + rest, threads = d.pool.threads();
  const int64_t worth = std::max<int64_t>(1, std::min(T, step) * K / 4096);  // pieces that pay for being handed over
  const int64_t pieces = std::min({(threads + tiles - 1) / std::max<int64_t>(1, tiles), worth, std::max<int64_t>(1, blocks)});
  for_rows(d, tiles * pieces, 2 * K * step / pieces, [&](int64_t i, int thread) {
    int64_t m = std::min(i / pieces, whole) * step;
    for (int64_t skip = i / pieces - whole; skip > 0; --skip) m += d.kernel.row_tile(T - m);
    const int64_t tile = d.kernel.row_tile(T - m), first = i % pieces * blocks / pieces, last = (i % pieces + 1) * blocks / pieces;
    view x = rows.x;
    int64_t row = m;
    if (rows.norm) {
      x = own_rows(x, normalised + thread * tile_floats(x));
      row = 0;
      for (int64_t t = m; t < T && t < m + tile; ++t) normalise(d, rows, t, row_of(x, t - m));
    }
    const int64_t size = static_cast<int64_t>(size_of(x.dtype));
    d.kernel.pack_tile({at(x, row) + first * kBlock * size, x.dtype}, x.stride[0] * size, T - m, tile, (last - first) * kBlock,
                       packed + (m * blocks + first * tile) * kRecordBytes);
  });
  in.packed = packed;
  return in;
}

// y = x w^T and what follows it.
struct linear_output {
  void* y;
  int64_t y_stride;
  sl_dtype y_dtype;
  row bias;  // data null: none
  const void* residual;
  int64_t residual_stride;
  float scale = 1, soft_cap = 0;
};

class product {
 public:
  product(const cpu_device& d, const cpu_weight& w, const linear_input& x, const linear_output& y) {
    switch (w.packed.format) {
      case weight_format::f32:
      case weight_format::f16: run_ = d.kernel.dense_linear; break;
      case weight_format::bf16: run_ = d.kernel.bf16_linear; break;
      case weight_format::int4: run_ = d.kernel.int4_linear; break;
      default: run_ = d.kernel.quantised_linear;
    }
    task_.weight = w.packed;
    task_.packed = x.packed;
    task_.x = x.x;
    task_.x_stride = x.x_stride;
    task_.y = y.y;
    task_.y_stride = y.y_stride;
    task_.y_dtype = y.y_dtype;
    task_.bias = y.bias.data;
    task_.bias_dtype = y.bias.dtype;
    task_.residual = y.residual;
    task_.residual_stride = y.residual_stride;
    task_.scale = y.scale;
    task_.soft_cap = y.soft_cap;
  }
  const packed_weight& weight() const { return task_.weight; }
  void run(int64_t first_row, int64_t last_row, int64_t first_panel, int64_t last_panel) const {
    linear_task piece = task_;
    piece.first_row = first_row;
    piece.last_row = last_row;
    piece.first_panel = first_panel;
    piece.last_panel = last_panel;
    run_(piece);
  }

 private:
  linear_task task_{};
  void (*run_)(const linear_task&);
};

// How products whose panels pass together, `panel_bytes` of all of them, are cut into tasks: blocks of rows and groups of panels.
struct cut {
  int64_t rows, block_rows, row_blocks, panels, group, groups;

  cut(const cpu_device& d, int64_t rows, const packed_weight& w, int64_t panel_bytes) : rows(rows) {
    // Rows of x that stay in a core's second-level cache while the panels pass by.
    const int64_t row_bytes = w.cols * (rounds_x(w.format) ? 1 : 4);
    block_rows = std::max<int64_t>(16, (int64_t{256} << 10) / row_bytes / 16 * 16);
    row_blocks = (rows + block_rows - 1) / block_rows;
    // Tasks of 16 KiB of weights at least, so that taking one costs little beside it, and not of many more, so that the threads end
    // together though a core may be taken away for a while; of 64 for several rows, whose results are on their way to memory while the
    // next panel is worked on, and which taking a task would wait for; of 256 where many rows pass over each, which stay in the same cache.
    panels = (w.rows + kPanelRows - 1) / kPanelRows;
    const int64_t bytes = (rows > 16 ? int64_t{256} : rows >= 4 ? int64_t{64} : int64_t{16}) << 10, even = (panels + 4 * d.pool.threads() - 1) / (4 * d.pool.threads());
    group = std::max<int64_t>(1, std::min(even, bytes / panel_bytes));
    if (!rounds_x(w.format)) group = (group + 3) / 4 * 4;  // dense panels pass two or four together
    groups = (panels + group - 1) / group;
  }
  int64_t tasks() const { return row_blocks * groups; }
  // body(first row, last row, first panel, last panel)
  template <typename Body>
  void piece(int64_t index, Body&& body) const {
    const int64_t row = index / groups * block_rows, panel = index % groups * group;
    body(row, std::min(rows, row + block_rows), panel, std::min(panels, panel + group));
  }
};

void multiply(cpu_device& d, int64_t rows, const product& p) {
  const cut c(d, rows, p.weight(), p.weight().panel_bytes);
  d.pool.parallel(c.tasks(), [&](int64_t index, int) {
    c.piece(index, [&](int64_t row, int64_t last_row, int64_t panel, int64_t last_panel) { p.run(row, last_row, panel, last_panel); });
  });
}

const view kNoNorm{};

const cpu_weight& packed(const weight* w) { return static_cast<const cpu_weight&>(*w); }

linear_output output_of(const linear_args& a) {
  return {a.y.data,        a.y.stride[0],
          a.y.dtype,       row{a.bias.data, a.bias.dtype},
          a.residual.data, a.residual ? a.residual.stride[0] : 0,
          a.scale,         a.soft_cap};
}

void linear(stream& s, const linear_args& a) {
  cpu_device& d = device_of(s);
  arena space(s.workspace);
  const cpu_weight& w = packed(a.w);
  multiply(d, a.x.shape[0], product(d, w, prepare_input(d, {a.x, kNoNorm, 0}, w, space), output_of(a)));
  if (!a.squares) return;
  for_rows(d, a.y.shape[0], a.y.shape[1], [&](int64_t t, int) {
    const auto* y = reinterpret_cast<const float*>(at(a.y, t));
    auto* squares = reinterpret_cast<float*>(at(a.squares, t));
    for (int64_t i = 0, n = 0; i < a.squares.shape[1]; ++i) {
      float sum = 0;
      for (const int64_t end = std::min(n + square_columns, a.y.shape[1]); n < end; ++n) sum += y[n] * y[n];
      squares[i] = sum;
    }
  });
}

uint64_t linear_workspace(const device& d, const linear_args& a) {
  arena space(nullptr);
  reserve_input(device_of(d), {a.x, kNoNorm, 0}, packed(a.w), space);
  return space.used();
}

void embedding(stream& s, const embedding_args& a) {
  cpu_device& d = device_of(s);
  const cpu_weight& table = packed(a.table);
  arena space(s.workspace);
  auto* scratch = space.take<float>(d.pool.threads() * table.cols);
  for_rows(d, a.ids.shape[0], 8 * table.cols, [&](int64_t t, int thread) {
    float* values = scratch + thread * table.cols;
    const int32_t id = a.ids.as<int32_t>()[t];
    if (id >= 0 && id < table.rows) unpack_row(table, id, values);
    else std::fill(values, values + table.cols, std::numeric_limits<float>::quiet_NaN());
    if (a.scale != 1.0f) d.kernel.widen({values, SL_DTYPE_F32}, table.cols, a.scale, values);
    d.kernel.narrow(values, table.cols, row_of(a.y, t));
  });
}

uint64_t embedding_workspace(const device& d, const embedding_args& a) {
  arena space(nullptr);
  space.take<float>(device_of(d).pool.threads() * a.table->cols);
  return space.used();
}

// ---- gated_linear

struct gated_space {
  float *gate, *up;  // [T, F]; a y of f32 takes the gate itself
};

gated_space take_gated(const gated_linear_args& a, arena& space) {
  const int64_t count = a.y.shape[0] * a.y.shape[1];
  gated_space own{};
  own.gate = a.y.dtype == SL_DTYPE_F32 ? a.y.as<float>() : space.take<float>(count);
  own.up = space.take<float>(count);
  return own;
}

void gated_linear(stream& s, const gated_linear_args& a) {
  cpu_device& d = device_of(s);
  const int64_t T = a.y.shape[0], F = a.y.shape[1];
  const cpu_weight &gate = packed(a.gate), &up = packed(a.up);
  arena space(s.workspace);
  const gated_space own = take_gated(a, space);
  const input_rows rows = {a.x, a.norm_weight, a.norm_eps};
  const linear_input x = prepare_input(d, rows, gate, space), same = same_input(d, gate, up) ? x : prepare_input(d, rows, up, space);
  const int64_t gate_stride = a.y.dtype == SL_DTYPE_F32 ? a.y.stride[0] : F;
  const product products[2] = {{d, gate, x, {own.gate, gate_stride, SL_DTYPE_F32, {a.bias_gate.data, a.bias_gate.dtype}, nullptr, 0}},
                               {d, up, same, {own.up, F, SL_DTYPE_F32, {a.bias_up.data, a.bias_up.dtype}, nullptr, 0}}};
  // The same columns of both in one task, which then has them at hand for the activation.
  const cut c(d, T, gate.packed, gate.packed.panel_bytes + up.packed.panel_bytes);
  d.pool.parallel(c.tasks(), [&](int64_t index, int) {
    c.piece(index, [&](int64_t row_first, int64_t row_last, int64_t panel, int64_t last_panel) {
      const int64_t first = panel * kPanelRows, count = std::min(F, last_panel * kPanelRows) - first;
      // Sixteen rows at a time, so that what is activated has not left the first-level cache.
      for (int64_t m = row_first; m < row_last; m += kMostTileRows) {
        const int64_t last = std::min(row_last, m + kMostTileRows);
        for (const product& p : products) p.run(m, last, panel, last_panel);
        for (int64_t t = m; t < last; ++t) {
          const row y = {at(a.y, t) + first * static_cast<int64_t>(size_of(a.y.dtype)), a.y.dtype};
          d.kernel.gate(a.activation, {own.gate + t * gate_stride + first, SL_DTYPE_F32}, {own.up + t * F + first, SL_DTYPE_F32}, count, y);
        }
      }
    });
  });
}

uint64_t gated_linear_workspace(const device& d, const gated_linear_args& a) {
  const cpu_weight &gate = packed(a.gate), &up = packed(a.up);
  arena space(nullptr);
  take_gated(a, space);
  const input_rows rows = {a.x, a.norm_weight, a.norm_eps};
  reserve_input(device_of(d), rows, gate, space);
  if (!same_input(device_of(d), gate, up)) reserve_input(device_of(d), rows, up, space);
  return space.used();
}

// ---- fused_qkv

struct qkv_space {
  float *q, *k, *v;        // [T, H*D], [T, Hkv*D], [T, Hkv*Dv]
  float *cosines, *sines;  // [threads, R/2]
};

qkv_space take_qkv(const cpu_device& d, const fused_qkv_args& a, arena& space) {
  const int64_t T = a.x.shape[0], threads = d.pool.threads();
  qkv_space own{};
  own.q = space.take<float>(T * a.wq->rows);
  own.k = space.take<float>(T * a.wk->rows);
  own.v = space.take<float>(T * a.wv->rows);
  const int64_t pairs = a.inv_freq ? a.inv_freq.shape[0] : 0;
  own.cosines = space.take<float>(threads * (pairs + 16));
  own.sines = space.take<float>(threads * (pairs + 16));
  return own;
}

void fused_qkv(stream& s, const fused_qkv_args& a) {
  cpu_device& d = device_of(s);
  const kernels& k = d.kernel;
  const plan_view& plan = a.batch->device;
  const int64_t T = a.x.shape[0], H = a.q.shape[1], Hkv = a.cache.kv_heads, D = a.cache.key_dim, Dv = a.cache.value_dim;
  arena space(s.workspace);
  const qkv_space own = take_qkv(d, a, space);
  const cpu_weight* weights[3] = {&packed(a.wq), &packed(a.wk), &packed(a.wv)};
  float* results[3] = {own.q, own.k, own.v};
  const view* biases[3] = {&a.bias_q, &a.bias_k, &a.bias_v};
  const input_rows rows = {a.x, a.norm_weight, a.norm_eps};
  linear_input inputs[3];
  for (int i = 0; i < 3; ++i) {
    int same = 0;
    while (same < i && !same_input(d, *weights[same], *weights[i])) ++same;
    inputs[i] = same < i ? inputs[same] : prepare_input(d, rows, *weights[i], space);
  }
  const auto product_of = [&](int i) {
    return product(d, *weights[i], inputs[i], {results[i], weights[i]->rows, SL_DTYPE_F32, {biases[i]->data, biases[i]->dtype}, nullptr, 0});
  };
  const product products[3] = {product_of(0), product_of(1), product_of(2)};
  const auto cut_of = [&](const product& p) { return cut(d, T, p.weight(), p.weight().panel_bytes); };
  const cut cuts[3] = {cut_of(products[0]), cut_of(products[1]), cut_of(products[2])};
  d.pool.parallel(cuts[0].tasks() + cuts[1].tasks() + cuts[2].tasks(), [&](int64_t index, int) {
    int i = 0;
    for (; index >= cuts[i].tasks(); ++i) index -= cuts[i].tasks();
    cuts[i].piece(index, [&](int64_t row, int64_t last_row, int64_t panel, int64_t last_panel) { products[i].run(row, last_row, panel, last_panel); });
  });

  const int64_t pairs = a.inv_freq ? a.inv_freq.shape[0] : 0;
  for_rows(d, T, (H + 2 * Hkv) * D, [&](int64_t t, int thread) {
    const bool padding = t >= plan.header->num_tokens;
    float* cosines = own.cosines + thread * (pairs + 16);
    float* sines = own.sines + thread * (pairs + 16);
    if (pairs > 0 && !padding) rope_angles(a.inv_freq, plan.positions[t], a.rope_scale, cosines, sines);
    const auto normalise = [&](float* from, int64_t count, const view& norm) {
      const row values = {from, SL_DTYPE_F32};
      k.rms_norm(values, {norm.data, norm.dtype}, count, a.qk_norm_eps, row{}, values);
    };
    if (a.norm_q && a.whole_row_norm) normalise(own.q + t * H * D, H * D, a.norm_q);
    if (a.norm_k && a.whole_row_norm && !padding) normalise(own.k + t * Hkv * D, Hkv * D, a.norm_k);
    const auto shape_head = [&](float* head, const view& norm) {
      if (norm && !a.whole_row_norm) normalise(head, D, norm);
      if (pairs > 0 && !padding) k.turn(head, cosines, sines, pairs, a.rope_kind);
    };
    for (int64_t h = 0; h < H; ++h) {
      float* head = own.q + (t * H + h) * D;
      shape_head(head, a.norm_q);
      k.narrow(head, D, row_of(a.q, t, h));
    }
    if (padding) return;
    for (int64_t h = 0; h < Hkv; ++h) {
      float* head = own.k + (t * Hkv + h) * D;
      shape_head(head, a.norm_k);
      write_kv(d, a.cache, a.layer, plan, t, static_cast<int32_t>(h), head, own.v + (t * Hkv + h) * Dv);
    }
  });
}

uint64_t fused_qkv_workspace(const device& d, const fused_qkv_args& a) {
  arena space(nullptr);
  take_qkv(device_of(d), a, space);
  const cpu_weight* weights[3] = {&packed(a.wq), &packed(a.wk), &packed(a.wv)};
  for (int i = 0; i < 3; ++i) {
    bool shared = false;
    for (int j = 0; j < i; ++j) shared = shared || same_input(device_of(d), *weights[j], *weights[i]);
    if (!shared) reserve_input(device_of(d), {a.x, a.norm_weight, a.norm_eps}, *weights[i], space);
  }
  return space.used();
}

}  // namespace

void register_linear_ops(op_table& table) {
  table.embedding = {embedding, embedding_workspace};
  table.linear = {linear, linear_workspace};
  table.gated_linear = {gated_linear, gated_linear_workspace};
  table.fused_qkv = {fused_qkv, fused_qkv_workspace};
}

}  // namespace sl::cpu
