# The files that both builds of the CUDA backend compile: by nvcc in cuda/, by g++ in simt/.
set(SL_KERNEL_SOURCES)
foreach(name activation copy_pages embedding fused_qkv fused_qkv_bf16 fused_qkv_f16 gemm_bf16 gemm_f16 gemv heads linear
        merge_states paged_attention paged_attention_bf16 paged_attention_f16 paged_attention_f32 paged_prefill_bf16 paged_prefill_bf16_eight paged_prefill_f16
        paged_prefill_f16_eight penalties rms_norm sampling tile_linear tiled_attention)
  list(APPEND SL_KERNEL_SOURCES ${CMAKE_CURRENT_LIST_DIR}/${name}.cu)
endforeach()
set(SL_CUDA_HOST_SOURCES)
foreach(name context device error quants staging stream table weights)
  list(APPEND SL_CUDA_HOST_SOURCES ${CMAKE_CURRENT_LIST_DIR}/../cuda/${name}.cpp)
endforeach()
