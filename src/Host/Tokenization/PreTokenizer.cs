namespace Sluice.Tokenization;

/// <summary>
/// Cuts text into the words inside which byte-level BPE may merge. A family's regular expressions are matched by hand: each rule
/// looks at a position once or twice, so the time is linear whatever the text. A family with several expressions runs them in
/// turn, each inside the pieces that the one before left; what an expression does not match stays a piece.
/// </summary>
internal sealed class PreTokenizer
{
    // The bytes of a match at position, or minus the bytes to go on by without one. The text ends where the piece does.
    private delegate int Rule(ReadOnlySpan<byte> text, int position);

    private static readonly PreTokenizer[] All =
    [
        new(["gpt-2", "phi-2", "mpt", "olmo", "jais"], [Gpt2]),
        new(["llama-bpe", "llama3", "llama-v3"], [Llama3]) { IgnoresMerges = true, AddsBos = true },
        new(["qwen2", "stablelm2", "deepseek-r1-qwen"], [Qwen2]),
        new(["deepseek-llm"], [NewlineAlone, CasedWord, DeepSeekPunctuation, TrailingSpace, EastAsian, Numbers]),
        new(["starcoder", "refact", "command-r", "smollm", "codeshell"], [OneNumber, Gpt2]),
        new(["default"], [PunctuationRun, Gpt2, Numbers, ThreeDigits]),
    ];

    private readonly Rule[] _rules;

    private PreTokenizer(string[] names, Rule[] rules)
    {
        Names = names;
        _rules = rules;
    }

    /// <summary>The names in <c>tokenizer.ggml.pre</c> that mean this one.</summary>
    public IReadOnlyList<string> Names { get; }

    /// <summary>True where a word that is a token is that token, whatever the merges would give.</summary>
    public bool IgnoresMerges { get; private init; }

    /// <summary>True where the family begins a sequence with BOS unless its file says otherwise.</summary>
    public bool AddsBos { get; private init; }

    public static IEnumerable<string> KnownNames => All.SelectMany(p => p.Names);

    public static PreTokenizer? Find(string name) => Array.Find(All, p => p.Names.Contains(name));

    /// <summary>Sets <paramref name="ends"/> to the end of each word, in order. The words cover the text. <paramref name="scratch"/> is overwritten.</summary>
    public void Split(ReadOnlySpan<byte> text, List<int> ends, List<int> scratch)
    {
        ends.Clear();
        if (text.IsEmpty)
        {
            return;
        }

        ends.Add(text.Length);
        foreach (Rule rule in _rules)
        {
            scratch.Clear();
            scratch.AddRange(ends);
            ends.Clear();
            int start = 0;
            foreach (int end in scratch)
            {
                SplitPiece(text[..end], start, rule, ends);
                start = end;
            }
        }
    }

    private static void SplitPiece(ReadOnlySpan<byte> text, int start, Rule rule, List<int> ends)
    {
        int gap = start;
        int position = start;
        while (position < text.Length)
        {
            int matched = rule(text, position);
            if (matched <= 0)
            {
                position -= matched;
                continue;
            }

            if (position > gap)
            {
                ends.Add(position);
            }

            position += matched;
            gap = position;
            ends.Add(position);
        }

        if (position > gap)
        {
            ends.Add(position);
        }
    }

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

    private static int Llama3(ReadOnlySpan<byte> text, int position) => Modern(text, position, 3);

    private static int Qwen2(ReadOnlySpan<byte> text, int position) => Modern(text, position, 1);

    // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,n}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
    private static int Modern(ReadOnlySpan<byte> text, int position, int mostDigits)
    {
        int contraction = Contraction(text, position, ignoreCase: true);
        if (contraction > 0)
        {
            return contraction;
        }

        byte kind = CharClass.At(text, position, out int length);
        int next = position + length;
        if ((kind & CharClass.Letter) != 0)
        {
            return CharClass.SkipWhile(text, next, CharClass.Letter) - position;
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
        if ((kind & CharClass.Newline) == 0 && (nextKind & CharClass.Letter) != 0)
        {
            return CharClass.SkipWhile(text, next + length, CharClass.Letter) - position;
        }

        bool afterSpace = text[position] == ' ' && (nextKind & (CharClass.Space | CharClass.Number)) == 0;
        if ((kind & CharClass.Space) == 0 || afterSpace)
        {
            int at = CharClass.SkipUntil(text, afterSpace ? next + length : next, CharClass.Space | CharClass.Letter | CharClass.Number);
            return CharClass.SkipWhile(text, at, CharClass.Newline) - position;
        }

        return SpaceRunToNewline(text, position);
    }

    // \s*[\r\n]+|\s+(?!\S)|\s+ where a space stands at position: up to the run's last line end, else as SpaceRun.
    private static int SpaceRunToNewline(ReadOnlySpan<byte> text, int position)
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

    private static int Contraction(ReadOnlySpan<byte> text, int position, bool ignoreCase)
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
        return (first, second) is ('r', 'e') or ('v', 'e') or ('l', 'l') ? 3 : 0;
    }

    // [\r\n]
    private static int NewlineAlone(ReadOnlySpan<byte> text, int position) => text[position] is (byte)'\r' or (byte)'\n' ? 1 : -1;

    // \p{N}
    private static int OneNumber(ReadOnlySpan<byte> text, int position) => (CharClass.At(text, position, out int length) & CharClass.Number) != 0 ? length : -length;

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
