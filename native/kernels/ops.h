// Every op's launcher, and how much of the stream's workspace it wants.
#pragma once

#include "backend.h"

namespace sl {
namespace SL_BACKEND_NS {

void embedding_cuda(stream&, const embedding_args&);
void gather_cuda(stream&, const gather_args&);
void rms_norm_cuda(stream&, const rms_norm_args&);
void add_rms_norm_cuda(stream&, const add_rms_norm_args&);
void rms_norm_add_cuda(stream&, const rms_norm_add_args&);
void linear_cuda(stream&, const linear_args&);
void gated_linear_cuda(stream&, const gated_linear_args&);
void fused_qkv_cuda(stream&, const fused_qkv_args&);
void rope_cuda(stream&, const rope_args&);
void kv_append_cuda(stream&, const kv_append_args&);
void copy_pages_cuda(stream&, const copy_pages_args&);
void save_pages_cuda(stream&, const host_pages_args&);
void load_pages_cuda(stream&, const host_pages_args&);
void paged_attention_cuda(stream&, const attention_args&);
void cascade_attention_cuda(stream&, const attention_args&);
void merge_states_cuda(stream&, const merge_states_args&);
void gated_activation_cuda(stream&, const gated_activation_args&);
void penalties_cuda(stream&, const penalties_args&);
void argmax_cuda(stream&, const argmax_args&);
void sample_cuda(stream&, const sample_args&);
void log_probs_cuda(stream&, const log_probs_args&);

uint64_t linear_workspace(const device&, const linear_args&);
uint64_t gated_linear_workspace(const device&, const gated_linear_args&);
uint64_t fused_qkv_workspace(const device&, const fused_qkv_args&);
uint64_t paged_attention_workspace(const device&, const attention_args&);
uint64_t cascade_attention_workspace(const device&, const attention_args&);
uint64_t penalties_workspace(const device&, const penalties_args&);

}  // namespace SL_BACKEND_NS
}  // namespace sl
