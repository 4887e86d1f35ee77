using System.CommandLine;
using System.Text.Json;
using Sluice.Decoding;
using Sluice.Interop;

namespace Sluice.Console;

/// <summary>sluice eval MODEL: what a model's file or its arithmetic loses against a baseline.</summary>
internal static class EvalCommand
{
    private const string Exact = "exact";

    // Plain sentences, so that the verb works without a file; any text will do for a comparison.
    private const string BuiltInText =
        "Once upon a time there was a small boat on a wide river. Every morning the boat carried a farmer and three sheep to the other side. " +
        "One day the wind was strong, and the rope broke. \"Hold on!\" said the farmer. The sheep lay down and the boat turned around twice. " +
        "A girl on the shore threw a new rope. The farmer caught it and pulled until they were safe. After that day the girl came along on every trip, " +
        "and the sheep liked her very much. Numbers help too: two and three make five, ten less four is six, and seven times eight is fifty-six.";

    public static Command Create()
    {
        ModelArguments model = new();
        Option<string> baseline = new("--baseline")
        {
            Description = "What to compare with: 'exact' (this file on the reference backend, sums in double), or another model file with the same vocabulary", DefaultValueFactory = _ => Exact,
        };
        Option<string?> file = new("--file") { Description = "A UTF-8 text to compare on [default: a short built-in one]" };
        Option<bool> json = new("--json") { Description = "Print one JSON object" };
        Command command = new("eval", "Measure what a model loses against a baseline.") { baseline, file, json };
        model.AddTo(command);
        command.SetAction(async (parsed, cancellation) =>
        {
            string text = parsed.GetValue(file) is { } path ? File.ReadAllText(path) : BuiltInText;
            string other = parsed.GetValue(baseline)!;
            using Model loaded = await model.LoadAsync(parsed, cancellation);
            using Model against = other == Exact
                ? await Model.LoadAsync(await model.PathAsync(parsed, cancellation), model.Options(parsed) with { Device = Backend.Reference, KvType = DType.F32 }, null, cancellation)
                : await Model.LoadAsync(await ModelArguments.ResolveAsync(other, cancellation), model.Options(parsed), null, cancellation);
            if (against.Config.VocabularySize != loaded.Config.VocabularySize)
            {
                throw new ArgumentException($"the baseline's vocabulary has {against.Config.VocabularySize:N0} tokens, the model's {loaded.Config.VocabularySize:N0}: they cannot be compared");
            }

            int[] tokens = loaded.Tokenizer.Encode(text);
            using Session mine = loaded.CreateSession(), theirs = against.CreateSession();
            Divergence d = await Terminal.WithProgressAsync<Divergence, long>(
                "comparing", done => (done, tokens.Length), progress => Task.Run(() => Evaluation.Compare(mine, theirs, loaded.Config.VocabularySize, tokens, progress, cancellation), cancellation));
            EvalOutput o = new(
                model.Name(parsed), other == Exact ? Exact : Path.GetFileName(other), d.Tokens, d.Score.Perplexity, d.BaselineScore.Perplexity, d.KlMean, d.KlMax, d.Agreement, d.LogitErrorMean, d.LogitErrorMax, d.LogitDeviation);
            if (parsed.GetValue(json))
            {
                System.Console.Out.WriteLine(JsonSerializer.Serialize(o, JsonOutput.Lines.EvalOutput));
                return 0;
            }

            System.Console.Out.WriteLine($"{o.Model} against {o.Baseline}, {o.Tokens:N0} tokens");
            System.Console.Out.WriteLine($"perplexity   {o.Perplexity:0.0000} (baseline {o.BaselinePerplexity:0.0000})");
            System.Console.Out.WriteLine($"KL           mean {o.KlMean:0.000e+0}, max {o.KlMax:0.000e+0} nats");
            System.Console.Out.WriteLine($"agreement    {o.Agreement:0.00%} of the likeliest tokens");
            System.Console.Out.WriteLine($"logit error  mean {o.LogitErrorMean:0.000e+0}, max {o.LogitErrorMax:0.000e+0} (deviation of the logits: {o.LogitDeviation:0.00})");
            return 0;
        });
        return command;
    }
}
