namespace Sluice.Templates;

/// <summary><c>{% for target in items if condition recursive %}...{% else %}...{% endfor %}</c>.</summary>
internal sealed class For(Target target, Expression items, Expression? condition, Body body, Body? otherwise, bool recursive) : Statement
{
    public override Flow Execute(Runtime rt, Scope scope, TextBuilder output)
    {
        Value over = items.Evaluate(rt, scope);
        rt.Line = Line;
        return Run(rt, scope, output, over, 0);
    }

    /// <summary>One run over some items, <paramref name="depth"/> loops of the same kind around it.</summary>
    public Flow Run(Runtime rt, Scope scope, TextBuilder output, Value over, int depth)
    {
        if (!Runtime.IsIterable(over))
        {
            throw rt.Fail($"'{over.TypeName}' is not iterable");
        }

        IEnumerable<Value> values = rt.Iterate(over);
        LoopValue loop = new((condition is null ? values : Filtered(rt, scope, values)).GetEnumerator(), condition is null ? over.Length : -1, depth)
        {
            Recurse = recursive ? inner => Recurse(rt, scope, inner, depth + 1) : null,
        };
        bool any = false;
        while (loop.Advance())
        {
            any = true;
            rt.Step();
            Scope inner = new(scope);
            inner.Set("loop", loop);
            target.Assign(rt, inner, loop.Current);
            if (body.Execute(rt, inner, output) == Flow.Break)
            {
                break;
            }
        }

        if (!any && otherwise is not null)
        {
            return otherwise.Execute(rt, new Scope(scope), output);
        }

        return Flow.Next;
    }

    private Text Recurse(Runtime rt, Scope scope, Value over, int depth)
    {
        rt.EnterCall();
        TextBuilder output = new(rt);
        Run(rt, scope, output, over, depth);
        rt.LeaveCall();
        return output.ToText();
    }

    private IEnumerable<Value> Filtered(Runtime rt, Scope scope, IEnumerable<Value> values)
    {
        foreach (Value value in values)
        {
            Scope inner = new(scope);
            target.Assign(rt, inner, value);
            if (condition!.Evaluate(rt, inner).Truthy)
            {
                yield return value;
            }
        }
    }
}

/// <summary><c>loop</c>: where a loop stands. It looks ahead only when it is asked for what comes.</summary>
internal sealed class LoopValue(IEnumerator<Value> items, int known, int depth) : CallableValue
{
    private static readonly UndefinedValue NoPrevious = new("there is no previous item");
    private static readonly UndefinedValue NoNext = new("there is no next item");

    private readonly Queue<Value> _ahead = new();
    private int _index = -1;
    private int _length = known;
    private Value? _previous;
    private Value? _changed;

    public override string TypeName => "LoopContext";

    public Value Current { get; private set; } = NoPrevious;

    /// <summary>Runs the loop once more over other items; null where the loop is not recursive.</summary>
    public Func<Value, Text>? Recurse { get; init; }

    public override int Length
    {
        get
        {
            if (_length < 0)
            {
                while (items.MoveNext())
                {
                    _ahead.Enqueue(items.Current);
                }

                _length = _index + 1 + _ahead.Count;
            }

            return _length;
        }
    }

    public override bool Truthy => Length > 0;

    public bool Advance()
    {
        if (!Peek())
        {
            return false;
        }

        _index++;
        _previous = _index == 0 ? null : Current;
        Current = _ahead.Dequeue();
        return true;
    }

    public override Value Call(Runtime rt, Arguments arguments)
    {
        Value over = arguments.Bind(rt, "loop", "iterable")[0] ?? throw rt.Fail("loop() needs what to go over");
        return Recurse is null ? throw rt.Fail("this loop is not marked 'recursive', so it cannot be called") : Recurse(over);
    }

    /// <summary>An attribute, or null where there is none of that name.</summary>
    public Value? Get(string name) => name switch
    {
        "index" => IntValue.Of(_index + 1),
        "index0" => IntValue.Of(_index),
        "first" => BoolValue.Of(_index == 0),
        "last" => BoolValue.Of(!Peek()),
        "length" => IntValue.Of(Length),
        "revindex" => IntValue.Of(Length - _index),
        "revindex0" => IntValue.Of(Length - _index - 1),
        "previtem" => _previous ?? NoPrevious,
        "nextitem" => Peek() ? _ahead.Peek() : NoNext,
        "depth" => IntValue.Of(depth + 1),
        "depth0" => IntValue.Of(depth),
        "cycle" => new BuiltIn("cycle", (rt, a) => a.Positional.Length > 0 ? a.Positional[_index % a.Positional.Length] : throw rt.Fail("cycle() needs items")),
        "changed" => new BuiltIn("changed", Changed),
        _ => null,
    };

