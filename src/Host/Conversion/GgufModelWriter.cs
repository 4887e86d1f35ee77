using Sluice.Interop;
using Sluice.Loading;
using Sluice.Models;
using Sluice.Tokenization;

namespace Sluice.Conversion;

/// <summary>A model's configuration and tensors as GGUF has them.</summary>
internal static class GgufModelWriter
{
    /// <summary>The tensors to write, in order; <see cref="RopeFactors"/> come behind them.</summary>
    public static List<OutputTensor> Plan(ModelConfig config, ModelTensors tensors, TensorType? type)
    {
        List<OutputTensor> plan = [];
        RopeConfig rope = config.Ropes[0];
        bool reorder = config.RopeKind != config.Architecture.GgufRope;
        Func<int, int>? order = reorder ? HeadOrder.FromHalves(config.HeadDim, rope.Dimensions) : null;
        foreach (string name in tensors.All.Keys)
        {
            bool turned = name.Contains(".attn_q.", StringComparison.Ordinal) || name.Contains(".attn_k.", StringComparison.Ordinal);
            (string Name, string[] Parts) written = config.Architecture.IsFused && FusedNames.Of(name) is { } fused ? fused : (name, [name]);
            if (written.Parts[0] == name)
            {
                ModelTensor[] sources = Array.ConvertAll(written.Parts, n => tensors[n]);
                plan.Add(new OutputTensor { Name = written.Name, Type = TypeOf(written.Name, sources[0], type), Sources = sources, RowOf = turned ? order : null });
            }
        }

        return plan;
    }

    /// <exception cref="UnsupportedModelException">A setting that GGUF has no key for.</exception>
    public static void AddMetadata(GgufWriter writer, ModelConfig config, Tokenizer tokenizer, string? template, TensorType? type)
    {
        Architecture family = config.Architecture;
        string p = family.Name + ".";
        void Add(string key, GgufValue value) => writer.AddMetadata(p + key, value);
        writer.AddMetadata("general.architecture", GgufValue.Of(family.Name));
        writer.AddMetadata("general.name", GgufValue.Of(config.Name));
        if (type is { } stored)
        {
            writer.AddMetadata("general.file_type", GgufValue.Of(FileType(stored)));
        }

        Add("block_count", GgufValue.Of((uint)config.LayerCount));
        Add("context_length", GgufValue.Of((uint)config.ContextLength));
        Add("embedding_length", GgufValue.Of((uint)config.HiddenSize));
        Add("feed_forward_length", GgufValue.Of((uint)config.FeedForwardSize));
        Add("vocab_size", GgufValue.Of((uint)config.VocabularySize));
        Add("attention.head_count", GgufValue.Of((uint)config.HeadCount));
        Add("attention.head_count_kv", GgufValue.Of((uint)config.KvHeadCount));
        Add("attention.key_length", GgufValue.Of((uint)config.HeadDim));
        Add("attention.value_length", GgufValue.Of((uint)config.ValueHeadDim));
        Add("attention.layer_norm_rms_epsilon", GgufValue.Of(config.NormEpsilon));
        AddScales(Add, config);
        AddWindow(Add, config);
        AddRope(Add, config);
        TokenizerWriter.WriteGguf(tokenizer, config.VocabularySize, writer);
        if (template is not null)
        {
            writer.AddMetadata("tokenizer.chat_template", GgufValue.Of(template));
        }
    }

