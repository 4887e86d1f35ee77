namespace Sluice.Templates;

/// <summary>The functions that every template sees.</summary>
internal static class Globals
{
    // Jinja's sandbox has the same bound.
    private const long MostRange = 100_000;

    private static readonly Dictionary<string, BuiltIn> All = new BuiltIn[]
    {
        new("range", Range),
        new("dict", (rt, a) => Fill(rt, new DictValue(rt), a)),
        new("namespace", Namespace),
        new("cycler", (rt, a) => a.Positional.Length > 0 ? new CyclerValue(a.Positional) : throw rt.Fail("cycler() needs items")),
        new("joiner", Joiner),
        new("raise_exception", (rt, a) => throw rt.Raised(Printer.ToText(rt, a.Bind(rt, "raise_exception", "message")[0] ?? throw rt.Fail("raise_exception() needs a message")).S)),
        new("strftime_now", (rt, a) => Strftime.Format(rt, rt.TextOf(a.Bind(rt, "strftime_now", "format")[0] ?? NoneValue.Instance, "a time's format"), rt.Input.Now ?? rt.Input.Clock.GetLocalNow())),
    }.ToDictionary(f => f.Name);

    public static Value? Find(string name) => All.GetValueOrDefault(name);

    private static RangeValue Range(Runtime rt, Arguments arguments)
    {
        long[] given = [.. arguments.Positional.Select(v => rt.IntOf(v, "range()"))];
        if (arguments.Named is not null || given.Length is 0 or > 3)
        {
            throw rt.Fail("range() takes one to three integers");
        }

        (long start, long stop, long step) = given.Length == 1 ? (0, given[0], 1L) : (given[0], given[1], given.Length == 3 ? given[2] : 1);
        if (step == 0)
        {
            throw rt.Fail("range() cannot go in steps of 0");
        }

        Int128 span = step > 0 ? (Int128)stop - start : (Int128)start - stop;
        Int128 count = span <= 0 ? 0 : ((span - 1) / Int128.Abs(step)) + 1;
        return count <= MostRange ? new RangeValue(start, step, (int)count) : throw rt.Fail($"range() gives at most {MostRange} numbers");
    }

    private static DictValue Fill(Runtime rt, DictValue dict, Arguments arguments)
    {
        if (arguments.Positional.Length > 1)
        {
            throw rt.Fail("dict() takes one value and keywords");
        }

        foreach (Value from in arguments.Positional)
        {
            if (from is DictValue other)
            {
                foreach ((Value key, Value value) in other.Entries)
                {
                    dict.Set(key, value);
                }

                continue;
            }

            foreach (Value pair in rt.Iterate(from))
            {
                List<Value> two = rt.ListOf(pair);
                dict.Set(two.Count == 2 ? two[0] : throw rt.Fail("dict() needs pairs"), two[1]);
            }
        }

        foreach ((string name, Value value) in arguments.Named ?? [])
        {
            dict.Set(Text.Trusted(name), value);
        }

        return dict;
    }

    private static NamespaceValue Namespace(Runtime rt, Arguments arguments)
    {
        NamespaceValue ns = new();
        foreach ((Value key, Value value) in Fill(rt, new DictValue(rt), arguments).Entries)
        {
            ns.Set(rt.TextOf(key, "a namespace's name").S, value);
        }

        return ns;
    }

    private static BuiltIn Joiner(Runtime rt, Arguments arguments)
    {
        Value between = arguments.Bind(rt, "joiner", "sep")[0] ?? Text.Trusted(", ");
        bool used = false;
        return new BuiltIn("joiner", (_, _) =>
        {
            Value now = used ? between : Text.Empty;
            used = true;
            return now;
        });
    }
}
