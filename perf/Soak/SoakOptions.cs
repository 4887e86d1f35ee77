using System.Globalization;

namespace Sluice.Perf.Soak;

/// <summary>The command line is not right; the text says what of it.</summary>
internal sealed class SoakOptionException(string message) : Exception(message);

/// <summary>What <c>perf soak</c> was asked for.</summary>
internal sealed record SoakOptions
{
    public const string Usage = """
        usage: ./build.sh soak [OPTIONS]
          --seconds N     how long (60)
          --model PATH    of a GGUF file or a folder (models/tales)
          --seed N        of the load; which requests meet in a step differs from run to run all the same (a random one, which is printed)
        """;

    public int Seconds { get; init; } = 60;

    public string Model { get; init; } = Path.Combine("models", "tales");

    public int Seed { get; init; } = Random.Shared.Next(1_000_000);

    /// <summary>Null: help is asked for.</summary>
    /// <exception cref="SoakOptionException">An unknown option, or a value that is none.</exception>
    public static SoakOptions? Parse(IReadOnlyList<string> arguments)
    {
        SoakOptions options = new();
        for (int i = 0; i < arguments.Count; i += 2)
        {
            string name = arguments[i];
            if (name is "--help" or "-h")
            {
                return null;
            }

            string value = i + 1 < arguments.Count && arguments[i + 1].Length > 0 ? arguments[i + 1] : throw new SoakOptionException($"{name} has no value");
            options = name switch
            {
                "--seconds" => options with { Seconds = Number(10, 1_000_000) },
                "--model" => options with { Model = value },
                "--seed" => options with { Seed = Number(0, int.MaxValue) },
                _ => throw new SoakOptionException($"'{name}' is no option"),
            };

            int Number(int least, int most) => int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number >= least && number <= most
                ? number
                : throw new SoakOptionException($"{name} is '{value}', and wants a whole number from {least} to {most}");
        }

        return options;
    }
}
