namespace Sluice.Templates;

internal delegate Value Filter(Runtime rt, Value value, Arguments arguments);

/// <summary>What may follow <c>|</c>: Jinja's own filters and <c>tojson</c>.</summary>
internal static class Filters
{
    private static readonly Dictionary<string, Filter> All = new()
    {
        ["abs"] = (rt, v, _) => v is FloatValue f ? new FloatValue(Math.Abs(f.Value)) : rt.IntOf(v, "abs") is var i && i < 0 ? Operators.Sign(rt, v, true) : IntValue.Of(i),
        ["attr"] = Attribute,
        ["batch"] = SequenceFilters.Batch,
        ["capitalize"] = (rt, v, _) => StringMethods.Mapped(rt, Printer.ToText(rt, v), PythonText.Capitalize),
        ["center"] = TextFilters.Center,
        ["count"] = Length,
        ["d"] = Default,
        ["default"] = Default,
        ["dictsort"] = SequenceFilters.DictSort,
        ["e"] = (rt, v, _) => TextFilters.Escape(rt, v),
        ["escape"] = (rt, v, _) => TextFilters.Escape(rt, v),
        ["first"] = (rt, v, _) => First(rt, v),
        ["float"] = (rt, v, a) => ToFloat(rt, v, a.Bind(rt, "float", "default")[0]),
        ["forceescape"] = (rt, v, _) => TextFilters.Escape(rt, Printer.ToText(rt, v).As(false)),
        ["format"] = (rt, v, a) => PercentFormat.Apply(rt, Printer.ToText(rt, v), a.Named is null ? new ListValue([.. a.Positional], true) : SequenceFilters.DictOf(rt, a)),
        ["groupby"] = SequenceFilters.GroupBy,
        ["indent"] = TextFilters.Indent,
        ["int"] = ToInt,
        ["items"] = Items,
        ["join"] = Join,
        ["last"] = Last,
        ["length"] = Length,
        ["list"] = (rt, v, _) => new ListValue(rt.ListOf(v)),
        ["lower"] = (rt, v, _) => StringMethods.Mapped(rt, Printer.ToText(rt, v), PythonText.Lower),
        ["map"] = SequenceFilters.Map,
        ["max"] = (rt, v, a) => SequenceFilters.Extreme(rt, v, a, 1),
        ["min"] = (rt, v, a) => SequenceFilters.Extreme(rt, v, a, -1),
        ["pprint"] = (rt, v, _) => Printer.Repr(rt, v),
        ["random"] = (rt, _, _) => throw rt.Fail("a prompt is the same each time: 'random' is not supported"),
        ["reject"] = (rt, v, a) => SequenceFilters.Select(rt, v, a, false, false),
        ["rejectattr"] = (rt, v, a) => SequenceFilters.Select(rt, v, a, true, false),
        ["replace"] = (rt, v, a) =>
        {
            Value?[] given = a.Bind(rt, "replace", "old", "new", "count");
            return StringMethods.Replace(rt, Printer.ToText(rt, v).As(false), Printer.ToText(rt, Need(rt, given[0])), Printer.ToText(rt, Need(rt, given[1])), given[2] is null or NoneValue ? -1 : rt.IntOf(given[2]!, "a count"));
        },
        ["reverse"] = Reverse,
        ["round"] = Round,
        ["safe"] = (rt, v, _) => Printer.ToText(rt, v).As(true),
        ["select"] = (rt, v, a) => SequenceFilters.Select(rt, v, a, false, true),
        ["selectattr"] = (rt, v, a) => SequenceFilters.Select(rt, v, a, true, true),
        ["slice"] = SequenceFilters.Slice,
        ["sort"] = SequenceFilters.Sort,
        ["string"] = (rt, v, _) => Printer.ToText(rt, v),
        ["striptags"] = TextFilters.StripTags,
        ["sum"] = SequenceFilters.Sum,
        ["title"] = TextFilters.Title,
        ["tojson"] = JsonText.Filter,
        ["trim"] = (rt, v, a) => StringMethods.Strip(rt, Printer.ToText(rt, v), a.Bind(rt, "trim", "chars")[0] is null or NoneValue ? null : rt.TextOf(a.Bind(rt, "trim", "chars")[0]!, "what is trimmed").S, true, true),
        ["truncate"] = TextFilters.Truncate,
        ["unique"] = SequenceFilters.Unique,
        ["upper"] = (rt, v, _) => StringMethods.Mapped(rt, Printer.ToText(rt, v), PythonText.Upper),
        ["urlencode"] = TextFilters.UrlEncode,
        ["wordcount"] = TextFilters.WordCount,
        ["wordwrap"] = TextFilters.WordWrap,
    };

    public static Filter? Find(string name) => All.GetValueOrDefault(name);

    /// <summary>An argument that must be there.</summary>
    public static Value Need(Runtime rt, Value? argument) => argument ?? throw rt.Fail("this filter needs an argument");

    private static Value Attribute(Runtime rt, Value value, Arguments arguments)
    {
        string name = Printer.ToText(rt, Need(rt, arguments.Bind(rt, "attr", "name")[0])).S;
        return value is UndefinedValue u ? throw rt.Undefined(u) : Members.Attribute(rt, value, name) ?? new UndefinedValue($"'{value.TypeName} object' has no attribute '{name}'");
    }

