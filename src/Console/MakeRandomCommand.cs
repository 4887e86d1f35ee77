using System.CommandLine;
using Sluice.Loading;

namespace Sluice.Console;

/// <summary>sluice make-random --shape NAME --type TYPE OUT: a model of true size with random weights, for benchmarks and tests.</summary>
internal static class MakeRandomCommand
{
    public static Command Create()
    {
        Dictionary<string, (TensorType Type, bool Mixture)> types = RandomModel.Types.ToDictionary(t => TensorTypes.Name(t).ToLowerInvariant(), t => (t, false));
        types["q4_k_m"] = (TensorType.Q4_K, true);
        Option<string> shape = ModelArguments.Choice("--shape", "Whose sizes", RandomModelShape.All[0].Name, [.. RandomModelShape.All.Select(s => s.Name)]);
        Option<string> type = ModelArguments.Choice("--type", "Element type of the matrices; q4_k_m: the mixture that quantisers make", "q4_0", [.. types.Keys]);
        Option<ulong> seed = new("--seed") { Description = "The same seed gives the same file", DefaultValueFactory = _ => 0 };
        shape.Required = type.Required = true;
        Argument<string> output = new("OUT") { Description = "The GGUF file to write" };
        Command command = new("make-random", "Write a model with random weights.") { shape, type, seed, output };
        command.SetAction(async (parsed, cancellation) =>
        {
            string path = parsed.GetValue(output)!;
            await Terminal.WithProgressAsync<bool, ByteProgress>("writing", p => (p.Done, p.Total), progress => Task.Run(
                () =>
                {
                    (TensorType stored, bool mixture) = types[parsed.GetValue(type)!];
                    RandomModel.Write(path, RandomModelShape.Find(parsed.GetValue(shape)!)!, stored, parsed.GetValue(seed), mixture, progress, cancellation);
                    return true;
                },
                cancellation));
            Terminal.Note($"wrote {path}, {new FileInfo(path).Length / 1e6:0.0} MB");
            return 0;
        });
        return command;
    }
}
