using System.Runtime.InteropServices;
using Sluice.Interop;
using Sluice.Loading;

namespace Sluice.Models;

/// <summary>How far a model's loading is.</summary>
/// <param name="Bytes">Bytes of weights that are on the device.</param>
/// <param name="TotalBytes">Bytes of weights in the file.</param>
/// <param name="Tensor">The tensor that was loaded last.</param>
public readonly record struct LoadProgress(long Bytes, long TotalBytes, string Tensor);

/// <summary>The weights of one transformer block. Absent tensors are <see langword="default"/>.</summary>
internal sealed record LayerWeights
{
    public required Tensor AttentionNorm { get; init; }

    public required Weight Query { get; init; }

    public required Weight Key { get; init; }

    public required Weight Value { get; init; }

    public Tensor QueryBias { get; init; }

    public Tensor KeyBias { get; init; }

    public Tensor ValueBias { get; init; }

    public Tensor QueryNorm { get; init; }

    public Tensor KeyNorm { get; init; }

    public required Weight AttentionOutput { get; init; }

    public required Tensor FeedForwardNorm { get; init; }

    public required Weight Gate { get; init; }

    public required Weight Up { get; init; }

    public required Weight Down { get; init; }
}

/// <summary>A model's weights on a device.</summary>
internal sealed class ModelWeights : IDisposable
{
    private readonly List<IDisposable> _owned = [];

    private ModelWeights()
    {
    }

    public Weight Embedding { get; private set; } = null!;

    public IReadOnlyList<LayerWeights> Layers { get; private set; } = [];

    public Tensor OutputNorm { get; private set; }

    /// <summary>[vocabulary, hidden]; the embedding itself where they are tied.</summary>
    public Weight Output { get; private set; } = null!;

    public Tensor InverseFrequencies { get; private set; }

    /// <summary>Bytes of device memory that the matrices take.</summary>
    public ulong Bytes { get; private set; }

    /// <summary>Bytes that one decoded token reads: all matrices once, of the embedding one row where it is not the head too.</summary>
    public ulong BytesPerToken { get; private set; }

