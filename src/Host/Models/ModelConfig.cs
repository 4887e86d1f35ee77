using System.Runtime.InteropServices;
using Sluice.Loading;

namespace Sluice.Models;

/// <summary>A model's sizes and constants, read from its file and checked: all tensors that it implies are there, of the right shape.</summary>
public sealed record ModelConfig
{
    private const int MostLayers = 4_096;
    private const int MostHeads = 16_384;
    private const int MostWidth = 1 << 22;
    private const int MostHeadDim = 65_536;

    /// <summary>The family.</summary>
    public required Architecture Architecture { get; init; }

    /// <summary><c>general.name</c>, or the file's name.</summary>
    public required string Name { get; init; }

    /// <summary>Transformer blocks.</summary>
    public required int LayerCount { get; init; }

    /// <summary>Width of the residual stream.</summary>
    public required int HiddenSize { get; init; }

    /// <summary>H: query heads; a multiple of <see cref="KvHeadCount"/>.</summary>
    public required int HeadCount { get; init; }

    /// <summary>Hkv: key and value heads.</summary>
    public required int KvHeadCount { get; init; }

    /// <summary>D: dimensions of a query or key head.</summary>
    public required int HeadDim { get; init; }

    /// <summary>Dimensions of a value head.</summary>
    public required int ValueHeadDim { get; init; }

    /// <summary>Width of the feed-forward.</summary>
    public required int FeedForwardSize { get; init; }

    /// <summary>Rows of the embedding: logits of a position.</summary>
    public required int VocabularySize { get; init; }

    /// <summary>Tokens that the model was trained to see.</summary>
    public required int ContextLength { get; init; }

    /// <summary>The epsilon of every RMSNorm.</summary>
    public required float NormEpsilon { get; init; }

    /// <summary>True where query, key and value projections have a bias.</summary>
    public required bool HasQkvBias { get; init; }

    /// <summary>True where the output projection is the embedding matrix.</summary>
    public required bool TiedEmbeddings { get; init; }

    /// <summary>RoPE's angle per position of pair i: [R/2], R at most D; scalings are in it. The first R dimensions of a head turn.</summary>
    public required ReadOnlyMemory<float> InverseFrequencies { get; init; }

    /// <summary>Multiplies RoPE's cosines and sines.</summary>
    public float RopeScale { get; init; } = 1f;

    /// <summary>R: the dimensions of a head that RoPE turns.</summary>
    public int RopeDimensions => InverseFrequencies.Length * 2;

