using System.CommandLine;
using System.Globalization;
using System.Reflection;
using System.Text.Json;
using Sluice.Decoding;
using Sluice.Interop;

namespace Sluice.Console;

/// <summary>sluice bench MODEL: prefill and decode rates of whole steps, a row of output a batch; on request the time of each kind of op.</summary>
internal static class BenchCommand
{
    public static string Commit { get; } = typeof(BenchCommand).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion.Split('+').ElementAtOrDefault(1) ?? "unknown";

    public static Command Create()
    {
        ModelArguments model = new();
        Option<int> prompt = new("--prompt-tokens") { Description = "Prompt tokens of each sequence", DefaultValueFactory = _ => 512 };
        Option<int> generated = new("--gen-tokens") { Description = "Generated tokens of each sequence", DefaultValueFactory = _ => 64 };
        Option<string[]> batch = new("--batch") { Description = "Sequences that decode at once; several as 1,4,16 or one after the other", DefaultValueFactory = _ => ["1"], HelpName = "list" };
        Option<int> rounds = new("--rounds") { Description = "Counted rounds, after one that warms up", DefaultValueFactory = _ => 5 };
        Option<bool> profile = new("--profile") { Description = "Also time each kind of op of one decode step" };
        Option<bool> json = new("--json") { Description = "Print one JSON object a batch" };
        batch.Validators.Add(result =>
        {
            foreach (string wrong in result.Tokens.SelectMany(t => t.Value.Split(',')).Where(word => !TryParse(word, out _)))
            {
                result.AddError($"--batch has '{wrong}', and wants whole numbers with commas between");
            }
        });
        Command command = new("bench", "Measure prefill and decode rates of whole steps; with a verb behind it: an engine that serves many requests.") { prompt, generated, batch, rounds, profile, json };
        model.AddTo(command);
        command.Subcommands.Add(ServingCommands.Throughput());
        command.Subcommands.Add(ServingCommands.Latency());
        command.Subcommands.Add(ServingCommands.Serve());
        command.SetAction(async (parsed, cancellation) =>
        {
            int count = parsed.GetValue(rounds);
            if (count is < 1 or > 1_000)
            {
                throw new ArgumentException($"--rounds is {count}, and may be 1 to 1000");
            }

            int[] batches = [.. parsed.GetValue(batch)!.SelectMany(list => list.Split(',')).Select(word => TryParse(word, out int size) ? size : 0)];
            foreach (int size in batches.Where(size => size is < 1 or > ModelBenchmark.MaxSequences))
            {
                throw new ArgumentException($"--batch has {size}, and may have 1 to {ModelBenchmark.MaxSequences}");
            }

            using Model loaded = await model.LoadAsync(parsed, cancellation);
            double peak = await Task.Run(() => ReadPeak.Measure(loaded), cancellation);
            if (!parsed.GetValue(json))
            {
                System.Console.Out.WriteLine(string.Create(
                    CultureInfo.InvariantCulture,
                    $"{model.Name(parsed)}: {parsed.GetValue(prompt)} prompt tokens, {parsed.GetValue(generated)} generated, {count} rounds, read peak {peak:0.0} GB/s, commit {Commit[..Math.Min(10, Commit.Length)]}"));
                System.Console.Out.WriteLine("batch      prefill tok/s       decode tok/s    ms a step   GB/s of weights   of read peak");
            }

            foreach (int size in batches)
            {
                (List<BenchmarkRound> results, StepProfile? taken) = await MeasureAsync(loaded, parsed.GetValue(prompt), parsed.GetValue(generated), size, count, parsed.GetValue(profile), cancellation);
                RateOutput prefill = Rate(results.Select(r => r.PrefillTokensPerSecond)), decode = Rate(results.Select(r => r.DecodeTokensPerSecond));
                DeviceInfo device = loaded.DeviceInfo;
                double read = decode.Mean / size * loaded.BytesPerToken / 1e9;
                BenchOutput o = new(
                    model.Name(parsed), parsed.GetValue(prompt), parsed.GetValue(generated), size, prefill, decode, read, peak, 100 * read / peak,
                    taken?.StepMicroseconds, taken?.SumMicroseconds, taken?.Graph, taken?.Steps, taken is null ? null : [.. taken.Kinds.Select(Kind)],
                    device.Backend.ToString().ToLowerInvariant(), device.Name, ModelArguments.IsaName(device.Isa), device.Threads, Commit);
                if (parsed.GetValue(json))
                {
                    System.Console.Out.WriteLine(JsonSerializer.Serialize(o, JsonOutput.Lines.BenchOutput));
                }
                else
                {
                    Print(o);
                }

                // What is measured is there to be read, whatever becomes of the next.
                System.Console.Out.Flush();
            }

            return 0;
        });
        return command;
    }

