using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Json;
using Sluice.Decoding;
using Sluice.Interop;
using Sluice.Plotting;
using Spectre.Console;
using Spectre.Console.Rendering;

namespace Sluice.Console;

/// <summary>sluice bench throughput, latency and serve: many requests through the engine, and what each of them waited for.</summary>
internal static class ServingCommands
{
    public static Command Throughput() => Create(Load.Throughput, "throughput", "Measure an engine with all requests at once: the most tokens a second.");

    public static Command Latency() => Create(Load.Latency, "latency", "Measure an engine with one request at a time: the least that one waits.");

    public static Command Serve() => Create(
        Load.Serve, "serve",
        "Measure an engine with requests that arrive at a rate. Their times count from the planned arrival, not from when they could be sent, so that one that had to wait is not let off (coordinated omission).");

    private static Command Create(Load load, string name, string description)
    {
        ModelArguments model = new();
        ServingArguments serving = new(load);
        Command command = new(name, description);
        serving.AddTo(command);
        model.AddTo(command);
        command.SetAction(async (parsed, cancellation) =>
        {
            ServingPlan plan = serving.Read(parsed);
            using Model loaded = await model.LoadAsync(parsed, cancellation);
            await using Engine engine = loaded.CreateEngine(plan.Engine);
            await WarmUpAsync(engine, plan, cancellation);
            IReadOnlyList<PlannedRequest> requests = Workload.Plan(plan.Workload, loaded.Config.VocabularySize);
            ServingRun run = await Terminal.WithLiveAsync<ServingRun, ServingProgress>(
                Draw, progress => ServingBenchmark.RunAsync(engine, requests, load == Load.Latency, progress, cancellation));
            ServingReport report = new(run, plan.TtftBound, plan.TpotBound);
            string title = $"{model.Name(parsed)}: {name}";
            if (plan.Json)
            {
                System.Console.Out.WriteLine(JsonSerializer.Serialize(Output(model.Name(parsed), name, loaded, engine, plan, run, report), JsonOutput.Lines.ServingOutput));
            }
            else
            {
                System.Console.Out.Write(Text($"{title}, {Requests(plan)}", plan, run, report));
            }

            // What was measured is there to be read, whatever becomes of the rest: after a signal the program has two seconds, and the engine ends its step first.
            System.Console.Out.Flush();
            if (plan.Plot is { } plot)
            {
                File.WriteAllText(plot, ServingPlots.Draw(run, title, Requests(plan), $"{ModelArguments.Describe(loaded.DeviceInfo)}; commit {BenchCommand.Commit}"));
                Terminal.Note($"drawn: {plot}");
            }

            return run.Cancelled ? throw new OperationCanceledException() : 0;
        });
        return command;
    }

    // Memory is touched, code compiled and graphs are captured behind it; of other tokens, so that it leaves nothing to be found.
    private static async Task WarmUpAsync(Engine engine, ServingPlan plan, CancellationToken cancellation)
    {
        if (plan.WarmUp == 0)
        {
            return;
        }

        WorkloadOptions warm = plan.Workload with { Requests = plan.WarmUp, Rate = null, Seed = ~plan.Workload.Seed };
        IReadOnlyList<PlannedRequest> requests = Workload.Plan(warm, engine.Model.Config.VocabularySize);
        await Terminal.WithProgressAsync<ServingRun, ServingProgress>(
            "warming up", p => (p.Done, p.Requests), progress => ServingBenchmark.RunAsync(engine, requests, plan.Load == Load.Latency, progress, cancellation));
        cancellation.ThrowIfCancellationRequested();
    }

    private static Table Draw(ServingProgress p)
    {
        Table table = new Table { Border = TableBorder.Rounded }.AddColumns("done", "running", "waiting", "tokens/s", "KV use", "seconds");
        EngineStatistics s = p.Engine;
        return table.AddRow(
            $"{p.Done} of {p.Requests}", $"{s.Running}", $"{s.Waiting}", Number("#,0.0", p.TokensPerSecond), Number("0.0%", (s.Pages - s.FreePages - s.CachedPages) / (double)s.Pages), Number("0.0", p.Seconds));
    }

