using System.Globalization;

namespace Sluice.Perf.Cpu;

internal enum CpuKind
{
    /// <summary>The prompt of one sequence.</summary>
    Prefill,

    /// <summary>One sequence from nothing.</summary>
    Decode,

    /// <summary>Some sequences behind prompts of their own.</summary>
    Batch,

    /// <summary>One sequence behind a long prompt.</summary>
    Context,

    /// <summary>Many sequences behind one prompt, and what they are compared with: behind as many of their own.</summary>
    Shared,

    /// <summary>Many sequences behind prompts of their own, as requests of the library's engine: the decode alone.</summary>
    Engine,

    /// <summary>Many requests at once, from the first to the last token of all, prompts included: with one prompt, and (ours) with the same and nothing shared.</summary>
    Requests,
}

/// <summary>A measured cell: what is done with a file. Prompts are a sequence's; one that is shared is computed once. The rate is that of the prompt's tokens where none is generated.</summary>
internal sealed record CpuCell(CpuKind Kind, string Model, string Type, int Prompt, int Generated, int Sequences = 1, bool OnePrompt = false)
{
    /// <summary>The shapes of <c>sluice make-random</c>, and the types that matrices are stored in.</summary>
    public static IReadOnlyList<string> Models { get; } = ["qwen2.5-0.5b", "llama-3.2-1b"];

    public static IReadOnlyList<string> Types { get; } = ["q4_0", "q4_k_m", "q8_0", "f16", "bf16"];

    public string What => (Prompt, Generated, Sequences) switch
    {
        _ when Kind == CpuKind.Requests => $"{Sequences} requests of {Generated} on {(OnePrompt ? "one" : "own")} {Prompt.ToString("#,0", CultureInfo.InvariantCulture)}",
        _ when Kind == CpuKind.Engine => $"tg{Generated} of {Sequences} requests on own {Prompt}",
        (_, 0, _) => $"pp{Prompt}",
        (0, _, _) => $"tg{Generated}",
        (_, _, 1) => $"tg{Generated} after {Prompt.ToString("#,0", CultureInfo.InvariantCulture)}",
        _ => $"tg{Generated} of {Sequences} on {(OnePrompt ? "one" : "own")} {Prompt.ToString("#,0", CultureInfo.InvariantCulture)}",
    };

    /// <summary>What a row of the raw file is found by.</summary>
    public string Name => $"{Model} {Type} {What}";

    /// <summary>The cells of the table, a file's together.</summary>
    public static List<CpuCell> All(IReadOnlyCollection<string> models, IReadOnlyCollection<string> types, IReadOnlyCollection<CpuKind> kinds)
    {
        List<CpuCell> cells = [];
        foreach (string model in Models.Where(models.Contains))
        {
            foreach (string type in Types.Where(types.Contains))
            {
                cells.Add(new(CpuKind.Prefill, model, type, 512, 0));
                cells.Add(new(CpuKind.Decode, model, type, 0, 64));
                if (type == "q4_0")
                {
                    cells.AddRange(new[] { 4, 8, 16 }.Select(n => new CpuCell(CpuKind.Batch, model, type, 512, 32, n)));
                    cells.Add(new(CpuKind.Context, model, type, 2_048, 64));
                    cells.Add(new(CpuKind.Shared, model, type, 1_024, 32, 16));
                    cells.Add(new(CpuKind.Shared, model, type, 1_024, 32, 16, OnePrompt: true));
                    cells.Add(new(CpuKind.Engine, model, type, 512, 64, 16));
                    cells.Add(new(CpuKind.Requests, model, type, 1_024, 64, 16));
                    cells.Add(new(CpuKind.Requests, model, type, 1_024, 64, 16, OnePrompt: true));
                }
            }
        }

        return [.. cells.Where(c => kinds.Contains(c.Kind))];
    }
}
