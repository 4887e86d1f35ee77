namespace Sluice.Perf.Soak;

/// <summary>Requests of all kinds on one engine, some of which end before they are done. Each that ends by itself must have got what it gets alone, each other one the beginning of that.</summary>
internal sealed class SoakLoad(Engine engine, SoakCase[] cases, SoakReport report, Action<object> watch)
{
    /// <summary>Forks of forks of an answer at most: each is as long as an answer.</summary>
    public const int MostForks = 2;

    private volatile bool _stopping;

    /// <summary>From now on the engine may refuse or abort whatever it likes.</summary>
    public void Stopping() => _stopping = true;

    /// <summary>One client: request after request until it is told to stop, or the engine is.</summary>
    public async Task RunAsync(int seed, CancellationToken enough)
    {
        Random random = new(seed);
        while (!enough.IsCancellationRequested && !_stopping)
        {
            SoakCase c = cases[random.Next(cases.Length)];
            try
            {
                await (random.Next(12) switch
                {
                    0 => TextAsync("scores", c.Scores, random, t => engine.ScoreAsync(c.Prompt, Options(random), t)),
                    1 => TextAsync("an embedding", c.Embedding, random, t => engine.EmbedAsync(c.Prompt, options: Options(random), cancellationToken: t)),
                    2 or 3 => SamplesAsync(c, random),
                    4 or 5 => GenerateAsync(c, random),
                    _ => StartAsync(c, random),
                });
            }
            catch (ObjectDisposedException) when (_stopping)
            {
                return;
            }
            catch (Exception e)
            {
                report.Fail($"a request of {c.Prompt.Length:N0} tokens failed: {e}");
                return;
            }
        }
    }

    private async Task TextAsync(string what, float[] expected, Random random, Func<CancellationToken, Task<float[]>> ask)
    {
        using CancellationTokenSource source = new();
        if (random.Next(3) == 0)
        {
            source.CancelAfter(random.Next(12));
        }

        report.Begun();
        try
        {
            float[] got = await ask(source.Token);
            report.Compare<float>(what, expected, got, whole: true);
            report.Ended(finished: true, 0);
        }
        catch (OperationCanceledException) when (_stopping || source.IsCancellationRequested)
        {
            report.Ended(finished: false, 0);
        }
    }

    private Task StartAsync(SoakCase c, Random random)
    {
        SamplingParameters parameters = Parameters(c, random);
        return ReadAsync(engine.Start(c.Prompt, parameters, Options(random)), c, 0, parameters, random, forks: random.Next(3) == 0 ? MostForks : 0);
    }

    private async Task SamplesAsync(SoakCase c, Random random)
    {
        SamplingParameters parameters = Parameters(c, random);
        IReadOnlyList<Generation> samples = engine.Start(c.Prompt, random.Next(2, SoakCase.MostSamples + 1), parameters, Options(random));
        await Task.WhenAll(samples.Select((g, i) => ReadAsync(g, c, i, parameters, new Random(random.Next()), forks: 0)));
    }

    // The enumeration is the request: nothing to abort or to fork, it is left or cancelled.
    private async Task GenerateAsync(SoakCase c, Random random)
    {
        SamplingParameters parameters = Parameters(c, random);
        using CancellationTokenSource source = new();
        int leave = random.Next(3) == 0 ? random.Next(1, 8) : int.MaxValue;
        if (random.Next(4) == 0)
        {
            source.CancelAfter(random.Next(25));
        }

        List<(int, float)> got = [];
        bool whole = true;
        report.Begun();
        try
        {
            await foreach (GeneratedToken token in engine.GenerateAsync(c.Prompt, parameters, Options(random), source.Token))
            {
                got.Add((token.Id, token.LogProb!.Value));
                if (got.Count == leave)
                {
                    whole = token.Finish is not null;
                    break;
                }
            }
        }
        catch (OperationCanceledException) when (_stopping || source.IsCancellationRequested)
        {
            whole = false;
        }

        report.Compare("an answer", c.Expected(0, parameters.MaxTokens!.Value), got.ToArray(), whole);
        report.Ended(whole, got.Count);
    }

    // Reads to the end, or ends it in one of the ways that there are, and forks it on the way.
    private async Task ReadAsync(Generation g, SoakCase c, int sample, SamplingParameters parameters, Random random, int forks)
    {
        watch(g);
        report.Begun();
        using CancellationTokenSource source = new();
        int ending = random.Next(10), at = random.Next(24), fork = forks > 0 ? random.Next(1, 16) : -1;
        bool slow = random.Next(8) == 0, ended = false, whole = false;
        Task forked = Task.CompletedTask;
        List<(int, float)> got = [];
        switch (ending)
        {
            case 0:
                source.CancelAfter(random.Next(25));
                break;
            case 1:
                g.Abort();
                ended = true;
                break;
            case 2:
                await g.Completion; // nobody reads while it is made
                break;
        }

        try
        {
            await foreach (GeneratedToken token in g.WithCancellation(source.Token))
            {
                got.Add((token.Id, token.LogProb!.Value));
                whole = token.Finish is not null;
                if (got.Count == fork)
                {
                    SamplingParameters others = Parameters(c, random) with { Seed = parameters.Seed + (ulong)sample };
                    forked = ReadAsync(g.Fork(others), c, sample, others, new Random(random.Next()), forks - 1);
                }

                if (got.Count == at && ending is 3 or 4 or 5)
                {
                    ended = true;
                    if (ending == 3)
                    {
                        break;
                    }

                    if (ending == 4)
                    {
                        g.Abort();
                    }
                    else
                    {
                        engine.Abort(g.Id);
                    }
                }

                if (slow)
                {
                    await Task.Delay(random.Next(3));
                }
            }
        }
        catch (OperationCanceledException) when (_stopping || ended || source.IsCancellationRequested)
        {
            whole = false;
        }
        catch (ObjectDisposedException) when (_stopping)
        {
            whole = false; // the fork's: what it is a fork of ends as well
        }

        await g.DisposeAsync();
        // A fork goes on from where the engine was; one that goes further than what was made alone is compared with as much as that has.
        int before = g.PromptTokens - c.Prompt.Length, most = before + parameters.MaxTokens!.Value, length = c.Expected(sample, int.MaxValue).Length;
        if (before < length)
        {
            bool known = most <= length || length < c.Parameters.MaxTokens;
            ReadOnlySpan<(int, float)> expected = c.Expected(sample, most)[before..], found = got.ToArray();
            report.Compare(before == 0 ? "an answer" : $"a fork behind {before:N0} tokens", expected, known ? found : found[..Math.Min(found.Length, expected.Length)], whole && known);
        }

        report.Ended(whole, got.Count);
        await forked;
    }

    private static SamplingParameters Parameters(SoakCase c, Random random) => c.Parameters with { MaxTokens = random.Next(1, c.Parameters.MaxTokens!.Value + 1) };

    private static RequestOptions Options(Random random) => new() { Priority = random.Next(3), Tenant = random.Next(4) == 0 ? "other" : null };
}
