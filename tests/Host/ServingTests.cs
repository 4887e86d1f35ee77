using System.Xml.Linq;
using Sluice.Decoding;
using Sluice.Interop;
using Sluice.Plotting;

namespace Sluice.Tests.Host;

/// <summary>The serving benchmark: what its numbers mean, what is drawn by a seed, and that nothing is lost between plan and report. Times are looked at nowhere.</summary>
public class ServingTests
{
    [Theory]
    [InlineData(0, 1)]
    [InlineData(25, 1.75)]
    [InlineData(50, 2.5)]
    [InlineData(90, 3.7)]
    [InlineData(99, 3.97)]
    [InlineData(100, 4)]
    public void A_percentile_lies_between_its_neighbours(double percent, double expected) => Assert.Equal(expected, Distribution.Percentile([1, 2, 3, 4], percent), 1e-12);

    [Fact]
    public void A_distribution_is_of_values_in_any_order()
    {
        Assert.Equal(new Distribution(4, 2.5, 2.5, 3.7, 3.97, 4), Distribution.Of([3, 1, 4, 2])! with { P90 = 3.7, P99 = 3.97 });
        Assert.Equal(new Distribution(1, 7, 7, 7, 7, 7), Distribution.Of([7]));
        Assert.Null(Distribution.Of([]));
        Assert.Throws<ArgumentException>(() => Distribution.Percentile([], 50));
        Assert.Throws<ArgumentException>(() => Distribution.Percentile([1], 101));
        Assert.Throws<ArgumentException>(() => Distribution.Percentile([1], double.NaN));
    }

    [Fact]
    public void Arrivals_are_those_of_a_Poisson_process()
    {
        const int Count = 20_000;
        const double Rate = 5;
        double[] arrivals = Workload.PoissonArrivals(Count, Rate, new Random(1));
        double[] gaps = [.. arrivals.Zip(arrivals.Prepend(0), (at, before) => at - before)];
        double mean = gaps.Average(), deviation = Math.Sqrt(gaps.Average(g => (g - mean) * (g - mean)));
        Assert.All(gaps, g => Assert.True(g >= 0));
        // Exponential: mean and deviation are one, and the median is that times ln 2. Five deviations of the estimates.
        Assert.Equal(1 / Rate, mean, 5 / Rate / Math.Sqrt(Count));
        Assert.Equal(1 / Rate, deviation, 10 / Rate / Math.Sqrt(Count));
        Assert.Equal(Math.Log(2) / Rate, Distribution.Of(gaps)!.P50, 5 / Rate / Math.Sqrt(Count));
        foreach (double wrong in new[] { 0, -1, double.NaN, double.PositiveInfinity })
        {
            Assert.Throws<ArgumentOutOfRangeException>(() => Workload.PoissonArrivals(1, wrong, new Random(1)));
        }
    }

    [Theory]
    [InlineData("40", LengthKind.Fixed, 40, 40, 40)]
    [InlineData("40", LengthKind.Uniform, 40, 1, 79)]
    [InlineData("40", LengthKind.Exponential, 40, 1, int.MaxValue)]
    [InlineData("10-30", LengthKind.Exponential, 20, 10, 30)]
    [InlineData("1", LengthKind.Exponential, 1, 1, 1)]
    [InlineData("1", LengthKind.Uniform, 1, 1, 1)]
    [InlineData("7-7", LengthKind.Fixed, 7, 7, 7)]
    public void Lengths_have_their_mean_and_range(string text, LengthKind kind, double mean, int least, int most)
    {
        const int Count = 20_000;
        Assert.True(TokenLengths.TryParse(text, kind, out TokenLengths lengths));
        Random random = new(2);
        int[] drawn = [.. Enumerable.Range(0, Count).Select(_ => lengths.Draw(random))];
        Assert.All(drawn, d => Assert.InRange(d, least, most));
        Assert.Equal(mean, lengths.Mean);
        Assert.Equal(mean, drawn.Average(), 5 * mean / Math.Sqrt(Count));
        if (most - least is > 0 and < 1_000)
        {
            Assert.Equal((least, most), (drawn.Min(), drawn.Max()));
        }
    }

    [Theory]
    [InlineData("")]
    [InlineData("0")]
    [InlineData("-5")]
    [InlineData("5-")]
    [InlineData("5-4")]
    [InlineData("0-4")]
    [InlineData("1-2-3")]
    [InlineData("many")]
    [InlineData("4.5")]
    [InlineData("99999999999")]
    public void What_is_no_length_is_not_read(string text) => Assert.False(TokenLengths.TryParse(text, LengthKind.Fixed, out _));

