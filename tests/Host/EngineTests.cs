using System.Diagnostics;
using System.Diagnostics.Metrics;
using Sluice.Interop;
using Sluice.Tests.Golden;

namespace Sluice.Tests.Host;

/// <summary>Many requests on one real small model: each gets what it gets alone, whatever runs beside it, and nothing stays behind.</summary>
public sealed class EngineTests : IAsyncLifetime
{
    private const string Path = "stories260K-f32.gguf";
    private Model _model = null!;

    public async ValueTask InitializeAsync() => _model = await LoadAsync(Backend.Cpu);

    public ValueTask DisposeAsync()
    {
        _model.Dispose();
        return default;
    }

    [Fact]
    public async Task Each_request_gets_alone_and_in_any_batch_the_same_tokens_and_log_probabilities()
    {
        (int[] Prompt, SamplingParameters Parameters)[] requests = Mixed(12);
        List<GeneratedToken>[] alone = new List<GeneratedToken>[requests.Length];
        using (Session session = _model.CreateSession())
        {
            for (int i = 0; i < requests.Length; i++)
            {
                alone[i] = await session.GenerateAsync(requests[i].Prompt, requests[i].Parameters, Now).ToListAsync(Now);
                session.Forget();
            }
        }

        EngineOptions[] ways =
        [
            new(),
            new() { TokenBudget = 12, MaxSequences = 12, ChunkSize = 7 },
            new() { TokenBudget = 9, MaxSequences = 3, ChunkSize = 5, PrefixCaching = false },
            new() { TokenBudget = 64, MaxSequences = 12, ChunkSize = 32, CacheTokens = 160, Policy = SchedulingPolicy.LongestPrefixFirst },
            new() { TokenBudget = 64, MaxSequences = 12, CacheTokens = 160, SwapTokens = 480, Policy = SchedulingPolicy.Priority },
        ];
        foreach (EngineOptions way in ways)
        {
            await using Engine engine = _model.CreateEngine(way);
            List<GeneratedToken>[] together = await Task.WhenAll(requests.Select((r, i) => Task.Run(
                async () => await engine.GenerateAsync(r.Prompt, r.Parameters, new RequestOptions { Priority = i % 3 }, Now).ToListAsync(Now))));
            for (int i = 0; i < requests.Length; i++)
            {
                AssertSame(alone[i], together[i]);
            }

            EngineStatistics s = await SettledAsync(engine);
            Assert.Equal((0, 0, s.Pages), (s.Running, s.Waiting, s.FreePages + s.CachedPages));
            Assert.Equal(alone.Sum(a => a.Count), s.GeneratedTokens);
            if (way.CacheTokens is not null)
            {
                Assert.True(s.Preemptions > 0, "a cache so small must make somebody give way");
            }
        }
    }

    [Theory]
    [InlineData(Backend.Reference, 3)]
    [InlineData(Backend.Simt, 2)]
    public async Task Other_backends_run_a_batch_too(Backend backend, int count)
    {
        using Model model = await LoadAsync(backend, invariant: true);
        (int[] Prompt, SamplingParameters Parameters)[] requests = [.. Mixed(count).Select(r => (r.Prompt[..Math.Min(20, r.Prompt.Length)], r.Parameters with { MaxTokens = 4 }))];
        await using Engine engine = model.CreateEngine(new EngineOptions { TokenBudget = 16, MaxSequences = 4, CacheTokens = 256 });
        List<GeneratedToken>[] together = await Task.WhenAll(requests.Select(r => engine.GenerateAsync(r.Prompt, r.Parameters, cancellationToken: Now).ToListAsync(Now).AsTask()));
        using Session session = model.CreateSession();
        for (int i = 0; i < count; i++)
        {
            List<GeneratedToken> alone = await session.GenerateAsync(requests[i].Prompt, requests[i].Parameters, Now).ToListAsync(Now);
            Assert.Equal(alone.Select(t => t.Id), together[i].Select(t => t.Id));
            session.Forget();
        }
    }