    /// <summary>What the file says in keys that other readers of the family may not know.</summary>
    public static IEnumerable<string> Notes(ModelConfig c, Tokenizer tokenizer)
    {
        if (c.AttentionScale != 0 && c.Architecture.Name != "granite" && !IsUsualScale(c))
        {
            yield return "attention.scale: other readers take one over the square root of the head's size";
        }

        RopeConfig rope = c.Ropes[0];
        if (rope.Scaling == RopeScaling.Yarn && (rope.BetaFast != 32 || rope.BetaSlow != 1))
        {
            yield return "rope.scaling.yarn_beta_fast and yarn_beta_slow: other readers take 32 and 1";
        }

        if (c.Architecture.Name is "llama" or "phi3" or "qwen2" or "qwen3" && c.Layers.Any(l => l.Window > 0))
        {
            yield return "attention.sliding_window: other readers let every layer of this family see all tokens";
        }

        if (tokenizer.Data.ComposesFirst)
        {
            yield return $"{TokenizerData.ComposesKey}: other readers do not compose text (NFC) before they cut it";
        }
    }

    /// <summary>The tensors that hold a scaling's divisors of RoPE's frequencies, f32.</summary>
    public static IEnumerable<(string Name, float[] Factors)> RopeFactors(RopeConfig rope)
    {
        if (rope.Scaling == RopeScaling.LongRope)
        {
            yield return ("rope_factors_short.weight", rope.Divisors.ToArray());
            yield return ("rope_factors_long.weight", rope.LongDivisors.ToArray());
        }
        else if (rope.Scaling == RopeScaling.Llama3)
        {
            yield return ("rope_freqs.weight", rope.ToDivisors());
        }
        else if (!rope.Divisors.IsEmpty)
        {
            yield return ("rope_freqs.weight", rope.Divisors.ToArray());
        }
    }

    private static TensorType TypeOf(string name, ModelTensor source, TensorType? wanted)
    {
        if (source.Rank == 1)
        {
            return TensorType.F32;
        }

        TensorType type = wanted ?? GgufModel.TypeOf(source.Encoding) ?? TensorType.F16;
        bool outer = name is "token_embd.weight" or "output.weight";
        if (outer && TensorTypes.BlockBytes(type) * 8 < 6.5 * TensorTypes.BlockValues(type) && wanted is not null)
        {
            type = TensorType.Q6_K;
        }

        // Rows that are no whole blocks of 256 take the next finer type of 32.
        bool Fits(TensorType t) => source.Columns % TensorTypes.BlockValues(t) == 0;
        TensorType finer = type switch { TensorType.Q4_K => TensorType.Q5_0, TensorType.Q5_K => TensorType.Q5_1, _ => TensorType.Q8_0 };
        return Fits(type) ? type : Fits(finer) ? finer : TensorType.F16;
    }

    // What a reader takes that finds no key.
    private static bool IsUsualScale(ModelConfig c)
    {
        float usual = 1f / MathF.Sqrt(c.Architecture.WideScaleLayers == c.LayerCount ? (float)c.HiddenSize / c.HeadCount : c.HeadDim);
        return Math.Abs(c.AttentionScale - usual) <= 1e-6f * usual;
    }

    private static void AddScales(Action<string, GgufValue> add, ModelConfig c)
    {
        if (c.Architecture.ScalesEmbedding ? c.EmbeddingScale != MathF.Sqrt(c.HiddenSize) : c.EmbeddingScale != 1)
        {
            add("embedding_scale", GgufValue.Of(c.EmbeddingScale));
        }

        if (c.AttentionScale != 0 && !IsUsualScale(c))
        {
            add("attention.scale", GgufValue.Of(c.AttentionScale));
        }

        if (c.ResidualScale != 1)
        {
            add("residual_scale", GgufValue.Of(c.ResidualScale));
        }

        // Readers of this family insist on the key.
        if (c.LogitScale != 1 || c.Architecture.Name == "granite")
        {
            add("logit_scale", GgufValue.Of(1f / c.LogitScale));
        }

        if (c.AttentionSoftCap != 0)
        {
            add("attn_logit_softcapping", GgufValue.Of(c.AttentionSoftCap));
        }

        if (c.LogitSoftCap != 0)
        {
            add("final_logit_softcapping", GgufValue.Of(c.LogitSoftCap));
        }

        if (c.Activation != c.Architecture.Activation)
        {
            throw new UnsupportedModelException(c.Name, "hidden_act", $"is {c.Activation}, and GGUF has no key for it");
        }
    }

