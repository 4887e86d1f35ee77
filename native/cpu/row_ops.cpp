// Ops that treat each row by itself, a range of rows a task: gather, norms, RoPE, activations, merges.
#include <cmath>
#include <cstring>
#include <limits>

#include "cpu.h"

namespace sl::cpu {

// The angle in f64, brought into one turn, where f32 would have lost hundredths of a radian at position 2^20.
void rope_angles(const view& inv_freq, int64_t position, float scale, float* cosines, float* sines) {
  constexpr double kTurn = 6.283185307179586476925;
  for (int64_t i = 0; i < inv_freq.shape[0]; ++i) {
    const double angle = static_cast<double>(position) * static_cast<double>(inv_freq.as<float>()[i]);
    const auto rest = static_cast<float>(angle - kTurn * std::nearbyint(angle / kTurn));
    cosines[i] = std::cos(rest) * scale;
    sines[i] = std::sin(rest) * scale;
  }
}

namespace {

row vector_of(const view& v) { return {v.data, v.dtype}; }

void gather(stream& s, const gather_args& a) {
  cpu_device& d = device_of(s);
  const auto size = static_cast<int64_t>(size_of(a.x.dtype));
  const int64_t count = a.x.shape[1], bytes = count * size;
  for_rows(d, a.y.shape[0], count, [&](int64_t i, int) {
    const int64_t source = a.rows.as<int32_t>()[i];
    char* target = a.y.as<char>() + i * a.y.stride[0] * size;
    if (source >= 0 && source < a.x.shape[0]) {
      std::memcpy(target, a.x.as<char>() + source * a.x.stride[0] * size, static_cast<size_t>(bytes));
      return;
    }
    std::memset(target, 0, static_cast<size_t>(bytes));
    const uint32_t nan = a.x.dtype == SL_DTYPE_F32        ? 0x7fc00000u
                         : a.x.dtype == SL_DTYPE_F16      ? 0x7e00u
                         : a.x.dtype == SL_DTYPE_BF16     ? 0x7fc0u
                         : a.x.dtype == SL_DTYPE_FP8_E4M3 ? 0x7fu
                                                          : 0u;
    for (int64_t j = 0; nan != 0 && j < count; ++j) std::memcpy(target + j * size, &nan, static_cast<size_t>(size));
  });
}

void rms_norm(stream& s, const rms_norm_args& a) {
  cpu_device& d = device_of(s);
  for_rows(d, a.x.shape[0], a.x.shape[1], [&](int64_t t, int) {
    d.kernel.rms_norm(row_of(a.x, t), vector_of(a.w), a.x.shape[1], a.eps, row{}, row_of(a.y, t));
  });
}

void add_rms_norm(stream& s, const add_rms_norm_args& a) {
  cpu_device& d = device_of(s);
  for_rows(d, a.x.shape[0], 2 * a.x.shape[1], [&](int64_t t, int) {
    d.kernel.add(row_of(a.x, t), row_of(a.residual, t), a.x.shape[1]);
    d.kernel.rms_norm(row_of(a.residual, t), vector_of(a.w), a.x.shape[1], a.eps, row{}, row_of(a.y, t));
  });
}

void rms_norm_add(stream& s, const rms_norm_add_args& a) {
  cpu_device& d = device_of(s);
  for_rows(d, a.x.shape[0], a.x.shape[1], [&](int64_t t, int) {
    d.kernel.rms_norm(row_of(a.x, t), vector_of(a.w), a.x.shape[1], a.eps, row_of(a.residual, t), row_of(a.y, t));
  });
}

struct rope_space {
  float *cosines, *sines, *head;
  int64_t pairs, dim;
};

rope_space take_rope(const cpu_device& d, const rope_args& a, arena& space) {
  const int64_t threads = d.pool.threads();
  rope_space own{nullptr, nullptr, nullptr, a.inv_freq.shape[0] + 16, a.x.shape[2] + 16};
  own.cosines = space.take<float>(threads * own.pairs);
  own.sines = space.take<float>(threads * own.pairs);
  own.head = space.take<float>(threads * own.dim);
  return own;
}

void rope(stream& s, const rope_args& a) {
  cpu_device& d = device_of(s);
  arena space(s.workspace);
  const rope_space own = take_rope(d, a, space);
  const int64_t H = a.x.shape[1], D = a.x.shape[2];
  for_rows(d, a.x.shape[0], 2 * H * D, [&](int64_t t, int thread) {
    float *cosines = own.cosines + thread * own.pairs, *sines = own.sines + thread * own.pairs,
          *head = own.head + thread * own.dim;
    rope_angles(a.inv_freq, a.positions.as<int32_t>()[t], a.scale, cosines, sines);
    for (int64_t h = 0; h < H; ++h) {
      d.kernel.widen(row_of(a.x, t, h), D, 1.0f, head);
      d.kernel.turn(head, cosines, sines, a.inv_freq.shape[0], a.kind);
      d.kernel.narrow(head, D, row_of(a.y, t, h));
    }
  });
}

uint64_t rope_workspace(const device& d, const rope_args& a) {
  arena space(nullptr);
  take_rope(device_of(d), a, space);
  return space.used();
}

void gated_activation(stream& s, const gated_activation_args& a) {
  cpu_device& d = device_of(s);
  for_pieces(d, a.gate.shape[0], a.gate.shape[1], [&](int64_t t, int64_t first, int64_t count) {
    const int64_t size = a.gate.dtype == SL_DTYPE_F32 ? 4 : 2;
    const auto part = [&](const view& v) { return row{at(v, t) + first * size, v.dtype}; };
    d.kernel.gate(a.activation, part(a.gate), part(a.up), count, part(a.y));
  });
}

void merge_states(stream& s, const merge_states_args& a) {
  cpu_device& d = device_of(s);
  const int64_t H = a.y.shape[1], S = a.o.shape[0], Dv = a.o.shape[3];
  const int64_t size = a.o.dtype == SL_DTYPE_F32 ? 4 : 2;
  for_rows(d, a.y.shape[0] * H, S * Dv, [&](int64_t i, int) {
    const int64_t t = i / H, h = i % H;
    d.kernel.merge_states(a.o.as<char>() + (t * a.o.stride[1] + h * a.o.stride[2]) * size, a.o.stride[0], a.o.dtype,
                          a.lse2.as<float>() + t * a.lse2.stride[1] + h * a.lse2.stride[2], a.lse2.stride[0], S, Dv,
                          row_of(a.y, t, h),
                          a.y_lse2 ? a.y_lse2.as<float>() + t * a.y_lse2.stride[0] + h * a.y_lse2.stride[1] : nullptr);
  });
}

}  // namespace

void register_row_ops(op_table& table) {
  table.gather.run = gather;
  table.rms_norm.run = rms_norm;
  table.add_rms_norm.run = add_rms_norm;
  table.rms_norm_add.run = rms_norm_add;
  table.rope = {rope, rope_workspace};
  table.gated_activation.run = gated_activation;
  table.merge_states.run = merge_states;
}

}  // namespace sl::cpu
