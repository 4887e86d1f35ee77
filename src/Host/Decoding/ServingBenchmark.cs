using System.Diagnostics;

namespace Sluice.Decoding;

/// <summary>How far a benchmark is.</summary>
/// <param name="Seconds">Since it began.</param>
/// <param name="Done">Requests that have ended.</param>
/// <param name="Requests">Requests in all.</param>
/// <param name="TokensPerSecond">Generated tokens of the last second or so.</param>
/// <param name="Engine">What the engine does.</param>
public readonly record struct ServingProgress(double Seconds, int Done, int Requests, double TokensPerSecond, EngineStatistics Engine);

/// <summary>What a benchmark saw.</summary>
/// <param name="Seconds">From its beginning to its last token, or to where it was cancelled.</param>
/// <param name="Requests">Each request, in the order of arrival.</param>
/// <param name="Before">What the engine had done when it began.</param>
/// <param name="After">What it had done when it ended.</param>
/// <param name="Cancelled">Whether it was cancelled, and holds what was seen until then.</param>
public sealed record ServingRun(double Seconds, IReadOnlyList<RequestTimeline> Requests, EngineStatistics Before, EngineStatistics After, bool Cancelled);

/// <summary>
/// Sends planned requests to an engine and writes down when each token comes. Nobody waits for an answer before the next request is due (an open loop), unless they are to go one by
/// one; and times count from when a request was due, not from when it could be sent, so that a slow engine hides nothing (coordinated omission; Tene, 2013).
/// </summary>
public sealed class ServingBenchmark
{
    private static readonly TimeSpan ReportEvery = TimeSpan.FromMilliseconds(200), Settling = TimeSpan.FromSeconds(5);

    private readonly Engine _engine;
    private readonly IReadOnlyList<PlannedRequest> _requests;
    private readonly RequestTimeline[] _timelines;
    private readonly EngineStatistics _before;
    private readonly long _start;
    private int _done;

    private ServingBenchmark(Engine engine, IReadOnlyList<PlannedRequest> requests)
    {
        (_engine, _requests, _before) = (engine, requests, engine.Statistics);
        _timelines = [.. requests.Select(r => new RequestTimeline(r))];
        _start = Stopwatch.GetTimestamp();
    }

    private double Now => Stopwatch.GetElapsedTime(_start).TotalSeconds;

    /// <summary>Runs the requests to their full lengths: greedily, past the model's own end.</summary>
    /// <param name="engine">Runs nothing else meanwhile.</param>
    /// <param name="requests">The plan, by arrival.</param>
    /// <param name="oneByOne">Each request is due when the one before has ended, whatever its arrival says.</param>
    /// <param name="progress">Told now and then, by a thread of the pool.</param>
    /// <param name="cancellationToken">Ends it at once; what was seen until then is given back.</param>
    /// <exception cref="ArgumentException">A request that the engine could never run.</exception>
    /// <exception cref="Interop.SluiceException">The device failed.</exception>
    public static async Task<ServingRun> RunAsync(
        Engine engine, IReadOnlyList<PlannedRequest> requests, bool oneByOne = false, IProgress<ServingProgress>? progress = null, CancellationToken cancellationToken = default)
    {
        long most = Math.Min(engine.ContextLength, (long)engine.Statistics.Pages * EngineStep.PageSize);
        foreach ((int i, PlannedRequest request) in requests.Index())
        {
            if ((long)request.Prompt.Length + request.GeneratedTokens > most)
            {
                throw new ArgumentException($"request {i + 1:N0} has {request.Prompt.Length:N0} prompt tokens and {request.GeneratedTokens:N0} to generate, and the engine holds {most:N0} of a sequence: ask for shorter ones, a longer context or a larger cache");
            }
        }

        // Not on the caller's thread, whose other work must not delay a request.
        return await Task.Run(() => new ServingBenchmark(engine, requests).RunAsync(oneByOne, progress, cancellationToken), CancellationToken.None).ConfigureAwait(false);
    }

