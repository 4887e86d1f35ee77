using System.Globalization;
using System.Text;

namespace Sluice.Templates;

/// <summary>Filters of strings.</summary>
internal static class TextFilters
{
    public static Value Center(Runtime rt, Value value, Arguments arguments) =>
        StringMethods.Pad(rt, Printer.ToText(rt, value), arguments.Bind(rt, "center", "width")[0] is { } width ? rt.IntOf(width, "a width") : 80, Text.Trusted(" "), 'c');

    /// <summary>A text as HTML; what is markup stays.</summary>
    public static Text Escape(Runtime rt, Value value)
    {
        Text text = Printer.ToText(rt, value);
        if (text.IsMarkup)
        {
            return text;
        }

        TextBuilder made = new(rt);
        for (int at = 0; at < text.S.Length; at++)
        {
            int plain = text.S.AsSpan(at).IndexOfAny("&<>'\"");
            plain = plain < 0 ? text.S.Length - at : plain;
            made.Append(text, at, plain);
            at += plain;
            if (at < text.S.Length)
            {
                made.Append(text.S[at] switch { '&' => "&amp;", '<' => "&lt;", '>' => "&gt;", '\'' => "&#39;", _ => "&#34;" }, text.IsData);
            }
        }

        return made.ToText().As(true);
    }

    public static Value Indent(Runtime rt, Value value, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "indent", "width", "first", "blank");
        Text text = Printer.ToText(rt, value);
        Text indent = given[0] is Text chosen ? chosen : Spaces(rt, given[0] is { } width ? rt.IntOf(width, "a width") : 4);
        bool first = given[1] is { Truthy: true }, blank = given[2] is { Truthy: true };
        TextBuilder made = new(rt);
        int count = 0;
        foreach (Text line in Splitting.Lines(rt, text, false).Concat(EndsLine(text) ? [Text.Empty] : []))
        {
            made.Append(count == 0 ? "" : "\n");
            if (count == 0 ? first : blank || line.S.Length > 0)
            {
                made.Append(indent);
            }

            made.Append(line);
            count++;
        }