    /// <summary>Reads and checks the configuration of a file.</summary>
    /// <exception cref="ModelFormatException">A key or tensor is missing, of the wrong type or shape, or out of bounds.</exception>
    /// <exception cref="UnsupportedModelException">The architecture, a tensor type, a scaling or a tensor is not supported.</exception>
    public static ModelConfig FromGguf(GgufFile file)
    {
        GgufMetadata metadata = file.Metadata;
        string family = metadata.GetText("general.architecture") ?? throw new ModelFormatException(file.Path, "general.architecture", "is missing");
        Architecture architecture = Architecture.Find(family)
            ?? throw new UnsupportedModelException(file.Path, "general.architecture", $"'{family}' is not supported; supported are {string.Join(", ", Architecture.All.Select(a => a.Name))}");

        int Required(string name, int most) => metadata.GetInteger($"{family}.{name}", 1, most)
            ?? throw new ModelFormatException(file.Path, $"{family}.{name}", "is missing");

        RefuseOtherKinds(file, family);
        int layers = Required("block_count", MostLayers);
        int hidden = Required("embedding_length", MostWidth);
        int heads = Required("attention.head_count", MostHeads);
        int kvHeads = KvHeads(file, family, layers) ?? heads;
        if (heads % kvHeads != 0)
        {
            throw new ModelFormatException(file.Path, $"{family}.attention.head_count_kv", $"is {kvHeads:N0}, which does not divide the {heads:N0} query heads");
        }

        int? keyLength = metadata.GetInteger($"{family}.attention.key_length", 1, MostHeadDim);
        if (keyLength is null && hidden % heads != 0)
        {
            throw new ModelFormatException(file.Path, $"{family}.attention.head_count", $"is {heads:N0}, which does not divide the embedding length {hidden:N0}");
        }

        int headDim = keyLength ?? hidden / heads;
        double epsilon = metadata.GetNumber($"{family}.attention.layer_norm_rms_epsilon")
            ?? throw new ModelFormatException(file.Path, $"{family}.attention.layer_norm_rms_epsilon", "is missing");
        if (epsilon is < 0 or > 1)
        {
            throw new ModelFormatException(file.Path, $"{family}.attention.layer_norm_rms_epsilon", $"is {epsilon}, and must be from 0 to 1");
        }

        TensorChecker tensors = new(file);
        GgufTensor embedding = tensors.Require("token_embd.weight");
        if (embedding.Dimensions.Length != 2 || embedding.Columns != hidden || embedding.Rows > int.MaxValue)
        {
            throw new ModelFormatException(file.Path, "tensor 'token_embd.weight'", $"is {embedding.Shape}, and {hidden:N0} x vocabulary is expected");
        }

        int vocabulary = (int)embedding.Rows;
        CheckVocabulary(file, family, vocabulary);
        bool bias = architecture.QkvBias == Presence.Always || (architecture.QkvBias == Presence.Optional && file.TryGetTensor("blk.0.attn_q.bias", out _));
        ModelConfig config = new()
        {
            Architecture = architecture,
            Name = metadata.GetText("general.name") ?? Path.GetFileNameWithoutExtension(file.Path),
            LayerCount = layers,
            HiddenSize = hidden,
            HeadCount = heads,
            KvHeadCount = kvHeads,
            HeadDim = headDim,
            ValueHeadDim = metadata.GetInteger($"{family}.attention.value_length", 1, MostHeadDim) ?? headDim,
            FeedForwardSize = Required("feed_forward_length", MostWidth),
            VocabularySize = vocabulary,
            ContextLength = Required("context_length", int.MaxValue),
            NormEpsilon = (float)epsilon,
            HasQkvBias = bias,
            TiedEmbeddings = !file.TryGetTensor("output.weight", out _),
            InverseFrequencies = default,
            RopeScale = (float)PositiveNumber(file, $"{family}.rope.scaling.attn_factor", 1),
        };
        tensors.CheckAll(config);
        return config with { InverseFrequencies = ReadInverseFrequencies(file, family, headDim, tensors) };
    }

    private static void RefuseOtherKinds(GgufFile file, string family)
    {
        if (file.Metadata.GetInteger($"{family}.expert_count", 0, int.MaxValue) is > 0 and int experts)
        {
            throw new UnsupportedModelException(file.Path, $"{family}.expert_count", $"is {experts:N0}; mixtures of experts are not supported");
        }

        int window = file.Metadata.GetInteger($"{family}.attention.sliding_window", 0, int.MaxValue) ?? 0;
        int context = file.Metadata.GetInteger($"{family}.context_length", 0, int.MaxValue) ?? int.MaxValue;
        if (window > 0 && window < context)
        {
            throw new UnsupportedModelException(file.Path, $"{family}.attention.sliding_window", $"is {window:N0} of {context:N0} tokens; sliding windows are not supported");
        }

        if (file.Metadata.GetBoolean($"{family}.attention.causal") == false)
        {
            throw new UnsupportedModelException(file.Path, $"{family}.attention.causal", "is false; only causal models are supported");
        }
    }

