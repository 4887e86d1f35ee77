using System.Text.Json;
using Sluice.Interop;
using Sluice.Loading;
using Sluice.Models;
using Sluice.Tokenization;

namespace Sluice.Conversion;

/// <summary>Writes config.json.</summary>
internal static class HuggingFaceConfigWriter
{
    public static void Write(Utf8JsonWriter json, ModelConfig c, Tokenizer tokenizer, TensorType type)
    {
        Architecture family = c.Architecture;
        int window = c.Layers.Max(l => l.Window);

        // Mistral is Llama with a window; the rest of that class is the same.
        bool mistral = family.Name == "llama" && window > 0;
        json.WriteStartArray("architectures");
        json.WriteStringValue(mistral ? "MistralForCausalLM" : family.Classes[0]);
        json.WriteEndArray();
        json.WriteString("model_type", mistral ? "mistral" : family.Name == "gemma3" ? "gemma3_text" : family.Name);
        json.WriteString("_name_or_path", c.Name);
        json.WriteNumber("hidden_size", c.HiddenSize);
        json.WriteNumber("intermediate_size", c.FeedForwardSize);
        json.WriteNumber("num_hidden_layers", c.LayerCount);
        json.WriteNumber("num_attention_heads", c.HeadCount);
        json.WriteNumber("num_key_value_heads", c.KvHeadCount);
        json.WriteNumber("head_dim", c.ValueHeadDim == c.HeadDim ? c.HeadDim : throw Unsaid(c, "head_dim", "values and keys have heads of different sizes"));
        json.WriteNumber("vocab_size", c.VocabularySize);
        json.WriteNumber("max_position_embeddings", c.Ropes[0].Scaling is RopeScaling.Yarn or RopeScaling.Dynamic ? c.Ropes[0].OriginalContext : c.ContextLength);
        Number(json, "rms_norm_eps", c.NormEpsilon);
        json.WriteBoolean("tie_word_embeddings", c.TiedEmbeddings);
        json.WriteString("torch_dtype", type switch { TensorType.F32 => "float32", TensorType.BF16 => "bfloat16", _ => "float16" });
        string activation = c.Activation switch
        {
            Activation.Silu => "silu",
            Activation.GeluTanh => "gelu_pytorch_tanh",
            Activation.GeluErf => "gelu",
            _ => "relu",
        };
        json.WriteString("hidden_act", activation);
        json.WriteString("hidden_activation", activation);
        WriteScales(json, c);
        WriteLayers(json, c, window);
        WriteRope(json, c);
        WriteTokens(json, tokenizer);
    }

    /// <summary>The ids that begin and end texts.</summary>
    public static void WriteTokens(Utf8JsonWriter json, Tokenizer tokenizer)
    {
        if (tokenizer.BosId is { } bos)
        {
            json.WriteNumber("bos_token_id", bos);
        }

        int[] ends = [.. Enumerable.Range(0, tokenizer.VocabularySize).Where(tokenizer.IsEndOfGeneration)];
        if (ends.Length > 0)
        {
            json.WriteStartArray("eos_token_id");
            Array.ForEach(ends, json.WriteNumberValue);
            json.WriteEndArray();
        }
    }

    private static void WriteScales(Utf8JsonWriter json, ModelConfig c)
    {
        bool granite = c.Architecture.Name == "granite", gemma = c.Architecture.Name is "gemma2" or "gemma3";
        float scale = c.AttentionScale != 0 ? c.AttentionScale : 1f / MathF.Sqrt(c.HeadDim);
        if (granite)
        {
            Number(json, "embedding_multiplier", c.EmbeddingScale);
            Number(json, "attention_multiplier", scale);
            Number(json, "residual_multiplier", c.ResidualScale);
            Number(json, "logits_scaling", 1f / c.LogitScale);
            return;
        }

        float embedding = c.Architecture.ScalesEmbedding ? MathF.Sqrt(c.HiddenSize) : 1f;
        if (c.EmbeddingScale != embedding || c.ResidualScale != 1 || c.LogitScale != 1 || (c.AttentionScale != 0 && !gemma))
        {
            throw Unsaid(c, "scales", "the family's class has no key for these");
        }

        if (gemma)
        {
            Number(json, "query_pre_attn_scalar", Math.Round(1.0 / ((double)scale * scale), 3));
            Optional("attn_logit_softcapping", c.AttentionSoftCap);
            Optional("final_logit_softcapping", c.LogitSoftCap);
        }
        else if (c.AttentionSoftCap != 0 || c.LogitSoftCap != 0)
        {
            throw Unsaid(c, "soft caps", "the family's class has no key for these");
        }

        void Optional(string key, float cap)
        {
            if (cap != 0)
            {
                Number(json, key, cap);
            }
            else
            {
                json.WriteNull(key);
            }
        }
    }

