using System.Text.Json;
using System.Text.Json.Serialization;
using Sluice.Decoding;

namespace Sluice.Console;

internal sealed record GenerateOutput(
    int PromptTokens, IReadOnlyList<int> PromptIds, IReadOnlyList<int> Tokens, string Text, string FinishReason, double TtftMs, double DecodeTokPerS,
    IReadOnlyList<TokenOutput>? LogProbs, string Device);

internal sealed record TokenOutput(int Id, float LogProb, IReadOnlyList<TokenOutput>? Top);

internal sealed record TokenizeOutput(int Count, IReadOnlyList<int> Ids, IReadOnlyList<string> Pieces);

internal sealed record PerplexityOutput(double Perplexity, double StandardError, double BitsPerToken, long Tokens, int Context, double TokPerS, string Device);

internal sealed record RateOutput(double Mean, double Deviation, IReadOnlyList<double> Rounds);

internal sealed record BenchOutput(
    string Model, int PromptTokens, int GenTokens, int Batch, RateOutput PrefillTokPerS, RateOutput DecodeTokPerS, double ReadGbPerS, double ReadPeakGbPerS, double ReadPercent,
    double? StepUs, double? KindsUs, bool? StepIsGraph, int? ProfiledSteps, IReadOnlyList<KindOutput>? Kinds,
    string Device, string DeviceName, string Isa, int Threads, string Commit);

internal sealed record KindOutput(string Kind, int Calls, double Us, double Percent, long? WeightBytes, double? GbPerS);

/// <summary>Times in milliseconds; prompt and generated tokens, rates and times are of what had happened when the benchmark ended or was cancelled.</summary>
internal sealed record ServingOutput(
    string Model, string Verb, int Requests, int Completed, bool Cancelled, int Warmup, double? Rate, string Lengths, int SharedPrefix, int Seed, double Seconds,
    long PromptTokens, long CachedPromptTokens, long GenTokens, double OutputTokPerS, double TotalTokPerS, double RequestsPerS,
    double? TtftBoundMs, double? TpotBoundMs, int? Good, double? GoodputPerS, Distribution? TtftMs, Distribution? TpotMs, Distribution? ItlMs, Distribution? E2eMs, Distribution? QueueMs,
    double PrefixHitRate, long Preemptions, long Steps, long KeysRead, long KeysSaved,
    string Preset, string Policy, int? MaxSequences, int? TokenBudget, int CachePages, bool PrefixCache, bool Cascade,
    string Device, string DeviceName, string Isa, int Threads, string Commit);

internal sealed record EvalOutput(
    string Model, string Weights, string Device, string Baseline, long Tokens, double Perplexity, double BaselinePerplexity, double KlMean, double KlMax, double Agreement,
    double LogitErrorMean, double LogitErrorMax, double LogitDeviation);

internal record SkillOutput(
    string? Skill, int Items, int TooLong, int Right, double ExactMatch, double ExactMatchLow, double ExactMatchHigh, long Tokens, double Perplexity, double PerplexityError,
    int? BaselineRight, double? BaselineExactMatch, double? BaselinePerplexity, double? KlMean, double? KlMax, double? Agreement, double? LogitErrorMean, double? LogitErrorMax, double? LogitDeviation);

/// <summary>The totals, with the names that a comparison on a text has, and what they are made of.</summary>
internal sealed record SetOutput(SkillOutput Total) : SkillOutput(Total)
{
    [JsonIgnore]
    public SkillOutput Total { get; } = Total;

    public required string Model { get; init; }

    public required string Weights { get; init; }

    public required string Device { get; init; }

    public required string Activations { get; init; }

    public required string Kv { get; init; }

    public required string? Baseline { get; init; }

    public required string Set { get; init; }

    public required string Prompts { get; init; }

    public required string Convention { get; init; }

    public required int EndsScored { get; init; }

    public required IReadOnlyList<SkillOutput> Skills { get; init; }

    public required IReadOnlyList<WrongOutput>? Wrong { get; init; }
}

internal sealed record WrongOutput(string Skill, int Line, string Prompt, string Expected, string? Got);

internal sealed record InspectOutput(
    string File, string Format, long Bytes, string Architecture, string Name, int Layers, int HiddenSize, int Heads, int KvHeads, int HeadDim, int FeedForwardSize, int VocabularySize, int ContextLength,
    string Tokenizer, IReadOnlyDictionary<string, int> TensorTypes, IReadOnlyList<MetadataOutput> Metadata, IReadOnlyList<TensorOutput> Tensors);

internal sealed record TuneOutput(string Device, string File, int Size, int[] Few, int[] Narrow, int[] Dense, IReadOnlyList<Sluice.Tuning.RouteTime> TimesUs);

internal sealed record RenderOutput(string Text, IReadOnlyList<int[]> Data, IReadOnlyList<int>? Ids);

internal sealed record MetadataOutput(string Key, string Value);

internal sealed record TensorOutput(string Name, string Type, IReadOnlyList<long> Shape, long Bytes);

[JsonSerializable(typeof(GenerateOutput))]
[JsonSerializable(typeof(TokenizeOutput))]
[JsonSerializable(typeof(PerplexityOutput))]
[JsonSerializable(typeof(BenchOutput))]
[JsonSerializable(typeof(ServingOutput))]
[JsonSerializable(typeof(EvalOutput))]
[JsonSerializable(typeof(SetOutput))]
[JsonSerializable(typeof(string))]
[JsonSerializable(typeof(InspectOutput))]
[JsonSerializable(typeof(RenderOutput))]
[JsonSerializable(typeof(TuneOutput))]
internal sealed partial class JsonOutput : JsonSerializerContext
{
    /// <summary>One object on one line, text as it is.</summary>
    public static JsonOutput Lines { get; } = new(new JsonSerializerOptions
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        // JSON has no NaN: as a string it is at least said.
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    });
}