    // One number, or one a layer which must then all be the same.
    private static int? KvHeads(GgufFile file, string family, int layers)
    {
        string key = $"{family}.attention.head_count_kv";
        if (!file.Metadata.TryGet(key, out GgufValue? value) || value.Type != GgufValueType.Array)
        {
            return file.Metadata.GetInteger(key, 1, MostHeads);
        }

        long[] all = file.Metadata.GetIntegers(key)!;
        if (all.Length != layers || all[0] is < 1 or > MostHeads)
        {
            throw new ModelFormatException(file.Path, key, $"has {all.Length:N0} numbers for {layers:N0} layers, or one below 1 or above {MostHeads:N0}");
        }

        return !all.AsSpan().ContainsAnyExcept(all[0]) ? (int)all[0]
            : throw new UnsupportedModelException(file.Path, key, "differs from layer to layer, which is not supported");
    }

    private static void CheckVocabulary(GgufFile file, string family, int rows)
    {
        if (file.Metadata.GetInteger($"{family}.vocab_size") is long stated && stated != rows)
        {
            throw new ModelFormatException(file.Path, $"{family}.vocab_size", $"is {stated:N0}, and the embedding has {rows:N0} rows");
        }

        if (file.Metadata.GetStrings("tokenizer.ggml.tokens") is { } tokens && tokens.Count != rows)
        {
            throw new ModelFormatException(file.Path, "tokenizer.ggml.tokens", $"has {tokens.Count:N0} tokens, and the embedding has {rows:N0} rows");
        }
    }

    private static double PositiveNumber(GgufFile file, string key, double absent)
    {
        double value = file.Metadata.GetNumber(key) ?? absent;
        return value is > 0 and < 1e12 ? value : throw new ModelFormatException(file.Path, key, $"is {value}, and must be above 0 and below 1e12");
    }

    private static float[] ReadInverseFrequencies(GgufFile file, string family, int headDim, TensorChecker tensors)
    {
        string countKey = $"{family}.rope.dimension_count";
        int count = file.Metadata.GetInteger(countKey, 2, headDim) ?? headDim;
        if (count % 2 != 0)
        {
            throw new ModelFormatException(file.Path, countKey, $"is {count:N0}, and must be even");
        }

        string typeKey = $"{family}.rope.scaling.type";
        string scaling = file.Metadata.GetText(typeKey) ?? "linear";
        if (scaling is not ("linear" or "none"))
        {
            throw new UnsupportedModelException(file.Path, typeKey, $"'{scaling}' is not supported; supported are none, linear, and factors in the tensor 'rope_freqs.weight'");
        }

        double frequencyBase = PositiveNumber(file, $"{family}.rope.freq_base", 10_000);
        double factor = PositiveNumber(file, $"{family}.rope.scaling.factor", 1);
        float[] factors = new float[count / 2];
        Array.Fill(factors, 1f);
        if (tensors.ReadRopeFactors(factors.Length) is { } read)
        {
            factors = read;
        }

        float[] inverse = new float[count / 2];
        for (int i = 0; i < inverse.Length; i++)
        {
            double angle = Math.Pow(frequencyBase, -2.0 * i / count) / factors[i];
            inverse[i] = (float)(scaling == "linear" ? angle / factor : angle);
        }

        return inverse;
    }

    /// <summary>Holds a file's tensors against what a configuration implies, and refuses those that nothing would use.</summary>
    private sealed class TensorChecker(GgufFile file)
    {
        private const string RopeFactors = "rope_freqs.weight";

        private readonly HashSet<string> _used = new(StringComparer.Ordinal);

        public GgufTensor Require(string name)
        {
            if (!file.TryGetTensor(name, out GgufTensor? tensor))
            {
                throw new ModelFormatException(file.Path, $"tensor '{name}'", "is missing");
            }

            if (!TensorTypes.IsSupported(tensor.Type))
            {
                throw new UnsupportedModelException(file.Path, $"tensor '{name}'", $"is stored as {TensorTypes.Name(tensor.Type)}, which is not supported");
            }

            _used.Add(name);
            return tensor;
        }

