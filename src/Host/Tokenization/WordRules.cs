namespace Sluice.Tokenization;

/// <summary>
/// Finds the next word. Gives the bytes of a match that begins at <paramref name="position"/>, minus the bytes to go on by where none does, or 0 for a
/// match of nothing, which cuts the text there. The text begins and ends where the piece does.
/// </summary>
internal delegate int WordRule(ReadOnlySpan<byte> text, int position);

/// <summary>The regular expressions of the known families, matched by hand: each rule looks at a position once or twice, so that the time is linear whatever the text.</summary>
internal static class WordRules
{
    // Expressions to the letter, as tokenizer files have them.
    private static readonly Dictionary<string, WordRule> Known = new(StringComparer.Ordinal)
    {
        [RegexTexts.Gpt2] = Gpt2,
        [RegexTexts.Gpt2 + @"|\s+"] = Gpt2,
        [RegexTexts.Llama3] = Llama3LongS,
        [RegexTexts.Llama3Ascii] = Llama3,
        [RegexTexts.Qwen2] = Qwen2LongS,
        [RegexTexts.Qwen2Ascii] = Qwen2,
        [RegexTexts.Qwen35] = Qwen35LongS,
        [RegexTexts.Qwen35Ascii] = Qwen35,
        [RegexTexts.AnyDigits] = AnyDigitsLongS,
        [RegexTexts.AnyDigitsAscii] = AnyDigits,
        [@"[\r\n]"] = NewlineAlone,
        ["[\r\n]"] = NewlineAlone,
        [@"\p{N}"] = OneNumber,
        [@"\p{N}+"] = Numbers,
        [@"\p{N}{1,3}"] = ThreeNumbers,
        ["[0-9][0-9][0-9]"] = ThreeDigits,
        [@"\s+$"] = TrailingSpace,
        [@"[\p{P}\$\+<=>\^~\|]+"] = PunctuationRun,
        [RegexTexts.DeepSeekWords] = CasedWord,
        [RegexTexts.DeepSeekPunctuation] = DeepSeekPunctuation,
        [RegexTexts.DeepSeekEastAsian] = EastAsian,
        [RegexTexts.DeepSeekV3] = CasedWordRules.DeepSeekV3,
        [RegexTexts.Gpt4o] = CasedWordRules.Gpt4o,
        [RegexTexts.Youtu] = CasedWordRules.Youtu,
        [RegexTexts.Tekken] = CasedWordRules.Tekken,
        [RegexTexts.DigitsToWordEnd] = DigitGroupRules.ToWordEnd,
        [RegexTexts.DigitsToRunEnd] = DigitGroupRules.ToRunEnd,
        [RegexTexts.BeforeDigits] = DigitGroupRules.Before,
    };

    /// <summary>The rule written by hand for an expression, or null.</summary>
    public static WordRule? Find(string expression) => Known.GetValueOrDefault(expression);

    // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
    private static int Gpt2(ReadOnlySpan<byte> text, int position)
    {
        int contraction = Contraction(text, position, ignoreCase: false);
        if (contraction > 0)
        {
            return contraction;
        }

        int at = position;
        byte kind = CharClass.At(text, at, out int length);
        if (text[at] == ' ' && at + 1 < text.Length)
        {
            kind = CharClass.At(text, ++at, out length);
        }

        if ((kind & CharClass.Space) != 0)
        {
            return SpaceRun(text, position);
        }

        at += length;
        return (kind & (CharClass.Letter | CharClass.Number)) switch
        {
            CharClass.Letter => CharClass.SkipWhile(text, at, CharClass.Letter),
            CharClass.Number => CharClass.SkipWhile(text, at, CharClass.Number),
            _ => CharClass.SkipUntil(text, at, CharClass.Space | CharClass.Letter | CharClass.Number),
        } - position;
    }

    private static int Llama3(ReadOnlySpan<byte> text, int position) => Modern(text, position, 3, longS: false, CharClass.Letter);

    private static int Qwen2(ReadOnlySpan<byte> text, int position) => Modern(text, position, 1, longS: false, CharClass.Letter);

