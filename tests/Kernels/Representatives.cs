namespace Sluice.Kernels;

/// <summary>A case for every kernel of the library: together they run all of them, so tools that are slow (compute-sanitizer) need no more.</summary>
public static class Representatives
{
    /// <summary>Kernel as in KERNEL(), without template arguments; cases that run it, small ones.</summary>
    public static readonly (string Kernel, string[] Cases)[] Table =
    [
        ("add_splits_kernel", ["linear tiles capped and shared F32"]),
        ("argmax_kernel", ["argmax 4x1000"]),
        ("copy_pages_kernel", ["copy_pages F16 D 32", "copy_pages F16 D 10", "save_pages I8 P 8 D 32/32", "save_pages BF16 P 1 D 10/10", "load_pages I8 P 16 D 24/17", "load_pages F16 P 8 D 32/32"]),
        ("dequantise_kernel", ["linear route Dense F16 Q4_0 2x136x512", "linear route Dense BF16 Q6K 2x136x512"]),
        ("embedding_kernel", ["embedding F16 F16"]),
        ("embedding_packed_kernel", ["embedding F16 Q4_0", "embedding F16 Q4K", "embedding F16 Q6K"]),
        ("f32_linear_kernel", ["linear f32 to BF16 F32 33x40x256"]),
        ("few_gated_kernel", ["gated_linear F32 to F16 Q4K 1x40x256"]),
        ("few_linear_kernel", ["linear F16 Q4_0 2x24x512", "linear BF16 BF16 2x24x512"]),
        ("few_qkv_kernel", ["fused_qkv one row Half", "fused_qkv BF16 Q4K Q6K decode"]),
        ("gated_activation_kernel", ["gated_activation F16 Silu"]),
        ("gather_kernel", ["gather F16 37", "gather F16 64"]),
        ("gemv_kernel", ["linear F32 Q4_0 1x40x256", "linear odd f32"]),
        ("heads_kernel", ["kv_append F16 to F16", "kv_append BF16 to I8"]),
        ("log_probs_kernel", ["log_probs 4x1000"]),
        ("merge_states_kernel", ["merge_states F16"]),
        ("paged_prefill_kernel", ["paged_attention prefill F16", "paged_attention decode F16", "paged_attention group 7 F16"]),
        ("penalties_kernel", ["penalties 4x1000"]),
        ("rms_norm_kernel", ["rms_norm F16 3x896", "add_rms_norm F16 3x896", "rms_norm_add F16 7x100"]),
        ("round_rows_kernel", ["fused_qkv f32 to F16 F32 prefill"]),
        ("sample_kernel", ["sample 4x1000 t0.7 k20 p0.8 m0.1"]),
        ("squares_kernel", ["linear squares F32 F32 1x40x512"]),
        ("tile_gated_kernel", ["gated_linear odd rows in tiles", "gated_linear BF16 to BF16 Q6K 70x264x256"]),
        ("tile_linear_kernel", ["linear BF16 Q4_0 17x136x512", "linear tiles capped and shared F16", "linear large tiles F16 F16", "linear large tiles F16 Q4_0"]),
        ("tile_qkv_kernel", ["fused_qkv f32 to BF16 F16 prefill", "fused_qkv f32 to F16 Q4_0 prefill"]),
        ("tiled_attention_kernel", ["paged_attention prefill F32", "paged_attention group 1 F32", "paged_attention sinks F32"]),
    ];

    public static IReadOnlyList<OpCase> Cases => [.. Table.SelectMany(t => t.Cases).Distinct().Select(KernelCases.Get)];
}
