using System.Text;

namespace Sluice.Templates;

internal delegate Value StringMethod(Runtime rt, Text self, Arguments arguments);

/// <summary>The methods of Python's strings. Those that cut, join or replace keep marks; those that make other characters give data as a whole.</summary>
internal static class StringMethods
{
    private static readonly Dictionary<string, StringMethod> All = new()
    {
        ["capitalize"] = (rt, s, _) => Mapped(rt, s, PythonText.Capitalize),
        ["casefold"] = (rt, s, _) => Mapped(rt, s, t => PythonText.Lower(t).Replace("ß", "ss", StringComparison.Ordinal)),
        ["center"] = (rt, s, a) => Pad(rt, s, a, 'c'),
        ["count"] = Count,
        ["endswith"] = (rt, s, a) => Affix(rt, s, a, true),
        ["expandtabs"] = ExpandTabs,
        ["find"] = (rt, s, a) => Find(rt, s, a, false, false),
        ["format"] = BraceFormat.Apply,
        ["format_map"] = (rt, s, a) => BraceFormat.Apply(rt, s, Named(rt, a)),
        ["index"] = (rt, s, a) => Find(rt, s, a, false, true),
        ["isalnum"] = (rt, s, _) => Every(rt, s, r => Rune.IsLetterOrDigit(r) || Rune.IsNumber(r)),
        ["isalpha"] = (rt, s, _) => Every(rt, s, Rune.IsLetter),
        ["isascii"] = (rt, s, _) => BoolValue.Of(Ascii.IsValid(Read(rt, s).S)),
        ["isdecimal"] = (rt, s, _) => Every(rt, s, Rune.IsDigit),
        ["isdigit"] = (rt, s, _) => Every(rt, s, r => Rune.IsDigit(r) || r.Value is 0xB2 or 0xB3 or 0xB9 or 0x2070 or (>= 0x2074 and <= 0x2079) or (>= 0x2080 and <= 0x2089) or (>= 0x2460 and <= 0x2468)),
        ["isidentifier"] = (rt, s, _) => BoolValue.Of(s.S.Length > 0 && !char.IsDigit(s.S[0]) && Read(rt, s).S.All(c => c == '_' || char.IsLetterOrDigit(c))),
        ["islower"] = (rt, s, _) => BoolValue.Of(IsCase(rt, s, Rune.IsLower)),
        ["isnumeric"] = (rt, s, _) => Every(rt, s, Rune.IsNumber),
        ["isprintable"] = (rt, s, _) => BoolValue.Of(s.S.Length == 0 || Every(rt, s, PythonText.IsPrintable).Value),
        ["isspace"] = (rt, s, _) => Every(rt, s, r => r.IsBmp && PythonText.IsSpace((char)r.Value)),
        ["istitle"] = (rt, s, _) => BoolValue.Of(Read(rt, s).S.EnumerateRunes().Any(PythonText.IsCased) && PythonText.Title(s.S) == s.S),
        ["isupper"] = (rt, s, _) => BoolValue.Of(IsCase(rt, s, Rune.IsUpper)),
        ["join"] = (rt, s, a) => Join(rt, s, rt.Iterate(One(rt, a, "join", "iterable")), true),
        ["ljust"] = (rt, s, a) => Pad(rt, s, a, 'l'),
        ["lower"] = (rt, s, _) => Mapped(rt, s, PythonText.Lower),
        ["lstrip"] = (rt, s, a) => Strip(rt, s, a, true, false),
        ["partition"] = (rt, s, a) => Partition(rt, s, a, false),
        ["removeprefix"] = (rt, s, a) => rt.TextOf(One(rt, a, "removeprefix", "prefix"), "a prefix").S is var p && Read(rt, s).S.StartsWith(p, StringComparison.Ordinal) ? s.Cut(p.Length, s.S.Length - p.Length) : s,
        ["removesuffix"] = (rt, s, a) => rt.TextOf(One(rt, a, "removesuffix", "suffix"), "a suffix").S is { Length: > 0 } p && Read(rt, s).S.EndsWith(p, StringComparison.Ordinal) ? s.Cut(0, s.S.Length - p.Length) : s,
        ["replace"] = (rt, s, a) =>
        {
            Value?[] given = a.Bind(rt, "replace", "old", "new", "count");
            return Replace(rt, s, rt.TextOf(given[0] ?? NoneValue.Instance, "what is replaced"), rt.TextOf(given[1] ?? NoneValue.Instance, "a replacement"), given[2] is { } n ? rt.IntOf(n, "a count") : -1);
        },
        ["rfind"] = (rt, s, a) => Find(rt, s, a, true, false),
        ["rindex"] = (rt, s, a) => Find(rt, s, a, true, true),
        ["rjust"] = (rt, s, a) => Pad(rt, s, a, 'r'),
        ["rpartition"] = (rt, s, a) => Partition(rt, s, a, true),
        ["rsplit"] = (rt, s, a) => Splitting.Split(rt, s, a, true),
        ["rstrip"] = (rt, s, a) => Strip(rt, s, a, false, true),
        ["split"] = (rt, s, a) => Splitting.Split(rt, s, a, false),
        ["splitlines"] = (rt, s, a) => new ListValue([.. Splitting.Lines(rt, s, a.Bind(rt, "splitlines", "keepends")[0] is { Truthy: true })]),
        ["startswith"] = (rt, s, a) => Affix(rt, s, a, false),
        ["strip"] = (rt, s, a) => Strip(rt, s, a, true, true),
        ["swapcase"] = (rt, s, _) => Mapped(rt, s, t => string.Concat(t.EnumerateRunes().Select(r => Rune.IsUpper(r) ? PythonText.Lower(r.ToString()) : PythonText.Upper(r.ToString())))),
        ["title"] = (rt, s, _) => Mapped(rt, s, PythonText.Title),
        ["upper"] = (rt, s, _) => Mapped(rt, s, PythonText.Upper),
        ["zfill"] = ZeroFill,
    };

