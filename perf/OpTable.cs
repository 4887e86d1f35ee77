using System.Diagnostics;
using System.Globalization;
using Sluice.Decoding;
using Sluice.Interop;
using Sluice.Kernels;
using Sluice.Tuning;

namespace Sluice.Perf;

/// <summary>
/// Times cases on devices: median of rounds of at least 20 ms after a warm-up, with bytes and flops a second. With "--large", sizes
/// of real models, each run from a flushed L2 and timed alone by device events: median of 100 ms of runs after 25 ms of warm-up,
/// beside the read rate that the same process measured. One JSON object a line on standard output, a table on standard error.
/// </summary>
internal static class OpTable
{
    private const double RoundMilliseconds = 20;
    private const int Rounds = 7;

    /// <param name="targets">Targets to time; none: all that are here. A last argument "--large" takes sizes of real models.</param>
    public static int Run(string[] targets)
    {
        bool large = targets.Contains("--large");
        targets = [.. targets.Where(t => t != "--large")];
        // Large cases are made one after the other: together they would not fit.
        string[] ops = Environment.GetEnvironmentVariable("SLUICE_OPS") is { Length: > 0 } named ? named.Split(',') : [];
        IEnumerable<OpCase> cases = large ? Large().Where(c => ops.Length == 0 || ops.Contains(c.Op)) : KernelCases.All;
        foreach (string target in targets.Length > 0 ? targets : [.. OpBenchmarks.Here()])
        {
            Device device;
            try
            {
                device = Targets.Open(target);
            }
            catch (SluiceException e)
            {
                Console.Error.WriteLine($"{target}: {e.Message}");
                continue;
            }

            TunedDevice.Apply(device, TunedDevice.PathOf);
            double peak = large ? ReadPeak.Measure(device) : 0;
            if (large)
            {
                Console.Error.WriteLine($"{device.Info.Name}: read peak {peak:0} GB/s");
            }

            foreach (OpCase c in cases)
            {
                try
                {
                    using OpRunner runner = new(device, c);
                    double milliseconds = large ? FlushedTimer.Median(runner.Stream, runner.Run) : Median(device, runner);
                    double gigabytes = Minimum.Of(c, runner.WeightBytes) / milliseconds / 1e6, gigaflops = c.Flops / milliseconds / 1e6;
                    string share = large ? $" {100 * gigabytes / peak,5:0.0}% of the read peak" : "";
                    Console.Error.WriteLine($"{target,-14} {c,-56} {milliseconds * 1000,10:0.0} us {gigabytes,8:0.00} GB/s {gigaflops,9:0.0} GFLOP/s{share}");
                    Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{{\"target\":\"{target}\",\"device\":\"{device.Info.Name}\",\"case\":\"{c}\",\"us\":{milliseconds * 1000:0.000},\"gb_per_s\":{gigabytes:0.000},\"gflop_per_s\":{gigaflops:0.0},\"read_peak_gb_per_s\":{peak:0.0}}}"));
                }
                catch (SluiceException e) when (e.Status == Status.ErrUnsupported)
                {
                    Console.Error.WriteLine($"{target,-14} {c,-56} not there");
                }
            }
        }

        return 0;
    }

    // Projections of models people run, then attention and cascades: the shapes of the field's tables.
    private static IEnumerable<OpCase> Large()
    {
        (int N, int K)[] small = [(3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192), (6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)];
        foreach ((WeightEncoding encoding, int group) in new[] { (WeightEncoding.Q4_0, 0), (WeightEncoding.GPTQ4, 128) })
        {
            foreach ((int n, int k) in small)
            {
                foreach (int m in new[] { 1, 2, 4, 8, 16, 32, 64, 128, 512, 4096 })
                {
                    yield return Linear(encoding, group, m, n, k);
                }
            }

            yield return Linear(encoding, group, 1, 128256, 4096);
            yield return Linear(encoding, group, 1, 57344, 8192);
            yield return Linear(encoding, group, 16, 57344, 8192);
        }

        foreach (WeightEncoding encoding in new[] { WeightEncoding.Q8_0, WeightEncoding.F16, WeightEncoding.Q4K, WeightEncoding.Q5K, WeightEncoding.Q6K })
        {
            foreach (int m in new[] { 1, 8, 16, 512 })
            {
                yield return Linear(encoding, 0, m, 4096, 4096);
            }

            yield return Linear(encoding, 0, 1, 28672, 4096);
        }

        // The fused ops of llama-3.2-1b and llama-3-8b; beside fused_qkv what it takes the place of, to be added up.
        foreach ((WeightEncoding encoding, int group) in new[] { (WeightEncoding.Q4_0, 0), (WeightEncoding.GPTQ4, 128), (WeightEncoding.Q4K, 0), (WeightEncoding.F16, 0) })
        {
            foreach ((int c, int f, int d) in new[] { (2048, 8192, 64), (4096, 14336, 128) })
            {
                foreach (int m in new[] { 1, 8, 16 })
                {
                    yield return KernelCases.Gated($"{encoding} {m}x{f}x{c}", DType.F32, DType.F16, encoding, encoding, group, m, f, c, norm: true, bias: false, activation: 0);
                    yield return AttentionCases.TimedQkv(encoding, group, m, c, d);
                }

                yield return Linear(encoding, group, 1, 32 * d, c);
                yield return Linear(encoding, group, 1, 8 * d, c);
            }
        }

        foreach ((int c, int d) in new[] { (2048, 64), (4096, 128) })
        {
            foreach (OpCase part in AttentionCases.TimedQkvParts(c, d))
            {
                yield return part;
            }
        }

        foreach (OpCase c in AttentionCases.Timed())
        {
            yield return c;
        }

        static OpCase Linear(WeightEncoding encoding, int group, int m, int n, int k) =>
            KernelCases.Linear($"{encoding}{(group > 0 ? $" g{group}" : "")} {m}x{n}x{k}", DType.F16, encoding, group, m, n, k, false, false, DType.F16);
    }

    private static double Median(Device device, OpRunner runner)
    {
        runner.Run();
        runner.Stream.Synchronize();
        int repeats = 1;
        for (double took = 0; (took = Time(device, runner, repeats)) < RoundMilliseconds && repeats < 1 << 20;)
        {
            repeats = Math.Max(repeats + 1, (int)Math.Min(repeats * 10.0, repeats * RoundMilliseconds / Math.Max(took, 0.001) * 1.2));
        }

        double[] rounds = [.. Enumerable.Range(0, Rounds).Select(_ => Time(device, runner, repeats) / repeats)];
        Array.Sort(rounds);
        return rounds[Rounds / 2];
    }

    // Device events on a GPU, the clock elsewhere: the same events measure both.
    private static double Time(Device device, OpRunner runner, int repeats)
    {
        using ComputeEvent start = new(device), end = new(device);
        start.Record(runner.Stream);
        for (int i = 0; i < repeats; i++)
        {
            runner.Run();
        }

        end.Record(runner.Stream);
        runner.Stream.Synchronize();
        return end.MillisecondsSince(start);
    }
}
