namespace Sluice.Decoding;

/// <summary>The numbers of a benchmark. Times are in milliseconds; of a cancelled one, they are of what had happened until then.</summary>
public sealed record ServingReport
{
    /// <summary>Makes the numbers.</summary>
    /// <param name="run">What was seen.</param>
    /// <param name="ttftBound">Milliseconds to the first token that are good enough; null: any.</param>
    /// <param name="tpotBound">Milliseconds a token behind the first, on the mean of a request, that are good enough; null: any.</param>
    public ServingReport(ServingRun run, double? ttftBound = null, double? tpotBound = null)
    {
        RequestTimeline[] all = [.. run.Requests], begun = [.. all.Where(r => r.TokenTimes.Count > 0)], complete = [.. all.Where(r => r.IsComplete)];
        (Seconds, Completed, Preemptions) = (run.Seconds, complete.Length, run.After.Preemptions - run.Before.Preemptions);
        (PromptTokens, CachedPromptTokens, GeneratedTokens) = (begun.Sum(r => (long)r.PromptTokens), begun.Sum(r => (long)r.CachedPromptTokens), begun.Sum(r => (long)r.TokenTimes.Count));
        (Steps, KeysRead, KeysSaved) = (run.After.Steps - run.Before.Steps, run.After.KeysRead - run.Before.KeysRead, run.After.KeysSaved - run.Before.KeysSaved);
        TimeToFirstToken = Milliseconds(all.Select(r => r.TimeToFirstToken));
        TimePerOutputToken = Milliseconds(all.Select(r => r.TimePerOutputToken));
        InterTokenLatency = Milliseconds(all.SelectMany(r => r.InterTokenLatencies).Select(s => (double?)s));
        EndToEnd = Milliseconds(all.Select(r => r.EndToEnd));
        Queue = Milliseconds(all.Select(r => r.Queue));
        if (ttftBound is not null || tpotBound is not null)
        {
            // A request of one token has none behind it that could be late.
            Good = complete.Count(r => !(1e3 * r.TimeToFirstToken > ttftBound) && !(1e3 * r.TimePerOutputToken > tpotBound));
        }

        static Distribution? Milliseconds(IEnumerable<double?> seconds) => Distribution.Of(seconds.OfType<double>().Select(s => 1e3 * s));
    }

    /// <summary>From the beginning to the last token.</summary>
    public double Seconds { get; }

    /// <summary>Requests that have all of their tokens.</summary>
    public int Completed { get; }

    /// <summary>Completed requests that kept within the bounds; null: there were none.</summary>
    public int? Good { get; }

    /// <summary>Tokens of the prompts whose requests have a token.</summary>
    public long PromptTokens { get; }

    /// <summary>Of these, tokens that were found in the cache.</summary>
    public long CachedPromptTokens { get; }

    /// <summary>Tokens that came.</summary>
    public long GeneratedTokens { get; }

    /// <summary>Generated tokens a second.</summary>
    public double OutputTokensPerSecond => PerSecond(GeneratedTokens);

    /// <summary>Tokens of prompts and generated ones a second; those from the cache count too.</summary>
    public double TotalTokensPerSecond => PerSecond(PromptTokens + GeneratedTokens);

    /// <summary>Completed requests a second.</summary>
    public double RequestsPerSecond => PerSecond(Completed);

    /// <summary>Requests a second that kept within the bounds.</summary>
    public double? Goodput => Good is { } good ? PerSecond(good) : null;

    /// <summary>Of the prompts' tokens, the share that was found in the cache.</summary>
    public double PrefixHitRate => PromptTokens == 0 ? 0 : (double)CachedPromptTokens / PromptTokens;

    /// <summary>How often a sequence had to make room.</summary>
    public long Preemptions { get; }

    /// <summary>Steps of the engine.</summary>
    public long Steps { get; }

    /// <summary>Keys that attention read, shared ones once.</summary>
    public long KeysRead { get; }

    /// <summary>Keys that it would have read besides, had it not read shared ones once for all.</summary>
    public long KeysSaved { get; }

    /// <summary>From arrival to the first token (TTFT).</summary>
    public Distribution? TimeToFirstToken { get; }

    /// <summary>A request's tokens behind the first, on its mean (TPOT).</summary>
    public Distribution? TimePerOutputToken { get; }

    /// <summary>Between a token and the next, of all requests (ITL).</summary>
    public Distribution? InterTokenLatency { get; }

    /// <summary>From arrival to the last token.</summary>
    public Distribution? EndToEnd { get; }

    /// <summary>From arrival to the request's first step.</summary>
    public Distribution? Queue { get; }

    private double PerSecond(long count) => Seconds > 0 ? count / Seconds : 0;
}
