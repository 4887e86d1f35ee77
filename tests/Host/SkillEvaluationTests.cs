using System.Text.Json;
using Sluice.Conversion;
using Sluice.Decoding;
using Sluice.Interop;
using Sluice.Loading;
using Sluice.Templates;

namespace Sluice.Tests.Host;

/// <summary>What an evaluation reports is what the model's own logits and replies say.</summary>
public sealed class SkillEvaluationTests : IDisposable
{
    private const string Template = "{% for m in messages %}<s>{{ m.role + ',' + m.content }}</s>{% endfor %}{% if add_generation_prompt %}<s>assistant,{% endif %}";

    private readonly TempFolder _folder = new();

    [Fact]
    public async Task Perplexity_is_what_the_logits_of_each_reply_say()
    {
        using Model model = await LoadAsync(ModelWith(Template));
        HeldOutSet set = Set(("walk", "the bird was happy", "the tree and the bird"), ("talk", "do not say that", "no"), ("walk", "the bird", string.Join(' ', Enumerable.Repeat("the tree was here", 30))));
        SkillReport report = await SkillEvaluation.RunAsync(model, null, set);
        using Session session = model.CreateSession();
        Dictionary<string, List<double>> losses = [];
        foreach (HeldOutItem item in set.Items)
        {
            int[] prompt = model.EncodeChat(new ChatTemplateInput { Messages = item.Messages, AddGenerationPrompt = true });
            int[] whole = model.EncodeChat(new ChatTemplateInput { Messages = [.. item.Messages, new("assistant", item.Reply)] });
            Assert.Equal(2, whole[^1]);
            float[] logits = session.Logits(whole, 512);
            for (int t = prompt.Length; t < whole.Length; t++)
            {
                float[] row = logits[((t - 1) * 96)..(t * 96)];
                double most = row.Max();
                (losses.TryGetValue(item.Skill, out List<double>? known) ? known : losses[item.Skill] = []).Add(most + Math.Log(row.Sum(l => Math.Exp(l - most))) - row[whole[t]]);
            }
        }

        Assert.Equal(["walk", "talk"], report.Skills.Select(s => s.Skill));
        Assert.All(report.Skills, s => Assert.Equal((losses[s.Skill].Count, Math.Exp(losses[s.Skill].Average())), (s.Score.Tokens, s.Score.Perplexity), Close));
        Assert.Equal((losses.Values.Sum(l => l.Count), Math.Exp(losses.Values.SelectMany(l => l).Average())), (report.Total.Score.Tokens, report.Total.Score.Perplexity), Close);
        Assert.Equal((3, 3, "the model's template"), (report.Total.Items, report.EndsScored, report.Prompts));
        Assert.Null(report.Total.Divergence);
        Assert.Null(report.Total.BaselineRight);
    }

    [Fact]
    public async Task Model_does_not_diverge_from_itself()
    {
        string path = ModelWith(Template);
        using Model model = await LoadAsync(path), same = await LoadAsync(path);
        SkillResult total = (await SkillEvaluation.RunAsync(model, same, Set(("a", "the bird was happy", "the tree"), ("b", "do not", "say that")))).Total;
        Divergence d = total.Divergence!.Value;
        Assert.Equal((0, 0, 1, 0), (d.KlMean, d.KlMax, d.Agreement, d.LogitErrorMax));
        Assert.Equal(total.Score, d.BaselineScore);
        Assert.Equal(total.Right, total.BaselineRight);
        Assert.True(d.LogitDeviation > 0);
    }

    [Fact]
    public async Task Quantised_weights_diverge_from_the_models_own()
    {
        string path = ModelWith(Template);
        using TemporaryModel small = TemporaryModel.Create(path, TensorType.Q8_0), wide = TemporaryModel.Create(path, TensorType.F32);
        using Model model = await LoadAsync(small.Path), baseline = await LoadAsync(wide.Path), own = await LoadAsync(path);
        HeldOutSet set = Set(("a", "the bird was happy", "the tree and the bird"));
        Divergence d = (await SkillEvaluation.RunAsync(model, baseline, set)).Total.Divergence!.Value;
        Assert.InRange(d.KlMean, 1e-9, 1);
        Assert.True(d.KlMax >= d.KlMean);
        Assert.Equal(0, (await SkillEvaluation.RunAsync(own, baseline, set)).Total.Divergence!.Value.KlMax);
    }

