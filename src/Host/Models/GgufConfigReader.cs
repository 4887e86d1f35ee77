using System.Collections.Immutable;
using System.Globalization;
using Sluice.Interop;
using Sluice.Loading;

namespace Sluice.Models;

/// <summary>Reads a model's configuration from GGUF metadata.</summary>
internal sealed class GgufConfigReader
{
    private const string RopeFactors = "rope_freqs.weight";
    private const string ShortFactors = "rope_factors_short.weight";
    private const string LongFactors = "rope_factors_long.weight";

    private readonly GgufModel _model;
    private readonly GgufMetadata _metadata;
    private readonly string _file;
    private readonly string _prefix;
    private readonly Architecture _architecture;

    public GgufConfigReader(GgufModel model)
    {
        (_model, _metadata, _file) = (model, model.Head.Metadata, model.Head.Path);
        const string Key = "general.architecture";
        _prefix = _metadata.GetText(Key) ?? throw new ModelFormatException(_file, Key, "is missing");
        _architecture = Architecture.Find(_prefix)
            ?? throw new UnsupportedModelException(_file, Key, $"'{_prefix}' is not supported; supported are {string.Join(", ", Architecture.All.Select(a => a.Name))}");
    }

    /// <summary>True for tensors that are settings, and no weights.</summary>
    public static bool ReadsTensor(string name) => name is RopeFactors or ShortFactors or LongFactors;

    public ModelConfig Read()
    {
        RefuseOtherKinds();
        int layers = Required("block_count", ModelConfig.MostLayers);
        int hidden = Required("embedding_length", ModelConfig.MostWidth);
        int heads = Required("attention.head_count", ModelConfig.MostHeads);
        int kvHeads = KvHeads(layers) ?? heads;
        if (heads % kvHeads != 0)
        {
            throw Malformed("attention.head_count_kv", $"is {kvHeads:N0}, which does not divide the {heads:N0} query heads");
        }

        int? keyLength = Integer("attention.key_length", 1, ModelConfig.MostHeadDim);
        if (keyLength is null && hidden % heads != 0)
        {
            throw Malformed("attention.head_count", $"is {heads:N0}, which does not divide the embedding length {hidden:N0}");
        }

        int headDim = keyLength ?? hidden / heads;
        double epsilon = Number("attention.layer_norm_rms_epsilon") ?? throw Malformed("attention.layer_norm_rms_epsilon", "is missing");
        if (epsilon is < 0 or > 1)
        {
            throw Malformed("attention.layer_norm_rms_epsilon", $"is {epsilon.ToString(CultureInfo.InvariantCulture)}, and must be from 0 to 1");
        }

        int context = Required("context_length", int.MaxValue);
        ImmutableArray<RopeConfig> ropes = Ropes(headDim, context);
        bool wide = _architecture.WideScaleLayers == layers;
        return new ModelConfig
        {
            Architecture = _architecture,
            Name = _metadata.GetText("general.name") ?? Path.GetFileNameWithoutExtension(_model.Path),
            Layers = Layers(layers, context, ropes.Length - 1),
            HiddenSize = hidden,
            HeadCount = heads,
            KvHeadCount = kvHeads,
            HeadDim = headDim,
            ValueHeadDim = Integer("attention.value_length", 1, ModelConfig.MostHeadDim) ?? headDim,
            FeedForwardSize = Required("feed_forward_length", ModelConfig.MostWidth),
            VocabularySize = Vocabulary(hidden),
            ContextLength = context,
            NormEpsilon = (float)epsilon,
            TiedEmbeddings = _model.Find("output.weight") is null,
            RopeKind = _architecture.GgufRope,
            Ropes = ropes,
            Activation = _architecture.Activation,
            EmbeddingScale = Positive("embedding_scale") ?? (_architecture.ScalesEmbedding ? MathF.Sqrt(hidden) : 1f),
            AttentionScale = Positive("attention.scale") ?? (wide ? 1f / MathF.Sqrt((float)hidden / heads) : 0f),
            AttentionSoftCap = Positive("attn_logit_softcapping") ?? _architecture.DefaultAttentionSoftCap,
            LogitSoftCap = Positive("final_logit_softcapping") ?? _architecture.DefaultLogitSoftCap,
            ResidualScale = Positive("residual_scale") ?? 1f,
            LogitScale = 1f / (Positive("logit_scale") ?? 1f),
        };
    }