    private static int Qwen35(ReadOnlySpan<byte> text, int position) => Modern(text, position, 1, longS: false, CharClass.Letter | CharClass.Mark);

    private static int AnyDigits(ReadOnlySpan<byte> text, int position) => Modern(text, position, int.MaxValue, longS: false, CharClass.Letter);

    private static int Llama3LongS(ReadOnlySpan<byte> text, int position) => Modern(text, position, 3, longS: true, CharClass.Letter);

    private static int Qwen2LongS(ReadOnlySpan<byte> text, int position) => Modern(text, position, 1, longS: true, CharClass.Letter);

    private static int Qwen35LongS(ReadOnlySpan<byte> text, int position) => Modern(text, position, 1, longS: true, CharClass.Letter | CharClass.Mark);

    private static int AnyDigitsLongS(ReadOnlySpan<byte> text, int position) => Modern(text, position, int.MaxValue, longS: true, CharClass.Letter);

    // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?W+|\p{N}{1,n}| ?[^\s\p{N}W]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ where W is \p{L}, or \p{L} and \p{M}
    private static int Modern(ReadOnlySpan<byte> text, int position, int mostDigits, bool longS, byte word)
    {
        int contraction = Contraction(text, position, ignoreCase: true, longS);
        if (contraction > 0)
        {
            return contraction;
        }

        byte kind = CharClass.At(text, position, out int length);
        int next = position + length;
        if ((kind & word) != 0)
        {
            return CharClass.SkipWhile(text, next, word) - position;
        }

        if ((kind & CharClass.Number) != 0)
        {
            for (int digits = 1; digits < mostDigits && next < text.Length && (CharClass.At(text, next, out length) & CharClass.Number) != 0; digits++)
            {
                next += length;
            }

            return next - position;
        }

        byte nextKind = next < text.Length ? CharClass.At(text, next, out length) : CharClass.Space;
        if ((kind & CharClass.Newline) == 0 && (nextKind & word) != 0)
        {
            return CharClass.SkipWhile(text, next + length, word) - position;
        }

        bool afterSpace = text[position] == ' ' && (nextKind & (CharClass.Space | CharClass.Number | word)) == 0;
        if ((kind & CharClass.Space) == 0 || afterSpace)
        {
            int at = CharClass.SkipUntil(text, afterSpace ? next + length : next, (byte)(CharClass.Space | CharClass.Number | word));
            return CharClass.SkipWhile(text, at, CharClass.Newline) - position;
        }

        return SpaceRunToNewline(text, position);
    }

    // \s*[\r\n]+|\s+(?!\S)|\s+ where a space stands at position: up to the run's last line end, else as SpaceRun.
    internal static int SpaceRunToNewline(ReadOnlySpan<byte> text, int position)
    {
        int newline = 0;
        int at = position;
        while (at < text.Length)
        {
            byte kind = CharClass.At(text, at, out int length);
            if ((kind & CharClass.Space) == 0)
            {
                break;
            }

            at += length;
            if ((kind & CharClass.Newline) != 0)
            {
                newline = at;
            }
        }

        return newline > 0 ? newline - position : SpaceRun(text, position);
    }

    // \s+(?!\S)|\s+ where a space stands at position: a run before other text leaves its last space to that text.
    private static int SpaceRun(ReadOnlySpan<byte> text, int position)
    {
        int last = position;
        int at = position;
        while (at < text.Length)
        {
            if ((CharClass.At(text, at, out int length) & CharClass.Space) == 0)
            {
                return (last > position ? last : at) - position;
            }

            last = at;
            at += length;
        }

        return at - position;
    }

    // (?i:...) takes U+017F, whose upper case is S, for an s; expressions written out as [sS] do not.
    internal static int Contraction(ReadOnlySpan<byte> text, int position, bool ignoreCase, bool longS = false)
    {
        if (text[position] != '\'' || position + 1 >= text.Length)
        {
            return 0;
        }

        int lower = ignoreCase ? 0x20 : 0;
        int first = text[position + 1] | lower;
        if (first is 's' or 't' or 'm' or 'd')
        {
            return 2;
        }

        int second = position + 2 < text.Length ? text[position + 2] | lower : 0;
        if ((first, second) is ('r', 'e') or ('v', 'e') or ('l', 'l'))
        {
            return 3;
        }

        return longS && text[(position + 1)..].StartsWith("\u017F"u8) ? 3 : 0;
    }

