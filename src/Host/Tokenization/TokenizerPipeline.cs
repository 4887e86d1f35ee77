namespace Sluice.Tokenization;

/// <summary>What a tokenizer that is put together from parts does with text, and what its tokens stand for.</summary>
internal sealed class TokenizerPipeline
{
    /// <summary>The kind, as <see cref="Tokenizer.Model"/> gives it.</summary>
    public required string Model { get; init; }

    /// <summary>Runs first, or null.</summary>
    public TextNormalizer? Normalizer { get; init; }

    /// <summary>Cut the normalized text into words.</summary>
    public IReadOnlyList<PreTokenizerStep> Steps { get; init; } = [];

    /// <summary>Makes an encoder of words, a thread each. Null where <see cref="Bytes"/> does the work.</summary>
    public Func<WordEncoder>? Words { get; init; }

    /// <summary>Makes an encoder of whole texts by byte-level BPE, which needs no steps.</summary>
    public Func<BytePairEncoder>? Bytes { get; init; }

    /// <summary>With <see cref="Bytes"/>: true to put a blank before a text that has none.</summary>
    public bool PrefixSpace { get; init; }

    /// <summary>True where text is encoded with a space in front that decoding gives back.</summary>
    public bool AddsSpacePrefix { get; init; }

    /// <summary>The bytes that each token stands for.</summary>
    public required ByteStrings Pieces { get; init; }

    /// <summary>Tokens that are looked for in the normalized text: their normalized texts, and their ids.</summary>
    public (ByteStrings Texts, int[] Ids)? NormalizedAdded { get; init; }
}