    public static StringMethod? Find(string name) => All.GetValueOrDefault(name);

    /// <summary>A text whose characters are others: data as a whole if any of it was.</summary>
    public static Text Mapped(Runtime rt, Text s, Func<string, string> map)
    {
        rt.Chars(s.S.Length * 3L);
        return Text.Derived(map(s.S), s.IsData).As(s.IsMarkup);
    }

    public static bool IsCase(Runtime rt, Text s, Func<Rune, bool> wanted)
    {
        bool any = false;
        foreach (Rune rune in Read(rt, s).S.EnumerateRunes())
        {
            if (PythonText.IsCased(rune))
            {
                if (!wanted(rune))
                {
                    return false;
                }

                any = true;
            }
        }

        return any;
    }

    /// <summary>Texts with a text between; items that are no strings are printed, unless <paramref name="strict"/>.</summary>
    public static Text Join(Runtime rt, Text between, IEnumerable<Value> items, bool strict)
    {
        TextBuilder joined = new(rt);
        bool first = true;
        foreach (Value item in items)
        {
            if (!first)
            {
                joined.Append(between);
            }

            first = false;
            joined.Append(strict ? rt.TextOf(item, "an item of join()") : Printer.ToText(rt, item));
        }

        return joined.ToText();
    }

    public static Text Replace(Runtime rt, Text s, Text old, Text with, long count)
    {
        count = count < 0 ? long.MaxValue : count;
        TextBuilder made = new(rt);
        int at = 0;
        if (old.S.Length == 0)
        {
            // Before each code point, and at the end.
            for (; at <= s.S.Length && count > 0; count--)
            {
                made.Append(with);
                if (at == s.S.Length)
                {
                    return made.ToText();
                }

                int size = s.Step(at);
                made.Append(s, at, size);
                at += size;
            }
        }

        for (; old.S.Length > 0 && count > 0; count--)
        {
            int found = PythonText.IndexOf(rt, s.S, old.S, at, s.S.Length);
            if (found < 0)
            {
                break;
            }

            made.Append(s, at, found - at);
            made.Append(with);
            at = found + old.S.Length;
        }

        if (at == 0)
        {
            return s;
        }

        made.Append(s, at, s.S.Length - at);
        return made.ToText();
    }

