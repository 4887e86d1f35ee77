using System.Runtime.CompilerServices;
using Sluice.Decoding;
using Sluice.Interop;
using Sluice.Models;
using Sluice.Paging;

namespace Sluice;

/// <summary>Why a generation ended.</summary>
public enum FinishReason
{
    /// <summary>The model ended its answer.</summary>
    EndOfSequence,

    /// <summary>One of the stop texts came.</summary>
    StopText,

    /// <summary>As many tokens as were asked for.</summary>
    MaxTokens,

    /// <summary>The context holds no further token.</summary>
    ContextFull,
}

/// <summary>One generated token.</summary>
/// <param name="Id">The token.</param>
/// <param name="Text">The text that has become certain with it: may be empty (half a character, a possible stop text), or more than the token's own.</param>
/// <param name="LogProb">Natural log-probability, where asked for.</param>
/// <param name="Top">The likeliest tokens, where asked for.</param>
/// <param name="Finish">Set on the last one. With <see cref="FinishReason.EndOfSequence"/> the token is the one that ended the answer, and no part of it.</param>
public sealed record GeneratedToken(int Id, string Text, float? LogProb, IReadOnlyList<TokenLogProb>? Top, FinishReason? Finish);

/// <summary>The context cannot hold what was asked for. Nothing was computed.</summary>
public sealed class ContextFullException(long wanted, int context) : Exception(
    $"{wanted:N0} tokens are wanted, and the context holds {context:N0}: shorten the prompt, ask for fewer tokens, or open the model with a longer context")
{
    /// <summary>Tokens that were wanted in all.</summary>
    public long Wanted { get; } = wanted;

    /// <summary>Tokens that the context holds.</summary>
    public int Context { get; } = context;
}

/// <summary>
/// One sequence and its KV pages. What it has computed stays: a later prompt that begins with the same tokens computes
/// only the rest. One generation at a time.
/// </summary>
public sealed class Session : IDisposable, IDecodable
{
    private const int PageSize = 16;

    private readonly Model _model;
    private readonly ComputeStream _stream;
    private readonly KvCache _cache;
    private readonly Batch _batch;
    private readonly Transformer _transformer;
    private readonly BlockPool _pool;
    private readonly PageTable _table;
    private readonly List<int> _computed = [];
    private long _keysFor; // the length of the sequence that the cache's keys were computed for
    private readonly bool _runsAhead;
    private bool _isAhead; // a step is on the stream whose token is not known yet
    private int _busy;
    private bool _disposed;

