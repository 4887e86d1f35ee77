using System.Text;

namespace Sluice.Templates;

/// <summary>
/// A string, and which of its characters came from data. The marks go with the characters through joining, cutting and replacing, so that
/// the rendered prompt still knows what a person said and what the template wrote.
/// </summary>
internal sealed class Text : Value
{
    public static readonly Text Empty = new("", null);

    private int _wide = -1;
    private int _codePoints = -1;

    /// <param name="s">The characters.</param>
    /// <param name="marks">Start and end of each range of data, one after another: ascending, apart, none empty. Null: no data.</param>
    public Text(string s, int[]? marks) => (S, Marks) = (s, marks);

    public string S { get; }

    public int[]? Marks { get; }

    /// <summary>What <c>safe</c> and <c>escape</c> give (Jinja's Markup): joined with + to another string, it escapes that one for HTML.</summary>
    public bool IsMarkup { get; init; }

    public override string TypeName => "str";

    public override bool IsData => Marks is not null;

    public override bool Truthy => S.Length > 0;

    /// <summary>The length in code points, as Python counts.</summary>
    public override int Length
    {
        get
        {
            if (_codePoints < 0)
            {
                int pairs = 0;
                if (IsWide)
                {
                    for (int i = 1; i < S.Length; i++)
                    {
                        pairs += char.IsSurrogatePair(S[i - 1], S[i]) ? 1 : 0;
                    }
                }

                _codePoints = S.Length - pairs;
            }

            return _codePoints;
        }
    }

    /// <summary>Whether it holds surrogates, so that a code point is not always one unit.</summary>
    public bool IsWide
    {
        get
        {
            if (_wide < 0)
            {
                _wide = S.AsSpan().ContainsAnyInRange('\uD800', '\uDFFF') ? 1 : 0;
            }

            return _wide == 1;
        }
    }

    public static Text Trusted(string s) => s.Length == 0 ? Empty : new Text(s, null);

    public static Text Data(string s) => s.Length == 0 ? Empty : new Text(s, [0, s.Length]);

    /// <summary>The same text as markup, or as none.</summary>
    public Text As(bool markup) => IsMarkup == markup ? this : new Text(S, Marks) { IsMarkup = markup };

    /// <summary>A text that was made from others in a way that moves characters about: data as a whole if any of them was.</summary>
    public static Text Derived(string s, bool data) => data ? Data(s) : Trusted(s);

    /// <summary>The part from <paramref name="start"/> of <paramref name="length"/> units, with its marks.</summary>
    public Text Cut(int start, int length)
    {
        if (length == S.Length)
        {
            return this;
        }

        if (length <= 0)
        {
            return Empty;
        }

        return new Text(S.Substring(start, length), CutMarks(start, start + length)) { IsMarkup = IsMarkup };
    }

    private int[]? CutMarks(int start, int end)
    {
        if (Marks is null)
        {
            return null;
        }

        // Most texts are all data or none; others find the first range that ends after the start.
        int low = 0, high = Marks.Length / 2;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (Marks[(2 * middle) + 1] <= start)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        int after = low;
        while (after < Marks.Length / 2 && Marks[2 * after] < end)
        {
            after++;
        }

        if (after == low)
        {
            return null;
        }

        int[] cut = new int[2 * (after - low)];
        for (int i = 0; i < cut.Length; i++)
        {
            cut[i] = Math.Clamp(Marks[(2 * low) + i], start, end) - start;
        }

        return cut;
    }

    /// <summary>The unit at which code point <paramref name="index"/> begins.</summary>
    public int UnitOf(int index)
    {
        if (!IsWide)
        {
            return index;
        }

        int unit = 0;
        for (; index > 0; index--)
        {
            unit += Step(unit);
        }

        return unit;
    }

    /// <summary>How many code points stand before a unit.</summary>
    public int IndexOf(int unit)
    {
        if (!IsWide)
        {
            return unit;
        }

        int index = 0;
        for (int at = 0; at < unit; at += Step(at))
        {
            index++;
        }

        return index;
    }

    /// <summary>How many units the code point at <paramref name="unit"/> takes.</summary>
    public int Step(int unit) => unit + 1 < S.Length && char.IsSurrogatePair(S[unit], S[unit + 1]) ? 2 : 1;

    /// <summary>The code points from one to another, both counted in code points.</summary>
    public Text CutPoints(int from, int to)
    {
        int start = UnitOf(from);
        return Cut(start, UnitOf(to) - start);
    }

    /// <summary>Python's order: by code point, which is not that of UTF-16 units.</summary>
    public static int Compare(string a, string b)
    {
        int same = a.AsSpan().CommonPrefixLength(b);
        if (same == a.Length || same == b.Length)
        {
            return a.Length.CompareTo(b.Length);
        }

        char x = a[same], y = b[same];
        return char.IsSurrogate(x) == char.IsSurrogate(y) ? x.CompareTo(y) : char.IsSurrogate(x) ? 1 : -1;
    }

    public override string ToString() => S;
}

/// <summary>A text in the making. Every unit is charged to the render's budget before it is made.</summary>
internal sealed class TextBuilder(Runtime rt)
{
    private readonly StringBuilder _text = new();
    private List<int>? _marks;

    public int Length => _text.Length;

    public void Append(string trusted)
    {
        rt.Chars(trusted.Length);
        _text.Append(trusted);
    }

    public void Append(char trusted, int count = 1)
    {
        rt.Chars(count);
        _text.Append(trusted, count);
    }

    /// <summary>Adds characters that are data or not.</summary>
    public void Append(ReadOnlySpan<char> s, bool data)
    {
        rt.Chars(s.Length);
        int start = _text.Length;
        _text.Append(s);
        if (data)
        {
            Mark(start, start + s.Length);
        }
    }

    public void Append(Text text) => Append(text, 0, text.S.Length);

    public void Append(Text text, int start, int length)
    {
        if (length == 0)
        {
            return;
        }

        rt.Chars(length);
        int at = _text.Length;
        _text.Append(text.S, start, length);
        if (text.Marks is null)
        {
            return;
        }

        int[]? marks = length == text.S.Length ? text.Marks : text.Cut(start, length).Marks;
        if (marks is not null)
        {
            rt.Chars(marks.Length);
            for (int i = 0; i < marks.Length; i += 2)
            {
                Mark(at + marks[i], at + marks[i + 1]);
            }
        }
    }

    public Text ToText() => _text.Length == 0 ? Text.Empty : new Text(_text.ToString(), _marks?.ToArray());

    private void Mark(int start, int end)
    {
        if (start == end)
        {
            return;
        }

        _marks ??= [];
        if (_marks.Count > 0 && _marks[^1] == start)
        {
            _marks[^1] = end;
        }
        else
        {
            _marks.Add(start);
            _marks.Add(end);
        }
    }
}
