using System.Globalization;

namespace Sluice.Templates;

/// <summary>Python's <c>format % values</c>. The format's own text and the values keep their marks.</summary>
internal static class PercentFormat
{
    public static Text Apply(Runtime rt, Text format, Value values)
    {
        TextBuilder made = new(rt);
        ListValue tuple = values is ListValue { IsTuple: true } t ? t : ListValue.Tuple(values);
        int next = 0;
        string s = format.S;
        for (int at = 0; at < s.Length;)
        {
            int percent = s.IndexOf('%', at);
            if (percent < 0)
            {
                made.Append(format, at, s.Length - at);
                break;
            }

            made.Append(format, at, percent - at);
            at = percent + 1;
            Value? named = null;
            if (at < s.Length && s[at] == '(')
            {
                int close = s.IndexOf(')', at);
                if (close < 0 || values is not DictValue dict)
                {
                    throw rt.Fail("a format with names needs a dict");
                }

                string key = s[(at + 1)..close];
                named = dict.Get(key) ?? throw rt.Fail($"the format names '{key}', which is not there");
                at = close + 1;
            }

            FormatSpec spec = new();
            while (at < s.Length && s[at] is '-' or '+' or ' ' or '0' or '#')
            {
                spec = s[at++] switch { '-' => spec with { Align = '<' }, '0' => spec with { Zero = true }, '#' => spec with { Alternate = true }, '+' => spec with { Sign = '+' }, _ => spec.Sign == '+' ? spec : spec with { Sign = ' ' } };
            }

            long width = Number(ref at) ?? 0;
            spec = width < 0 ? spec with { Align = '<', Width = -width } : spec with { Width = width };
            if (at < s.Length && s[at] == '.')
            {
                at++;
                spec = spec with { Precision = Math.Max(0, Number(ref at) ?? 0) };
            }

            while (at < s.Length && s[at] is 'l' or 'h' or 'L')
            {
                at++;
            }

            if (at >= s.Length)
            {
                throw rt.Fail("this format ends within a '%'");
            }

            char kind = s[at++];
            if (kind == '%')
            {
                made.Append("%");
                continue;
            }

            Write(rt, made, kind, spec with { Align = spec.Align == '\0' ? '>' : spec.Align }, named ?? Take(), format.IsMarkup);
        }

        return next < tuple.Items.Count && values is not DictValue
            ? throw rt.Fail("not all values are used by the format")
            : made.ToText().As(format.IsMarkup);

        Value Take() => next < tuple.Items.Count ? tuple.Items[next++] : throw rt.Fail("the format needs more values than there are");

        long? Number(ref int i)
        {
            if (i < s.Length && s[i] == '*')
            {
                i++;
                return rt.IntOf(Take(), "a width");
            }

            long number = 0;
            int start = i;
            while (i < s.Length && char.IsAsciiDigit(s[i]))
            {
                number = Math.Min((number * 10) + s[i++] - '0', int.MaxValue);
            }

            return i > start ? number : null;
        }
    }

    private static void Write(Runtime rt, TextBuilder made, char kind, FormatSpec spec, Value value, bool markup)
    {
        switch (kind)
        {
            case 's' or 'r' or 'a':
                Text text = kind == 's' ? Printer.ToText(rt, value) : Printer.Repr(rt, value);
                text = markup ? TextFilters.Escape(rt, text) : text;
                spec.Pad(rt, made, spec.Precision is { } p && p < text.Length ? text.CutPoints(0, (int)p) : text);
                break;
            case 'c':
                Text c = value as Text ?? Text.Trusted(char.ConvertFromUtf32((int)Math.Clamp(rt.IntOf(value, "what '%c' prints"), 0, 0xD7FF)));
                spec.Pad(rt, made, c.Length == 1 ? c : throw rt.Fail("'%c' prints one character"));
                break;
            case 'd' or 'i' or 'u':
                long whole = value is FloatValue f ? double.IsFinite(f.Value) && Math.Abs(f.Value) < 9e18 ? (long)f.Value : throw rt.Fail("'%d' needs an integer of 64 bits") : rt.IntOf(value, "what '%d' prints");
                spec.WriteNumber(rt, made, Int128.Abs(whole).ToString(CultureInfo.InvariantCulture).PadLeft((int)Math.Min(spec.Precision ?? 0, 1000), '0'), whole < 0, "", value.IsData);
                break;
            case 'x' or 'X' or 'o':
                long n = rt.IntOf(value, "what '%x' prints");
                string digits = FormatSpec.Digits(n, kind);
                spec.WriteNumber(rt, made, digits.PadLeft((int)Math.Min(spec.Precision ?? 0, 1000), '0'), n < 0, spec.Alternate ? "0" + kind : "", value.IsData);
                break;
            case 'e' or 'E' or 'f' or 'F' or 'g' or 'G':
                double d = Operators.Number(value) ?? throw rt.WrongType($"'%{kind}' needs a number", value);
                spec.WriteFloat(rt, made, d, kind, value.IsData);
                break;
            default:
                throw rt.Fail($"'%{kind}' is not a format");
        }
    }
}

