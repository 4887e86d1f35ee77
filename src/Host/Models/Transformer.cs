using Sluice.Interop;

namespace Sluice.Models;

/// <summary>
/// The forward pass of every architecture, top to bottom: T tokens of all sequences of a step, packed. The residual stream is f32 [T, C], activations
/// within a block are of the model's activation type, in tensors that are made once, for the largest step, and viewed for smaller ones.
/// On GPUs a step that wants the logits of all of its tokens, as decode does, is captured as a graph when its shape comes a second time, and replayed from
/// then on: the plan, the ids and the rows lie at fixed addresses and are updated outside of it. A graph serves all numbers of tokens of its bucket:
/// what they leave of its rows is padding, which kernels pass over or compute for nothing.
/// </summary>
internal sealed class Transformer : IDisposable
{
    private const int MaxGraphTokens = 256, MaxGraphs = 32;

    // Steps of so few tokens on a GPU are bound by the weights: there each block of a kernel normalises the tokens for itself, and is spared a reading of
    // them where the sums of their squares are there already. With more, a norm is a launch of its own.
    private const int MaxSquaredTokens = 8;

    private readonly ModelConfig _config;
    private readonly ModelWeights _weights;
    private readonly ComputeStream _stream;
    private readonly Tensor _ids;         // i32 [T]
    private readonly Tensor _rows;        // i32 [R]
    private readonly Tensor _hidden;      // f32 [T, C]: the residual stream
    private readonly Tensor _query;       // [T, H * D]
    private readonly Tensor _attended;    // [T, H * Dv]
    private readonly Tensor _normed;      // [T, C]
    private readonly Tensor _gated;       // [T, F]
    private readonly Tensor _squares;     // f32 [few, ceil(C / 16)]: of the residual stream, as its last addition left them
    private readonly Tensor _last;        // f32 [R, C]
    private readonly Tensor _lastNormed;  // [R, C]
    private readonly Tensor _logits;      // f32 [R, V]
    private readonly Tensor _embedded;    // f32 [R, C]
    private readonly RopeTable[] _ropes;
    private readonly bool _capturesGraphs;
    private readonly Dictionary<StepShape, StepGraph?> _graphs = []; // null: the shape came once
    private readonly HashSet<StepShape> _reserved = [];
    private int _eachRow;                 // _rows begins with this many, one of each token

    /// <param name="model">The model, which must outlive it.</param>
    /// <param name="stream">Where everything runs.</param>
    /// <param name="maxTokens">T of the largest step.</param>
    /// <param name="maxRows">R: rows of the largest step whose logits are wanted.</param>
    public Transformer(Model model, ComputeStream stream, int maxTokens, int maxRows)
    {
        (_config, _weights, _stream, MaxTokens, MaxRows) = (model.Config, model.Weights, stream, maxTokens, maxRows);
        ModelConfig config = model.Config;
        DType type = model.ActivationType;
        _capturesGraphs = model.Device.Backend is Backend.Cuda or Backend.Simt;
        try
        {
            _ids = stream.CreateTensor(DType.I32, maxTokens);
            stream.Fill(_ids.Buffer!, 0, 0, (ulong)maxTokens * sizeof(int)); // of padding, too, a token is known
            _rows = stream.CreateTensor(DType.I32, maxRows);
            _hidden = stream.CreateTensor(DType.F32, maxTokens, config.HiddenSize);
            _query = stream.CreateTensor(type, maxTokens, (long)config.HeadCount * config.HeadDim);
            _attended = stream.CreateTensor(type, maxTokens, (long)config.HeadCount * config.ValueHeadDim);
            _normed = stream.CreateTensor(type, maxTokens, config.HiddenSize);
            _gated = stream.CreateTensor(type, maxTokens, config.FeedForwardSize);
            _squares = _capturesGraphs && type != DType.F32 ? stream.CreateTensor(DType.F32, Math.Min(maxTokens, MaxSquaredTokens), (config.HiddenSize + 15) / 16) : default;
            _last = stream.CreateTensor(DType.F32, maxRows, config.HiddenSize);
            _lastNormed = stream.CreateTensor(type, maxRows, config.HiddenSize);
            _logits = stream.CreateTensor(DType.F32, maxRows, config.VocabularySize);
            _embedded = stream.CreateTensor(DType.F32, maxRows, config.HiddenSize);
            _ropes = [.. config.Ropes.Select(r => new RopeTable(r, stream))];
        }
        catch
        {
            Dispose(); // where memory lacks, what was had goes back at once
            throw;
        }
    }