    [Fact]
    public async Task Reply_that_the_model_gives_is_right_and_another_is_wrong()
    {
        // The third token that this model generates is made the one that ends its turn.
        string path = ModelWith(Template);
        int[] ids;
        string reply;
        using (Model model = await LoadAsync(path))
        {
            using Session session = model.CreateSession();
            List<int> all = [];
            int[] prompt = model.EncodeChat(new ChatTemplateInput { Messages = [new("user", "the bird")], AddGenerationPrompt = true });
            await foreach (GeneratedToken token in session.GenerateAsync(prompt, new SamplingParameters { MaxTokens = 16, IgnoreEndOfSequence = true }))
            {
                all.Add(token.Id);
            }

            ids = [.. all];
            int end = Enumerable.Range(2, 14).First(i => !ids.AsSpan(0, i).Contains(ids[i]));
            reply = model.Tokenizer.Decode(ids.AsSpan(0, end)).Trim();
            File.WriteAllText(Path.Combine(path, "generation_config.json"), JsonSerializer.Serialize(new { eos_token_id = new[] { 2, ids[end] } }));
        }

        Assert.NotEqual("", reply);
        using Model ends = await LoadAsync(path);
        SkillReport report = await SkillEvaluation.RunAsync(ends, ends, Set(("a", "the bird", reply), ("a", "the bird", "a tree")));
        Assert.Equal((2, 1, 1), (report.Total.Items, report.Total.Right, report.Total.BaselineRight!.Value));
        WrongReply wrong = Assert.Single(report.Wrong);
        Assert.Equal((2, reply), (wrong.Item.Line, wrong.Got!.Trim()));
    }

    [Fact]
    public async Task Item_beyond_the_context_is_wrong_and_not_scored()
    {
        using Model model = await LoadAsync(ModelWith(Template), context: 40);
        SkillReport report = await SkillEvaluation.RunAsync(model, null, Set(("a", "the bird", "the tree"), ("b", "the bird", string.Join(' ', Enumerable.Repeat("the tree", 40)))));
        Assert.Equal([0, 1], report.Skills.Select(s => s.TooLong));
        Assert.Equal((0L, 0), (report.Skills[1].Score.Tokens, report.Skills[1].Right));
        Assert.Equal(report.Skills[0].Score, report.Total.Score);
        Assert.Null(report.Wrong[^1].Got);
    }

    [Fact]
    public async Task Items_do_not_depend_on_those_before_them()
    {
        using Model model = await LoadAsync(ModelWith(Template));
        SkillReport alone = await SkillEvaluation.RunAsync(model, null, Set(("b", "the bird was here", "no"))), after = await SkillEvaluation.RunAsync(model, null, Set(("a", "the bird was happy", "the tree"), ("b", "the bird was here", "no")));
        Assert.Equal(alone.Total.Score, after.Skills[1].Score);
        Assert.Equal(alone.Wrong[^1].Got, after.Wrong[^1].Got);
    }

    [Fact]
    public async Task Template_that_rewrites_replies_leaves_the_replys_own_tokens()
    {
        using Model model = await LoadAsync(ModelWith("{% for m in messages %}<s>{{ m.role if m.role == 'user' else 'he said' }} {{ m.content }}{% endfor %}{% if add_generation_prompt %}<s>assistant {% endif %}"));
        SkillReport report = await SkillEvaluation.RunAsync(model, null, Set(("a", "the bird", "the tree")));
        Assert.Equal((model.Tokenizer.Encode("the tree", addSpecial: false).Length, 0), (report.Total.Score.Tokens, report.EndsScored));
    }

    [Fact]
    public async Task Model_without_a_template_gets_plain_text()
    {
        using Model model = await LoadAsync(ModelWith(null));
        SkillReport report = await SkillEvaluation.RunAsync(model, null, Set(("a", "the bird", "the tree")));
        Assert.Equal(("plain text", model.Tokenizer.Encode("the tree", addSpecial: false).Length), (report.Prompts, report.Total.Score.Tokens));
    }

