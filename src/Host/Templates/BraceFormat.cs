using System.Globalization;

namespace Sluice.Templates;

/// <summary>Python's <c>format.format(values)</c>. The format's own text and the values keep their marks.</summary>
internal static class BraceFormat
{
    private const int MostNesting = 2;

    public static Value Apply(Runtime rt, Text format, Arguments arguments)
    {
        int next = 0;
        return Expand(rt, format, arguments, ref next, 0);
    }

    private static Text Expand(Runtime rt, Text format, Arguments arguments, ref int next, int depth)
    {
        string s = format.S;
        TextBuilder made = new(rt);
        for (int at = 0; at < s.Length;)
        {
            int brace = s.AsSpan(at).IndexOfAny('{', '}');
            if (brace < 0)
            {
                made.Append(format, at, s.Length - at);
                break;
            }

            made.Append(format, at, brace);
            at += brace;
            if (at + 1 < s.Length && s[at + 1] == s[at])
            {
                made.Append(format, at, 1);
                at += 2;
                continue;
            }

            if (s[at] == '}')
            {
                throw rt.Fail("a single '}' stands in the format");
            }

            int end = FieldEnd(rt, s, at + 1);
            WriteField(rt, format.Cut(at + 1, end - at - 1), arguments, ref next, depth, made);
            at = end + 1;
        }

        return made.ToText();
    }

    private static int FieldEnd(Runtime rt, string s, int from)
    {
        int open = 1;
        bool key = false;
        for (int at = from; at < s.Length; at++)
        {
            key = s[at] == '[' ? open == 1 : key && s[at] != ']';
            open += key ? 0 : s[at] == '{' ? 1 : s[at] == '}' ? -1 : 0;
            if (open == 0)
            {
                rt.Scan(at - from);
                return at;
            }
        }

        throw rt.Fail("a '{' has no '}' in the format");
    }

    private static void WriteField(Runtime rt, Text field, Arguments arguments, ref int next, int depth, TextBuilder made)
    {
        string s = field.S;
        int end = 0;
        for (bool key = false; end < s.Length && (key || s[end] is not (':' or '!')); end++)
        {
            key = s[end] == '[' || (key && s[end] != ']');
        }

        Value value = Look(rt, s[..end], arguments, ref next);
        char conversion = '\0';
        if (end < s.Length && s[end] == '!')
        {
            conversion = end + 1 < s.Length ? s[end + 1] : '\0';
            end += 2;
            if (conversion is not ('r' or 's' or 'a') || (end < s.Length && s[end] != ':'))
            {
                throw rt.Fail("a conversion is '!r', '!s' or '!a'");
            }
        }

        Text rest = end < s.Length ? field.Cut(end + 1, s.Length - end - 1) : Text.Empty;
        if (rest.S.Contains('{', StringComparison.Ordinal))
        {
            rest = depth < MostNesting ? Expand(rt, rest, arguments, ref next, depth + 1) : throw rt.Fail("the format nests too deep");
        }

        value = conversion switch { '\0' => value, 's' => Printer.ToText(rt, value), _ => Printer.Repr(rt, value) };
        Write(rt, made, value, Parse(rt, rest));
    }

    private static Value Look(Runtime rt, string field, Arguments arguments, ref int next)
    {
        int end = field.AsSpan().IndexOfAny('.', '[');
        string name = end < 0 ? field : field[..end];
        Value? value;
        if (name.Length == 0 || name.All(char.IsAsciiDigit))
        {
            int index = name.Length == 0 ? next++ : int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out int given) ? given : int.MaxValue;
            value = index < arguments.Positional.Length ? arguments.Positional[index] : null;
        }
        else
        {
            value = arguments.Named?.Find(n => n.Key == name).Value;
        }