    private static void WriteLayers(Utf8JsonWriter json, ModelConfig c, int window)
    {
        if (window > 0)
        {
            json.WriteNumber("sliding_window", window);
            json.WriteBoolean("use_sliding_window", true);
            json.WriteStartArray("layer_types");
            foreach (LayerConfig layer in c.Layers)
            {
                json.WriteStringValue(layer.Window > 0 ? "sliding_attention" : "full_attention");
            }

            json.WriteEndArray();
        }
        else
        {
            json.WriteNull("sliding_window");
        }

        if (c.Layers.Any(l => l.Rope < 0))
        {
            json.WriteStartArray("no_rope_layers");
            foreach (LayerConfig layer in c.Layers)
            {
                json.WriteNumberValue(layer.Rope < 0 ? 0 : 1);
            }

            json.WriteEndArray();
        }
    }

    private static void WriteRope(Utf8JsonWriter json, ModelConfig c)
    {
        RopeConfig rope = c.Ropes[0];
        Number(json, "rope_theta", rope.Base);
        if (c.Ropes.Length > 1)
        {
            Number(json, "rope_local_base_freq", c.Ropes[1].Base);
        }

        if (rope.Dimensions != c.HeadDim)
        {
            Number(json, "partial_rotary_factor", (double)rope.Dimensions / c.HeadDim);
        }

        // Plain divisors are a LongRope whose two sets are the same.
        bool divided = !rope.Divisors.IsEmpty && rope.Scaling != RopeScaling.LongRope;
        if (divided && rope.Scaling != RopeScaling.None)
        {
            throw Unsaid(c, "rope_freqs", $"together with {rope.Scaling} scaling");
        }

        if (rope.Scaling == RopeScaling.None && !divided)
        {
            json.WriteNull("rope_scaling");
            return;
        }

        RopeScaling kind = divided ? RopeScaling.LongRope : rope.Scaling;
        json.WriteStartObject("rope_scaling");
        json.WriteString("rope_type", kind.ToString().ToLowerInvariant());
        Number(json, "factor", rope.Factor);
        if (kind is RopeScaling.Llama3 or RopeScaling.Yarn or RopeScaling.LongRope)
        {
            json.WriteNumber("original_max_position_embeddings", divided ? c.ContextLength : rope.OriginalContext);
        }

        switch (kind)
        {
            case RopeScaling.Llama3:
                Number(json, "low_freq_factor", rope.LowFrequencyFactor);
                Number(json, "high_freq_factor", rope.HighFrequencyFactor);
                break;
            case RopeScaling.Yarn:
                Number(json, "beta_fast", rope.BetaFast);
                Number(json, "beta_slow", rope.BetaSlow);
                Number(json, "attention_factor", rope.AttentionFactor);
                json.WriteBoolean("truncate", rope.Truncate);
                break;
            case RopeScaling.LongRope:
                Number(json, "attention_factor", rope.AttentionFactor);
                Factors("short_factor", rope.Divisors);
                Factors("long_factor", divided ? rope.Divisors : rope.LongDivisors);
                break;
        }

        json.WriteEndObject();

        void Factors(string key, ReadOnlyMemory<float> factors)
        {
            json.WriteStartArray(key);
            foreach (float factor in factors.Span)
            {
                json.WriteNumberValue(factor);
            }

            json.WriteEndArray();
        }
    }

    // 1e-05 and not 9.999999747378752E-06: the shortest text that gives the same float again.
    private static void Number(Utf8JsonWriter json, string key, float value) => json.WriteNumber(key, value);

    private static void Number(Utf8JsonWriter json, string key, double value) => json.WriteNumber(key, value);

    private static UnsupportedModelException Unsaid(ModelConfig c, string what, string why) => new(c.Name, what, $"{why}: a Hugging Face folder cannot say it");
}