    // [\r\n]
    private static int NewlineAlone(ReadOnlySpan<byte> text, int position) => text[position] is (byte)'\r' or (byte)'\n' ? 1 : -1;

    // \p{N}
    private static int OneNumber(ReadOnlySpan<byte> text, int position) => (CharClass.At(text, position, out int length) & CharClass.Number) != 0 ? length : -length;

    // \p{N}{1,3}
    private static int ThreeNumbers(ReadOnlySpan<byte> text, int position)
    {
        int at = position;
        int length = 1;
        for (int digits = 0; digits < 3 && at < text.Length && (CharClass.At(text, at, out length) & CharClass.Number) != 0; digits++)
        {
            at += length;
        }

        return at > position ? at - position : -length;
    }

    // \p{N}+
    private static int Numbers(ReadOnlySpan<byte> text, int position)
    {
        byte kind = CharClass.At(text, position, out int length);
        return (kind & CharClass.Number) != 0 ? CharClass.SkipWhile(text, position + length, CharClass.Number) - position : -length;
    }

    // [0-9][0-9][0-9]
    private static int ThreeDigits(ReadOnlySpan<byte> text, int position)
    {
        ReadOnlySpan<byte> rest = text[position..];
        return rest.Length >= 3 && !rest[..3].ContainsAnyExceptInRange((byte)'0', (byte)'9') ? 3 : -1;
    }

    // [\p{P}\$\+<=>\^~\|]+
    private static int PunctuationRun(ReadOnlySpan<byte> text, int position)
    {
        int at = position;
        int length = 1;
        while (at < text.Length)
        {
            byte kind = CharClass.At(text, at, out length);
            if ((kind & CharClass.Punctuation) == 0 && !"$+<=>^~|"u8.Contains(text[at]))
            {
                break;
            }

            at += length;
        }

        return at > position ? at - position : -length;
    }

    // \s?[cased letters]+
    private static int CasedWord(ReadOnlySpan<byte> text, int position) => OptionalSpaceThen(text, position, CodePointRanges.CasedLetters);

    // \s?[!-/:-~！-／：-～‘-‟　-。]+
    private static int DeepSeekPunctuation(ReadOnlySpan<byte> text, int position) => OptionalSpaceThen(text, position, CodePointRanges.DeepSeekPunctuation);

    // [一-龥ࠀ-一가-퟿]+
    private static int EastAsian(ReadOnlySpan<byte> text, int position)
    {
        int at = SkipRanges(text, position, CodePointRanges.EastAsian, out int length);
        return at > position ? at - position : -length;
    }

    // \s+$
    private static int TrailingSpace(ReadOnlySpan<byte> text, int position)
    {
        byte kind = CharClass.At(text, position, out int length);
        if ((kind & CharClass.Space) == 0)
        {
            return -length;
        }

        int end = CharClass.SkipWhile(text, position, CharClass.Space);
        return end == text.Length ? end - position : position - end;
    }

    private static int OptionalSpaceThen(ReadOnlySpan<byte> text, int position, CodePointRanges ranges)
    {
        int start = position;
        byte kind = CharClass.At(text, position, out int first);
        if ((kind & CharClass.Space) != 0)
        {
            start += first;
        }

        int at = start < text.Length ? SkipRanges(text, start, ranges, out _) : start;
        if (at == start)
        {
            // A space may itself be in the class, and then begins the run without the optional one.
            at = start > position ? SkipRanges(text, position, ranges, out _) : position;
        }

        return at > position ? at - position : -first;
    }

    private static int SkipRanges(ReadOnlySpan<byte> text, int position, CodePointRanges ranges, out int length)
    {
        length = 1;
        while (position < text.Length && ranges.Contains(CharClass.CodePointAt(text, position, out length)))
        {
            position += length;
        }

        return position;
    }
}
