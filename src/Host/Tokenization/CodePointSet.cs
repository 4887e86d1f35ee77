using System.Globalization;
using System.Text;

namespace Sluice.Tokenization;

/// <summary>
/// A set of code points of a regular expression. Membership is kept in bitmaps, a page of 256 at a time, made when first asked
/// for: an expression may name many sets, and must not cost memory that its own length does not pay for.
/// </summary>
internal sealed class CodePointSet
{
    private readonly Func<int, bool> _contains;
    private ulong[]?[]?[]? _planes;
    private readonly ulong _low;
    private readonly ulong _high;

    private CodePointSet(Func<int, bool> contains)
    {
        _contains = contains;
        for (int i = 0; i < 64; i++)
        {
            _low |= contains(i) ? 1UL << i : 0;
            _high |= contains(i + 64) ? 1UL << i : 0;
        }
    }

    public static CodePointSet Any { get; } = new(_ => true);

    public static CodePointSet NoNewline { get; } = new(c => c != '\n');

    /// <summary>\d: \p{Nd}.</summary>
    public static CodePointSet Digit { get; } = Categories([UnicodeCategory.DecimalDigitNumber]);

    /// <summary>\s: Unicode's White_Space.</summary>
    public static CodePointSet Space { get; } = new(c => Rune.IsValid(c) && Rune.IsWhiteSpace(new Rune(c)));

    /// <summary>\w as Oniguruma has it: letters, marks, decimal digits, numbers that are letters, connectors, and Latin-1's superscripts and fractions.</summary>
    public static CodePointSet Word { get; } = new(c => IsWord(c) || CharUnicodeInfo.GetUnicodeCategory(c) == UnicodeCategory.LetterNumber
        || c is 0xB2 or 0xB3 or 0xB9 or (>= 0xBC and <= 0xBE) or (>= 0x24B6 and <= 0x24E9) or (>= 0x1F130 and <= 0x1F149) or (>= 0x1F150 and <= 0x1F169) or (>= 0x1F170 and <= 0x1F189));

    /// <summary>\w as Rust has it: what is alphabetic, marks, decimal digits, connectors and joiners.</summary>
    public static CodePointSet AlphabeticWord { get; } = new(c => IsWord(c) || CharUnicodeInfo.GetUnicodeCategory(c) == UnicodeCategory.LetterNumber
        || c is (>= 0x24B6 and <= 0x24E9) or (>= 0x1F130 and <= 0x1F149) or (>= 0x1F150 and <= 0x1F169) or (>= 0x1F170 and <= 0x1F189) or 0x200C or 0x200D);

    /// <summary>ASCII members as a bitmap: code points 0 to 63, and 64 to 127.</summary>
    public (ulong Low, ulong High) Ascii => (_low, _high);

    public static CodePointSet Of(int codePoint) => new(c => c == codePoint);

    public static CodePointSet Range(int first, int last) => new(c => c >= first && c <= last);

    public static CodePointSet Union(IReadOnlyList<CodePointSet> sets)
    {
        if (sets.Count == 1)
        {
            return sets[0];
        }

        CodePointSet[] parts = [.. sets];
        return new(c =>
        {
            foreach (CodePointSet part in parts)
            {
                if (part._contains(c))
                {
                    return true;
                }
            }

            return false;
        });
    }

    public static CodePointSet Categories(ReadOnlySpan<UnicodeCategory> categories)
    {
        uint mask = 0;
        foreach (UnicodeCategory category in categories)
        {
            mask |= 1u << (int)category;
        }

        return new(c => (mask >> (int)CharUnicodeInfo.GetUnicodeCategory(c) & 1) != 0);
    }

    public static CodePointSet Script(int script) => new(c => UnicodeScripts.Of(c) == script);

    public CodePointSet Not() => new(c => !_contains(c));

    public CodePointSet And(CodePointSet other) => new(c => _contains(c) && other._contains(c));

    /// <summary>This set, and whatever differs from a member in case alone. Simple case folding.</summary>
    public CodePointSet IgnoringCase() => new(c =>
    {
        if (_contains(c))
        {
            return true;
        }

        if (!Rune.IsValid(c))
        {
            return false;
        }

        Rune rune = new(c);
        int lower = Rune.ToLowerInvariant(rune).Value;
        int upper = Rune.ToUpperInvariant(rune).Value;
        return _contains(lower) || _contains(upper) || c switch
        {
            // What folds to an ASCII letter without being its upper case, and back.
            0x17F or 'S' or 's' => _contains('s') || _contains('S') || _contains(0x17F),
            0x212A or 'K' or 'k' => _contains('k') || _contains('K') || _contains(0x212A),
            0x212B or 0xC5 or 0xE5 => _contains(0xE5) || _contains(0xC5) || _contains(0x212B),
            _ => _contains(Rune.ToLowerInvariant(new Rune(upper)).Value),
        };
    });

    public bool Contains(int codePoint)
    {
        if (codePoint < 128)
        {
            return ((codePoint < 64 ? _low : _high) >> (codePoint & 63) & 1) != 0;
        }

        ulong[] page = _planes?[codePoint >> 16]?[codePoint >> 8 & 0xFF] ?? MakePage(codePoint >> 8);
        return (page[codePoint >> 6 & 3] >> (codePoint & 63) & 1) != 0;
    }

    /// <summary>True where a member stands at the position; <paramref name="length"/> are the bytes of the code point there.</summary>
    public bool MatchesAt(ReadOnlySpan<byte> text, int position, out int length)
    {
        byte first = text[position];
        if (first < 128)
        {
            length = 1;
            return ((first < 64 ? _low : _high) >> (first & 63) & 1) != 0;
        }

        return Contains(CharClass.CodePointAt(text, position, out length));
    }

    private static bool IsWord(int c) => CharUnicodeInfo.GetUnicodeCategory(c) is
        UnicodeCategory.UppercaseLetter or UnicodeCategory.LowercaseLetter or UnicodeCategory.TitlecaseLetter
        or UnicodeCategory.ModifierLetter or UnicodeCategory.OtherLetter or UnicodeCategory.NonSpacingMark
        or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark or UnicodeCategory.DecimalDigitNumber
        or UnicodeCategory.ConnectorPunctuation;

    private ulong[] MakePage(int number)
    {
        ulong[] page = new ulong[4];
        for (int i = 0; i < 256; i++)
        {
            page[i >> 6] |= _contains((number << 8) | i) ? 1UL << (i & 63) : 0;
        }

        // Threads may make the same page at once; whichever stays is right.
        ulong[]?[]?[] planes = _planes ??= new ulong[]?[]?[17];
        ulong[]?[] plane = planes[number >> 8] ??= new ulong[]?[256];
        Volatile.Write(ref plane[number & 0xFF], page);
        return page;
    }
}
