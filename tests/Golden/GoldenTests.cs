using System.Collections.Concurrent;
using Sluice.Interop;

namespace Sluice.Tests.Golden;

/// <summary>Whole models against an independent engine and against exact arithmetic.</summary>
public sealed class GoldenTests
{
    private static readonly ConcurrentDictionary<(string Path, string Target), Lazy<Model>> Models = new();
    private static readonly ConcurrentDictionary<(string Name, string Target), Lazy<float[]>> Computed = new();

    private static readonly string[] CpuTargets = ["cpu/portable", "cpu/avx2", "cpu/avx512_vnni"];

    // They differ from those in quantised products alone.
    private static readonly string[] QuantisedTargets = ["cpu/avx_vnni", "cpu/avx512"];

    public static TheoryData<string, string> EveryModelOnEveryHostBackend() => Rows([.. CpuTargets, "reference"]);

    public static TheoryData<string, string> EveryModelOnTheCpu() => Rows(CpuTargets, QuantisedTargets);

    public static TheoryData<string> EveryModel() => [.. Golden.Names];

    public static TheoryData<string> EveryShortModel() => [.. Golden.Names.Where(n => !n.EndsWith("longprompt", StringComparison.Ordinal))];

    [Theory]
    [MemberData(nameof(EveryModelOnEveryHostBackend))]
    public async Task Model_generates_its_golden_ids(string name, string target)
    {
        Golden g = Golden.Load(name);
        Model model = Open(g.ModelPath, target);
        Assert.Equal(g.PromptIds, model.Tokenizer.Encode(g.Prompt));
        using Session session = NewSession(model, g.PromptIds.Length + g.Ids.Length + 1);
        List<int> ids = [];
        await foreach (GeneratedToken token in session.GenerateAsync(g.PromptIds, new SamplingParameters { MaxTokens = g.Ids.Length, IgnoreEndOfSequence = true }, TestContext.Current.CancellationToken))
        {
            ids.Add(token.Id);
        }

        Assert.Equal(g.Ids.Length, ids.Count);
        int same = ids.Zip(g.Ids).TakeWhile(p => p.First == p.Second).Count();
        if (same < ids.Count)
        {
            AssertTie(g, model, target, same);
        }
    }

    [Theory]
    [MemberData(nameof(EveryModelOnEveryHostBackend))]
    public void Likeliest_tokens_are_golden_at_every_step(string name, string target)
    {
        Golden g = Golden.Load(name);
        Model model = Open(g.ModelPath, target);
        int[] tokens = [.. g.PromptIds, .. g.Ids];
        using Session session = NewSession(model, tokens.Length);
        float[] logits = session.Logits(tokens, 512);
        for (int step = 0; step < g.Ids.Length; step++)
        {
            ReadOnlySpan<float> row = logits.AsSpan((g.PromptIds.Length - 1 + step) * g.Vocabulary, g.Vocabulary);
            if (row.IndexOf(System.Numerics.Tensors.TensorPrimitives.Max(row)) != g.Ids[step])
            {
                AssertTie(g, model, target, step);
            }
        }
    }

    [Theory]
    [MemberData(nameof(EveryModel))]
    public void Reference_logits_are_exact(string name)
    {
        Golden g = Golden.Load(name);
        (_, double max, double deviation) = g.ErrorOf(LogitsOf(g, "reference"));
        Assert.True(max <= 1e-4 * deviation, $"largest error {max:g3}, bound {1e-4 * deviation:g3}");
    }

    [Theory]
    [MemberData(nameof(EveryModelOnTheCpu))]
    public void Logits_are_as_near_to_the_truth_as_the_peers(string name, string target)
    {
        Golden g = Golden.Load(name);
        float[] logits = LogitsOf(g, target);
        (double mean, double max, double deviation) = g.ErrorOf(logits);
        (double divergence, double maxDivergence) = g.DivergenceOf(logits);

        // The engine's own error, from its own logits; the long prompt's were not kept: those of the same file's short one.
        Golden engine = g.EngineLogits is not null ? g : Golden.Load(name.Replace("-longprompt", "", StringComparison.Ordinal));
        (double engineMean, double engineMax, _) = engine.ErrorOf(engine.EngineLogits!);
        (double engineDivergence, double engineMaxDivergence) = engine.DivergenceOf(engine.EngineLogits!);
        TestContext.Current.TestOutputHelper?.WriteLine(
            $"{name} {target}: mean error {mean:g3} ({engineMean:g3}), max {max:g3} ({engineMax:g3}), mean KL {divergence:g3} ({engineDivergence:g3}), max KL {maxDivergence:g3} ({engineMaxDivergence:g3}), deviation {deviation:g3}");
        double bound = (1.5 * engineMean) + (1e-6 * deviation);
        Assert.True(mean <= bound, $"mean error {mean:g4}, the engine's {engineMean:g4}, bound {bound:g4}");
        // Divergence goes with the square of the errors; logits of f32 have a rounding of their own.
        bound = (2.25 * engineDivergence) + (1e-11 * deviation * deviation);
        Assert.True(divergence <= bound, $"mean divergence {divergence:g4}, the engine's {engineDivergence:g4}, bound {bound:g4}");
    }