    [Fact]
    public async Task Samples_of_one_prompt_compute_it_once_and_are_those_of_their_seeds()
    {
        int[] prompt = Prompt(41);
        SamplingParameters p = new() { Temperature = 1, Seed = 5, MaxTokens = 12 };
        await using Engine engine = _model.CreateEngine(new EngineOptions { PrefixCaching = false });
        IReadOnlyList<Generation> samples = engine.Start(prompt, 6, p, new RequestOptions { Id = "six" });
        List<GeneratedToken>[] texts = await Task.WhenAll(samples.Select(s => s.ToListAsync(Now).AsTask()));
        await Task.WhenAll(samples.Select(s => s.Completion));
        Assert.Equal(["six", "six/1", "six/2", "six/3", "six/4", "six/5"], samples.Select(s => s.Id));
        Assert.Equal([0, 41, 41, 41, 41, 41], samples.Select(s => s.CachedPromptTokens));
        for (int i = 0; i < samples.Count; i++)
        {
            AssertSame(await engine.GenerateAsync(prompt, p with { Seed = 5 + (ulong)i }, cancellationToken: Now).ToListAsync(Now), texts[i]);
        }

        Assert.True(texts.Select(t => string.Concat(t.Select(x => x.Id))).Distinct().Count() > 3, "samples differ");
    }