    internal Session(Model model, int contextLength, int chunkSize, int maxRows)
    {
        (_model, ContextLength) = (model, contextLength);
        ModelConfig c = model.Config;
        _runsAhead = model.Device.Backend is Backend.Cuda or Backend.Simt;
        int pages = (int)(((long)contextLength + PageSize - 1) / PageSize);
        ChunkSize = Math.Min(chunkSize, contextLength);
        _pool = new BlockPool(pages, PageSize);
        _table = new PageTable(_pool);
        _stream = model.Device.CreateStream();
        try
        {
            _cache = new KvCache(_stream, new KvCacheOptions(model.KvType, c.LayerCount, pages, c.KvHeadCount, c.HeadDim, c.ValueHeadDim, PageSize));
            _batch = new Batch(_stream, _cache, new BatchOptions(ChunkSize, 1, pages));
            _transformer = new Transformer(model, _stream, ChunkSize, Math.Min(maxRows, ChunkSize));
            _transformer.Reserve(_cache, _batch);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Tokens that prompt and answer may have together.</summary>
    public int ContextLength { get; }

    /// <summary>Tokens of a prompt that are computed in one step.</summary>
    public int ChunkSize { get; }

    /// <summary>The tokens whose keys and values are in the cache.</summary>
    public IReadOnlyList<int> Computed => _computed;

    /// <summary>Generates an answer to a text, encoded with the tokens that the model wants around it.</summary>
    /// <inheritdoc cref="GenerateAsync(ReadOnlyMemory{int}, SamplingParameters, CancellationToken)"/>
    public IAsyncEnumerable<GeneratedToken> GenerateAsync(string prompt, SamplingParameters? parameters = null, CancellationToken cancellationToken = default) =>
        GenerateAsync(_model.Tokenizer.Encode(prompt), parameters, cancellationToken);

    /// <summary>Generates tokens after a prompt. Leaving the enumeration early, or cancelling, ends the work within a step; the session stays usable.</summary>
    /// <param name="prompt">Token ids, one at least.</param>
    /// <param name="parameters">How to choose; null: greedy.</param>
    /// <param name="cancellationToken">Ends the generation with an <see cref="OperationCanceledException"/>.</param>
    /// <exception cref="ArgumentException">An empty prompt, an id that the vocabulary lacks, a parameter out of its range.</exception>
    /// <exception cref="ContextFullException">The context cannot hold the prompt and <see cref="SamplingParameters.MaxTokens"/>.</exception>
    /// <exception cref="InvalidOperationException">A generation is under way.</exception>
    /// <exception cref="SluiceException">The device failed.</exception>
    public IAsyncEnumerable<GeneratedToken> GenerateAsync(ReadOnlyMemory<int> prompt, SamplingParameters? parameters = null, CancellationToken cancellationToken = default)
    {
        parameters ??= new SamplingParameters();
        parameters.Validate(_model.Config.VocabularySize);
        CheckTokens(prompt.Span);
        long wanted = (long)prompt.Length + (parameters.MaxTokens ?? 1);
        return wanted <= ContextLength ? Generate(prompt, parameters, cancellationToken) : throw new ContextFullException(wanted, ContextLength);
    }

    /// <summary>The natural log-probability of each token but the first, given those before it.</summary>
    /// <param name="tokens">At most <see cref="ContextLength"/> token ids.</param>
    /// <param name="cancellationToken">Ends the work between two chunks.</param>
    /// <inheritdoc cref="GenerateAsync(ReadOnlyMemory{int}, SamplingParameters, CancellationToken)"/>
    public float[] Score(ReadOnlySpan<int> tokens, CancellationToken cancellationToken = default)
    {
        CheckTokens(tokens);
        if (tokens.Length > ContextLength)
        {
            throw new ContextFullException(tokens.Length, ContextLength);
        }

        using Turn turn = new(this);
        int most = _transformer.MaxRows;
        float[] scores = new float[tokens.Length - 1];
        Tensor targets = _stream.CreateTensor(DType.I32, most), result = _stream.CreateTensor(DType.F32, most);
        try
        {
            Rewind(0);
            _keysFor = tokens.Length;
            for (int at = 0; at < scores.Length; at += most)
            {
                cancellationToken.ThrowIfCancellationRequested();
                int count = Math.Min(most, scores.Length - at);
                Tensor logits = Advance(tokens.Slice(at, count), count, tokens.Length);
                Tensor ids = targets.Rows(0, count), row = result.Rows(0, count);
                _stream.Upload(ids, tokens.Slice(at + 1, count));
                _stream.Reserve(_stream.Measure(() => _stream.LogProbs(logits, ids, row)));
                _stream.LogProbs(logits, ids, row);
                _stream.Download(row, scores.AsSpan(at, count));
            }
        }
        finally
        {
            targets.Buffer!.Dispose();
            result.Buffer!.Dispose();
        }

        return scores;
    }

    /// <summary>Steps that were captured as graphs.</summary>
    internal int CapturedGraphs => _transformer.CapturedGraphs;

    /// <summary>f32 logits [tokens, V] after each token, computed from nothing in chunks of <paramref name="chunk"/>.</summary>
    internal float[] Logits(ReadOnlySpan<int> tokens, int chunk)
    {
        using Turn turn = new(this);
        int vocabulary = _model.Config.VocabularySize;
        float[] all = new float[tokens.Length * vocabulary];
        Rewind(0);
        _keysFor = tokens.Length;
        chunk = Math.Min(chunk, _transformer.MaxRows);
        for (int at = 0; at < tokens.Length; at += chunk)
        {
            int count = Math.Min(chunk, tokens.Length - at);
            _stream.Download(Advance(tokens.Slice(at, count), count, tokens.Length), all.AsSpan(at * vocabulary, count * vocabulary));
        }

        return all;
    }

    /// <summary>
    /// f32 logits [count, V] after the tokens from <paramref name="from"/> on, given all before them. What is common with what was computed before
    /// stays, so that a text can be walked through piece by piece.
    /// </summary>
    /// <param name="tokens">The whole text: RoPE may depend on its length.</param>
    /// <param name="from">The first token whose logits are wanted.</param>
    /// <param name="count">How many, one at least.</param>
    /// <param name="cancellation">Ends the work between two chunks.</param>
    /// <exception cref="ContextFullException">The context cannot hold the tokens.</exception>
    internal float[] Logits(ReadOnlySpan<int> tokens, int from, int count, CancellationToken cancellation)
    {
        CheckTokens(tokens);
        if (tokens.Length > ContextLength)
        {
            throw new ContextFullException(tokens.Length, ContextLength);
        }

        using Turn turn = new(this);
        int vocabulary = _model.Config.VocabularySize;
        float[] all = new float[count * vocabulary];
        KeepCommon(tokens, from);
        for (int at = _computed.Count; at < from; at += ChunkSize)
        {
            cancellation.ThrowIfCancellationRequested();
            Advance(tokens.Slice(at, Math.Min(ChunkSize, from - at)), 0, tokens.Length);
        }

        int most = _transformer.MaxRows;
        for (int at = 0; at < count; at += most)
        {
            cancellation.ThrowIfCancellationRequested();
            int rows = Math.Min(most, count - at);
            _stream.Download(Advance(tokens.Slice(from + at, rows), rows, tokens.Length), all.AsSpan(at * vocabulary, rows * vocabulary));
        }

        return all;
    }

    /// <summary>Forgets what was computed: what comes next does not depend on it, not even in its rounding.</summary>
    internal void Forget()
    {
        using Turn turn = new(this);
        Rewind(0);
    }

    /// <summary>f32 logits [V] behind the last token, computed as a generation does: what is common with the tokens before stays.</summary>
    internal float[] NextLogits(ReadOnlySpan<int> tokens)
    {
        using Turn turn = new(this);
        float[] row = new float[_model.Config.VocabularySize];
        _stream.Download(CatchUp(tokens, default), row.AsSpan());
        return row;
    }

    /// <summary>Frees the pages and all else.</summary>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        _table.Dispose();
        _transformer?.Dispose();
        _batch?.Dispose();
        _cache?.Dispose();
        _stream.Dispose();
    }

    private async IAsyncEnumerable<GeneratedToken> Generate(ReadOnlyMemory<int> prompt, SamplingParameters parameters, [EnumeratorCancellation] CancellationToken cancellation)
    {
        if (parameters.MaxTokens == 0)
        {
            yield break;
        }

        using Turn turn = new(this);
        ulong seed = parameters.Seed ?? (ulong)Random.Shared.NextInt64();
        using DecodeLoop loop = Decode(prompt.Span, parameters, seed);
        Tokenization.IncrementalDecoder decoder = new(_model.Tokenizer, skipSpecial: true);
        StopMatcher stops = new(parameters.Stop);
        while (true)
        {
            // Compute what is not computed yet, then choose: off the caller's thread, and never two at once.
            (int id, float? logProb, TokenLogProb[]? top) = await Task.Run(
                () => (loop.Next(out float? p, out TokenLogProb[]? likeliest, cancellation), p, likeliest), cancellation).ConfigureAwait(false);

            if (!parameters.IgnoreEndOfSequence && _model.Tokenizer.IsEndOfGeneration(id))
            {
                yield return new GeneratedToken(id, stops.Append(decoder.Flush(), out _) + stops.Flush(), logProb, top, FinishReason.EndOfSequence);
                yield break;
            }

            int generated = loop.Length - prompt.Length;
            FinishReason? finish = generated == parameters.MaxTokens ? FinishReason.MaxTokens : loop.Length == ContextLength ? FinishReason.ContextFull : null;
            string text = stops.Append(decoder.Push(id) + (finish is null ? "" : decoder.Flush()), out bool stopped);
            if (stopped)
            {
                finish = FinishReason.StopText;
            }
            else if (finish is not null)
            {
                text += stops.Flush();
            }

            yield return new GeneratedToken(id, text, logProb, top, finish);
            if (finish is not null)
            {
                yield break;
            }
        }
    }

    /// <summary>An answer's loop, without text: who calls this has the session to itself.</summary>
    internal DecodeLoop Decode(ReadOnlySpan<int> prompt, SamplingParameters parameters, ulong seed)
    {
        int most = (int)Math.Min(ContextLength, (long)prompt.Length + (parameters.MaxTokens ?? int.MaxValue));
        _computed.EnsureCapacity(most);
        _table.EnsureCapacity(most);
        return new DecodeLoop(this, new Sampler(_stream, parameters, _model.Config.VocabularySize, most, seed, _model.ActivationType), prompt, most);
    }

    bool IDecodable.RunsAhead => _runsAhead;

    Tensor IDecodable.CatchUp(ReadOnlySpan<int> tokens, CancellationToken cancellation) => CatchUp(tokens, cancellation);

    Tensor IDecodable.Ahead(in Tensor id, int length)
    {
        foreach (RopeConfig rope in _model.Config.Ropes)
        {
            if (rope.NeedsNewKeys(_keysFor, length))
            {
                return default;
            }
        }

        ObjectDisposedException.ThrowIf(_disposed, this);
        int before = _computed.Count;
        _table.Append(1);
        try
        {
            Plan(before, 1);
            ReadOnlySpan<int> row = [0];
            Tensor logits = _transformer.Forward(_cache, _batch, id, row, length);
            _keysFor = length;
            _isAhead = true;
            return logits;
        }
        catch when (!_disposed)
        {
            _table.Truncate(before);
            throw;
        }
    }

    void IDecodable.Settle(int? id)
    {
        if (!_isAhead || _disposed)
        {
            return;
        }

        _isAhead = false;
        if (id is { } known)
        {
            _computed.Add(known);
        }
        else
        {
            _table.Truncate(_computed.Count);
        }
    }

    // Keeps what is common with what was computed, computes the rest in chunks, and returns the last token's logits [1, V].
    private Tensor CatchUp(ReadOnlySpan<int> tokens, CancellationToken cancellation)
    {
        KeepCommon(tokens, tokens.Length - 1);
        Tensor logits = default;
        for (int at = _computed.Count; at < tokens.Length; at += ChunkSize)
        {
            cancellation.ThrowIfCancellationRequested();
            int count = Math.Min(ChunkSize, tokens.Length - at);
            logits = Advance(tokens.Slice(at, count), at + count == tokens.Length ? 1 : 0, tokens.Length);
        }

        return logits;
    }

    // Leaves of what was computed at most `most` tokens: those with which these begin.
    private void KeepCommon(ReadOnlySpan<int> tokens, int most)
    {
        int common = 0;
        while (common < Math.Min(most, _computed.Count) && tokens[common] == _computed[common])
        {
            common++;
        }

        foreach (RopeConfig rope in _model.Config.Ropes)
        {
            // Keys that were turned by other frequencies are of no use.
            common = rope.NeedsNewKeys(_keysFor, tokens.Length) ? 0 : common;
        }

        _keysFor = tokens.Length;
        Rewind(common);
    }

    private void Rewind(int length)
    {
        if (length < _computed.Count)
        {
            _computed.RemoveRange(length, _computed.Count - length);
            _table.Truncate(length);
        }
    }

    // One step: the next tokens, and the logits of the last `rows` of them. `length`: of the sequence when it has caught up.
    private Tensor Advance(ReadOnlySpan<int> ids, int rows, int length)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        int before = _computed.Count;
        _table.Append(ids.Length);
        try
        {
            Plan(before, ids.Length);
            Span<int> wanted = stackalloc int[Math.Min(rows, 1)];
            if (rows > 1)
            {
                wanted = new int[rows];
            }

            for (int i = 0; i < rows; i++)
            {
                wanted[i] = ids.Length - rows + i;
            }

            Tensor logits = _transformer.Forward(_cache, _batch, ids, wanted, length);
            _computed.AddRange(ids);
            return logits;
        }
        catch when (!_disposed)
        {
            _table.Truncate(before);
            throw;
        }
    }

    private void Plan(int before, int tokens) => _batch.Update(_stream, new BatchStep
    {
        QueryIndptr = [0, tokens],
        KvLengths = [before + tokens],
        PageIndptr = [0, _table.Pages.Length],
        PageIds = _table.Pages,
    });

    private void CheckTokens(ReadOnlySpan<int> tokens)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (tokens.IsEmpty)
        {
            throw new ArgumentException("the prompt has no tokens: give it one at least");
        }

        foreach (int id in tokens)
        {
            if (id < 0 || id >= _model.Config.VocabularySize)
            {
                throw new ArgumentException($"token {id} is not in the vocabulary of {_model.Config.VocabularySize:N0}");
            }
        }
    }

    // One generation at a time: the second one is told, not queued.
    private readonly struct Turn : IDisposable
    {
        private readonly Session _session;

        public Turn(Session session)
        {
            _session = session;
            if (Interlocked.Exchange(ref session._busy, 1) != 0)
            {
                throw new InvalidOperationException("a generation is under way on this session: await its end, or create another session");
            }
        }

        public void Dispose() => Volatile.Write(ref _session._busy, 0);
    }
}
