using System.Text;

namespace Sluice.Tokenization;

/// <summary>Changes a text before it is cut into words. Safe from any thread.</summary>
internal abstract class TextNormalizer
{
    /// <summary>Appends the changed text to <paramref name="output"/>; false, and nothing appended, where the text stays as it is.</summary>
    public abstract bool Apply(ReadOnlySpan<byte> text, ByteBuffer output);

    /// <summary>The changed text, as a copy.</summary>
    public byte[] Apply(ReadOnlySpan<byte> text)
    {
        ByteBuffer output = new() { Limit = LimitFor(text.Length) };
        return (Apply(text, output) ? output.Span : text).ToArray();
    }

    /// <summary>Bytes that a text may become: far above what normalizers make of one, so that a chain of replacements cannot multiply it for ever.</summary>
    public static int LimitFor(int length) => (int)Math.Min(Array.MaxLength, (64L * length) + (1 << 20));
}

/// <summary>Several normalizers, one after the other.</summary>
internal sealed class SequenceNormalizer(IReadOnlyList<TextNormalizer> parts) : TextNormalizer
{
    public override bool Apply(ReadOnlySpan<byte> text, ByteBuffer output)
    {
        ByteBuffer? last = null;
        ByteBuffer? spare = null;
        foreach (TextNormalizer part in parts)
        {
            ByteBuffer next = spare ?? new ByteBuffer();
            next.Clear();
            next.Limit = output.Limit;
            if (part.Apply(last is null ? text : last.Span, next))
            {
                (last, spare) = (next, last);
            }
            else
            {
                spare = next;
            }
        }

        if (last is null)
        {
            return false;
        }

        output.Add(last.Span);
        return true;
    }
}

/// <summary>NFC, NFD, NFKC or NFKD.</summary>
internal sealed class FormNormalizer(UnicodeForm form) : TextNormalizer
{
    public override bool Apply(ReadOnlySpan<byte> text, ByteBuffer output) => Normalization.TryNormalize(form, text, output);
}

/// <summary>Puts a text in front of what is not empty.</summary>
internal sealed class PrependNormalizer(byte[] prefix) : TextNormalizer
{
    public override bool Apply(ReadOnlySpan<byte> text, ByteBuffer output)
    {
        if (text.IsEmpty || prefix.Length == 0)
        {
            return false;
        }

        output.Add(prefix);
        output.Add(text);
        return true;
    }
}

/// <summary>Takes white space off the ends.</summary>
internal sealed class StripNormalizer(bool left, bool right) : TextNormalizer
{
    public override bool Apply(ReadOnlySpan<byte> text, ByteBuffer output)
    {
        int start = left ? CharClass.SkipWhile(text, 0, CharClass.Space) : 0;
        int end = right ? AddedTokens.SpacesAtEnd(text, start) : text.Length;
        if (start == 0 && end == text.Length)
        {
            return false;
        }

        output.Add(text[start..end]);
        return true;
    }
}

/// <summary>Replaces every match of a rule by a text.</summary>
internal sealed class ReplaceNormalizer(WordRule rule, byte[] content) : TextNormalizer
{
    public override bool Apply(ReadOnlySpan<byte> text, ByteBuffer output)
    {
        int copied = 0;
        for (int at = 0; at < text.Length;)
        {
            int matched = rule(text, at);
            if (matched < 0)
            {
                at -= matched;
                continue;
            }

            output.Add(text[copied..at]);
            output.Add(content);
            copied = at + matched;
            if (matched == 0)
            {
                CharClass.At(text, at, out matched);
            }

            at += matched;
        }

        if (copied == 0 && output.Length == 0)
        {
            return false;
        }

        output.Add(text[copied..]);
        return true;
    }
}

/// <summary>Writes every byte as the character that GPT-2 has for it.</summary>
internal sealed class ByteLevelNormalizer : TextNormalizer
{
    public override bool Apply(ReadOnlySpan<byte> text, ByteBuffer output)
    {
        foreach (byte value in text)
        {
            output.AddCodePoint(ByteAlphabet.CharacterOf(value).Value);
        }

        return true;
    }
}

/// <summary>Changes code points one by one.</summary>
internal sealed class MapNormalizer(MapNormalizer.Mapping map) : TextNormalizer
{
    /// <summary>Appends what a code point becomes; false where it stays.</summary>
    public delegate bool Mapping(int codePoint, ByteBuffer output);

    /// <summary>Lower case, as Rust's char::to_lowercase has it: one by one, without context.</summary>
    public static TextNormalizer Lowercase { get; } = new MapNormalizer(Lower);

    /// <summary>Leaves marks out (\p{M}).</summary>
    public static TextNormalizer StripAccents { get; } = new MapNormalizer((c, _) => c >= 0x300 && (CharClass.Of(new Rune(c)) & CharClass.Mark) != 0);

    /// <summary>What SentencePiece's nmt_nfkc does to control characters and spaces.</summary>
    public static TextNormalizer Nmt { get; } = new MapNormalizer((c, output) =>
    {
        if (c is (>= 1 and <= 8) or 0xB or (>= 0xE and <= 0x1F) or 0x7F or 0x8F or 0x9F)
        {
            return true;
        }

        if (c is 9 or 10 or 12 or 13 or 0x1680 or (>= 0x200B and <= 0x200F) or 0x2028 or 0x2029 or 0x2581 or 0xFEFF or 0xFFFD)
        {
            output.Add((byte)' ');
            return true;
        }

        return false;
    });

    public override bool Apply(ReadOnlySpan<byte> text, ByteBuffer output)
    {
        int copied = 0;
        bool changed = false;
        ByteBuffer mapped = new();
        for (int at = 0; at < text.Length;)
        {
            int codePoint = CharClass.CodePointAt(text, at, out int length);
            if (map(codePoint, mapped))
            {
                changed = true;
                output.Add(text[copied..at]);
                output.Add(mapped.Span);
                mapped.Clear();
                copied = at + length;
            }

            at += length;
        }

        if (changed)
        {
            output.Add(text[copied..]);
        }

        return changed;
    }

    private static bool Lower(int codePoint, ByteBuffer output)
    {
        if (codePoint == 0x130)
        {
            output.Add("i\u0307"u8);
            return true;
        }

        int lower = Rune.ToLowerInvariant(new Rune(codePoint)).Value;
        if (lower == codePoint)
        {
            return false;
        }

        output.AddCodePoint(lower);
        return true;
    }
}
