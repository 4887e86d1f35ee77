using System.Diagnostics;
using System.Globalization;
using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Perf;

/// <summary>
/// Times cases on devices: median of rounds of at least 20 ms after a warm-up, with bytes and flops a second. One JSON
/// object a line on standard output, a table on standard error.
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
        IReadOnlyCollection<OpCase> cases = large ? [.. Large()] : KernelCases.All;
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

            foreach (OpCase c in cases)
            {
                try
                {
                    using OpRunner runner = new(device, c);
                    double milliseconds = Median(device, runner);
                    double gigabytes = Minimum.Of(c, runner.WeightBytes) / milliseconds / 1e6, gigaflops = c.Flops / milliseconds / 1e6;
                    Console.Error.WriteLine($"{target,-14} {c,-56} {milliseconds * 1000,10:0.0} us {gigabytes,8:0.00} GB/s {gigaflops,9:0.0} GFLOP/s");
                    Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{{\"target\":\"{target}\",\"device\":\"{device.Info.Name}\",\"case\":\"{c}\",\"us\":{milliseconds * 1000:0.000},\"gb_per_s\":{gigabytes:0.000},\"gflop_per_s\":{gigaflops:0.0}}}"));
                }
                catch (SluiceException e) when (e.Status == Status.ErrUnsupported)
                {
                    Console.Error.WriteLine($"{target,-14} {c,-56} not there");
                }
            }
        }

        return 0;
    }

    // Projections of models people run: few rows for decode, many for prefill.
    private static IEnumerable<OpCase> Large()
    {
        foreach ((int n, int k) in new[] { (4096, 4096), (28672, 4096), (4096, 14336), (2048, 2048) })
        {
            foreach (int m in new[] { 1, 4, 16, 128 })
            {
                foreach ((WeightEncoding encoding, int group) in new[] { (WeightEncoding.Q4_0, 0), (WeightEncoding.Q8_0, 0), (WeightEncoding.F16, 0) })
                {
                    yield return KernelCases.Linear($"{encoding} {m}x{n}x{k}", DType.F16, encoding, group, m, n, k, false, false, DType.F16);
                }
            }
        }
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
