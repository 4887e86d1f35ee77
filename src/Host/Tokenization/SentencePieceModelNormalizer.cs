using System.Buffers;
using System.Text;

namespace Sluice.Tokenization;

/// <summary>
/// A text as SentencePiece itself normalizes it (Kudo and Richardson, 2018; its normalizer.cc): symbols that users defined stay as they are, else the longest
/// entry of the character map counts, else the character; blanks are dropped at the ends and merged where asked, and become marks, one of them in front where asked.
/// </summary>
internal sealed class SentencePieceModelNormalizer(CharsMap? map, PrefixTrie symbols, bool dummyPrefix, bool removeExtraSpaces) : TextNormalizer
{
    public override bool Apply(ReadOnlySpan<byte> text, ByteBuffer output)
    {
        ReadOnlySpan<byte> mark = SentencePieceTokenizer.SpaceMark;
        bool started = false;
        bool afterSpace = removeExtraSpaces;
        while (!text.IsEmpty)
        {
            ReadOnlySpan<byte> piece = First(text, out int taken);
            text = text[taken..];
            if (!started)
            {
                if (removeExtraSpaces && piece.SequenceEqual(" "u8))
                {
                    continue;
                }

                started = true;
                if (dummyPrefix)
                {
                    output.Add(mark);
                }
            }

            piece = afterSpace ? piece.TrimStart((byte)' ') : piece;
            if (!piece.IsEmpty)
            {
                foreach (byte value in piece)
                {
                    output.Add(value == ' ' ? mark : new ReadOnlySpan<byte>(in value));
                }

                afterSpace = removeExtraSpaces && piece[^1] == ' ';
            }
        }

        while (removeExtraSpaces && output.Span.EndsWith(mark))
        {
            output.Truncate(output.Length - mark.Length);
        }

        return true;
    }

    // What the text's first character, or first few, become.
    private ReadOnlySpan<byte> First(ReadOnlySpan<byte> text, out int taken)
    {
        taken = 0;
        int node = -1;
        for (int at = 0; at < text.Length && (node = symbols.Step(node, text[at])) >= 0; at++)
        {
            taken = symbols.ValueAt(node) >= 0 ? at + 1 : taken;
        }

        if (taken > 0)
        {
            return text[..taken];
        }

        if (map is not null && (taken = map.Find(text, longest: true, out ReadOnlySpan<byte> replacement)) > 0)
        {
            return replacement;
        }

        bool whole = Rune.DecodeFromUtf8(text, out _, out taken) == OperationStatus.Done;
        taken = whole ? taken : 1;
        return whole ? text[..taken] : "\uFFFD"u8;
    }
}