    [Fact]
    public void A_seed_gives_the_same_requests_and_another_one_others()
    {
        WorkloadOptions options = new() { Requests = 50, PromptTokens = TokenLengths.Around(30, LengthKind.Exponential), GeneratedTokens = TokenLengths.Between(2, 9), SharedPrefix = 10, Rate = 3, Seed = 4 };
        Assert.Equal(Words(Workload.Plan(options, 100)), Words(Workload.Plan(options, 100)));
        Assert.NotEqual(Words(Workload.Plan(options, 100)), Words(Workload.Plan(options with { Seed = 5 }, 100)));

        IReadOnlyList<PlannedRequest> plan = Workload.Plan(options, 100), other = Workload.Plan(options with { PromptTokens = TokenLengths.Around(5, LengthKind.Fixed) }, 100);
        Assert.Equal(plan.Select(r => (r.Arrival, r.GeneratedTokens)), other.Select(r => (r.Arrival, r.GeneratedTokens)));
        Assert.All(plan, r => Assert.Equal(plan[0].Prompt[..10].ToArray(), r.Prompt[..10].ToArray()));
        Assert.All(other, r => Assert.Equal(15, r.Prompt.Length));
        Assert.All(plan.SelectMany(r => r.Prompt.ToArray()), id => Assert.InRange(id, 0, 99));
        Assert.True(plan.Select(r => string.Join(' ', r.Prompt[10..].ToArray())).Distinct().Count() > 45);
        Assert.All(Workload.Plan(options with { Rate = null }, 100), r => Assert.Equal(0, r.Arrival));

        static string Words(IReadOnlyList<PlannedRequest> plan) => string.Join('\n', plan.Select(r => $"{r.Arrival:R} {r.GeneratedTokens} {string.Join(' ', r.Prompt.ToArray())}"));
    }

    [Fact]
    public void Times_count_from_the_planned_arrival()
    {
        // Due at 1 s and sent at 1.5 s; tokens at 2, 2.1 and 2.4 s.
        RequestTimeline late = Timeline(1, 1.5, [2, 2.1, 2.4], complete: true);
        Assert.Equal((1, 1.4), (late.TimeToFirstToken!.Value, late.EndToEnd!.Value));
        Assert.Equal(0.2, late.TimePerOutputToken!.Value, 1e-12);
        Assert.Equal(2, late.InterTokenLatencies.Count());

        RequestTimeline one = Timeline(0, 0, [0.5], complete: true), half = Timeline(2, 2, [2.5, 2.75], complete: false), never = Timeline(9, null, [], complete: false);
        ServingReport report = Report(1_000, 200, late, one, half, never);
        Assert.Equal((2, 2, 6L, 30L), (report.Completed, report.Good!.Value, report.GeneratedTokens, report.PromptTokens));
        Assert.Equal((3, 2, 3, 2), (report.TimeToFirstToken!.Count, report.TimePerOutputToken!.Count, report.InterTokenLatency!.Count, report.EndToEnd!.Count));
        Assert.Equal((1.5, 9, 0.5, 0.5), (report.OutputTokensPerSecond, report.TotalTokensPerSecond, report.RequestsPerSecond, report.Goodput!.Value));
        Assert.Equal(1, Report(999, null, late, one).Good);
        Assert.Equal(1, Report(null, 199, late, one).Good);
        Assert.Null(Report(null, null, late, one).Goodput);
    }