    /// <summary>A text without some characters (white space where null) at its ends.</summary>
    public static Text Strip(Runtime rt, Text s, string? chars, bool left, bool right)
    {
        HashSet<Rune>? set = chars is null ? null : [.. chars.EnumerateRunes()];
        rt.Scan((chars?.Length ?? 0) * 8L);
        int start = 0, end = s.S.Length;
        while (left && start < end)
        {
            Rune.DecodeFromUtf16(s.S.AsSpan(start), out Rune rune, out int size);
            if (!Goes(rune))
            {
                break;
            }

            start += size;
        }

        while (right && end > start)
        {
            Rune.DecodeLastFromUtf16(s.S.AsSpan(start, end - start), out Rune rune, out int size);
            if (!Goes(rune))
            {
                break;
            }

            end -= size;
        }

        rt.Scan(s.S.Length - (end - start));
        rt.Chars(end - start);
        return s.Cut(start, end - start);

        bool Goes(Rune rune) => set?.Contains(rune) ?? (rune.IsBmp && PythonText.IsSpace((char)rune.Value));
    }

    /// <summary>A text in the middle (<c>c</c>), at the left or at the right of so many columns.</summary>
    public static Text Pad(Runtime rt, Text s, long width, Text fill, char side)
    {
        long missing = Math.Max(0, width - s.Length);
        long before = side switch { 'l' => 0, 'r' => missing, _ => (missing / 2) + (missing & width & 1) };
        TextBuilder padded = new(rt);
        rt.Chars(missing);
        for (long i = 0; i < missing + 1; i++)
        {
            padded.Append(i == before ? s : Text.Empty);
            padded.Append(i < missing ? fill : Text.Empty);
        }

        return padded.ToText();
    }

    private static Text Pad(Runtime rt, Text s, Arguments arguments, char side)
    {
        Value?[] given = arguments.Bind(rt, "center", "width", "fillchar");
        Text fill = given[1] is { } f ? rt.TextOf(f, "a fill character") : Text.Trusted(" ");
        return fill.Length == 1 ? Pad(rt, s, rt.IntOf(given[0] ?? NoneValue.Instance, "a width"), fill, side) : throw rt.Fail("a fill character must be one character");
    }

    private static Text Strip(Runtime rt, Text s, Arguments arguments, bool left, bool right)
    {
        Value? chars = arguments.Bind(rt, "strip", "chars")[0];
        return Strip(rt, s, chars is null or NoneValue ? null : rt.TextOf(chars, "what is stripped").S, left, right);
    }

    private static Text ZeroFill(Runtime rt, Text s, Arguments arguments)
    {
        long width = rt.IntOf(One(rt, arguments, "zfill", "width"), "a width");
        int sign = s.S.Length > 0 && s.S[0] is '+' or '-' ? 1 : 0;
        TextBuilder filled = new(rt);
        long missing = Math.Max(0, width - s.Length);
        rt.Chars(missing);
        filled.Append(s, 0, sign);
        filled.Append('0', (int)missing);
        filled.Append(s, sign, s.S.Length - sign);
        return filled.ToText();
    }

    private static Text ExpandTabs(Runtime rt, Text s, Arguments arguments)
    {
        long size = arguments.Bind(rt, "expandtabs", "tabsize")[0] is { } t ? rt.IntOf(t, "a tab's size") : 8;
        TextBuilder text = new(rt);
        long column = 0;
        for (int i = 0; i < s.S.Length; i++)
        {
            if (s.S[i] == '\t')
            {
                long spaces = size > 0 ? size - (column % size) : 0;
                rt.Chars(spaces);
                text.Append(' ', (int)spaces);
                column += spaces;
            }
            else
            {
                text.Append(s, i, 1);
                column = s.S[i] is '\n' or '\r' ? 0 : column + 1;
            }
        }

        return text.ToText();
    }

