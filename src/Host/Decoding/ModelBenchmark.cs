using System.Diagnostics;
using Sluice.Interop;
using Sluice.Models;
using Sluice.Paging;

namespace Sluice.Decoding;

/// <summary>Rates of one round.</summary>
/// <param name="PrefillTokensPerSecond">Computed prompt tokens of all sequences a second; one that is shared counts once.</param>
/// <param name="DecodeTokensPerSecond">Generated tokens of all sequences a second.</param>
public readonly record struct BenchmarkRound(double PrefillTokensPerSecond, double DecodeTokensPerSecond);

/// <summary>Times whole steps of a model: the prompts of all sequences in chunks, then one token of each a step, arg-max on the device.</summary>
public sealed class ModelBenchmark : IDisposable
{
    private const int PageSize = 16, AttentionChunk = 256;

    private readonly Model _model;
    private readonly ComputeStream _stream;
    private readonly KvCache _cache;
    private readonly Batch _batch;
    private readonly Transformer _transformer;
    private readonly BlockPool _pool;
    private readonly Tensor _ids;
    private readonly DeviceBuffer _results;
    private readonly ComputeEvent[] _there;
    private readonly bool _runsAhead;
    private readonly int _promptTokens, _generatedTokens, _sequences, _chunk;
    private readonly int[] _rows;
    private readonly SharedPrefix[] _shared; // empty: each sequence has a prompt of its own
    private PageTable[] _tables = []; // of the last round, until the next
    private bool _ended;

    /// <summary>The most sequences that decode at once.</summary>
    public const int MaxSequences = 4_096;

    /// <param name="model">The model.</param>
    /// <param name="promptTokens">Of each sequence.</param>
    /// <param name="generatedTokens">Of each sequence.</param>
    /// <param name="sequences">How many decode at once.</param>
    /// <param name="sharesPrompt">All sequences continue one prompt, computed once, and attention reads its keys once for all of them where that is faster.</param>
    /// <exception cref="ArgumentException">A number below 1, or a shared prompt that is no multiple of 256 tokens.</exception>
    /// <exception cref="ContextFullException">Prompt and answer exceed the model's context.</exception>
    public ModelBenchmark(Model model, int promptTokens, int generatedTokens, int sequences, bool sharesPrompt = false)
    {
        if (promptTokens < 1 || generatedTokens < 1 || sequences is < 1 or > MaxSequences)
        {
            throw new ArgumentException($"a benchmark of {promptTokens} prompt tokens, {generatedTokens} generated ones and {sequences} sequences: each must be 1 at least");
        }

        if (sharesPrompt && promptTokens % AttentionChunk != 0)
        {
            throw new ArgumentException($"a shared prompt of {promptTokens} tokens: it must be a multiple of {AttentionChunk}, where attention cuts it");
        }

        long length = (long)promptTokens + generatedTokens;
        if (length > model.Config.ContextLength)
        {
            throw new ContextFullException(length, model.Config.ContextLength);
        }

        (_model, _promptTokens, _generatedTokens, _sequences) = (model, promptTokens, generatedTokens, sequences);
        _chunk = Math.Min(512, promptTokens);
        _rows = [.. Enumerable.Range(0, sequences)];
        ModelConfig c = model.Config;
        _shared = sharesPrompt && sequences > 1 ? [new SharedPrefix(0, sequences, 0, promptTokens)] : [];
        int pages = checked((int)((length + PageSize - 1) / PageSize * sequences));
        _pool = new BlockPool(pages, PageSize);
        _stream = model.Device.CreateStream();
        _cache = new KvCache(_stream, new KvCacheOptions(model.KvType, c.LayerCount, pages, c.KvHeadCount, c.HeadDim, c.ValueHeadDim, PageSize));
        int tokens = Math.Max(_chunk, sequences);
        _batch = new Batch(_stream, _cache, new BatchOptions(tokens, sequences, pages, MaxPrefixes: _shared.Length) { QueryHeads = c.HeadCount });
        _transformer = new Transformer(model, _stream, tokens, sequences);
        _transformer.Reserve(_cache, _batch);
        _ids = _stream.CreateTensor(DType.I32, sequences);
        _results = _stream.CreateBuffer(2 * (ulong)sequences * sizeof(int), MemoryKind.Host);
        _there = [new ComputeEvent(model.Device), new ComputeEvent(model.Device)];
        _runsAhead = model.Device.Backend is Backend.Cuda or Backend.Simt;
        Tensor logits = _stream.CreateTensor(DType.F32, sequences, c.VocabularySize);
        _stream.Reserve(_stream.Measure(() => _stream.ArgMax(logits, _ids)));
        logits.Buffer!.Dispose();
    }

