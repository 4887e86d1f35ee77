namespace Sluice.Templates;

/// <summary>What <c>a.b</c>, <c>a[b]</c> and <c>a(b)</c> give. There is no way from a value to the host: only the names listed here exist.</summary>
internal static class Members
{
    /// <summary>An attribute first, then a key: <c>message.items</c> is the method, <c>message.content</c> the entry.</summary>
    public static Value GetAttribute(Runtime rt, Value value, string name)
    {
        if (value is UndefinedValue undefined)
        {
            throw rt.Undefined(undefined);
        }

        if (Attribute(rt, value, name) is { } found)
        {
            return found;
        }

        if (value is DictValue dict)
        {
            rt.Scan(name.Length);
            if (dict.Get(name) is { } entry)
            {
                return entry;
            }
        }

        return Missing(value, name);
    }

    /// <summary>A key or index first, then an attribute.</summary>
    public static Value GetItem(Runtime rt, Value value, Value key)
    {
        if (value is UndefinedValue undefined)
        {
            throw rt.Undefined(undefined);
        }

        // A key that cannot be one is a key that is not there.
        Value? found = value switch
        {
            DictValue dict => key is ListValue { IsTuple: false } or DictValue ? null : dict.Get(key),
            Text or ListValue or RangeValue when Operators.Integer(key) is { } index => At(rt, value, index),
            _ => null,
        };
        if (found is not null)
        {
            return found;
        }

        return key is Text name ? Attribute(rt, value, name.S) ?? Missing(value, name.S) : new UndefinedValue($"'{value.TypeName} object' has no element {(key is ListValue or DictValue ? key.TypeName : Printer.Scalar(key))}");
    }

    public static Value Call(Runtime rt, Value function, Arguments arguments) => function switch
    {
        CallableValue callable => callable.Call(rt, arguments),
        UndefinedValue undefined => throw rt.Undefined(undefined),
        _ => throw rt.Fail($"a '{function.TypeName}' cannot be called"),
    };

    /// <summary>Python's attribute of that name; null where the type has none.</summary>
    public static Value? Attribute(Runtime rt, Value value, string name)
    {
        if (name.StartsWith("__", StringComparison.Ordinal) && name.EndsWith("__", StringComparison.Ordinal) && value is not NamespaceValue)
        {
            return value is DictValue d && d.Get(name) is { } entry ? entry : Unsafe(value, name);
        }

        switch (value)
        {
            case Text text:
                return StringMethods.Find(name) is { } method ? new BuiltIn(name, (r, a) => method(r, text, a)) : null;
            case DictValue dict:
                return DictMethod(dict, name);
            case ListValue { IsGroup: true } group when name is "grouper" or "list":
                return group.Items[name == "grouper" ? 0 : 1];
            case ListValue list:
                return ListMethod(list, name);
            case NamespaceValue ns:
                return ns.Get(name);
            case LoopValue loop:
                return loop.Get(name);
            case MacroValue macro:
                return macro.Get(name);
            case CyclerValue cycler:
                return name switch
                {
                    "current" => cycler.Current,
                    "next" => new BuiltIn(name, (_, _) => cycler.Next()),
                    "reset" => new BuiltIn(name, (_, _) =>
                    {
                        cycler.Reset();
                        return NoneValue.Instance;
                    }),
                    _ => null,
                };
            case FloatValue f when name == "is_integer":
                return new BuiltIn(name, (_, _) => BoolValue.Of(Math.Floor(f.Value) == f.Value && double.IsFinite(f.Value)));
            case IntValue i when name == "bit_length":
                return new BuiltIn(name, (_, _) => IntValue.Of(i.Value == 0 ? 0 : i.Value == long.MinValue ? 64 : 64 - (int)long.LeadingZeroCount(Math.Abs(i.Value))));
            default:
                return null;
        }
    }

    private static Value? DictMethod(DictValue dict, string name)
    {
        switch (name)
        {
            case "items":
                return new BuiltIn(name, (_, _) => new ViewValue(dict, 'i'));
            case "keys":
                return new BuiltIn(name, (_, _) => new ViewValue(dict, 'k'));
            case "values":
                return new BuiltIn(name, (_, _) => new ViewValue(dict, 'v'));
            case "get":
                return new BuiltIn(name, (rt, a) =>
                {
                    Value?[] given = a.Bind(rt, "get", "key", "default");
                    return dict.Get(given[0] ?? throw rt.Fail("get() needs a key")) ?? given[1] ?? NoneValue.Instance;
                });
            case "copy":
                return new BuiltIn(name, (rt, _) =>
                {
                    DictValue copy = new(rt);
                    foreach ((Value key, Value value) in dict.Entries)
                    {
                        copy.Set(key, value);
                    }

                    return copy;
                });
            case "clear" or "pop" or "popitem" or "setdefault" or "update":
                return Frozen("dict", name);
            default:
                return null;
        }
    }