    private static async Task<(List<BenchmarkRound> Rounds, StepProfile? Profile)> MeasureAsync(Model model, int prompt, int generated, int batch, int rounds, bool profile, CancellationToken cancellation)
    {
        using ModelBenchmark benchmark = new(model, prompt, generated, batch);
        return await Terminal.WithProgressAsync<(List<BenchmarkRound>, StepProfile?), int>($"measuring batch {batch}", done => (done, rounds + 1), progress => Task.Run(
            () =>
            {
                List<BenchmarkRound> all = [];
                for (int round = 0; round <= rounds; round++)
                {
                    BenchmarkRound result = benchmark.Run(round, cancellation);
                    if (round > 0)
                    {
                        all.Add(result);
                    }

                    progress?.Report(round + 1);
                }

                return (all, profile ? benchmark.Profile(cancellation) : null);
            },
            cancellation));
    }

    private static void Print(BenchOutput o)
    {
        Line($"{o.Batch,5} {Text(o.PrefillTokPerS),18} {Text(o.DecodeTokPerS),18} {1e3 * o.Batch / o.DecodeTokPerS.Mean,12:0.000} {o.ReadGbPerS,17:0.0} {o.ReadPercent,13:0.0}%");
        if (o.Kinds is null)
        {
            return;
        }

        foreach (KindOutput k in o.Kinds)
        {
            string weights = k.WeightBytes is null ? "" : string.Create(CultureInfo.InvariantCulture, $"{k.WeightBytes / 1e6,10:0.00} MB {k.GbPerS,7:0.0} GB/s");
            Line($"      {k.Kind,-16} {k.Calls,4} calls {k.Us,12:0.0} us {k.Percent,6:0.0}% {weights}");
        }

        Line($"      together, op by op {o.KindsUs,14:0.0} us; as {(o.StepIsGraph == true ? "a graph" : "it runs otherwise")} {o.StepUs:0.0} us (median of {o.ProfiledSteps} steps)");

        static void Line(FormattableString text) => System.Console.Out.WriteLine(text.ToString(CultureInfo.InvariantCulture));

        static string Text(RateOutput rate) => string.Create(CultureInfo.InvariantCulture, $"{rate.Mean:0.0} +/- {rate.Deviation:0.0}");
    }

    private static KindOutput Kind(KindTime k) => new(
        k.Kind, k.Calls, Math.Round(k.Microseconds, 2), Math.Round(k.Percent, 2), k.WeightBytes > 0 ? k.WeightBytes : null, k.WeightBytes > 0 ? Math.Round(k.GigabytesPerSecond, 2) : null);

    private static bool TryParse(string word, out int size) => int.TryParse(word, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out size);

    private static RateOutput Rate(IEnumerable<double> rounds)
    {
        double[] all = [.. rounds.Select(r => Math.Round(r, 2))];
        double mean = all.Average();
        return new RateOutput(mean, all.Length > 1 ? Math.Sqrt(all.Sum(r => (r - mean) * (r - mean)) / (all.Length - 1)) : 0, all);
    }
}
