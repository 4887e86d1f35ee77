// One head vector at a time: RMSNorm of the head, RoPE, and where it goes (a tensor, or a token's slot of the cache).
// Serves rope, kv_append, and the end of fused_qkv.
#pragma once

#include "backend.h"
#include "paged.cuh"
#include "quantised.cuh"
#include "reduce.cuh"
#include "vec.cuh"

namespace sl {
namespace SL_BACKEND_NS {

struct head_job {
  any_input x;      // [T, heads, dim]
  any_output y;     // the same, or a layer's pool
  any_input norm;   // [dim], or absent
  gmem<unsigned char> eight;  // a layer's pool of eight bits, in y's place
  gmem<float> scales;         // its scales
  int eight_dtype;
  long long x_token, x_head, y_token, y_head;  // strides
  int heads, dim;
  bool turn, to_cache;
};

struct rotation {
  gmem<const float> inv_freq;  // [turned / 2], null for none
  gmem<const int> positions;   // [T]
  int turned;                  // dims that turn
  float scale;
  bool interleaved;
};

// The angle is taken modulo a turn in f64: in f32 a position of 10^6 would lose its digits after the second.
__device__ __forceinline__ void rotate(float& a, float& b, int position, float inv_freq, float scale) {
  constexpr double turn = 6.283185307179586476925;
  const double turns = double(position) * double(inv_freq) / turn;
  float sine, cosine;
  sincospif(float(2.0 * (turns - rint(turns))), &sine, &cosine);  // needs no further reduction, unlike sincosf
  sine *= scale, cosine *= scale;
  const float x = a * cosine - b * sine;
  b = b * cosine + a * sine;
  a = x;
}

// The dims of a head in an order in which the pairs that turn are neighbours: the one at place p, and the place of one.
__device__ __forceinline__ int dim_at(int p, int turned, bool interleaved) {
  return interleaved || p >= turned ? p : p / 2 + p % 2 * (turned / 2);
}
__device__ __forceinline__ int place_of(int d, int turned, bool interleaved) {
  return interleaved || d >= turned ? d : d < turned / 2 ? 2 * d : 2 * (d - turned / 2) + 1;
}
__device__ __forceinline__ int turned_dims(const head_job& j, const rotation& r) { return j.turn && r.inv_freq ? r.turned : 0; }

// A warp's work: places [from, to) of head `h` of token `t`, whose value in dim d is raw(d). A norm needs the whole head.
template <typename Raw>
__device__ __forceinline__ void process_places(const head_job& j, Raw raw, const rotation& r, const device_plan& plan,
                                               page_shape shape, int t, int h, bool padding, float eps, int from, int to) {
  if (j.to_cache && padding) return;
  const int lane = int(threadIdx.x) & 31;
  const long long y = j.to_cache ? token_row(plan, shape, t, h) * j.dim : t * j.y_token + h * j.y_head;

  float scale = 1.0f;
  if (j.norm.present()) {
    float sum = 0.0f;
    for (int d = lane; d < j.dim; d += 32) {
      const float v = raw(d);
      sum += v * v;
    }
    scale = rsqrtf(warp_sum(sum) / float(j.dim) + eps);
  }
  const auto value = [&](int d) { return j.norm.present() ? raw(d) * scale * j.norm.at(d) : raw(d); };

  const int turned = turned_dims(j, r);
  const auto each = [&](auto put) {
    for (int i = from / 2 + lane; i < min(to, turned) / 2; i += 32) {
      const int first = dim_at(2 * i, turned, r.interleaved), second = dim_at(2 * i + 1, turned, r.interleaved);
      float a = value(first), b = value(second);
      if (!padding) rotate(a, b, r.positions[t], r.inv_freq[i], r.scale);
      put(first, a), put(second, b);
    }
    for (int d = max(from, turned) + lane; d < to; d += 32) put(d, value(d));
  };
  if (!j.eight) return each([&](int d, float v) { j.y.put(y + d, v); });

  // The scale first: the values are made twice rather than kept.
  float largest = 0.0f;
  each([&](int, float v) { largest = fmaxf(largest, fabsf(v)); });
  const float unit = scale_of(warp_max(largest), j.eight_dtype);
  if (lane == 0) j.scales[y / j.dim] = unit;
  each([&](int d, float v) {
    const float units = unit == 0.0f ? 0.0f : v / unit;
    j.eight[y + d] = (unsigned char)(j.eight_dtype == SL_DTYPE_I8 ? float_to_int8(units) : float_to_e4m3(units));
  });
}

__device__ __forceinline__ void process_head(const head_job& j, const rotation& r, const device_plan& plan, page_shape shape,
                                             int t, int h, bool padding, float eps) {
  const long long x = t * j.x_token + h * j.x_head;
  process_places(j, [&](int d) { return j.x.at(x + d); }, r, plan, shape, t, h, padding, eps, 0, j.dim);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
