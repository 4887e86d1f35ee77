using System.Text.Json;
using Sluice.Tests.Host;

namespace Sluice.Tests.Golden;

/// <summary>The console on every kind of model file: folders, the hub, conversions, conversations.</summary>
public sealed class ConsoleFilesTests : IDisposable
{
    private readonly TempFolder _folder = new();

    [Theory, InlineData("tiny-llama-hf"), InlineData("tiny-llama-bf16-hf"), InlineData("tiny-qwen2-hf"), InlineData("tiny-llama-gptq-g32-act"), InlineData("tiny-llama-awq-g128")]
    public void Generate_reads_a_folder(string name)
    {
        Golden g = Golden.LoadFolder(name);
        Assert.Equal(g.Ids, Ids(Succeed("generate", g.ModelPath, "--prompt", g.Prompt, "--max-tokens", "32", "--ignore-eos", "--json", "--device", "cpu", "--no-mmap")));
    }

    [Fact]
    public void A_packed_copy_is_kept_beside_the_model_and_told_of()
    {
        Golden g = Golden.Load("stories260K-f32");
        string model = _folder["m.gguf"];
        File.Copy(g.ModelPath, model);
        foreach (string told in new[] { $"packed copy: written to {model}.packed-cpu", $"packed copy: read from {model}.packed-cpu" })
        {
            (int code, string output, string error) = ConsoleProgram.Run([], "", "generate", model, "--prompt", g.Prompt, "--max-tokens", "4", "--ignore-eos", "--json", "--device", "cpu", "--cache-packed", "--verify-packed");
            Assert.Equal(0, code);
            Assert.Equal(g.Ids[..4], Ids(output));
            Assert.Contains(told + "\n", error, StringComparison.Ordinal);
        }

        Assert.Equal(2, ConsoleProgram.Run([], "", "bench", model, "--verify-packed").Code);
    }

    [Fact]
    public void A_model_comes_from_the_hub_once()
    {
        Golden g = Golden.Load("stories260K-f32");
        using HubFake hub = new();
        hub.With("stories.gguf", File.ReadAllBytes(g.ModelPath));
        hub.Cuts.Enqueue(100_000);
        (string, string)[] environment = [("HF_ENDPOINT", hub.Hub.Address.ToString()), ("SLUICE_CACHE", _folder["cache"]), ("HF_TOKEN", "")];
        string path = Succeed(environment, "pull", "org/model").Trim();
        Assert.Equal(File.ReadAllBytes(g.ModelPath), File.ReadAllBytes(path));
        int content = hub.ContentRequests;
        Assert.Equal(g.Ids[..8], Ids(Succeed(environment, "generate", "hf:org/model", "--prompt", g.Prompt, "--max-tokens", "8", "--json", "--device", "cpu")));
        Assert.Equal(content, hub.ContentRequests);
        (int code, string output, string error) = ConsoleProgram.Run(environment, "", "inspect", "hf:org/../model");
        Assert.Equal((1, ""), (code, output));
        Assert.StartsWith("sluice: ", error, StringComparison.Ordinal);
    }

    [Fact]
    public void A_folder_becomes_a_file_that_generates_the_same()
    {
        Golden g = Golden.LoadFolder("tiny-llama-hf");
        Assert.Contains("no weight has changed", Succeed("convert", g.ModelPath, _folder["m.gguf"]), StringComparison.Ordinal);
        Assert.Equal(g.Ids, Ids(Succeed("generate", _folder["m.gguf"], "--prompt", g.Prompt, "--max-tokens", "32", "--ignore-eos", "--json", "--device", "cpu")));
        Assert.Contains("relative error of the weights", Succeed("convert", _folder["m.gguf"], _folder["back"], "--type", "f16"), StringComparison.Ordinal);
        Assert.Contains("llama; Hugging Face folder, one file", Succeed("inspect", _folder["back"]), StringComparison.Ordinal);
    }

    [Fact]
    public void A_conversation_is_rendered_and_answered()
    {
        File.WriteAllText(_folder["chat.json"], """[{"role":"user","content":"Hi <|im_end|>"}]""");
        string model = SharedData.PathOf("hf", "tiny-qwen2-hf");
        Assert.EndsWith("<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n", Succeed("render", model, "--messages", _folder["chat.json"]), StringComparison.Ordinal);
        using JsonDocument rendered = JsonDocument.Parse(Succeed("render", model, "--messages", _folder["chat.json"], "--json"));
        int[] ids = [.. rendered.RootElement.GetProperty("ids").EnumerateArray().Select(e => e.GetInt32())];
        Assert.Equal(ids.Count(i => i == 510), ids.Count(i => i == 511) + 1);
        using JsonDocument answered = JsonDocument.Parse(Succeed("generate", model, "--messages", _folder["chat.json"], "--max-tokens", "2", "--json", "--device", "cpu"));
        Assert.Equal(ids, answered.RootElement.GetProperty("prompt_ids").EnumerateArray().Select(e => e.GetInt32()));
        (int code, _, string error) = ConsoleProgram.Run([], "", "generate", model, "--prompt", "a", "--messages", _folder["chat.json"]);
        Assert.Equal(2, code);
        Assert.Contains("one of --prompt and --messages", error, StringComparison.Ordinal);
    }

    public void Dispose() => _folder.Dispose();

    private static IEnumerable<int> Ids(string json)
    {
        using JsonDocument document = JsonDocument.Parse(json);
        return [.. document.RootElement.GetProperty("tokens").EnumerateArray().Select(e => e.GetInt32())];
    }

    private static string Succeed(params string[] arguments) => Succeed([], arguments);

    private static string Succeed((string Name, string Value)[] environment, params string[] arguments)
    {
        (int code, string output, string error) = ConsoleProgram.Run(environment, "", arguments);
        Assert.True(code == 0, error);
        return output;
    }
}
