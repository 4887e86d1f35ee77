// cuBLASLt, loaded when first wanted and not linked: its C interface as NVIDIA documents it, declared here because neither its
// headers nor the library need to be where this is built or runs. Versions 11 to 13 agree in all that is used.
#include <cstdlib>
#include <map>
#include <mutex>
#include <tuple>

#include "context.h"
#include "matrix_library.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace sl {
namespace SL_BACKEND_NS {
namespace {

using status = int;  // 0: success
using handle = void*;
using object = void*;  // layouts, descriptors and preferences: opaque pointers

struct algorithm { uint64_t data[8]; };
struct heuristic {
  algorithm chosen;
  size_t workspace;
  status state;
  float waves;
  int reserved[4];
};

constexpr int compute_f32 = 68, transposed = 1;                        // cublasComputeType_t, cublasOperation_t
constexpr int desc_transa = 3;                                         // cublasLtMatmulDescAttributes_t
constexpr int prefer_workspace = 1, prefer_reductions = 3, prefer_alignment_a = 5;  // cublasLtMatmulPreferenceAttributes_t; a, b, c, d
constexpr uint32_t reduce_in_f32 = 2;                                  // cublasLtReductionScheme_t: in order, in the compute type

struct calls {
  status (*create)(handle*);
  status (*destroy)(handle);
  status (*layout_create)(object*, int type, uint64_t rows, uint64_t cols, int64_t ld);
  status (*layout_destroy)(object);
  status (*desc_create)(object*, int compute, int scale_type);
  status (*desc_destroy)(object);
  status (*desc_set)(object, int attribute, const void*, size_t);
  status (*preference_create)(object*);
  status (*preference_destroy)(object);
  status (*preference_set)(object, int attribute, const void*, size_t);
  status (*get_heuristic)(handle, object desc, object a, object b, object c, object d, object preference, int wanted, heuristic*, int* found);
  status (*matmul)(handle, object desc, const void* alpha, const void* a, object a_layout, const void* b, object b_layout,
                   const void* beta, const void* c, object c_layout, void* d, object d_layout, const algorithm*, void* workspace,
                   size_t bytes, cudaStream_t);
};

#if defined(_WIN32)
constexpr const char* names[] = {"cublasLt64_13.dll", "cublasLt64_12.dll", "cublasLt64_11.dll"};
void* open_library(const char* name) { return reinterpret_cast<void*>(LoadLibraryA(name)); }
void* symbol(void* library, const char* name) { return reinterpret_cast<void*>(GetProcAddress(reinterpret_cast<HMODULE>(library), name)); }
#else
constexpr const char* names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11"};
void* open_library(const char* name) { return dlopen(name, RTLD_NOW | RTLD_LOCAL); }
void* symbol(void* library, const char* name) { return dlsym(library, name); }
#endif

// Whether the library is here with all of the calls. It stays loaded.
bool load(const char* name, calls& c) {
  void* l = open_library(name);
  if (!l) return false;
  bool all = true;
  const auto look_up = [&](auto& call, const char* of) {
    call = reinterpret_cast<std::decay_t<decltype(call)>>(symbol(l, of));
    all = all && call != nullptr;
  };
  look_up(c.create, "cublasLtCreate");
  look_up(c.destroy, "cublasLtDestroy");
  look_up(c.layout_create, "cublasLtMatrixLayoutCreate");
  look_up(c.layout_destroy, "cublasLtMatrixLayoutDestroy");
  look_up(c.desc_create, "cublasLtMatmulDescCreate");
  look_up(c.desc_destroy, "cublasLtMatmulDescDestroy");
  look_up(c.desc_set, "cublasLtMatmulDescSetAttribute");
  look_up(c.preference_create, "cublasLtMatmulPreferenceCreate");
  look_up(c.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  look_up(c.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  look_up(c.get_heuristic, "cublasLtMatmulAlgoGetHeuristic");
  look_up(c.matmul, "cublasLtMatmul");
  return all;
}

int data_type(sl_dtype d) { return d == SL_DTYPE_F32 ? 0 : d == SL_DTYPE_F16 ? 2 : 14; }  // cudaDataType

// What is made once a shape. In the library's column-major terms a row-major matrix is its transpose: D [N,M] = w^T' * x.
struct product_plan {
  const calls& lt;
  object desc = nullptr, w = nullptr, x = nullptr, c = nullptr, d = nullptr;
  heuristic best{};
  bool usable = false;

  product_plan(const calls& lt, handle h, const dense_product& p) : lt(lt) {
    object preference = nullptr;
    const int in = data_type(p.in), out = data_type(p.out);
    const uint64_t bytes = matrix_library::workspace_bytes;
    const uint32_t alignment = 16;
    int found = 0;
    bool ok = lt.desc_create(&desc, compute_f32, data_type(SL_DTYPE_F32)) == 0 &&
              lt.desc_set(desc, desc_transa, &transposed, sizeof transposed) == 0 &&
              lt.layout_create(&w, in, uint64_t(p.K), uint64_t(p.N), p.K) == 0 &&
              lt.layout_create(&x, in, uint64_t(p.K), uint64_t(p.M), p.x_stride) == 0 &&
              lt.layout_create(&c, out, uint64_t(p.N), uint64_t(p.M), p.residual ? p.residual_stride : p.y_stride) == 0 &&
              lt.layout_create(&d, out, uint64_t(p.N), uint64_t(p.M), p.y_stride) == 0 &&
              lt.preference_create(&preference) == 0 &&
              lt.preference_set(preference, prefer_workspace, &bytes, sizeof bytes) == 0 &&
              lt.preference_set(preference, prefer_reductions, &reduce_in_f32, sizeof reduce_in_f32) == 0;
    for (int i = 0; i < 4; i++) ok = ok && lt.preference_set(preference, prefer_alignment_a + i, &alignment, sizeof alignment) == 0;
    usable = ok && lt.get_heuristic(h, desc, w, x, c, d, preference, 1, &best, &found) == 0 && found == 1 && best.state == 0 &&
             best.workspace <= bytes;
    if (preference) lt.preference_destroy(preference);
  }
  ~product_plan() {
    for (object o : {w, x, c, d})
      if (o) lt.layout_destroy(o);
    if (desc) lt.desc_destroy(desc);
  }
  product_plan(const product_plan&) = delete;
  product_plan& operator=(const product_plan&) = delete;
};

class cublaslt final : public matrix_library {
 public:
  cublaslt(const calls& lt, handle h) : lt_(lt), handle_(h) {}
  ~cublaslt() override {
    plans_.clear();
    lt_.destroy(handle_);
  }

  bool multiply(const dense_product& p, void* workspace, cudaStream_t stream) override {
    for (const void* each : {p.x, p.w, p.residual, static_cast<const void*>(p.y)})
      if (reinterpret_cast<uintptr_t>(each) % 16 != 0) return false;
    std::lock_guard guard(mutex_);
    const key k{p.in, p.out, p.M, p.N, p.K, p.x_stride, p.y_stride, p.residual ? p.residual_stride : -1};
    auto at = plans_.find(k);
    if (at == plans_.end()) {
      // A shape's first product may load code, which a capture does not allow.
      cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
      if (cudaStreamIsCapturing(stream, &capture) != cudaSuccess || capture != cudaStreamCaptureStatusNone) return false;
      if (plans_.size() >= most_plans) plans_.clear();
      at = plans_.try_emplace(k, lt_, handle_, p).first;
    }
    const product_plan& plan = at->second;
    if (!plan.usable) return false;
    const float beta = p.residual ? 1.0f : 0.0f;
    const status s = lt_.matmul(handle_, plan.desc, &p.scale, p.w, plan.w, p.x, plan.x, &beta, p.residual ? p.residual : p.y,
                                plan.c, p.y, plan.d, &plan.best.chosen, workspace, matrix_library::workspace_bytes, stream);
    if (s == 0) count_launch();
    return s == 0;
  }

 private:
  using key = std::tuple<sl_dtype, sl_dtype, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>;
  static constexpr size_t most_plans = 1024;  // prompts have any length
  const calls lt_;
  handle handle_;
  std::mutex mutex_;
  std::map<key, product_plan> plans_;
};

}  // namespace

std::unique_ptr<matrix_library> open_matrix_library() {
  const char* wanted = std::getenv("SLUICE_CUBLASLT");
  if (wanted && wanted[0] == '0') return nullptr;
  // The newest first: it may want a newer driver than is here, which its create tells.
  for (const char* name : names) {
    calls lt{};
    handle h = nullptr;
    if (load(name, lt) && lt.create(&h) == 0) return std::make_unique<cublaslt>(lt, h);
  }
  return nullptr;
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
