using Sluice.Interop;

namespace Sluice.Models;

/// <summary>How far a model's loading is.</summary>
/// <param name="Bytes">Bytes of weights that are on the device, and of what is written of a packed copy.</param>
/// <param name="TotalBytes">Bytes of weights in the file; twice as many where a packed copy is to be written.</param>
/// <param name="Tensor">The tensor that was loaded last, or the file that is written.</param>
public readonly record struct LoadProgress(long Bytes, long TotalBytes, string Tensor);

/// <summary>A matrix and, where the model has one, its bias.</summary>
internal readonly record struct LinearWeights(Weight Weight, Tensor Bias);

/// <summary>The weights of one transformer block. Absent tensors are <see langword="default"/>.</summary>
internal sealed record LayerWeights
{
    public Tensor AttentionNorm { get; init; }

    public required LinearWeights Query { get; init; }

    public required LinearWeights Key { get; init; }

    public required LinearWeights Value { get; init; }

    /// <summary>[D], or [H * D] where a token's heads are normalised together.</summary>
    public Tensor QueryNorm { get; init; }

    public Tensor KeyNorm { get; init; }

    public required LinearWeights AttentionOutput { get; init; }

    public Tensor PostAttentionNorm { get; init; }

    public Tensor FeedForwardNorm { get; init; }

    public required LinearWeights Gate { get; init; }

    public required LinearWeights Up { get; init; }

    public required LinearWeights Down { get; init; }

    public Tensor PostFeedForwardNorm { get; init; }
}

/// <summary>A model's weights on a device.</summary>
internal sealed class ModelWeights : IDisposable
{
    private readonly List<IDisposable> _owned = [];
    private readonly List<(string Name, Weight Weight)> _matrices = [];

    private ModelWeights()
    {
    }

    public Weight Embedding { get; private set; } = null!;

    public IReadOnlyList<LayerWeights> Layers { get; private set; } = [];

    public Tensor OutputNorm { get; private set; }

    /// <summary>[vocabulary, hidden]; the embedding itself where they are tied.</summary>
    public LinearWeights Output { get; private set; }

    /// <summary>The matrices under GGUF's names, in the order in which they were loaded.</summary>
    public IReadOnlyList<(string Name, Weight Weight)> Matrices => _matrices;

    /// <summary>Bytes of device memory that the matrices take.</summary>
    public ulong Bytes { get; private set; }

    /// <summary>Bytes that one decoded token reads: all matrices once, of the embedding one row where it is not the head too.</summary>
    public ulong BytesPerToken { get; private set; }

    /// <summary>Loads them all.</summary>
    /// <param name="tensors">Where they stand.</param>
    /// <param name="config">The model's sizes.</param>
    /// <param name="stream">Of the device.</param>
    /// <param name="copy">Where the matrices stand packed; null: they are packed now.</param>
    /// <param name="progress">Told after each tensor.</param>
    /// <param name="cancellation">Looked at between tensors.</param>
    /// <exception cref="ModelFormatException">The packed copy is not of these tensors, or not for this device.</exception>
    /// <exception cref="SluiceException">The device has no memory left, or failed.</exception>
    /// <exception cref="OperationCanceledException">Cancelled between two tensors; what was loaded is freed.</exception>
    public static ModelWeights Load(ModelTensors tensors, ModelConfig config, ComputeStream stream, PackedFile? copy, IProgress<LoadProgress>? progress, CancellationToken cancellation)
    {
        ModelWeights weights = new();
        try
        {
            new Loader(tensors, config, stream, copy, weights, progress, cancellation).Run();
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
        ModelTensors tensors, ModelConfig config, ComputeStream stream, PackedFile? copy, ModelWeights weights, IProgress<LoadProgress>? progress, CancellationToken cancellation)
    {
        private readonly long _total = tensors.ByteLength;
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
                    Query = Linear(block + "attn_q"),
                    Key = Linear(block + "attn_k"),
                    Value = Linear(block + "attn_v"),
                    QueryNorm = Vector(block + "attn_q_norm.weight"),
                    KeyNorm = Vector(block + "attn_k_norm.weight"),
                    AttentionOutput = Linear(block + "attn_output"),
                    PostAttentionNorm = Vector(block + "post_attention_norm.weight"),
                    FeedForwardNorm = Vector(block + "ffn_norm.weight"),
                    Gate = Linear(block + "ffn_gate"),
                    Up = Linear(block + "ffn_up"),
                    Down = Linear(block + "ffn_down"),
                    PostFeedForwardNorm = Vector(block + "post_ffw_norm.weight"),
                });
            }

            weights.Layers = layers;
            weights.OutputNorm = Vector("output_norm.weight");
            weights.Output = config.TiedEmbeddings ? new LinearWeights(weights.Embedding, default) : Linear("output");
            weights.BytesPerToken = config.TiedEmbeddings ? weights.Bytes : weights.Bytes - weights.Embedding.Bytes;
        }

        private LinearWeights Linear(string name) => new(Matrix(name + ".weight"), Vector(name + ".bias"));

        private Weight Matrix(string name)
        {
            ModelTensor t = tensors[name];
            cancellation.ThrowIfCancellationRequested();
            Weight weight = copy is null ? t.ToDevice(stream, cancellation) : copy.CreateWeight(stream, name, t);
            weights._owned.Add(weight);
            weights._matrices.Add((name, weight));
            weights.Bytes += weight.Bytes;
            Report(t);
            return weight;
        }

        // Norm weights and biases become f32: exactly, and they are small. Nothing where the model has none.
        private Tensor Vector(string name)
        {
            if (tensors.Find(name) is not { } t)
            {
                return default;
            }

            cancellation.ThrowIfCancellationRequested();
            float[] values = t.ReadFloats();
            Report(t);
            Tensor tensor = stream.CreateTensor<float>(DType.F32, values, values.Length);
            weights._owned.Add(tensor.Buffer!);
            return tensor;
        }

        private void Report(ModelTensor t)
        {
            _done += t.ByteLength;
            progress?.Report(new LoadProgress(_done, _total, t.Name));
        }
    }
}