    [Fact]
    public void Any_run_can_be_drawn()
    {
        RequestTimeline[] none = [Timeline(0, null, [], complete: false)], some = [Timeline(0, 0, [0.5, 0.5, 0.75], complete: true), Timeline(0.1, 0.2, [0.9], complete: false), .. none];
        foreach (RequestTimeline[] requests in new[] { none, some })
        {
            XElement picture = XElement.Parse(ServingPlots.Draw(new ServingRun(requests == none ? 0 : 1, requests, default, default, Cancelled: true), "A<B>", "C & D", "\u0001"));
            XElement[] curves = [.. picture.Elements().Where(e => e.Name.LocalName == "polyline")];
            Assert.Equal(requests == none ? 3 : 7, curves.Length);
            Assert.All(curves.SelectMany(c => ((string)c.Attribute("points")!).Split(' ', ',')), n => Assert.InRange(double.Parse(n, System.Globalization.CultureInfo.InvariantCulture), 0, 1_100));
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Every_request_comes_whole_and_the_engine_counts_the_same(bool oneByOne)
    {
        using Model model = await LoadAsync();
        await using Engine engine = model.CreateEngine(new EngineOptions { MaxSequences = 4, TokenBudget = 64 });
        WorkloadOptions options = new() { Requests = 9, PromptTokens = TokenLengths.Between(5, 60), GeneratedTokens = TokenLengths.Between(1, 12), SharedPrefix = 40, Rate = oneByOne ? null : 2_000 };
        for (int seed = 0; seed < 2; seed++)
        {
            IReadOnlyList<PlannedRequest> plan = Workload.Plan(options with { Seed = seed }, model.Config.VocabularySize);
            ServingRun run = await ServingBenchmark.RunAsync(engine, plan, oneByOne, cancellationToken: Now);
            Assert.False(run.Cancelled);
            Assert.Equal(plan.Select(p => (p.GeneratedTokens, p.Prompt.Length, true)), run.Requests.Select(r => (r.TokenTimes.Count, r.PromptTokens, r.IsComplete)));
            Assert.Equal(plan.Sum(p => p.GeneratedTokens), run.After.GeneratedTokens - run.Before.GeneratedTokens);
            Assert.Equal(plan.Sum(p => p.Prompt.Length), run.After.PromptTokens - run.Before.PromptTokens);
            Assert.Equal((0, 0), (run.After.Running, run.After.Waiting));
            Assert.True(run.Requests.Sum(r => r.CachedPromptTokens) > 0);
            Assert.All(run.Requests, r => Assert.True(r.Arrival <= r.Sent && r.Queue <= r.TimeToFirstToken && r.TimeToFirstToken <= r.EndToEnd && r.InterTokenLatencies.All(s => s >= 0)));
            Assert.Equal(!oneByOne, run.Requests.Zip(run.Requests.Skip(1)).Any(p => p.Second.Arrival < p.First.TokenTimes[^1]));
        }
    }

    [Fact]
    public async Task A_cancelled_run_keeps_what_it_has()
    {
        using Model model = await LoadAsync();
        await using Engine engine = model.CreateEngine(new EngineOptions { MaxSequences = 4 });
        // The last one is due when nobody lives any more.
        PlannedRequest[] plan = [.. Workload.Plan(new WorkloadOptions { Requests = 4, PromptTokens = TokenLengths.Around(8, LengthKind.Fixed), GeneratedTokens = TokenLengths.Around(3, LengthKind.Fixed) }, model.Config.VocabularySize)];
        plan[^1] = plan[^1] with { Arrival = 1e6 };
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Now);
        ServingRun run = await ServingBenchmark.RunAsync(engine, plan, progress: new Reported(p => { if (p.Done == 3) { stop.Cancel(); } }), cancellationToken: stop.Token);
        Assert.True(run.Cancelled);
        Assert.Equal([true, true, true, false], run.Requests.Select(r => r.IsComplete));
        Assert.Null(run.Requests[^1].Sent);
        Assert.Equal((3, 9L), (new ServingReport(run).Completed, new ServingReport(run).GeneratedTokens));
    }

    [Fact]
    public async Task A_request_that_could_never_run_is_told_before_any_does()
    {
        using Model model = await LoadAsync();
        await using Engine engine = model.CreateEngine(new EngineOptions { CacheTokens = 100 });
        PlannedRequest[] plan = [new(0, new int[20], 5), new(0, new int[100], 13)];
        ArgumentException error = await Assert.ThrowsAsync<ArgumentException>(() => ServingBenchmark.RunAsync(engine, plan, cancellationToken: Now));
        Assert.Contains("request 2 has 100 prompt tokens and 13 to generate, and the engine holds 112", error.Message, StringComparison.Ordinal);
        Assert.Equal(0, engine.Statistics.PromptTokens);
        await engine.StopAsync(drain: true, Now);
        await Assert.ThrowsAsync<ObjectDisposedException>(() => ServingBenchmark.RunAsync(engine, plan[..1], cancellationToken: Now));
    }

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    private static Task<Model> LoadAsync() => Model.LoadAsync(Path.Combine(AppContext.BaseDirectory, "models", "tales"), new ModelOptions { Device = Backend.Cpu, Threads = 2, ContextLength = 512 }, cancellationToken: Now);

    private static RequestTimeline Timeline(double arrival, double? sent, double[] tokens, bool complete)
    {
        RequestTimeline timeline = new(new PlannedRequest(arrival, new int[10], 3)) { Sent = sent, IsComplete = complete };
        Array.ForEach(tokens, timeline.AddToken);
        return timeline;
    }

    private static ServingReport Report(double? ttft, double? tpot, params RequestTimeline[] requests) => new(new ServingRun(4, requests, default, default, Cancelled: false), ttft, tpot);

    private sealed class Reported(Action<ServingProgress> told) : IProgress<ServingProgress>
    {
        public void Report(ServingProgress value) => told(value);
    }
}
