namespace Sluice.Models;

/// <summary>What Hugging Face's models call the tensors that GGUF calls <c>blk.0.attn_q.weight</c>.</summary>
internal static class HuggingFaceNames
{
    /// <summary>The names under which a tensor may stand, the first choice first; none for a tensor that such models do not have.</summary>
    public static IReadOnlyList<string> Of(string name, Architecture family)
    {
        int dot = name.LastIndexOf('.');
        string stem = name[..dot], suffix = name[dot..];
        if (!stem.StartsWith("blk.", StringComparison.Ordinal))
        {
            return stem switch
            {
                "token_embd" => ["model.embed_tokens" + suffix],
                "output_norm" => ["model.norm" + suffix],
                "output" => ["lm_head" + suffix],
                _ => [],
            };
        }

        int after = stem.IndexOf('.', 4);
        string layer = $"model.layers.{stem[4..after]}.";
        return [.. InLayer(stem[(after + 1)..], family).Select(own => layer + own + suffix)];
    }

    private static string[] InLayer(string stem, Architecture family) => stem switch
    {
        "attn_norm" => ["input_layernorm"],
        "attn_q" => ["self_attn.q_proj"],
        "attn_k" => ["self_attn.k_proj"],
        "attn_v" => ["self_attn.v_proj"],
        "attn_qkv" => ["self_attn.qkv_proj"],
        "attn_output" => ["self_attn.o_proj"],
        "attn_q_norm" => ["self_attn.q_norm"],
        "attn_k_norm" => ["self_attn.k_norm"],
        "ffn_gate" => ["mlp.gate_proj"],
        "ffn_up" => ["mlp.up_proj", "mlp.gate_up_proj"],
        "ffn_down" => ["mlp.down_proj"],

        // The name that stands for the second norm depends on where norms stand.
        "ffn_norm" => [family.Norms == NormPlacement.Before ? "post_attention_layernorm" : "pre_feedforward_layernorm"],
        "post_attention_norm" => ["post_attention_layernorm"],
        "post_ffw_norm" => ["post_feedforward_layernorm"],
        _ => [],
    };
}
