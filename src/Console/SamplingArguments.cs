using System.CommandLine;
using System.Globalization;

namespace Sluice.Console;

/// <summary>The options of how tokens are chosen: the same in generate and chat.</summary>
internal sealed class SamplingArguments
{
    private readonly Option<int?> _maxTokens = new("--max-tokens", "-n") { Description = "Tokens to generate at most [default: until the model ends, or the context is full]" };
    private readonly Option<float> _temperature = new("--temperature") { Description = "0: always the likeliest token", DefaultValueFactory = _ => 0 };
    private readonly Option<int> _topK = new("--top-k") { Description = "Keep this many likeliest tokens; 0: all", DefaultValueFactory = _ => 0 };
    private readonly Option<float> _topP = new("--top-p") { Description = "Keep the likeliest tokens of this total probability", DefaultValueFactory = _ => 1 };
    private readonly Option<float> _minP = new("--min-p") { Description = "Keep tokens of at least this fraction of the largest probability", DefaultValueFactory = _ => 0 };
    private readonly Option<float> _repetition = new("--repetition-penalty") { Description = "Of tokens in prompt and answer; 1: none", DefaultValueFactory = _ => 1 };
    private readonly Option<float> _presence = new("--presence-penalty") { Description = "Of tokens in the answer", DefaultValueFactory = _ => 0 };
    private readonly Option<float> _frequency = new("--frequency-penalty") { Description = "Of tokens in the answer, once an occurrence", DefaultValueFactory = _ => 0 };
    private readonly Option<string[]> _bias = new("--logit-bias") { Description = "ID=VALUE, added to a token's logit; -inf forbids it (repeatable)", DefaultValueFactory = _ => [] };
    private readonly Option<ulong?> _seed = new("--seed") { Description = "The same seed gives the same answer [default: random]" };
    private readonly Option<string[]> _stop = new("--stop") { Description = "A text that ends the answer (repeatable)", DefaultValueFactory = _ => [] };
    private readonly Option<bool> _suggested = new("--model-sampling") { Description = "Take what the model's makers suggest, where they do, for what is not given here" };
    private readonly Option<bool> _ignoreEos = new("--ignore-eos") { Description = "Go on past the model's own end" };
    private readonly Option<int?> _logProbs = new("--logprobs") { Description = "With --json: log-probabilities of each token and the N likeliest" };

    public void AddTo(Command command)
    {
        foreach (Option option in new Option[] { _maxTokens, _temperature, _topK, _topP, _minP, _repetition, _presence, _frequency, _bias, _seed, _stop, _suggested, _ignoreEos, _logProbs })
        {
            command.Options.Add(option);
        }
    }

    /// <param name="parsed">The command line.</param>
    /// <param name="model">Whose suggestions count, where they are asked for.</param>
    public SamplingParameters Read(ParseResult parsed, Model model)
    {
        SamplingParameters? suggested = parsed.GetValue(_suggested) ? model.SuggestedSampling : null;
        T Value<T>(Option<T> option, Func<SamplingParameters, T> suggestion) =>
            suggested is null || parsed.GetResult(option) is { Implicit: false } ? parsed.GetValue(option)! : suggestion(suggested);
        return new SamplingParameters
        {
            MaxTokens = parsed.GetValue(_maxTokens),
            Temperature = Value(_temperature, s => s.Temperature),
            TopK = Value(_topK, s => s.TopK),
            TopP = Value(_topP, s => s.TopP),
            MinP = Value(_minP, s => s.MinP),
            RepetitionPenalty = Value(_repetition, s => s.RepetitionPenalty),
            PresencePenalty = parsed.GetValue(_presence),
            FrequencyPenalty = parsed.GetValue(_frequency),
            LogitBias = Biases(parsed.GetValue(_bias) ?? []),
            Seed = parsed.GetValue(_seed),
            Stop = parsed.GetValue(_stop) ?? [],
            IgnoreEndOfSequence = parsed.GetValue(_ignoreEos),
            LogProbs = parsed.GetValue(_logProbs),
        };
    }

    private static Dictionary<int, float> Biases(string[] texts)
    {
        Dictionary<int, float> biases = [];
        foreach (string text in texts)
        {
            string[] parts = text.Split('=');
            float value = 0;
            bool valid = parts.Length == 2 && int.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out _)
                && (parts[1] is "-inf" || float.TryParse(parts[1], CultureInfo.InvariantCulture, out value));
            if (!valid)
            {
                throw new ArgumentException($"--logit-bias '{text}' is not ID=VALUE, as in 42=-1.5 or 42=-inf");
            }

            biases[int.Parse(parts[0], CultureInfo.InvariantCulture)] = parts[1] is "-inf" ? float.NegativeInfinity : value;
        }

        return biases;
    }
}
