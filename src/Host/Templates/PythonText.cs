using System.Globalization;
using System.Text;

namespace Sluice.Templates;

/// <summary>What Python's strings know about characters, and searching in them in linear time.</summary>
internal static class PythonText
{
    // A longer needle is searched with a table, so that no text makes the search quadratic.
    private const int ShortNeedle = 64;

    private static readonly Dictionary<char, string> Uppers = new()
    {
        ['ß'] = "SS", ['ŉ'] = "ʼN", ['ǰ'] = "J̌", ['ﬀ'] = "FF", ['ﬁ'] = "FI", ['ﬂ'] = "FL", ['ﬃ'] = "FFI", ['ﬄ'] = "FFL", ['ﬅ'] = "ST", ['ﬆ'] = "ST", ['և'] = "ԵՒ",
    };

    /// <summary>Whether Python's <c>str.strip</c> and <c>\s</c> take it for white space.</summary>
    public static bool IsSpace(char c) => char.IsWhiteSpace(c) || c is >= '\x1c' and <= '\x1f';

    public static bool IsLineBreak(char c) => c is '\n' or '\r' or '\v' or '\f' or '\x1c' or '\x1d' or '\x1e' or '\x85' or '\u2028' or '\u2029';

    /// <summary>Whether <c>repr</c> writes it as it is.</summary>
    public static bool IsPrintable(Rune rune) => rune.Value == ' ' || Rune.GetUnicodeCategory(rune) is not (UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.Surrogate
        or UnicodeCategory.PrivateUse or UnicodeCategory.OtherNotAssigned or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator or UnicodeCategory.SpaceSeparator);

    public static bool IsCased(Rune rune) => Rune.IsUpper(rune) || Rune.IsLower(rune) || Rune.GetUnicodeCategory(rune) == UnicodeCategory.TitlecaseLetter;

    public static string Upper(string s)
    {
        string upper = s.ToUpperInvariant();
        if (!upper.AsSpan().ContainsAnyInRange('\u00DF', '\uFB06'))
        {
            return upper;
        }

        StringBuilder text = new(upper.Length);
        foreach (char c in upper)
        {
            _ = Uppers.TryGetValue(c, out string? many) ? text.Append(many) : text.Append(c);
        }

        return text.ToString();
    }

    public static string Lower(string s)
    {
        string lower = s.ToLowerInvariant();
        if (!s.Contains('Σ', StringComparison.Ordinal) && !s.Contains('İ', StringComparison.Ordinal))
        {
            return lower;
        }

        StringBuilder text = new(lower.Length);
        for (int i = 0; i < s.Length; i++)
        {
            // A sigma that ends a word has a form of its own.
            bool final = s[i] == 'Σ' && i > 0 && char.IsLetter(s[i - 1]) && (i + 1 == s.Length || !char.IsLetter(s[i + 1]));
            _ = s[i] == 'İ' ? text.Append("i̇") : text.Append(final ? 'ς' : lower[i]);
        }

        return text.ToString();
    }

    /// <summary>Each run of letters with its first one upper and the others lower.</summary>
    public static string Title(string s)
    {
        StringBuilder text = new(s.Length);
        bool inside = false;
        foreach (Rune rune in s.EnumerateRunes())
        {
            string c = rune.ToString();
            text.Append(inside ? Lower(c) : First(c));
            inside = IsCased(rune);
        }

        return text.ToString();
    }

    /// <summary>The first character upper, the others lower.</summary>
    public static string Capitalize(string s)
    {
        if (s.Length == 0)
        {
            return s;
        }

        int first = s.Length > 1 && char.IsSurrogatePair(s[0], s[1]) ? 2 : 1;
        return First(s[..first]) + Lower(s[first..]);
    }

    // The title form: of what becomes two letters, the second is lower.
    private static string First(string c)
    {
        string upper = Upper(c);
        return upper.Length > c.Length ? upper[..1] + Lower(upper[1..]) : upper;
    }

    /// <summary>Where a text stands in another from a place on; -1: nowhere.</summary>
    public static int IndexOf(Runtime rt, string hay, string needle, int from, int to)
    {
        if (needle.Length > to - from)
        {
            return -1;
        }

        rt.Scan(needle.Length > ShortNeedle ? 8L * (needle.Length + to - from) : 0);
        int at = needle.Length <= ShortNeedle ? hay.AsSpan(from, to - from).IndexOf(needle, StringComparison.Ordinal) : Find(hay.AsSpan(from, to - from), needle);
        rt.Scan(at < 0 ? to - from : at);
        return at < 0 ? -1 : from + at;
    }

    public static int LastIndexOf(Runtime rt, string hay, string needle, int from, int to)
    {
        if (needle.Length > ShortNeedle)
        {
            int last = -1;
            for (int at = IndexOf(rt, hay, needle, from, to); at >= 0; at = IndexOf(rt, hay, needle, at + 1, to))
            {
                last = at;
            }

            return last;
        }

        int found = needle.Length > to - from ? -1 : needle.Length == 0 ? to - from : hay.AsSpan(from, to - from).LastIndexOf(needle, StringComparison.Ordinal);
        rt.Scan(found < 0 ? to - from : to - from - found);
        return found < 0 ? -1 : from + found;
    }

    // Knuth, Morris and Pratt (1977).
    private static int Find(ReadOnlySpan<char> hay, string needle)
    {
        int[] back = new int[needle.Length];
        for (int i = 1, k = 0; i < needle.Length; i++)
        {
            while (k > 0 && needle[i] != needle[k])
            {
                k = back[k - 1];
            }

            back[i] = needle[i] == needle[k] ? ++k : 0;
        }

        for (int i = 0, k = 0; i < hay.Length; i++)
        {
            while (k > 0 && hay[i] != needle[k])
            {
                k = back[k - 1];
            }

            if (hay[i] == needle[k] && ++k == needle.Length)
            {
                return i - k + 1;
            }
        }

        return -1;
    }
}
