using System.Runtime.InteropServices;
using System.Text.Json;
using Sluice.Decoding;
using Sluice.Interop;
using Sluice.Templates;

namespace Sluice.Tests.Golden;

/// <summary>
/// The models that ship (models/tales and its draft) against PyTorch in float64: goldens of tools/demo-model/evaluate.py. They need nothing
/// but the repository, so a fresh clone is held against a trained model.
/// </summary>
public sealed class ShippedModelTests
{
    public static TheoryData<string> Models() => [.. Shipped.Names];

    public static TheoryData<string, Backend, DType> Backends()
    {
        TheoryData<string, Backend, DType> rows = [];
        foreach (string name in Shipped.Names)
        {
            rows.Add(name, Backend.Cpu, DType.F32);
            rows.Add(name, Backend.Cuda, DType.F32);
            rows.Add(name, Backend.Cuda, DType.F16);
        }

        // The executor plays the small one.
        rows.Add("tales-draft", Backend.Simt, DType.F16);
        return rows;
    }

    [Theory]
    [MemberData(nameof(Models))]
    public async Task The_chat_template_gives_the_golden_prompts(string name)
    {
        Shipped golden = Shipped.Load(name);
        using Model model = await golden.OpenAsync(Backend.Cpu);
        Assert.Equal(32, golden.Prompts.Count);
        foreach (ShippedPrompt p in golden.Prompts)
        {
            Assert.Equal(p.PromptIds, model.EncodeChat(p.Chat));
        }
    }

    [Theory]
    [MemberData(nameof(Models))]
    public async Task Cpu_generates_what_PyTorch_generated(string name)
    {
        Shipped golden = Shipped.Load(name);
        using Model model = await golden.OpenAsync(Backend.Cpu);
        using Session session = model.CreateSession();
        int compared = 0;
        foreach (ShippedPrompt p in golden.Prompts.Where(p => p.MinMargin > 1e-3))
        {
            List<int> ids = [];
            string text = "";
            await foreach (GeneratedToken token in session.GenerateAsync(p.PromptIds, new SamplingParameters { MaxTokens = golden.MaxTokens }, TestContext.Current.CancellationToken))
            {
                text += token.Text;
                if (token.Finish != FinishReason.EndOfSequence)
                {
                    ids.Add(token.Id);
                }
            }

            Assert.Equal(p.Ids, ids);
            Assert.Equal(p.Text, text);
            compared++;
        }

        // Ties are no failure, and are few.
        Assert.InRange(compared, 28, 32);
    }

    [Theory]
    [MemberData(nameof(Models))]
    public async Task Reference_logits_are_PyTorchs(string name)
    {
        (_, double max, double deviation) = await Shipped.Load(name).ErrorAsync(Backend.Reference, DType.F32, false);
        Assert.True(max <= 1e-5 * deviation, $"largest error {max:g3}, bound {1e-5 * deviation:g3}");
    }

