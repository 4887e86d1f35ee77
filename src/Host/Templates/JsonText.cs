using System.Globalization;
using System.Text;

namespace Sluice.Templates;

/// <summary>Python's <c>json.dumps</c>, as transformers calls it for <c>tojson</c>.</summary>
internal sealed class JsonText
{
    private readonly Runtime _rt;
    private readonly TextBuilder _text;
    private readonly bool _ascii;
    private readonly bool _sorted;
    private readonly string? _indent;
    private readonly string _between;
    private readonly string _colon;

    private JsonText(Runtime rt, bool ascii, bool sorted, string? indent, string between, string colon) =>
        (_rt, _text, _ascii, _sorted, _indent, _between, _colon) = (rt, new TextBuilder(rt), ascii, sorted, indent, between, colon);

    /// <summary>The filter: arguments <c>ensure_ascii</c>, <c>indent</c>, <c>separators</c>, <c>sort_keys</c>.</summary>
    public static Value Filter(Runtime rt, Value value, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "tojson", "ensure_ascii", "indent", "separators", "sort_keys");
        string? indent = given[1] switch
        {
            null or NoneValue => null,
            Text text => text.S,
            { } columns => Spaces(rt, rt.IntOf(columns, "tojson's indent")),
        };
        (string between, string colon) = (indent is null ? ", " : ",", ": ");
        if (given[2] is not null and not NoneValue)
        {
            List<Value> separators = rt.ListOf(given[2]!);
            (between, colon) = separators.Count == 2 ? (rt.TextOf(separators[0], "a separator").S, rt.TextOf(separators[1], "a separator").S) : throw rt.Fail("tojson's separators are two strings");
        }

        JsonText json = new(rt, given[0] is { Truthy: true }, given[3] is { Truthy: true }, indent, between, colon);
        json.Write(value, 0);
        Text made = json._text.ToText();
        return Text.Derived(made.S, made.IsData);
    }

    private static string Spaces(Runtime rt, long count)
    {
        rt.Chars(Math.Max(count, 0));
        return new string(' ', (int)Math.Max(count, 0));
    }

    private void Write(Value value, int depth)
    {
        _rt.Step();
        _rt.EnsureStack();
        switch (value)
        {
            case Text text:
                WriteText(text);
                break;
            case NoneValue:
                _text.Append("null", value.IsData);
                break;
            case BoolValue b:
                _text.Append(b.Value ? "true" : "false", value.IsData);
                break;
            case FloatValue f:
                _text.Append(Float(f.Value), value.IsData);
                break;
            case IntValue or BigValue:
                _text.Append(Printer.Scalar(value), value.IsData);
                break;
            case ListValue list:
                WriteAll('[', ']', list.Items.Count, depth, i => Write(list.Items[i], depth + 1));
                break;
            case DictValue dict:
                List<KeyValuePair<Value, Value>> entries = dict.Entries;
                if (_sorted)
                {
                    entries = [.. entries];
                    Sorting.Sort(_rt, entries, (a, b) => Operators.Ordered(_rt, "<", a.Key, b.Key) ?? 0);
                }

                WriteAll('{', '}', entries.Count, depth, i =>
                {
                    WriteKey(entries[i].Key);
                    _text.Append(_colon);
                    Write(entries[i].Value, depth + 1);
                });
                break;
            default:
                throw value is UndefinedValue u ? _rt.Fail($"tojson cannot write what is undefined: {u.Reason}") : _rt.Fail($"tojson cannot write a '{value.TypeName}'");
        }
    }

    private void WriteAll(char open, char close, int count, int depth, Action<int> write)
    {
        _text.Append(open);
        for (int i = 0; i < count; i++)
        {
            _text.Append(i == 0 ? "" : _between);
            NewLine(depth + 1);
            write(i);
        }

        if (count > 0)
        {
            NewLine(depth);
        }

        _text.Append(close);
    }

    private void NewLine(int depth)
    {
        if (_indent is not null)
        {
            _text.Append('\n');
            for (int i = 0; i < depth; i++)
            {
                _text.Append(_indent);
            }
        }
    }

    private void WriteKey(Value key)
    {
        switch (key)
        {
            case Text text:
                WriteText(text);
                break;
            case NoneValue or BoolValue or IntValue or FloatValue or BigValue:
                _text.Append('"');
                Write(key, 0);
                _text.Append('"');
                break;
            default:
                throw _rt.Fail($"tojson cannot write a '{key.TypeName}' as a key");
        }
    }

    private static string Float(double value) => double.IsNaN(value) ? "NaN" : double.IsInfinity(value) ? (value > 0 ? "Infinity" : "-Infinity") : Numbers.Repr(value);

    private void WriteText(Text text)
    {
        _rt.Scan(text.S.Length);
        StringBuilder quoted = new(text.S.Length + 2);
        quoted.Append('"');
        foreach (char c in text.S)
        {
            _ = c switch
            {
                '"' => quoted.Append("\\\""),
                '\\' => quoted.Append("\\\\"),
                '\n' => quoted.Append("\\n"),
                '\r' => quoted.Append("\\r"),
                '\t' => quoted.Append("\\t"),
                '\b' => quoted.Append("\\b"),
                '\f' => quoted.Append("\\f"),
                _ when c < ' ' || (_ascii && c > '~') => quoted.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:x4}"),
                _ => quoted.Append(c),
            };
        }

        _text.Append(quoted.Append('"').ToString(), text.IsData);
    }
}