    public int MaxTokens { get; }

    public int MaxRows { get; }

    /// <summary>f32 [rows, C]: what the last step's rows at the end were normalised to, in their order, where such were asked for.</summary>
    public Tensor Embedded(int rows) => _embedded.Rows(0, rows);

    public int CapturedGraphs => _graphs.Values.Count(g => g is not null);

    /// <summary>
    /// Makes the stream's workspace large enough for steps on this cache and batch, so that memory that lacks is told here. Few rows may want more than many,
    /// for ops then split their work over the device: this asks for powers of two, and a step for what lies between, when it comes.
    /// </summary>
    public void Reserve(KvCache cache, Batch batch)
    {
        for (int tokens = 1; tokens < MaxTokens; tokens *= 2)
        {
            ReserveFor(new StepShape(cache, batch, tokens, Math.Min(tokens, MaxRows), 0));
        }

        ReserveFor(new StepShape(cache, batch, MaxTokens, MaxRows, 0));
    }

    /// <summary>Computes a step whose plan is in <paramref name="batch"/>: appends K and V of its tokens, and returns f32 logits [rows, V].</summary>
    /// <param name="cache">The cache.</param>
    /// <param name="batch">The plan.</param>
    /// <param name="ids">The step's tokens.</param>
    /// <param name="rows">The rows of the step whose logits are wanted; may be empty.</param>
    /// <param name="length">Tokens of the sequences when they have caught up, for RoPE whose frequencies depend on it.</param>
    /// <param name="embedded">So many rows at the end want no logits, but what these are made of: <see cref="Embedded"/>.</param>
    public Tensor Forward(KvCache cache, Batch batch, ReadOnlySpan<int> ids, ReadOnlySpan<int> rows, long length, int embedded = 0)
    {
        _stream.Upload(_ids.Rows(0, ids.Length), ids);
        return Step(cache, batch, ids.Length, rows, embedded, length);
    }

    /// <summary>The same of tokens that the device has: chosen by the step before, and not known here yet.</summary>
    /// <param name="cache">The cache.</param>
    /// <param name="batch">The plan.</param>
    /// <param name="ids">i32 [T] in memory of its own.</param>
    /// <param name="rows">The rows of the step whose logits are wanted, ascending; may be empty.</param>
    /// <param name="length">Tokens of the sequence when it has caught up, for RoPE whose frequencies depend on it.</param>
    public Tensor Forward(KvCache cache, Batch batch, in Tensor ids, ReadOnlySpan<int> rows, long length)
    {
        _stream.Copy(ids.Buffer!, ids.Offset, _ids.Buffer!, _ids.Offset, (ulong)ids.Count * sizeof(int));
        return Step(cache, batch, (int)ids.Count, rows, 0, length);
    }

    public void Dispose()
    {
        foreach (StepGraph? graph in _graphs.Values)
        {
            graph?.Dispose();
        }

        foreach (Tensor t in (Tensor[])[_ids, _rows, _hidden, _query, _attended, _normed, _gated, _squares, _last, _lastNormed, _logits, _embedded, .. (_ropes ?? []).Select(r => r.Frequencies)])
        {
            t.Buffer?.Dispose();
        }
    }

    private Tensor Step(KvCache cache, Batch batch, int tokens, ReadOnlySpan<int> rows, int embedded, long length)
    {
        foreach (RopeTable rope in _ropes)
        {
            rope.SetLength(length);
        }

        bool eachRow = embedded == 0 && IsEachRow(rows, tokens);
        bool graphs = _capturesGraphs && _stream.Observer is null && eachRow && tokens <= MaxGraphTokens;
        int bucket = graphs ? Bucket(tokens) : tokens;
        UploadRows(rows, eachRow, bucket);
        StepShape shape = new(cache, batch, bucket, graphs ? bucket : rows.Length, embedded);
        if (!_reserved.Contains(shape))
        {
            ReserveFor(shape);
        }

        if (!graphs)
        {
            return Run(cache, batch, tokens, rows.Length, embedded);
        }

        // The bucket's first step runs as its graphs will: what was reserved is for that many rows, and a library makes its plans now, which a capture does not allow.
        return (Graph(shape) is { } graph ? graph.Launch() : Run(cache, batch, bucket, bucket, 0)).Rows(0, tokens);
    }

