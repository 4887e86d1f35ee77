using System.Collections.Concurrent;
using System.Runtime.InteropServices;

namespace Sluice.Tokenization;

/// <summary>
/// SentencePiece BPE (Kudo and Richardson, 2018) as in Llama 2: spaces are written as U+2581, characters are symbols at first, and the
/// pair of neighbours whose join has the highest score merges first. What has no token is given byte by byte.
/// </summary>
public sealed class SentencePieceTokenizer : Tokenizer
{
    private readonly SentencePieceVocabulary _vocabulary;
    private readonly ConcurrentBag<SentencePieceEncoder> _idle = [];

    internal SentencePieceTokenizer(TokenizerData data)
        : base(data, addsBosByDefault: true)
    {
        AddsSpacePrefix = data.AddsSpacePrefix ?? true;
        _vocabulary = new SentencePieceVocabulary(data);
        ByteStrings.Builder pieces = new(data.Count);
        List<byte> spaced = [];
        for (int id = 0; id < data.Count; id++)
        {
            ReadOnlySpan<byte> text = data.Texts[id];
            switch (data.Kinds[id])
            {
                case TokenKind.Normal:
                    WithSpaces(text, spaced);
                    pieces.Add(CollectionsMarshal.AsSpan(spaced));
                    break;
                case TokenKind.Byte:
                    pieces.Add([SentencePieceVocabulary.ByteOf(data, id)]);
                    break;
                case TokenKind.Unused:
                    pieces.Add([]);
                    break;
                default:
                    pieces.Add(text);
                    break;
            }
        }

        Pieces = pieces.Build();
    }

    /// <inheritdoc/>
    public override string Model => "llama";

    /// <inheritdoc/>
    public override bool AddsSpacePrefix { get; }

    internal static ReadOnlySpan<byte> SpaceMark => "\u2581"u8;

    private protected override ByteStrings Pieces { get; }

    /// <summary>Where the first word of marked text ends: at the first space mark that follows something else.</summary>
    internal static int EndOfWord(ReadOnlySpan<byte> marked)
    {
        int at = 0;
        while (marked[at..].StartsWith(SpaceMark))
        {
            at += SpaceMark.Length;
        }

        int next = marked[at..].IndexOf(SpaceMark);
        return next < 0 ? marked.Length : at + next;
    }

    private protected override void EncodePlain(ReadOnlySpan<byte> text, in Segment segment, List<int> ids)
    {
        if (!_idle.TryTake(out SentencePieceEncoder? encoder))
        {
            encoder = new SentencePieceEncoder(_vocabulary);
        }

        encoder.Encode(text, AddsSpacePrefix && segment.AfterSpecial, ids);
        _idle.Add(encoder);
    }

    private static void WithSpaces(ReadOnlySpan<byte> text, List<byte> spaced)
    {
        spaced.Clear();
        while (!text.IsEmpty)
        {
            int mark = text.IndexOf(SpaceMark);
            if (mark < 0)
            {
                break;
            }

            spaced.AddRange(text[..mark]);
            spaced.Add((byte)' ');
            text = text[(mark + SpaceMark.Length)..];
        }

        spaced.AddRange(text);
    }
}
