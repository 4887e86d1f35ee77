using System.Text;
using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>What a token is for; the numbers are GGUF's own.</summary>
public enum TokenKind
{
    /// <summary>A piece of text.</summary>
    Normal = 1,

    /// <summary>Stands for what the vocabulary cannot say.</summary>
    Unknown = 2,

    /// <summary>Begins, ends or structures a sequence, and is no text.</summary>
    Control = 3,

    /// <summary>Text that was added to the vocabulary and is always one token.</summary>
    UserDefined = 4,

    /// <summary>A number without a meaning.</summary>
    Unused = 5,

    /// <summary>One byte, where no piece of text fits.</summary>
    Byte = 6,
}

/// <summary>A vocabulary and its flags as a file gives them, checked: whatever kind of file they come from, tokenizers are made from this.</summary>
internal sealed class TokenizerData
{
    /// <summary>Far above what models have (a quarter of a million tokens and merges), and small enough that a hostile file costs little memory.</summary>
    public const int MostTokens = 1 << 21;

    // Tokens that end an answer in the chat formats of the known families; files often name only one of them.
    private static readonly string[] EndTexts =
    [
        "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>",
        "<｜end▁of▁sentence｜>", "<|END_OF_TURN_TOKEN|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "[EOT]", "[e~[", "<end_of_utterance>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
    ];

    /// <summary>True in a GGUF file whose texts are to be composed (NFC). An own key beside the format's <c>lowercase</c> and <c>strip_accents</c>: other readers pass over it.</summary>
    public const string ComposesKey = "tokenizer.ggml.normalizer.nfc";

    /// <summary>The file's path, for errors.</summary>
    public required string File { get; init; }

    /// <summary>The tokens' texts as the file has them.</summary>
    public required ByteStrings Texts { get; init; }

    /// <summary>Finds tokens by their texts.</summary>
    public required ByteStringIndex Index { get; init; }

    /// <summary>The tokens' kinds.</summary>
    public required TokenKind[] Kinds { get; init; }

    /// <summary>SentencePiece's scores (the higher merges first), or null.</summary>
    public float[]? Scores { get; init; }

    /// <summary>The kind of vocabulary: what <see cref="Tokenizer.Model"/> gives.</summary>
    public required string Model { get; init; }

    /// <summary>BPE's merges, the first merges first, or null.</summary>
    public MergeList? Merges { get; init; }

    /// <summary>The pre-tokenizer's name in <c>tokenizer.ggml.pre</c>. From a tokenizer.json: the name whose expressions are the same, or null where there is none.</summary>
    public string? PreTokenizer { get; init; }

    /// <summary>The tokenizer.json that this comes from, or null.</summary>
    public string? TokenizerJson { get; init; }

    /// <summary>What <c>addSpecial</c> puts in front; null where BOS and its flag tell.</summary>
    public int[]? Prefix { get; init; }

    /// <summary>What <c>addSpecial</c> puts behind; null where EOS and its flag tell.</summary>
    public int[]? Suffix { get; init; }

    /// <summary>How added tokens are found, by id; null where all are found plainly.</summary>
    public AddedTokenOptions[]? AddedOptions { get; init; }

    /// <summary>BERT's and Unigram's character map, or null.</summary>
    public byte[]? CharsMap { get; init; }

    /// <summary>What stands before WordPiece's pieces that continue a word ("##"); null where those that begin one are marked instead, as in GGUF.</summary>
    public string? ContinuingPrefix { get; init; }

    /// <summary>True where text is brought to NFC first, which GGUF cannot say.</summary>
    public bool ComposesFirst { get; init; }

    /// <summary>True where text becomes lower case first (WordPiece).</summary>
    public bool Lowercase { get; init; } = true;

    /// <summary>True where accents go first (WordPiece).</summary>
    public bool StripsAccents { get; init; } = true;

    /// <summary>True where a word that is a token is that token, whatever the merges would give; null where the pre-tokenizer's name tells.</summary>
    public bool? IgnoresMerges { get; init; }

    /// <summary>True where blanks that follow each other count as one (Unigram).</summary>
    public bool RemovesExtraSpaces { get; init; }

    /// <summary>Fills a batch, or null.</summary>
    public int? PadId { get; init; }

    public int? BosId { get; init; }

    public int? EosId { get; init; }

    public int? EotId { get; init; }

    public int? UnknownId { get; init; }

    /// <summary>Null where the file leaves it to the family.</summary>
    public bool? AddsBos { get; init; }

    public bool AddsEos { get; init; }

    /// <summary>Null where the file leaves it to the family.</summary>
    public bool? AddsSpacePrefix { get; init; }

    /// <summary>True at the tokens that end an answer.</summary>
    public required bool[] EndsGeneration { get; init; }

    public int Count => Kinds.Length;

    public static TokenizerData FromGguf(GgufFile file)
    {
        GgufMetadata metadata = file.Metadata;
        const string TokensKey = "tokenizer.ggml.tokens";
        GgufValue tokens = metadata.GetStrings(TokensKey) ?? throw new ModelFormatException(file.Path, TokensKey, "is missing");
        if (tokens.Count is 0 or > MostTokens)
        {
            throw new ModelFormatException(file.Path, TokensKey, $"has {tokens.Count:N0} tokens, and 1 to {MostTokens:N0} are allowed");
        }

        int count = (int)tokens.Count;
        ByteStrings.Builder builder = new(count);
        foreach (ReadOnlySpan<byte> token in tokens.EnumerateStrings())
        {
            builder.Add(token);
        }

        ByteStrings texts = builder.Build();
        ByteStringIndex index = IndexOf(file.Path, texts);
        // SentencePiece's own numbers, which old files do not repeat.
        string model = metadata.GetText("tokenizer.ggml.model") ?? "";
        bool usual = model == "llama" && count > 2;
        bool bert = model == "bert";
        bool t5 = model == "t5" && count > 2;
        int? eos = Id(file, "eos", count) ?? (usual ? 2 : t5 ? 1 : null);
        // The key is misspelt in the format itself.
        int? separator = bert ? Id(file, "seperator", count) ?? Named(index, "[SEP]"u8) : null;
        int? eot = Id(file, "eot", count);
        return new TokenizerData
        {
            File = file.Path,
            Texts = texts,
            Index = index,
            Kinds = ReadKinds(file, count),
            Scores = ReadScores(file, count),
            Model = model,
            ComposesFirst = metadata.GetBoolean(ComposesKey) ?? false,
            Lowercase = metadata.GetBoolean("tokenizer.ggml.normalizer.lowercase") ?? true,
            StripsAccents = metadata.GetBoolean("tokenizer.ggml.normalizer.strip_accents") ?? metadata.GetBoolean("tokenizer.ggml.normalizer.lowercase") ?? true,
            Merges = model is "gpt2" or "gemma4" && metadata.GetStrings("tokenizer.ggml.merges") is { } merges ? MergeList.FromGguf(file.Path, merges, index) : null,
            PreTokenizer = metadata.GetText("tokenizer.ggml.pre") ?? (model == "gpt2" ? "default" : null),
            CharsMap = ReadCharsMap(file),
            RemovesExtraSpaces = metadata.GetBoolean("tokenizer.ggml.remove_extra_whitespaces") ?? false,
            PadId = Id(file, "padding", count),
            Suffix = bert && separator is int sep ? [sep] : null,
            BosId = Id(file, "bos", count) ?? (bert ? Id(file, "cls", count) ?? Named(index, "[CLS]"u8) : usual ? 1 : null),
            EosId = eos ?? separator,
            EotId = eot,
            UnknownId = Id(file, "unknown", count) ?? (usual ? 0 : t5 ? 2 : bert ? Named(index, "[UNK]"u8) : null),
            AddsBos = metadata.GetBoolean("tokenizer.ggml.add_bos_token"),
            AddsEos = metadata.GetBoolean("tokenizer.ggml.add_eos_token") ?? t5,
            AddsSpacePrefix = metadata.GetBoolean("tokenizer.ggml.add_space_prefix"),
            EndsGeneration = EndsOf(count, index, eos, eot, Id(file, "eom", count)),
        };
    }

    /// <summary>Text for an error: the token's bytes as UTF-8, cut where it is long.</summary>
    public static string Show(ReadOnlySpan<byte> text) => $"'{Encoding.UTF8.GetString(text[..Math.Min(text.Length, 60)])}'";

    private static ByteStringIndex IndexOf(string file, ByteStrings texts)
    {
        ByteStringIndex index = new(texts);
        for (int i = 0; i < texts.Count; i++)
        {
            // Some files fill numbers without a meaning with the empty text.
            if (!index.TryAdd(i) && !texts[i].IsEmpty)
            {
                throw new ModelFormatException(file, "tokenizer.ggml.tokens", $"tokens {index.Find(texts[i]):N0} and {i:N0} are both {Show(texts[i])}");
            }
        }

        return index;
    }

    private static TokenKind[] ReadKinds(GgufFile file, int count)
    {
        const string Key = "tokenizer.ggml.token_type";
        TokenKind[] kinds = new TokenKind[count];
        Array.Fill(kinds, TokenKind.Normal);
        if (file.Metadata.GetIntegers(Key) is { } read)
        {
            CheckLength(file, Key, read.Length, count);
            for (int i = 0; i < count; i++)
            {
                // 0 is "undefined", which some converters write for plain pieces.
                kinds[i] = read[i] switch
                {
                    0 => TokenKind.Normal,
                    >= 1 and <= 6 => (TokenKind)read[i],
                    _ => throw new ModelFormatException(file.Path, Key, $"token {i:N0} is of type {read[i]:N0}, and 0 to 6 are known"),
                };
            }
        }

        return kinds;
    }

    private static float[]? ReadScores(GgufFile file, int count)
    {
        const string Key = "tokenizer.ggml.scores";
        float[]? scores = file.Metadata.GetFloats(Key);
        if (scores is not null)
        {
            CheckLength(file, Key, scores.Length, count);
            int bad = Array.FindIndex(scores, float.IsNaN);
            if (bad >= 0)
            {
                throw new ModelFormatException(file.Path, Key, $"the score of token {bad:N0} is not a number");
            }
        }

        return scores;
    }

    private static void CheckLength(GgufFile file, string key, int length, int count)
    {
        if (length != count)
        {
            throw new ModelFormatException(file.Path, key, $"has {length:N0} entries for {count:N0} tokens");
        }
    }

    private static int? Id(GgufFile file, string name, int count) => file.Metadata.GetInteger($"tokenizer.ggml.{name}_token_id", 0, count - 1);

    private static int? Named(ByteStringIndex index, ReadOnlySpan<byte> text) => index.Find(text) is >= 0 and int id ? id : null;

    private static byte[]? ReadCharsMap(GgufFile file)
    {
        if (!file.Metadata.TryGet("tokenizer.ggml.precompiled_charsmap", out GgufValue? value))
        {
            return null;
        }

        return value.Type == GgufValueType.Array && value.ElementType is GgufValueType.UInt8 or GgufValueType.Int8 ? value.Bytes.ToArray()
            : throw new ModelFormatException(file.Path, "tokenizer.ggml.precompiled_charsmap", $"is of type {value.Describe()}, and an array of bytes is expected");
    }

    /// <summary>True at the named tokens, and at those whose texts end an answer in the known chat formats.</summary>
    public static bool[] EndsOf(int count, ByteStringIndex index, params ReadOnlySpan<int?> named)
    {
        bool[] ends = new bool[count];
        foreach (int? id in named)
        {
            if (id is int known)
            {
                ends[known] = true;
            }
        }

        foreach (string text in EndTexts)
        {
            int id = index.Find(Encoding.UTF8.GetBytes(text));
            if (id >= 0)
            {
                ends[id] = true;
            }
        }

        // In the Harmony format an answer goes on after <|end|>.
        if ((index.Find("<|return|>"u8) >= 0 && index.Find("<|call|>"u8) >= 0) || (index.Find("<|calls|>"u8) >= 0 && index.Find("<|flush|>"u8) >= 0))
        {
            int end = index.Find("<|end|>"u8);
            if (end >= 0)
            {
                ends[end] = false;
            }
        }

        return ends;
    }
}