    private static ListValue Partition(Runtime rt, Text s, Arguments arguments, bool last)
    {
        Text between = rt.TextOf(One(rt, arguments, "partition", "sep"), "a separator");
        if (between.S.Length == 0)
        {
            throw rt.Fail("a separator cannot be empty");
        }

        int at = last ? PythonText.LastIndexOf(rt, s.S, between.S, 0, s.S.Length) : PythonText.IndexOf(rt, s.S, between.S, 0, s.S.Length);
        if (at < 0)
        {
            return last ? ListValue.Tuple(Text.Empty, Text.Empty, s) : ListValue.Tuple(s, Text.Empty, Text.Empty);
        }

        rt.Chars(s.S.Length);
        int after = at + between.S.Length;
        return ListValue.Tuple(s.Cut(0, at), s.Cut(at, between.S.Length), s.Cut(after, s.S.Length - after));
    }

    private static IntValue Find(Runtime rt, Text s, Arguments arguments, bool last, bool must)
    {
        Value?[] given = arguments.Bind(rt, "find", "sub", "start", "end");
        string sought = rt.TextOf(given[0] ?? NoneValue.Instance, "what is sought").S;
        (int from, int to) = Bounds(rt, s, given[1], given[2]);
        int at = from > to ? -1 : last ? PythonText.LastIndexOf(rt, s.S, sought, from, to) : PythonText.IndexOf(rt, s.S, sought, from, to);
        return at >= 0 ? IntValue.Of(s.IndexOf(at)) : must ? throw rt.Fail("index(): the text does not occur") : IntValue.Of(-1);
    }

    private static IntValue Count(Runtime rt, Text s, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "count", "sub", "start", "end");
        string sought = rt.TextOf(given[0] ?? NoneValue.Instance, "what is counted").S;
        (int from, int to) = Bounds(rt, s, given[1], given[2]);
        if (sought.Length == 0)
        {
            return IntValue.Of(from > to ? 0 : s.IndexOf(to) - s.IndexOf(from) + 1);
        }

        long count = 0;
        for (int at = from; at <= to && (at = PythonText.IndexOf(rt, s.S, sought, at, to)) >= 0; at += sought.Length)
        {
            count++;
        }

        return IntValue.Of(count);
    }

    private static BoolValue Affix(Runtime rt, Text s, Arguments arguments, bool atEnd)
    {
        Value?[] given = arguments.Bind(rt, atEnd ? "endswith" : "startswith", "affix", "start", "end");
        (int from, int to) = Bounds(rt, s, given[1], given[2]);
        Value sought = given[0] ?? NoneValue.Instance;
        foreach (Value each in sought is ListValue { IsTuple: true } several ? several.Items : [sought])
        {
            string affix = rt.TextOf(each, "what a string begins or ends with").S;
            rt.Scan(affix.Length);
            if (from <= to && affix.Length <= to - from && s.S.AsSpan(atEnd ? to - affix.Length : from, affix.Length).SequenceEqual(affix))
            {
                return BoolValue.True;
            }
        }

        return BoolValue.False;
    }

    private static (int From, int To) Bounds(Runtime rt, Text s, Value? from, Value? to)
    {
        if (from is null && to is null)
        {
            return (0, s.S.Length);
        }

        rt.Scan(s.IsWide ? s.S.Length : 0);
        int length = s.Length;
        bool outside = from is not null and not NoneValue && rt.IntOf(from, "a bound") > length;
        return (outside ? s.S.Length + 1 : s.UnitOf((int)Slices.Bound(rt, from, 0, length, false)), s.UnitOf((int)Slices.Bound(rt, to, length, length, false)));
    }

    private static BoolValue Every(Runtime rt, Text s, Func<Rune, bool> holds) => BoolValue.Of(s.S.Length > 0 && Read(rt, s).S.EnumerateRunes().All(holds));

    private static Text Read(Runtime rt, Text s)
    {
        rt.Scan(s.S.Length * 8L);
        return s;
    }

    private static Value One(Runtime rt, Arguments arguments, string function, string parameter) =>
        arguments.Bind(rt, function, parameter)[0] ?? throw rt.Fail($"{function}() needs its argument '{parameter}'");

    private static Arguments Named(Runtime rt, Arguments arguments)
    {
        DictValue dict = One(rt, arguments, "format_map", "mapping") as DictValue ?? throw rt.Fail("format_map() needs a dict");
        return new Arguments([], [.. dict.Entries.Select(e => new KeyValuePair<string, Value>(rt.TextOf(e.Key, "a key").S, e.Value))]);
    }
}
