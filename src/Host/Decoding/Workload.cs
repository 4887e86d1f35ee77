namespace Sluice.Decoding;

/// <summary>What requests of a benchmark are like.</summary>
public sealed record WorkloadOptions
{
    /// <summary>How many.</summary>
    public int Requests { get; init; } = 64;

    /// <summary>Tokens of a prompt that are its own.</summary>
    public TokenLengths PromptTokens { get; init; } = TokenLengths.Around(512, LengthKind.Fixed);

    /// <summary>Tokens that are generated.</summary>
    public TokenLengths GeneratedTokens { get; init; } = TokenLengths.Around(64, LengthKind.Fixed);

    /// <summary>Tokens that all prompts begin with, before their own.</summary>
    public int SharedPrefix { get; init; }

    /// <summary>Requests a second that arrive, each for itself (a Poisson process); null: all at once.</summary>
    public double? Rate { get; init; }

    /// <summary>The same seed gives the same requests.</summary>
    public int Seed { get; init; }
}

/// <summary>A request of a benchmark.</summary>
/// <param name="Arrival">Seconds after the beginning when it is to be sent.</param>
/// <param name="Prompt">Token ids.</param>
/// <param name="GeneratedTokens">Tokens to generate.</param>
public sealed record PlannedRequest(double Arrival, ReadOnlyMemory<int> Prompt, int GeneratedTokens);

/// <summary>Plans requests: prompts of random tokens, lengths and arrivals, each drawn by a generator of its own, so that to change one of them leaves the others as they were.</summary>
public static class Workload
{
    /// <summary>The requests, by arrival.</summary>
    /// <param name="options">What they are like.</param>
    /// <param name="vocabulary">Prompts' ids are below.</param>
    /// <exception cref="ArgumentOutOfRangeException">A number out of its range.</exception>
    public static IReadOnlyList<PlannedRequest> Plan(WorkloadOptions options, int vocabulary)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(options.Requests, 1);
        ArgumentOutOfRangeException.ThrowIfNegative(options.SharedPrefix);
        ArgumentOutOfRangeException.ThrowIfLessThan(vocabulary, 1);
        Random prefixes = Generator(options.Seed, 1), prompts = Generator(options.Seed, 2), generated = Generator(options.Seed, 3), tokens = Generator(options.Seed, 4);
        double[] arrivals = options.Rate is { } rate ? PoissonArrivals(options.Requests, rate, Generator(options.Seed, 5)) : new double[options.Requests];
        int[] prefix = Tokens(options.SharedPrefix, prefixes);
        return [.. arrivals.Select(arrival => new PlannedRequest(arrival, (int[])[.. prefix, .. Tokens(options.PromptTokens.Draw(prompts), tokens)], options.GeneratedTokens.Draw(generated)))];

        int[] Tokens(int count, Random random)
        {
            int[] ids = new int[count];
            foreach (ref int id in ids.AsSpan())
            {
                id = random.Next(vocabulary);
            }

            return ids;
        }
    }

    /// <summary>Arrivals of a Poisson process in seconds after its beginning, ascending: between two of them, and before the first, lies an exponentially distributed time of mean 1 / rate.</summary>
    /// <param name="count">How many.</param>
    /// <param name="rate">How many a second.</param>
    /// <param name="random">Draws them.</param>
    /// <exception cref="ArgumentOutOfRangeException">A rate that is not above 0, or endless.</exception>
    public static double[] PoissonArrivals(int count, double rate, Random random)
    {
        if (!(rate > 0) || double.IsInfinity(rate))
        {
            throw new ArgumentOutOfRangeException(nameof(rate), rate, "requests a second: above 0, and finite");
        }

        double[] arrivals = new double[count];
        double at = 0;
        foreach (ref double arrival in arrivals.AsSpan())
        {
            at -= Math.Log(1 - random.NextDouble()) / rate;
            arrival = at;
        }

        return arrivals;
    }

    // Seeds that lie side by side make streams that have nothing in common (the finaliser of SplitMix64; Steele, Lea and Flood, 2014).
    private static Random Generator(int seed, int stream)
    {
        ulong x = ((ulong)(uint)seed << 32) + ((uint)stream * 0x9e3779b97f4a7c15UL);
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
        x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
        return new Random((int)(x >> 33));
    }
}