    private static bool IsEachRow(ReadOnlySpan<int> rows, int tokens)
    {
        for (int i = 0; i < rows.Length; i++)
        {
            if (rows[i] != i)
            {
                return false;
            }
        }

        return rows.Length == tokens;
    }

    // Tokens of the graph that takes so many: all numbers that one launch of few rows takes, then by eights and by 32.
    private int Bucket(int tokens)
    {
        int step = tokens <= MaxSquaredTokens ? 1 : tokens <= 64 ? 8 : 32;
        return Math.Min((tokens + step - 1) / step * step, Math.Min(MaxTokens, MaxRows));
    }

    // Lambdas stand in methods that a step of a known shape does not call: what they capture is allocated where a method begins.
    private void ReserveFor(StepShape shape)
    {
        _stream.Reserve(_stream.Measure(() => Run(shape.Cache, shape.Batch, shape.Tokens, shape.Rows, shape.Embedded)));
        _reserved.Add(shape);
    }

    // A step of one row of each token, as decode has, finds the rows of the step before.
    private void UploadRows(ReadOnlySpan<int> rows, bool each, int bucket)
    {
        if (rows.IsEmpty || (each && _eachRow >= bucket))
        {
            return;
        }

        _stream.Upload(_rows.Rows(0, each ? bucket : rows.Length), each ? [.. Enumerable.Range(0, bucket)] : rows);
        _eachRow = each ? bucket : 0;
    }

    // The step's graph, where its shape came before; captured now where it comes the second time, or where the workspace has moved since.
    private StepGraph? Graph(StepShape shape)
    {
        if (!_graphs.TryGetValue(shape, out StepGraph? graph))
        {
            if (_graphs.Count < MaxGraphs)
            {
                _graphs.Add(shape, null);
            }

            return null;
        }

        if (graph is null || graph.WorkspaceBytes != _stream.WorkspaceBytes)
        {
            graph?.Dispose();
            _graphs[shape] = null;
            _graphs[shape] = graph = Record(shape);
        }

        return graph;
    }

    private StepGraph Record(StepShape shape)
    {
        Tensor logits = default;
        ComputeGraph recorded = _stream.Capture(() => logits = Run(shape.Cache, shape.Batch, shape.Tokens, shape.Rows, 0));
        return new StepGraph(recorded, logits, _stream.WorkspaceBytes);
    }

