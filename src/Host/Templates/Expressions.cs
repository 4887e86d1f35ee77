namespace Sluice.Templates;

/// <summary>A node that has a value.</summary>
internal abstract class Expression
{
    /// <summary>The line it begins on.</summary>
    public required int Line { get; init; }

    /// <summary>The longest way down from here: deep trees are refused when they are parsed.</summary>
    public int Depth { get; set; } = 1;

    public abstract Value Evaluate(Runtime rt, Scope scope);
}

internal sealed class Literal(Value value) : Expression
{
    public Value Value { get; } = value;

    public override Value Evaluate(Runtime rt, Scope scope)
    {
        rt.Step();
        return Value;
    }
}

internal sealed class Name(string id) : Expression
{
    private readonly UndefinedValue _missing = new($"'{id}' is undefined");

    public string Id { get; } = id;

    public override Value Evaluate(Runtime rt, Scope scope)
    {
        rt.Step();
        return scope.Find(Id) ?? Globals.Find(Id) ?? _missing;
    }
}

/// <summary><c>[a, b]</c>, or <c>(a, b)</c>.</summary>
internal sealed class Sequence(List<Expression> items, bool tuple) : Expression
{
    public List<Expression> Items { get; } = items;

    public bool IsTuple { get; } = tuple;

    public override Value Evaluate(Runtime rt, Scope scope)
    {
        rt.Step();
        List<Value> values = new(Items.Count);
        foreach (Expression item in Items)
        {
            values.Add(item.Evaluate(rt, scope));
        }

        return new ListValue(values, IsTuple);
    }
}

internal sealed class Mapping(List<(Expression Key, Expression Value)> entries) : Expression
{
    public override Value Evaluate(Runtime rt, Scope scope)
    {
        rt.Step();
        DictValue dict = new(rt);
        foreach ((Expression key, Expression value) in entries)
        {
            Value k = key.Evaluate(rt, scope);
            dict.Set(k, value.Evaluate(rt, scope));
        }

        return dict;
    }
}

/// <summary><c>a.name</c>: an attribute first, then a key.</summary>
internal sealed class AttributeOf(Expression target, string name) : Expression
{
    public override Value Evaluate(Runtime rt, Scope scope)
    {
        rt.Step();
        Value value = target.Evaluate(rt, scope);
        rt.Line = Line;
        return Members.GetAttribute(rt, value, name);
    }
}

/// <summary><c>a[index]</c>: a key first, then an attribute.</summary>
internal sealed class ItemOf(Expression target, Expression index) : Expression
{
    public override Value Evaluate(Runtime rt, Scope scope)
    {
        rt.Step();
        Value value = target.Evaluate(rt, scope);
        Value key = index.Evaluate(rt, scope);
        rt.Line = Line;
        return Members.GetItem(rt, value, key);
    }
}

/// <summary><c>a[from:to:step]</c>.</summary>
internal sealed class SliceOf(Expression target, Expression? from, Expression? to, Expression? step) : Expression
{
    public override Value Evaluate(Runtime rt, Scope scope)
    {
        rt.Step();
        Value value = target.Evaluate(rt, scope);
        Value? first = from?.Evaluate(rt, scope), last = to?.Evaluate(rt, scope), by = step?.Evaluate(rt, scope);
        rt.Line = Line;
        return Slices.Take(rt, value, first, last, by);
    }
}

/// <summary>The arguments of a call as they are written.</summary>
internal sealed class ArgumentList
{
    public static readonly ArgumentList None = new();

    public List<Expression> Positional { get; } = [];

    public List<(string Name, Expression Value)> Named { get; } = [];

    public Expression? Rest { get; set; }

    public Expression? NamedRest { get; set; }

    public IEnumerable<Expression?> All => [.. Positional, .. Named.Select(n => n.Value), Rest, NamedRest];

    public Arguments Evaluate(Runtime rt, Scope scope, Value? caller = null)
    {
        if (caller is null && Positional.Count == 0 && Named.Count == 0 && Rest is null && NamedRest is null)
        {
            return Arguments.None;
        }

        List<Value> positional = new(Positional.Count);
        foreach (Expression e in Positional)
        {
            positional.Add(e.Evaluate(rt, scope));
        }

        List<KeyValuePair<string, Value>>? named = null;
        foreach ((string name, Expression e) in Named)
        {
            (named ??= []).Add(new(name, e.Evaluate(rt, scope)));
        }

        if (caller is not null)
        {
            (named ??= []).Add(new("caller", caller));
        }

        if (Rest is not null)
        {
            positional.AddRange(rt.Iterate(Rest.Evaluate(rt, scope)));
        }

        if (NamedRest is not null)
        {
            Value rest = NamedRest.Evaluate(rt, scope);
            foreach ((Value key, Value value) in (rest as DictValue ?? throw rt.WrongType("what follows ** must be a dict", rest)).Entries)
            {
                rt.Step();
                (named ??= []).Add(new(rt.TextOf(key, "a keyword").S, value));
            }
        }

        return new Arguments([.. positional], named);
    }
}