        public void CheckAll(ModelConfig c)
        {
            long queries = (long)c.HeadCount * c.HeadDim;
            long keys = (long)c.KvHeadCount * c.HeadDim;
            long values = (long)c.KvHeadCount * c.ValueHeadDim;
            for (int layer = 0; layer < c.LayerCount; layer++)
            {
                string block = $"blk.{layer}.";
                Vector(block + "attn_norm.weight", c.HiddenSize);
                Matrix(block + "attn_q.weight", c.HiddenSize, queries);
                Matrix(block + "attn_k.weight", c.HiddenSize, keys);
                Matrix(block + "attn_v.weight", c.HiddenSize, values);
                Matrix(block + "attn_output.weight", (long)c.HeadCount * c.ValueHeadDim, c.HiddenSize);
                Vector(block + "ffn_norm.weight", c.HiddenSize);
                Matrix(block + "ffn_gate.weight", c.HiddenSize, c.FeedForwardSize);
                Matrix(block + "ffn_up.weight", c.HiddenSize, c.FeedForwardSize);
                Matrix(block + "ffn_down.weight", c.FeedForwardSize, c.HiddenSize);
                if (c.HasQkvBias)
                {
                    Vector(block + "attn_q.bias", queries);
                    Vector(block + "attn_k.bias", keys);
                    Vector(block + "attn_v.bias", values);
                }

                if (c.Architecture.QkNorm)
                {
                    Vector(block + "attn_q_norm.weight", c.HeadDim);
                    Vector(block + "attn_k_norm.weight", c.HeadDim);
                }
            }

            Vector("output_norm.weight", c.HiddenSize);
            if (!c.TiedEmbeddings)
            {
                Matrix("output.weight", c.HiddenSize, c.VocabularySize);
            }

            foreach (GgufTensor tensor in file.Tensors)
            {
                if (!_used.Contains(tensor.Name) && tensor.Name != RopeFactors)
                {
                    throw new UnsupportedModelException(file.Path, $"tensor '{tensor.Name}'", $"has no place in the architecture '{c.Architecture.Name}' of {c.LayerCount:N0} layers; the result would be wrong without it");
                }
            }
        }

        public float[]? ReadRopeFactors(int count)
        {
            if (!file.TryGetTensor(RopeFactors, out GgufTensor? tensor))
            {
                return null;
            }

            string field = $"tensor '{RopeFactors}'";
            if (tensor.Type != TensorType.F32 || tensor.ElementCount != count)
            {
                throw new ModelFormatException(file.Path, field, $"is {tensor.Shape} {TensorTypes.Name(tensor.Type)}, and {count:N0} F32 are expected");
            }

            float[] factors = new float[count];
            file.Read(tensor, 0, MemoryMarshal.AsBytes(factors.AsSpan()));
            foreach (float factor in factors)
            {
                if (!(factor > 0) || float.IsInfinity(factor))
                {
                    throw new ModelFormatException(file.Path, field, $"holds {factor}, and all factors must be above 0");
                }
            }

            return factors;
        }

        private void Matrix(string name, long columns, long rows)
        {
            GgufTensor tensor = Require(name);
            if (tensor.Dimensions.Length != 2 || tensor.Dimensions[0] != columns || tensor.Dimensions[1] != rows)
            {
                throw new ModelFormatException(file.Path, $"tensor '{name}'", $"is {tensor.Shape}, and {columns:N0} x {rows:N0} is expected");
            }
        }

        private void Vector(string name, long length)
        {
            GgufTensor tensor = Require(name);
            if (tensor.ElementCount != length || tensor.Columns != length)
            {
                throw new ModelFormatException(file.Path, $"tensor '{name}'", $"is {tensor.Shape}, and {length:N0} is expected");
            }

            if (!TensorTypes.IsFloat(tensor.Type))
            {
                throw new UnsupportedModelException(file.Path, $"tensor '{name}'", $"is a vector stored as {TensorTypes.Name(tensor.Type)}; F32, F16 and BF16 are supported");
            }
        }
    }
}