    /// <summary>A guard against what would break the model or its files; the whole set's numbers stand in the model's card.</summary>
    [Fact]
    public async Task Cpu_answers_held_out_questions()
    {
        Dictionary<string, double> least = new() { ["arithmetic"] = 0.9, ["sorting"] = 0.8, ["counting"] = 0.85, ["json"] = 0.95, ["story"] = 0.6 };
        using Model model = await Shipped.Load("tales").OpenAsync(Backend.Cpu);
        HeldOutSet set = HeldOutSet.Read(Path.Combine(AppContext.BaseDirectory, "models", "heldout.jsonl")).Select([.. least.Keys], 30);
        SkillReport report = await SkillEvaluation.RunAsync(model, null, set, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal(5, report.Skills.Count);
        Assert.All(report.Skills, s => Assert.True(s.ExactMatch >= least[s.Skill], $"{s.Skill}: {s.ExactMatch:0.0%} of {s.Items}, least {least[s.Skill]:0.0%}"));
    }

    /// <summary>What the held-out set calls right is computed here again from the questions.</summary>
    [Fact]
    public void Held_out_references_are_right()
    {
        Dictionary<string, int> seen = [];
        foreach (string line in File.ReadLines(Path.Combine(AppContext.BaseDirectory, "models", "heldout.jsonl")))
        {
            using JsonDocument json = JsonDocument.Parse(line);
            string skill = json.RootElement.GetProperty("skill").GetString()!, reply = json.RootElement.GetProperty("reply").GetString()!;
            string question = json.RootElement.GetProperty("messages").EnumerateArray().Last().GetProperty("content").GetString()!;
            seen[skill] = seen.GetValueOrDefault(skill) + 1;
            string? wanted = skill switch { "arithmetic" => Arithmetic(question), "sorting" => Sorted(question), "counting" => Counted(question), _ => null };
            if (wanted is not null)
            {
                Assert.Equal(wanted, reply[(reply.LastIndexOf("Answer: ", StringComparison.Ordinal) is var at and >= 0 ? at + 8 : 0)..]);
            }
            else if (skill == "json")
            {
                using JsonDocument record = JsonDocument.Parse(reply);
                foreach (JsonProperty p in record.RootElement.EnumerateObject())
                {
                    Assert.Contains(p.Name, question, StringComparison.Ordinal);
                    Assert.True(p.Value.ValueKind == JsonValueKind.Null || question.Contains(p.Value.ToString(), StringComparison.Ordinal), line);
                }
            }
            else if (!reply.StartsWith("Because", StringComparison.Ordinal))
            {
                // The story says it, if not in the same letters.
                Assert.Contains(reply.TrimEnd('.').Split(' ')[^1], question, StringComparison.OrdinalIgnoreCase);
            }
        }

        Assert.Equal(["arithmetic", "counting", "json", "sorting", "story"], seen.Keys.Order(StringComparer.Ordinal));
        Assert.All(seen.Values, n => Assert.True(n >= 100));
    }

    /// <summary>The yardstick is naive loops, rounded by each op's precision record.</summary>
    [Theory]
    [MemberData(nameof(Backends))]
    public async Task Logits_are_as_near_to_PyTorchs_as_the_precision_records_allow(string name, Backend backend, DType type)
    {
        Assert.SkipWhen(Device.Count(backend) == 0, $"no {backend} device is here");
        Shipped golden = Shipped.Load(name);
        (double naive, double naiveMax, double deviation) = await golden.ErrorAsync(Backend.Reference, type, true);
        (double mean, double max, _) = await golden.ErrorAsync(backend, type, false);
        TestContext.Current.TestOutputHelper?.WriteLine($"{name} {backend} {type}: mean {mean / deviation:g3}, max {max / deviation:g3} of the deviation; naive loops {naive / deviation:g3}, {naiveMax / deviation:g3}");
        Assert.True(mean <= (2 * naive) + (1e-6 * deviation), $"mean error {mean:g4}, of naive loops {naive:g4}");
        Assert.True(max <= (4 * naiveMax) + (1e-5 * deviation), $"largest error {max:g4}, of naive loops {naiveMax:g4}");
    }

    private static int[] Numbers(string text) => [.. System.Text.RegularExpressions.Regex.Matches(text, "[0-9]+").Select(m => int.Parse(m.Value, System.Globalization.CultureInfo.InvariantCulture))];

    private static string Arithmetic(string question)
    {
        int[] n = Numbers(question);
        Assert.Equal(2, n.Length);
        bool plus = new[] { "+", "Add", "plus", "sum", "together", "is that" }.Any(w => question.Contains(w, StringComparison.Ordinal));
        bool turned = question.StartsWith("Subtract", StringComparison.Ordinal) || question.StartsWith("Take", StringComparison.Ordinal);
        return (plus ? n[0] + n[1] : turned ? n[1] - n[0] : n[0] - n[1]).ToString(System.Globalization.CultureInfo.InvariantCulture);
    }

    private static string Sorted(string question)
    {
        bool down = new[] { "largest to smallest", "largest first", "descending" }.Any(w => question.Contains(w, StringComparison.Ordinal));
        return string.Join(", ", down ? Numbers(question).OrderDescending() : Numbers(question).Order());
    }

    private static string Counted(string question)
    {
        System.Text.RegularExpressions.Match m = System.Text.RegularExpressions.Regex.Match(question, "^(?:How many words are in this list: |Count the words: |How many times is ([a-z]+) in this list: |Count the word ([a-z]+): |How often does ([a-z]+) appear in )(.*)[.?]$");
        Assert.True(m.Success, question);
        string[] words = m.Groups[4].Value.Split(", ");
        string what = m.Groups[1].Value + m.Groups[2].Value + m.Groups[3].Value;
        return (what.Length == 0 ? words.Length : words.Count(w => w == what)).ToString(System.Globalization.CultureInfo.InvariantCulture);
    }
}

/// <summary>A conversation's prompt, and what float64 arithmetic continued it with.</summary>
internal sealed record ShippedPrompt(string Skill, ChatTemplateInput Chat, int[] PromptIds, int[] Ids, string Text, double MinMargin, int[] LogitRows, float[] Logits);

/// <summary>A shipped model's folder and its goldens.</summary>
internal sealed class Shipped
{
    private Shipped(string folder, int vocabulary, int maxTokens, IReadOnlyList<ShippedPrompt> prompts) => (Folder, Vocabulary, MaxTokens, Prompts) = (folder, vocabulary, maxTokens, prompts);

