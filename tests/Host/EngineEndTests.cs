using Sluice.Interop;

namespace Sluice.Tests.Host;

/// <summary>However an engine or a request ends, and whenever: everybody is told.</summary>
public sealed class EngineEndTests : IAsyncLifetime
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30); // who has not been told by then never will be
    private readonly int[] _prompt = [1, .. Enumerable.Range(40, 60)];
    private Model _model = null!;

    public async ValueTask InitializeAsync() => _model = await Model.LoadAsync(
        SharedData.PathOf("models", "stories260K", "stories260K-f32.gguf"), new ModelOptions { Device = Backend.Cpu, Threads = 2, ContextLength = 512 });

    public ValueTask DisposeAsync()
    {
        _model.Dispose();
        return default;
    }

    [Fact]
    public async Task Samples_that_wait_for_their_first_end_with_an_aborted_engine()
    {
        Engine engine = _model.CreateEngine(new EngineOptions { MaxSequences = 1, TokenBudget = 8, ChunkSize = 8 });
        IReadOnlyList<Generation> samples = engine.Start(_prompt, 3, new SamplingParameters { MaxTokens = 200, IgnoreEndOfSequence = true });
        while (engine.Statistics is { Running: 0, Waiting: 0 })
        {
            await Task.Delay(1, Now);
        }

        await engine.StopAsync(drain: false, Now);
        await Task.WhenAll(samples.Select(s => s.Completion)).WaitAsync(Patience, Now);
        foreach (Generation sample in samples)
        {
            await Assert.ThrowsAnyAsync<OperationCanceledException>(async () => await sample.ToListAsync(Now));
        }

        Assert.Equal((0, 0), (engine.Statistics.Running, engine.Statistics.Waiting));
    }

    [Fact]
    public async Task What_was_asked_for_before_a_drain_ends_by_itself()
    {
        for (int i = 0; i < 150; i++)
        {
            Engine engine = _model.CreateEngine(new EngineOptions { MaxSequences = 2, TokenBudget = 8, CacheTokens = 128 });
            Generation before = engine.Start(_prompt.AsMemory(0, 2), new SamplingParameters { MaxTokens = 1 });
            await before.Completion.WaitAsync(Patience, Now);
            using CancellationTokenSource over = new();
            Task waking = Task.Run(
                () =>
                {
                    while (!over.IsCancellationRequested)
                    {
                        before.Abort(); // the engine looks around, and finds nothing to do
                    }
                },
                Now);
            await Task.Delay(1, Now);
            Generation last = engine.Start(_prompt.AsMemory(0, 3), new SamplingParameters { MaxTokens = 1, IgnoreEndOfSequence = true });
            await engine.StopAsync(drain: true, Now);
            await over.CancelAsync();
            await waking;
            Assert.Single(await last.ToListAsync(Now).AsTask().WaitAsync(Patience, Now));
        }
    }

    [Fact]
    public async Task Names_may_be_aborted_while_their_samples_are_still_being_entered()
    {
        const int Samples = 200;
        await using Engine engine = _model.CreateEngine(new EngineOptions { MaxSequences = 4, TokenBudget = 32, CacheTokens = 512 });
        using CancellationTokenSource over = new();
        Task aborting = Task.Run(
            () =>
            {
                for (int i = 0; !over.IsCancellationRequested; i = (i + 1) % Samples)
                {
                    engine.Abort($"a/{i}");
                    engine.Abort("a");
                }
            },
            Now);
        for (int round = 0; round < 50; round++)
        {
            IReadOnlyList<Generation> samples = engine.Start(_prompt.AsMemory(0, 4), Samples, new SamplingParameters { MaxTokens = 1 }, new RequestOptions { Id = "a" });
            await Task.WhenAll(samples.Select(s => s.Completion)).WaitAsync(Patience, Now);
        }

        await over.CancelAsync();
        await aborting;
    }

    private static CancellationToken Now => TestContext.Current.CancellationToken;
}
