using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json;
using Sluice.Interop;
using Sluice.Loading;

namespace Sluice.Models;

/// <summary>Reads a model's configuration from config.json, with the defaults that Hugging Face's own classes have for keys that are left out.</summary>
internal sealed class HuggingFaceConfigReader
{
    // Gemma 3's files for text and pictures write down only what differs from the class.
    private static readonly Dictionary<string, double> Gemma3Defaults = new(StringComparer.Ordinal)
    {
        ["num_attention_heads"] = 8, ["num_key_value_heads"] = 4, ["head_dim"] = 256, ["vocab_size"] = 262_208, ["max_position_embeddings"] = 131_072,
        ["rms_norm_eps"] = 1e-6, ["rope_theta"] = 1e6, ["query_pre_attn_scalar"] = 256, ["sliding_window"] = 4_096,
    };

    private readonly JsonValue _json; // the language model's part
    private readonly string _folder;

    public HuggingFaceConfigReader(string folder)
    {
        _folder = folder;
        Top = JsonValue.ReadFile(Path.Combine(folder, "config.json"));
        JsonValue classes = Top.Require("architectures");
        JsonValue first = classes.Items().Cast<JsonValue?>().FirstOrDefault() ?? throw classes.Malformed("is empty");
        Architecture = Architecture.FindClass(first.Text())
            ?? throw first.Unsupported($"'{first.Text()}' is not supported; supported are {string.Join(", ", Architecture.All.SelectMany(a => a.Classes))}");
        _json = Top.Get("text_config") ?? Top;
    }

    /// <summary>All of config.json.</summary>
    public JsonValue Top { get; }

    public Architecture Architecture { get; }

    private string Model => Architecture.Name;

    public ModelConfig Read(ModelTensor embedding, bool hasHead)
    {
        RefuseOtherKinds();
        int hidden = Size("hidden_size", ModelConfig.MostWidth), heads = Size("num_attention_heads", ModelConfig.MostHeads);
        int kvHeads = OptionalSize("num_key_value_heads", ModelConfig.MostHeads) ?? heads;
        if (heads % kvHeads != 0)
        {
            throw _json.Require("num_key_value_heads").Malformed($"is {kvHeads:N0}, which does not divide the {heads:N0} query heads");
        }

        int? stated = OptionalSize("head_dim", ModelConfig.MostHeadDim) ?? (Model == "gemma" ? 256 : Model == "qwen3" ? 128 : null);
        if (stated is null && hidden % heads != 0)
        {
            throw _json.Require("num_attention_heads").Malformed($"is {heads:N0}, which does not divide the hidden size {hidden:N0}");
        }

        int headDim = stated ?? hidden / heads;
        int layers = Size("num_hidden_layers", ModelConfig.MostLayers), trained = Size("max_position_embeddings", int.MaxValue);
        int vocabulary = Size("vocab_size", int.MaxValue);
        if (embedding.Rows != vocabulary)
        {
            throw new ModelFormatException(embedding.File, $"tensor '{embedding.Name}'", $"has {embedding.Rows:N0} rows, and vocab_size in config.json is {vocabulary:N0}");
        }

        double epsilon = Number("rms_norm_eps") ?? 1e-6;
        if (epsilon is < 0 or > 1)
        {
            throw _json.Require("rms_norm_eps").Malformed($"is {epsilon.ToString(CultureInfo.InvariantCulture)}, and must be from 0 to 1");
        }

        RopeReader ropes = new(_json, Architecture, headDim, trained, Number("rope_theta"));
        return new ModelConfig
        {
            Architecture = Architecture,
            Name = NameOf(),
            Layers = Layers(layers, ropes.All.Length - 1),
            HiddenSize = hidden,
            HeadCount = heads,
            KvHeadCount = kvHeads,
            HeadDim = headDim,
            ValueHeadDim = headDim,
            FeedForwardSize = Size("intermediate_size", ModelConfig.MostWidth),
            VocabularySize = vocabulary,
            ContextLength = ropes.ContextLength,
            NormEpsilon = (float)epsilon,
            TiedEmbeddings = Top.Boolean("tie_word_embeddings") ?? _json.Boolean("tie_word_embeddings") ?? (Architecture.TiesEmbeddings || !hasHead),
            RopeKind = RopeKind.Half,
            Ropes = ropes.All,
            Activation = Activation(),
            EmbeddingScale = Positive("embedding_multiplier") ?? (Architecture.ScalesEmbedding ? MathF.Sqrt(hidden) : 1f),
            AttentionScale = Positive("attention_multiplier") ?? (Positive("query_pre_attn_scalar") is { } scalar ? 1f / MathF.Sqrt(scalar) : 0f),
            AttentionSoftCap = Cap("attn_logit_softcapping", Architecture.DefaultAttentionSoftCap),
            LogitSoftCap = Cap("final_logit_softcapping", Architecture.DefaultLogitSoftCap),
            ResidualScale = Positive("residual_multiplier") ?? 1f,
            LogitScale = 1f / (Positive("logits_scaling") ?? 1f),
        };
    }

