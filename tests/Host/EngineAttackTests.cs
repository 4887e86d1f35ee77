using System.Diagnostics;
using System.Diagnostics.Metrics;
using Sluice.Interop;

namespace Sluice.Tests.Host;

/// <summary>What a hostile caller, listener or moment could do to an engine: every request ends, ends as itself, and takes nobody with it.</summary>
public sealed class EngineAttackTests : IAsyncLifetime
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60); // what has not ended by then never will
    private Model _model = null!;

    public async ValueTask InitializeAsync() => _model = await Model.LoadAsync(
        SharedData.PathOf("models", "stories260K", "stories260K-f32.gguf"), new ModelOptions { Device = Backend.Cpu, Threads = 1, ContextLength = 512 });

    public ValueTask DisposeAsync()
    {
        _model.Dispose();
        return default;
    }

    [Fact]
    public async Task A_fork_of_one_whose_prompt_is_still_scored_harms_nobody()
    {
        await using Engine engine = _model.CreateEngine(new EngineOptions { TokenBudget = 4, MaxSequences = 4, ChunkSize = 4, PrefixCaching = false });
        SamplingParameters p = new() { MaxTokens = 5, IgnoreEndOfSequence = true };
        Generation beside = engine.Start(Prompt(8), p with { MaxTokens = 100 });
        Generation parent = engine.Start(Prompt(120), p, new RequestOptions { PromptLogProbs = true });
        await UntilAsync(() => engine.Statistics.Steps > 8);
        Generation fork = parent.Fork(p);
        Assert.Equal(5, await fork.CountAsync(Now));
        Assert.Equal(5, await parent.CountAsync(Now));
        Assert.Equal(100, await beside.CountAsync(Now));
        using Session session = _model.CreateSession();
        Assert.Equal(session.Score(Prompt(120), Now), parent.PromptLogProbs);
    }

    [Fact]
    public async Task What_a_caller_changes_after_the_start_changes_nothing()
    {
        Dictionary<int, float> bias = new() { [300] = 2 };
        List<string> stops = ["no such text"];
        SamplingParameters p = new() { MaxTokens = 200, IgnoreEndOfSequence = true, LogitBias = bias, Stop = stops };
        await using Engine engine = _model.CreateEngine();
        List<GeneratedToken> expected = await engine.GenerateAsync(Prompt(12), p with { LogitBias = new Dictionary<int, float>(bias) }, cancellationToken: Now).ToListAsync(Now);
        Generation g = engine.Start(Prompt(12), p), beside = engine.Start(Prompt(14), new SamplingParameters { MaxTokens = 200, IgnoreEndOfSequence = true });
        for (int i = 0; i < 2_000 && !g.Completion.IsCompleted; i++)
        {
            bias[i % _model.Config.VocabularySize] = -1;
            bias[1_000_000 + i] = 1; // no such token
            stops.Add($"s{i}");
            if (i % 100 == 0)
            {
                await Task.Delay(1, Now);
            }
        }

        Assert.Equal(expected.Select(t => t.Id), (await g.ToListAsync(Now)).Select(t => t.Id));
        Assert.Equal(200, await beside.CountAsync(Now));
    }

    [Fact]
    public async Task Tenants_whose_names_are_no_text_share_nothing_either()
    {
        await using Engine engine = _model.CreateEngine();
        foreach (string tenant in new[] { "\ud800", "\ud801", "\ufffd" })
        {
            Generation g = engine.Start(Prompt(70), new SamplingParameters { MaxTokens = 2 }, new RequestOptions { Tenant = tenant });
            _ = await g.ToListAsync(Now);
            Assert.Equal(0, g.CachedPromptTokens);
        }
    }

    [Fact]
    public async Task What_was_started_before_a_draining_stop_ends_by_itself()
    {
        for (int i = 0; i < 150; i++)
        {
            Engine engine = _model.CreateEngine(new EngineOptions { MaxSequences = 1, TokenBudget = 16, CacheTokens = 32 });
            Generation done = engine.Start(Prompt(3), new SamplingParameters { MaxTokens = 0 });
            for (int n = 0; n < i * 5; n++)
            {
                done.Abort(); // keeps the engine looking around
            }

            Generation g = engine.Start(Prompt(3), new SamplingParameters { MaxTokens = 2, IgnoreEndOfSequence = true });
            await engine.StopAsync(drain: true, Now);
            Assert.Equal(2, await g.CountAsync(Now));
        }
    }

    [Fact]
    public async Task The_engine_takes_nothing_of_its_makers_context_along()
    {
        using Model model = await LoadLongRopeAsync();
        AsyncLocal<string?> mine = new() { Value = "the maker's" };
        List<string?> seen = [];
        using MeterListener listener = ListenTo(model, "sluice.steps", () =>
        {
            lock (seen)
            {
                seen.Add(mine.Value);
            }
        });
        await using Engine engine = model.CreateEngine();
        mine.Value = null;
        Assert.Equal(3, await engine.GenerateAsync(Ids(5), new SamplingParameters { MaxTokens = 3, IgnoreEndOfSequence = true }, cancellationToken: Now).CountAsync(Now));
        await UntilAsync(() => seen.Count > 0);
        Assert.All(seen, Assert.Null);
    }

    [Theory]
    [InlineData("sluice.steps")]
    [InlineData("gen_ai.server.request.duration")]
    [InlineData("gen_ai.server.time_to_first_token")]
    public async Task A_listener_that_throws_ends_no_request_and_no_engine(string instrument)
    {
        using Model model = await LoadLongRopeAsync();
        int thrown = 0;
        using MeterListener listener = ListenTo(model, instrument, () =>
        {
            thrown++;
            throw new FormatException("a listener's fault");
        });
        await using Engine engine = model.CreateEngine();
        for (int i = 0; i < 3; i++)
        {
            IReadOnlyList<Generation> all = engine.Start(Ids(5), 3, new SamplingParameters { MaxTokens = 4, IgnoreEndOfSequence = true });
            foreach (Generation g in all)
            {
                Assert.Equal(4, await g.CountAsync(Now));
                await g.Completion.WaitAsync(Patience, Now);
            }
        }

        Assert.True(thrown > 0, "the listener heard of it");
    }

    [Fact]
    public async Task An_activity_listener_that_throws_ends_no_request_and_takes_no_name()
    {
        string id = Guid.NewGuid().ToString();
        AsyncLocal<bool> mine = new() { Value = true };
        using ActivityListener activities = new()
        {
            ShouldListenTo = s => s.Name == EngineMetrics.Name,
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllData,
            ActivityStarted = a => Throw(mine.Value),
            ActivityStopped = a => Throw(id.Equals(a.GetTagItem("gen_ai.response.id"))),
        };
        ActivitySource.AddActivityListener(activities);
        await using Engine engine = _model.CreateEngine();
        for (int i = 0; i < 2; i++)
        {
            Generation g = engine.Start(Prompt(5), new SamplingParameters { MaxTokens = 3, IgnoreEndOfSequence = true }, new RequestOptions { Id = id });
            mine.Value = false;
            Assert.Equal(3, await g.CountAsync(Now));
            await g.Completion.WaitAsync(Patience, Now);
        }

        static void Throw(bool really)
        {
            if (really)
            {
                throw new FormatException("a listener's fault");
            }
        }
    }

    [Fact]
    public async Task Where_keys_depend_on_the_length_a_request_gets_what_it_gets_alone()
    {
        using Model model = await LoadLongRopeAsync();
        SamplingParameters[] ways = [new() { MaxTokens = 14, IgnoreEndOfSequence = true }, new() { Temperature = 1, Seed = 3, MaxTokens = 20, IgnoreEndOfSequence = true, LogProbs = 2 }];
        EngineOptions[] engines =
        [
            new(),
            new() { TokenBudget = 5, MaxSequences = 3, ChunkSize = 3 },
            new() { TokenBudget = 16, MaxSequences = 8, CacheTokens = 96 },
            new() { TokenBudget = 16, MaxSequences = 8, CacheTokens = 96, SwapTokens = 512, PrefixCaching = false },
        ];
        foreach (EngineOptions way in engines)
        {
            await using Engine engine = model.CreateEngine(way);
            for (int round = 0; round < 2; round++)
            {
                await Task.WhenAll(Enumerable.Range(4, 26).Select(async n => AssertSame(
                    await AloneAsync(model, Ids(n), ways[n % 2]), await engine.GenerateAsync(Ids(n), ways[n % 2], cancellationToken: Now).ToListAsync(Now))));
            }
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(6)]
    public async Task Samples_that_wait_while_they_outgrow_the_first_keys_spoil_nobody_elses(int sequences)
    {
        using Model model = await LoadLongRopeAsync();
        SamplingParameters p = new() { Temperature = 1, Seed = 9, MaxTokens = 12, IgnoreEndOfSequence = true };
        await using Engine engine = model.CreateEngine(new EngineOptions { MaxSequences = sequences, TokenBudget = 24 });
        for (int round = 0; round < 6; round++)
        {
            int first = 15 + (round % 3), second = 3 + round;
            Task<List<GeneratedToken>>[] small = [.. Enumerable.Range(0, 3).Select(i => engine.GenerateAsync(Ids(second + i), p, cancellationToken: Now).ToListAsync(Now).AsTask())];
            IReadOnlyList<Generation> samples = engine.Start(Ids(first), 5, p);
            List<GeneratedToken>[] after = await Task.WhenAll(Enumerable.Range(0, 4).Select(i => engine.GenerateAsync(Ids(first - i), p, cancellationToken: Now).ToListAsync(Now).AsTask()));
            for (int i = 0; i < samples.Count; i++)
            {
                AssertSame(await AloneAsync(model, Ids(first), p with { Seed = 9 + (ulong)i }), await samples[i].ToListAsync(Now));
            }

            for (int i = 0; i < small.Length; i++)
            {
                AssertSame(await AloneAsync(model, Ids(second + i), p), await small[i]);
            }

            for (int i = 0; i < after.Length; i++)
            {
                AssertSame(await AloneAsync(model, Ids(first - i), p), after[i]);
            }
        }
    }

    [Fact]
    public async Task Where_keys_depend_on_the_length_scores_are_a_sessions_too()
    {
        using Model model = await LoadLongRopeAsync();
        using Session session = model.CreateSession();
        await using Engine engine = model.CreateEngine(new EngineOptions { TokenBudget = 8, MaxSequences = 2 });
        for (int n = 14; n < 20; n++)
        {
            float[] expected = session.Score(Ids(n), Now);
            Generation g = engine.Start(Ids(n), new SamplingParameters { MaxTokens = 1 }, new RequestOptions { PromptLogProbs = true });
            _ = await g.ToListAsync(Now);
            Assert.Equal(expected, g.PromptLogProbs);
            Assert.Equal(expected, await engine.ScoreAsync(Ids(n), cancellationToken: Now));
        }
    }

    [Theory]
    [InlineData(1, 1, 1, 512)]
    [InlineData(3, 3, 1, 50)]
    [InlineData(2, 9, 4, 100)]
    public async Task Samples_forks_and_aborts_in_any_order_end_and_are_themselves(int sequences, int budget, int chunk, int cache)
    {
        SamplingParameters p = new() { Temperature = 1, Seed = 70, MaxTokens = 10, IgnoreEndOfSequence = true, LogProbs = 1, FrequencyPenalty = 0.3f };
        List<GeneratedToken>[] alone = new List<GeneratedToken>[6];
        for (int i = 0; i < alone.Length; i++)
        {
            alone[i] = await AloneAsync(_model, Prompt(21), p with { Seed = 70 + (ulong)i });
        }

        Random random = new(sequences);
        await using Engine engine = _model.CreateEngine(new EngineOptions { MaxSequences = sequences, TokenBudget = budget, ChunkSize = chunk, CacheTokens = cache });
        for (int round = 0; round < 12; round++)
        {
            IReadOnlyList<Generation> all = engine.Start(Prompt(21), 6, p, new RequestOptions { PromptLogProbs = round % 2 == 0 });
            List<(Generation Fork, int Of)> forks = [];
            HashSet<int> aborted = [];
            for (int n = random.Next(8); n > 0; n--)
            {
                int which = random.Next(6);
                if (random.Next(2) == 0)
                {
                    all[which].Abort();
                    aborted.Add(which);
                }
                else
                {
                    forks.Add((all[which].Fork(p with { MaxTokens = 3 }), which));
                }

                if (random.Next(2) == 0)
                {
                    await Task.Delay(random.Next(6), Now);
                }
            }

            for (int i = 0; i < 6; i++)
            {
                await all[i].Completion.WaitAsync(Patience, Now);
                if (!aborted.Contains(i))
                {
                    AssertSame(alone[i], await all[i].ToListAsync(Now));
                }
            }

            foreach ((Generation fork, _) in forks)
            {
                await fork.Completion.WaitAsync(Patience, Now);
                Assert.Equal(3, await fork.CountAsync(Now));
            }
        }

        await UntilAsync(() => engine.Statistics is { Running: 0, Waiting: 0 });
        Assert.Equal(engine.Statistics.Pages, engine.Statistics.FreePages + engine.Statistics.CachedPages);
    }

    [Fact]
    public async Task Aborts_by_name_while_samples_are_being_started_leave_none_behind()
    {
        await using Engine engine = _model.CreateEngine(new EngineOptions { MaxSequences = 4, TokenBudget = 16, CacheTokens = 512, PrefixCaching = false });
        using CancellationTokenSource end = CancellationTokenSource.CreateLinkedTokenSource(Now);
        Task aborting = Task.Run(
            () =>
            {
                for (int i = 0; !end.IsCancellationRequested; i++)
                {
                    engine.Abort(i % 6 == 0 ? "s" : $"s/{i % 6}");
                }
            },
            Now);
        for (int i = 0; i < 300; i++)
        {
            IReadOnlyList<Generation> all = engine.Start(Prompt(5), 6, new SamplingParameters { MaxTokens = 2, IgnoreEndOfSequence = true }, new RequestOptions { Id = "s" });
            await Task.WhenAll(all.Select(g => g.Completion)).WaitAsync(Patience, Now);
            foreach (Generation g in all)
            {
                try
                {
                    Assert.Equal(2, await g.CountAsync(Now));
                }
                catch (OperationCanceledException)
                {
                }
            }
        }

        await end.CancelAsync();
        await aborting;
        await UntilAsync(() => engine.Statistics is { Running: 0, Waiting: 0 });
        Assert.Equal(engine.Statistics.Pages, engine.Statistics.FreePages);
    }

    [Fact]
    public async Task Starts_forks_scores_and_reads_beside_the_stop_all_end()
    {
        for (int round = 0; round < 25; round++)
        {
            Engine engine = _model.CreateEngine(new EngineOptions { MaxSequences = 2, TokenBudget = 8, CacheTokens = 128 });
            Task[] callers = [.. Enumerable.Range(0, 4).Select(n => Task.Run(async () =>
            {
                try
                {
                    while (true)
                    {
                        IReadOnlyList<Generation> all = engine.Start(Prompt(5 + n), 3, new SamplingParameters { MaxTokens = 4 });
                        Generation fork = all[n % 3].Fork();
                        Task<float[]> score = engine.ScoreAsync(Prompt(9), cancellationToken: Now);
                        await Task.WhenAll(all.Append(fork).Select(g => g.Completion)).WaitAsync(Patience, Now);
                        await score.WaitAsync(Patience, Now);
                    }
                }
                catch (Exception e) when (e is ObjectDisposedException || (e is OperationCanceledException && !Now.IsCancellationRequested))
                {
                }
            }))];
            await Task.Delay(round % 7, Now);
            await engine.StopAsync(drain: round % 2 == 0, Now).WaitAsync(Patience, Now);
            await Task.WhenAll(callers).WaitAsync(Patience, Now);
        }
    }

    [Fact]
    public async Task The_smallest_engines_and_the_largest_wishes_work_to_the_token()
    {
        SamplingParameters greedy = new() { IgnoreEndOfSequence = true };
        List<GeneratedToken> alone = await AloneAsync(_model, Prompt(7), greedy with { MaxTokens = 25 });
        await using (Engine one = _model.CreateEngine(new EngineOptions { TokenBudget = 1, MaxSequences = 1, ChunkSize = 1, CacheTokens = 17, ContextLength = 40 }))
        {
            Assert.Throws<RequestTooLargeException>(() => one.Start(Prompt(7), greedy with { MaxTokens = int.MaxValue }));
            Assert.Throws<RequestTooLargeException>(() => one.Start(Prompt(7), greedy with { MaxTokens = 26 }));
            Assert.Throws<RequestTooLargeException>(() => one.Start(Prompt(32)));
            Generation a = one.Start(Prompt(7), greedy with { MaxTokens = 25 }), b = one.Start(Prompt(7), greedy);
            Assert.Equal(31, (await one.ScoreAsync(Prompt(32), cancellationToken: Now)).Length);
            AssertSame(alone, await a.ToListAsync(Now));
            List<GeneratedToken> all = await b.ToListAsync(Now);
            Assert.Equal((25, FinishReason.ContextFull), (all.Count, all[^1].Finish));
            Assert.Single(await one.Start(Prompt(31)).ToListAsync(Now));
            Assert.Empty(await one.Start(Prompt(32), new SamplingParameters { MaxTokens = 0 }).ToListAsync(Now));
            await Assert.ThrowsAsync<RequestTooLargeException>(async () => await a.Fork(greedy with { MaxTokens = 1 }).ToListAsync(Now));
            await Assert.ThrowsAsync<RequestTooLargeException>(async () => await a.Fork(greedy with { MaxTokens = int.MaxValue }).ToListAsync(Now));
        }

        await using Engine tiny = _model.CreateEngine(new EngineOptions { CacheTokens = 1, MaxSequences = 3 });
        IReadOnlyList<Generation> three = tiny.Start(Prompt(7), 3, greedy with { MaxTokens = 9 });
        foreach (Generation g in three)
        {
            Assert.Equal(alone.Take(9).Select(t => t.Id), (await g.ToListAsync(Now)).Select(t => t.Id));
        }
    }

    [Fact]
    public async Task A_row_without_a_choice_fails_beside_any_other_and_alone()
    {
        await using Engine engine = _model.CreateEngine();
        Dictionary<int, float> nothing = Enumerable.Range(0, _model.Config.VocabularySize).ToDictionary(i => i, _ => float.NegativeInfinity);
        SamplingParameters[] ways = [new(), new() { Temperature = 1 }, new() { Temperature = 1, TopK = 5, TopP = 0.5f, MinP = 0.1f }, new() { LogProbs = 2 }];
        Task<List<GeneratedToken>> good = engine.GenerateAsync(Prompt(20), new SamplingParameters { Temperature = 1, MaxTokens = 60, IgnoreEndOfSequence = true }, cancellationToken: Now).ToListAsync(Now).AsTask();
        await Task.WhenAll(ways.Select(w => Assert.ThrowsAsync<InvalidOperationException>(
            async () => await engine.GenerateAsync(Prompt(20), w with { LogitBias = nothing }, cancellationToken: Now).ToListAsync(Now))));
        Assert.Equal(60, (await good).Count);
    }

    [Fact]
    public async Task Stop_texts_ends_and_all_ways_of_choosing_beside_each_other_are_a_sessions()
    {
        (int[] Prompt, SamplingParameters Parameters)[] requests = [.. Enumerable.Range(0, 24).Select(i => (Prompt(4 + (5 * i % 61)), new SamplingParameters
        {
            Temperature = i % 3 * 0.6f, Seed = (ulong)i, MaxTokens = 40, TopK = i % 4 * 10, TopP = i % 5 == 0 ? 0.8f : 1, RepetitionPenalty = i % 7 == 0 ? 1.2f : 1, PresencePenalty = i % 6 == 0 ? 0.5f : 0,
            LogProbs = i % 5 == 1 ? i : null, Stop = i % 2 == 0 ? ["e", "he "] : i % 3 == 0 ? ["was a", ". "] : [], LogitBias = i % 8 == 3 ? new Dictionary<int, float> { [2] = 6 } : new Dictionary<int, float>(),
        }))];
        List<GeneratedToken>[] alone = new List<GeneratedToken>[requests.Length];
        for (int i = 0; i < requests.Length; i++)
        {
            alone[i] = await AloneAsync(_model, requests[i].Prompt, requests[i].Parameters);
        }

        foreach (EngineOptions way in new EngineOptions[] { new(), new() { MaxSequences = 16, TokenBudget = 40, CacheTokens = 300, SwapTokens = 1000 }, new() { MaxSequences = 5, TokenBudget = 5, CacheTokens = 112 } })
        {
            await using Engine engine = _model.CreateEngine(way);
            await Task.WhenAll(requests.Select(async (r, i) => AssertSame(alone[i], await engine.GenerateAsync(r.Prompt, r.Parameters, cancellationToken: Now).ToListAsync(Now))));
        }
    }

    [Fact]
    public async Task Two_engines_and_a_session_on_one_model_at_once_do_not_disturb_each_other()
    {
        SamplingParameters p = new() { MaxTokens = 60, IgnoreEndOfSequence = true, Temperature = 1, Seed = 4 };
        List<GeneratedToken> alone = await AloneAsync(_model, Prompt(50), p);
        await using Engine a = _model.CreateEngine(), b = _model.CreateEngine();
        Task<List<GeneratedToken>>[] all = [.. Enumerable.Range(0, 6).Select(i => (i % 2 == 0 ? a : b).GenerateAsync(Prompt(50), p, cancellationToken: Now).ToListAsync(Now).AsTask())];
        AssertSame(alone, await AloneAsync(_model, Prompt(50), p));
        foreach (Task<List<GeneratedToken>> one in all)
        {
            AssertSame(alone, await one);
        }
    }

    [Fact]
    public async Task A_model_that_is_disposed_under_an_engine_ends_its_requests()
    {
        Model model = await LoadLongRopeAsync();
        Engine engine = model.CreateEngine(new EngineOptions { MaxSequences = 2, TokenBudget = 4, CacheTokens = 96, SwapTokens = 256 });
        List<Generation> all = [.. Enumerable.Range(0, 8).Select(i => engine.Start(Ids(10 + i), new SamplingParameters { MaxTokens = 40, IgnoreEndOfSequence = true }))];
        await UntilAsync(() => engine.Statistics.Steps > 5);
        model.Dispose();
        await Task.WhenAll(all.Select(g => g.Completion)).WaitAsync(Patience, Now);
        await engine.StopAsync(drain: true, Now).WaitAsync(Patience, Now);
    }

    [Fact]
    public async Task A_cancelled_score_names_the_token_that_cancelled_it()
    {
        await using Engine engine = _model.CreateEngine(new EngineOptions { TokenBudget = 1, MaxSequences = 1 });
        using CancellationTokenSource source = new();
        Task<float[]> score = engine.ScoreAsync(Prompt(500), cancellationToken: source.Token);
        await source.CancelAsync();
        OperationCanceledException e = await Assert.ThrowsAnyAsync<OperationCanceledException>(() => score);
        Assert.Equal(source.Token, e.CancellationToken);
    }

    [Fact]
    public async Task Engines_that_are_gone_leave_no_thread_and_no_object()
    {
        List<WeakReference> gone = [];
        for (int i = 0; i < 40; i++)
        {
            gone.Add(await MakeAndDisposeAsync());
        }

        await UntilAsync(() =>
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            return gone.Count(w => w.IsAlive) <= 1; // the last one may be in a register
        });

        async Task<WeakReference> MakeAndDisposeAsync()
        {
            Engine engine = _model.CreateEngine(new EngineOptions { MaxSequences = 2, TokenBudget = 8, CacheTokens = 64 });
            Assert.Equal(3, await engine.GenerateAsync(Prompt(5), new SamplingParameters { MaxTokens = 3, IgnoreEndOfSequence = true }, cancellationToken: Now).CountAsync(Now));
            await engine.DisposeAsync();
            return new WeakReference(engine);
        }
    }

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    private static Task<Model> LoadLongRopeAsync() => Model.LoadAsync(
        Path.Combine(AppContext.BaseDirectory, "data", "families", "phi3-longrope"), new ModelOptions { Device = Backend.Cpu, Threads = 1 });

    // Hears the instrument for engines of that model's name alone: tests run side by side.
    private static MeterListener ListenTo(Model model, string instrument, Action heard)
    {
        string name = model.Config.Name;
        MeterListener listener = new()
        {
            InstrumentPublished = (i, l) =>
            {
                if (i.Meter.Name == EngineMetrics.Name && i.Name == instrument)
                {
                    l.EnableMeasurementEvents(i);
                }
            },
        };
        listener.SetMeasurementEventCallback<long>((_, _, tags, _) => Hear(tags));
        listener.SetMeasurementEventCallback<double>((_, _, tags, _) => Hear(tags));
        listener.Start();
        return listener;

        void Hear(ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            foreach ((string key, object? value) in tags)
            {
                if (key == "gen_ai.request.model" && name.Equals(value))
                {
                    heard();
                }
            }
        }
    }

    private static async Task<List<GeneratedToken>> AloneAsync(Model model, int[] prompt, SamplingParameters parameters)
    {
        using Session session = model.CreateSession();
        return await session.GenerateAsync(prompt, parameters, Now).ToListAsync(Now);
    }

    private static async Task UntilAsync(Func<bool> holds)
    {
        for (int i = 0; !holds(); i++)
        {
            Assert.True(i < 6_000, "it never came to that");
            await Task.Delay(10, Now);
        }
    }

    // Of the small folder's 96 tokens.
    private static int[] Ids(int length)
    {
        Random random = new(5);
        return [1, .. Enumerable.Range(0, length - 1).Select(_ => random.Next(3, 96))];
    }

    private int[] Prompt(int length)
    {
        Random random = new(11);
        return [1, .. Enumerable.Range(0, length - 1).Select(_ => random.Next(3, _model.Config.VocabularySize))];
    }

    private static void AssertSame(List<GeneratedToken> expected, List<GeneratedToken> found)
    {
        Assert.Equal(expected.Select(t => t.Id), found.Select(t => t.Id));
        foreach ((GeneratedToken e, GeneratedToken f) in expected.Zip(found))
        {
            Assert.Equal((e.Text, e.LogProb, e.Finish), (f.Text, f.LogProb, f.Finish));
            Assert.Equal(e.Top, f.Top);
        }
    }
}
