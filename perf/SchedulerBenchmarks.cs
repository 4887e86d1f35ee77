using BenchmarkDotNet.Attributes;
using Sluice.Interop;
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
    private Device _device = null!;
    private ComputeStream _stream = null!;
    private KvCache _cache = null!;
    private Batch _batch = null!;

    /// <summary>Whether all begin with the same 768 tokens.</summary>
    [Params(false, true)]
    public bool Shared { get; set; }

    /// <summary>Whether the plan is also checked and copied by the native side, as in every step of an engine.</summary>
    [Params(false, true)]
    public bool Native { get; set; }

    [GlobalSetup]
    public void Open()
    {
        _device = Device.Open(new DeviceOptions(Backend.Cpu) { Threads = 1 });
        _stream = _device.CreateStream();
        _cache = new KvCache(_stream, new KvCacheOptions(DType.F16, 1, Sequences * 80, 1, 16, 16, PageSize));
        _batch = new Batch(_stream, _cache, new BatchOptions(Sequences, Sequences, Sequences * 80, MaxPrefixes: Sequences) { QueryHeads = 7 });
    }

    [GlobalCleanup]
    public void Close()
    {
        _batch.Dispose();
        _cache.Dispose();
        _stream.Dispose();
        _device.Dispose();
    }

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
            Step(native: false);
        }

        for (int i = 0; i < 16; i++)
        {
            Step(Native);
        }
    }

    [Benchmark(Description = "schedule and plan", OperationsPerInvoke = Steps)]
    public void Decode()
    {
        for (int i = 0; i < Steps; i++)
        {
            Step(Native);
        }
    }

    // With what the engine tells it between two steps: the tokens that came.
    private void Step(bool native)
    {
        StepPlan plan = _scheduler.Schedule();
        if (native)
        {
            _batch.Update(_stream, plan.ToBatchStep());
        }

        _scheduler.Commit();
        foreach (int b in plan.RowSequences)
        {
            plan.Sequences[b].Append(b);
        }
    }
}
