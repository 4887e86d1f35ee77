namespace Sluice.Templates;

/// <summary>Filters of lists and dicts.</summary>
internal static class SequenceFilters
{
    public static DictValue DictOf(Runtime rt, Arguments arguments)
    {
        if (arguments.Positional.Length > 0)
        {
            throw rt.Fail("this filter takes either values or names");
        }

        DictValue dict = new(rt);
        foreach ((string name, Value value) in arguments.Named ?? [])
        {
            dict.Set(Text.Trusted(name), value);
        }

        return dict;
    }

    /// <summary>What reads <c>a.b.0</c> from a value.</summary>
    public static Func<Value, Value> Getter(Runtime rt, Value attribute, Value? standard)
    {
        Value[] parts = attribute switch
        {
            NoneValue => [],
            Text text => [.. text.S.Split('.').Select(p => p.Length > 0 && p.All(char.IsAsciiDigit) ? Numbers.ParseInteger(p, false) : Text.Trusted(p))],
            _ => [attribute],
        };
        return value =>
        {
            foreach (Value part in parts)
            {
                value = Members.GetItem(rt, value, part);
                if (standard is not null and not NoneValue && value is UndefinedValue)
                {
                    value = standard;
                }
            }

            return value;
        };
    }

    public static Value Map(Runtime rt, Value value, Arguments arguments) => Runtime.Generate(Mapped(rt, value, arguments));

    public static Value Select(Runtime rt, Value value, Arguments arguments, bool byAttribute, bool wanted) =>
        Runtime.Generate(Selected(rt, value, arguments, byAttribute, wanted));

    public static Value Batch(Runtime rt, Value value, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "batch", "linecount", "fill_with");
        long size = rt.IntOf(Filters.Need(rt, given[0]), "a batch's size");
        return Runtime.Generate(Batches());

