using Sluice.Interop;
using Sluice.Models;

namespace Sluice.Tests.Host;

/// <summary>The settings of published models, in the very form of their config.json, are read as their makers mean them.</summary>
public class PublishedConfigTests
{
    private static readonly string Factors = string.Join(",", Enumerable.Repeat("1.25", 48));

    private static readonly Dictionary<string, (string Config, Action<ModelConfig> Check)> All = new()
    {
        ["Llama-3.2-1B"] = ("""
            {"architectures":["LlamaForCausalLM"],"attention_bias":false,"head_dim":64,"hidden_act":"silu","hidden_size":2048,"intermediate_size":8192,"max_position_embeddings":131072,
            "mlp_bias":false,"model_type":"llama","num_attention_heads":32,"num_hidden_layers":16,"num_key_value_heads":8,"pretraining_tp":1,"rms_norm_eps":1e-05,
            "rope_scaling":{"factor":32.0,"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192,"rope_type":"llama3"},"rope_theta":500000.0,
            "tie_word_embeddings":true,"torch_dtype":"bfloat16","vocab_size":128256}
            """, c => Assert.Equal(("llama", 16, 64, 131_072, RopeScaling.Llama3, 8_192, 0, true), (c.Architecture.Name, c.LayerCount, c.HeadDim, c.ContextLength, c.Ropes[0].Scaling, c.Ropes[0].OriginalContext, c.Layers[0].Window, c.TiedEmbeddings))),
        ["Llama-2-7b-hf"] = ("""
            {"_name_or_path":"meta-llama/Llama-2-7b-hf","architectures":["LlamaForCausalLM"],"hidden_act":"silu","hidden_size":4096,"intermediate_size":11008,"max_position_embeddings":4096,
            "model_type":"llama","num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":32,"pretraining_tp":1,"rms_norm_eps":1e-05,"rope_scaling":null,
            "tie_word_embeddings":false,"vocab_size":32000}
            """, c => Assert.Equal((10_000.0, RopeScaling.None, 4_096, 128), (c.Ropes[0].Base, c.Ropes[0].Scaling, c.ContextLength, c.HeadDim))),
        ["Phi-3-mini-128k-instruct"] = ("""
            {"architectures":["Phi3ForCausalLM"],"hidden_act":"silu","hidden_size":3072,"intermediate_size":8192,"max_position_embeddings":131072,"model_type":"phi3","num_attention_heads":32,
            "num_hidden_layers":32,"num_key_value_heads":32,"original_max_position_embeddings":4096,"rms_norm_eps":1e-05,
            "rope_scaling":{"long_factor":[FACTORS],"short_factor":[FACTORS],"type":"su"},"rope_theta":10000.0,"sliding_window":262144,"vocab_size":32064}
            """, c => Assert.Equal((RopeScaling.LongRope, 4_096, 262_144), (c.Ropes[0].Scaling, c.Ropes[0].OriginalContext, c.Layers[0].Window))),
        ["gemma-2b"] = ("""
            {"architectures":["GemmaForCausalLM"],"attention_bias":false,"head_dim":256,"hidden_act":"gelu","hidden_size":2048,"intermediate_size":16384,"max_position_embeddings":8192,
            "model_type":"gemma","num_attention_heads":8,"num_hidden_layers":18,"num_key_value_heads":1,"rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":10000.0,"vocab_size":256000}
            """, c => Assert.Equal((Activation.GeluTanh, true, MathF.Sqrt(2_048), 1), (c.Activation, c.TiedEmbeddings, c.EmbeddingScale, c.KvHeadCount))),
        ["Mistral-7B-v0.1"] = ("""
            {"architectures":["MistralForCausalLM"],"hidden_act":"silu","hidden_size":4096,"intermediate_size":14336,"max_position_embeddings":32768,"model_type":"mistral","num_attention_heads":32,
            "num_hidden_layers":32,"num_key_value_heads":8,"rms_norm_eps":1e-05,"rope_theta":10000.0,"sliding_window":4096,"tie_word_embeddings":false,"vocab_size":32000}
            """, c => Assert.All(c.Layers, l => Assert.Equal(new LayerConfig(4_096, 0), l))),
        ["Mistral-Nemo-Instruct-2407"] = ("""
            {"architectures":["MistralForCausalLM"],"head_dim":128,"hidden_act":"silu","hidden_size":5120,"intermediate_size":14336,"max_position_embeddings":131072,"model_type":"mistral",
            "num_attention_heads":32,"num_hidden_layers":40,"num_key_value_heads":8,"rms_norm_eps":1e-05,"rope_theta":1000000.0,"sliding_window":null,"tie_word_embeddings":false,"vocab_size":131072}
            """, c => Assert.Equal((128, 0, 40), (c.HeadDim, c.Layers[0].Window, c.LayerCount))),
        ["Qwen2.5-7B-Instruct"] = ("""
            {"architectures":["Qwen2ForCausalLM"],"hidden_act":"silu","hidden_size":3584,"intermediate_size":18944,"max_position_embeddings":32768,"max_window_layers":28,"model_type":"qwen2",
            "num_attention_heads":28,"num_hidden_layers":28,"num_key_value_heads":4,"rms_norm_eps":1e-06,"rope_theta":1000000.0,"sliding_window":131072,"tie_word_embeddings":false,
            "use_sliding_window":false,"vocab_size":152064,"rope_scaling":{"factor":4.0,"original_max_position_embeddings":32768,"type":"yarn"}}
            """, c => Assert.Equal((0, RopeScaling.Yarn, 4.0, 131_072, 1.1386f), (c.Layers[27].Window, c.Ropes[0].Scaling, c.Ropes[0].Factor, c.ContextLength, MathF.Round(c.Ropes[0].AttentionFactor, 4)))),
        ["Qwen3-4B"] = ("""
            {"architectures":["Qwen3ForCausalLM"],"attention_bias":false,"head_dim":128,"hidden_act":"silu","hidden_size":2560,"intermediate_size":9728,"max_position_embeddings":40960,
            "max_window_layers":36,"model_type":"qwen3","num_attention_heads":32,"num_hidden_layers":36,"num_key_value_heads":8,"rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":1000000,
            "sliding_window":null,"tie_word_embeddings":true,"use_sliding_window":false,"vocab_size":151936}
            """, c => Assert.Equal((QkNorm.Head, 128, 36, true), (c.Architecture.QkNorm, c.HeadDim, c.LayerCount, c.TiedEmbeddings))),
        ["Phi-3.5-mini-instruct"] = ("""
            {"architectures":["Phi3ForCausalLM"],"attention_bias":false,"hidden_act":"silu","hidden_size":3072,"intermediate_size":8192,"max_position_embeddings":131072,"model_type":"phi3",
            "num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":32,"original_max_position_embeddings":4096,"rms_norm_eps":1e-05,
            "rope_scaling":{"long_factor":[FACTORS],"short_factor":[FACTORS],"type":"longrope"},"rope_theta":10000.0,"sliding_window":262144,"tie_word_embeddings":false,"vocab_size":32064}
            """, c => Assert.Equal((RopeScaling.LongRope, 4_096, 131_072, 96, 1.1902f), (c.Ropes[0].Scaling, c.Ropes[0].OriginalContext, c.ContextLength, c.Ropes[0].Dimensions, MathF.Round(c.Ropes[0].AttentionFactor, 4)))),
        ["Phi-4-mini-instruct"] = ("""
            {"architectures":["Phi3ForCausalLM"],"full_attn_mod":1,"hidden_act":"silu","hidden_size":3072,"intermediate_size":8192,"interpolate_factor":1,"max_position_embeddings":131072,
            "model_type":"phi3","num_attention_heads":24,"num_hidden_layers":32,"num_key_value_heads":8,"original_max_position_embeddings":4096,"partial_rotary_factor":0.75,"rms_norm_eps":1e-05,
            "rope_scaling":{"long_factor":[FACTORS],"short_factor":[FACTORS],"type":"longrope"},"rope_theta":10000.0,"sliding_window":262144,"tie_word_embeddings":true,"vocab_size":200064}
            """, c => Assert.Equal((128, 96, true), (c.HeadDim, c.Ropes[0].Dimensions, c.TiedEmbeddings))),
        ["gemma-2-2b-it"] = ("""
            {"architectures":["Gemma2ForCausalLM"],"attention_bias":false,"attn_logit_softcapping":50.0,"cache_implementation":"hybrid","final_logit_softcapping":30.0,"head_dim":256,
            "hidden_act":"gelu_pytorch_tanh","hidden_activation":"gelu_pytorch_tanh","hidden_size":2304,"intermediate_size":9216,"max_position_embeddings":8192,"model_type":"gemma2",
            "num_attention_heads":8,"num_hidden_layers":26,"num_key_value_heads":4,"query_pre_attn_scalar":256,"rms_norm_eps":1e-06,"rope_theta":10000.0,"sliding_window":4096,"vocab_size":256000}
            """, c => Assert.Equal((48f, 1f / 16, 50f, 30f, 4_096, 0, true, Activation.GeluTanh), (c.EmbeddingScale, c.AttentionScale, c.AttentionSoftCap, c.LogitSoftCap, c.Layers[0].Window, c.Layers[1].Window, c.TiedEmbeddings, c.Activation))),
        ["gemma-3-1b-it"] = ("""
            {"architectures":["Gemma3ForCausalLM"],"attention_bias":false,"attn_logit_softcapping":null,"cache_implementation":"hybrid","final_logit_softcapping":null,"head_dim":256,
            "hidden_activation":"gelu_pytorch_tanh","hidden_size":1152,"intermediate_size":6912,"max_position_embeddings":32768,"model_type":"gemma3_text","num_attention_heads":4,
            "num_hidden_layers":26,"num_key_value_heads":1,"query_pre_attn_scalar":256,"rms_norm_eps":1e-06,"rope_local_base_freq":10000,"rope_scaling":null,"rope_theta":1000000,
            "sliding_window":512,"sliding_window_pattern":6,"vocab_size":262144}
            """, c => Assert.Equal((new LayerConfig(512, 1), new LayerConfig(0, 0), 1e6, 1e4, 0f), (c.Layers[4], c.Layers[5], c.Ropes[0].Base, c.Ropes[1].Base, c.LogitSoftCap))),
        ["gemma-3-4b-it"] = ("""
            {"architectures":["Gemma3ForConditionalGeneration"],"boi_token_index":255999,"eoi_token_index":256000,"eos_token_id":[1,106],"image_token_index":262144,"mm_tokens_per_image":256,
            "model_type":"gemma3","text_config":{"hidden_size":2560,"intermediate_size":10240,"model_type":"gemma3_text","num_hidden_layers":34,
            "rope_scaling":{"factor":8.0,"rope_type":"linear"},"sliding_window":1024},"torch_dtype":"bfloat16","vision_config":{"hidden_size":1152,"image_size":896}}
            """, c => Assert.Equal((8, 4, 256, RopeScaling.Linear, 8.0, RopeScaling.None, 262_208, 131_072), (c.HeadCount, c.KvHeadCount, c.HeadDim, c.Ropes[0].Scaling, c.Ropes[0].Factor, c.Ropes[1].Scaling, c.VocabularySize, c.ContextLength))),
        ["OLMo-2-1124-7B"] = ("""
            {"architectures":["Olmo2ForCausalLM"],"attention_bias":false,"hidden_act":"silu","hidden_size":4096,"intermediate_size":11008,"max_position_embeddings":4096,"model_type":"olmo2",
            "num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":32,"rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":500000,"tie_word_embeddings":false,"vocab_size":100352}
            """, c => Assert.Equal((NormPlacement.After, QkNorm.Row, 128), (c.Architecture.Norms, c.Architecture.QkNorm, c.HeadDim))),
        ["granite-3.1-2b-instruct"] = ("""
            {"architectures":["GraniteForCausalLM"],"attention_bias":false,"attention_multiplier":0.015625,"embedding_multiplier":12.0,"hidden_act":"silu","hidden_size":2048,"intermediate_size":8192,
            "logits_scaling":8.0,"max_position_embeddings":131072,"mlp_bias":false,"model_type":"granite","num_attention_heads":32,"num_hidden_layers":40,"num_key_value_heads":8,
            "residual_multiplier":0.22,"rms_norm_eps":1e-05,"rope_scaling":null,"rope_theta":5000000.0,"tie_word_embeddings":true,"vocab_size":49155}
            """, c => Assert.Equal((12f, 1f / 64, 0.22f, 1f / 8), (c.EmbeddingScale, c.AttentionScale, c.ResidualScale, c.LogitScale))),
        ["SmolLM3-3B"] = ("""
            {"architectures":["SmolLM3ForCausalLM"],"attention_bias":false,"hidden_act":"silu","hidden_size":2048,"intermediate_size":11008,"max_position_embeddings":65536,"max_window_layers":28,
            "mlp_bias":false,"model_type":"smollm3","no_rope_layer_interval":4,"no_rope_layers":[1,1,1,0,1,1,1,0],"num_attention_heads":16,"num_hidden_layers":8,"num_key_value_heads":4,
            "rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":5000000.0,"sliding_window":null,"use_sliding_window":false,"vocab_size":128256}
            """, c => Assert.Equal([0, 0, 0, -1, 0, 0, 0, -1], c.Layers.Select(l => l.Rope))),
    };

    public static TheoryData<string> Names() => [.. All.Keys];

    [Theory, MemberData(nameof(Names))]
    public void Published_settings_are_read(string name)
    {
        using TempFolder folder = new();
        File.WriteAllText(folder["config.json"], All[name].Config.Replace("FACTORS", Factors, StringComparison.Ordinal));
        HuggingFaceConfigReader reader = new(Path.GetDirectoryName(folder["config.json"])!);
        System.Text.Json.JsonElement json = reader.Top.Element;
        int vocabulary = json.TryGetProperty("vocab_size", out System.Text.Json.JsonElement rows) ? rows.GetInt32() : 262_208;
        ModelTensor embedding = new() { Name = "model.embed_tokens.weight", Encoding = WeightEncoding.BF16, Rank = 2, Rows = vocabulary, Columns = 1, Data = default, Parts = [] };
        All[name].Check(reader.Read(embedding, hasHead: false));
    }
}
