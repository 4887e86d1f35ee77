using System.CommandLine;
using System.CommandLine.Parsing;
using Sluice.Decoding;

namespace Sluice.Console;

/// <summary>How requests of a serving benchmark come.</summary>
internal enum Load
{
    Throughput,
    Latency,
    Serve,
}

/// <summary>The options of requests and of the engine that bench's verbs share.</summary>
internal sealed class ServingArguments
{
    private static readonly Dictionary<string, LengthKind> Kinds = new() { ["fixed"] = LengthKind.Fixed, ["uniform"] = LengthKind.Uniform, ["exponential"] = LengthKind.Exponential };
    private static readonly Dictionary<string, EnginePreset> Presets = new() { ["throughput"] = EnginePreset.Throughput, ["latency"] = EnginePreset.Latency };
    private static readonly Dictionary<string, SchedulingPolicy> Policies = new()
    {
        ["fcfs"] = SchedulingPolicy.Fcfs, ["longest-prefix-first"] = SchedulingPolicy.LongestPrefixFirst, ["priority"] = SchedulingPolicy.Priority,
    };

    private readonly Load _load;
    private readonly Option<int> _requests, _warmup;
    private readonly Option<string> _prompt = new("--prompt-tokens") { Description = "Tokens of each prompt: their mean N, or a range MIN-MAX in which each length is as likely", DefaultValueFactory = _ => "512", HelpName = "N|MIN-MAX" };
    private readonly Option<string> _generated = new("--gen-tokens") { Description = "Tokens to generate for each request, likewise; the model's own end is ignored", DefaultValueFactory = _ => "64", HelpName = "N|MIN-MAX" };
    private readonly Option<string> _lengths = ModelArguments.Choice("--lengths", "How lengths lie about a mean N: all are N; 1 to 2N-1, each as likely; or exponential, most of them short and few very long", "fixed", [.. Kinds.Keys]);
    private readonly Option<int> _shared = new("--shared-prefix") { Description = "Tokens that all prompts begin with, before those of --prompt-tokens", DefaultValueFactory = _ => 0 };
    private readonly Option<int> _seed = new("--seed") { Description = "Of tokens, lengths and arrivals: the same seed gives the same requests", DefaultValueFactory = _ => 0 };
    private readonly Option<string> _preset;
    private readonly Option<int?> _sequences = new("--max-sequences") { Description = "Sequences that run at once [default: the preset's]" };
    private readonly Option<int?> _budget = new("--token-budget") { Description = "Tokens of a step at most [default: the preset's]" };
    private readonly Option<int?> _cache = new("--cache-tokens") { Description = "Tokens that the KV cache holds [default: enough for all that run, within half of the free memory]" };
    private readonly Option<bool> _noPrefixCache = new("--no-prefix-cache") { Description = "Compute every prompt anew, whatever others began with" };
    private readonly Option<bool> _noCascade = new("--no-cascade") { Description = "Read shared prefixes once for each sequence" };
    private readonly Option<string> _policy = ModelArguments.Choice("--policy", "Who comes first; these requests have one priority, so that 'priority' is as 'fcfs'", "fcfs", [.. Policies.Keys]);
    private readonly Option<double> _rate = new("--rate") { Description = "Requests a second that arrive on the mean, each for itself (a Poisson process)", Required = true };
    private readonly Option<double?> _ttft = new("--ttft-bound") { Description = "Goodput counts requests whose first token came within so many milliseconds", HelpName = "ms" };
    private readonly Option<double?> _tpot = new("--tpot-bound") { Description = "Goodput counts requests whose other tokens took so many milliseconds each, on the mean", HelpName = "ms" };
    private readonly Option<string?> _plot = new("--plot") { Description = "Also draw distributions, tokens a second and the engine's load into this SVG file", HelpName = "file" };
    private readonly Option<bool> _json = new("--json") { Description = "Print one JSON object" };

    public ServingArguments(Load load)
    {
        _load = load;
        bool latency = load == Load.Latency;
        _requests = new Option<int>("--requests") { Description = "Requests that count", DefaultValueFactory = _ => latency ? 16 : 64 };
        _warmup = new Option<int>("--warmup") { Description = "Requests before those that count, of other tokens", DefaultValueFactory = _ => latency ? 2 : 8 };
        _preset = ModelArguments.Choice("--preset", "What the engine is tuned for", latency ? "latency" : "throughput", [.. Presets.Keys]);
    }

