using System.CommandLine;
using System.Diagnostics;
using System.Text;
using System.Text.Json;
using Sluice.Templates;

namespace Sluice.Console;

/// <summary>sluice generate MODEL (--prompt TEXT | --messages FILE): continues a text, or answers in a conversation.</summary>
internal static class GenerateCommand
{
    public static Command Create()
    {
        ModelArguments model = new();
        SamplingArguments sampling = new();
        Option<string?> prompt = new("--prompt", "-p") { Description = "The text to continue" };
        ChatArguments chat = new(required: false);
        Option<bool> json = new("--json") { Description = "Print one JSON object" };
        Command command = new("generate", "Continue a text, or answer in a conversation.") { prompt, json };
        model.AddTo(command);
        sampling.AddTo(command);
        chat.AddTo(command);
        command.Validators.Add(r =>
        {
            if (!r.Has(prompt) == chat.IsAbsent(r))
            {
                r.AddError("give one of --prompt and --messages");
            }
        });
        command.SetAction((parsed, cancellation) => RunAsync(parsed, model, sampling, parsed.GetValue(prompt), chat.Read(parsed), parsed.GetValue(json), cancellation));
        return command;
    }

    private static async Task<int> RunAsync(ParseResult parsed, ModelArguments arguments, SamplingArguments sampling, string? prompt, ChatTemplateInput? chat, bool json, CancellationToken cancellation)
    {
        using Model model = await arguments.LoadAsync(parsed, cancellation);
        SamplingParameters parameters = sampling.Read(parsed, model);
        using Session session = model.CreateSession();
        int[] ids = chat is null ? model.Tokenizer.Encode(prompt!) : model.EncodeChat(chat);
        Answer answer = new();
        IAsyncEnumerable<GeneratedToken> tokens = session.GenerateAsync(ids, parameters, cancellation);
        if (!json)
        {
            // After the call that checks the parameters: an error stands alone.
            System.Console.Out.Write(prompt);
        }

        await foreach (GeneratedToken token in tokens)
        {
            answer.Add(token);
            if (!json)
            {
                System.Console.Out.Write(token.Text);
                System.Console.Out.Flush();
            }
        }

        if (json)
        {
            List<TokenOutput>? logProbs = parameters.LogProbs is null ? null
                : [.. answer.Tokens.Select(t => new TokenOutput(t.Id, t.LogProb ?? 0, t.Top is { Count: > 0 } top ? [.. top.Select(p => new TokenOutput(p.Id, p.LogProb, null))] : null))];
            System.Console.Out.WriteLine(JsonSerializer.Serialize(
                new GenerateOutput(ids.Length, ids, [.. answer.Tokens.Select(t => t.Id)], answer.Text, answer.FinishReason, answer.TimeToFirstToken, answer.TokensPerSecond, logProbs, ModelArguments.Describe(model.DeviceInfo)),
                JsonOutput.Lines.GenerateOutput));
        }
        else
        {
            System.Console.Out.WriteLine();
            Terminal.Note(answer.Summary(ids.Length));
        }

        return 0;
    }
}

/// <summary>What a generation said, and how fast.</summary>
internal sealed class Answer
{
    private readonly StringBuilder _text = new();
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private double _last;

    /// <summary>The answer's tokens, without the one that ended it.</summary>
    public List<GeneratedToken> Tokens { get; } = [];

    public string Text => _text.ToString();

    public string FinishReason { get; private set; } = "length";

    /// <summary>Milliseconds from the request to the first token.</summary>
    public double TimeToFirstToken { get; private set; }

    /// <summary>Tokens after the first, a second.</summary>
    public double TokensPerSecond => Tokens.Count > 1 && _last > TimeToFirstToken ? (Tokens.Count - 1) * 1000 / (_last - TimeToFirstToken) : 0;

    public void Add(GeneratedToken token)
    {
        _last = _clock.Elapsed.TotalMilliseconds;
        TimeToFirstToken = Tokens.Count == 0 ? _last : TimeToFirstToken;
        _text.Append(token.Text);
        if (token.Finish != Sluice.FinishReason.EndOfSequence)
        {
            Tokens.Add(token);
        }

        if (token.Finish is { } finish)
        {
            FinishReason = finish switch { Sluice.FinishReason.EndOfSequence => "eos", Sluice.FinishReason.StopText => "stop", Sluice.FinishReason.ContextFull => "context", _ => "length" };
        }
    }

    public string Summary(int promptTokens) =>
        $"{promptTokens} prompt tokens, first token after {TimeToFirstToken:0} ms, {Tokens.Count} tokens at {TokensPerSecond:0.0} tok/s ({FinishReason})";
}
