using System.Globalization;
using System.Text;

namespace Sluice.Tokenization;

/// <summary>
/// The expressions that cut words where case changes (GPT-4o, Tekken, Youtu), and DeepSeek-V3's, matched by hand: linear whatever the text.
/// </summary>
internal static class CasedWordRules
{
    // Lu and Lt, Ll, and what may stand for both: Lm, Lo and M.
    private const byte Upper = 1;
    private const byte Lower = 2;
    private const byte Caseless = 4;
    private const byte Mark = 8; // with Caseless

    private static readonly byte[] Ascii = [.. Enumerable.Range(0, 128).Select(c => char.IsAsciiLetterUpper((char)c) ? Upper : char.IsAsciiLetterLower((char)c) ? Lower : (byte)0)];

    public static int Gpt4o(ReadOnlySpan<byte> text, int position) => Match(text, position, 3, contractions: true);

    public static int Youtu(ReadOnlySpan<byte> text, int position) => Match(text, position, 1, contractions: true);

    public static int Tekken(ReadOnlySpan<byte> text, int position) => Match(text, position, 1, contractions: false);

    // [ASCII punctuation][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
    public static int DeepSeekV3(ReadOnlySpan<byte> text, int position)
    {
        const byte Word = CharClass.Letter | CharClass.Mark, Signs = CharClass.Punctuation | CharClass.Symbol;
        byte kind = CharClass.At(text, position, out int length);
        int next = position + length;
        if ((kind & Word) != 0)
        {
            return CharClass.SkipWhile(text, next, Word) - position;
        }

        int after = 1;
        byte nextKind = next < text.Length ? CharClass.At(text, next, out after) : (byte)0;
        if ((kind & Signs) != 0)
        {
            if (text[position] < 128 && next < text.Length && char.IsAsciiLetter((char)text[next]))
            {
                int letters = text[next..].IndexOfAnyExcept(AsciiLetters);
                return (letters < 0 ? text.Length : next + letters) - position;
            }

            return CharClass.SkipWhile(text, CharClass.SkipWhile(text, next, Signs), CharClass.Newline) - position;
        }

        if ((kind & CharClass.Newline) == 0 && (nextKind & Word) != 0)
        {
            return CharClass.SkipWhile(text, next + after, Word) - position;
        }

        if (text[position] == ' ' && (nextKind & Signs) != 0)
        {
            return CharClass.SkipWhile(text, CharClass.SkipWhile(text, next, Signs), CharClass.Newline) - position;
        }

        return (kind & CharClass.Space) != 0 ? WordRules.SpaceRunToNewline(text, position) : -length;
    }

    private static readonly System.Buffers.SearchValues<byte> AsciiLetters = System.Buffers.SearchValues.Create("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"u8);

    // [^\r\n\p{L}\p{N}]?U*W+C?|[^\r\n\p{L}\p{N}]?U+W*C?|\p{N}{1,n}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
    // where U is upper case or caseless, W lower case or caseless, and C a contraction, in families that have them
    private static int Match(ReadOnlySpan<byte> text, int position, int mostDigits, bool contractions)
    {
        byte kind = CharClass.At(text, position, out int length);
        int next = position + length;
        if ((kind & CharClass.Number) != 0)
        {
            for (int digits = 1; digits < mostDigits && next < text.Length && (CharClass.At(text, next, out length) & CharClass.Number) != 0; digits++)
            {
                next += length;
            }

            return next - position;
        }

        int end = (kind & (CharClass.Letter | CharClass.Newline)) == 0 ? LedWord(text, position, next) : (kind & CharClass.Letter) != 0 ? Word(text, position, out _) : -1;
        if (end >= 0)
        {
            return end + (contractions && end < text.Length ? WordRules.Contraction(text, end, ignoreCase: true, longS: true) : 0) - position;
        }

        const byte Others = CharClass.Space | CharClass.Letter | CharClass.Number;
        bool afterSpace = text[position] == ' ' && next < text.Length && (CharClass.At(text, next, out length) & Others) == 0;
        if ((kind & CharClass.Space) != 0 && !afterSpace)
        {
            return WordRules.SpaceRunToNewline(text, position);
        }

        int at = CharClass.SkipUntil(text, next, Others);
        while (at < text.Length && text[at] is (byte)'\r' or (byte)'\n' or (byte)'/')
        {
            at++;
        }

        return at - position;
    }

    // A word that begins behind a character of another kind, or -1. A mark may be that character, or the word's first.
    private static int LedWord(ReadOnlySpan<byte> text, int position, int next)
    {
        int end = Word(text, next, out bool cased);
        bool mark = text[position] >= 128 && (ClassAt(text, position, out _) & Mark) != 0;
        return mark && (end < 0 || cased) ? next : end;
    }

    // The end of U*W+, or else of U+ (upperOnly), or -1. A run of U that no lower case letter follows gives back what is behind its last caseless letter.
    private static int Word(ReadOnlySpan<byte> text, int start, out bool upperOnly)
    {
        int at = start;
        int afterCaseless = -1;
        byte kind = 0;
        int length = 0;
        while (at < text.Length && ((kind = ClassAt(text, at, out length)) & (Upper | Caseless)) != 0)
        {
            at += length;
            afterCaseless = (kind & Caseless) != 0 ? at : afterCaseless;
        }

        upperOnly = false;
        if (at < text.Length && (kind & Lower) != 0)
        {
            do
            {
                at += length;
            }
            while (at < text.Length && (ClassAt(text, at, out length) & (Lower | Caseless)) != 0);
            return at;
        }

        upperOnly = afterCaseless < 0;
        return !upperOnly ? afterCaseless : at > start ? at : -1;
    }

    private static byte ClassAt(ReadOnlySpan<byte> text, int position, out int length)
    {
        byte first = text[position];
        if (first < 128)
        {
            length = 1;
            return Ascii[first];
        }

        Rune.DecodeFromUtf8(text[position..], out Rune rune, out length);
        return CharUnicodeInfo.GetUnicodeCategory(rune.Value) switch
        {
            UnicodeCategory.UppercaseLetter or UnicodeCategory.TitlecaseLetter => Upper,
            UnicodeCategory.LowercaseLetter => Lower,
            UnicodeCategory.ModifierLetter or UnicodeCategory.OtherLetter => Caseless,
            UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark => Caseless | Mark,
            _ => 0,
        };
    }
}
