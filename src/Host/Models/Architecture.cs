using Sluice.Interop;

namespace Sluice.Models;

/// <summary>Whether a model of an architecture has a set of tensors.</summary>
public enum Presence
{
    /// <summary>Never: a file that has them is not of this architecture.</summary>
    Never,

    /// <summary>Some models have them; the file tells.</summary>
    Optional,

    /// <summary>Always: a file without them is malformed.</summary>
    Always,
}

/// <summary>
/// What sets a family of decoder-only transformers apart from the others. A family is this data and nothing else: there is one forward pass.
/// All families here norm before attention and before the feed-forward (RMSNorm), and gate the feed-forward: down(act(gate x) * up x).
/// </summary>
public sealed record Architecture
{
    /// <summary>The name in <c>general.architecture</c>, which is also the prefix of the metadata keys.</summary>
    public required string Name { get; init; }

    /// <summary>Which pairs of a head's dimensions RoPE turns, for the order of rows that the family's GGUF files have.</summary>
    public required RopeKind Rope { get; init; }

    /// <summary>Bias of the query, key and value projections.</summary>
    public Presence QkvBias { get; init; } = Presence.Never;

    /// <summary>RMSNorm of each query and key head before RoPE.</summary>
    public bool QkNorm { get; init; }

    /// <summary>The feed-forward's activation.</summary>
    public Activation Activation { get; init; } = Activation.Silu;

    /// <summary>The families that Sluice runs.</summary>
    public static IReadOnlyList<Architecture> All { get; } =
    [
        new() { Name = "llama", Rope = RopeKind.Interleaved, QkvBias = Presence.Optional },
        new() { Name = "qwen2", Rope = RopeKind.Half, QkvBias = Presence.Always },
    ];

    /// <summary>Finds a family by its name, or null.</summary>
    public static Architecture? Find(string name)
    {
        foreach (Architecture architecture in All)
        {
            if (architecture.Name == name)
            {
                return architecture;
            }
        }

        return null;
    }
}
