using BenchmarkDotNet.Attributes;
using Sluice.Paging;
using Sluice.Scheduling;

namespace Sluice.Perf;

/// <summary>What a decode step costs the scheduler: 256 sequences of some 1,000 tokens each, whose phases within a page differ.</summary>
[MemoryDiagnoser, WarmupCount(40), IterationCount(40)] // an iteration is one call: the first ones are the compiler's
public class SchedulerBenchmarks
{
    // Sequences grow by a token a step, so each iteration begins at 1,000 again.
    private const int Sequences = 256, Length = 1000, Steps = 128, PageSize = 16;

    private Scheduler _scheduler = null!;

    /// <summary>Whether all begin with the same 768 tokens.</summary>
    [Params(false, true)]
    public bool Shared { get; set; }

    [IterationSetup]
    public void Setup()
    {
        BlockPool pool = new(Sequences * 80, PageSize);
        _scheduler = new Scheduler(pool, SchedulerOptions.Throughput with { MaxSequences = Sequences, TokenBudget = 8192 });
        Random random = new(1);
        int[] prompt = [.. Enumerable.Range(0, Length)];
        for (int i = 0; i < Sequences; i++)
        {
            prompt[Shared ? 768 : 0] = -i;
            _scheduler.Add(new Sequence(i, prompt.AsSpan(0, Length - random.Next(32)), Length + 4 * Steps));
        }

        while (_scheduler.WaitingCount > 0 || _scheduler.Running.Any(static s => s.Length - s.Computed > 1))
        {
            Step();
        }

        for (int i = 0; i < 16; i++)
        {
            Step();
        }
    }

    [Benchmark(Description = "schedule and plan", OperationsPerInvoke = Steps)]
    public void Decode()
    {
        for (int i = 0; i < Steps; i++)
        {
            Step();
        }
    }

    // With what the engine tells it between two steps: the tokens that came.
    private void Step()
    {
        StepPlan plan = _scheduler.Schedule();
        _scheduler.Commit();
        foreach (int b in plan.RowSequences)
        {
            plan.Sequences[b].Append(b);
        }
    }
}