    private bool Peek()
    {
        if (_ahead.Count == 0 && items.MoveNext())
        {
            _ahead.Enqueue(items.Current);
        }

        return _ahead.Count > 0;
    }

    private BoolValue Changed(Runtime rt, Arguments arguments)
    {
        ListValue now = new([.. arguments.Positional], true);
        bool changed = _changed is null || !rt.Equality.Equals(_changed, now);
        _changed = now;
        return BoolValue.Of(changed);
    }
}

/// <summary>A macro's name, parameters and body.</summary>
internal sealed record MacroShape(string Name, List<(string Name, Expression? Default)> Parameters, Body Body, HashSet<string> Uses);

/// <summary>A macro, and the names that it sees.</summary>
internal sealed class MacroValue(MacroShape shape, Scope around) : CallableValue
{
    public override string TypeName => "Macro";

    public Value? Get(string name) => name switch
    {
        "name" => Text.Trusted(shape.Name),
        "arguments" => ListValue.Tuple([.. shape.Parameters.Select(p => Text.Trusted(p.Name))]),
        "catch_kwargs" => BoolValue.Of(shape.Uses.Contains("kwargs")),
        "catch_varargs" => BoolValue.Of(shape.Uses.Contains("varargs")),
        "caller" => BoolValue.Of(shape.Uses.Contains("caller")),
        _ => null,
    };

    public override Value Call(Runtime rt, Arguments arguments)
    {
        rt.EnterCall();
        Scope scope = new(around);
        Value?[] values = new Value?[shape.Parameters.Count];
        int given = Math.Min(arguments.Positional.Length, values.Length);
        Array.Copy(arguments.Positional, values, given);
        Dictionary<string, Value> rest = BindNamed(rt, arguments, values);
        if (shape.Uses.Contains("caller") && shape.Parameters.All(p => p.Name != "caller"))
        {
            scope.Set("caller", rest.Remove("caller", out Value? caller) ? caller : new UndefinedValue("no caller defined"));
        }

        BindRest(rt, scope, arguments, given, rest);
        for (int i = 0; i < values.Length; i++)
        {
            (string name, Expression? standard) = shape.Parameters[i];
            scope.Set(name, values[i] ?? standard?.Evaluate(rt, scope) ?? new UndefinedValue($"parameter '{name}' was not provided"));
        }

        int line = rt.Line;
        Text text = shape.Body.Capture(rt, scope);
        rt.Line = line;
        rt.LeaveCall();
        return text;
    }

    private Dictionary<string, Value> BindNamed(Runtime rt, Arguments arguments, Value?[] values)
    {
        Dictionary<string, Value> rest = [];
        foreach ((string name, Value value) in arguments.Named ?? [])
        {
            int at = shape.Parameters.FindIndex(p => p.Name == name);
            if (at >= 0 ? values[at] is not null : !rest.TryAdd(name, value))
            {
                throw rt.Fail($"macro '{shape.Name}' is given '{name}' twice");
            }

            if (at >= 0)
            {
                values[at] = value;
            }
        }

        return rest;
    }

    private void BindRest(Runtime rt, Scope scope, Arguments arguments, int given, Dictionary<string, Value> rest)
    {
        if (shape.Uses.Contains("kwargs"))
        {
            DictValue named = new(rt);
            foreach ((string name, Value value) in rest)
            {
                named.Set(Text.Trusted(name), value);
            }

            scope.Set("kwargs", named);
        }
        else if (rest.Count > 0)
        {
            throw rt.Fail($"macro '{shape.Name}' takes no keyword argument '{rest.First().Key}'");
        }

        if (shape.Uses.Contains("varargs"))
        {
            scope.Set("varargs", new ListValue([.. arguments.Positional[given..]], true));
        }
        else if (arguments.Positional.Length > given)
        {
            throw rt.Fail($"macro '{shape.Name}' takes at most {shape.Parameters.Count} arguments, and {arguments.Positional.Length} are given");
        }
    }
}
