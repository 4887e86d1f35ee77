using System.Runtime.InteropServices;
using System.Text.Json;

namespace Sluice.Tests.Golden;

/// <summary>What an independent engine generated from a model, and what exact arithmetic says of the same file.</summary>
public sealed class Golden
{
    private Golden(string name, string modelPath, JsonElement json, float[]? engine, float[] exact)
    {
        (Name, ModelPath, EngineLogits, ExactLogits) = (name, modelPath, engine, exact);
        Prompt = json.GetProperty("prompt").GetString()!;
        PromptIds = Ints(json.GetProperty("prompt_ids"));
        Ids = Ints(json.GetProperty("ids"));
        Rows = json.GetProperty("logits_rows").GetInt32();
        Vocabulary = json.GetProperty("n_vocab").GetInt32();
        Text = Convert.FromHexString(json.GetProperty("text_utf8_hex").GetString()!);
        Margins = [.. json.GetProperty("steps").EnumerateArray().Select(s => s.GetProperty("top")).Select(t => t[0][1].GetSingle() - t[1][1].GetSingle())];
    }

    private const string Families = "data/families";

    public static IReadOnlyList<string> Names { get; } =
    [
        "stories260K-f32", "stories260K-f16", "stories260K-bf16", "stories260K-q4_k_m", "tiny-llama-f32", "tiny-llama-f16", "tiny-llama-q4_0", "tiny-llama-q4_1",
        "tiny-llama-q5_0", "tiny-llama-q8_0", "tiny-llama-q4_k_m", "tiny-llama-q5_k_m", "tiny-llama-q6_k", "tiny-qwen2-f32", "tiny-qwen2-q4_0", "tiny-qwen2-q4_k_m",
        "tiny-qwen2-q6_k", "tiny-qwen2-q8_0", "stories260K-f32-longprompt",
    ];

    /// <summary>
    /// Hugging Face folders, each with its golden inside: the repository's own (tests/data/families, made by tools/goldens), those of
    /// the shared data, and of SLUICE_GOLDEN_FOLDERS (a folder of such folders).
    /// </summary>
    public static IReadOnlyList<string> Folders { get; } =
    [
        .. Directory.EnumerateDirectories(Path.Combine(AppContext.BaseDirectory, Families)).Select(f => Families + "/" + Path.GetFileName(f)).Order(StringComparer.Ordinal),
        .. new[] { "awq-g128", "bf16-hf", "gptq-g128", "gptq-g32", "gptq-g32-act", "hf" }.Select(n => "tiny-llama-" + n), "tiny-qwen2-hf",
        .. Environment.GetEnvironmentVariable("SLUICE_GOLDEN_FOLDERS") is { Length: > 0 } more
            ? (IEnumerable<string>)Directory.EnumerateFiles(more, "golden.json", SearchOption.AllDirectories).Select(f => Path.GetDirectoryName(f)!).Order(StringComparer.Ordinal) : [],
    ];

    public string Name { get; }

    public string ModelPath { get; }

    public string Prompt { get; }

    public int[] PromptIds { get; }

    /// <summary>Greedy, end of sequence not heeded.</summary>
    public int[] Ids { get; }

    /// <summary>Rows of logits: row r is the position after token r of prompt and answer.</summary>
    public int Rows { get; }

    public int Vocabulary { get; }

    public byte[] Text { get; }

    /// <summary>How far the likeliest token was from the second, a step.</summary>
    public float[] Margins { get; }

    /// <summary>The engine's own logits, [Rows, Vocabulary], where they were kept.</summary>
    public float[]? EngineLogits { get; }

    /// <summary>f64 arithmetic on the exactly dequantised file, [Rows, Vocabulary].</summary>
    public float[] ExactLogits { get; }

    /// <summary>The tokens that the rows of logits belong to.</summary>
    public int[] Tokens => [.. PromptIds.Concat(Ids).Take(Rows)];

    public static Golden Load(string name)
    {
        using JsonDocument json = JsonDocument.Parse(File.ReadAllBytes(SharedData.PathOf("goldens", name + ".json")));
        string model = json.RootElement.GetProperty("model").GetString()!;
        string path = SharedData.PathOf("models", model.StartsWith("stories", StringComparison.Ordinal) ? "stories260K" : "tiny", model);
        string engine = SharedData.PathOf("goldens", name + ".logits.f32");
        return new Golden(name, path, json.RootElement, File.Exists(engine) ? Floats(engine) : null, Floats(SharedData.PathOf("goldens", name + ".exact.f32")));
    }

    public static Golden LoadFolder(string name)
    {
        string folder = Path.IsPathRooted(name) ? name : name.StartsWith(Families, StringComparison.Ordinal) ? Path.Combine(AppContext.BaseDirectory, name) : SharedData.PathOf("hf", name);
        using JsonDocument json = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "golden.json")));
        return new Golden(name, folder, json.RootElement, null, Floats(Path.Combine(folder, "exact.f32")));
    }

    /// <summary>Mean and largest difference, and the deviation of the truth.</summary>
    public (double Mean, double Max, double Deviation) ErrorOf(float[] logits)
    {
        Assert.Equal(ExactLogits.Length, logits.Length);
        double sum = 0, max = 0, total = 0, squares = 0;
        for (int i = 0; i < logits.Length; i++)
        {
            double error = Math.Abs((double)logits[i] - ExactLogits[i]);
            sum += error;
            max = Math.Max(max, double.IsNaN(error) ? double.PositiveInfinity : error);
            total += ExactLogits[i];
            squares += (double)ExactLogits[i] * ExactLogits[i];
        }

        double mean = total / logits.Length;
        return (sum / logits.Length, max, Math.Sqrt((squares / logits.Length) - (mean * mean)));
    }

    /// <summary>Mean and largest Kullback-Leibler divergence of the rows' distributions from the true ones, in nats.</summary>
    public (double Mean, double Max) DivergenceOf(float[] logits)
    {
        double sum = 0, max = 0;
        for (int at = 0; at < logits.Length; at += Vocabulary)
        {
            ReadOnlySpan<float> truth = ExactLogits.AsSpan(at, Vocabulary), row = logits.AsSpan(at, Vocabulary);
            double trueTop = System.Numerics.Tensors.TensorPrimitives.Max(truth), top = System.Numerics.Tensors.TensorPrimitives.Max(row), trueTotal = 0, total = 0, mean = 0;
            for (int i = 0; i < Vocabulary; i++)
            {
                double weight = Math.Exp(truth[i] - trueTop);
                (trueTotal, total) = (trueTotal + weight, total + Math.Exp(row[i] - top));
                mean += weight * (truth[i] - trueTop - (row[i] - top));
            }

            double divergence = Math.Max(0, (mean / trueTotal) - Math.Log(trueTotal) + Math.Log(total));
            (sum, max) = (sum + divergence, Math.Max(max, divergence));
        }

        return (sum / (logits.Length / Vocabulary), max);
    }

    private static float[] Floats(string path) => MemoryMarshal.Cast<byte, float>(File.ReadAllBytes(path)).ToArray();

    private static int[] Ints(JsonElement array) => [.. array.EnumerateArray().Select(e => e.GetInt32())];
}