    /// <summary>Runs one round from empty caches.</summary>
    /// <param name="seed">Of the random prompts.</param>
    /// <param name="cancellationToken">Looked at between steps.</param>
    public BenchmarkRound Run(int seed, CancellationToken cancellationToken = default) => Run(seed, _promptTokens, _generatedTokens, cancellationToken);

    /// <summary>A short round whose times nobody wants: memory is touched, code compiled and threads are awake behind it.</summary>
    /// <param name="cancellationToken">Looked at between steps.</param>
    public void WarmUp(CancellationToken cancellationToken = default)
    {
        Run(0, _shared.Length > 0 ? _promptTokens : Math.Min(_promptTokens, PageSize), Math.Min(_generatedTokens, PageSize), cancellationToken);
        DropTables();
    }

    private BenchmarkRound Run(int seed, int promptTokens, int generatedTokens, CancellationToken cancellationToken)
    {
        Random random = new(seed);
        DropTables();
        _tables = [.. Enumerable.Range(0, _sequences).Select(_ => new PageTable(_pool))];
        int[] next = new int[_sequences];
        int[] prompt = new int[promptTokens];
        int prompts = _shared.Length > 0 ? 1 : _sequences;
        Stopwatch prefill = Stopwatch.StartNew();
        for (int s = 0; s < prompts; s++)
        {
            for (int i = 0; i < prompt.Length; i++)
            {
                prompt[i] = random.Next(_model.Config.VocabularySize);
            }

            for (int at = 0; at < prompt.Length; at += _chunk)
            {
                cancellationToken.ThrowIfCancellationRequested();
                int count = Math.Min(_chunk, prompt.Length - at);
                Plan(_tables.AsSpan(s, 1), count);
                bool last = at + count == prompt.Length;
                Tensor logits = _transformer.Forward(_cache, _batch, prompt.AsSpan(at, count), last ? [count - 1] : [], prompt.Length);
                if (last)
                {
                    Tensor id = _ids.Rows(0, 1);
                    _stream.ArgMax(logits, id);
                    _stream.Download(id, next.AsSpan(s, 1));
                }
            }
        }

        for (int s = prompts; s < _sequences; s++)
        {
            _tables[s].AppendShared(_tables[0].Pages);
            next[s] = random.Next(_model.Config.VocabularySize);
        }

        _stream.Synchronize();
        prefill.Stop();
        Stopwatch decode = Stopwatch.StartNew();
        for (int step = 0; step < generatedTokens; step++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            Plan(_tables, 1);
            int length = prompt.Length + step + 1;
            Tensor logits = _runsAhead && step > 0 ? _transformer.Forward(_cache, _batch, _ids, _rows, length) : _transformer.Forward(_cache, _batch, next, _rows, length);
            _stream.ArgMax(logits, _ids);
            if (!_runsAhead)
            {
                _stream.Download(_ids, next.AsSpan());
                continue;
            }

            // As a session has it: the next step is on the stream before this one's tokens are looked at.
            _stream.Copy(_ids.Buffer!, 0, _results, (ulong)(step % 2 * _sequences * sizeof(int)), (ulong)_sequences * sizeof(int));
            _there[step % 2].Record(_stream);
            if (step > 0)
            {
                _there[(step - 1) % 2].Synchronize();
            }
        }

        _stream.Synchronize();
        decode.Stop();
        _ended = true;
        return new BenchmarkRound((double)promptTokens * prompts / prefill.Elapsed.TotalSeconds, (double)generatedTokens * _sequences / decode.Elapsed.TotalSeconds);
    }

