using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using System.Text.Json;
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

    /// <param name="arguments">
    /// Targets to time; none: all that are here. "--large" takes sizes of real models, what goals are set for first; "--whole" also the rest of attention's grid,
    /// behind all others; "--small" times attention the same way in sizes that an executor runs. "--skip FILE" leaves out what has a row in the file. SLUICE_OPS names
    /// ops, or beginnings of cases in whole words ("paged_attention decode 32/8/128 bs 1"), commas between.
    /// </param>
    public static int Run(string[] arguments)
    {
        bool small = arguments.Contains("--small"), whole = arguments.Contains("--whole"), large = whole || small || arguments.Contains("--large");
        int skip = Array.IndexOf(arguments, "--skip");
        HashSet<(string Target, string Case)> done = skip >= 0 && File.Exists(arguments[skip + 1]) ? Done(arguments[skip + 1]) : [];
        string[] targets = [.. arguments.Where((a, i) => a is not ("--large" or "--whole" or "--small") && (skip < 0 || (i != skip && i != skip + 1)))];
        string[] ops = Environment.GetEnvironmentVariable("SLUICE_OPS") is { Length: > 0 } named ? named.Split(',') : [];
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

            // Large cases are made one after the other: together they would not fit. Those of one weight follow each other, and find it on the device.
            using SharedWeights weights = new(device);
            bool Wanted(string name) => (ops.Length == 0 || ops.Any(o => (name + ' ').StartsWith(o + ' ', StringComparison.Ordinal))) && !done.Contains((target, name));
            // Of a GPU's memory nearly all, of the host's a quarter: others live there too.
            long most = (long)(device.Info.MemoryFree / (device.Backend == Backend.Cuda ? 10u : 40u)) * 9;
            bool Holds(TimedCase c) => Wanted(c.ToString()) && (c.CacheBytes < most || LeftOut(target, c.ToString(), $"its keys and values take {c.CacheBytes / 1e9:0.0} GB"));
            IEnumerable<OpCase> cases = small ? AttentionCases.TimedSmall().Where(Holds).Select(c => c.Make()) : large ? Large(Wanted, Holds, whole) : KernelCases.All;
            foreach (OpCase c in cases.Where(c => Wanted(c.ToString())))
            {
                try
                {
                    using OpRunner runner = new(device, c, large ? weights.Of(c) : null);
                    double milliseconds = large ? FlushedTimer.Median(runner.Stream, runner.Run) : Median(device, runner);
                    double gigabytes = Minimum.Of(c, runner.WeightBytes) / milliseconds / 1e6, gigaflops = c.Flops / milliseconds / 1e6;
                    string share = large ? $" {100 * gigabytes / peak,5:0.0}% of the read peak" : "";
                    Console.Error.WriteLine($"{target,-14} {c,-56} {milliseconds * 1000,10:0.0} us {gigabytes,8:0.00} GB/s {gigaflops,9:0.0} GFLOP/s{share}");
                    Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{{\"target\":\"{target}\",\"device\":\"{device.Info.Name}\",\"case\":\"{c}\",\"us\":{milliseconds * 1000:0.000},\"gb_per_s\":{gigabytes:0.000###},\"gflop_per_s\":{gigaflops:0.0#####},\"read_peak_gb_per_s\":{peak:0.0#####},\"date\":\"{DateTime.UtcNow:yyyy-MM-dd}\",\"commit\":\"{Commit}\"}}"));
                }
                catch (SluiceException e) when (e.Status is Status.ErrUnsupported or Status.ErrOutOfMemory)
                {
                    LeftOut(target, c.ToString(), e.Status == Status.ErrUnsupported ? "not there" : e.Message);
                }
            }
        }

        return 0;
    }

    // Of which these programs were built.
    private static string Commit { get; } = typeof(OpTable).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion.Split('+') is [_, { Length: >= 8 } revision] ? revision[..8] : "";

    private static bool LeftOut(string target, string name, string why)
    {
        Console.Error.WriteLine($"{target,-14} {name,-56} left out: {why}");
        return false;
    }

    // Rows that an earlier run left; a line that it was stopped in counts for nothing.
    private static HashSet<(string Target, string Case)> Done(string file)
    {
        HashSet<(string, string)> all = [];
        foreach (string line in File.ReadLines(file).Where(l => l.StartsWith('{') && l.EndsWith('}')))
        {
            using JsonDocument row = JsonDocument.Parse(line);
            if (row.RootElement.TryGetProperty("target", out JsonElement target) && row.RootElement.TryGetProperty("case", out JsonElement c) && row.RootElement.TryGetProperty("us", out _))
            {
                all.Add((target.GetString()!, c.GetString()!));
            }
        }

        return all;
    }

    // What goals are set for in attention; projections of models people run; then attention and cascades, the shapes of the field's tables. What is not wanted is not made.
    private static IEnumerable<OpCase> Large(Func<string, bool> wanted, Func<TimedCase, bool> holds, bool whole)
    {
        HashSet<string> goals = [];
        foreach (TimedCase c in AttentionCases.TimedGoals().Where(c => goals.Add(c.ToString()) && holds(c)))
        {
            yield return c.Make();
        }

        (int N, int K)[] small = [(3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192), (6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)];
        (int N, int K)[] large = [(128256, 4096), (10240, 8192), (57344, 8192), (8192, 28672)];
        int[] all = [1, 2, 4, 8, 16, 32, 64, 128, 512, 4096], some = [1, 8, 16, 64, 512], few = [1, 16];
        (WeightEncoding Encoding, int Group, (int N, int K)[] Shapes, int[] Rows)[] linears =
        [
            (WeightEncoding.Q4_0, 0, small, all), (WeightEncoding.GPTQ4, 128, small, all), (WeightEncoding.Q8_0, 0, small, some), (WeightEncoding.F16, 0, small, some),
            (WeightEncoding.Q4_0, 0, large, few), (WeightEncoding.GPTQ4, 128, large, few), (WeightEncoding.GPTQ4, 64, [(4096, 4096), (28672, 4096)], few), (WeightEncoding.GPTQ4, 32, [(4096, 4096), (28672, 4096)], few),
            (WeightEncoding.Q4K, 0, [(4096, 4096), (28672, 4096)], some), (WeightEncoding.Q5K, 0, [(4096, 4096)], some), (WeightEncoding.Q6K, 0, [(4096, 4096), (28672, 4096)], some),
        ];
        foreach ((WeightEncoding encoding, int group, (int N, int K)[] shapes, int[] rows) in linears)
        {
            foreach ((int n, int k) in shapes)
            {
                HostWeight? weight = null;
                foreach (int m in rows)
                {
                    string name = $"{encoding}{(group > 0 ? $" g{group}" : "")} {m}x{n}x{k}";
                    if (wanted($"linear {name}"))
                    {
                        OpCase c = KernelCases.Linear(name, DType.F16, encoding, group, m, n, k, false, false, DType.F16, weight);
                        weight = c.Weights["w"];
                        yield return c;
                    }
                }
            }
        }

        // The fused ops of llama-3.2-1b and llama-3-8b; beside fused_qkv what it takes the place of, to be added up.
        foreach ((WeightEncoding encoding, int group) in new[] { (WeightEncoding.Q4_0, 0), (WeightEncoding.GPTQ4, 128), (WeightEncoding.Q4K, 0), (WeightEncoding.F16, 0) })
        {
            foreach ((int c, int f, int d) in new[] { (2048, 8192, 64), (4096, 14336, 128) })
            {
                foreach (int m in new[] { 1, 8, 16 })
                {
                    string name = $"{encoding} {m}x{f}x{c}";
                    if (wanted($"gated_linear {name}"))
                    {
                        yield return KernelCases.Gated(name, DType.F32, DType.F16, encoding, encoding, group, m, f, c, norm: true, bias: false, activation: 0);
                    }

                    if (wanted("fused_qkv"))
                    {
                        yield return AttentionCases.TimedQkv(encoding, group, m, c, d);
                    }
                }

                foreach (int n in new[] { 32 * d, 8 * d })
                {
                    string name = $"{encoding}{(group > 0 ? $" g{group}" : "")} 1x{n}x{c}, of the chain";
                    if (wanted($"linear {name}"))
                    {
                        yield return KernelCases.Linear(name, DType.F16, encoding, group, 1, n, c, false, false, DType.F16);
                    }
                }
            }
        }

        foreach ((int c, int d) in new[] { (2048, 64), (4096, 128) })
        {
            foreach (OpCase part in AttentionCases.TimedQkvParts(c, d))
            {
                yield return part;
            }
        }

        foreach (TimedCase c in AttentionCases.Timed(whole).Where(c => !goals.Contains(c.ToString()) && holds(c)))
        {
            yield return c.Make();
        }
    }

    // The weights of the case before, for one that has the very same.
    private sealed class SharedWeights(Device device) : IDisposable
    {
        private readonly Dictionary<HostWeight, Weight> _weights = new(ReferenceEqualityComparer.Instance);

        public Dictionary<string, Weight> Of(OpCase c)
        {
            foreach (HostWeight old in _weights.Keys.Where(w => !c.Weights.Values.Any(other => ReferenceEquals(w, other))).ToArray())
            {
                _weights.Remove(old, out Weight? gone);
                gone!.Dispose();
            }

            using ComputeStream stream = device.CreateStream();
            foreach (HostWeight w in c.Weights.Values.Where(w => !_weights.ContainsKey(w)))
            {
                _weights[w] = OpRunner.Create(stream, w);
            }

            return c.Weights.ToDictionary(w => w.Key, w => _weights[w.Value]);
        }

        public void Dispose()
        {
            foreach (Weight w in _weights.Values)
            {
                w.Dispose();
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
