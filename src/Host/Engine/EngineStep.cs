using Sluice.Decoding;
using Sluice.Interop;
using Sluice.Models;
using Sluice.Paging;
using Sluice.Scheduling;

namespace Sluice;

/// <summary>An engine's side of the device: pages, plan, forward pass, choice of tokens. One step is one set of launches, whatever it is made of. For the engine's thread alone.</summary>
internal sealed class EngineStep : IDisposable
{
    /// <summary>P: tokens of a page.</summary>
    public const int PageSize = 16;

    private readonly ComputeStream _stream;
    private readonly KvCache _cache;
    private readonly Transformer _transformer;
    private readonly SwapSpace? _swapSpace;
    private readonly bool _cascade;
    private Batch? _batch;

    /// <param name="model">The model.</param>
    /// <param name="options">The largest step.</param>
    /// <param name="pages">Pages of the KV cache.</param>
    /// <param name="swapPages">Pages of host memory beside it.</param>
    /// <param name="cascade">Whether shared prefixes are read once.</param>
    /// <exception cref="SluiceException">The device has no memory for it.</exception>
    public EngineStep(Model model, SchedulerOptions options, int pages, int swapPages, bool cascade)
    {
        ModelConfig c = model.Config;
        _cascade = cascade;
        _stream = model.Device.CreateStream();
        try
        {
            _cache = new KvCache(_stream, new KvCacheOptions(model.KvType, c.LayerCount, pages, c.KvHeadCount, c.HeadDim, c.ValueHeadDim, PageSize));
            _transformer = new Transformer(model, _stream, options.TokenBudget, options.Rows);
            Sampler = new BatchSampler(_stream, c.VocabularySize, options.Rows);
            if (swapPages > 0)
            {
                _swapSpace = new SwapSpace(_stream, _cache, swapPages);
                Swap = new HostPageSwap(_swapSpace);
            }

            Heads = c.HeadCount;
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>How tokens are chosen.</summary>
    public BatchSampler Sampler { get; } = null!;

    /// <summary>Where pages wait; null: nowhere.</summary>
    public IPageSwap? Swap { get; }

    /// <summary>Bytes of a page, all layers together.</summary>
    public ulong PageBytes => _cache.PageBytes;

    private int Heads { get; }

    /// <summary>Makes what a plan needs: once, before the first step.</summary>
    public void Prepare(StepPlan plan, SchedulerOptions options, int vocabularySize)
    {
        _batch = new Batch(_stream, _cache, new BatchOptions(options.TokenBudget, options.MaxSequences, plan.MaxPageIds, MaxPrefixes: _cascade ? plan.MaxPrefixes : 0) { QueryHeads = Heads });
        _transformer.Reserve(_cache, _batch);
        Tensor logits = _stream.CreateTensor(DType.F32, options.Rows, vocabularySize);
        Sampler.Reserve(logits);
        logits.Buffer!.Dispose();
    }

    /// <summary>Seconds that moving a page to the swap space takes, measured now; the pages' contents go nowhere.</summary>
    public double MeasureSwap(int pages)
    {
        int[] ids = [.. Enumerable.Range(0, Math.Min(pages, 32))];
        using DeviceBuffer target = _stream.CreateBuffer((ulong)ids.Length * PageBytes, MemoryKind.Host);
        _cache.SavePages(_stream, ids, target, 0);
        _stream.Synchronize();
        long start = System.Diagnostics.Stopwatch.GetTimestamp();
        _cache.SavePages(_stream, ids, target, 0);
        _stream.Synchronize();
        return System.Diagnostics.Stopwatch.GetElapsedTime(start).TotalSeconds / ids.Length;
    }

    /// <summary>Puts a step on the device.</summary>
    /// <param name="plan">The step.</param>
    /// <param name="rows">Its rows that want logits, and behind them those that want embeddings.</param>
    /// <param name="embedded">How many these are.</param>
    /// <returns>f32 [rows - embedded, V].</returns>
    public Tensor Run(StepPlan plan, ReadOnlySpan<int> rows, int embedded)
    {
        if (!plan.CopySources.IsEmpty)
        {
            _cache.CopyPages(_stream, plan.CopySources, plan.CopyTargets);
        }

        BatchStep step = plan.ToBatchStep();
        if (!_cascade)
        {
            step.Prefixes = default;
        }

        _batch!.Update(_stream, step);
        return _transformer.Forward(_cache, _batch, plan.Ids, rows, plan.LongestLength, embedded);
    }

    /// <summary>What the plan in force makes of shared prefixes.</summary>
    public BatchInfo ReadInfo() => _batch!.ReadInfo();

    /// <summary>Waits for the step, and reads the states of its last rows: f32 [embedded, C].</summary>
    public void ReadEmbedded(int embedded, Span<float> target) => _stream.Download(_transformer.Embedded(embedded), target);

    /// <summary>Waits for all that was put on the device.</summary>
    public void Synchronize() => _stream.Synchronize();

    public void Dispose()
    {
        Sampler?.Dispose();
        _transformer?.Dispose();
        _batch?.Dispose();
        _swapSpace?.Dispose();
        _cache?.Dispose();
        _stream.Dispose();
    }
}
