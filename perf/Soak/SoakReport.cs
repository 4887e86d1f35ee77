using System.Collections.Concurrent;

namespace Sluice.Perf.Soak;

/// <summary>What was done, and what of it was wrong. Safe from any thread.</summary>
internal sealed class SoakReport
{
    private const int MostFailures = 20; // one mistake has many victims

    private readonly ConcurrentQueue<string> _failures = new();
    private long _requests, _finished, _compared, _cancelled, _tokens;

    public long Requests => Interlocked.Read(ref _requests);

    public long Finished => Interlocked.Read(ref _finished);

    public long Compared => Interlocked.Read(ref _compared);

    public long Cancelled => Interlocked.Read(ref _cancelled);

    /// <summary>Tokens that were read.</summary>
    public long Tokens => Interlocked.Read(ref _tokens);

    /// <summary>Of all engines.</summary>
    public long Steps { get; private set; }

    public long Preemptions { get; private set; }

    public long GeneratedTokens { get; private set; }

    public long CachedPromptTokens { get; private set; }

    public IReadOnlyCollection<string> Failures => _failures;

    public void Begun() => Interlocked.Increment(ref _requests);

    public void Ended(bool finished, int tokens)
    {
        Interlocked.Increment(ref finished ? ref _finished : ref _cancelled);
        Interlocked.Add(ref _tokens, tokens);
    }

    public void Fail(string what)
    {
        if (_failures.Count < MostFailures)
        {
            _failures.Enqueue(what);
        }
    }

    /// <summary>Holds what was wanted against what came: the whole of it, or of what was cut off as much as came.</summary>
    public void Compare<T>(string what, ReadOnlySpan<T> expected, ReadOnlySpan<T> found, bool whole)
        where T : IEquatable<T>
    {
        Interlocked.Increment(ref _compared);
        int alike = expected.CommonPrefixLength(found);
        if (alike < found.Length || (whole && found.Length != expected.Length))
        {
            Fail($"{what}: alone it gets {expected.Length:N0} values, here {found.Length:N0}, and they differ from {alike:N0} on"
                + (alike < Math.Min(expected.Length, found.Length) ? $" ({expected[alike]}, and here {found[alike]})" : ""));
        }
    }

    public void Add(in EngineStatistics s)
    {
        Steps += s.Steps;
        Preemptions += s.Preemptions;
        GeneratedTokens += s.GeneratedTokens;
        CachedPromptTokens += s.CachedPromptTokens;
    }
}
