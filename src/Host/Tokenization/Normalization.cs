using System.Text;

namespace Sluice.Tokenization;

/// <summary>The four normalization forms of Unicode.</summary>
internal enum UnicodeForm
{
    /// <summary>Canonical composition.</summary>
    Nfc,

    /// <summary>Canonical decomposition.</summary>
    Nfd,

    /// <summary>Compatibility composition.</summary>
    Nfkc,

    /// <summary>Compatibility decomposition.</summary>
    Nfkd,
}

/// <summary>
/// Unicode normalization (UAX 15) of UTF-8 text, without ICU. Text that is in the form already is only read: every code point knows
/// whether the form can change it or order it, and only the stretch around one that may is taken apart.
/// </summary>
internal static class Normalization
{
    private const int SBase = 0xAC00;
    private const int LBase = 0x1100;
    private const int VBase = 0x1161;
    private const int TBase = 0x11A7;
    private const int LCount = 19;
    private const int VCount = 21;
    private const int TCount = 28;
    private const int SCount = LCount * VCount * TCount;

    private static readonly NormalizationTables Tables = new();

    [ThreadStatic]
    private static List<int>? _stretch;

    /// <summary>Appends the form of <paramref name="text"/> to <paramref name="output"/>; false, and nothing appended, where the text is in that form.</summary>
    public static bool TryNormalize(UnicodeForm form, ReadOnlySpan<byte> text, ByteBuffer output)
    {
        int copied = 0;
        int boundary = 0;
        int lastClass = 0;
        bool changed = false;
        for (int at = 0; at < text.Length;)
        {
            if (text[at] < 128)
            {
                int run = text[at..].IndexOfAnyExceptInRange((byte)0, (byte)127);
                at = run < 0 ? text.Length : at + run;
                boundary = at - 1;
                lastClass = 0;
                continue;
            }

            int codePoint = CharClass.CodePointAt(text, at, out int length);
            int combining = Tables.Inspect(codePoint, form, out bool suspect);
            if (!suspect && (combining == 0 || combining >= lastClass))
            {
                boundary = combining == 0 ? at : boundary;
                lastClass = combining;
                at += length;
                continue;
            }

            for (at += length; at < text.Length; at += length)
            {
                codePoint = CharClass.CodePointAt(text, at, out length);
                if (Tables.Inspect(codePoint, form, out suspect) == 0 && !suspect)
                {
                    break;
                }
            }

            changed = true;
            output.Add(text[copied..boundary]);
            Rewrite(form, text[boundary..at], output);
            copied = at;
            boundary = at;
            lastClass = 0;
        }

        if (changed)
        {
            output.Add(text[copied..]);
        }

        return changed;
    }

    /// <summary>The canonical combining class of a code point.</summary>
    public static int CombiningClass(int codePoint) => Tables.Inspect(codePoint, UnicodeForm.Nfd, out _);

    private static void Rewrite(UnicodeForm form, ReadOnlySpan<byte> text, ByteBuffer output)
    {
        List<int> points = _stretch ??= [];
        points.Clear();
        for (int at = 0; at < text.Length;)
        {
            Decompose(CharClass.CodePointAt(text, at, out int length), form, points);
            at += length;
        }

        Order(points);
        int count = form is UnicodeForm.Nfc or UnicodeForm.Nfkc ? Compose(points) : points.Count;
        for (int i = 0; i < count; i++)
        {
            output.AddCodePoint(points[i]);
        }

        if (points.Capacity > 1 << 16)
        {
            _stretch = null;
        }
    }

    private static void Decompose(int codePoint, UnicodeForm form, List<int> points)
    {
        int syllable = codePoint - SBase;
        if ((uint)syllable < SCount)
        {
            points.Add(LBase + (syllable / (VCount * TCount)));
            points.Add(VBase + (syllable % (VCount * TCount) / TCount));
            if (syllable % TCount > 0)
            {
                points.Add(TBase + (syllable % TCount));
            }
        }
        else if (Tables.Decomposition(codePoint, form is UnicodeForm.Nfkc or UnicodeForm.Nfkd) is { } parts)
        {
            points.AddRange(parts);
        }
        else
        {
            points.Add(codePoint);
        }
    }

    // Runs of code points whose class is not zero are sorted by it, equal ones kept in order.
    private static void Order(List<int> points)
    {
        for (int start = 0; start < points.Count; start++)
        {
            if (CombiningClass(points[start]) == 0)
            {
                continue;
            }

            int end = start + 1;
            bool sorted = true;
            for (int before = CombiningClass(points[start]); end < points.Count && CombiningClass(points[end]) is > 0 and int next; end++)
            {
                sorted &= next >= before;
                before = next;
            }

            if (!sorted)
            {
                SortByClass(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(points)[start..end]);
            }

            start = end;
        }
    }

    // Few marks are sorted by insertion; a hostile million of them by counting.
    private static void SortByClass(Span<int> marks)
    {
        if (marks.Length <= 32)
        {
            for (int i = 1; i < marks.Length; i++)
            {
                int mark = marks[i];
                int at = i;
                for (; at > 0 && CombiningClass(marks[at - 1]) > CombiningClass(mark); at--)
                {
                    marks[at] = marks[at - 1];
                }

                marks[at] = mark;
            }

            return;
        }

        Span<int> starts = stackalloc int[257];
        starts.Clear();
        foreach (int mark in marks)
        {
            starts[CombiningClass(mark) + 1]++;
        }

        for (int i = 1; i < starts.Length; i++)
        {
            starts[i] += starts[i - 1];
        }

        int[] unsorted = marks.ToArray();
        foreach (int mark in unsorted)
        {
            marks[starts[CombiningClass(mark)]++] = mark;
        }
    }

    private static int Compose(List<int> points)
    {
        int starter = -1;
        int lastClass = -1;
        int count = 0;
        foreach (int codePoint in System.Runtime.InteropServices.CollectionsMarshal.AsSpan(points))
        {
            int combining = CombiningClass(codePoint);
            // Blocked where something of the same or a higher class, or another starter, stands between.
            if (starter >= 0 && lastClass < combining && Compose(points[starter], codePoint) is >= 0 and int composed)
            {
                points[starter] = composed;
                continue;
            }

            if (combining == 0)
            {
                starter = count;
                lastClass = -1;
            }
            else
            {
                lastClass = combining;
            }

            points[count++] = codePoint;
        }

        return count;
    }

    private static int Compose(int first, int second)
    {
        if ((uint)(first - LBase) < LCount && (uint)(second - VBase) < VCount)
        {
            return SBase + ((((first - LBase) * VCount) + (second - VBase)) * TCount);
        }

        return (uint)(first - SBase) < SCount && (first - SBase) % TCount == 0 && second - TBase is > 0 and < TCount
            ? first + (second - TBase)
            : Tables.Composition(first, second);
    }
}
