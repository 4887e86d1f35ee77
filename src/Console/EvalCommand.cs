using System.CommandLine;
using System.CommandLine.Parsing;
using System.Text.Json;
using Sluice.Conversion;
using Sluice.Decoding;
using Sluice.Interop;
using Sluice.Loading;

namespace Sluice.Console;

/// <summary>sluice eval MODEL: how good a model is on a held-out set, and what its weights or its arithmetic lose against a baseline.</summary>
internal sealed class EvalCommand
{
    private const string Exact = "exact", Wide = "f32", AsTheyAre = "keep", BuiltIn = "built-in";

    private readonly ModelArguments _model = new();
    private readonly Option<string?> _set = new("--set") { Description = "The held-out set, as JSON lines of skill, messages, reply, and match (text or json) and mark where wanted [default: a built-in one]" };
    private readonly Option<string[]> _skills = new("--skill") { Description = "Only these skills of the set (one or more names)", AllowMultipleArgumentsPerToken = true, DefaultValueFactory = _ => [] };
    private readonly Option<int?> _limit = new("--limit") { Description = "The first so many items of each skill" };
    private readonly Option<string> _weights;
    private readonly Option<string?> _baseline = new("--baseline")
    {
        Description = "What to compare with: 'f32' (MODEL's own weights, widened, with f32 activations and KV cache), 'exact' (the weights that run, on the reference backend, sums in double), "
            + "or another model with the same vocabulary [default: none; with --file, exact]",
    };
    private readonly Option<string?> _file = new("--file") { Description = "Compare on a UTF-8 text in place of a set" };
    private readonly Option<int> _wrong = new("--show-wrong") { Description = "Show up to this many wrong replies", DefaultValueFactory = _ => 0 };
    private readonly Option<bool> _json = new("--json") { Description = "Print one JSON object" };
    private readonly Dictionary<string, TensorType> _types = ModelConverter.Types.ToDictionary(t => TensorTypes.Name(t).ToLowerInvariant());

    private EvalCommand() =>
        _weights = ModelArguments.Choice("--weights", "Run the model with its weights in this type, as convert would write them", AsTheyAre, [AsTheyAre, .. _types.Keys]);

    public static Command Create()
    {
        EvalCommand eval = new();
        Command command = new("eval", $"Measure a model on a held-out set, and what it loses against a baseline.\n  {SkillEvaluation.Convention}.")
        {
            eval._set, eval._skills, eval._limit, eval._weights, eval._baseline, eval._file, eval._wrong, eval._json,
        };
        eval._model.AddTo(command);
        command.Validators.Add(r =>
        {
            if (r.Has(eval._file) && new Option[] { eval._set, eval._skills, eval._limit, eval._wrong }.FirstOrDefault(r.Has) is { } option)
            {
                r.AddError($"--file compares on a text, and {option.Name} is about a set: give one of them");
            }
        });
        command.SetAction(eval.RunAsync);
        return command;
    }

    private async Task<int> RunAsync(ParseResult parsed, CancellationToken cancellation)
    {
        // What is wrong with the small files shows before the large ones are touched.
        string? text = parsed.GetValue(_file) is { } file ? File.ReadAllText(file) : null;
        HeldOutSet? set = text is null ? ReadSet(parsed) : null;
        string? baseline = parsed.GetValue(_baseline) ?? (text is null ? null : Exact);
        string path = await _model.PathAsync(parsed, cancellation);
        ModelOptions options = _model.Options(parsed);
        if (options.Int8Activations)
        {
            options = options with { ChunkSize = Math.Min(options.ChunkSize, 8) }; // rows that the option is about: what decode steps compute is measured
        }

        using TemporaryModel? converted = _types.TryGetValue(parsed.GetValue(_weights)!, out TensorType type) ? await ConvertAsync(path, type, cancellation) : null;
        string run = converted?.Path ?? path;
        if (converted is not null)
        {
            options = options with { CachePacked = false }; // beside a file that goes away
        }

        using Model model = await ModelArguments.LoadAsync(run, options, cancellation);
        using Model? against = baseline switch
        {
            null => null,
            Exact => await ModelArguments.LoadAsync(run, options with { CachePacked = false, Device = Backend.Reference, KvType = DType.F32 }, cancellation),
            Wide => await LoadWideAsync(path, options with { CachePacked = false, ActivationType = DType.F32, KvType = DType.F32 }, cancellation),
            _ => await ModelArguments.LoadAsync(await ModelArguments.ResolveAsync(baseline, cancellation), options, cancellation),
        };
        converted?.Dispose(); // the weights are on the device
        string? name = baseline is null or Exact or Wide ? baseline : Path.GetFileName(Path.TrimEndingDirectorySeparator(baseline));
        return text is null ? await RunSetAsync(parsed, model, against, name, set!, cancellation) : await RunTextAsync(parsed, model, against!, name!, text, cancellation);
    }

