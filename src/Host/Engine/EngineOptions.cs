namespace Sluice;

/// <summary>What an engine is tuned for: the largest step, and how many sequences run at once. Single numbers can be set on top.</summary>
public enum EnginePreset
{
    /// <summary>Many sequences, long steps: the most tokens a second in all.</summary>
    Throughput,

    /// <summary>Fewer sequences and short steps: the next token is near, also while others' prompts are computed.</summary>
    Latency,
}

/// <summary>How an engine schedules and what it may hold; what is not set has a sensible default.</summary>
public sealed record EngineOptions
{
    /// <summary>What it is tuned for.</summary>
    public EnginePreset Preset { get; init; }

    /// <summary>Tokens of a step at most; null: the preset's. No less than <see cref="MaxSequences"/>.</summary>
    public int? TokenBudget { get; init; }

    /// <summary>Sequences that run at once; null: the preset's.</summary>
    public int? MaxSequences { get; init; }

    /// <summary>Tokens of one prompt in a step at most; null: the preset's.</summary>
    public int? ChunkSize { get; init; }

    /// <summary>Tokens that a sequence may have; null: the model's <see cref="Model.ContextLength"/>.</summary>
    public int? ContextLength { get; init; }

    /// <summary>Tokens that the KV cache holds in all; null: as many as all running sequences can come to have, within half of a GPU's free memory, or a quarter of the machine's.</summary>
    public int? CacheTokens { get; init; }

    /// <summary>Tokens of sequences that can wait in host memory after they had to make room; 0: these are computed anew.</summary>
    public int SwapTokens { get; init; }

    /// <summary>Who comes first, and who makes room.</summary>
    public SchedulingPolicy Policy { get; init; }

    /// <summary>How often others may be admitted before one that comes first by the policy (by arrival, where the longest prefix comes first). A flood of better priority is not meant: those come first.</summary>
    public int MaxPassedOver { get; init; } = 16;

    /// <summary>Requests that begin with the same tokens share what is computed for these, and it is kept for later ones.</summary>
    public bool PrefixCaching { get; init; } = true;

    /// <summary>Shared prefixes of a step are read once for all of their sequences, where that is faster.</summary>
    public bool Cascade { get; init; } = true;

    /// <summary>What disposal does with requests that have not ended: let them end, or abort them.</summary>
    public bool DrainOnDispose { get; init; }
}

/// <summary>What a request is beside its prompt and its sampling.</summary>
public sealed record RequestOptions
{
    /// <summary>Its name, which no other live request has; null: the engine gives one.</summary>
    public string? Id { get; init; }

    /// <summary>The lower, the sooner, under <see cref="SchedulingPolicy.Priority"/>.</summary>
    public int Priority { get; init; }

    /// <summary>Whose request it is: computed prefixes are shared within one tenant alone.</summary>
    public string? Tenant { get; init; }

    /// <summary>Whether the log-probabilities of the prompt's tokens are wanted: <see cref="Generation.PromptLogProbs"/>.</summary>
    public bool PromptLogProbs { get; init; }
}

/// <summary>How the states behind a text's tokens become one vector.</summary>
public enum Pooling
{
    /// <summary>Their mean.</summary>
    Mean,

    /// <summary>The last one's.</summary>
    Last,
}

/// <summary>What an engine does now, and did since it began.</summary>
/// <param name="Running">Sequences that have pages.</param>
/// <param name="Waiting">Sequences that have none.</param>
/// <param name="Pages">Pages of the KV cache.</param>
/// <param name="FreePages">Pages that hold nothing.</param>
/// <param name="CachedPages">Pages that nobody uses, and whose contents are kept for later.</param>
/// <param name="Steps">Steps.</param>
/// <param name="PromptTokens">Tokens of prompts that were computed or found.</param>
/// <param name="CachedPromptTokens">Of these, tokens that were found in the cache.</param>
/// <param name="GeneratedTokens">Tokens that were chosen.</param>
/// <param name="Preemptions">How often a sequence had to make room.</param>
/// <param name="KeysRead">Keys that attention read, shared ones once.</param>
/// <param name="KeysSaved">Keys that it would have read besides, had nothing been shared.</param>
/// <param name="ScheduleSeconds">Time that went into scheduling and planning.</param>
/// <param name="StepSeconds">Time of all steps.</param>
public readonly record struct EngineStatistics(
    int Running, int Waiting, int Pages, int FreePages, int CachedPages, long Steps, long PromptTokens, long CachedPromptTokens, long GeneratedTokens, long Preemptions,
    long KeysRead, long KeysSaved, double ScheduleSeconds, double StepSeconds);
