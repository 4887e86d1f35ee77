namespace Sluice.Templates;

/// <summary>A list, or a tuple where <see cref="IsTuple"/>.</summary>
internal sealed class ListValue(List<Value> items, bool tuple = false) : Value
{
    public List<Value> Items { get; } = items;

    public bool IsTuple { get; } = tuple;

    /// <summary>What <c>groupby</c> gives is a tuple whose fields have names.</summary>
    public bool IsGroup { get; init; }

    public override string TypeName => IsTuple ? "tuple" : "list";

    public override bool Truthy => Items.Count > 0;

    public override int Length => Items.Count;

    public static ListValue Tuple(params List<Value> items) => new(items, true);
}

/// <summary>A dict: keys in the order in which they came.</summary>
internal sealed class DictValue(Runtime rt) : Value
{
    private readonly Dictionary<Value, int> _index = new(rt.Equality);

    public List<KeyValuePair<Value, Value>> Entries { get; } = [];

    public override string TypeName => "dict";

    public override bool Truthy => Entries.Count > 0;

    public override int Length => Entries.Count;

    public Value? Get(Value key) => _index.TryGetValue(key, out int at) ? Entries[at].Value : null;

    public Value? Get(string key) => Get(Text.Trusted(key));

    public void Set(Value key, Value value)
    {
        if (_index.TryGetValue(key, out int at))
        {
            Entries[at] = new(Entries[at].Key, value);
        }
        else
        {
            _index.Add(key, Entries.Count);
            Entries.Add(new(key, value));
        }
    }
}

/// <summary>A dict's keys, values or items.</summary>
internal sealed class ViewValue(DictValue dict, char kind) : Value
{
    public DictValue Dict { get; } = dict;

    /// <summary><c>k</c>, <c>v</c> or <c>i</c>.</summary>
    public char Kind { get; } = kind;

    public override string TypeName => Kind switch { 'k' => "dict_keys", 'v' => "dict_values", _ => "dict_items" };

    public override bool Truthy => Dict.Truthy;

    public override int Length => Dict.Length;

    public Value At(int index)
    {
        (Value key, Value value) = Dict.Entries[index];
        return Kind switch { 'k' => key, 'v' => value, _ => ListValue.Tuple(key, value) };
    }
}

/// <summary><c>range(start, stop, step)</c>: never laid out.</summary>
internal sealed class RangeValue(long start, long step, int count) : Value
{
    public override string TypeName => "range";

    public override bool Truthy => count > 0;

    public override int Length => count;

    public long Start => start;

    public long Step => step;

    public long At(int index) => start + (index * step);
}

/// <summary>What is computed as it is asked for, once: what <c>map</c>, <c>select</c> and their like give.</summary>
internal sealed class GeneratorValue(IEnumerator<Value> items) : Value
{
    public override string TypeName => "generator";

    public IEnumerator<Value> Items { get; } = items;
}
