namespace Sluice.Templates;

/// <summary>Python's operators.</summary>
internal static class Operators
{
    public static Value Apply(Runtime rt, string op, Value a, Value b)
    {
        if ((a as UndefinedValue ?? b as UndefinedValue) is { } undefined && !(op == "%" && a is Text))
        {
            throw rt.Undefined(undefined);
        }

        if (Integer(a) is { } x && Integer(b) is { } y)
        {
            return Integers(rt, op, x, y);
        }

        if (Number(a) is { } p && Number(b) is { } q)
        {
            return Floats(rt, op, p, q);
        }

        switch (op)
        {
            case "+" when a is Text s && b is Text t:
                TextBuilder joined = new(rt);
                bool markup = s.IsMarkup || t.IsMarkup;
                joined.Append(markup ? TextFilters.Escape(rt, s) : s);
                joined.Append(markup ? TextFilters.Escape(rt, t) : t);
                return joined.ToText().As(markup);
            case "+" when a is ListValue l && b is ListValue m && l.IsTuple == m.IsTuple:
                rt.Step(1 + l.Length + m.Length);
                return new ListValue([.. l.Items, .. m.Items], l.IsTuple);
            case "%" when a is Text format:
                return PercentFormat.Apply(rt, format, b);
            case "*" when (a is Text or ListValue) && Integer(b) is { } n:
                return Repeat(rt, a, n);
            case "*" when (b is Text or ListValue) && Integer(a) is { } n:
                return Repeat(rt, b, n);
            default:
                throw rt.Fail($"'{op}' does not go with '{a.TypeName}' and '{b.TypeName}'");
        }
    }

    public static Value Sign(Runtime rt, Value value, bool negative) => value switch
    {
        FloatValue f => new FloatValue(negative ? -f.Value : f.Value),
        _ when Integer(value) is { } i => negative && i == long.MinValue ? throw Overflow(rt) : IntValue.Of(negative ? -i : i),
        _ => throw rt.WrongType("a sign needs a number", value),
    };

    public static bool Compare(Runtime rt, string op, Value a, Value b) => op switch
    {
        "==" => rt.Equality.Equals(a, b),
        "!=" => !rt.Equality.Equals(a, b),
        "in" => Contains(rt, b, a),
        "not in" => !Contains(rt, b, a),
        "<" => Ordered(rt, op, a, b) is < 0,
        "<=" => Ordered(rt, op, a, b) is <= 0,
        ">" => Ordered(rt, op, a, b) is > 0,
        _ => Ordered(rt, op, a, b) is >= 0,
    };

    /// <summary>Which of two comes first; null where NaN has no order.</summary>
    public static int? Ordered(Runtime rt, string op, Value a, Value b)
    {
        rt.Step();
        rt.EnsureStack();
        if (Integer(a) is { } i && Integer(b) is { } j)
        {
            return i.CompareTo(j);
        }

        if (Number(a) is { } x && Number(b) is { } y)
        {
            return double.IsNaN(x) || double.IsNaN(y) ? null : x.CompareTo(y);
        }

        if (a is Text s && b is Text t)
        {
            rt.Scan(Math.Min(s.S.Length, t.S.Length));
            return Text.Compare(s.S, t.S);
        }

        if (a is ListValue l && b is ListValue m && l.IsTuple == m.IsTuple)
        {
            for (int k = 0; k < Math.Min(l.Length, m.Length); k++)
            {
                if (!rt.Equality.Equals(l.Items[k], m.Items[k]))
                {
                    return Ordered(rt, op, l.Items[k], m.Items[k]);
                }
            }

            return l.Length.CompareTo(m.Length);
        }

        throw (a as UndefinedValue ?? b as UndefinedValue) is { } u ? rt.Undefined(u) : rt.Fail($"'{op}' has no meaning between '{a.TypeName}' and '{b.TypeName}'");
    }

    /// <summary>Python's <c>item in whole</c>.</summary>
    public static bool Contains(Runtime rt, Value whole, Value item)
    {
        switch (whole)
        {
            case Text text:
                return PythonText.IndexOf(rt, text.S, rt.TextOf(item, "what is sought in a string").S, 0, text.S.Length) >= 0;
            case DictValue dict:
                return dict.Get(item) is not null;
            case ViewValue { Kind: 'k' } view:
                return view.Dict.Get(item) is not null;
            default:
                foreach (Value each in rt.Iterate(whole))
                {
                    if (rt.Equality.Equals(each, item))
                    {
                        return true;
                    }
                }

                return false;
        }
    }

    public static long? Integer(Value value) => value switch { IntValue i => i.Value, BoolValue b => b.Value ? 1 : 0, _ => null };

    public static double? Number(Value value) => value is FloatValue f ? f.Value : Integer(value);

    private static Value Integers(Runtime rt, string op, long a, long b)
    {
        try
        {
            switch (op)
            {
                case "+":
                    return IntValue.Of(checked(a + b));
                case "-":
                    return IntValue.Of(checked(a - b));
                case "*":
                    return IntValue.Of(checked(a * b));
                case "**" when b >= 0:
                    return IntValue.Of(Power(a, b));
                case "**":
                    return a == 0 ? throw Zero(rt) : new FloatValue(Math.Pow(a, b));
            }

            if (b == 0)
            {
                throw Zero(rt);
            }

            if (op == "/")
            {
                return new FloatValue((double)a / b);
            }

            if (b == -1)
            {
                return IntValue.Of(op == "%" ? 0 : checked(-a));
            }

            long rest = a % b, whole = a / b;
            bool down = rest != 0 && (rest < 0) != (b < 0);
            return IntValue.Of(op == "%" ? (down ? rest + b : rest) : down ? whole - 1 : whole);
        }
        catch (OverflowException)
        {
            throw Overflow(rt);
        }
    }