    /// <exception cref="SluiceException">The device has no memory left, or failed.</exception>
    /// <exception cref="OperationCanceledException">Cancelled between two tensors; what was loaded is freed.</exception>
    public static ModelWeights Load(GgufFile file, ModelConfig config, ComputeStream stream, IProgress<LoadProgress>? progress, CancellationToken cancellation)
    {
        ModelWeights weights = new();
        try
        {
            new Loader(file, config, stream, weights, progress, cancellation).Run();
            return weights;
        }
        catch
        {
            weights.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        foreach (IDisposable owned in _owned)
        {
            owned.Dispose();
        }

        _owned.Clear();
    }

    private sealed class Loader(
        GgufFile file, ModelConfig config, ComputeStream stream, ModelWeights weights, IProgress<LoadProgress>? progress, CancellationToken cancellation)
    {
        private readonly long _total = file.Tensors.Sum(t => t.ByteLength);
        private long _done;

        public void Run()
        {
            weights.Embedding = Matrix("token_embd.weight");
            List<LayerWeights> layers = [];
            for (int i = 0; i < config.LayerCount; i++)
            {
                string block = $"blk.{i}.";
                layers.Add(new LayerWeights
                {
                    AttentionNorm = Vector(block + "attn_norm.weight"),
                    Query = Matrix(block + "attn_q.weight"),
                    Key = Matrix(block + "attn_k.weight"),
                    Value = Matrix(block + "attn_v.weight"),
                    QueryBias = config.HasQkvBias ? Vector(block + "attn_q.bias") : default,
                    KeyBias = config.HasQkvBias ? Vector(block + "attn_k.bias") : default,
                    ValueBias = config.HasQkvBias ? Vector(block + "attn_v.bias") : default,
                    QueryNorm = config.Architecture.QkNorm ? Vector(block + "attn_q_norm.weight") : default,
                    KeyNorm = config.Architecture.QkNorm ? Vector(block + "attn_k_norm.weight") : default,
                    AttentionOutput = Matrix(block + "attn_output.weight"),
                    FeedForwardNorm = Vector(block + "ffn_norm.weight"),
                    Gate = Matrix(block + "ffn_gate.weight"),
                    Up = Matrix(block + "ffn_up.weight"),
                    Down = Matrix(block + "ffn_down.weight"),
                });
            }

            weights.Layers = layers;
            weights.OutputNorm = Vector("output_norm.weight");
            weights.Output = config.TiedEmbeddings ? weights.Embedding : Matrix("output.weight");
            weights.BytesPerToken = config.TiedEmbeddings ? weights.Bytes : weights.Bytes - weights.Embedding.Bytes;
            weights.InverseFrequencies = Keep(stream.CreateTensor(DType.F32, config.InverseFrequencies.Span, config.InverseFrequencies.Length));
        }

        private Weight Matrix(string name)
        {
            GgufTensor t = Find(name);
            WeightEncoding encoding = Encoding(t.Type);
            Weight weight;
            if (file.Mapping is { } mapping)
            {
                weight = Weight.Create(stream, encoding, t.Rows, t.Columns, mapping, (ulong)(file.MappedStart + t.Offset), (ulong)t.ByteLength);
            }
            else
            {
                using HostBlock block = new((ulong)t.ByteLength);
                byte[] chunk = new byte[Math.Min(t.ByteLength, 1 << 24)];
                for (long at = 0; at < t.ByteLength; at += chunk.Length)
                {
                    cancellation.ThrowIfCancellationRequested();
                    Span<byte> part = chunk.AsSpan(0, (int)Math.Min(chunk.Length, t.ByteLength - at));
                    file.Read(t, at, part);
                    block.WriteSpan<byte>((ulong)at, part);
                }

                weight = Weight.Create(stream, encoding, t.Rows, t.Columns, block, 0, (ulong)t.ByteLength);
            }

            weights._owned.Add(weight);
            weights.Bytes += weight.Bytes;
            Report(t);
            return weight;
        }

        // Norm weights and biases become f32: exactly, and they are small.
        private Tensor Vector(string name)
        {
            GgufTensor t = Find(name);
            byte[] raw = new byte[t.ByteLength];
            file.Read(t, 0, raw);
            float[] values = new float[t.ElementCount];
            for (int i = 0; i < values.Length; i++)
            {
                values[i] = t.Type switch
                {
                    TensorType.F32 => BitConverter.ToSingle(raw, i * 4),
                    TensorType.F16 => (float)BitConverter.ToHalf(raw, i * 2),
                    _ => BitConverter.UInt32BitsToSingle((uint)BitConverter.ToUInt16(raw, i * 2) << 16),
                };
            }

            Report(t);
            return Keep(stream.CreateTensor<float>(DType.F32, values, values.Length));
        }

        private Tensor Keep(Tensor t)
        {
            weights._owned.Add(t.Buffer!);
            return t;
        }

        // The configuration has checked that every tensor is there.
        private GgufTensor Find(string name)
        {
            cancellation.ThrowIfCancellationRequested();
            return file.TryGetTensor(name, out GgufTensor? tensor) ? tensor : throw new ModelFormatException(file.Path, $"tensor '{name}'", "is missing");
        }

        private void Report(GgufTensor t)
        {
            _done += t.ByteLength;
            progress?.Report(new LoadProgress(_done, _total, t.Name));
        }

        private WeightEncoding Encoding(TensorType type) => type switch
        {
            TensorType.F32 => WeightEncoding.F32,
            TensorType.F16 => WeightEncoding.F16,
            TensorType.BF16 => WeightEncoding.BF16,
            TensorType.Q4_0 => WeightEncoding.Q4_0,
            TensorType.Q4_1 => WeightEncoding.Q4_1,
            TensorType.Q5_0 => WeightEncoding.Q5_0,
            TensorType.Q5_1 => WeightEncoding.Q5_1,
            TensorType.Q8_0 => WeightEncoding.Q8_0,
            TensorType.Q4_K => WeightEncoding.Q4K,
            TensorType.Q5_K => WeightEncoding.Q5K,
            TensorType.Q6_K => WeightEncoding.Q6K,
            _ => throw new UnsupportedModelException(file.Path, "", $"the tensor type {TensorTypes.Name(type)} is not supported"),
        };
    }
}
