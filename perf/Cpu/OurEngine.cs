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

    public void Dispose() => _model.Dispose();
}
