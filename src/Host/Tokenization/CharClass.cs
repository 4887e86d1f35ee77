using System.Globalization;
using System.Text;

namespace Sluice.Tokenization;

/// <summary>The classes of code points that pre-tokenizers tell apart, over UTF-8 and without ICU.</summary>
internal static class CharClass
{
    /// <summary>\p{L}.</summary>
    public const byte Letter = 1;

    /// <summary>\p{N}.</summary>
    public const byte Number = 2;

    /// <summary>\s: Unicode's White_Space, line ends too.</summary>
    public const byte Space = 4;

    /// <summary>Carriage return or line feed (which are also <see cref="Space"/>).</summary>
    public const byte Newline = 8;

    /// <summary>\p{P}.</summary>
    public const byte Punctuation = 16;

    /// <summary>\p{S}.</summary>
    public const byte Symbol = 32;

    /// <summary>\p{M}.</summary>
    public const byte Mark = 64;

    private static readonly byte[] Ascii = MakeAscii();

    /// <summary>The class at a position of UTF-8 text, and the bytes of the code point there; a broken sequence is of no class.</summary>
    public static byte At(ReadOnlySpan<byte> text, int position, out int length)
    {
        byte first = text[position];
        if (first < 128)
        {
            length = 1;
            return Ascii[first];
        }

        Rune.DecodeFromUtf8(text[position..], out Rune rune, out length);
        return Of(rune);
    }

    /// <summary>The code point at a position, and its bytes; U+FFFD for a broken sequence.</summary>
    public static int CodePointAt(ReadOnlySpan<byte> text, int position, out int length)
    {
        byte first = text[position];
        if (first < 128)
        {
            length = 1;
            return first;
        }

        Rune.DecodeFromUtf8(text[position..], out Rune rune, out length);
        return rune.Value;
    }

    /// <summary>The first position at or after <paramref name="position"/> whose class shares no bit with <paramref name="mask"/>.</summary>
    public static int SkipWhile(ReadOnlySpan<byte> text, int position, byte mask)
    {
        while (position < text.Length)
        {
            if ((At(text, position, out int length) & mask) == 0)
            {
                break;
            }

            position += length;
        }

        return position;
    }

    /// <summary>The first position at or after <paramref name="position"/> whose class shares a bit with <paramref name="mask"/>.</summary>
    public static int SkipUntil(ReadOnlySpan<byte> text, int position, byte mask)
    {
        while (position < text.Length)
        {
            if ((At(text, position, out int length) & mask) != 0)
            {
                break;
            }

            position += length;
        }

        return position;
    }

    /// <summary>The class of a code point.</summary>
    public static byte Of(Rune rune)
    {
        if (Rune.IsWhiteSpace(rune))
        {
            return rune.Value is '\r' or '\n' ? (byte)(Space | Newline) : Space;
        }

        return CharUnicodeInfo.GetUnicodeCategory(rune.Value) switch
        {
            UnicodeCategory.UppercaseLetter or UnicodeCategory.LowercaseLetter or UnicodeCategory.TitlecaseLetter
                or UnicodeCategory.ModifierLetter or UnicodeCategory.OtherLetter => Letter,
            UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber => Number,
            UnicodeCategory.ConnectorPunctuation or UnicodeCategory.DashPunctuation or UnicodeCategory.OpenPunctuation
                or UnicodeCategory.ClosePunctuation or UnicodeCategory.InitialQuotePunctuation or UnicodeCategory.FinalQuotePunctuation
                or UnicodeCategory.OtherPunctuation => Punctuation,
            UnicodeCategory.MathSymbol or UnicodeCategory.CurrencySymbol or UnicodeCategory.ModifierSymbol or UnicodeCategory.OtherSymbol => Symbol,
            UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark => Mark,
            _ => 0,
        };
    }

    private static byte[] MakeAscii()
    {
        byte[] classes = new byte[128];
        for (int i = 0; i < classes.Length; i++)
        {
            classes[i] = Of(new Rune(i));
        }

        return classes;
    }
}
