using System.Collections.Concurrent;
using System.Text;
using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>
/// Byte-level BPE (GPT-2, Radford et al. 2019): text is cut into words, each word's bytes are tokens at first, and pairs of neighbours
/// merge in the order of the merge list. A byte that has no token is given as <see cref="Tokenizer.UnknownId"/>, or left out where there is none.
/// </summary>
public sealed class BytePairTokenizer : Tokenizer
{
    private readonly PreTokenizer _preTokenizer;
    private readonly BytePairVocabulary _vocabulary;
    private readonly bool _composes;
    private readonly ConcurrentBag<BytePairEncoder> _idle = [];

    internal BytePairTokenizer(TokenizerData data)
        : base(data, Resolve(data).AddsBos)
    {
        _preTokenizer = Resolve(data);
        _composes = data.ComposesFirst;
        ByteStrings.Builder pieces = new(data.Count);
        ByteStrings.Builder words = new(data.Count);
        List<byte> decoded = [];
        for (int id = 0; id < data.Count; id++)
        {
            ByteAlphabet.Decode(data.Texts[id], decoded);
            ReadOnlySpan<byte> bytes = System.Runtime.InteropServices.CollectionsMarshal.AsSpan(decoded);
            words.Add(bytes);
            pieces.Add(data.Kinds[id] switch
            {
                TokenKind.Normal or TokenKind.Byte => bytes,
                TokenKind.Unused => [],
                _ => data.Texts[id],
            });
        }

        Pieces = pieces.Build();
        _vocabulary = new BytePairVocabulary(data, words.Build(), MergeTable.Create(data.Merges ?? throw new ModelFormatException(data.File, "tokenizer.ggml.merges", "is missing")), _preTokenizer.IgnoresMerges);
    }

    /// <inheritdoc/>
    public override string Model => "gpt2";

    private protected override ByteStrings Pieces { get; }

    private protected override void EncodePlain(ReadOnlySpan<byte> text, in Segment segment, List<int> ids)
    {
        if (!_idle.TryTake(out BytePairEncoder? encoder))
        {
            encoder = new BytePairEncoder(_preTokenizer, _vocabulary);
        }

        if (_composes && !System.Text.Ascii.IsValid(text))
        {
            ByteBuffer composed = new();
            encoder.Encode(Normalization.TryNormalize(UnicodeForm.Nfc, text, composed) ? composed.Span : text, ids);
        }
        else
        {
            encoder.Encode(text, ids);
        }

        _idle.Add(encoder);
    }

    private static PreTokenizer Resolve(TokenizerData data) => PreTokenizer.Find(data.PreTokenizer ?? "default")
        ?? throw new UnsupportedModelException(data.File, "tokenizer.ggml.pre", $"'{data.PreTokenizer}' is not supported; supported are {string.Join(", ", PreTokenizer.KnownNames)}");
}

/// <summary>GPT-2's way to write any byte as a visible character: printable Latin-1 as itself, the other 68 bytes from U+0100 on.</summary>
internal static class ByteAlphabet
{
    private static readonly Rune[] Characters = MakeCharacters();
    private static readonly short[] Bytes = MakeBytes();

    /// <summary>The character that stands for a byte.</summary>
    public static Rune CharacterOf(byte value) => Characters[value];

    /// <summary>Sets <paramref name="bytes"/> to what a token's text stands for; a text with other characters stands for itself.</summary>
    public static void Decode(ReadOnlySpan<byte> text, List<byte> bytes)
    {
        bytes.Clear();
        for (int at = 0; at < text.Length;)
        {
            int codePoint = CharClass.CodePointAt(text, at, out int length);
            short value = codePoint < Bytes.Length ? Bytes[codePoint] : (short)-1;
            if (value < 0)
            {
                bytes.Clear();
                bytes.AddRange(text);
                return;
            }

            bytes.Add((byte)value);
            at += length;
        }
    }

    private static Rune[] MakeCharacters()
    {
        Rune[] characters = new Rune[256];
        int next = 256;
        for (int b = 0; b < 256; b++)
        {
            bool visible = b is (>= 33 and <= 126) or (>= 161 and <= 172) or >= 174;
            characters[b] = new Rune(visible ? b : next++);
        }

        return characters;
    }

    private static short[] MakeBytes()
    {
        short[] bytes = new short[256 + 68];
        Array.Fill(bytes, (short)-1);
        for (int b = 0; b < 256; b++)
        {
            bytes[Characters[b].Value] = (short)b;
        }

        return bytes;
    }
}

/// <summary>What an encoder needs of a byte-level vocabulary.</summary>
internal sealed class BytePairVocabulary
{
    private readonly int[] _byteTokens = new int[256];
    private readonly ByteStringIndex? _words;

    public BytePairVocabulary(TokenizerData data, ByteStrings words, MergeTable merges, bool wordsFirst)
    {
        Merges = merges;
        Span<byte> text = stackalloc byte[4];
        for (int b = 0; b < 256; b++)
        {
            int length = ByteAlphabet.CharacterOf((byte)b).EncodeToUtf8(text);
            int id = data.Index.Find(text[..length]);
            _byteTokens[b] = id >= 0 ? id : data.UnknownId ?? -1;
        }

        if (wordsFirst)
        {
            _words = new ByteStringIndex(words);
            for (int id = 0; id < data.Count; id++)
            {
                if (data.Kinds[id] is TokenKind.Normal or TokenKind.Byte)
                {
                    _words.TryAdd(id);
                }
            }
        }
    }

    public MergeTable Merges { get; }

    /// <summary>The token of a byte, or -1.</summary>
    public int ByteToken(byte value) => _byteTokens[value];

    /// <summary>The token that is the whole word, where the family looks for it first, or -1.</summary>
    public int WholeWord(ReadOnlySpan<byte> word) => _words?.Find(word) ?? -1;
}
