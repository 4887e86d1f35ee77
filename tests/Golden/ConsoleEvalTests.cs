using System.Text.Json;
using Sluice.Tests.Host;

namespace Sluice.Tests.Golden;

/// <summary>sluice eval on a set: what it prints, what it leaves, how it fails.</summary>
public sealed class ConsoleEvalTests : IDisposable
{
    private const string Items = """
        {"skill":"birds","messages":[{"role":"user","content":"the bird was happy"}],"reply":"the tree"}
        {"skill":"birds","messages":[{"role":"user","content":"the bird was here"}],"reply":"the tree and the bird"}
        {"skill":"trees","messages":[{"role":"user","content":"do not say that"}],"reply":"true","match":"json"}
        """;

    private static readonly string Model = Path.Combine(AppContext.BaseDirectory, "data", "families", "llama-bias");

    private readonly TempFolder _folder = new();

    [Fact]
    public void Json_holds_totals_and_skills()
    {
        JsonElement o = Json("--set", Set(), "--show-wrong", "2");
        Assert.Equal(("llama-bias", "keep", "cpu", "set.jsonl", "plain text"), (Text(o, "model"), Text(o, "weights"), Text(o, "device"), Text(o, "set"), Text(o, "prompts")));
        Assert.Contains("nothing slides", Text(o, "convention"), StringComparison.Ordinal);
        JsonElement[] skills = [.. o.GetProperty("skills").EnumerateArray()];
        Assert.Equal(["birds", "trees"], skills.Select(s => Text(s, "skill")));
        Assert.Equal([2, 1], skills.Select(s => s.GetProperty("items").GetInt32()));
        Assert.Equal(3, o.GetProperty("items").GetInt32());
        Assert.Equal(skills.Sum(s => s.GetProperty("tokens").GetInt64()), o.GetProperty("tokens").GetInt64());
        foreach (JsonElement s in skills.Append(o))
        {
            Assert.InRange(s.GetProperty("exact_match").GetDouble(), s.GetProperty("exact_match_low").GetDouble(), s.GetProperty("exact_match_high").GetDouble());
            Assert.True(s.GetProperty("perplexity").GetDouble() > 1);
            Assert.Equal(0, s.GetProperty("too_long").GetInt32());
            Assert.False(s.TryGetProperty("kl_mean", out _));
            Assert.False(s.TryGetProperty("baseline_exact_match", out _));
        }

        JsonElement wrong = o.GetProperty("wrong")[1];
        Assert.Equal((2, "the bird was here", "the tree and the bird"), (wrong.GetProperty("line").GetInt32(), Text(wrong, "prompt"), Text(wrong, "expected")));
        Assert.Equal(2, o.GetProperty("wrong").GetArrayLength());
        Assert.True(wrong.TryGetProperty("got", out _));
    }

    [Theory, InlineData("q8_0"), InlineData("bf16")]
    public void Weights_are_held_against_the_models_own_and_no_file_is_left(string type)
    {
        JsonElement o = Json("--set", Set(), "--weights", type, "--baseline", "f32");
        Assert.Equal((type, "f32"), (Text(o, "weights"), Text(o, "baseline")));
        foreach (JsonElement s in o.GetProperty("skills").EnumerateArray().Append(o))
        {
            Assert.InRange(s.GetProperty("kl_mean").GetDouble(), 1e-9, 1);
            Assert.InRange(s.GetProperty("agreement").GetDouble(), 0, 1);
            Assert.True(s.GetProperty("baseline_perplexity").GetDouble() > 1);
            Assert.InRange(s.GetProperty("baseline_exact_match").GetDouble(), 0, 1);
        }

        Assert.Empty(Directory.EnumerateFileSystemEntries(Temporary()));
    }

    [Fact]
    public void Another_model_is_a_baseline()
    {
        JsonElement o = Json("--set", Set(), "--baseline", Model);
        Assert.Equal(("llama-bias", 0.0, 1.0), (Text(o, "baseline"), o.GetProperty("kl_max").GetDouble(), o.GetProperty("agreement").GetDouble()));
    }

