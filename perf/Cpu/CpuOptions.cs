using System.Globalization;

namespace Sluice.Perf.Cpu;

/// <summary>The command line is not right; the text says what of it.</summary>
internal sealed class CpuOptionException(string message) : Exception(message);

/// <summary>What <c>perf cpu</c> was asked for.</summary>
internal sealed record CpuOptions
{
    public const string Usage = """
        usage: ./build.sh bench cpu [OPTIONS]
          --llama-bench "[NAME=]PATH [FLAGS] [-- FLAGS]"  an engine to measure beside ours, built elsewhere; once for each. Flags go to its llama-bench; those behind --
                                          to the llama-batched-bench beside it, which gets the same where there is no --
          --rounds N                      interleaved rounds (5)
          --threads N                     of every engine (0: one a core)
          --models LIST --types LIST      of qwen2.5-0.5b,llama-3.2-1b and q4_0,q4_k_m,q8_0,f16,bf16 (all)
          --only LIST                     of prefill,decode,batch,context,shared,engine,requests (all; those behind decode with q4_0 alone)
          --json FILE                     keep every measurement, and go on where a run was stopped
          --out DIR                       also write cpu.md and bar charts there
          --model-dir DIR                 where models are made and kept (artifacts/bench-models)
        """;

    public IReadOnlyList<string> Peers { get; init; } = [];

    public int Rounds { get; init; } = 5;

    public int Threads { get; init; }

    public IReadOnlyCollection<string> Models { get; init; } = CpuCell.Models;

    public IReadOnlyCollection<string> Types { get; init; } = CpuCell.Types;

    public IReadOnlyCollection<CpuKind> Kinds { get; init; } = Enum.GetValues<CpuKind>();

    public string? Json { get; init; }

    public string? Out { get; init; }

    public string Folder { get; init; } = Path.Combine("artifacts", "bench-models");

    /// <summary>Null: help is asked for.</summary>
    /// <exception cref="CpuOptionException">An unknown option, or a value that is none.</exception>
    public static CpuOptions? Parse(IReadOnlyList<string> arguments)
    {
        CpuOptions options = new();
        for (int i = 0; i < arguments.Count; i += 2)
        {
            string name = arguments[i];
            if (name is "--help" or "-h")
            {
                return null;
            }

            string value = i + 1 < arguments.Count && arguments[i + 1].Length > 0 ? arguments[i + 1] : throw new CpuOptionException($"{name} has no value");
            options = name switch
            {
                "--llama-bench" => options with { Peers = [.. options.Peers, value] },
                "--rounds" => options with { Rounds = Number(1, 1_000) },
                "--threads" => options with { Threads = Number(0, 1_024) },
                "--models" => options with { Models = List(CpuCell.Models, w => w) },
                "--types" => options with { Types = List(CpuCell.Types, w => w) },
                "--only" => options with { Kinds = List(Enum.GetValues<CpuKind>(), k => k.ToString().ToLowerInvariant()) },
                "--json" => options with { Json = value },
                "--out" => options with { Out = value },
                "--model-dir" => options with { Folder = value },
                _ => throw new CpuOptionException($"'{name}' is no option"),
            };

            int Number(int least, int most) => int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number >= least && number <= most
                ? number
                : throw new CpuOptionException($"{name} is '{value}', and wants a whole number from {least} to {most}");

            T[] List<T>(IReadOnlyCollection<T> all, Func<T, string> word) =>
            [
                .. value.Split(',', StringSplitOptions.RemoveEmptyEntries).Select(w => all.Where(a => string.Equals(word(a), w, StringComparison.OrdinalIgnoreCase)).ToArray() is [var found]
                    ? found
                    : throw new CpuOptionException($"{name} has '{w}', and knows {string.Join(", ", all.Select(word))}")),
            ];
        }

        return options;
    }
}