    private HeldOutSet ReadSet(ParseResult parsed)
    {
        HeldOutSet set;
        if (parsed.GetValue(_set) is { } path)
        {
            set = HeldOutSet.Read(path);
        }
        else
        {
            using StreamReader reader = new(typeof(EvalCommand).Assembly.GetManifestResourceStream("heldout.jsonl")!);
            set = HeldOutSet.Parse(BuiltIn, reader.ReadToEnd());
        }

        string[] skills = parsed.GetValue(_skills)!;
        return set.Select(skills.Length == 0 ? null : skills, parsed.GetValue(_limit));
    }

    private static async Task<TemporaryModel> ConvertAsync(string path, TensorType type, CancellationToken cancellation)
    {
        TemporaryModel model = await Terminal.WithProgressAsync<TemporaryModel, ByteProgress>("converting", p => (p.Done, p.Total), progress =>
            Task.Run(() => TemporaryModel.Create(path, type, progress, cancellation), cancellation));
        Terminal.Note($"weights: {string.Join(", ", model.Report.Tensors.Select(t => $"{t.Value} {t.Key}"))}; relative error {model.Report.RelativeError:0.00e+0} (root mean square)");
        return model;
    }

    private static async Task<Model> LoadWideAsync(string path, ModelOptions options, CancellationToken cancellation)
    {
        using TemporaryModel wide = await ConvertAsync(path, TensorType.F32, cancellation);
        return await ModelArguments.LoadAsync(wide.Path, options, cancellation);
    }

    private async Task<int> RunTextAsync(ParseResult parsed, Model model, Model against, string baseline, string text, CancellationToken cancellation)
    {
        Evaluation.RequireSameVocabulary(model, against);
        int[] tokens = model.Tokenizer.Encode(text);
        using Session mine = model.CreateSession(), theirs = against.CreateSession();
        Divergence d = await Terminal.WithProgressAsync<Divergence, long>(
            "comparing", done => (done, tokens.Length), progress => Task.Run(() => Evaluation.Compare(mine, theirs, model.Config.VocabularySize, tokens, progress, cancellation), cancellation));
        EvalOutput o = new(
            _model.Name(parsed), parsed.GetValue(_weights)!, DeviceName(model), baseline, d.Tokens, d.Score.Perplexity, d.BaselineScore.Perplexity, d.KlMean, d.KlMax, d.Agreement, d.LogitErrorMean, d.LogitErrorMax, d.LogitDeviation);
        if (parsed.GetValue(_json))
        {
            System.Console.Out.WriteLine(JsonSerializer.Serialize(o, JsonOutput.Lines.EvalOutput));
            return 0;
        }

        System.Console.Out.WriteLine($"{o.Model} against {o.Baseline}, {o.Tokens:N0} tokens");
        System.Console.Out.WriteLine($"perplexity   {o.Perplexity:0.0000} (baseline {o.BaselinePerplexity:0.0000})");
        WriteDivergence(d);
        return 0;
    }