/// <summary>How a value is laid out: Python's format specification.</summary>
internal sealed record FormatSpec
{
    // More digits than a double has.
    private const int MostDigits = 5000;

    public char Align { get; init; }

    public Text Fill { get; init; } = Text.Trusted(" ");

    public char Sign { get; init; } = '-';

    public bool Alternate { get; init; }

    public bool Zero { get; init; }

    public char Grouping { get; init; }

    public long Width { get; init; }

    public long? Precision { get; init; }

    public char Kind { get; init; }

    public static string Digits(long value, char kind)
    {
        UInt128 magnitude = (UInt128)Int128.Abs(value);
        return kind switch
        {
            'x' => magnitude.ToString("x", CultureInfo.InvariantCulture),
            'X' => magnitude.ToString("X", CultureInfo.InvariantCulture),
            'b' => magnitude.ToString("b", CultureInfo.InvariantCulture),
            _ => Octal(magnitude),
        };
    }

    /// <summary>Writes a text in its columns; without an alignment it stands at the left.</summary>
    public void Pad(Runtime rt, TextBuilder made, Text text) =>
        made.Append(Width <= text.Length ? text : StringMethods.Pad(rt, text, Width, Fill, Align switch { '>' => 'r', '^' => 'm', _ => 'l' }));

    public void WriteFloat(Runtime rt, TextBuilder made, double value, char kind, bool data)
    {
        int precision = (int)Math.Min(Precision ?? 6, MostDigits);
        rt.Chars(precision + 400L);
        double magnitude = double.IsNaN(value) ? value : Math.Abs(value);
        string digits = char.ToLowerInvariant(kind) switch
        {
            'e' => Numbers.Scientific(magnitude, precision),
            'f' => Numbers.Fixed(magnitude, precision),
            '%' => Numbers.Fixed(magnitude * 100, precision) + "%",
            _ => Numbers.General(magnitude, precision, Alternate),
        };
        WriteNumber(rt, made, char.IsUpper(kind) ? digits.ToUpperInvariant() : digits, double.IsNegative(value) && !double.IsNaN(value), "", data);
    }

    /// <summary>Writes digits with sign and prefix; zeros go between those and the digits.</summary>
    public void WriteNumber(Runtime rt, TextBuilder made, string digits, bool negative, string prefix, bool data)
    {
        if (Grouping != '\0')
        {
            int whole = digits.AsSpan().IndexOfAnyExceptInRange('0', '9');
            whole = whole < 0 ? digits.Length : whole;
            for (int i = whole - 3; i > 0; i -= 3)
            {
                digits = digits.Insert(i, Grouping.ToString());
            }
        }

        string sign = (negative ? "-" : Sign is '+' or ' ' ? Sign.ToString() : "") + prefix;
        if ((Zero && Align is '\0' or '>') || Align == '=')
        {
            long missing = Math.Max(0, Width - sign.Length - digits.Length);
            rt.Chars(missing);
            digits = new string(Align == '=' && !Zero ? Fill.S[0] : '0', (int)missing) + digits;
        }

        Text text = Text.Derived(sign + digits, data);
        made.Append(Width <= text.Length ? text : StringMethods.Pad(rt, text, Width, Fill, Align switch { '<' => 'l', '^' => 'm', _ => 'r' }));
    }

    private static string Octal(UInt128 value)
    {
        string digits = "";
        do
        {
            digits = (char)('0' + (int)(value & 7)) + digits;
            value >>= 3;
        }
        while (value != 0);
        return digits;
    }
}
