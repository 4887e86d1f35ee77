// One GPU: its primary context, what it can do, its counters, the weights that it makes.
#pragma once

#include <atomic>
#include <mutex>

#include "backend.h"
#include "context.h"
#include "matrix_library.h"

namespace sl {
namespace SL_BACKEND_NS {

class cuda_device final : public device {
 public:
  explicit cuda_device(const sl_device_options&);
  ~cuda_device() override;

  const op_table& ops() const override;
  std::unique_ptr<stream> create_stream(void* native_stream) override;
  std::unique_ptr<event> create_event() override;
  std::unique_ptr<weight> create_weight(stream& s, const sl_weight_source& source) override;
  bool supports_kv(sl_dtype dtype) const override;
  void info(sl_device_info& info) const override;
  void counters(sl_counters& counters) const override;
  std::vector<sl_kernel_counters> kernel_counters() const override;
  void reset_counters() override;

  CUcontext context() const { return context_; }
  int ordinal() const { return ordinal_; }
  int multiprocessors() const { return multiprocessors_; }
  int64_t shared_bytes() const { return shared_bytes_; }  // of a multiprocessor
  sharing_costs costs_of_sharing(sl_dtype kv) const override;
  bool invariant() const { return options_.invariant != 0; }
  bool int8_activations() const { return options_.int8_activations != 0; }
  const sl_device_options& options() const { return options_; }
  sl_switch_points* switch_points() override { return &points_; }
  // Invariant: tiles of 16 rows of x whatever T is.
  const sl_switch_points& points() const { return invariant() ? one_kernel_ : points_; }
  matrix_library* library() const;  // null where there is none; looked for at the first call

  mutable std::atomic<bool> lost{false};
  mutable std::atomic<uint64_t> launches{0};

 private:
  int ordinal_, multiprocessors_ = 1, capability_ = 0;
  int64_t shared_bytes_ = 0;
  sl_device_options options_;
  // Guesses, for devices that have not been measured. Our own dense tiles read w once for 64 rows of x, which costs more than unpacking.
  sl_switch_points points_ = {sizeof(sl_switch_points), {8, 8, 8, 8, 8}, {16, 16, 16, 16, 16}, {64, -1, -1, -1, -1}};
  static constexpr sl_switch_points one_kernel_ = {sizeof(sl_switch_points), {}, {INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX}, {}};
  CUcontext context_ = nullptr;
  char name_[128] = {};
  mutable std::once_flag library_looked_for_;
  mutable std::unique_ptr<matrix_library> library_;
};

inline matrix_library* library_of(const device& d) { return static_cast<const cuda_device&>(d).library(); }
inline bool invariant(const device& d) { return static_cast<const cuda_device&>(d).invariant(); }
inline int multiprocessors(const device& d) { return static_cast<const cuda_device&>(d).multiprocessors(); }

inline int64_t shared_bytes(const device& d) { return static_cast<const cuda_device&>(d).shared_bytes(); }

int32_t count_devices();  // throws SL_ERR_NO_DEVICE with what was tried, where there is none
std::unique_ptr<device> open_device(const sl_device_options&);
bool launches_early();  // kernels/launch.cuh
const op_table& op_table_of_kernels();

}  // namespace SL_BACKEND_NS
}  // namespace sl