    public static IReadOnlyList<string> Names { get; } = ["tales", "tales-draft"];

    public string Folder { get; }

    public int Vocabulary { get; }

    public int MaxTokens { get; }

    public IReadOnlyList<ShippedPrompt> Prompts { get; }

    public static Shipped Load(string name)
    {
        string data = Path.Combine(AppContext.BaseDirectory, "data", "models", name);
        using JsonDocument json = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(data, "golden.json")));
        float[] all = MemoryMarshal.Cast<byte, float>(File.ReadAllBytes(Path.Combine(data, "golden.f32"))).ToArray();
        int vocabulary = json.RootElement.GetProperty("vocabulary").GetInt32(), at = 0;
        List<ShippedPrompt> prompts = [];
        foreach (JsonElement p in json.RootElement.GetProperty("prompts").EnumerateArray())
        {
            int[] rows = Ints(p.GetProperty("logit_rows"));
            ChatTemplateInput chat = new()
            {
                Messages = [.. p.GetProperty("messages").EnumerateArray().Select(m => new ChatMessage(m.GetProperty("role").GetString()!, m.GetProperty("content").GetString()!))],
                AddGenerationPrompt = true,
            };
            prompts.Add(new ShippedPrompt(
                p.GetProperty("skill").GetString()!, chat, Ints(p.GetProperty("prompt_ids")), Ints(p.GetProperty("ids")), p.GetProperty("text").GetString()!,
                p.GetProperty("min_margin").GetDouble(), rows, all.AsSpan(at, rows.Length * vocabulary).ToArray()));
            at += rows.Length * vocabulary;
        }

        Assert.Equal(all.Length, at);
        return new Shipped(Path.Combine(AppContext.BaseDirectory, "models", name), vocabulary, json.RootElement.GetProperty("max_tokens").GetInt32(), prompts);
    }

    public Task<Model> OpenAsync(Backend backend, DType? type = null, bool rounded = false) => Model.LoadAsync(
        Folder, type is { } t ? new ModelOptions { Device = backend, Threads = 2, ActivationType = t, KvType = t, Rounded = rounded } : new ModelOptions { Device = backend, Threads = 2 },
        cancellationToken: TestContext.Current.CancellationToken);

    /// <summary>Mean and largest error of the kept rows of a prompt of each skill, and the deviation of the truth.</summary>
    public async Task<(double Mean, double Max, double Deviation)> ErrorAsync(Backend backend, DType type, bool rounded)
    {
        using Model model = await OpenAsync(backend, type, rounded);
        double sum = 0, max = 0, total = 0, squares = 0;
        long count = 0;
        foreach (ShippedPrompt p in Prompts.DistinctBy(p => p.Skill))
        {
            int[] tokens = [.. p.PromptIds, .. p.Ids];
            using Session session = new(model, tokens.Length, 512, 512);
            float[] logits = session.Logits(tokens, 512);
            for (int r = 0; r < p.LogitRows.Length; r++)
            {
                ReadOnlySpan<float> mine = logits.AsSpan((p.PromptIds.Length - 1 + p.LogitRows[r]) * Vocabulary, Vocabulary), truth = p.Logits.AsSpan(r * Vocabulary, Vocabulary);
                for (int i = 0; i < Vocabulary; i++, count++)
                {
                    double error = Math.Abs((double)mine[i] - truth[i]);
                    sum += error;
                    max = Math.Max(max, double.IsNaN(error) ? double.PositiveInfinity : error);
                    total += truth[i];
                    squares += (double)truth[i] * truth[i];
                }
            }
        }

        return (sum / count, max, Math.Sqrt((squares / count) - (total / count * (total / count))));
    }

    private static int[] Ints(JsonElement array) => [.. array.EnumerateArray().Select(e => e.GetInt32())];
}
