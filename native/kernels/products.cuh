// The launchers' side of few_rows.cuh and tile.cuh: which instantiation, and with how many blocks.
#pragma once

#include "few_rows.cuh"
#include "linear.cuh"
#include "tile.cuh"

namespace sl {
namespace SL_BACKEND_NS {

constexpr size_t most_shared_bytes = 97 * 1024;  // of the 99 KB that every device of sm_80 and up has, static arrays included

inline operand operand_of(const cuda_weight& w) {
  switch (w.storage) {
    case storage::four: return operand::four;
    case storage::five: return operand::five;
    case storage::six: return operand::six;
    case storage::eight: return operand::eight;
    default: return operand::dense;
  }
}

inline int kept_of(const cuda_weight& w) {
  static_assert(int(operand::four) == SL_KEPT_FOUR && int(operand::eight) == SL_KEPT_EIGHT, "as the header has them");
  return int(operand_of(w));
}
inline const sl_switch_points& points_of(const device& d) { return static_cast<const cuda_device&>(d).points(); }

// The device's choice for T rows of x.
inline bool few_wanted(const device& d, const cuda_weight& w, int64_t T) { return T <= points_of(d).few[kept_of(w)]; }
inline bool narrow_wanted(const device& d, const cuda_weight& w, int64_t T) { return T <= points_of(d).narrow[kept_of(w)]; }
inline bool dense_wanted(const device& d, const cuda_weight& w, int64_t T) {
  const int from = points_of(d).dense[kept_of(w)];
  if (from < 0) return T > 512 && library_of(d) != nullptr;
  return from > 0 && T >= from;
}

// Quantised weights that may go to 16 bits first.
inline bool may_dequantise(const cuda_weight& w) { return w.quantised() && w.cols % 8 == 0; }

// Calls f with the operand as a constant.
template <typename F>
void for_operand(operand w, F f) {
  switch (w) {
    case operand::dense: return f(std::integral_constant<operand, operand::dense>());
    case operand::four: return f(std::integral_constant<operand, operand::four>());
    case operand::five: return f(std::integral_constant<operand, operand::five>());
    case operand::six: return f(std::integral_constant<operand, operand::six>());
    case operand::eight: return f(std::integral_constant<operand, operand::eight>());
  }
}

// The same of what meets x of E: bytes meet quantised weights alone.
template <typename E, typename F>
void for_operand_of(operand w, F f) {
  for_operand(w, [&](auto which) {
    if constexpr (sizeof(E) > 1 || decltype(which)::value != operand::dense) f(which);
  });
}

// And with how its scales are kept: what every load and every block of columns would have to look up.
template <typename E, typename F>
void for_format_of(const cuda_weight& w, F f) {
  const auto with = [&](auto operand, auto scales) { f(operand, scales); };
#define SL_FORMAT(o, s) with(std::integral_constant<operand, operand::o>(), std::integral_constant<scaling, scaling::s>())
  switch (operand_of(w)) {
    case operand::dense:
      if constexpr (sizeof(E) > 1) SL_FORMAT(dense, any);
      return;
    case operand::four:
      if (w.scaling == scaling::half) return SL_FORMAT(four, half);
      if (w.scaling == scaling::half_bias) return SL_FORMAT(four, half_bias);
      if (w.scaling == scaling::super) return SL_FORMAT(four, super);
      if constexpr (sizeof(E) > 1) SL_FORMAT(four, half_zero);  // GPTQ and AWQ, which do not meet bytes
      return;
    case operand::five:
      if (w.scaling == scaling::half) return SL_FORMAT(five, half);
      if (w.scaling == scaling::half_bias) return SL_FORMAT(five, half_bias);
      return SL_FORMAT(five, super);
    case operand::six: return SL_FORMAT(six, super_signed);
    case operand::eight:
      if (w.scaling == scaling::half) return SL_FORMAT(eight, half);
      return SL_FORMAT(eight, full);
  }
#undef SL_FORMAT
}

// Whether all rows of x find room in a block's shared memory, as 16-bit numbers or as bytes.
inline bool few_take(int64_t T, int64_t K) { return T <= few_most && few_shared_bytes<half, operand::dense>(int(T), int(K)) <= most_shared_bytes; }

// Whether the device wants x rounded to bytes where it meets this weight: one of those that the record allows it for.
inline bool takes_bytes(const device& d, const cuda_weight& w) {
  return static_cast<const cuda_device&>(d).int8_activations() && w.quantised() && w.encoding != SL_ENCODING_GPTQ4 &&
         w.encoding != SL_ENCODING_GPTQ4_V2 && w.encoding != SL_ENCODING_AWQ4;
}

inline few_input few_input_of(const view& x, const view& norm, float eps, const view& squares = view()) {
  return {input_of(x), input_of(norm), x.stride[0], int(x.shape[0]), int(x.shape[1]), eps, rows_aligned_16(x), aligned_16(norm.data),
          squares.as<const float>(), squares ? squares.stride[0] : 0};
}

inline tile_input tile_input_of(const view& x) { return {gmem<const char>(x.as<const char>()), x.stride[0], int(x.shape[0]), int(x.shape[1])}; }

inline int few_blocks(int64_t items, int share, const device& d) {
  return int(std::min<int64_t>(blocks_for(items, few_warps / share), 2 * int64_t(multiprocessors(d))));
}

// The tiles of T rows of x.
template <typename E, operand W> using narrow_tile = weight_tile<E, W, 2, 1, 4>;
template <typename E, operand W> using wide_tile = weight_tile<E, W, 8, 2, 3>;
// `resident` blocks run side by side on a multiprocessor: cuda_stream::most_sharing_blocks at most.
struct tile_size { int bm, bn, resident; };
constexpr tile_size tile_size_of(bool narrow) { return narrow ? tile_size{16, 128, 2} : tile_size{64, 256, 1}; }

inline tile_plan plan_tiles(int64_t T, int64_t columns, int64_t K, const device& d, bool narrow) {
  const tile_size size = tile_size_of(narrow);
  return plan_tiles(T, columns, K, size.bm, size.bn, size.resident * multiprocessors(d), invariant(d));
}
inline uint64_t tiles_workspace(int64_t T, int64_t columns, int64_t K, const device& d, bool narrow) {
  const tile_size size = tile_size_of(narrow);
  return partial_bytes(plan_tiles(T, columns, K, d, narrow), size.bm, size.bn);
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
