# The files that both builds of the CUDA backend compile: by nvcc in cuda/, by g++ in simt/.
set(SL_KERNEL_SOURCES)
foreach(name activation dequantise embedding f32_linear fused_qkv gated_bf16 gated_bytes gated_f16 gated_linear gemv heads linear linear_bf16 linear_bytes linear_f16
        merge_states pages paged_attention paged_prefill_bf16 paged_prefill_bf16_eight paged_prefill_f16
        paged_prefill_f16_eight penalties qkv_bf16 qkv_bytes qkv_f16 rms_norm sampling tiled_attention)
  list(APPEND SL_KERNEL_SOURCES ${CMAKE_CURRENT_LIST_DIR}/${name}.cu)
endforeach()
set(SL_CUDA_HOST_SOURCES)
foreach(name context device error quants staging stream table weights)
  list(APPEND SL_CUDA_HOST_SOURCES ${CMAKE_CURRENT_LIST_DIR}/../cuda/${name}.cpp)
endforeach()
