using System.CommandLine;
using System.Diagnostics;
using System.Text.Json;
using Sluice.Decoding;

namespace Sluice.Console;

/// <summary>sluice perplexity MODEL FILE: how well a model predicts a text.</summary>
internal static class PerplexityCommand
{
    public static Command Create()
    {
        ModelArguments model = new();
        Option<bool> json = new("--json") { Description = "Print one JSON object" };
        Command command = new("perplexity", "Measure how well a model predicts a text.") { json };
        model.AddTo(command);
        Argument<string> file = new("FILE") { Description = "A UTF-8 text" };
        command.Arguments.Add(file);
        command.SetAction(async (parsed, cancellation) =>
        {
            string text = File.ReadAllText(parsed.GetValue(file)!);
            using Model loaded = await model.LoadAsync(parsed, cancellation);
            using Session session = loaded.CreateSession();
            int[] tokens = loaded.Tokenizer.Encode(text);
            Stopwatch clock = Stopwatch.StartNew();
            TextScore score = await Terminal.WithProgressAsync<TextScore, long>(
                "scoring", done => (done, tokens.Length), progress => Task.Run(() => Evaluation.Score(loaded, session, tokens, progress, cancellation), cancellation));
            PerplexityOutput o = new(
                score.Perplexity, score.Perplexity * score.StandardError, score.BitsPerToken, score.Tokens, session.ContextLength, score.Tokens / clock.Elapsed.TotalSeconds, ModelArguments.Describe(loaded.DeviceInfo));
            System.Console.Out.WriteLine(parsed.GetValue(json)
                ? JsonSerializer.Serialize(o, JsonOutput.Lines.PerplexityOutput)
                : $"perplexity {o.Perplexity:0.0000} +/- {o.StandardError:0.0000} over {o.Tokens:N0} tokens ({o.BitsPerToken:0.000} bits a token), windows of {o.Context:N0}, {o.TokPerS:0} tok/s");
            return 0;
        });
        return command;
    }
}