    public IEnumerable<(string Key, string Value)> Describe() =>
        Top.Entries().Select(e => (e.Key, e.Value.Element.ValueKind == JsonValueKind.String ? e.Value.Text() : e.Value.Element.GetRawText()));

    private void RefuseOtherKinds()
    {
        foreach (string key in (ReadOnlySpan<string>)["num_local_experts", "num_experts"])
        {
            if (_json.Integer(key, 0, int.MaxValue) is > 0 and long experts)
            {
                throw _json.Require(key).Unsupported($"is {experts:N0}; mixtures of experts are not supported");
            }
        }

        if (_json.Get("use_bidirectional_attention") is { } both && both.Boolean())
        {
            throw both.Unsupported("is true; only causal models are supported");
        }
    }

    private string NameOf()
    {
        string? stated = Top.Text("_name_or_path");
        return string.IsNullOrEmpty(stated) ? Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(_folder))) : stated;
    }

    private Activation Activation()
    {
        JsonValue? named = _json.Get("hidden_activation") ?? _json.Get("hidden_act");
        return named?.Text() switch
        {
            null => Architecture.Activation,
            "silu" or "swish" => Interop.Activation.Silu,
            "gelu_pytorch_tanh" or "gelu_new" or "gelu_fast" => Interop.Activation.GeluTanh,

            // Gemma's first files say gelu and mean the other; its classes take it so.
            "gelu" => Architecture.Activation == Interop.Activation.GeluTanh ? Interop.Activation.GeluTanh : Interop.Activation.GeluErf,
            "relu" => Interop.Activation.Relu,
            string other => throw named.Value.Unsupported($"'{other}' is not supported; supported are silu, gelu, gelu_pytorch_tanh and relu"),
        };
    }

    private ImmutableArray<LayerConfig> Layers(int count, int windowRope)
    {
        Func<int, bool>? hasRope = null;
        if (_json.Get("no_rope_layers") is { } listed)
        {
            // 1: with RoPE, whatever the name says.
            bool[] with = [.. listed.Items().Select(i => i.Integer(0, 1) == 1)];
            hasRope = with.Length == count ? i => with[i] : throw listed.Malformed($"has {with.Length:N0} entries for {count:N0} layers");
        }
        else if (_json.Integer("no_rope_layer_interval", 0, ModelConfig.MostLayers) is { } interval)
        {
            hasRope = i => interval == 0 || (i + 1) % interval != 0;
        }

        return ModelConfig.LayersOf(Architecture, count, Window(), windowRope, HasWindow(count), hasRope);
    }

    private int Window()
    {
        // Qwen's files name a window that is not used unless they say so; SmolLM 3's likewise.
        if (_json.Boolean("use_sliding_window") == false || (_json.Boolean("use_sliding_window") is null && Model is "qwen2" or "qwen3" or "smollm3"))
        {
            return 0;
        }

        bool absent = !_json.Element.TryGetProperty("sliding_window", out _);
        int fallback = !absent ? 0 : Top.Text("model_type") == "mistral" ? 4_096 : Model == "gemma3" ? (int)Gemma3Defaults["sliding_window"] : Architecture.DefaultWindow;
        return (int)(_json.Integer("sliding_window", 0, int.MaxValue) ?? fallback);
    }

    private Func<int, bool>? HasWindow(int count)
    {
        if (_json.Get("layer_types") is { } types)
        {
            bool[] slides = [.. types.Items().Select(t => t.Text() switch
            {
                "sliding_attention" => true,
                "full_attention" => false,
                string other => throw t.Unsupported($"'{other}' is not supported; supported are full_attention and sliding_attention"),
            })];
            return slides.Length == count ? i => slides[i] : throw types.Malformed($"has {slides.Length:N0} entries for {count:N0} layers");
        }

        if (_json.Integer("sliding_window_pattern", 0, ModelConfig.MostLayers) is { } period)
        {
            return i => period > 0 && (i + 1) % period != 0;
        }

        return Model is "qwen2" or "qwen3" && _json.Integer("max_window_layers", 0, int.MaxValue) is { } first ? i => i >= first : null;
    }

    private int Size(string key, int most) => OptionalSize(key, most) ?? (int)_json.Require(key).Integer(1, most);

    private int? OptionalSize(string key, int most) => (int?)_json.Integer(key, 1, most) ?? (int?)Default(key);

    private double? Number(string key) => _json.Number(key) ?? Default(key);

    private float? Positive(string key) => Number(key) switch
    {
        null => null,
        > 1e-6 and < 1e6 and double value => (float)value,
        double value => throw _json.Require(key).Malformed($"is {value.ToString(CultureInfo.InvariantCulture)}, and must be above 1e-6 and below 1e6"),
    };

    // Left out, it is the family's; null, there is none.
    private float Cap(string key, float absent) => Positive(key) ?? (_json.Element.TryGetProperty(key, out _) ? 0f : absent);

    private double? Default(string key) => Model == "gemma3" && Gemma3Defaults.TryGetValue(key, out double value) ? value : null;
}