    [Fact]
    public async Task Messages_that_the_template_refuses_name_their_line()
    {
        using Model model = await LoadAsync(ModelWith("{{ raise_exception('no system message') }}"));
        ModelFormatException e = await Assert.ThrowsAsync<ModelFormatException>(() => SkillEvaluation.RunAsync(model, null, Set(("a", "the bird", "the tree"))));
        Assert.Contains("line 1.messages: cannot be written by the model's chat template", e.Message, StringComparison.Ordinal);
        Assert.Contains("no system message", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Prompt_without_tokens_names_its_line()
    {
        using Model model = await LoadAsync(ModelWith(null));
        ModelFormatException e = await Assert.ThrowsAsync<ModelFormatException>(() => SkillEvaluation.RunAsync(model, null, Set(("a", "", "the tree"))));
        Assert.Contains("line 1: the prompt has no tokens", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Other_vocabulary_is_refused()
    {
        SmallModel.Llama().Save(_folder["small.gguf"]);
        using Model model = await LoadAsync(ModelWith(null)), other = await LoadAsync(_folder["small.gguf"]);
        Assert.Contains("vocabulary has 11 tokens", (await Assert.ThrowsAsync<ArgumentException>(() => SkillEvaluation.RunAsync(model, other, Set(("a", "a", "b"))))).Message, StringComparison.Ordinal);
        SmallModel renamed = SmallModel.Llama();
        renamed.Set("tokenizer.ggml.tokens", GgufValue.OfArray(["<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "c", "▁a", "ab", "▁ab", "<user>"]));
        renamed.Save(_folder["renamed.gguf"]);
        using Model third = await LoadAsync(_folder["renamed.gguf"]);
        Assert.Contains("token 6 is 'c' in the baseline's vocabulary, and 'b' in the model's", (await Assert.ThrowsAsync<ArgumentException>(() => SkillEvaluation.RunAsync(other, third, Set(("a", "a", "b"))))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Progress_counts_items_and_cancelling_ends_the_run()
    {
        using Model model = await LoadAsync(ModelWith(null));
        using CancellationTokenSource stop = new();
        Counter counter = new(stop);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => SkillEvaluation.RunAsync(model, null, Set(("a", "the", "b"), ("a", "the", "b"), ("a", "the", "b")), counter, stop.Token));
        Assert.Equal([1, 2], counter.Seen);
    }

    [Fact]
    public void Temporary_model_goes_when_it_is_disposed()
    {
        string place = Directory.CreateDirectory(_folder["temp"]).FullName;
        using (TemporaryModel model = TemporaryModel.Create(ModelWith(null), TensorType.Q8_0, place, null, default))
        {
            Assert.True(File.Exists(model.Path));
            Assert.InRange(model.Report.RelativeError, 1e-4, 1e-1);
        }

        Assert.False(Directory.Exists(place));
    }

    [Fact]
    public void Temporary_model_goes_when_its_making_fails_or_is_cancelled()
    {
        string place = _folder["temp"];
        Directory.CreateDirectory(place);
        Assert.Throws<FileNotFoundException>(() => TemporaryModel.Create(_folder["none.gguf"], TensorType.F32, place, null, default));
        Assert.False(Directory.Exists(place));
        Directory.CreateDirectory(place);
        using CancellationTokenSource stop = new();
        Assert.ThrowsAny<OperationCanceledException>(() => TemporaryModel.Create(ModelWith(null), TensorType.F16, place, new Stopper(stop), stop.Token));
        Assert.False(Directory.Exists(place));
    }

    public void Dispose() => _folder.Dispose();

    // A family's model of the repository, 96 tokens of lower-case words, beside a template of the test's own.
    private string ModelWith(string? template)
    {
        string path = Directory.CreateDirectory(_folder["model"]).FullName;
        foreach (string file in Directory.EnumerateFiles(Path.Combine(AppContext.BaseDirectory, "data", "families", "llama-bias")))
        {
            File.Copy(file, Path.Combine(path, Path.GetFileName(file)), overwrite: true);
        }

        if (template is not null)
        {
            File.WriteAllText(Path.Combine(path, "chat_template.jinja"), template);
        }

        return path;
    }

    private static Task<Model> LoadAsync(string path, int? context = null) =>
        Model.LoadAsync(path, new ModelOptions { Device = Backend.Cpu, Threads = 1, ContextLength = context, KvType = DType.F32 }, cancellationToken: TestContext.Current.CancellationToken);

    private static HeldOutSet Set(params (string Skill, string Prompt, string Reply)[] items) => HeldOutSet.Parse("set.jsonl", string.Join('\n', items.Select(i =>
        JsonSerializer.Serialize(new { skill = i.Skill, messages = new[] { new { role = "user", content = i.Prompt } }, reply = i.Reply }))));

    private static bool Close((long Tokens, double Perplexity) a, (long Tokens, double Perplexity) b) => a.Tokens == b.Tokens && Math.Abs(a.Perplexity - b.Perplexity) <= 1e-9 * a.Perplexity;

    private sealed class Counter(CancellationTokenSource stop) : IProgress<int>
    {
        public List<int> Seen { get; } = [];

        public void Report(int value)
        {
            Seen.Add(value);
            if (value == 2)
            {
                stop.Cancel();
            }
        }
    }

    private sealed class Stopper(CancellationTokenSource stop) : IProgress<ByteProgress>
    {
        public void Report(ByteProgress value) => stop.Cancel();
    }
}
