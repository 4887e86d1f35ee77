namespace Sluice.Templates;

/// <summary>How a statement ended.</summary>
internal enum Flow
{
    Next,
    Break,
    Continue,
}

/// <summary>A node that writes or sets something.</summary>
internal abstract class Statement
{
    public required int Line { get; init; }

    public abstract Flow Execute(Runtime rt, Scope scope, TextBuilder output);
}

/// <summary>Statements one after another.</summary>
internal sealed class Body
{
    private readonly Statement[] _statements;

    public Body(List<Statement> statements) => _statements = [.. statements];

    public Flow Execute(Runtime rt, Scope scope, TextBuilder output)
    {
        foreach (Statement statement in _statements)
        {
            rt.Step();
            rt.Line = statement.Line;
            Flow flow = statement.Execute(rt, scope, output);
            if (flow != Flow.Next)
            {
                return flow;
            }
        }

        return Flow.Next;
    }

    /// <summary>Runs them and gives what they write.</summary>
    public Text Capture(Runtime rt, Scope scope)
    {
        TextBuilder output = new(rt);
        Execute(rt, scope, output);
        return output.ToText();
    }
}

internal sealed class WriteText(string text) : Statement
{
    public override Flow Execute(Runtime rt, Scope scope, TextBuilder output)
    {
        output.Append(text);
        return Flow.Next;
    }
}

/// <summary><c>{{ value }}</c>.</summary>
internal sealed class Print(Expression value) : Statement
{
    public override Flow Execute(Runtime rt, Scope scope, TextBuilder output)
    {
        Printer.Print(rt, value.Evaluate(rt, scope), output);
        return Flow.Next;
    }
}

internal sealed class If(List<(Expression? Condition, Body Body)> branches) : Statement
{
    public override Flow Execute(Runtime rt, Scope scope, TextBuilder output)
    {
        foreach ((Expression? condition, Body body) in branches)
        {
            if (condition is null || condition.Evaluate(rt, scope).Truthy)
            {
                return body.Execute(rt, scope, output);
            }
        }

        return Flow.Next;
    }
}

internal sealed class BreakOrContinue(Flow flow) : Statement
{
    public override Flow Execute(Runtime rt, Scope scope, TextBuilder output) => flow;
}

/// <summary><c>{% set target = value %}</c>.</summary>
internal sealed class Set(Target target, Expression value) : Statement
{
    public override Flow Execute(Runtime rt, Scope scope, TextBuilder output)
    {
        target.Assign(rt, scope, value.Evaluate(rt, scope));
        return Flow.Next;
    }
}

/// <summary><c>{% set target | filter %}...{% endset %}</c>.</summary>
internal sealed class SetBlock(Target target, FilterCall? filter, Body body) : Statement
{
    public override Flow Execute(Runtime rt, Scope scope, TextBuilder output)
    {
        Value value = body.Capture(rt, new Scope(scope));
        target.Assign(rt, scope, filter is null ? value : filter.Apply(rt, scope, value));
        return Flow.Next;
    }
}

/// <summary>Statements whose names end with them: <c>with</c>, <c>block</c>, <c>autoescape false</c>, <c>generation</c>.</summary>
internal sealed class With(List<(Target Target, Expression Value)> names, Body body) : Statement
{
    public override Flow Execute(Runtime rt, Scope scope, TextBuilder output)
    {
        Scope inner = new(scope);
        foreach ((Target target, Expression value) in names)
        {
            target.Assign(rt, inner, value.Evaluate(rt, scope));
        }

        return body.Execute(rt, inner, output);
    }
}

/// <summary><c>{% filter name %}...{% endfilter %}</c>.</summary>
internal sealed class FilterBlock(FilterCall filter, Body body) : Statement
{
    public override Flow Execute(Runtime rt, Scope scope, TextBuilder output)
    {
        Printer.Print(rt, filter.Apply(rt, scope, body.Capture(rt, new Scope(scope))), output);
        return Flow.Next;
    }
}

/// <summary><c>{% macro name(parameters) %}</c>.</summary>
internal sealed class MacroDefinition(MacroShape shape) : Statement
{
    public override Flow Execute(Runtime rt, Scope scope, TextBuilder output)
    {
        scope.Set(shape.Name, new MacroValue(shape, scope));
        return Flow.Next;
    }
}

/// <summary><c>{% call(parameters) macro(...) %}...{% endcall %}</c>: the body is the macro's <c>caller</c>.</summary>
internal sealed class CallBlock(Call call, MacroShape body) : Statement
{
    public override Flow Execute(Runtime rt, Scope scope, TextBuilder output)
    {
        Printer.Print(rt, call.Invoke(rt, scope, new MacroValue(body, scope)), output);
        return Flow.Next;
    }
}

/// <summary>Where a value goes: a name, several names, or an attribute of a namespace.</summary>
internal sealed class Target
{
    private readonly string _name = "";
    private readonly string? _attribute;
    private readonly List<Target>? _parts;

    public Target(string name, string? attribute = null) => (_name, _attribute) = (name, attribute);

    public Target(List<Target> parts) => _parts = parts;

    public void Assign(Runtime rt, Scope scope, Value value)
    {
        rt.Step();
        if (_parts is null)
        {
            AssignName(rt, scope, value);
            return;
        }

        List<Value> items = rt.ListOf(value);
        if (items.Count != _parts.Count)
        {
            throw rt.Fail($"{items.Count} values cannot be given to {_parts.Count} names");
        }

        for (int i = 0; i < items.Count; i++)
        {
            _parts[i].Assign(rt, scope, items[i]);
        }
    }

    private void AssignName(Runtime rt, Scope scope, Value value)
    {
        if (_attribute is null)
        {
            scope.Set(_name, value);
        }
        else if (scope.Find(_name) is NamespaceValue ns)
        {
            ns.Set(_attribute, value);
        }
        else
        {
            throw rt.Fail($"'{_name}.{_attribute}' cannot be set: '{_name}' is no namespace");
        }
    }
}