    [Fact]
    public void Failure_leaves_no_file()
    {
        // The weights can be made and loaded; the baseline is not there.
        Fails("no-such-model.gguf", "--set", Set(), "--weights", "q8_0", "--baseline", "no-such-model.gguf");
        Assert.Empty(Directory.EnumerateFileSystemEntries(Temporary()));
    }

    [Fact]
    public void Table_has_a_row_a_skill_and_wrong_replies_go_to_standard_error()
    {
        (int code, string output, string error) = Run("--set", Set(), "--baseline", "f32", "--show-wrong", "1");
        Assert.True(code == 0, error);
        string[] lines = output.Split('\n');
        Assert.Equal(3, lines.Count(l => l.StartsWith("birds", StringComparison.Ordinal) || l.StartsWith("trees", StringComparison.Ordinal) || l.StartsWith("all ", StringComparison.Ordinal)));
        Assert.Contains(lines, l => l.StartsWith("KL ", StringComparison.Ordinal));
        Assert.Contains("nothing slides", output, StringComparison.Ordinal);
        Assert.Contains("wrong: line 1 (birds) \"the bird was happy\"", error, StringComparison.Ordinal);
    }

    [Fact]
    public void Built_in_set_is_taken_where_none_is_named()
    {
        JsonElement o = Json("--limit", "1");
        Assert.Equal("built-in", Text(o, "set"));
        Assert.All(o.GetProperty("skills").EnumerateArray(), s => Assert.Equal(1, s.GetProperty("items").GetInt32()));
    }

    [Fact]
    public void Skills_select_and_a_limit_bounds()
    {
        JsonElement o = Json("--set", Set(), "--skill", "trees", "birds", "--limit", "1");
        Assert.Equal((2, 2), (o.GetProperty("items").GetInt32(), o.GetProperty("skills").GetArrayLength()));
        Assert.Equal(1, Json("--set", Set(), "--skill", "trees").GetProperty("items").GetInt32());
    }

    [Fact]
    public void Unknown_skill_is_one_line_and_code_1() => Fails("it has birds, trees", "--set", Set(), "--skill", "fish");

    [Fact]
    public void Malformed_set_is_one_line_and_code_1()
    {
        File.WriteAllText(_folder["bad.jsonl"], Items + "\n{\"skill\":\"birds\"}\n");
        Fails("bad.jsonl: line 4: has no 'messages'", "--set", _folder["bad.jsonl"]);
    }

    [Fact]
    public void Missing_set_is_one_line_and_code_1() => Fails("no-such-set.jsonl", "--set", "no-such-set.jsonl");

    public void Dispose() => _folder.Dispose();

    private string Set()
    {
        File.WriteAllText(_folder["set.jsonl"], Items);
        return _folder["set.jsonl"];
    }

    private string Temporary() => Directory.CreateDirectory(_folder["temp"]).FullName;

    private static string? Text(JsonElement o, string name) => o.GetProperty(name).GetString();

    private JsonElement Json(params string[] arguments)
    {
        (int code, string output, string error) = Run([.. arguments, "--json"]);
        Assert.True(code == 0, error);
        using JsonDocument json = JsonDocument.Parse(output);
        return json.RootElement.Clone();
    }

    private void Fails(string named, params string[] arguments)
    {
        (int code, string output, string error) = Run(arguments);
        string last = error.Split('\n', StringSplitOptions.RemoveEmptyEntries)[^1];
        Assert.Equal((1, ""), (code, output));
        Assert.StartsWith("sluice: ", last, StringComparison.Ordinal);
        Assert.Contains(named, last, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", error, StringComparison.Ordinal);
    }

    // Windows reads TMP, the others TMPDIR.
    private (int Code, string Output, string Error) Run(params string[] arguments) =>
        ConsoleProgram.Run([("TMPDIR", Temporary()), ("TMP", Temporary())], "", ["eval", Model, .. arguments, "--device", "cpu", "--threads", "1"]);
}