    private async Task<ServingRun> RunAsync(bool oneByOne, IProgress<ServingProgress>? progress, CancellationToken cancellation)
    {
        using CancellationTokenSource failed = CancellationTokenSource.CreateLinkedTokenSource(cancellation), ended = new();
        Task reporting = progress is null ? Task.CompletedTask : ReportAsync(progress, ended.Token);
        List<Task> reading = [];
        try
        {
            for (int i = 0; i < _requests.Count; i++)
            {
                if (!oneByOne)
                {
                    await WaitUntilAsync(_requests[i].Arrival, failed.Token).ConfigureAwait(false);
                }

                failed.Token.ThrowIfCancellationRequested();
                double now = Now;
                (_timelines[i].Arrival, _timelines[i].Sent) = (oneByOne ? now : _timelines[i].Arrival, now);
                Task read = ReadAsync(_engine.Start(_requests[i].Prompt, new SamplingParameters { MaxTokens = _requests[i].GeneratedTokens, IgnoreEndOfSequence = true }), _timelines[i], failed);
                reading.Add(read);
                if (oneByOne)
                {
                    await read.ConfigureAwait(false);
                }
            }
        }
        catch (OperationCanceledException) when (failed.IsCancellationRequested)
        {
            // Whoever failed is heard below.
        }
        catch
        {
            await failed.CancelAsync().ConfigureAwait(false);
            throw;
        }
        finally
        {
            try
            {
                await Task.WhenAll(reading).ConfigureAwait(false);
            }
            finally
            {
                await ended.CancelAsync().ConfigureAwait(false);
                await reporting.ConfigureAwait(false);
            }
        }

        bool cancelled = !_timelines.All(t => t.IsComplete);
        double seconds = cancelled ? Now : _timelines.Max(t => t.TokenTimes[^1]);
        return new ServingRun(seconds, _timelines, _before, cancelled ? _engine.Statistics : await SettledAsync().ConfigureAwait(false), cancelled);
    }

    private async Task ReadAsync(Generation generation, RequestTimeline timeline, CancellationTokenSource failed)
    {
        try
        {
            await foreach (GeneratedToken token in generation.WithCancellation(failed.Token).ConfigureAwait(false))
            {
                timeline.AddToken(Now);
                timeline.IsComplete = token.Finish is not null;
            }

            await generation.Completion.ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (failed.IsCancellationRequested)
        {
            // What it has is kept.
        }
        catch
        {
            // One that fails is an answer to none of the questions that a benchmark asks.
            await failed.CancelAsync().ConfigureAwait(false);
            throw;
        }

        timeline.CachedPromptTokens = generation.CachedPromptTokens;
        timeline.Preemptions = generation.Preemptions;
        timeline.Queue = generation.Times.Queued is { } queued ? timeline.Sent - timeline.Arrival + queued.TotalSeconds : null;
        Interlocked.Increment(ref _done);
    }

    // The system's timers are a millisecond coarse: a request may be sent so much late, and its times count from its arrival all the same.
    private async Task WaitUntilAsync(double time, CancellationToken cancellation)
    {
        for (double left = time - Now; left > 0; left = time - Now)
        {
            await Task.Delay(TimeSpan.FromMilliseconds(Math.Clamp(1e3 * left, 1, 1e6)), cancellation).ConfigureAwait(false);
        }
    }

    private async Task ReportAsync(IProgress<ServingProgress> progress, CancellationToken ended)
    {
        Queue<(double Seconds, long Tokens)> lately = new();
        while (!ended.IsCancellationRequested)
        {
            EngineStatistics s = _engine.Statistics;
            double now = Now;
            lately.Enqueue((now, s.GeneratedTokens));
            while (lately.Count > 2 && lately.Peek().Seconds < now - 1)
            {
                lately.Dequeue();
            }

            (double since, long tokens) = lately.Peek();
            progress.Report(new ServingProgress(now, Volatile.Read(ref _done), _requests.Count, now > since ? (s.GeneratedTokens - tokens) / (now - since) : 0, s));
            await Task.Delay(ReportEvery, ended).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    // The last token is read before the engine has counted the step that made it.
    private async Task<EngineStatistics> SettledAsync()
    {
        long tokens = _before.GeneratedTokens + _timelines.Sum(t => (long)t.TokenTimes.Count);
        EngineStatistics s = _engine.Statistics;
        for (long since = Stopwatch.GetTimestamp(); (s.GeneratedTokens < tokens || s.Running + s.Waiting > 0) && Stopwatch.GetElapsedTime(since) < Settling; s = _engine.Statistics)
        {
            await Task.Delay(2).ConfigureAwait(false);
        }

        return s;
    }
}