        return made.ToText();
    }

    public static Value Truncate(Runtime rt, Value value, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "truncate", "length", "killwords", "end", "leeway");
        Text text = Printer.ToText(rt, value);
        Text end = given[2] is { } e ? Printer.ToText(rt, e) : Text.Trusted("...");
        long length = given[0] is { } l ? rt.IntOf(l, "a length") : 255;
        long leeway = given[3] is { } w and not NoneValue ? rt.IntOf(w, "a leeway") : 5;
        if (length < end.Length || leeway < 0)
        {
            throw rt.Fail("truncate needs a length that holds its end, and no negative leeway");
        }

        rt.Chars(text.S.Length);
        if (text.Length <= length + leeway)
        {
            return text;
        }

        Text kept = text.CutPoints(0, (int)(length - end.Length));
        int space = given[1] is { Truthy: true } ? -1 : kept.S.LastIndexOf(' ');
        TextBuilder made = new(rt);
        made.Append(space < 0 ? kept : kept.Cut(0, space));
        made.Append(end);
        return made.ToText();
    }

    /// <summary>Each word's first letter upper, the rest lower; words begin after white space, hyphens and opening brackets.</summary>
    public static Value Title(Runtime rt, Value value, Arguments arguments) => StringMethods.Mapped(rt, Printer.ToText(rt, value), s =>
    {
        StringBuilder made = new(s.Length);
        int at = 0;
        while (at < s.Length)
        {
            bool breaks = Breaks(s[at]);
            int end = at;
            while (end < s.Length && Breaks(s[end]) == breaks)
            {
                end++;
            }

            made.Append(breaks ? s[at..end] : PythonText.Upper(s[at..(at + 1)]) + PythonText.Lower(s[(at + 1)..end]));
            at = end;
        }

        return made.ToString();
    });

    public static Value UrlEncode(Runtime rt, Value value, Arguments arguments)
    {
        TextBuilder made = new(rt);
        bool data = false;
        if (value is not Text && Runtime.IsIterable(value))
        {
            bool first = true;
            foreach (Value pair in rt.Iterate(value is DictValue dict ? new ViewValue(dict, 'i') : value))
            {
                List<Value> two = rt.ListOf(pair);
                Text key = Printer.ToText(rt, two.Count == 2 ? two[0] : throw rt.Fail("urlencode needs pairs")), entry = Printer.ToText(rt, two[1]);
                made.Append(first ? "" : "&");
                made.Append(Quote(rt, key.S, true) + "=" + Quote(rt, entry.S, true), false);
                data |= key.IsData || entry.IsData;
                first = false;
            }
        }
        else
        {
            Text text = Printer.ToText(rt, value);
            made.Append(Quote(rt, text.S, false));
            data = text.IsData;
        }

        return Text.Derived(made.ToText().S, data);
    }

    public static Value WordCount(Runtime rt, Value value, Arguments arguments)
    {
        string s = Printer.ToText(rt, value).S;
        rt.Scan(s.Length * 8L);
        int words = 0;
        for (int i = 0; i < s.Length; i++)
        {
            words += IsWord(s[i]) && (i == 0 || !IsWord(s[i - 1])) ? 1 : 0;
        }

        return IntValue.Of(words);

        static bool IsWord(char c) => c == '_' || char.IsLetterOrDigit(c) || char.IsSurrogate(c);
    }

    /// <summary>Text without what stands in angle brackets, its white space single.</summary>
    public static Value StripTags(Runtime rt, Value value, Arguments arguments) => StringMethods.Mapped(rt, Printer.ToText(rt, value), s =>
    {
        s = Without(Without(s, "<!--", "-->"), "<", ">");
        s = s.Replace("&lt;", "<", StringComparison.Ordinal).Replace("&gt;", ">", StringComparison.Ordinal).Replace("&quot;", "\"", StringComparison.Ordinal)
            .Replace("&#34;", "\"", StringComparison.Ordinal).Replace("&#39;", "'", StringComparison.Ordinal).Replace("&amp;", "&", StringComparison.Ordinal);
        return string.Join(' ', s.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));
    });

    /// <summary>Lines broken at white space so that they are no wider than so many characters. What is longer is cut, unless told otherwise.</summary>
    public static Value WordWrap(Runtime rt, Value value, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "wordwrap", "width", "break_long_words", "wrapstring", "break_on_hyphens");
        Text text = rt.TextOf(value, "what is wrapped");
        int width = given[0] is { } w ? rt.SmallIntOf(w, "a width") : 79;
        bool cut = given[1] is null or { Truthy: true }, hyphens = given[3] is null or { Truthy: true };
        Text between = given[2] is null or NoneValue ? Text.Trusted("\n") : Printer.ToText(rt, given[2]!);
        if (width <= 0)
        {
            throw rt.Fail("a width must be positive");
        }

        return StringMethods.Join(rt, between, Splitting.Lines(rt, text, false).Select(line => StringMethods.Join(rt, between, Wrapped(rt, line, width, cut, hyphens), true)), true);
    }

    private static List<Value> Wrapped(Runtime rt, Text line, int width, bool cut, bool hyphens)
    {
        // Chunks are words and the white space between them; a line drops white space at its ends, but for the first one's start.
        Queue<Text> chunks = new(Chunks(line, hyphens));
        List<Value> lines = [];
        Text? rest = null;
        while (rest is not null || chunks.Count > 0)
        {
            List<Text> taken = [];
            int length = 0;
            while (rest is not null || chunks.Count > 0)
            {
                rt.Step();
                Text chunk = rest ?? chunks.Peek();
                if (taken.Count == 0 && lines.Count > 0 && rest is null && IsBlank(chunk))
                {
                    chunks.Dequeue();
                    continue;
                }

                if (length + chunk.Length > width)
                {
                    if (chunk.Length > width && (cut || taken.Count == 0))
                    {
                        rt.Chars(chunk.S.Length);
                        int part = cut ? width - length : chunk.Length;
                        if (rest is null)
                        {
                            chunks.Dequeue();
                        }

                        if (part > 0)
                        {
                            taken.Add(chunk.CutPoints(0, part));
                        }

                        rest = part < chunk.Length ? chunk.CutPoints(part, chunk.Length) : null;
                    }

                    break;
                }

                taken.Add(chunk);
                length += chunk.Length;
                _ = rest is null ? chunks.Dequeue() : rest = null;
            }

            if (taken.Count > 0 && IsBlank(taken[^1]))
            {
                taken.RemoveAt(taken.Count - 1);
            }

            if (taken.Count > 0)
            {
                lines.Add(StringMethods.Join(rt, Text.Empty, taken, true));
            }
        }

        return lines;
    }

    private static IEnumerable<Text> Chunks(Text line, bool hyphens)
    {
        for (int at = 0; at < line.S.Length;)
        {
            int end = at;
            bool blank = PythonText.IsSpace(line.S[at]);
            while (end < line.S.Length && PythonText.IsSpace(line.S[end]) == blank)
            {
                end++;
                if (hyphens && !blank && line.S[end - 1] == '-' && end - at > 2 && end + 1 < line.S.Length && char.IsLetter(line.S[end - 2]) && char.IsLetter(line.S[end - 3]) && char.IsLetter(line.S[end]) && char.IsLetter(line.S[end + 1]))
                {
                    break;
                }
            }

            yield return line.Cut(at, end - at);
            at = end;
        }
    }

    private static bool IsBlank(Text text) => text.S.All(PythonText.IsSpace);

    private static bool EndsLine(Text text) => text.S.Length == 0 || PythonText.IsLineBreak(text.S[^1]);

    private static bool Breaks(char c) => c is '-' or '(' or '{' or '[' or '<' || PythonText.IsSpace(c);

    private static Text Spaces(Runtime rt, long count)
    {
        rt.Chars(Math.Max(count, 0));
        return Text.Trusted(new string(' ', (int)Math.Max(count, 0)));
    }

    private static string Quote(Runtime rt, string s, bool query)
    {
        rt.Chars(s.Length * 3L);
        StringBuilder made = new(s.Length);
        foreach (byte b in Encoding.UTF8.GetBytes(s))
        {
            char c = (char)b;
            if (char.IsAsciiLetterOrDigit(c) || c is '_' or '.' or '-' or '~' || (c == '/' && !query))
            {
                made.Append(c);
            }
            else
            {
                _ = c == ' ' && query ? made.Append('+') : made.Append(CultureInfo.InvariantCulture, $"%{b:X2}");
            }
        }

        return made.ToString();
    }

    private static string Without(string s, string open, string close)
    {
        StringBuilder made = new(s.Length);
        for (int at = 0; ;)
        {
            int start = s.IndexOf(open, at, StringComparison.Ordinal);
            int end = start < 0 ? -1 : s.IndexOf(close, start + open.Length, StringComparison.Ordinal);
            if (end < 0)
            {
                return made.Append(s, at, s.Length - at).ToString();
            }

            made.Append(s, at, start - at);
            at = end + close.Length;
        }
    }
}