    private void RefuseOtherKinds()
    {
        if (Integer("expert_count", 0, int.MaxValue) is > 0 and int experts)
        {
            throw new UnsupportedModelException(_file, Key("expert_count"), $"is {experts:N0}; mixtures of experts are not supported");
        }

        if (_metadata.GetBoolean(Key("attention.causal")) == false)
        {
            throw new UnsupportedModelException(_file, Key("attention.causal"), "is false; only causal models are supported");
        }
    }

    // One number, or one a layer which must then all be the same.
    private int? KvHeads(int layers)
    {
        string key = Key("attention.head_count_kv");
        if (!_metadata.TryGet(key, out GgufValue? value) || value.Type != GgufValueType.Array)
        {
            return _metadata.GetInteger(key, 1, ModelConfig.MostHeads);
        }

        long[] all = _metadata.GetIntegers(key)!;
        if (all.Length != layers || all[0] is < 1 or > ModelConfig.MostHeads)
        {
            throw new ModelFormatException(_file, key, $"has {all.Length:N0} numbers for {layers:N0} layers, or one below 1 or above {ModelConfig.MostHeads:N0}");
        }

        return !all.AsSpan().ContainsAnyExcept(all[0]) ? (int)all[0]
            : throw new UnsupportedModelException(_file, key, "differs from layer to layer, which is not supported");
    }

    private int Vocabulary(int hidden)
    {
        ModelTensor embedding = _model.Find("token_embd.weight") ?? throw new ModelFormatException(_file, "tensor 'token_embd.weight'", "is missing");
        if (embedding.Rank != 2 || embedding.Columns != hidden || embedding.Rows > int.MaxValue)
        {
            throw new ModelFormatException(_file, "tensor 'token_embd.weight'", $"is {embedding.Shape}, and vocabulary x {hidden:N0} is expected");
        }

        int rows = (int)embedding.Rows;
        if (_metadata.GetInteger(Key("vocab_size")) is long stated && stated != rows)
        {
            throw Malformed("vocab_size", $"is {stated:N0}, and the embedding has {rows:N0} rows");
        }

        if (_metadata.GetStrings("tokenizer.ggml.tokens") is { } tokens && tokens.Count != rows)
        {
            throw new ModelFormatException(_file, "tokenizer.ggml.tokens", $"has {tokens.Count:N0} tokens, and the embedding has {rows:N0} rows");
        }

        return rows;
    }

    // A window is for all layers, or for those that a period or a list of the file tells.
    private ImmutableArray<LayerConfig> Layers(int count, int context, int windowRope)
    {
        int window = Integer("attention.sliding_window", 0, int.MaxValue) ?? _architecture.DefaultWindow;
        if (window > 0 && _architecture.Norms == NormPlacement.After)
        {
            throw new UnsupportedModelException(_file, Key("attention.sliding_window"), $"is {window:N0}; windows are not supported for '{_prefix}'");
        }

        string key = Key("attention.sliding_window_pattern");
        if (!_metadata.TryGet(key, out GgufValue? pattern))
        {
            return ModelConfig.LayersOf(_architecture, count, window, windowRope);
        }

        if (pattern.Type != GgufValueType.Array)
        {
            int period = _metadata.GetInteger(key, 0, ModelConfig.MostLayers)!.Value;
            return ModelConfig.LayersOf(_architecture, count, window, windowRope, i => period == 0 || (period > 1 && i % period != period - 1));
        }

        bool[] list = _metadata.GetBooleans(key)!;
        return list.Length == count ? ModelConfig.LayersOf(_architecture, count, window, windowRope, i => list[i])
            : throw new ModelFormatException(_file, key, $"has {list.Length:N0} entries for {count:N0} layers");
    }

    private ImmutableArray<RopeConfig> Ropes(int headDim, int context)
    {
        int dimensions = Integer("rope.dimension_count", 2, headDim) ?? headDim;
        if (dimensions % 2 != 0)
        {
            throw Malformed("rope.dimension_count", $"is {dimensions:N0}, and must be even");
        }

        RopeConfig rope = Scaled(
            new RopeConfig { Dimensions = dimensions, Base = RopeBase("rope.freq_base") ?? 10_000, OriginalContext = context, AttentionFactor = Positive("rope.scaling.attn_factor") ?? 1f },
            context);
        double windowBase = RopeBase("rope.freq_base_swa") ?? _architecture.WindowRopeBase;
        return windowBase > 0 ? [rope, new RopeConfig { Dimensions = dimensions, Base = windowBase }] : [rope];
    }