    /// <summary>
    /// Takes the last step of the last round apart: runs it again and again, in the place where it was, for a second or three times: op by op with an event
    /// behind each, and as it runs otherwise. The update of the step's plan, which is the host's work, is not in it.
    /// </summary>
    /// <param name="cancellationToken">Looked at between steps.</param>
    /// <exception cref="InvalidOperationException">No round was run to its end.</exception>
    public StepProfile Profile(CancellationToken cancellationToken = default)
    {
        if (!_ended)
        {
            throw new InvalidOperationException("a profile repeats the last step of a round: run one first");
        }

        // As it runs otherwise: steps that follow each other, and an event between them. Two that warm up, for a graph is captured when its shape comes again.
        const int Most = 25, Least = 3;
        using ComputeEvent first = new(_model.Device), second = new(_model.Device);
        List<double> steps = [];
        Repeat();
        Repeat();
        _stream.Synchronize();
        for (Stopwatch watch = Stopwatch.StartNew(); steps.Count < Least || (steps.Count < Most && watch.ElapsedMilliseconds < 1_000);)
        {
            cancellationToken.ThrowIfCancellationRequested();
            Repeat(); // the one before, so that the device is busy when the next is put on the stream
            first.Record(_stream);
            Repeat();
            second.Record(_stream);
            steps.Add(second.MillisecondsSince(first));
        }

        using StepWatch watched = new(_stream, _model.Weights.Output.Weight, _sequences, Repeat);
        for (Stopwatch watch = Stopwatch.StartNew(); watched.Steps < Least || (watched.Steps < Most && watch.ElapsedMilliseconds < 1_000);)
        {
            cancellationToken.ThrowIfCancellationRequested();
            watched.Run();
        }

        IReadOnlyList<KindTime> kinds = watched.Kinds();
        return new StepProfile(kinds, kinds.Sum(k => k.Microseconds), 1e3 * StepWatch.Median(steps), _transformer.CapturedGraphs > 0, watched.Steps);

        // The step's plan is in force still.
        void Repeat() => _stream.ArgMax(_transformer.Forward(_cache, _batch, _ids, _rows, _promptTokens + _generatedTokens), _ids);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        DropTables();
        _ids.Buffer?.Dispose();
        _results.Dispose();
        _there[0].Dispose();
        _there[1].Dispose();
        _transformer.Dispose();
        _batch.Dispose();
        _cache.Dispose();
        _stream.Dispose();
    }

    private void DropTables()
    {
        _ended = false;
        foreach (PageTable table in _tables)
        {
            table.Dispose();
        }

        _tables = [];
    }

    private void Plan(ReadOnlySpan<PageTable> tables, int tokensEach)
    {
        int[] query = new int[tables.Length + 1], lengths = new int[tables.Length], indptr = new int[tables.Length + 1];
        List<int> pages = [];
        for (int b = 0; b < tables.Length; b++)
        {
            tables[b].Append(tokensEach);
            query[b + 1] = query[b] + tokensEach;
            lengths[b] = tables[b].Length;
            pages.AddRange(tables[b].Pages);
            indptr[b + 1] = pages.Count;
        }

        _batch.Update(_stream, new BatchStep { QueryIndptr = query, KvLengths = lengths, PageIndptr = indptr, PageIds = System.Runtime.InteropServices.CollectionsMarshal.AsSpan(pages), Prefixes = tables.Length > 1 ? _shared : [] });
    }
}