    private static IntValue Length(Runtime rt, Value value, Arguments arguments)
    {
        rt.Scan(value is Text text ? text.S.Length : 0);
        return value.Length >= 0 ? IntValue.Of(value.Length) : throw rt.Fail($"a '{value.TypeName}' has no length");
    }

    private static Value Default(Runtime rt, Value value, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "default", "default_value", "boolean");
        return value is UndefinedValue || (given[1] is { Truthy: true } && !value.Truthy) ? given[0] ?? Text.Empty : value;
    }

    private static Value First(Runtime rt, Value value)
    {
        foreach (Value item in rt.Iterate(value))
        {
            return item;
        }

        return new UndefinedValue("no first item, sequence was empty");
    }

    private static Value Last(Runtime rt, Value value, Arguments arguments) => value switch
    {
        GeneratorValue or LoopValue => throw rt.Fail($"a '{value.TypeName}' cannot be reversed"),
        _ when !Runtime.IsIterable(value) => throw rt.WrongType("last needs a sequence", value),
        UndefinedValue u => throw rt.Undefined(u),
        { Length: 0 } => new UndefinedValue("no last item, sequence was empty"),
        ViewValue view => view.At(view.Length - 1),
        DictValue dict => dict.Entries[^1].Key,
        _ => Members.GetItem(rt, value, IntValue.Of(-1)),
    };

    private static GeneratorValue Items(Runtime rt, Value value, Arguments arguments) => value switch
    {
        UndefinedValue => Runtime.Generate([]),
        DictValue dict => Runtime.Generate(rt.Iterate(new ViewValue(dict, 'i'))),
        _ => throw rt.Fail("items can only be had from a mapping"),
    };

    private static Text Join(Runtime rt, Value value, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "join", "d", "attribute");
        IEnumerable<Value> items = rt.Iterate(value);
        if (given[1] is { } attribute and not NoneValue)
        {
            Func<Value, Value> get = SequenceFilters.Getter(rt, attribute, null);
            items = items.Select(get);
        }

        return StringMethods.Join(rt, given[0] is { } between ? Printer.ToText(rt, between) : Text.Empty, items, false);
    }

    private static Value Reverse(Runtime rt, Value value, Arguments arguments)
    {
        if (value is Text)
        {
            return Slices.Take(rt, value, null, null, IntValue.Of(-1));
        }

        List<Value> items = rt.ListOf(value);
        items.Reverse();
        return value is GeneratorValue ? new ListValue(items) : Runtime.Generate(rt.Iterate(new ListValue(items)));
    }

    private static Value Round(Runtime rt, Value value, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "round", "precision", "method");
        int decimals = given[0] is { } p ? rt.SmallIntOf(p, "a precision") : 0;
        string method = given[1] is { } m ? rt.TextOf(m, "a rounding method").S : "common";
        double number = Operators.Number(value) ?? throw rt.WrongType("round needs a number", value);
        switch (method)
        {
            case "common":
                // Python's round of an integer is one.
                return value is FloatValue ? new FloatValue(Numbers.Round(number, decimals)) : decimals >= 0 ? IntValue.Of(Operators.Integer(value)!.Value) : IntValue.Of((long)Numbers.Round(number, decimals));
            case "ceil" or "floor":
                double scale = Math.Pow(10, decimals);
                double rounded = method == "ceil" ? Math.Ceiling(number * scale) : Math.Floor(number * scale);
                return new FloatValue(rounded / scale);
            default:
                throw rt.Fail("a rounding method is common, ceil or floor");
        }
    }

    private static Value ToInt(Runtime rt, Value value, Arguments arguments)
    {
        Value?[] given = arguments.Bind(rt, "int", "default", "base");
        Value standard = given[0] ?? IntValue.Of(0);
        switch (value)
        {
            case UndefinedValue u:
                throw rt.Undefined(u);
            case Text text:
                rt.Scan(text.S.Length);
                if (Numbers.ParseInt(text.S, given[1] is { } b ? rt.SmallIntOf(b, "a base") : 10) is { } whole)
                {
                    return IntValue.Of(whole);
                }

                return Numbers.ParseFloat(text.S) is { } d && Math.Abs(d) < 9e18 ? IntValue.Of((long)d) : standard;
            case FloatValue f:
                return double.IsNaN(f.Value) ? standard : Math.Abs(f.Value) < 9e18 ? IntValue.Of((long)f.Value) : throw rt.Fail("this integer leaves 64 bits");
            case BigValue:
                return value;
            default:
                return Operators.Integer(value) is { } i ? IntValue.Of(i) : standard;
        }
    }

    private static Value ToFloat(Runtime rt, Value value, Value? standard) => value switch
    {
        UndefinedValue u => throw rt.Undefined(u),
        _ when Operators.Number(value) is { } number => new FloatValue(number),
        Text text when Numbers.ParseFloat(text.S) is { } number => new FloatValue(number),
        _ => standard ?? new FloatValue(0),
    };
}