    private static long Power(long a, long b)
    {
        if (a is 0 or 1 || b == 0)
        {
            return b == 0 ? 1 : a;
        }

        if (a == -1)
        {
            return b % 2 == 0 ? 1 : -1;
        }

        long power = 1;
        for (long i = 0; i < b; i++)
        {
            power = checked(power * a); // leaves 64 bits after 63 rounds at most
        }

        return power;
    }

    private static FloatValue Floats(Runtime rt, string op, double a, double b)
    {
        switch (op)
        {
            case "+":
                return new FloatValue(a + b);
            case "-":
                return new FloatValue(a - b);
            case "*":
                return new FloatValue(a * b);
            case "**":
                double power = Math.Pow(a, b);
                return (a == 0 && b < 0) || (double.IsNaN(power) && !double.IsNaN(a) && !double.IsNaN(b)) || (double.IsInfinity(power) && double.IsFinite(a) && double.IsFinite(b))
                    ? throw rt.Fail("this power is no finite number")
                    : new FloatValue(power);
        }

        if (b == 0)
        {
            throw Zero(rt);
        }

        if (op == "/")
        {
            return new FloatValue(a / b);
        }

        double rest = a % b;
        double whole = (a - rest) / b;
        if (rest != 0 && (rest < 0) != (b < 0))
        {
            rest += b;
            whole -= 1;
        }

        rest = rest == 0 ? Math.CopySign(0, b) : rest;
        double floor = Math.Floor(whole);
        floor = whole - floor > 0.5 ? floor + 1 : floor;
        return new FloatValue(op == "%" ? rest : floor == 0 ? Math.CopySign(0, a / b) : floor);
    }

    private static Value Repeat(Runtime rt, Value value, long count)
    {
        count = Math.Max(count, 0);
        if (value is ListValue list)
        {
            rt.Step(count > int.MaxValue / 2 && list.Length > 0 ? long.MaxValue / 2 : 1 + (count * list.Length));
            List<Value> items = [];
            for (long i = 0; i < count && list.Length > 0; i++)
            {
                items.AddRange(list.Items);
            }

            return new ListValue(items, list.IsTuple);
        }

        Text text = (Text)value;
        TextBuilder repeated = new(rt);
        for (long i = 0; i < count && text.S.Length > 0; i++)
        {
            repeated.Append(text);
        }

        return repeated.ToText().As(text.IsMarkup);
    }

    private static ChatTemplateException Zero(Runtime rt) => rt.Fail("division by zero");

    private static ChatTemplateException Overflow(Runtime rt) => rt.Fail("this integer leaves 64 bits");
}

/// <summary>Python's <c>==</c> and <c>hash</c>: 1, 1.0 and True are one key; where a string came from does not count.</summary>
internal sealed class ValueEquality(Runtime rt) : IEqualityComparer<Value>
{
    public bool Equals(Value? a, Value? b)
    {
        // Before the short way out: a list may hold one value a million times.
        rt.Step();
        if (ReferenceEquals(a, b))
        {
            return a is not FloatValue { Value: double.NaN };
        }

        if (a is Text s && b is Text t)
        {
            if (s.S.Length != t.S.Length)
            {
                return false;
            }

            rt.Scan(s.S.Length);
            return s.S == t.S;
        }

        if (Operators.Integer(a!) is { } i && Operators.Integer(b!) is { } j)
        {
            return i == j;
        }

        if (Operators.Number(a!) is { } x && Operators.Number(b!) is { } y)
        {
            return x == y;
        }

        switch (a, b)
        {
            case (NoneValue, NoneValue) or (UndefinedValue, UndefinedValue):
                return true;
            case (BigValue l, BigValue m):
                return l.Digits == m.Digits;
            case (ListValue l, ListValue m):
                return SameItems(l, m);
            case (DictValue l, DictValue m):
                return SameEntries(l, m);
            default:
                return false;
        }
    }

    public int GetHashCode(Value value)
    {
        rt.Step();
        switch (value)
        {
            case Text text:
                rt.Scan(text.S.Length);
                return text.S.GetHashCode(StringComparison.Ordinal);
            case NoneValue or UndefinedValue:
                return value.TypeName.Length;
            case BigValue big:
                return big.Digits.GetHashCode(StringComparison.Ordinal);
            case FloatValue f:
                return f.Value == Math.Floor(f.Value) && Math.Abs(f.Value) < 1e18 ? ((long)f.Value).GetHashCode() : f.Value.GetHashCode();
            case ListValue { IsTuple: true } tuple:
                rt.EnsureStack();
                HashCode hash = default;
                foreach (Value item in tuple.Items)
                {
                    hash.Add(GetHashCode(item));
                }

                return hash.ToHashCode();
            case ListValue or DictValue:
                throw rt.Fail($"a {value.TypeName} cannot be a key");
            default:
                return Operators.Integer(value)?.GetHashCode() ?? System.Runtime.CompilerServices.RuntimeHelpers.GetHashCode(value);
        }
    }

    private bool SameItems(ListValue a, ListValue b)
    {
        if (a.IsTuple != b.IsTuple || a.Length != b.Length)
        {
            return false;
        }

        rt.EnsureStack();
        for (int i = 0; i < a.Length; i++)
        {
            if (!Equals(a.Items[i], b.Items[i]))
            {
                return false;
            }
        }

        return true;
    }

    private bool SameEntries(DictValue a, DictValue b)
    {
        if (a.Length != b.Length)
        {
            return false;
        }

        rt.EnsureStack();
        foreach ((Value key, Value value) in a.Entries)
        {
            if (b.Get(key) is not { } other || !Equals(value, other))
            {
                return false;
            }
        }

        return true;
    }
}