    [Fact]
    public async Task More_samples_than_may_run_at_once_all_come_and_an_aborted_first_one_takes_none_with_it()
    {
        SamplingParameters p = new() { Temperature = 1, Seed = 50, MaxTokens = 6, IgnoreEndOfSequence = true };
        await using Engine engine = _model.CreateEngine(new EngineOptions { MaxSequences = 2, TokenBudget = 4, CacheTokens = 96 });
        IReadOnlyList<Generation> samples = engine.Start(Prompt(30), 5, p);
        samples[0].Abort();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () => await samples[0].ToListAsync(Now));
        for (int i = 1; i < samples.Count; i++)
        {
            List<GeneratedToken> got = await samples[i].ToListAsync(Now);
            AssertSame(await engine.GenerateAsync(Prompt(30), p with { Seed = 50 + (ulong)i }, cancellationToken: Now).ToListAsync(Now), got);
        }
    }

    [Fact]
    public async Task A_fork_goes_on_from_its_parent_whether_that_runs_or_has_ended()
    {
        await using Engine engine = _model.CreateEngine();
        SamplingParameters greedy = new() { MaxTokens = 20, IgnoreEndOfSequence = true };
        Generation parent = engine.Start(Prompt(25), greedy);
        List<int> ids = [];
        Generation running = null!;
        await foreach (GeneratedToken token in parent.WithCancellation(Now))
        {
            ids.Add(token.Id);
            if (ids.Count == 5)
            {
                running = parent.Fork(greedy with { MaxTokens = 4 }, "fork");
            }
        }

        int[] whole = [.. Prompt(25), .. ids];
        List<GeneratedToken> forked = await running.ToListAsync(Now), later = await parent.Fork(greedy with { MaxTokens = 7 }).ToListAsync(Now);
        Assert.Equal(4, forked.Count);
        // Where the engine was when it came to the fork is its own affair; what follows from there is not.
        int start = running.PromptTokens - 25;
        Assert.InRange(start, 1, 20);
        int[] expected = [.. (await engine.GenerateAsync(whole.AsMemory(0, 25 + start), greedy with { MaxTokens = 4 }, cancellationToken: Now).ToListAsync(Now)).Select(t => t.Id)];
        Assert.Equal(expected, forked.Select(t => t.Id));
        expected = [.. (await engine.GenerateAsync(whole, greedy with { MaxTokens = 7 }, cancellationToken: Now).ToListAsync(Now)).Select(t => t.Id)];
        Assert.Equal(expected, later.Select(t => t.Id));
        EngineStatistics s = await SettledAsync(engine);
        Assert.Equal(s.Pages, s.FreePages + s.CachedPages);
    }

    [Fact]
    public async Task Scores_of_a_text_are_a_sessions_to_the_bit_beside_generation_and_with_prompt_log_probabilities()
    {
        int[] text = Prompt(100);
        float[] expected;
        using (Session session = _model.CreateSession())
        {
            expected = session.Score(text, Now);
        }

        await using Engine engine = _model.CreateEngine(new EngineOptions { TokenBudget = 24, MaxSequences = 8 });
        Generation beside = engine.Start(Prompt(60), new SamplingParameters { MaxTokens = 40, IgnoreEndOfSequence = true });
        Generation with = engine.Start(text, new SamplingParameters { MaxTokens = 2 }, new RequestOptions { PromptLogProbs = true });
        Task<float[]> first = engine.ScoreAsync(text, cancellationToken: Now), second = engine.ScoreAsync(text, cancellationToken: Now);
        Assert.Equal(expected, await first);
        Assert.Equal(expected, await second);
        _ = await with.ToListAsync(Now);
        Assert.Equal(expected, with.PromptLogProbs);
        Assert.Equal(40, await beside.CountAsync(Now));
        Assert.Empty(await engine.ScoreAsync(text.AsMemory(0, 1), cancellationToken: Now));
    }

    [Fact]
    public async Task An_embedding_is_the_state_whose_product_with_the_head_gives_the_logits()
    {
        int[] text = Prompt(37);
        await using Engine engine = _model.CreateEngine(new EngineOptions { TokenBudget = 16, MaxSequences = 4, ChunkSize = 11 });
        float[] last = await engine.EmbedAsync(text, Pooling.Last, normalize: false, cancellationToken: Now);
        float[] unit = await engine.EmbedAsync(text, Pooling.Last, cancellationToken: Now), mean = await engine.EmbedAsync(text, normalize: false, cancellationToken: Now);
        int vocabulary = _model.Config.VocabularySize, hidden = _model.Config.HiddenSize;
        float[] logits, table = new float[vocabulary * hidden];
        using (Session session = _model.CreateSession())
        {
            logits = session.NextLogits(text);
        }

        using (ComputeStream stream = _model.Device.CreateStream())
        {
            Tensor rows = stream.CreateTensor<int>(DType.I32, [.. Enumerable.Range(0, vocabulary)], vocabulary), all = stream.CreateTensor(DType.F32, vocabulary, hidden);
            stream.Reserve(stream.Measure(() => stream.Embedding(rows, _model.Weights.Embedding, 1, all)));
            stream.Embedding(rows, _model.Weights.Embedding, 1, all); // this model's head is its embedding
            stream.Download(all, table.AsSpan());
            rows.Buffer!.Dispose();
            all.Buffer!.Dispose();
        }

        for (int v = 0; v < vocabulary; v++)
        {
            Assert.Equal(logits[v], Enumerable.Range(0, hidden).Sum(i => (double)last[i] * table[(v * hidden) + i]), 1e-3);
        }

        Assert.Equal(1, unit.Sum(x => (double)x * x), 1e-5);
        double[] sum = new double[hidden];
        for (int n = 1; n <= text.Length; n++)
        {
            float[] state = await engine.EmbedAsync(text.AsMemory(0, n), Pooling.Last, normalize: false, cancellationToken: Now);
            for (int i = 0; i < hidden; i++)
            {
                sum[i] += state[i] / text.Length;
            }
        }

        for (int i = 0; i < hidden; i++)
        {
            Assert.Equal(sum[i], mean[i], 1e-4);
        }
    }

    [Theory]
    [InlineData(0)] // before it has run
    [InlineData(1)] // in its first chunks
    [InlineData(60)] // when it decodes
    public async Task Ending_a_request_in_any_state_frees_its_pages(int tokensBefore)
    {
        await using Engine engine = _model.CreateEngine(new EngineOptions { TokenBudget = 8, MaxSequences = 2, ChunkSize = 8, CacheTokens = 320, PrefixCaching = false });
        SamplingParameters p = new() { MaxTokens = 100, IgnoreEndOfSequence = true };
        List<Generation> all = [.. Enumerable.Range(0, 5).Select(i => engine.Start(Prompt(90 + i), p))];
        if (tokensBefore == 1)
        {
            while (engine.Statistics.Steps < 3)
            {
                await Task.Delay(1, Now);
            }
        }
        else if (tokensBefore > 0)
        {
            await foreach (GeneratedToken token in all[0].WithCancellation(Now))
            {
                if (all[0].GeneratedTokens >= tokensBefore)
                {
                    break;
                }
            }
        }

        foreach (Generation g in all)
        {
            await g.DisposeAsync();
            await g.DisposeAsync();
        }

        EngineStatistics s = await SettledAsync(engine);
        Assert.Equal((0, 0, s.Pages), (s.Running, s.Waiting, s.FreePages));
        Assert.Equal(10, await engine.GenerateAsync(Prompt(10), p with { MaxTokens = 10 }, cancellationToken: Now).CountAsync(Now));
    }

    [Fact]
    public async Task Leaving_early_cancelling_and_aborting_by_name_end_a_request()
    {
        await using Engine engine = _model.CreateEngine(new EngineOptions { PrefixCaching = false });
        SamplingParameters p = new() { MaxTokens = 300, IgnoreEndOfSequence = true };
        await foreach (GeneratedToken token in engine.GenerateAsync(Prompt(20), p, cancellationToken: Now))
        {
            break;
        }

        using CancellationTokenSource source = CancellationTokenSource.CreateLinkedTokenSource(Now);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (GeneratedToken token in engine.GenerateAsync(Prompt(20), p, cancellationToken: source.Token))
            {
                await source.CancelAsync();
            }
        });
        Generation named = engine.Start(Prompt(20), p, new RequestOptions { Id = "mine" });
        Assert.True(engine.Abort("mine"));
        await named.Completion;
        Assert.False(engine.Abort("mine"));
        using CancellationTokenSource before = new();
        await before.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => engine.ScoreAsync(Prompt(20), cancellationToken: before.Token));
        EngineStatistics s = await SettledAsync(engine);
        Assert.Equal(s.Pages, s.FreePages);
    }

    [Fact]
    public async Task What_can_never_run_and_names_that_are_taken_are_refused_at_once()
    {
        await using Engine engine = _model.CreateEngine(new EngineOptions { CacheTokens = 64, MaxSequences = 2 });
        RequestTooLargeException large = Assert.Throws<RequestTooLargeException>(() => engine.Start(Prompt(50), new SamplingParameters { MaxTokens = 15 }));
        Assert.Equal((65, 5, 4), (large.Tokens, large.Pages, large.TotalPages));
        Assert.Throws<RequestTooLargeException>(() => engine.GenerateAsync(Prompt(120), new SamplingParameters { MaxTokens = 5_000 }));
        Assert.Throws<RequestTooLargeException>(() => { _ = engine.EmbedAsync(Prompt(70)); });
        Generation first = engine.Start(Prompt(10), new SamplingParameters { MaxTokens = 50, IgnoreEndOfSequence = true }, new RequestOptions { Id = "a" });
        Assert.Contains("'a'", Assert.Throws<ArgumentException>(() => engine.Start(Prompt(10), null, new RequestOptions { Id = "a" })).Message, StringComparison.Ordinal);
        await first.DisposeAsync();
        Assert.Equal(3, await engine.Start(Prompt(10), new SamplingParameters { MaxTokens = 3, IgnoreEndOfSequence = true }, new RequestOptions { Id = "a" }).CountAsync(Now));
        Assert.Throws<ArgumentException>(() => engine.Start(Array.Empty<int>()));
        Assert.Throws<ArgumentException>(() => engine.Start(new[] { -1 }));
        Assert.Throws<ArgumentException>(() => engine.Start(Prompt(5), new SamplingParameters { TopP = 2 }));
        Assert.Throws<ArgumentException>(() => _model.CreateEngine(new EngineOptions { TokenBudget = 1, MaxSequences = 2 }));
        Assert.Throws<ArgumentException>(() => _model.CreateEngine(new EngineOptions { ContextLength = 1 << 20 }));
        Assert.Empty(await engine.GenerateAsync(Prompt(5), new SamplingParameters { MaxTokens = 0 }, cancellationToken: Now).ToListAsync(Now));
    }

    [Fact]
    public async Task Where_no_length_is_asked_for_the_answer_ends_with_the_context()
    {
        await using Engine engine = _model.CreateEngine(new EngineOptions { ContextLength = 40 });
        List<GeneratedToken> all = await engine.GenerateAsync(Prompt(30), new SamplingParameters { IgnoreEndOfSequence = true }, cancellationToken: Now).ToListAsync(Now);
        Assert.Equal((10, FinishReason.ContextFull), (all.Count, all[^1].Finish));
    }

    [Fact]
    public async Task Disposal_drains_or_aborts_as_asked()
    {
        SamplingParameters p = new() { MaxTokens = 60, IgnoreEndOfSequence = true };
        Engine draining = _model.CreateEngine(new EngineOptions { DrainOnDispose = true, MaxSequences = 2 }), aborting = _model.CreateEngine();
        List<Generation> kept = [.. Enumerable.Range(0, 4).Select(i => draining.Start(Prompt(20 + i), p))], lost = [.. Enumerable.Range(0, 4).Select(i => aborting.Start(Prompt(20 + i), p with { MaxTokens = 400 }))];
        await draining.DisposeAsync();
        await aborting.DisposeAsync();
        foreach (Generation g in kept)
        {
            Assert.Equal(60, await g.CountAsync(Now));
        }

        foreach (Generation g in lost)
        {
            await Assert.ThrowsAnyAsync<OperationCanceledException>(async () => await g.ToListAsync(Now));
        }

        Assert.Throws<ObjectDisposedException>(() => draining.Start(Prompt(5)));
        await Assert.ThrowsAsync<ObjectDisposedException>(() => aborting.ScoreAsync(Prompt(5)));
        aborting.Dispose();
        Engine cut = _model.CreateEngine();
        Generation slow = cut.Start(Prompt(20), p with { MaxTokens = 480 });
        using CancellationTokenSource source = new();
        Task stopping = cut.StopAsync(drain: true, source.Token);
        await source.CancelAsync();
        await stopping;
        await slow.Completion;
    }

    [Fact]
    public async Task Samples_that_wait_for_their_first_end_with_an_aborted_engine()
    {
        Engine engine = _model.CreateEngine(new EngineOptions { MaxSequences = 1, TokenBudget = 8, ChunkSize = 8 });
        IReadOnlyList<Generation> samples = engine.Start(Prompt(61), 3, new SamplingParameters { MaxTokens = 200, IgnoreEndOfSequence = true });
        while (engine.Statistics is { Running: 0, Waiting: 0 })
        {
            await Task.Delay(1, Now);
        }

        await engine.StopAsync(drain: false, Now);
        await Task.WhenAll(samples.Select(s => s.Completion)).WaitAsync(TimeSpan.FromSeconds(30), Now);
        foreach (Generation sample in samples)
        {
            await Assert.ThrowsAnyAsync<OperationCanceledException>(async () => await sample.ToListAsync(Now));
        }

        Assert.Equal((0, 0), (engine.Statistics.Running, engine.Statistics.Waiting));
    }

    [Fact]
    public async Task Tenants_share_nothing()
    {
        await using Engine engine = _model.CreateEngine();
        SamplingParameters p = new() { MaxTokens = 2 };
        foreach ((string? tenant, int cached) in new[] { ((string?)"a", 0), ("b", 0), ("a", 64), (null, 0), ("b", 64), (null, 64) })
        {
            Generation g = engine.Start(Prompt(70), p, new RequestOptions { Tenant = tenant });
            _ = await g.ToListAsync(Now);
            Assert.Equal(cached, g.CachedPromptTokens);
        }
    }

    [Fact]
    public async Task Requests_that_share_a_long_prefix_read_its_keys_once()
    {
        await using Engine engine = _model.CreateEngine();
        int[] prefix = Prompt(300);
        SamplingParameters p = new() { MaxTokens = 30, IgnoreEndOfSequence = true };
        using (Session session = _model.CreateSession())
        {
            List<GeneratedToken>[] all = await Task.WhenAll(Enumerable.Range(0, 6).Select(i => engine.GenerateAsync((int[])[.. prefix, .. Prompt(3 + i)], p, cancellationToken: Now).ToListAsync(Now).AsTask()));
            for (int i = 0; i < all.Length; i++)
            {
                AssertSame(await session.GenerateAsync((int[])[.. prefix, .. Prompt(3 + i)], p, Now).ToListAsync(Now), all[i]);
            }
        }

        EngineStatistics s = await SettledAsync(engine);
        Assert.True(s.CachedPromptTokens >= 5 * 288, $"{s.CachedPromptTokens} tokens of the five that came second were found");
        Assert.True(s.KeysSaved > 5 * 256 * 20, $"{s.KeysSaved} keys were not read again");
    }

    [Fact]
    public async Task A_model_of_no_numbers_fails_its_requests_and_not_the_engine()
    {
        await using Engine engine = _model.CreateEngine();
        Dictionary<int, float> nothing = Enumerable.Range(0, _model.Config.VocabularySize).ToDictionary(i => i, _ => float.NegativeInfinity);
        Task<List<GeneratedToken>> good = engine.GenerateAsync(Prompt(20), new SamplingParameters { MaxTokens = 20, IgnoreEndOfSequence = true }, cancellationToken: Now).ToListAsync(Now).AsTask();
        InvalidOperationException e = await Assert.ThrowsAsync<InvalidOperationException>(async () => await engine.GenerateAsync(Prompt(20), new SamplingParameters { LogitBias = nothing }, cancellationToken: Now).ToListAsync(Now));
        Assert.Contains("forbid all", e.Message, StringComparison.Ordinal);
        Assert.Equal(20, (await good).Count);
    }

    [Fact]
    public async Task Meter_and_activities_tell_what_happened()
    {
        Dictionary<string, double> sums = [];
        HashSet<string> seen = [];
        using MeterListener listener = new() { InstrumentPublished = (i, l) => { if (i.Meter.Name == EngineMetrics.Name) { l.EnableMeasurementEvents(i); } } };
        void Add(Instrument i, double value)
        {
            lock (sums)
            {
                sums[i.Name] = sums.GetValueOrDefault(i.Name) + value;
                seen.Add(i.Name);
            }
        }

        string id = Guid.NewGuid().ToString();
        List<Activity> ended = [];
        using ActivityListener activities = new()
        {
            ShouldListenTo = s => s.Name == EngineMetrics.Name,
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllData,
            ActivityStopped = a => { lock (ended) { ended.Add(a); } },
        };
        ActivitySource.AddActivityListener(activities);
        listener.SetMeasurementEventCallback<long>((i, v, _, _) => Add(i, v));
        listener.SetMeasurementEventCallback<int>((i, v, _, _) => Add(i, v));
        listener.SetMeasurementEventCallback<double>((i, v, _, _) => Add(i, v));
        listener.Start();
        await using Engine engine = _model.CreateEngine();
        Generation g = engine.Start(Prompt(20), new SamplingParameters { MaxTokens = 9, IgnoreEndOfSequence = true }, new RequestOptions { Id = id });
        Assert.Equal(9, await g.CountAsync(Now));
        await g.Completion;
        listener.RecordObservableInstruments();
        foreach (string name in new[]
        {
            "gen_ai.server.request.duration", "gen_ai.server.time_to_first_token", "gen_ai.server.time_per_output_token", "sluice.request.queue_time", "sluice.request.prefill_time",
            "sluice.request.decode_time", "sluice.steps", "sluice.tokens.generated", "sluice.tokens.computed", "sluice.sequences.running", "sluice.sequences.waiting", "sluice.kv_cache.usage",
        })
        {
            Assert.Contains(name, seen);
        }

        Assert.True(sums["sluice.tokens.generated"] >= 9);
        Assert.NotNull(g.TimeToFirstToken);
        Activity own = Assert.Single(ended, a => id.Equals(a.GetTagItem("gen_ai.response.id")));
        Assert.Equal((20, 9), ((int)own.GetTagItem("gen_ai.usage.input_tokens")!, (int)own.GetTagItem("gen_ai.usage.output_tokens")!));
    }

    [Fact]
    public async Task A_generation_is_read_once()
    {
        await using Engine engine = _model.CreateEngine();
        Generation g = engine.Start(Prompt(5), new SamplingParameters { MaxTokens = 3 });
        _ = await g.ToListAsync(Now);
        await Assert.ThrowsAsync<InvalidOperationException>(async () => await g.ToListAsync(Now));
    }

    [Fact]
    public async Task Many_threads_with_random_cancellations_leave_nothing_behind()
    {
        await using Engine engine = _model.CreateEngine(new EngineOptions { TokenBudget = 48, MaxSequences = 8, CacheTokens = 640 });
        (int[] Prompt, SamplingParameters Parameters)[] requests = Mixed(6);
        string[] expected = new string[requests.Length];
        for (int i = 0; i < requests.Length; i++)
        {
            expected[i] = Ids(await engine.GenerateAsync(requests[i].Prompt, requests[i].Parameters, cancellationToken: Now).ToListAsync(Now));
        }

        await Task.WhenAll(Enumerable.Range(0, 8).Select(thread => Task.Run(async () =>
        {
            Random random = new(thread);
            for (int n = 0; n < 25; n++)
            {
                int which = random.Next(requests.Length), most = random.Next(3) == 0 ? random.Next(1, 20) : int.MaxValue;
                List<GeneratedToken> got = [];
                await foreach (GeneratedToken token in engine.GenerateAsync(requests[which].Prompt, requests[which].Parameters, cancellationToken: Now))
                {
                    got.Add(token);
                    if (got.Count == most)
                    {
                        break;
                    }
                }

                Assert.StartsWith(Ids(got), expected[which], StringComparison.Ordinal);
            }
        })));
        EngineStatistics s = await SettledAsync(engine);
        Assert.Equal((0, 0, s.Pages), (s.Running, s.Waiting, s.FreePages + s.CachedPages));
    }

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    private static async Task<Model> LoadAsync(Backend backend, bool invariant = false) => await Model.LoadAsync(
        SharedData.PathOf("models", "stories260K", Path), new ModelOptions { Device = backend, Threads = 2, ContextLength = 512, Invariant = invariant });

    private int[] Prompt(int length)
    {
        Random random = new(11);
        return [1, .. Enumerable.Range(0, length - 1).Select(_ => random.Next(3, _model.Config.VocabularySize))];
    }

    // Prompts that begin alike and end apart, in all ways of choosing.
    private (int[] Prompt, SamplingParameters Parameters)[] Mixed(int count) => [.. Enumerable.Range(0, count).Select(i =>
    {
        int[] prompt = Prompt(20 + (7 * i));
        prompt[^1] = 3 + i;
        SamplingParameters p = new() { MaxTokens = 12 + (5 * (i % 4)), Seed = (ulong)i, IgnoreEndOfSequence = i % 2 == 0 };
        return (prompt, (i % 6) switch
        {
            0 => p,
            1 => p with { Temperature = 1 },
            2 => p with { Temperature = 0.8f, TopK = 20, LogProbs = 3 },
            3 => p with { RepetitionPenalty = 1.3f, PresencePenalty = 0.2f },
            4 => p with { Temperature = 1.2f, TopP = 0.9f, FrequencyPenalty = 0.5f, LogitBias = new Dictionary<int, float> { [300] = 4, [301] = float.NegativeInfinity } },
            _ => p with { Temperature = 0.7f, MinP = 0.05f, LogProbs = 0 },
        });
    })];

    private static string Ids(List<GeneratedToken> tokens) => string.Concat(tokens.Select(t => $"{t.Id} "));

    private static void AssertSame(List<GeneratedToken> expected, List<GeneratedToken> found)
    {
        Assert.Equal(expected.Count, found.Count);
        foreach ((GeneratedToken e, GeneratedToken f) in expected.Zip(found))
        {
            Assert.Equal((e.Id, e.Text, e.LogProb, e.Finish), (f.Id, f.Text, f.LogProb, f.Finish));
            Assert.Equal(e.Top, f.Top);
        }
    }

    // Tokens are read before the engine has looked around again.
    private static async Task<EngineStatistics> SettledAsync(Engine engine)
    {
        EngineStatistics s = engine.Statistics;
        for (int i = 0; i < 500 && s.Running + s.Waiting > 0; i++)
        {
            await Task.Delay(10, Now);
            s = engine.Statistics;
        }

        return s;
    }
}