        IEnumerable<Value> Batches()
        {
            List<Value> batch = [];
            foreach (Value item in rt.Iterate(value))
            {
                if (batch.Count == size)
                {
                    yield return new ListValue(batch);
                    batch = [];
                }

                batch.Add(item);
            }

            if (batch.Count > 0)
            {
                while (given[1] is { } fill and not NoneValue && batch.Count < size)
                {
                    rt.Step();
                    batch.Add(fill);
                }

                yield return new ListValue(batch);
            }
        }
    }

    public static Value Slice(Runtime rt, Value value, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "slice", "slices", "fill_with");
        long slices = rt.IntOf(Filters.Need(rt, given[0]), "a number of slices");
        return Runtime.Generate(Cut());

        IEnumerable<Value> Cut()
        {
            List<Value> items = rt.ListOf(value);
            long size = slices == 0 ? throw rt.Fail("division by zero") : items.Count / slices, longer = items.Count % slices;
            int at = 0;
            for (long i = 0; i < slices; i++)
            {
                rt.Step();
                int count = (int)(size + (i < longer ? 1 : 0));
                List<Value> slice = items.GetRange(at, count);
                at += count;
                if (given[1] is { } fill and not NoneValue && i >= longer)
                {
                    slice.Add(fill);
                }

                yield return new ListValue(slice);
            }
        }
    }

    public static Value Sort(Runtime rt, Value value, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "sort", "reverse", "case_sensitive", "attribute");
        bool exact = given[1] is { Truthy: true };
        Func<Value, Value>[] keys = given[2] is Text names ? [.. names.S.Split(',').Select(n => Getter(rt, Text.Trusted(n), null))] : [Getter(rt, given[2] ?? NoneValue.Instance, null)];
        List<(Value Key, Value Item)> items = [];
        foreach (Value item in rt.Iterate(value))
        {
            items.Add((new ListValue([.. keys.Select(k => Folded(rt, k(item), exact))]), item));
        }

        SortBy(rt, items, given[0] is { Truthy: true });
        return new ListValue([.. items.Select(i => i.Item)]);
    }

    public static Value DictSort(Runtime rt, Value value, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "dictsort", "case_sensitive", "by", "reverse");
        string by = given[1] is { } b ? rt.TextOf(b, "what dictsort sorts by").S : "key";
        if (by is not ("key" or "value"))
        {
            throw rt.Fail("dictsort sorts by 'key' or 'value'");
        }

        DictValue dict = value as DictValue ?? throw rt.WrongType("dictsort needs a dict", value);
        List<(Value Key, Value Item)> items = [];
        foreach (Value item in rt.Iterate(new ViewValue(dict, 'i')))
        {
            items.Add((Folded(rt, ((ListValue)item).Items[by == "key" ? 0 : 1], given[0] is { Truthy: true }), item));
        }

        SortBy(rt, items, given[2] is { Truthy: true });
        return new ListValue([.. items.Select(i => i.Item)]);
    }

    public static Value GroupBy(Runtime rt, Value value, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "groupby", "attribute", "default", "case_sensitive");
        bool exact = given[2] is { Truthy: true };
        Func<Value, Value> get = Getter(rt, Filters.Need(rt, given[0]), given[1]);
        List<(Value Key, Value Item)> items = [];
        foreach (Value item in rt.Iterate(value))
        {
            items.Add((Folded(rt, get(item), exact), item));
        }

        SortBy(rt, items, false);
        List<Value> groups = [];
        List<Value>? group = null;
        for (int i = 0; i < items.Count; i++)
        {
            if (group is null || !rt.Equality.Equals(items[i].Key, items[i - 1].Key))
            {
                group = [];
                groups.Add(new ListValue([get(items[i].Item), new ListValue(group)], true) { IsGroup = true });
            }

            group.Add(items[i].Item);
        }

        return new ListValue(groups);
    }

    public static Value Unique(Runtime rt, Value value, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "unique", "case_sensitive", "attribute");
        Func<Value, Value> get = Getter(rt, given[1] ?? NoneValue.Instance, null);
        return Runtime.Generate(Once());

        IEnumerable<Value> Once()
        {
            HashSet<Value> seen = new(rt.Equality);
            foreach (Value item in rt.Iterate(value))
            {
                if (seen.Add(Folded(rt, get(item), given[0] is { Truthy: true })))
                {
                    yield return item;
                }
            }
        }
    }

    /// <summary>The least (-1) or greatest (1) item.</summary>
    public static Value Extreme(Runtime rt, Value value, Arguments arguments, int sign)
    {
        Value?[] given = arguments.Bind(rt, sign > 0 ? "max" : "min", "case_sensitive", "attribute");
        Func<Value, Value> get = Getter(rt, given[1] ?? NoneValue.Instance, null);
        Value? best = null, bestKey = null;
        foreach (Value item in rt.Iterate(value))
        {
            Value key = Folded(rt, get(item), given[0] is { Truthy: true });
            if (bestKey is null || Operators.Ordered(rt, "<", key, bestKey) * sign > 0)
            {
                (best, bestKey) = (item, key);
            }
        }

        return best ?? new UndefinedValue("no aggregated item, sequence was empty");
    }

    public static Value Sum(Runtime rt, Value value, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "sum", "attribute", "start");
        Func<Value, Value> get = Getter(rt, given[0] ?? NoneValue.Instance, null);
        Value sum = given[1] ?? IntValue.Of(0);
        if (sum is Text)
        {
            throw rt.Fail("sum does not join strings: use join");
        }

        foreach (Value item in rt.Iterate(value))
        {
            sum = Operators.Apply(rt, "+", sum, get(item));
        }

        return sum;
    }

    private static IEnumerable<Value> Mapped(Runtime rt, Value value, Arguments arguments)
    {
        if (!value.Truthy)
        {
            yield break;
        }

        Func<Value, Value> map;
        if (arguments.Positional.Length == 0)
        {
            Value?[] given = arguments.Bind(rt, "map", "attribute", "default");
            map = Getter(rt, given[0] ?? throw rt.Fail("map needs a filter's name or an attribute"), given[1]);
        }
        else
        {
            string name = rt.TextOf(arguments.Positional[0], "a filter's name").S;
            Filter filter = Filters.Find(name) ?? throw rt.Fail($"there is no filter '{name}'");
            Arguments rest = arguments.Skip(1);
            map = item => filter(rt, item, rest);
        }

        foreach (Value item in rt.Iterate(value))
        {
            yield return map(item);
        }
    }

    private static IEnumerable<Value> Selected(Runtime rt, Value value, Arguments arguments, bool byAttribute, bool wanted)
    {
        if (!value.Truthy)
        {
            yield break;
        }

        if (byAttribute && arguments.Positional.Length == 0)
        {
            throw rt.Fail("this filter needs an attribute's name");
        }

        Func<Value, Value> get = byAttribute ? Getter(rt, arguments.Positional[0], null) : item => item;
        int skip = byAttribute ? 1 : 0;
        Func<Value, bool> holds = item => item.Truthy;
        if (arguments.Positional.Length > skip)
        {
            string name = rt.TextOf(arguments.Positional[skip], "a test's name").S;
            Test test = Tests.Find(name) ?? throw rt.Fail($"there is no test '{name}'");
            Arguments rest = arguments.Skip(skip + 1);
            holds = item => test(rt, item, rest);
        }

        foreach (Value item in rt.Iterate(value))
        {
            if (holds(get(item)) == wanted)
            {
                yield return item;
            }
        }
    }

    private static Value Folded(Runtime rt, Value value, bool exact) => value is Text text && !exact ? StringMethods.Mapped(rt, text, PythonText.Lower) : value;

    private static void SortBy(Runtime rt, List<(Value Key, Value Item)> items, bool reverse)
    {
        int sign = reverse ? -1 : 1;
        Sorting.Sort(rt, items, (a, b) => sign * (Operators.Ordered(rt, "<", a.Key, b.Key) ?? 0));
    }
}
