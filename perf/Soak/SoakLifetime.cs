using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Sluice.Perf.Soak;

/// <summary>How an engine ends.</summary>
internal enum SoakEnd
{
    /// <summary>When nobody asks for anything any more.</summary>
    Idle,

    /// <summary>Under load, by letting requests end.</summary>
    Drain,

    /// <summary>Under load, by aborting them.</summary>
    Abort,
}

/// <summary>One engine from its beginning to its end, with a cache so small that those who run have to make room for each other all the time.</summary>
internal sealed class SoakLifetime(Model model, SoakReport report, int seed)
{
    private const int Cases = 12, Clients = 12, MostPrompt = 200, MostTokens = 48;

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(120); // who has not ended by then never will

    private readonly ConditionalWeakTable<object, object> _seen = [];
    private readonly Random _random = new(seed);

    /// <summary>Objects of the engine that nothing should hold any more: it and its requests.</summary>
    public IEnumerable<object> Alive => _seen.Select(pair => pair.Key);

    /// <summary>How it was opened.</summary>
    public EngineOptions Options { get; private set; } = new();

    /// <summary>Runs it. False: it hangs, so it must not be waited for.</summary>
    public async Task<bool> RunAsync(TimeSpan length, SoakEnd end)
    {
        int longest = MostPrompt + ((SoakLoad.MostForks + 1) * MostTokens), sequences = _random.Next(3, 17);
        Options = new EngineOptions
        {
            MaxSequences = sequences,
            TokenBudget = sequences + _random.Next(8, 120),
            ChunkSize = _random.Next(4, 96),
            CacheTokens = longest + _random.Next(longest),
            SwapTokens = _random.Next(2) * _random.Next(longest),
            Policy = (SchedulingPolicy)_random.Next(3),
            PrefixCaching = _random.Next(4) > 0,
            Cascade = _random.Next(4) > 0,
        };
        SoakCase[] cases = await SoakCase.MakeAsync(model, _random, Cases, MostPrompt, MostTokens);
        Engine engine = model.CreateEngine(Options);
        Watch(engine);
        for (int i = 0; i < cases.Length; i++)
        {
            cases[i] = await cases[i].EmbeddedAsync(engine);
        }

        SoakLoad load = new(engine, cases, report, Watch);
        using CancellationTokenSource enough = new();
        Task clients = Task.WhenAll(Enumerable.Range(0, Clients).Select(_ => _random.Next()).ToArray().Select(s => Task.Run(() => load.RunAsync(s, enough.Token))));
        await Task.WhenAny(clients, Task.Delay(length));
        if (end == SoakEnd.Idle)
        {
            await enough.CancelAsync();
            if (!await EndsAsync(clients, "requests", engine))
            {
                return false;
            }

            for (long start = Stopwatch.GetTimestamp(); engine.Statistics is { Running: > 0 } or { Waiting: > 0 } && Stopwatch.GetElapsedTime(start) < Patience;)
            {
                await Task.Delay(1); // tokens are read before the engine has looked around again
            }

            Check(engine, "when all had ended");
        }

        load.Stopping();
        if (!await EndsAsync(engine.StopAsync(drain: end == SoakEnd.Drain), "the engine", engine) || !await EndsAsync(clients, "requests of a stopped engine", engine))
        {
            return false;
        }

        Check(engine, $"when it was stopped ({end})");
        report.Add(engine.Statistics);
        return true;
    }

    private void Check(Engine engine, string when)
    {
        EngineStatistics s = engine.Statistics;
        if (s.Running + s.Waiting > 0 || s.FreePages + s.CachedPages != s.Pages)
        {
            report.Fail($"{when}: {s.Running:N0} requests run and {s.Waiting:N0} wait; of {s.Pages:N0} pages {s.FreePages:N0} are free and {s.CachedPages:N0} cached; {this}");
        }
    }

    private async Task<bool> EndsAsync(Task task, string what, Engine engine)
    {
        try
        {
            await task.WaitAsync(Patience);
            return true;
        }
        catch (TimeoutException)
        {
            report.Fail($"{what} did not end within {Patience.TotalSeconds:0} s: {engine.Statistics}; {this}");
            return false;
        }
    }

    private void Watch(object watched) => _seen.Add(watched, watched.GetType());

    public override string ToString() => $"seed {seed}, {Options}";
}