    private RopeConfig Scaled(RopeConfig plain, int context)
    {
        int half = plain.Dimensions / 2;
        string scaling = _metadata.GetText(Key("rope.scaling.type")) ?? "linear";
        double factor = Positive("rope.scaling.factor") ?? Positive("rope.scale_linear") ?? 1f;
        int original = Integer("rope.scaling.original_context_length", 1, int.MaxValue) ?? context;
        RopeConfig rope = plain with { Divisors = Factors(RopeFactors, half) ?? default };
        switch (scaling)
        {
            case "none":
                return rope;
            case "linear":
                return rope with { Scaling = factor == 1 ? RopeScaling.None : RopeScaling.Linear, Factor = factor };
            case "yarn":
                double multiplier = Number("rope.scaling.yarn_log_multiplier") ?? 0;
                double attention = Positive("rope.scaling.yarn_attn_factor") ?? 1f;
                return rope with
                {
                    Scaling = RopeScaling.Yarn,
                    Factor = factor,
                    OriginalContext = original,
                    BetaFast = Positive("rope.scaling.yarn_beta_fast") ?? 32f,
                    BetaSlow = Positive("rope.scaling.yarn_beta_slow") ?? 1f,
                    AttentionFactor = (float)(rope.AttentionFactor * attention * RopeConfig.YarnAttention(factor) / (multiplier > 0 ? RopeConfig.YarnAttention(factor, multiplier) : 1)),
                };
            case "longrope":
                return rope with
                {
                    Scaling = RopeScaling.LongRope,
                    OriginalContext = original,
                    Divisors = Factors(ShortFactors, half) ?? throw new ModelFormatException(_file, $"tensor '{ShortFactors}'", "is missing"),
                    LongDivisors = Factors(LongFactors, half) ?? throw new ModelFormatException(_file, $"tensor '{LongFactors}'", "is missing"),
                };
            default:
                throw new UnsupportedModelException(_file, Key("rope.scaling.type"), $"'{scaling}' is not supported; supported are none, linear, yarn, longrope, and factors in the tensor '{RopeFactors}'");
        }
    }

    private float[]? Factors(string name, int count)
    {
        ModelTensor? tensor = _model.Find(name);
        if (tensor is null)
        {
            return null;
        }

        string field = $"tensor '{name}'";
        if (tensor.Encoding != WeightEncoding.F32 || tensor.Rank != 1 || tensor.Columns != count)
        {
            throw new ModelFormatException(tensor.File, field, $"is {tensor.Shape} {tensor.Encoding}, and {count:N0} F32 are expected");
        }

        float[] factors = tensor.ReadFloats();
        int bad = Array.FindIndex(factors, f => !(f is > 1e-6f and < 1e6f));
        return bad < 0 ? factors : throw new ModelFormatException(tensor.File, field, $"holds {factors[bad].ToString(CultureInfo.InvariantCulture)}, and all factors must be above 1e-6 and below 1e6");
    }

    private string Key(string name) => $"{_prefix}.{name}";

    private int Required(string name, int most) => Integer(name, 1, most) ?? throw Malformed(name, "is missing");

    private int? Integer(string name, int least, int most) => _metadata.GetInteger(Key(name), least, most);

    private double? Number(string name) => _metadata.GetNumber(Key(name));

    private double? RopeBase(string name) => Number(name) switch
    {
        null => null,
        >= 1 and < 1e12 and double value => value,
        double value => throw Malformed(name, $"is {value.ToString(CultureInfo.InvariantCulture)}, and must be from 1 up to 1e12"),
    };

    // A multiplier; converters write 0 for "not set".
    private float? Positive(string name) => Number(name) switch
    {
        null or 0 => null,
        > 1e-6 and < 1e6 and double value => (float)value,
        double value => throw Malformed(name, $"is {value.ToString(CultureInfo.InvariantCulture)}, and must be above 1e-6 and below 1e6"),
    };

    private ModelFormatException Malformed(string name, string detail) => new(_file, Key(name), detail);
}
