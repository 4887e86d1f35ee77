// The op table: each op's launcher, within the device's context.
#include "device.h"
#include "ops.h"
#include "platform.h"

namespace sl {
namespace SL_BACKEND_NS {
namespace {

template <auto Launcher, typename Args>
void put(op<Args>& o) {
  o.run = [](stream& s, const Args& a) {
    context_scope scope(static_cast<const cuda_device&>(*s.owner));
    if constexpr (std::is_same_v<Args, attention_args>) count_kv_reads(a.cache);
    Launcher(s, a);
  };
}

}  // namespace

const op_table& op_table_of_kernels() {
  static const op_table table = [] {
    op_table t;
    put<embedding_cuda>(t.embedding);
    put<gather_cuda>(t.gather);
    put<rms_norm_cuda>(t.rms_norm);
    put<add_rms_norm_cuda>(t.add_rms_norm);
    put<rms_norm_add_cuda>(t.rms_norm_add);
    put<linear_cuda>(t.linear);
    put<gated_linear_cuda>(t.gated_linear);
    put<fused_qkv_cuda>(t.fused_qkv);
    put<rope_cuda>(t.rope);
    put<kv_append_cuda>(t.kv_append);
    put<paged_attention_cuda>(t.paged_attention);
    put<cascade_attention_cuda>(t.cascade_attention);
    put<merge_states_cuda>(t.merge_states);
    put<gated_activation_cuda>(t.gated_activation);
    put<penalties_cuda>(t.penalties);
    put<argmax_cuda>(t.argmax);
    put<sample_cuda>(t.sample);
    put<log_probs_cuda>(t.log_probs);
    put<copy_pages_cuda>(t.copy_pages);
    put<save_pages_cuda>(t.save_pages);
    put<load_pages_cuda>(t.load_pages);
    t.linear.workspace = linear_workspace;
    t.gated_linear.workspace = gated_linear_workspace;
    t.fused_qkv.workspace = fused_qkv_workspace;
    t.paged_attention.workspace = paged_attention_workspace;
    t.cascade_attention.workspace = cascade_attention_workspace;
    t.penalties.workspace = penalties_workspace;
    return t;
  }();
  return table;
}

}  // namespace SL_BACKEND_NS
}  // namespace sl
