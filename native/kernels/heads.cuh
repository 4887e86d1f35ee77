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

// A warp's work: head `h` of token `t`.
__device__ __forceinline__ void process_head(const head_job& j, const rotation& r, const device_plan& plan, page_shape shape,
                                             int t, int h, bool padding, float eps) {
  if (j.to_cache && padding) return;
  const int lane = int(threadIdx.x) & 31;
  const long long x = t * j.x_token + h * j.x_head;
  const long long y = j.to_cache ? token_row(plan, shape, t, h) * j.dim : t * j.y_token + h * j.y_head;

  float scale = 1.0f;
  if (j.norm.present()) {
    float sum = 0.0f;
    for (int d = lane; d < j.dim; d += 32) {
      const float v = j.x.at(x + d);
      sum += v * v;
    }
    scale = rsqrtf(warp_sum(sum) / float(j.dim) + eps);
  }
  const auto value = [&](int d) { return j.norm.present() ? j.x.at(x + d) * scale * j.norm.at(d) : j.x.at(x + d); };

  const int turned = j.turn && r.inv_freq && !padding ? r.turned : 0;
  const auto each = [&](auto put) {
    for (int i = lane; i < turned / 2; i += 32) {
      const int first = r.interleaved ? 2 * i : i, second = r.interleaved ? 2 * i + 1 : i + turned / 2;
      float a = value(first), b = value(second);
      rotate(a, b, r.positions[t], r.inv_freq[i], r.scale);
      put(first, a), put(second, b);
    }
    for (int d = turned + lane; d < j.dim; d += 32) put(d, value(d));
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

}  // namespace SL_BACKEND_NS
}  // namespace sl