internal sealed class Call(Expression target, ArgumentList arguments) : Expression
{
    public override Value Evaluate(Runtime rt, Scope scope) => Invoke(rt, scope, null);

    /// <summary>Calls with a call block's body as <c>caller</c>.</summary>
    public Value Invoke(Runtime rt, Scope scope, Value? caller)
    {
        rt.Step();
        Value function = target.Evaluate(rt, scope);
        Arguments given = arguments.Evaluate(rt, scope, caller);
        rt.Line = Line;
        return Members.Call(rt, function, given);
    }
}

/// <summary><c>value | name(arguments)</c>. Without a value it filters the output of a block.</summary>
internal sealed class FilterCall(Expression? input, string name, ArgumentList arguments) : Expression
{
    private readonly Filter? _filter = Filters.Find(name);

    public override Value Evaluate(Runtime rt, Scope scope) => Apply(rt, scope, Text.Empty);

    /// <summary>Applies the filters to what a block wrote.</summary>
    public Value Apply(Runtime rt, Scope scope, Value written)
    {
        rt.Step();
        Value value = input switch { null => written, FilterCall inner => inner.Apply(rt, scope, written), _ => input.Evaluate(rt, scope) };
        Arguments given = arguments.Evaluate(rt, scope);
        rt.Line = Line;
        return (_filter ?? throw rt.Fail($"there is no filter '{name}'"))(rt, value, given);
    }
}

/// <summary><c>value is name arguments</c>.</summary>
internal sealed class TestCall(Expression input, string name, ArgumentList arguments) : Expression
{
    private readonly Test? _test = Tests.Find(name);

    public override Value Evaluate(Runtime rt, Scope scope)
    {
        rt.Step();
        Value value = input.Evaluate(rt, scope);
        Arguments given = arguments.Evaluate(rt, scope);
        rt.Line = Line;
        return BoolValue.Of((_test ?? throw rt.Fail($"there is no test '{name}'"))(rt, value, given));
    }
}

internal sealed class Not(Expression operand) : Expression
{
    public override Value Evaluate(Runtime rt, Scope scope)
    {
        rt.Step();
        return BoolValue.Of(!operand.Evaluate(rt, scope).Truthy);
    }
}

/// <summary><c>-a</c>, <c>+a</c>.</summary>
internal sealed class Signed(Expression operand, bool negative) : Expression
{
    public override Value Evaluate(Runtime rt, Scope scope)
    {
        rt.Step();
        Value value = operand.Evaluate(rt, scope);
        rt.Line = Line;
        return Operators.Sign(rt, value, negative);
    }
}

/// <summary><c>a and b</c>, <c>a or b</c>: one of the operands, the second only if it must be.</summary>
internal sealed class Junction(Expression left, Expression right, bool both) : Expression
{
    public override Value Evaluate(Runtime rt, Scope scope)
    {
        rt.Step();
        Value value = left.Evaluate(rt, scope);
        return value.Truthy == both ? right.Evaluate(rt, scope) : value;
    }
}

internal sealed class Binary(string op, Expression left, Expression right) : Expression
{
    public override Value Evaluate(Runtime rt, Scope scope)
    {
        rt.Step();
        Value a = left.Evaluate(rt, scope);
        Value b = right.Evaluate(rt, scope);
        rt.Line = Line;
        return Operators.Apply(rt, op, a, b);
    }
}

/// <summary><c>a ~ b ~ c</c>: their texts, one after another.</summary>
internal sealed class Concatenation(List<Expression> parts) : Expression
{
    public override Value Evaluate(Runtime rt, Scope scope)
    {
        rt.Step();
        TextBuilder text = new(rt);
        foreach (Expression part in parts)
        {
            Printer.Print(rt, part.Evaluate(rt, scope), text);
        }

        return text.ToText();
    }
}

/// <summary><c>a &lt; b &lt;= c</c>, <c>in</c>, <c>not in</c>: each operand once, and no further than the first that does not hold.</summary>
internal sealed class Comparison(Expression first, List<(string Op, Expression Operand)> rest) : Expression
{
    public override Value Evaluate(Runtime rt, Scope scope)
    {
        rt.Step();
        Value left = first.Evaluate(rt, scope);
        foreach ((string op, Expression operand) in rest)
        {
            Value right = operand.Evaluate(rt, scope);
            rt.Line = Line;
            if (!Operators.Compare(rt, op, left, right))
            {
                return BoolValue.False;
            }

            left = right;
        }

        return BoolValue.True;
    }
}

/// <summary><c>a if condition else b</c>.</summary>
internal sealed class Conditional(Expression condition, Expression then, Expression? otherwise) : Expression
{
    private static readonly UndefinedValue NoElse = new("the inline if-expression evaluated to false and no else section was defined");

    public override Value Evaluate(Runtime rt, Scope scope)
    {
        rt.Step();
        return condition.Evaluate(rt, scope).Truthy ? then.Evaluate(rt, scope) : otherwise?.Evaluate(rt, scope) ?? NoElse;
    }
}
