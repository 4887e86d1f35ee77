using Sluice.Interop;

namespace Sluice.Models;

/// <summary>Where a block's RMSNorms stand.</summary>
public enum NormPlacement
{
    /// <summary>Before attention and before the feed-forward: x + f(norm(x)).</summary>
    Before,

    /// <summary>Behind them: x + norm(f(x)).</summary>
    After,

    /// <summary>Both: x + norm(f(norm(x))).</summary>
    Both,
}

/// <summary>Whether queries and keys are normalised before RoPE.</summary>
public enum QkNorm
{
    /// <summary>No.</summary>
    None,

    /// <summary>Each head by itself.</summary>
    Head,

    /// <summary>All heads of a token together.</summary>
    Row,
}

/// <summary>
/// What sets a family of decoder-only transformers apart from the others. A family is this data and nothing else: there is one forward pass.
/// All families here gate the feed-forward: down(act(gate x) * up x). What a model's own file tells (sizes, windows, scalings, biases) is in
/// <see cref="ModelConfig"/>.
/// </summary>
public sealed record Architecture
{
    /// <summary>The name in GGUF's <c>general.architecture</c>, which is also the prefix of the metadata keys.</summary>
    public required string Name { get; init; }

    /// <summary>The classes in <c>architectures</c> of a Hugging Face config.json.</summary>
    public required IReadOnlyList<string> Classes { get; init; }

    /// <summary>Which pairs of a head's dimensions RoPE turns, for the order of rows that the family's GGUF files have. Hugging Face's order is always <see cref="RopeKind.Half"/>.</summary>
    public required RopeKind GgufRope { get; init; }

    /// <summary>True where query, key and value projections have a bias in every model. In the others a bias is taken where the file has one.</summary>
    public bool RequiresQkvBias { get; init; }

    /// <summary>True where the family's files hold query, key and value in one matrix, and gate and up in another. Both forms are read for every family.</summary>
    public bool IsFused { get; init; }

    /// <summary>RMSNorm of queries and keys before RoPE.</summary>
    public QkNorm QkNorm { get; init; }

    /// <summary>Where the block's norms stand.</summary>
    public NormPlacement Norms { get; init; }

    /// <summary>True where Hugging Face's norm weights are stored less one.</summary>
    public bool NormsLessOne { get; init; }

    /// <summary>True where embeddings are multiplied by the square root of the hidden size.</summary>
    public bool ScalesEmbedding { get; init; }

    /// <summary>True where the output projection is the embedding unless the file says otherwise.</summary>
    public bool TiesEmbeddings { get; init; }

    /// <summary>The feed-forward's activation, where the file names none.</summary>
    public Activation Activation { get; init; } = Activation.Silu;

    /// <summary>
    /// Which layers a sliding window is for, where the file does not list them: of every so many layers the last sees all tokens; 1: none does.
    /// </summary>
    public int WindowPeriod { get; init; } = 1;

    /// <summary>The sliding window where the file names none; 0: none.</summary>
    public int DefaultWindow { get; init; }

    /// <summary>The cap of attention scores where the file names none; 0: none.</summary>
    public float DefaultAttentionSoftCap { get; init; }

    /// <summary>The cap of logits where the file names none; 0: none.</summary>
    public float DefaultLogitSoftCap { get; init; }

    /// <summary>RoPE's base of the layers with a window, where it is their own and the file names none; 0: as the others.</summary>
    public double WindowRopeBase { get; init; }

    /// <summary>Of every so many layers the last has no RoPE, where the file does not list them; 0: all have.</summary>
    public int NoRopePeriod { get; init; }

    /// <summary>The number of layers at which the family divides attention scores by the square root of hidden size / heads; 0: never.</summary>
    public int WideScaleLayers { get; init; }

    /// <summary>True where activations within a block leave the range of f16, so that 16-bit ones are to be bf16 whatever the weights are.</summary>
    public bool ExceedsF16 { get; init; }

    /// <summary>The families that Sluice runs.</summary>
    public static IReadOnlyList<Architecture> All { get; } =
    [
        new() { Name = "llama", Classes = ["LlamaForCausalLM", "MistralForCausalLM"], GgufRope = RopeKind.Interleaved },
        new() { Name = "qwen2", Classes = ["Qwen2ForCausalLM"], GgufRope = RopeKind.Half, RequiresQkvBias = true },
        new() { Name = "qwen3", Classes = ["Qwen3ForCausalLM"], GgufRope = RopeKind.Half, QkNorm = QkNorm.Head },
        new() { Name = "phi3", Classes = ["Phi3ForCausalLM"], GgufRope = RopeKind.Half, IsFused = true },
        new()
        {
            Name = "gemma", Classes = ["GemmaForCausalLM"], GgufRope = RopeKind.Half, ExceedsF16 = true, Activation = Activation.GeluTanh,
            NormsLessOne = true, ScalesEmbedding = true, TiesEmbeddings = true,
        },
        new()
        {
            Name = "gemma2", Classes = ["Gemma2ForCausalLM"], GgufRope = RopeKind.Half, ExceedsF16 = true, Activation = Activation.GeluTanh, Norms = NormPlacement.Both,
            NormsLessOne = true, ScalesEmbedding = true, TiesEmbeddings = true, WindowPeriod = 2, DefaultWindow = 4_096, WideScaleLayers = 46,
            DefaultAttentionSoftCap = 50, DefaultLogitSoftCap = 30,
        },
        new()
        {
            Name = "gemma3", Classes = ["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"], GgufRope = RopeKind.Half, ExceedsF16 = true, Activation = Activation.GeluTanh,
            Norms = NormPlacement.Both, QkNorm = QkNorm.Head, NormsLessOne = true, ScalesEmbedding = true, TiesEmbeddings = true,
            WindowPeriod = 6, WindowRopeBase = 10_000, WideScaleLayers = 62,
        },
        new() { Name = "olmo2", Classes = ["Olmo2ForCausalLM"], GgufRope = RopeKind.Half, Norms = NormPlacement.After, QkNorm = QkNorm.Row },
        new() { Name = "granite", Classes = ["GraniteForCausalLM"], GgufRope = RopeKind.Interleaved },
        new() { Name = "smollm3", Classes = ["SmolLM3ForCausalLM"], GgufRope = RopeKind.Interleaved, NoRopePeriod = 4 },
    ];

    /// <summary>Finds a family by GGUF's name for it, or null.</summary>
    public static Architecture? Find(string name) => All.FirstOrDefault(a => a.Name == name);

    /// <summary>Finds a family by the class in a Hugging Face config.json, or null.</summary>
    public static Architecture? FindClass(string name) => All.FirstOrDefault(a => a.Classes.Contains(name));
}
