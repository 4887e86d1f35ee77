using System.CommandLine;
using System.Reflection;
using System.Text.Json;
using Sluice.Decoding;
using Sluice.Interop;

namespace Sluice.Console;

/// <summary>sluice bench MODEL: prefill and decode rates of whole steps.</summary>
internal static class BenchCommand
{
    public static Command Create()
    {
        ModelArguments model = new();
        Option<int> prompt = new("--prompt-tokens") { Description = "Prompt tokens of each sequence", DefaultValueFactory = _ => 512 };
        Option<int> generated = new("--gen-tokens") { Description = "Generated tokens of each sequence", DefaultValueFactory = _ => 64 };
        Option<int> batch = new("--batch") { Description = "Sequences that decode at once", DefaultValueFactory = _ => 1 };
        Option<int> rounds = new("--rounds") { Description = "Counted rounds, after one that warms up", DefaultValueFactory = _ => 5 };
        Option<bool> json = new("--json") { Description = "Print one JSON object" };
        Command command = new("bench", "Measure prefill and decode rates.") { prompt, generated, batch, rounds, json };
        model.AddTo(command);
        command.SetAction(async (parsed, cancellation) =>
        {
            int count = parsed.GetValue(rounds);
            if (count is < 1 or > 1_000)
            {
                throw new ArgumentException($"--rounds is {count}, and may be 1 to 1000");
            }

            using Model loaded = await model.LoadAsync(parsed, cancellation);
            using ModelBenchmark benchmark = new(loaded, parsed.GetValue(prompt), parsed.GetValue(generated), parsed.GetValue(batch));
            List<BenchmarkRound> results = await Terminal.WithProgressAsync<List<BenchmarkRound>, int>("measuring", done => (done, count + 1), progress => Task.Run(
                () =>
                {
                    List<BenchmarkRound> all = [];
                    for (int round = 0; round <= count; round++)
                    {
                        BenchmarkRound result = benchmark.Run(round, cancellation);
                        if (round > 0)
                        {
                            all.Add(result);
                        }

                        progress?.Report(round + 1);
                    }

                    return all;
                },
                cancellation));
            RateOutput prefill = Rate(results.Select(r => r.PrefillTokensPerSecond)), decode = Rate(results.Select(r => r.DecodeTokensPerSecond));
            DeviceInfo device = loaded.DeviceInfo;
            string commit = typeof(BenchCommand).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion.Split('+').ElementAtOrDefault(1) ?? "unknown";
            BenchOutput o = new(
                model.Name(parsed), parsed.GetValue(prompt), parsed.GetValue(generated), parsed.GetValue(batch), prefill, decode,
                decode.Mean / parsed.GetValue(batch) * loaded.BytesPerToken / 1e9, device.Backend.ToString().ToLowerInvariant(), device.Name, ModelArguments.IsaName(device.Isa), device.Threads, commit);
            if (parsed.GetValue(json))
            {
                System.Console.Out.WriteLine(JsonSerializer.Serialize(o, JsonOutput.Lines.BenchOutput));
                return 0;
            }

            System.Console.Out.WriteLine($"{o.Model}: {o.PromptTokens} prompt tokens, {o.GenTokens} generated, batch {o.Batch}, {count} rounds, commit {o.Commit[..Math.Min(10, o.Commit.Length)]}");
            System.Console.Out.WriteLine($"prefill  {prefill.Mean,10:0.0} +/- {prefill.Deviation:0.0} tok/s");
            System.Console.Out.WriteLine($"decode   {decode.Mean,10:0.0} +/- {decode.Deviation:0.0} tok/s ({o.ReadGbPerS:0.0} GB/s of weights)");
            return 0;
        });
        return command;
    }

    private static RateOutput Rate(IEnumerable<double> rounds)
    {
        double[] all = [.. rounds.Select(r => Math.Round(r, 2))];
        double mean = all.Average();
        return new RateOutput(mean, all.Length > 1 ? Math.Sqrt(all.Sum(r => (r - mean) * (r - mean)) / (all.Length - 1)) : 0, all);
    }
}