    private Tensor Run(KvCache cache, Batch batch, int tokens, int rows, int embedded)
    {
        ModelConfig c = _config;
        Tensor hidden = _hidden.Rows(0, tokens), normed = _normed.Rows(0, tokens);
        Tensor query = _query.Rows(0, tokens).Reshape(tokens, c.HeadCount, c.HeadDim);
        Tensor attended = _attended.Rows(0, tokens);
        Tensor gated = _gated.Rows(0, tokens);
        Tensor squares = _squares.IsAbsent || tokens > MaxSquaredTokens ? default : _squares.Rows(0, tokens);
        bool squared = false;

        _stream.Embedding(_ids.Rows(0, tokens), _weights.Embedding, c.EmbeddingScale, hidden);
        for (int i = 0; i < _weights.Layers.Count; i++)
        {
            LayerWeights layer = _weights.Layers[i];
            (int window, int rope) = c.Layers[i];
            _stream.FusedQkv(new FusedQkvArgs
            {
                X = hidden,
                NormWeight = layer.AttentionNorm,
                Wq = layer.Query.Weight,
                Wk = layer.Key.Weight,
                Wv = layer.Value.Weight,
                BiasQ = layer.Query.Bias,
                BiasK = layer.Key.Bias,
                BiasV = layer.Value.Bias,
                NormQ = layer.QueryNorm,
                NormK = layer.KeyNorm,
                InvFreq = rope < 0 ? default : _ropes[rope].Frequencies,
                Cache = cache,
                Layer = i,
                Batch = batch,
                Q = query,
                NormEps = c.NormEpsilon,
                QkNormEps = c.NormEpsilon,
                RopeScale = rope < 0 ? 1f : _ropes[rope].Config.AttentionFactor,
                RopeKind = c.RopeKind,
                Squares = squared ? squares : default,
            });
            AttentionArgs attention = new()
            {
                Cache = cache,
                Layer = i,
                Batch = batch,
                Q = query,
                O = attended.Reshape(tokens, c.HeadCount, c.ValueHeadDim),
                Scale = c.AttentionScale,
                SoftCap = c.AttentionSoftCap,
                Window = window,
                Causal = true,
            };
            if (batch.Options.MaxPrefixes > 0)
            {
                _stream.CascadeAttention(attention);
            }
            else
            {
                _stream.PagedAttention(attention);
            }

            squared = AddToResidual(attended, layer.AttentionOutput, layer.PostAttentionNorm, hidden, normed, squares);

            _stream.GatedLinear(new GatedLinearArgs
            {
                X = hidden,
                NormWeight = layer.FeedForwardNorm,
                Gate = layer.Gate.Weight,
                Up = layer.Up.Weight,
                BiasGate = layer.Gate.Bias,
                BiasUp = layer.Up.Bias,
                Y = gated,
                NormEps = c.NormEpsilon,
                Activation = c.Activation,
                Squares = squared ? squares : default,
            });
            squared = AddToResidual(gated, layer.Down, layer.PostFeedForwardNorm, hidden, normed, squares);
        }

        if (rows == 0)
        {
            return default;
        }

        Tensor last = _last.Rows(0, rows);
        _stream.Gather(hidden, _rows.Rows(0, rows), last);
        rows -= embedded;
        if (embedded > 0)
        {
            _stream.RmsNorm(last.Rows(rows, embedded), _weights.OutputNorm, c.NormEpsilon, _embedded.Rows(0, embedded));
        }

        if (rows == 0)
        {
            return default;
        }

        Tensor lastNormed = _lastNormed.Rows(0, rows), logits = _logits.Rows(0, rows);
        _stream.RmsNorm(last.Rows(0, rows), _weights.OutputNorm, c.NormEpsilon, lastNormed);
        _stream.Linear(lastNormed, _weights.Output.Weight, logits, _weights.Output.Bias, scale: c.LogitScale, softCap: c.LogitSoftCap);
        return logits;
    }

    // hidden += scale * (x w + b), or hidden += norm(x w + b) where the family norms behind its blocks. Whether the sums of its squares are there then.
    private bool AddToResidual(in Tensor x, in LinearWeights w, in Tensor norm, in Tensor hidden, in Tensor scratch, in Tensor squares)
    {
        if (norm.IsAbsent)
        {
            _stream.Linear(x, w.Weight, hidden, w.Bias, residual: hidden, scale: _config.ResidualScale, squares: squares);
            return !squares.IsAbsent;
        }

        _stream.Linear(x, w.Weight, scratch, w.Bias, scale: _config.ResidualScale);
        _stream.RmsNormAdd(scratch, norm, _config.NormEpsilon, hidden, hidden);
        return false;
    }

    // What a graph was captured for.
    private readonly record struct StepShape(KvCache Cache, Batch Batch, int Tokens, int Rows, int Embedded);

    private sealed record StepGraph(ComputeGraph Recorded, Tensor Logits, ulong WorkspaceBytes) : IDisposable
    {
        public Tensor Launch()
        {
            Recorded.Launch();
            return Logits;
        }

        public void Dispose() => Recorded.Dispose();
    }

    // RoPE's frequencies on the device, and the length of the sequence that they are for.
    private sealed class RopeTable(RopeConfig config, ComputeStream stream)
    {
        private long _length;

        public RopeConfig Config { get; } = config;

        public Tensor Frequencies { get; } = stream.CreateTensor<float>(DType.F32, config.InverseFrequencies(0), config.Dimensions / 2);

        public void SetLength(long length)
        {
            if (Config.DependsOnLength && length != _length)
            {
                _length = length;
                stream.Upload<float>(Frequencies, Config.InverseFrequencies(length));
            }
        }
    }
}
