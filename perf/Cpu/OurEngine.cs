using System.Diagnostics;
using Sluice.Decoding;
using Sluice.Interop;

namespace Sluice.Perf.Cpu;

/// <summary>Ours: one model on the cpu backend, keys and values in f16. Each cell has caches of its own, one short round (prefill: a whole one) that warms up, and one that counts.</summary>
internal sealed class OurEngine : IDisposable
{
    private readonly Model _model;

    private OurEngine(Model model) => _model = model;

    public static async Task<OurEngine> LoadAsync(string file, int threads, CancellationToken cancellation) =>
        new(await Model.LoadAsync(file, new ModelOptions { Device = Backend.Cpu, Threads = threads, KvType = DType.F16 }, cancellationToken: cancellation));

    public long BytesPerToken => (long)_model.BytesPerToken;

    /// <summary>Tokens a second, and GB/s that memory was read at just before and just behind, on average, where the cell is a plain decode (else 0).</summary>
    public (double TokensPerSecond, double ReadGigabytes) Measure(CpuCell cell, int seed, CancellationToken cancellation)
    {
        if (cell.Kind is CpuKind.Engine or CpuKind.Requests)
        {
            return (MeasureRequestsAsync(cell, seed, cancellation).GetAwaiter().GetResult(), 0);
        }

        // A decode from nothing begins with one token, and a prompt ends with one that is chosen.
        using ModelBenchmark benchmark = new(_model, Math.Max(1, cell.Prompt), Math.Max(1, cell.Generated), cell.Sequences, cell.OnePrompt);
        if (cell.Generated == 0)
        {
            benchmark.Run(0, cancellation);
            return (benchmark.Run(seed, cancellation).PrefillTokensPerSecond, 0);
        }

        // A machine that is shared reads memory at more than one rate within seconds.
        double Read() => cell.Kind == CpuKind.Decode ? ReadPeak.Measure(_model) : 0;
        double before = Read();
        benchmark.WarmUp(cancellation);
        double rate = benchmark.Run(seed, cancellation).DecodeTokensPerSecond;
        return (rate, (before + Read()) / 2);
    }

    // All at once. Requests of one prompt differ in their seeds; on "own" ones the engine shares nothing, though the prompt is the same.
    private async Task<double> MeasureRequestsAsync(CpuCell cell, int seed, CancellationToken cancellation)
    {
        bool decode = cell.Kind == CpuKind.Engine;
        int each = cell.Prompt + cell.Generated;
        await using Engine engine = _model.CreateEngine(new EngineOptions
        {
            ContextLength = each, CacheTokens = (each + 16) * cell.Sequences, MaxSequences = cell.Sequences, PrefixCaching = decode || cell.OnePrompt, Cascade = decode || cell.OnePrompt,
        });
        Random random = new(seed);
        int[] Prompt() => [.. Enumerable.Range(0, cell.Prompt).Select(_ => random.Next(_model.Config.VocabularySize))];
        SamplingParameters parameters = new() { MaxTokens = cell.Generated, IgnoreEndOfSequence = true };
        await foreach (GeneratedToken token in engine.GenerateAsync(Prompt().AsMemory(0, 32), parameters with { MaxTokens = 8 }, cancellationToken: cancellation))
        {
            // Memory is touched, code compiled, and threads are awake.
        }

        int[] common = Prompt();
        int[][] prompts = [.. Enumerable.Range(0, cell.Sequences).Select(_ => decode ? Prompt() : common)];
        long begin = Stopwatch.GetTimestamp(), from = 0, to = 0, tokensFrom = 0, tokensTo = 0;
        int begun = 0, ended = 0;
        await Task.WhenAll(prompts.Select(prompt => Task.Run(
            async () =>
            {
                int tokens = 0;
                await foreach (GeneratedToken token in engine.GenerateAsync(prompt, parameters, cancellationToken: cancellation))
                {
                    if (++tokens == 1 && Interlocked.Increment(ref begun) == cell.Sequences)
                    {
                        (from, tokensFrom) = (Stopwatch.GetTimestamp(), engine.Statistics.GeneratedTokens);
                    }
                    else if (tokens == cell.Generated && Interlocked.Increment(ref ended) == 1)
                    {
                        (to, tokensTo) = (Stopwatch.GetTimestamp(), engine.Statistics.GeneratedTokens);
                    }
                }
            },
            cancellation)));
        // From where all decode to where the first has ended; or all of it.
        return decode ? (tokensTo - tokensFrom) / Stopwatch.GetElapsedTime(from, to).TotalSeconds
            : cell.Sequences * cell.Generated / Stopwatch.GetElapsedTime(begin).TotalSeconds;
    }

    public void Dispose() => _model.Dispose();
}