    private static void AddWindow(Action<string, GgufValue> add, ModelConfig c)
    {
        int window = c.Layers.Max(l => l.Window);
        bool[] slides = [.. c.Layers.Select(l => l.Window > 0)];
        add("attention.sliding_window", GgufValue.Of((uint)window));
        if (window > 0 && !c.Layers.SequenceEqual(ModelConfig.LayersOf(c.Architecture, c.LayerCount, window, c.Ropes.Length - 1, hasRope: i => c.Layers[i].Rope >= 0)))
        {
            add("attention.sliding_window_pattern", GgufValue.OfArray(slides.AsSpan()));
        }

        LayerConfig[] expected = [.. ModelConfig.LayersOf(c.Architecture, c.LayerCount, window, c.Ropes.Length - 1, hasWindow: i => slides[i])];
        if (!c.Layers.SequenceEqual(expected))
        {
            throw new UnsupportedModelException(c.Name, "no_rope_layers", "GGUF has no key for which layers have RoPE");
        }
    }

    private static void AddRope(Action<string, GgufValue> add, ModelConfig c)
    {
        RopeConfig rope = c.Ropes[0];
        add("rope.dimension_count", GgufValue.Of((uint)rope.Dimensions));
        add("rope.freq_base", GgufValue.Of((float)rope.Base));
        if (c.Ropes.Length > 1)
        {
            if (c.Ropes[1].Scaling != RopeScaling.None || c.Ropes[1].Dimensions != rope.Dimensions)
            {
                throw new UnsupportedModelException(c.Name, "rope_parameters", "GGUF has no keys for a scaling of the layers with a window");
            }

            add("rope.freq_base_swa", GgufValue.Of((float)c.Ropes[1].Base));
        }

        string? kind = rope.Scaling switch
        {
            RopeScaling.None or RopeScaling.Llama3 => "none",
            RopeScaling.Linear => "linear",
            RopeScaling.Yarn => "yarn",
            RopeScaling.LongRope => "longrope",
            _ => throw new UnsupportedModelException(c.Name, "rope_scaling", $"GGUF has no key for {rope.Scaling} scaling"),
        };
        if (kind == "none")
        {
            return;
        }

        add("rope.scaling.type", GgufValue.Of(kind));
        add("rope.scaling.factor", GgufValue.Of((float)rope.Factor));
        add("rope.scaling.original_context_length", GgufValue.Of((uint)rope.OriginalContext));
        float attention = rope.Scaling == RopeScaling.Yarn ? (float)(rope.AttentionFactor / RopeConfig.YarnAttention(rope.Factor)) : rope.AttentionFactor;
        if (Math.Abs(attention - 1) > 1e-6)
        {
            add("rope.scaling.attn_factor", GgufValue.Of(attention));
        }

        if (rope.Scaling == RopeScaling.Yarn)
        {
            add("rope.scaling.yarn_beta_fast", GgufValue.Of((float)rope.BetaFast));
            add("rope.scaling.yarn_beta_slow", GgufValue.Of((float)rope.BetaSlow));
            if (!rope.Truncate)
            {
                throw new UnsupportedModelException(c.Name, "rope_scaling.truncate", "is false, and GGUF has no key for it");
            }
        }
    }

    private static uint FileType(TensorType type) => type switch
    {
        TensorType.F32 => 0,
        TensorType.F16 => 1,
        TensorType.Q4_0 => 2,
        TensorType.Q4_1 => 3,
        TensorType.Q8_0 => 7,
        TensorType.Q5_0 => 8,
        TensorType.Q5_1 => 9,
        TensorType.Q4_K => 15,
        TensorType.Q5_K => 17,
        TensorType.Q6_K => 18,
        _ => 32,
    };
}
