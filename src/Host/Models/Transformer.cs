using Sluice.Interop;

namespace Sluice.Models;

/// <summary>
/// The forward pass of every architecture, top to bottom: T tokens of all sequences of a step, packed. Activations are
/// f32 [T, ...] in tensors that are made once, for the largest step, and viewed for smaller ones.
/// </summary>
internal sealed class Transformer : IDisposable
{
    private readonly ModelConfig _config;
    private readonly ModelWeights _weights;
    private readonly ComputeStream _stream;
    private readonly Tensor _ids;         // i32 [T]
    private readonly Tensor _rows;        // i32 [R]
    private readonly Tensor _hidden;      // [T, C]: the residual stream
    private readonly Tensor _query;       // [T, H * D]
    private readonly Tensor _attended;    // [T, H * Dv]
    private readonly Tensor _normed;      // [T, C]
    private readonly Tensor _gate;        // [T, F]
    private readonly Tensor _up;          // [T, F]
    private readonly Tensor _last;        // [R, C]
    private readonly Tensor _logits;      // [R, V]

    /// <param name="config">The model's sizes.</param>
    /// <param name="weights">Its weights.</param>
    /// <param name="stream">Where everything runs.</param>
    /// <param name="maxTokens">T of the largest step.</param>
    /// <param name="maxRows">R: rows of the largest step whose logits are wanted.</param>
    public Transformer(ModelConfig config, ModelWeights weights, ComputeStream stream, int maxTokens, int maxRows)
    {
        (_config, _weights, _stream, MaxTokens, MaxRows) = (config, weights, stream, maxTokens, maxRows);
        _ids = stream.CreateTensor(DType.I32, maxTokens);
        _rows = stream.CreateTensor(DType.I32, maxRows);
        _hidden = stream.CreateTensor(DType.F32, maxTokens, config.HiddenSize);
        _query = stream.CreateTensor(DType.F32, maxTokens, (long)config.HeadCount * config.HeadDim);
        _attended = stream.CreateTensor(DType.F32, maxTokens, (long)config.HeadCount * config.ValueHeadDim);
        _normed = stream.CreateTensor(DType.F32, maxTokens, config.HiddenSize);
        _gate = stream.CreateTensor(DType.F32, maxTokens, config.FeedForwardSize);
        _up = stream.CreateTensor(DType.F32, maxTokens, config.FeedForwardSize);
        _last = stream.CreateTensor(DType.F32, maxRows, config.HiddenSize);
        _logits = stream.CreateTensor(DType.F32, maxRows, config.VocabularySize);
    }

    public int MaxTokens { get; }

    public int MaxRows { get; }

    /// <summary>Makes the stream's workspace large enough for any step on this cache and batch.</summary>
    public void Reserve(KvCache cache, Batch batch) => _stream.Reserve(_stream.Measure(() => Run(cache, batch, MaxTokens, MaxRows)));

    /// <summary>Computes a step whose plan is in <paramref name="batch"/>: appends K and V of its tokens, and returns f32 logits [rows, V].</summary>
    /// <param name="cache">The cache.</param>
    /// <param name="batch">The plan.</param>
    /// <param name="ids">The step's tokens.</param>
    /// <param name="rows">The rows of the step whose logits are wanted; may be empty.</param>
    public Tensor Forward(KvCache cache, Batch batch, ReadOnlySpan<int> ids, ReadOnlySpan<int> rows)
    {
        _stream.Upload(_ids.Rows(0, ids.Length), ids);
        if (!rows.IsEmpty)
        {
            _stream.Upload(_rows.Rows(0, rows.Length), rows);
        }

        return Run(cache, batch, ids.Length, rows.Length);
    }

    public void Dispose()
    {
        foreach (Tensor t in new[] { _ids, _rows, _hidden, _query, _attended, _normed, _gate, _up, _last, _logits })
        {
            t.Buffer!.Dispose();
        }
    }

    private Tensor Run(KvCache cache, Batch batch, int tokens, int rows)
    {
        ModelConfig c = _config;
        Tensor hidden = _hidden.Rows(0, tokens), normed = _normed.Rows(0, tokens);
        Tensor query = _query.Rows(0, tokens).Reshape(tokens, c.HeadCount, c.HeadDim);
        Tensor attended = _attended.Rows(0, tokens);
        Tensor gate = _gate.Rows(0, tokens), up = _up.Rows(0, tokens);

        _stream.Embedding(_ids.Rows(0, tokens), _weights.Embedding, 1, hidden);
        for (int i = 0; i < _weights.Layers.Count; i++)
        {
            LayerWeights layer = _weights.Layers[i];
            _stream.FusedQkv(new FusedQkvArgs
            {
                X = hidden,
                NormWeight = layer.AttentionNorm,
                Wq = layer.Query,
                Wk = layer.Key,
                Wv = layer.Value,
                BiasQ = layer.QueryBias,
                BiasK = layer.KeyBias,
                BiasV = layer.ValueBias,
                NormQ = layer.QueryNorm,
                NormK = layer.KeyNorm,
                InvFreq = _weights.InverseFrequencies,
                Cache = cache,
                Layer = i,
                Batch = batch,
                Q = query,
                NormEps = c.NormEpsilon,
                QkNormEps = c.NormEpsilon,
                RopeScale = c.RopeScale,
                RopeKind = c.Architecture.Rope,
            });
            _stream.PagedAttention(new AttentionArgs
            {
                Cache = cache,
                Layer = i,
                Batch = batch,
                Q = query,
                O = attended.Reshape(tokens, c.HeadCount, c.ValueHeadDim),
                Causal = true,
            });
            _stream.Linear(attended, layer.AttentionOutput, hidden, residual: hidden);

            _stream.RmsNorm(hidden, layer.FeedForwardNorm, c.NormEpsilon, normed);
            _stream.Linear(normed, layer.Gate, gate);
            _stream.Linear(normed, layer.Up, up);
            _stream.GatedActivation(c.Architecture.Activation, gate, up, gate);
            _stream.Linear(gate, layer.Down, hidden, residual: hidden);
        }

        if (rows == 0)
        {
            return default;
        }

        Tensor last = _last.Rows(0, rows), logits = _logits.Rows(0, rows);
        _stream.Gather(hidden, _rows.Rows(0, rows), last);
        _stream.RmsNorm(last, _weights.OutputNorm, c.NormEpsilon, last);
        _stream.Linear(last, _weights.Output, logits);
        return logits;
    }
}
