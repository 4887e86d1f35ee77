using System.Diagnostics;
using System.Text.Json;

namespace Sluice.Tests.Golden;

/// <summary>The console program as a person runs it: another process, exit codes, and what it prints where.</summary>
public sealed class ConsoleTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("sluice-console").FullName;

    public static TheoryData<string> Models() => ["stories260K-f32", "stories260K-f16", "tiny-llama-f16", "tiny-qwen2-f32"];

    [Theory]
    [MemberData(nameof(Models))]
    public void Generate_prints_the_golden_answer_as_json(string name)
    {
        Golden g = Golden.Load(name);
        (int code, string output, string error) = Run("generate", g.ModelPath, "--prompt", g.Prompt, "--max-tokens", "16", "--kv", "f32", "--ignore-eos", "--json", "--device", "cpu");
        Assert.True(code == 0, error);
        using JsonDocument json = JsonDocument.Parse(output);
        Assert.Equal(g.PromptIds.Length, json.RootElement.GetProperty("prompt_tokens").GetInt32());
        Assert.Equal(g.Ids[..16], json.RootElement.GetProperty("tokens").EnumerateArray().Select(e => e.GetInt32()));
        Assert.Equal("length", json.RootElement.GetProperty("finish_reason").GetString());
        Assert.True(json.RootElement.GetProperty("ttft_ms").GetDouble() > 0);
        Assert.True(json.RootElement.GetProperty("decode_tok_per_s").GetDouble() > 0);
        string golden = System.Text.Encoding.UTF8.GetString(g.Text);
        string text = json.RootElement.GetProperty("text").GetString()!;
        Assert.StartsWith(text[..Math.Min(8, text.Length)], golden, StringComparison.Ordinal);
    }

    [Fact]
    public void Generate_prints_text_alone_on_standard_output()
    {
        (int code, string output, string error) = Run("generate", Stories(), "--prompt", "Once upon a time", "--max-tokens", "12", "--device", "cpu");
        Assert.True(code == 0, error);
        Assert.StartsWith("Once upon a time, there was a little girl named Lily", output, StringComparison.Ordinal);
        Assert.Contains("device: cpu", error, StringComparison.Ordinal);
        Assert.Contains("tok/s", error, StringComparison.Ordinal);
    }

    [Fact]
    public void Chat_answers_resets_and_leaves()
    {
        (int code, string output, string error) = RunWith("Once upon a time\n\n/reset\nOnce upon a time\n/exit\n", "chat", Stories(), "--max-tokens", "10", "--device", "cpu");
        Assert.True(code == 0, error);
        string[] answers = output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(2, answers.Length);
        Assert.Equal(answers[0], answers[1]);
        Assert.Contains("forgotten", error, StringComparison.Ordinal);
    }

    [Fact]
    public void Inspect_names_sizes_and_types()
    {
        (int code, string output, string error) = Run("inspect", Stories(), "--json");
        Assert.True(code == 0, error);
        using JsonDocument json = JsonDocument.Parse(output);
        Assert.Equal("llama", json.RootElement.GetProperty("architecture").GetString());
        Assert.Equal(512, json.RootElement.GetProperty("vocabulary_size").GetInt32());
        Assert.Contains("8 heads and 4 KV heads", Run("inspect", Stories(), "--tensors").Output, StringComparison.Ordinal);
    }

    [Fact]
    public void Two_commands_write_into_one_file()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "needs a POSIX shell");
        string file = Path.Combine(_folder, "both.txt");
        string tokenize = $"'{ConsoleProgram.Find()}' tokenize '{Stories()}' --text 'Once upon a time' --json";
        using Process shell = Process.Start("/bin/sh", ["-c", $"( echo first; {tokenize}; echo middle; {tokenize}; echo last ) > '{file}' 2>&1"]);
        shell.WaitForExit();
        string[] lines = File.ReadAllLines(file);
        Assert.Equal(5, lines.Length);
        Assert.Equal(("first", "middle", "last"), (lines[0], lines[2], lines[4]));
        Assert.Equal(lines[1], lines[3]);
    }

    [Fact]
    public void Tokenize_shows_ids()
    {
        (int code, string output, string error) = Run("tokenize", Stories(), "--text", "Once upon a time", "--json");
        Assert.True(code == 0, error);
        using JsonDocument json = JsonDocument.Parse(output);
        Assert.Equal([1, 403, 407, 261, 378], json.RootElement.GetProperty("ids").EnumerateArray().Select(e => e.GetInt32()));
        string file = Path.Combine(_folder, "text.txt");
        File.WriteAllText(file, "Once upon a time");
        Assert.Contains("403", Run("tokenize", Stories(), "--file", file).Output, StringComparison.Ordinal);
    }

    [Fact]
    public void Perplexity_bench_and_eval_report_numbers()
    {
        string file = Path.Combine(_folder, "text.txt");
        File.WriteAllText(file, "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.");
        JsonElement perplexity = Json("perplexity", Stories(), file, "--json", "--device", "cpu");
        Assert.InRange(perplexity.GetProperty("perplexity").GetDouble(), 1, 5);
        JsonElement bench = Json("bench", Stories(), "--prompt-tokens", "32", "--gen-tokens", "8", "--batch", "3", "--rounds", "2", "--json", "--device", "cpu");
        Assert.Equal(2, bench.GetProperty("decode_tok_per_s").GetProperty("rounds").GetArrayLength());
        Assert.True(bench.GetProperty("prefill_tok_per_s").GetProperty("mean").GetDouble() > 0);
        Assert.True(bench.GetProperty("read_gb_per_s").GetDouble() > 0);
        JsonElement eval = Json("eval", SharedData.PathOf("models", "stories260K", "stories260K-q4_k_m.gguf"), "--baseline", Stories(), "--json", "--device", "cpu");
        Assert.InRange(eval.GetProperty("kl_mean").GetDouble(), 1e-6, 0.5);
    }

    [Fact]
    public void Eval_compares_with_exact_arithmetic_where_the_reference_is_built()
    {
        string model = SharedData.PathOf("models", "stories260K", "stories260K-q4_k_m.gguf");
        string file = Path.Combine(_folder, "text.txt");
        File.WriteAllText(file, "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.");
        (int code, string output, string error) = Run("eval", model, "--file", file, "--json", "--device", "cpu");
        if (code != 0)
        {
            // A release leaves the reference out, and says so.
            Assert.Contains("no reference backend", error, StringComparison.Ordinal);
            Assert.NotNull(Environment.GetEnvironmentVariable("SLUICE_CONSOLE"));
            return;
        }

        using JsonDocument json = JsonDocument.Parse(output);
        Assert.InRange(json.RootElement.GetProperty("kl_mean").GetDouble(), 0, 1e-3);
    }

    [Fact]
    public void Reader_that_goes_ends_the_program()
    {
        ProcessStartInfo start = new(ConsoleProgram.Find(), ["generate", Stories(), "--prompt", "Once upon a time", "--ignore-eos", "--device", "cpu"]) { RedirectStandardOutput = true, RedirectStandardError = true };
        using Process process = Process.Start(start)!;
        process.StandardOutput.ReadLine();
        process.StandardOutput.Close();
        process.StandardError.ReadToEnd();
        Assert.True(process.WaitForExit(20_000));
        Assert.Equal(0, process.ExitCode);
    }

    [Fact]
    public void Random_model_can_be_made_and_run()
    {
        string file = Path.Combine(_folder, "tiny.gguf");
        (int code, _, string error) = Run("make-random", "--shape", "tiny", "--type", "q4_0", file);
        Assert.True(code == 0, error);
        (code, _, error) = Run("generate", file, "--prompt", "hello", "--max-tokens", "3", "--device", "cpu");
        Assert.True(code == 0, error);
    }

    [Fact]
    public void Wrong_path_is_one_line_and_code_1() => Fails(1, "no-such-file.gguf", "generate", "no-such-file.gguf", "--prompt", "x");

    [Fact]
    public void File_that_is_no_model_is_one_line_and_code_1()
    {
        string file = Path.Combine(_folder, "text.gguf");
        File.WriteAllText(file, "this is no model, but it is long enough to be looked at");
        Fails(1, "text.gguf", "generate", file, "--prompt", "x");
    }

    [Fact]
    public void Unwritable_output_is_one_line_and_code_1() => Fails(1, "nowhere", "make-random", "--shape", "tiny", "--type", "f16", Path.Combine(_folder, "nowhere", "x.gguf"));

    [Fact]
    public void Cuda_without_a_gpu_is_one_line_and_code_1()
    {
        Assert.SkipWhen(Sluice.Interop.Device.Count(Sluice.Interop.Backend.Cuda) > 0, "a CUDA device is here");
        Fails(1, "cuda", "generate", Stories(), "--prompt", "x", "--device", "cuda");
    }

    [Fact]
    public void Parameter_out_of_range_is_one_line_and_code_1() => Fails(1, "Temperature", "generate", Stories(), "--prompt", "x", "--temperature", "-1", "--device", "cpu");

    [Theory]
    [InlineData("generate")]
    [InlineData("generate", "m.gguf")]
    [InlineData("nonsense")]
    [InlineData("bench", "m.gguf", "--batch", "many")]
    [InlineData("generate", "m.gguf", "--prompt", "x", "--device", "toaster")]
    [InlineData("make-random", "--shape", "huge", "--type", "q4_0", "x")]
    [InlineData("tokenize", "m.gguf")]
    [InlineData("eval", "m.gguf", "--file", "t.txt", "--limit", "2")]
    [InlineData("eval", "m.gguf", "--weights", "q3")]
    [InlineData("generate", "m.gguf", "-p", "a", "-p", "b")]
    [InlineData("generate", "m.gguf", "-p")]
    [InlineData("generate", "m.gguf", "--messages", "a", "--messages", "b")]
    [InlineData("eval", "m.gguf", "--file", "a", "--file", "b")]
    [InlineData("tokenize", "m.gguf", "--text", "a", "--text", "b")]
    public void Wrong_usage_is_code_2(params string[] arguments)
    {
        (int code, string output, string error) = Run(arguments);
        Assert.Equal(2, code);
        Assert.Equal("", output);
        Assert.StartsWith("sluice: ", error, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", error, StringComparison.Ordinal);
    }

    [Fact]
    public void Verbose_shows_where() => Assert.Contains("   at ", Run("generate", "no-such-file.gguf", "--prompt", "x", "--verbose").Error, StringComparison.Ordinal);

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private static string Stories() => SharedData.PathOf("models", "stories260K", "stories260K-f32.gguf");

    private static void Fails(int expected, string named, params string[] arguments)
    {
        (int code, string output, string error) = Run(arguments);
        string[] lines = error.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(expected, code);
        Assert.Equal("", output);
        Assert.Contains(named, lines[^1], StringComparison.Ordinal);
        Assert.StartsWith("sluice: ", lines[^1], StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", error, StringComparison.Ordinal);
        Assert.DoesNotContain("unexpected", error, StringComparison.Ordinal);
        Assert.Single(lines, l => l.StartsWith("sluice: ", StringComparison.Ordinal));
    }

    private static JsonElement Json(params string[] arguments)
    {
        (int code, string output, string error) = Run(arguments);
        Assert.True(code == 0, error);
        using JsonDocument json = JsonDocument.Parse(output);
        return json.RootElement.Clone();
    }

    private static (int Code, string Output, string Error) Run(params string[] arguments) => RunWith("", arguments);

    private static (int Code, string Output, string Error) RunWith(string input, params string[] arguments) => ConsoleProgram.Run([], input, arguments);
}