    private static Value? ListMethod(ListValue list, string name)
    {
        switch (name)
        {
            case "count":
                return new BuiltIn(name, (rt, a) =>
                {
                    Value sought = a.Bind(rt, "count", "value")[0] ?? throw rt.Fail("count() needs a value");
                    return IntValue.Of(rt.Iterate(list).LongCount(item => rt.Equality.Equals(item, sought)));
                });
            case "index":
                return new BuiltIn(name, (rt, a) =>
                {
                    Value sought = a.Bind(rt, "index", "value")[0] ?? throw rt.Fail("index() needs a value");
                    int at = list.Items.FindIndex(item => rt.Equality.Equals(item, sought));
                    return at >= 0 ? IntValue.Of(at) : throw rt.Fail("index(): the value is not in the list");
                });
            case "copy" when !list.IsTuple:
                return new BuiltIn(name, (rt, _) => new ListValue(rt.ListOf(list)));
            case "pop" when !list.IsTuple:
                // Jinja 3.1 up to 3.1.4 leaves this one in its sandbox. The list is this render's own.
                return new BuiltIn(name, (rt, a) => Pop(rt, list, a));
            case "append" or "extend" or "insert" or "remove" or "reverse" or "sort" or "clear" when !list.IsTuple:
                return Frozen("list", name);
            default:
                return null;
        }
    }

    private static Value Pop(Runtime rt, ListValue list, Arguments arguments)
    {
        long at = arguments.Bind(rt, "pop", "index")[0] is { } index ? rt.IntOf(index, "an index") : -1;
        at = at < 0 ? at + list.Length : at;
        if (at < 0 || at >= list.Length)
        {
            throw rt.Fail("pop(): there is no such item");
        }

        rt.Scan(list.Length);
        Value item = list.Items[(int)at];
        list.Items.RemoveAt((int)at);
        return item;
    }

    private static Value? At(Runtime rt, Value value, long index)
    {
        int length = value.Length;
        index = index < 0 ? index + length : index;
        if (index < 0 || index >= length)
        {
            return null;
        }

        rt.Scan(value is Text { IsWide: true } ? length * 8L : 0);
        return value switch
        {
            ListValue list => list.Items[(int)index],
            RangeValue range => IntValue.Of(range.At((int)index)),
            _ => ((Text)value).CutPoints((int)index, (int)index + 1),
        };
    }

    private static UndefinedValue Frozen(string type, string name) => new($"'{name}' would change a {type}, and a template may change nothing but a namespace");

    private static UndefinedValue Unsafe(Value value, string name) => new($"access to attribute '{name}' of a '{value.TypeName}' is not allowed");

    private static UndefinedValue Missing(Value value, string name) =>
        new(value is NoneValue ? $"'None' has no attribute '{name}'" : $"'{value.TypeName} object' has no attribute '{name}'");
}

/// <summary>Python's slices.</summary>
internal static class Slices
{
    public static Value Take(Runtime rt, Value value, Value? from, Value? to, Value? by)
    {
        if (value is not (Text or ListValue or RangeValue))
        {
            throw rt.WrongType("a slice needs a string or a list", value);
        }

        long step = by is null or NoneValue ? 1 : rt.IntOf(by, "a slice's step");
        if (step == 0)
        {
            throw rt.Fail("a slice's step cannot be 0");
        }

        int length = value.Length;
        long first = Bound(rt, from, step > 0 ? 0 : length - 1, length, step < 0);
        long last = Bound(rt, to, step > 0 ? length : -1, length, step < 0);
        long count = step > 0 ? (last <= first ? 0 : ((last - first - 1) / step) + 1) : last >= first ? 0 : ((first - last - 1) / -Math.Max(step, -int.MaxValue)) + 1;
        rt.Scan(value is Text { IsWide: true } ? length : 0);
        if (value is Text text)
        {
            if (step == 1)
            {
                rt.Chars(count);
                return count == 0 ? Text.Empty : text.CutPoints((int)first, (int)(first + count));
            }

            TextBuilder picked = new(rt);
            if (text.IsWide)
            {
                List<Value> points = rt.ListOf(text);
                for (long i = 0; i < count; i++)
                {
                    picked.Append((Text)points[(int)(first + (i * step))]);
                }
            }
            else
            {
                for (long i = 0; i < count; i++)
                {
                    picked.Append(text, (int)(first + (i * step)), 1);
                }
            }

            return picked.ToText();
        }

        if (value is RangeValue range)
        {
            return new RangeValue(range.At((int)first), range.Step * step, (int)count);
        }

        ListValue list = (ListValue)value;
        rt.Step(1 + count);
        List<Value> items = new((int)count);
        for (long i = 0; i < count; i++)
        {
            items.Add(list.Items[(int)(first + (i * step))]);
        }

        return new ListValue(items, list.IsTuple);
    }

    /// <summary>The place that a bound means: from the end where it is negative, and never outside.</summary>
    public static long Bound(Runtime rt, Value? bound, long standard, int length, bool backwards)
    {
        if (bound is null or NoneValue)
        {
            return standard;
        }

        long at = rt.IntOf(bound, "a slice's bound");
        at = at < 0 ? at + length : at;
        return Math.Clamp(at, backwards ? -1 : 0, backwards ? length - 1 : length);
    }
}