        value = value ?? throw rt.Fail($"the format asks for '{name}', which is not given");
        for (int at = end; at >= 0 && at < field.Length;)
        {
            rt.Step();
            int stop = field[at] == '[' ? field.IndexOf(']', at) : field.AsSpan(at + 1).IndexOfAny('.', '[') is int dot and >= 0 ? at + 1 + dot : field.Length;
            if (stop < 0)
            {
                throw rt.Fail("a '[' has no ']' in the format");
            }

            string part = field[(at + 1)..stop];
            value = field[at] == '.' ? Members.Attribute(rt, value, part) ?? throw rt.Fail($"a '{value.TypeName}' has no attribute '{part}'")
                : Members.GetItem(rt, value, part.Length > 0 && part.All(char.IsAsciiDigit) ? Numbers.ParseInteger(part, false) : Text.Trusted(part));
            at = field[at] == '[' ? stop + 1 : stop;
        }

        return value;
    }

    private static FormatSpec Parse(Runtime rt, Text text)
    {
        FormatSpec spec = new();
        string s = text.S;
        int at = 0;
        int fill = s.Length > 0 ? text.Step(0) : 0;
        if (fill > 0 && fill < s.Length && s[fill] is '<' or '>' or '^' or '=')
        {
            spec = spec with { Fill = text.Cut(0, fill), Align = s[fill] };
            at = fill + 1;
        }
        else if (s.Length > 0 && s[0] is '<' or '>' or '^' or '=')
        {
            spec = spec with { Align = s[0] };
            at = 1;
        }

        if (at < s.Length && s[at] is '+' or '-' or ' ')
        {
            spec = spec with { Sign = s[at++] };
        }

        if (at < s.Length && s[at] == '#')
        {
            spec = spec with { Alternate = true };
            at++;
        }

        if (at < s.Length && s[at] == '0')
        {
            spec = spec with { Zero = true };
            at++;
        }

        spec = spec with { Width = Number() ?? 0 };
        if (at < s.Length && s[at] is ',' or '_')
        {
            spec = spec with { Grouping = s[at++] };
        }

        if (at < s.Length && s[at] == '.')
        {
            at++;
            spec = spec with { Precision = Number() ?? throw rt.Fail("a precision is missing in the format") };
        }

        if (at < s.Length)
        {
            spec = spec with { Kind = s[at++] };
        }

        return at == s.Length ? spec : throw rt.Fail($"'{s}' is not a format");

        long? Number()
        {
            long number = 0;
            int start = at;
            while (at < s.Length && char.IsAsciiDigit(s[at]))
            {
                number = Math.Min((number * 10) + s[at++] - '0', int.MaxValue);
            }

            return at > start ? number : null;
        }
    }

    private static void Write(Runtime rt, TextBuilder made, Value value, FormatSpec spec)
    {
        bool plain = spec is { Kind: '\0', Width: 0, Precision: null, Grouping: '\0', Sign: '-' };
        if (plain || value is Text)
        {
            Text text = Printer.ToText(rt, value);
            if (value is Text && spec.Kind is not ('\0' or 's'))
            {
                throw rt.Fail($"'{spec.Kind}' does not format a string");
            }

            spec.Pad(rt, made, spec.Precision is { } p && p < text.Length ? text.CutPoints(0, (int)p) : text);
            return;
        }

        switch (spec.Kind)
        {
            case 'd' or '\0' or 'n' or 'x' or 'X' or 'o' or 'b' when value is IntValue or BoolValue:
                long n = Operators.Integer(value)!.Value;
                bool radix = spec.Kind is 'x' or 'X' or 'o' or 'b';
                spec.WriteNumber(rt, made, radix ? FormatSpec.Digits(n, spec.Kind) : Int128.Abs(n).ToString(CultureInfo.InvariantCulture), n < 0, radix && spec.Alternate ? "0" + spec.Kind : "", value.IsData);
                break;
            case '\0' when value is FloatValue f && spec.Precision is null:
                spec.WriteNumber(rt, made, Numbers.Repr(Math.Abs(f.Value)), double.IsNegative(f.Value), "", value.IsData);
                break;
            case 'e' or 'E' or 'f' or 'F' or 'g' or 'G' or '%' or '\0' when Operators.Number(value) is { } d:
                spec.WriteFloat(rt, made, d, spec.Kind == '\0' ? 'g' : spec.Kind, value.IsData);
                break;
            default:
                throw rt.Fail($"this format does not go with a '{value.TypeName}'");
        }
    }
}
