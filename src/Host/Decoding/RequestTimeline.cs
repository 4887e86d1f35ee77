namespace Sluice.Decoding;

/// <summary>What happened to a request of a benchmark, and when: seconds of the monotonic clock after the beginning, as its reader saw it.</summary>
public sealed class RequestTimeline
{
    private readonly List<double> _tokens;

    internal RequestTimeline(PlannedRequest request)
    {
        (Arrival, PromptTokens) = (request.Arrival, request.Prompt.Length);
        _tokens = new List<double>(Math.Min(request.GeneratedTokens, 1 << 16));
    }

    /// <summary>When it was to be sent; all its times count from here.</summary>
    public double Arrival { get; internal set; }

    /// <summary>When it was sent; null: the benchmark had ended before.</summary>
    public double? Sent { get; internal set; }

    /// <summary>When each of its tokens came.</summary>
    public IReadOnlyList<double> TokenTimes => _tokens;

    /// <summary>Whether it has all of its tokens.</summary>
    public bool IsComplete { get; internal set; }

    /// <summary>Tokens of its prompt.</summary>
    public int PromptTokens { get; }

    /// <summary>Of these, tokens that were found in the cache.</summary>
    public int CachedPromptTokens { get; internal set; }

    /// <summary>How often it had to make room.</summary>
    public int Preemptions { get; internal set; }

    /// <summary>Seconds until the engine began with it; null before that.</summary>
    public double? Queue { get; internal set; }

    /// <summary>Seconds to its first token; null before that.</summary>
    public double? TimeToFirstToken => _tokens.Count == 0 ? null : _tokens[0] - Arrival;

    /// <summary>Mean seconds of the tokens behind the first; null where there is none yet.</summary>
    public double? TimePerOutputToken => _tokens.Count < 2 ? null : (_tokens[^1] - _tokens[0]) / (_tokens.Count - 1);

    /// <summary>Seconds to its last token; null until it is complete.</summary>
    public double? EndToEnd => IsComplete ? _tokens[^1] - Arrival : null;

    /// <summary>Seconds between each token and the one before. Tokens that its reader found together have none between them.</summary>
    public IEnumerable<double> InterTokenLatencies => _tokens.Zip(_tokens.Skip(1), (before, after) => after - before);

    internal void AddToken(double time) => _tokens.Add(time);
}