    private async Task<int> RunSetAsync(ParseResult parsed, Model model, Model? against, string? baseline, HeldOutSet set, CancellationToken cancellation)
    {
        int show = parsed.GetValue(_wrong);
        SkillReport report = await Terminal.WithProgressAsync<SkillReport, int>(
            "evaluating", done => (done, set.Items.Count), progress => SkillEvaluation.RunAsync(model, against, set, progress, cancellation));
        WrongOutput[] wrong = [.. report.Wrong.Take(show).Select(w => new WrongOutput(w.Item.Skill, w.Item.Line, w.Item.Messages[^1].Content!, w.Item.Reply, w.Got))];
        SkillResult t = report.Total;
        string weights = parsed.GetValue(_weights)!, name = _model.Name(parsed), from = Path.GetFileName(set.Name);
        if (parsed.GetValue(_json))
        {
            SetOutput o = new(Output(t))
            {
                Model = name,
                Weights = weights,
                Device = DeviceName(model),
                Activations = ModelArguments.DTypeName(model.ActivationType) + (_model.Options(parsed).Int8Activations ? ", int8 in products" : ""),
                Kv = ModelArguments.DTypeName(model.KvType),
                Baseline = baseline,
                Set = from,
                Prompts = report.Prompts,
                Convention = SkillEvaluation.Convention,
                EndsScored = report.EndsScored,
                Skills = [.. report.Skills.Select(Output)],
                Wrong = show > 0 ? wrong : null,
            };
            System.Console.Out.WriteLine(JsonSerializer.Serialize(o, JsonOutput.Lines.SetOutput));
            return 0;
        }

        foreach (WrongOutput w in wrong)
        {
            // As JSON texts: one line each, and nothing that steers a terminal.
            Terminal.Note($"wrong: line {w.Line} ({w.Skill}) {Quote(w.Prompt)}\n  expected {Quote(w.Expected)}\n  got      {(w.Got is null ? "nothing: it does not fit in the context" : Quote(w.Got))}");
        }

        int width = Math.Max(10, report.Skills.Max(s => s.Skill.Length));
        System.Console.Out.WriteLine($"{name}, weights {weights}, {DeviceName(model)}{(baseline is null ? "" : $", against {baseline}")}; {from} set, {t.Items:N0} items, {t.Score.Tokens:N0} tokens scored; prompts by {report.Prompts}");
        System.Console.Out.WriteLine($"{"skill".PadRight(width)}   items   exact  95% interval    perplexity{(baseline is null ? "" : "   | baseline exact  perplexity |  KL mean  agreement")}");
        foreach (SkillResult s in report.Skills.Append(t))
        {
            (double low, double high) = s.Interval;
            string row = $"{(s.Skill.Length == 0 ? "all" : s.Skill).PadRight(width)}  {s.Items,6:N0}  {s.ExactMatch,6:0.0%}  {low,6:0.0%} - {high,6:0.0%}  {Perplexity(s.Score),10}";
            System.Console.Out.WriteLine(s.Divergence is not { } d ? row : $"{row}   | {s.BaselineExactMatch,14:0.0%}  {Perplexity(d.BaselineScore),10} | {d.KlMean,8:0.0e+0}  {d.Agreement,9:0.00%}");
        }

        if (t.Divergence is { } all)
        {
            WriteDivergence(all);
        }

        if (t.TooLong > 0)
        {
            System.Console.Out.WriteLine($"too long     {t.TooLong:N0} items do not fit in the context of {model.ContextLength:N0} tokens");
        }

        System.Console.Out.WriteLine($"scored       {report.EndsScored:N0} of {t.Items:N0} replies with their end");
        System.Console.Out.WriteLine($"how          {SkillEvaluation.Convention.Replace("; ", ";\n             ", StringComparison.Ordinal)}");
        return 0;
    }

    private static void WriteDivergence(Divergence d)
    {
        System.Console.Out.WriteLine($"KL           mean {d.KlMean:0.000e+0}, max {d.KlMax:0.000e+0} nats");
        System.Console.Out.WriteLine($"agreement    {d.Agreement:0.00%} of the likeliest tokens");
        System.Console.Out.WriteLine($"logit error  mean {d.LogitErrorMean:0.000e+0}, max {d.LogitErrorMax:0.000e+0} (deviation of the logits: {d.LogitDeviation:0.00})");
    }

    private static SkillOutput Output(SkillResult s)
    {
        (double low, double high) = s.Interval;
        Divergence? d = s.Divergence;
        return new SkillOutput(
            s.Skill.Length == 0 ? null : s.Skill, s.Items, s.TooLong, s.Right, s.ExactMatch, low, high, s.Score.Tokens, s.Score.Perplexity, s.Score.Perplexity * s.Score.StandardError,
            s.BaselineRight, s.BaselineExactMatch, d?.BaselineScore.Perplexity, d?.KlMean, d?.KlMax, d?.Agreement, d?.LogitErrorMean, d?.LogitErrorMax, d?.LogitDeviation);
    }

    private static string DeviceName(Model model) => model.DeviceInfo.Backend.ToString().ToLowerInvariant();

    private static string Perplexity(TextScore score) => score.Tokens == 0 ? "-" : score.Perplexity < 1e6 ? $"{score.Perplexity:0.0000}" : $"{score.Perplexity:0.00e+0}";

    private static string Quote(string text) => JsonSerializer.Serialize(text, JsonOutput.Lines.String);
}
