namespace Sluice;

/// <summary>How tokens are chosen and when generation ends. The default is greedy.</summary>
public sealed record SamplingParameters
{
    /// <summary>Divides the logits; 0: always the likeliest token.</summary>
    public float Temperature { get; init; }

    /// <summary>Keeps this many likeliest tokens; 0: all.</summary>
    public int TopK { get; init; }

    /// <summary>Keeps the likeliest tokens whose probabilities sum to this; 1: all. (Holtzman et al. 2019.)</summary>
    public float TopP { get; init; } = 1;

    /// <summary>Keeps tokens of at least this fraction of the largest probability; 0: all.</summary>
    public float MinP { get; init; }

    /// <summary>Divides (or, below zero, multiplies) the logits of tokens that occur in the prompt or the answer; 1: none. (Keskar et al. 2019.)</summary>
    public float RepetitionPenalty { get; init; } = 1;

    /// <summary>Taken from the logits of tokens that occur in the answer.</summary>
    public float PresencePenalty { get; init; }

    /// <summary>Taken from the logits of tokens that occur in the answer, once an occurrence.</summary>
    public float FrequencyPenalty { get; init; }

    /// <summary>Added to the logits of these tokens; negative infinity forbids one.</summary>
    public IReadOnlyDictionary<int, float> LogitBias { get; init; } = new Dictionary<int, float>();

    /// <summary>The same seed and prompt give the same answer; null: a random one.</summary>
    public ulong? Seed { get; init; }

    /// <summary>Tokens to generate at most; null: until the context is full.</summary>
    public int? MaxTokens { get; init; }

    /// <summary>Texts that end the answer; they are not part of it.</summary>
    public IReadOnlyList<string> Stop { get; init; } = [];

    /// <summary>Whether tokens that end a generation are generated like others.</summary>
    public bool IgnoreEndOfSequence { get; init; }

    /// <summary>Report each token's log-probability and those of this many likeliest tokens; null: neither. 0..64.</summary>
    public int? LogProbs { get; init; }

    /// <exception cref="ArgumentException">A value is out of its range; the text says which, what it is and what it may be.</exception>
    internal void Validate(int vocabularySize)
    {
        Require(Temperature is >= 0 and <= 100, nameof(Temperature), Temperature, "0 to 100");
        Require(TopK >= 0, nameof(TopK), TopK, "0 (all) or more");
        Require(TopP is > 0 and <= 1, nameof(TopP), TopP, "above 0, up to 1");
        Require(MinP is >= 0 and <= 1, nameof(MinP), MinP, "0 to 1");
        Require(RepetitionPenalty is > 0 and <= 100, nameof(RepetitionPenalty), RepetitionPenalty, "above 0, up to 100");
        Require(float.IsFinite(PresencePenalty), nameof(PresencePenalty), PresencePenalty, "finite");
        Require(float.IsFinite(FrequencyPenalty), nameof(FrequencyPenalty), FrequencyPenalty, "finite");
        Require(MaxTokens is null or >= 0, nameof(MaxTokens), MaxTokens ?? 0, "0 or more");
        Require(LogProbs is null or (>= 0 and <= 64), nameof(LogProbs), LogProbs ?? 0, "0 to 64");
        ArgumentNullException.ThrowIfNull(Stop, nameof(Stop));
        ArgumentNullException.ThrowIfNull(LogitBias, nameof(LogitBias));
        Require(Stop.All(s => s is { Length: > 0 }), nameof(Stop), 0, "texts that are not empty");
        foreach ((int id, float bias) in LogitBias)
        {
            Require(id >= 0 && id < vocabularySize, nameof(LogitBias), id, $"token ids 0 to {vocabularySize - 1}");
            Require(!float.IsNaN(bias) && !float.IsPositiveInfinity(bias), nameof(LogitBias), bias, "finite, or negative infinity");
        }
    }

    private static void Require(bool holds, string name, double value, string expected)
    {
        if (!holds)
        {
            throw new ArgumentException($"{name} is {value}, and may be: {expected}");
        }
    }
}
