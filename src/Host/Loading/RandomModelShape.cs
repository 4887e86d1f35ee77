using Sluice.Models;

namespace Sluice.Loading;

/// <summary>The sizes of a model that <see cref="RandomModel"/> can make: those of a published one, or small ones for tests.</summary>
/// <param name="Name">The name on the command line.</param>
/// <param name="Architecture">The family.</param>
/// <param name="Layers">Transformer blocks.</param>
/// <param name="Hidden">Width of the residual stream.</param>
/// <param name="Heads">Query heads.</param>
/// <param name="KvHeads">Key and value heads.</param>
/// <param name="FeedForward">Width of the feed-forward.</param>
/// <param name="Vocabulary">Tokens.</param>
/// <param name="Context">Tokens that the model is said to see.</param>
/// <param name="RopeBase">RoPE's base.</param>
/// <param name="NormEpsilon">The norms' epsilon.</param>
/// <param name="Tied">True where the output projection is the embedding.</param>
/// <param name="Llama3RopeFactor">Llama 3.1's stretch of slow frequencies (factors in <c>rope_freqs.weight</c>), or 0.</param>
public sealed record RandomModelShape(
    string Name, string Architecture, int Layers, int Hidden, int Heads, int KvHeads, int FeedForward, int Vocabulary, int Context,
    float RopeBase, float NormEpsilon, bool Tied, float Llama3RopeFactor = 0)
{
    /// <summary>All shapes.</summary>
    public static IReadOnlyList<RandomModelShape> All { get; } =
    [
        new("tiny", "llama", 4, 256, 8, 4, 768, 512, 2_048, 10_000, 1e-5f, false),
        new("qwen2.5-0.5b", "qwen2", 24, 896, 14, 2, 4_864, 151_936, 32_768, 1_000_000, 1e-6f, true),
        new("llama-3.2-1b", "llama", 16, 2_048, 32, 8, 8_192, 128_256, 131_072, 500_000, 1e-5f, true, 32),
        new("llama-3-8b", "llama", 32, 4_096, 32, 8, 14_336, 128_256, 8_192, 500_000, 1e-5f, false),
    ];

    /// <summary>Dimensions of a head.</summary>
    public int HeadDim => Hidden / Heads;

    internal bool HasBias => Models.Architecture.Find(Architecture)!.RequiresQkvBias;

    /// <summary>Finds a shape by its name, or null.</summary>
    public static RandomModelShape? Find(string name) => All.FirstOrDefault(shape => shape.Name == name);

    /// <summary>Llama 3.1's divisors of RoPE's frequencies: 1 for the fast ones, the factor for the slow ones, between them a blend.</summary>
    internal float[] RopeFactors() => new RopeConfig
    {
        Dimensions = HeadDim,
        Base = RopeBase,
        Scaling = RopeScaling.Llama3,
        Factor = Llama3RopeFactor,
        OriginalContext = 8_192,
    }.ToDivisors();
}
