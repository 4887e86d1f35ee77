using System.Globalization;

namespace Sluice.Templates;

// The values of a template: Python's, as far as templates can tell. A value that came from messages, tools or variables is data, and
// what it prints is marked so.

/// <summary>A value as templates see it.</summary>
internal abstract class Value
{
    /// <summary>Python's name of the type, for errors.</summary>
    public abstract string TypeName { get; }

    /// <summary>Whether what this prints is data. Containers ask their items.</summary>
    public virtual bool IsData => false;

    /// <summary>Python's <c>bool(x)</c>.</summary>
    public virtual bool Truthy => true;

    /// <summary>Python's <c>len(x)</c>, or -1 where it has none.</summary>
    public virtual int Length => -1;
}

/// <summary>None, JSON's null.</summary>
internal sealed class NoneValue : Value
{
    public static readonly NoneValue Instance = new(false);
    public static readonly NoneValue OfData = new(true);

    private NoneValue(bool data) => IsData = data;

    public override string TypeName => "NoneType";

    public override bool IsData { get; }

    public override bool Truthy => false;
}

/// <summary>What a name, key or index that is not there gives: prints nothing, is empty, and fails when it is used. The text tells why.</summary>
internal sealed class UndefinedValue(string reason) : Value
{
    public string Reason { get; } = reason;

    public override string TypeName => "Undefined";

    public override bool Truthy => false;

    public override int Length => 0;
}

/// <summary>True or False.</summary>
internal sealed class BoolValue : Value
{
    public static readonly BoolValue True = new(true, false);
    public static readonly BoolValue False = new(false, false);
    private static readonly BoolValue DataTrue = new(true, true);
    private static readonly BoolValue DataFalse = new(false, true);

    private BoolValue(bool value, bool data) => (Value, IsData) = (value, data);

    public bool Value { get; }

    public override string TypeName => "bool";

    public override bool IsData { get; }

    public override bool Truthy => Value;

    public static BoolValue Of(bool value) => value ? True : False;

    public static BoolValue OfData(bool value) => value ? DataTrue : DataFalse;
}

/// <summary>An integer of 64 bits; arithmetic that leaves them is an error.</summary>
internal sealed class IntValue : Value
{
    private static readonly IntValue[] Small = [.. Enumerable.Range(-16, 528).Select(i => new IntValue(i, false))];

    private IntValue(long value, bool data) => (Value, IsData) = (value, data);

    public long Value { get; }

    public override string TypeName => "int";

    public override bool IsData { get; }

    public override bool Truthy => Value != 0;

    public static IntValue Of(long value) => value is >= -16 and < 512 ? Small[value + 16] : new IntValue(value, false);

    public static IntValue OfData(long value) => new(value, true);
}

/// <summary>A floating-point number.</summary>
internal sealed class FloatValue(double value, bool data = false) : Value
{
    public double Value { get; } = value;

    public override string TypeName => "float";

    public override bool IsData { get; } = data;

    public override bool Truthy => Value != 0;
}

/// <summary>An integer beyond 64 bits: it can be printed and compared for equality, and no more.</summary>
internal sealed class BigValue(string digits, bool data) : Value
{
    public string Digits { get; } = digits;

    public override string TypeName => "int";

    public override bool IsData { get; } = data;
}

/// <summary>What can be called.</summary>
internal abstract class CallableValue : Value
{
    public override string TypeName => "function";

    public abstract Value Call(Runtime rt, Arguments arguments);
}

/// <summary>A function of Sluice's own: a global, or a method together with its object.</summary>
internal sealed class BuiltIn(string name, Func<Runtime, Arguments, Value> body) : CallableValue
{
    public string Name { get; } = name;

    public override Value Call(Runtime rt, Arguments arguments) => body(rt, arguments);
}

/// <summary><c>namespace(...)</c>: the one thing that a template may change.</summary>
internal sealed class NamespaceValue : Value
{
    private readonly Dictionary<string, Value> _attributes = [];

    public override string TypeName => "Namespace";

    public Value? Get(string name) => _attributes.GetValueOrDefault(name);

    public void Set(string name, Value value) => _attributes[name] = value;
}

/// <summary><c>cycler(...)</c>: gives its items in turn.</summary>
internal sealed class CyclerValue(Value[] items) : Value
{
    private int _at;

    public override string TypeName => "Cycler";

    public Value Current => items[_at];

    public Value Next()
    {
        Value current = items[_at];
        _at = (_at + 1) % items.Length;
        return current;
    }

    public void Reset() => _at = 0;
}

/// <summary>The arguments of a call.</summary>
internal sealed class Arguments(Value[] positional, List<KeyValuePair<string, Value>>? named = null)
{
    public static readonly Arguments None = new([]);

    public Value[] Positional { get; } = positional;

    public List<KeyValuePair<string, Value>>? Named { get; } = named;

    /// <summary>The arguments in the order of a function's parameters; null where one was not given.</summary>
    public Value?[] Bind(Runtime rt, string function, params ReadOnlySpan<string> parameters)
    {
        if (Positional.Length > parameters.Length)
        {
            throw rt.Fail(string.Create(CultureInfo.InvariantCulture, $"{function}() takes at most {parameters.Length} arguments, and {Positional.Length} are given"));
        }

        Value?[] bound = new Value?[parameters.Length];
        Positional.CopyTo(bound, 0);
        foreach ((string name, Value value) in Named ?? [])
        {
            int at = parameters.IndexOf(name);
            if (at < 0 || bound[at] is not null)
            {
                throw rt.Fail(at < 0 ? $"{function}() has no parameter '{name}'" : $"{function}() is given '{name}' twice");
            }

            bound[at] = value;
        }

        return bound;
    }

    /// <summary>These arguments without the first few positional ones.</summary>
    public Arguments Skip(int count) => new(Positional[Math.Min(count, Positional.Length)..], Named);
}
