// Ops with a weight: embedding, linear, gated_linear, fused_qkv. Rows of x are brought into the form that the weight's kernel takes,
// then panels of the weight and blocks of rows become tasks.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu.h"

namespace sl::cpu {
namespace {

// Weights that take x in the same form share its preparation.
bool same_input(const cpu_weight& a, const cpu_weight& b) { return a.rounds_x() == b.rounds_x() && a.order == b.order; }

}  // namespace

void reserve_input(const view& x, const cpu_weight& w, arena& space) {
  const int64_t T = x.shape[0], K = w.cols;
  if (w.rounds_x()) {
    space.take<uint8_t>(packed_bytes(T, K));
    return;
  }
  if (x.dtype != SL_DTYPE_F32) space.take<float>(T * K);
  if (!w.order.empty()) space.take<float>(T * K);
}

linear_input prepare_input(cpu_device& d, const view& x, const cpu_weight& w, arena& space) {
  const int64_t T = x.shape[0], K = w.cols;
  linear_input in;
  if (!w.rounds_x()) {
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
  // Tiles of the most rows, and smaller ones for what is left over.
  const int64_t step = d.kernel.row_tile(kMostTileRows), whole = T / step * step;
  const int64_t stride = x.stride[0] * (x.dtype == SL_DTYPE_F32 ? 4 : 2);
  const auto pack = [&](int64_t m, int64_t tile) {
    d.kernel.pack_tile(row_of(x, m), stride, T - m, tile, K, packed + m * (K / kBlock) * kRecordBytes);
  };
  for_rows(d, whole / step, 2 * K * step, [&](int64_t i, int) { pack(i * step, step); });
  for (int64_t m = whole, tile; m < T; m += tile) pack(m, tile = d.kernel.row_tile(T - m));
  in.packed = packed;
  return in;
}

void multiply(cpu_device& d, const linear_input& x, int64_t rows, const cpu_weight& w, const linear_output& out) {
  const int64_t panels = (w.rows + kPanelRows - 1) / kPanelRows, threads = d.pool.threads();
  linear_task base{};
  base.weight = w.packed;
  base.packed = x.packed;
  base.x = x.x;
  base.x_stride = x.x_stride;
  base.y = out.y;
  base.y_stride = out.y_stride;
  base.y_dtype = out.y_dtype;
  base.bias = out.bias.data;
  base.bias_dtype = out.bias.dtype;
  base.residual = out.residual;
  base.residual_stride = out.residual_stride;
  base.scale = out.scale;
  base.soft_cap = out.soft_cap;

  // Rows of x that stay in a core's second-level cache while the panels pass by.
  const int64_t row_bytes = w.cols * (w.rounds_x() ? 1 : 4);
  const int64_t block_rows = std::max<int64_t>(16, (int64_t{256} << 10) / row_bytes / 16 * 16);
  const int64_t row_blocks = (rows + block_rows - 1) / block_rows;
  // Tasks of 32 KiB of weights at least, so that taking one costs nothing beside it; of a few for each thread, so that
  // they end together though a core may be taken away for a while.
  const int64_t least = std::max<int64_t>(1, (int64_t{32} << 10) / w.packed.panel_bytes);
  int64_t group = std::max(least, (panels + 8 * threads - 1) / (8 * threads));
  if (rows > 16) group = std::max<int64_t>(1, std::min(group, (panels + 4 * threads - 1) / (4 * threads)));
  if (!w.rounds_x()) group = (group + 3) / 4 * 4;
  const int64_t groups = (panels + group - 1) / group;
  const weight_format format = w.packed.format;
  const auto run = w.rounds_x()                   ? d.kernel.quantised_linear
                   : format == weight_format::int4 ? d.kernel.int4_linear
                   : format == weight_format::bf16 ? d.kernel.bf16_linear
                                                   : d.kernel.dense_linear;
  d.pool.parallel(row_blocks * groups, [&](int64_t index, int) {
    linear_task task = base;
    task.first_row = index / groups * block_rows;
    task.last_row = std::min(rows, task.first_row + block_rows);
    task.first_panel = index % groups * group;
    task.last_panel = std::min(panels, task.first_panel + group);
    run(task);
  });
}

namespace {

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
  const linear_input x = prepare_input(d, a.x, packed(a.w), space);
  multiply(d, x, a.x.shape[0], packed(a.w), output_of(a));
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

uint64_t linear_workspace(const device&, const linear_args& a) {
  arena space(nullptr);
  reserve_input(a.x, packed(a.w), space);
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

// x, or its normalised rows, in x's dtype.
view take_normalised(const view& x, const view& norm, arena& space) {
  view own = x;
  if (norm) {
    own.data = space.take<float>(x.shape[0] * x.shape[1]);
    own.stride[0] = x.shape[1];
    own.stride[1] = 1;
  }
  return own;
}

void normalise_rows(const cpu_device& d, const view& x, const view& norm, float eps, const view& y) {
  if (!norm) return;
  for_rows(d, x.shape[0], x.shape[1], [&](int64_t t, int) {
    d.kernel.rms_norm(row_of(x, t), {norm.data, norm.dtype}, x.shape[1], eps, row{}, row_of(y, t));
  });
}

// ---- gated_linear

struct gated_space {
  view x;
  float *gate, *up;  // [T, F]; a y of f32 takes the gate itself
};

gated_space take_gated(const gated_linear_args& a, arena& space) {
  const int64_t count = a.y.shape[0] * a.y.shape[1];
  gated_space own{};
  own.x = take_normalised(a.x, a.norm_weight, space);
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
  normalise_rows(d, a.x, a.norm_weight, a.norm_eps, own.x);
  const linear_input x = prepare_input(d, own.x, gate, space), same = same_input(gate, up) ? x : prepare_input(d, own.x, up, space);
  const int64_t gate_stride = a.y.dtype == SL_DTYPE_F32 ? a.y.stride[0] : F;
  multiply(d, x, T, gate, {own.gate, gate_stride, SL_DTYPE_F32, {a.bias_gate.data, a.bias_gate.dtype}, nullptr, 0});
  multiply(d, same, T, up, {own.up, F, SL_DTYPE_F32, {a.bias_up.data, a.bias_up.dtype}, nullptr, 0});
  for_pieces(d, T, F, [&](int64_t t, int64_t first, int64_t count) {
    const row y = {at(a.y, t) + first * static_cast<int64_t>(size_of(a.y.dtype)), a.y.dtype};
    d.kernel.gate(a.activation, {own.gate + t * gate_stride + first, SL_DTYPE_F32}, {own.up + t * F + first, SL_DTYPE_F32}, count, y);
  });
}

uint64_t gated_linear_workspace(const device&, const gated_linear_args& a) {
  const cpu_weight &gate = packed(a.gate), &up = packed(a.up);
  arena space(nullptr);
  const gated_space own = take_gated(a, space);
  reserve_input(own.x, gate, space);
  if (!same_input(gate, up)) reserve_input(own.x, up, space);
  return space.used();
}

// ---- fused_qkv

struct qkv_space {
  view x;                  // the normalised rows, in x's dtype
  float *q, *k, *v;        // [T, H*D], [T, Hkv*D], [T, Hkv*Dv]
  float *cosines, *sines;  // [threads, R/2]
};

qkv_space take_qkv(const cpu_device& d, const fused_qkv_args& a, arena& space) {
  const int64_t T = a.x.shape[0], threads = d.pool.threads();
  qkv_space own{};
  own.x = take_normalised(a.x, a.norm_weight, space);
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
  normalise_rows(d, a.x, a.norm_weight, a.norm_eps, own.x);
  const cpu_weight* weights[3] = {&packed(a.wq), &packed(a.wk), &packed(a.wv)};
  float* results[3] = {own.q, own.k, own.v};
  const view* biases[3] = {&a.bias_q, &a.bias_k, &a.bias_v};
  linear_input inputs[3];
  for (int i = 0; i < 3; ++i) {
    int same = 0;
    while (same < i && !same_input(*weights[same], *weights[i])) ++same;
    inputs[i] = same < i ? inputs[same] : prepare_input(d, own.x, *weights[i], space);
    multiply(d, inputs[i], T, *weights[i],
             {results[i], weights[i]->rows, SL_DTYPE_F32, {biases[i]->data, biases[i]->dtype}, nullptr, 0});
  }

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
  const qkv_space own = take_qkv(device_of(d), a, space);
  const cpu_weight* weights[3] = {&packed(a.wq), &packed(a.wk), &packed(a.wv)};
  for (int i = 0; i < 3; ++i) {
    bool shared = false;
    for (int j = 0; j < i; ++j) shared = shared || same_input(*weights[j], *weights[i]);
    if (!shared) reserve_input(own.x, *weights[i], space);
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