    public void AddTo(Command command)
    {
        foreach (Option option in new Option[] { _requests, _warmup, _prompt, _generated, _lengths, _shared, _seed, _preset, _sequences, _budget, _cache, _noPrefixCache, _noCascade, _policy, _plot, _json })
        {
            command.Options.Add(option);
        }

        if (_load == Load.Serve)
        {
            command.Options.Add(_rate);
            command.Options.Add(_ttft);
            command.Options.Add(_tpot);
        }

        foreach (Option<string> lengths in new[] { _prompt, _generated })
        {
            lengths.Validators.Add(result =>
            {
                foreach (Token wrong in result.Tokens.Where(t => !TokenLengths.TryParse(t.Value, LengthKind.Fixed, out _)))
                {
                    result.AddError($"{lengths.Name} is '{wrong.Value}', and wants a number of tokens from 1 on, or a range of them as in 64-256");
                }
            });
        }

        command.Validators.Add(r =>
        {
            if (r.Has(_lengths) && IsRange(r, _prompt) && IsRange(r, _generated))
            {
                r.AddError("--lengths is about means, and --prompt-tokens and --gen-tokens are ranges: leave it out, or give a mean");
            }
        });

        static bool IsRange(CommandResult r, Option option) => r.GetResult(option) is { } given && given.Tokens.Any(t => t.Value.Contains('-', StringComparison.Ordinal));
    }

    /// <summary>What was asked for.</summary>
    /// <exception cref="ArgumentException">A number out of its range, named.</exception>
    public ServingPlan Read(ParseResult parsed)
    {
        LengthKind kind = Kinds[parsed.GetValue(_lengths)!];
        TokenLengths.TryParse(parsed.GetValue(_prompt)!, kind, out TokenLengths prompt);
        TokenLengths.TryParse(parsed.GetValue(_generated)!, kind, out TokenLengths generated);
        bool serves = _load == Load.Serve;
        ServingPlan plan = new(
            _load,
            new WorkloadOptions
            {
                Requests = Within(_requests, 1, 1_000_000),
                PromptTokens = prompt,
                GeneratedTokens = generated,
                SharedPrefix = Within(_shared, 0, 1_000_000),
                Rate = serves ? parsed.GetValue(_rate) : null,
                Seed = parsed.GetValue(_seed),
            },
            Within(_warmup, 0, 100_000),
            new EngineOptions
            {
                Preset = Presets[parsed.GetValue(_preset)!],
                MaxSequences = Among(_sequences, 4_096),
                TokenBudget = Among(_budget, 65_536),
                // Sessions have a default of their own, which is not the preset's.
                ChunkSize = parsed.GetResult("--chunk") is OptionResult { Implicit: false } chunk ? chunk.GetValueOrDefault<int>() : null,
                CacheTokens = Among(_cache, int.MaxValue),
                PrefixCaching = !parsed.GetValue(_noPrefixCache),
                Cascade = !parsed.GetValue(_noCascade),
                Policy = Policies[parsed.GetValue(_policy)!],
            },
            serves ? Bound(_ttft) : null,
            serves ? Bound(_tpot) : null,
            $"{Lengths(_prompt)} prompt tokens, {Lengths(_generated)} generated",
            parsed.GetValue(_preset)!,
            parsed.GetValue(_policy)!,
            parsed.GetValue(_plot),
            parsed.GetValue(_json));
        if (plan.Workload.Rate is { } rate && !(rate is > 0 and <= 1e6))
        {
            throw new ArgumentException($"--rate is {rate}, and may be any number above 0, up to a million a second");
        }

        if (plan.Plot is { } plot && System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(plot)) is { } folder && !Directory.Exists(folder))
        {
            throw new DirectoryNotFoundException($"--plot wants to write into '{folder}', and there is no such folder: make it first");
        }

        return plan;

        int Within(Option<int> option, int least, int most) => Check(option, parsed.GetValue(option), least, most);

        int? Among(Option<int?> option, int most) => parsed.GetValue(option) is { } value ? Check(option, value, 1, most) : null;

        static int Check(Option option, int value, int least, int most) =>
            value >= least && value <= most ? value : throw new ArgumentException($"{option.Name} is {value}, and may be {least} to {most}");

        double? Bound(Option<double?> option) =>
            parsed.GetValue(option) is { } bound && !(bound > 0) ? throw new ArgumentException($"{option.Name} is {bound}, and may be any number of milliseconds above 0") : parsed.GetValue(option);

        string Lengths(Option<string> option)
        {
            string text = parsed.GetValue(option)!;
            return text.Contains('-', StringComparison.Ordinal) ? $"{text} (uniform)" : $"{text} ({parsed.GetValue(_lengths)})";
        }
    }
}

/// <summary>A serving benchmark that was asked for.</summary>
internal sealed record ServingPlan(
    Load Load, WorkloadOptions Workload, int WarmUp, EngineOptions Engine, double? TtftBound, double? TpotBound, string Lengths, string Preset, string Policy, string? Plot, bool Json);