    [Theory]
    [InlineData("stories260K-f32-longprompt", "reference")]
    [InlineData("stories260K-f32-longprompt", "cpu/portable")]
    [InlineData("stories260K-f32-longprompt", "cpu/avx2")]
    [InlineData("stories260K-f32-longprompt", "cpu/avx512_vnni")]
    [InlineData("stories260K-q4_k_m", "cpu/avx512_vnni")]
    [InlineData("stories260K-bf16", "cpu/avx512_bf16")]
    [InlineData("tiny-llama-f16", "cpu/avx512_vnni")]
    [InlineData("tiny-llama-f16", "cpu/avx2")]
    [InlineData("tiny-llama-q4_0", "reference")]
    [InlineData("tiny-llama-q4_0", "cpu/portable")]
    [InlineData("tiny-llama-q4_0", "cpu/avx2")]
    [InlineData("tiny-llama-q4_0", "cpu/avx512_vnni")]
    [InlineData("tiny-llama-q5_k_m", "cpu/avx512_vnni")]
    [InlineData("tiny-qwen2-q6_k", "cpu/avx512_vnni")]
    [InlineData("tiny-qwen2-q8_0", "cpu/avx2")]
    public void Any_chunking_gives_the_same_logits_to_the_bit(string name, string target)
    {
        Golden g = Golden.Load(name);
        int[] tokens = [.. g.PromptIds, .. g.Ids];
        Model model = Open(g.ModelPath, target);
        using Session session = NewSession(model, tokens.Length);
        float[] whole = session.Logits(tokens, 512);
        foreach (int chunk in new[] { 1, 7, 64 })
        {
            float[] parts = session.Logits(tokens, chunk);
            int first = whole.AsSpan().CommonPrefixLength(parts);
            Assert.True(first == whole.Length, $"chunks of {chunk}: position {first / g.Vocabulary}, token {first % g.Vocabulary} differs");
        }
    }

    [Fact]
    public async Task Simt_generates_golden_tokens()
    {
        Golden g = Golden.Load("stories260K-f32");
        using Model model = await LoadOrSkip(g.ModelPath, new ModelOptions { Device = Backend.Simt, ContextLength = 32, KvType = DType.F32 });
        using Session session = model.CreateSession();
        List<int> ids = [];
        await foreach (GeneratedToken token in session.GenerateAsync(g.PromptIds, new SamplingParameters { MaxTokens = 6 }, TestContext.Current.CancellationToken))
        {
            ids.Add(token.Id);
        }

        Assert.Equal(g.Ids[..6], ids);
    }

    [Theory]
    [MemberData(nameof(EveryShortModel))]
    public async Task Cuda_generates_golden_ids(string name)
    {
        Assert.SkipWhen(Device.Count(Backend.Cuda) == 0, "no CUDA device is here");
        Golden g = Golden.Load(name);
        using Model model = await LoadOrSkip(g.ModelPath, new ModelOptions { Device = Backend.Cuda, KvType = DType.F32 });
        using Session session = model.CreateSession();
        List<int> ids = [];
        await foreach (GeneratedToken token in session.GenerateAsync(g.PromptIds, new SamplingParameters { MaxTokens = g.Ids.Length, IgnoreEndOfSequence = true }, TestContext.Current.CancellationToken))
        {
            ids.Add(token.Id);
        }

        int same = ids.Zip(g.Ids).TakeWhile(p => p.First == p.Second).Count();
        if (same < ids.Count)
        {
            (_, double engine, _) = g.ErrorOf(g.EngineLogits!);
            Assert.True(g.Margins[same] <= 4 * engine, $"step {same}: {ids[same]} for {g.Ids[same]}, margin {g.Margins[same]:g3}");
        }
    }

    private static TheoryData<string, string> Rows(string[] targets, params string[] quantised)
    {
        TheoryData<string, string> rows = [];
        foreach (string name in Golden.Names)
        {
            foreach (string target in name.Contains("-q", StringComparison.Ordinal) && !name.EndsWith("f32", StringComparison.Ordinal) ? [.. targets, .. quantised] : targets)
            {
                rows.Add(name, target);
            }

            if (name.EndsWith("bf16", StringComparison.Ordinal))
            {
                rows.Add(name, "cpu/avx512_bf16");
            }
        }

        return rows;
    }

    // A differing token is no failure where the two likeliest were nearer than both engines' errors can tell apart.
    private static void AssertTie(Golden g, Model model, string target, int step)
    {
        Golden measured = g.EngineLogits is not null ? g : Golden.Load(g.Name.Replace("-longprompt", "", StringComparison.Ordinal));
        (_, double engine, _) = measured.ErrorOf(measured.EngineLogits!);
        (_, double own, _) = g.ErrorOf(LogitsOf(g, target));
        double tie = 2 * (engine + own);
        Assert.True(g.Margins[step] <= tie, $"{Path.GetFileName(g.ModelPath)} on {model.DeviceInfo.Name}: another token at step {step}, where the margin is {g.Margins[step]:g3} and a tie at most {tie:g3}");
    }

    private static float[] LogitsOf(Golden g, string target) => Computed.GetOrAdd((g.Name, target), _ => new Lazy<float[]>(() =>
    {
        using Session session = NewSession(Open(g.ModelPath, target), g.Rows);
        return session.Logits(g.Tokens, 512);
    })).Value;

    private static Session NewSession(Model model, int context) => new(model, context, 512, 512);

    private static Model Open(string path, string target)
    {
        string[] parts = target.Split('/');
        Isa isa = parts.Length > 1 ? Sluice.Kernels.Targets.IsaOf(parts[1]) : Isa.Best;
        Lazy<Model> model = Models.GetOrAdd((path, target), _ => new Lazy<Model>(() => LoadOrSkip(path, new ModelOptions
        {
            Device = parts[0] == "cpu" ? Backend.Cpu : Backend.Reference, Isa = isa, Threads = 2, KvType = DType.F32,
        }).GetAwaiter().GetResult()));
        return model.Value;
    }

    private static async Task<Model> LoadOrSkip(string path, ModelOptions options)
    {
        try
        {
            return await Model.LoadAsync(path, options);
        }
        catch (SluiceException e) when (e.Status is Status.ErrNoDevice or Status.ErrUnsupported)
        {
            Assert.Skip(e.Message);
            throw;
        }
    }
}
