using System.Collections.Immutable;
using Sluice.Interop;

namespace Sluice.Models;

/// <summary>What sets a layer apart from the others.</summary>
/// <param name="Window">A token sees so many tokens, itself included; 0: all before it.</param>
/// <param name="Rope">Which of <see cref="ModelConfig.Ropes"/>; -1: none.</param>
public readonly record struct LayerConfig(int Window, int Rope);

/// <summary>A model's sizes and constants, read from its files and checked.</summary>
public sealed record ModelConfig
{
    internal const int MostLayers = 4_096;
    internal const int MostHeads = 16_384;
    internal const int MostWidth = 1 << 22;
    internal const int MostHeadDim = 65_536;

    /// <summary>The family.</summary>
    public required Architecture Architecture { get; init; }

    /// <summary>What the file calls the model, or the file's name.</summary>
    public required string Name { get; init; }

    /// <summary>The transformer blocks, from first to last.</summary>
    public required ImmutableArray<LayerConfig> Layers { get; init; }

    /// <summary>Number of transformer blocks.</summary>
    public int LayerCount => Layers.Length;

    /// <summary>Width of the residual stream.</summary>
    public required int HiddenSize { get; init; }

    /// <summary>H: query heads; a multiple of <see cref="KvHeadCount"/>.</summary>
    public required int HeadCount { get; init; }

    /// <summary>Hkv: key and value heads.</summary>
    public required int KvHeadCount { get; init; }

    /// <summary>D: dimensions of a query or key head.</summary>
    public required int HeadDim { get; init; }

    /// <summary>Dimensions of a value head.</summary>
    public required int ValueHeadDim { get; init; }

    /// <summary>Width of the feed-forward.</summary>
    public required int FeedForwardSize { get; init; }

    /// <summary>Rows of the embedding: logits of a position.</summary>
    public required int VocabularySize { get; init; }

    /// <summary>Tokens that the model can see, scalings included.</summary>
    public required int ContextLength { get; init; }

    /// <summary>The epsilon of every RMSNorm.</summary>
    public required float NormEpsilon { get; init; }

    /// <summary>True where the output projection is the embedding matrix.</summary>
    public required bool TiedEmbeddings { get; init; }

    /// <summary>Which pairs of a head's dimensions RoPE turns, for the order of rows that the model's files have.</summary>
    public required RopeKind RopeKind { get; init; }

    /// <summary>The kinds of RoPE that layers have.</summary>
    public required ImmutableArray<RopeConfig> Ropes { get; init; }

    /// <summary>The feed-forward's activation.</summary>
    public Activation Activation { get; init; } = Activation.Silu;

    /// <summary>Multiplies embeddings.</summary>
    public float EmbeddingScale { get; init; } = 1f;

    /// <summary>Multiplies q.k; 0: one over the square root of <see cref="HeadDim"/>.</summary>
    public float AttentionScale { get; init; }

    /// <summary>Attention scores become cap * tanh(score / cap); 0: they stay.</summary>
    public float AttentionSoftCap { get; init; }

    /// <summary>Multiplies what attention and feed-forward add to the residual stream.</summary>
    public float ResidualScale { get; init; } = 1f;

    /// <summary>Multiplies logits.</summary>
    public float LogitScale { get; init; } = 1f;

    /// <summary>Logits become cap * tanh(logit / cap); 0: they stay.</summary>
    public float LogitSoftCap { get; init; }

    /// <summary>
    /// The layers where a window is for some: <paramref name="hasWindow"/> and <paramref name="hasRope"/> tell by index; null: by the family's periods.
    /// </summary>
    internal static ImmutableArray<LayerConfig> LayersOf(Architecture family, int count, int window, int windowRope, Func<int, bool>? hasWindow = null, Func<int, bool>? hasRope = null)
    {
        hasWindow ??= i => family.WindowPeriod == 1 || i % family.WindowPeriod != family.WindowPeriod - 1;
        hasRope ??= i => family.NoRopePeriod == 0 || i % family.NoRopePeriod != family.NoRopePeriod - 1;
        LayerConfig Layer(int i)
        {
            bool slides = window > 0 && hasWindow(i);
            return new LayerConfig(slides ? window : 0, !hasRope(i) ? -1 : slides ? windowRope : 0);
        }

        return [.. Enumerable.Range(0, count).Select(Layer)];
    }
}
