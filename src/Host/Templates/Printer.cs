using System.Globalization;
using System.Text;

namespace Sluice.Templates;

/// <summary>Python's <c>str</c> and <c>repr</c>.</summary>
internal static class Printer
{
    /// <summary>Writes what <c>{{ value }}</c> writes: a string keeps its marks, anything else is data as a whole if any of it is.</summary>
    public static void Print(Runtime rt, Value value, TextBuilder output) => output.Append(ToText(rt, value));

    /// <summary>Python's <c>str(value)</c>.</summary>
    public static Text ToText(Runtime rt, Value value) => value switch
    {
        Text text => text,
        UndefinedValue => Text.Empty,
        _ => Repr(rt, value),
    };

    /// <summary>Python's <c>repr(value)</c>.</summary>
    public static Text Repr(Runtime rt, Value value)
    {
        TextBuilder text = new(rt);
        Write(rt, value, text);
        Text made = text.ToText();
        return Text.Derived(made.S, made.IsData);
    }

    /// <summary>A number, boolean or None as Python prints it.</summary>
    public static string Scalar(Value value) => value switch
    {
        NoneValue => "None",
        BoolValue b => b.Value ? "True" : "False",
        IntValue i => i.Value.ToString(CultureInfo.InvariantCulture),
        FloatValue f => Numbers.Repr(f.Value),
        BigValue b => b.Digits,
        UndefinedValue => "Undefined",
        RangeValue r => string.Create(CultureInfo.InvariantCulture, $"range({r.Start}, {r.At(r.Length)}{(r.Step == 1 ? "" : $", {r.Step}")})"),
        _ => $"<{value.TypeName} object>",
    };

    private static void Write(Runtime rt, Value value, TextBuilder text)
    {
        rt.Step();
        rt.EnsureStack();
        switch (value)
        {
            case Text s:
                text.Append(Quoted(rt, s.S), s.IsData);
                break;
            case ListValue list:
                text.Append(list.IsTuple ? '(' : '[');
                for (int i = 0; i < list.Items.Count; i++)
                {
                    text.Append(i == 0 ? "" : ", ");
                    Write(rt, list.Items[i], text);
                }

                text.Append(!list.IsTuple ? "]" : list.Items.Count == 1 ? ",)" : ")");
                break;
            case DictValue dict:
                text.Append('{');
                for (int i = 0; i < dict.Entries.Count; i++)
                {
                    text.Append(i == 0 ? "" : ", ");
                    Write(rt, dict.Entries[i].Key, text);
                    text.Append(": ");
                    Write(rt, dict.Entries[i].Value, text);
                }

                text.Append('}');
                break;
            case ViewValue view:
                text.Append(view.TypeName + "([");
                for (int i = 0; i < view.Length; i++)
                {
                    text.Append(i == 0 ? "" : ", ");
                    Write(rt, view.At(i), text);
                }

                text.Append("])");
                break;
            default:
                text.Append(Scalar(value), value.IsData);
                break;
        }
    }

    private static string Quoted(Runtime rt, string s)
    {
        rt.Scan(s.Length);
        char quote = s.Contains('\'', StringComparison.Ordinal) && !s.Contains('"', StringComparison.Ordinal) ? '"' : '\'';
        StringBuilder text = new(s.Length + 2);
        text.Append(quote);
        for (int i = 0; i < s.Length;)
        {
            char c = s[i];
            if (Rune.DecodeFromUtf16(s.AsSpan(i), out Rune rune, out int size) != System.Buffers.OperationStatus.Done)
            {
                text.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:x4}");
                i++;
                continue;
            }

            i += size;
            _ = c switch
            {
                '\\' => text.Append("\\\\"),
                '\n' => text.Append("\\n"),
                '\r' => text.Append("\\r"),
                '\t' => text.Append("\\t"),
                _ when c == quote => text.Append('\\').Append(c),
                _ when PythonText.IsPrintable(rune) => text.Append(s, i - size, size),
                _ when rune.Value < 0x100 => text.Append(CultureInfo.InvariantCulture, $"\\x{rune.Value:x2}"),
                _ when rune.Value < 0x10000 => text.Append(CultureInfo.InvariantCulture, $"\\u{rune.Value:x4}"),
                _ => text.Append(CultureInfo.InvariantCulture, $"\\U{rune.Value:x8}"),
            };
        }

        return text.Append(quote).ToString();
    }
}