    private static string Requests(ServingPlan plan)
    {
        WorkloadOptions w = plan.Workload;
        string coming = plan.Load switch { Load.Throughput => "at once", Load.Latency => "one by one", _ => Number("at 0.### a second", w.Rate!.Value) };
        return $"{w.Requests} requests {coming}, {plan.Lengths}{(w.SharedPrefix > 0 ? $", behind {w.SharedPrefix} shared ones" : "")}, seed {w.Seed}";
    }

    private static string Text(string title, ServingPlan plan, ServingRun run, ServingReport r)
    {
        StringBuilder text = new();
        Line(title);
        Line($"{r.Completed} of {plan.Workload.Requests} requests in {Number("0.000", r.Seconds)} s{(run.Cancelled ? ", cancelled: what was seen until then" : "")}; {plan.WarmUp} to warm up; preset {plan.Preset}, {plan.Policy}; commit {BenchCommand.Commit[..Math.Min(10, BenchCommand.Commit.Length)]}");
        Line($"{"ms",-22}{"mean",12}{"P50",12}{"P90",12}{"P99",12}{"max",12}");
        Row(plan.Load == Load.Serve ? "TTFT from plan" : "TTFT", r.TimeToFirstToken);
        Row("TPOT", r.TimePerOutputToken);
        Row("ITL", r.InterTokenLatency);
        Row(plan.Load == Load.Serve ? "end to end from plan" : "end to end", r.EndToEnd);
        Row("queue", r.Queue);
        Line($"output {Number("#,0.0", r.OutputTokensPerSecond)} tok/s, total {Number("#,0.0", r.TotalTokensPerSecond)} tok/s, {Number("#,0.00", r.RequestsPerSecond)} requests/s");
        if (r.Goodput is { } goodput)
        {
            string[] bounds = [.. new[] { ("TTFT", plan.TtftBound), ("TPOT", plan.TpotBound) }.Where(b => b.Item2 is not null).Select(b => Number($"'{b.Item1} within '#,0.### 'ms'", b.Item2!.Value))];
            Line($"goodput {Number("#,0.00", goodput)} requests/s: {r.Good} had {string.Join(" and ", bounds)}");
        }

        Line($"prefix hits {Number("0.0%", r.PrefixHitRate)} of {Number("#,0", r.PromptTokens)} prompt tokens, {r.Preemptions} preemptions, cascade saved {Number("#,0", r.KeysSaved)} of {Number("#,0", r.KeysRead + r.KeysSaved)} keys, {Number("#,0", r.Steps)} steps");
        return text.ToString();

        void Line(string line) => text.Append(line).Append('\n');

        void Row(string name, Distribution? d) => Line(
            d is null ? $"{name,-22}{"none",12}" : $"{name,-22}{Milliseconds(d.Mean),12}{Milliseconds(d.P50),12}{Milliseconds(d.P90),12}{Milliseconds(d.P99),12}{Milliseconds(d.Max),12}");

        static string Milliseconds(double value) => Number("#,0.00", value);
    }

    private static ServingOutput Output(string model, string verb, Model loaded, Engine engine, ServingPlan plan, ServingRun run, ServingReport r)
    {
        DeviceInfo device = loaded.DeviceInfo;
        WorkloadOptions w = plan.Workload;
        return new ServingOutput(
            model, verb, w.Requests, r.Completed, run.Cancelled, plan.WarmUp, w.Rate, plan.Lengths, w.SharedPrefix, w.Seed, r.Seconds,
            r.PromptTokens, r.CachedPromptTokens, r.GeneratedTokens, r.OutputTokensPerSecond, r.TotalTokensPerSecond, r.RequestsPerSecond,
            plan.TtftBound, plan.TpotBound, r.Good, r.Goodput, r.TimeToFirstToken, r.TimePerOutputToken, r.InterTokenLatency, r.EndToEnd, r.Queue,
            r.PrefixHitRate, r.Preemptions, r.Steps, r.KeysRead, r.KeysSaved,
            plan.Preset, plan.Policy, plan.Engine.MaxSequences, plan.Engine.TokenBudget, engine.Statistics.Pages, plan.Engine.PrefixCaching, plan.Engine.Cascade,
            device.Backend.ToString().ToLowerInvariant(), device.Name, ModelArguments.IsaName(device.Isa), device.Threads, BenchCommand.Commit);
    }

    private static string Number(string format, double value) => value.ToString(format, CultureInfo.InvariantCulture);
}
