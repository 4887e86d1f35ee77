using System.Runtime.CompilerServices;

namespace Sluice.Templates;

/// <summary>
/// One render: its budget, where it stands, and what the template can reach. Every node costs a step, and work on texts and lists costs in
/// proportion, so that a hostile template ends soon and small.
/// </summary>
internal sealed class Runtime
{
    // A macro that calls itself; CPython ends at about two hundred, too.
    private const int MostCalls = 200;

    // Chars made for one char of output: captures, concatenation and filters copy.
    private const int CopiesPerChar = 4;

    private readonly string _file;
    private readonly long _mostChars;
    private long _steps;
    private long _chars;
    private int _calls;

    public Runtime(string file, ChatTemplateInput input)
    {
        _file = file;
        Input = input;
        _steps = input.Limits.Steps;
        _mostChars = input.Limits.OutputChars;
        _chars = _mostChars * CopiesPerChar;
        Equality = new ValueEquality(this);
    }

    public ChatTemplateInput Input { get; }

    public ValueEquality Equality { get; }

    /// <summary>The line that runs, for errors.</summary>
    public int Line { get; set; }

    /// <summary>Takes steps from the budget, and now and then looks whether the stack has room: every recursion comes by here.</summary>
    public void Step(long count = 1)
    {
        _steps -= count;
        if (_steps < 0)
        {
            throw Limit("takes more steps than are allowed");
        }

        if ((_steps & 7) == 0 || count > 1)
        {
            EnsureStack();
        }
    }

    /// <summary>Fails where a deeper call could overflow the stack.</summary>
    public void EnsureStack()
    {
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw Limit("nests too deep");
        }
    }

    /// <summary>Takes characters that are about to be made from the budget.</summary>
    public void Chars(long count)
    {
        _chars -= count;
        if (_chars < 0 || count > _mostChars)
        {
            throw Limit("makes more text than is allowed");
        }

        Step(1 + (count >> 5));
    }

    /// <summary>Reading so many characters.</summary>
    public void Scan(long count) => Step(1 + (count >> 5));

    public void EnterCall()
    {
        if (++_calls > MostCalls)
        {
            throw Limit($"calls macros or loops more than {MostCalls} deep");
        }

        EnsureStack();
    }

    public void LeaveCall() => _calls--;

    public ChatTemplateException Fail(string detail) => new(ChatTemplateError.Runtime, _file, Line, 0, detail);

    public ChatTemplateException Raised(string text) => new(ChatTemplateError.Raised, _file, Line, 0, text);

    public ChatTemplateException Undefined(UndefinedValue value) => Fail(value.Reason);

    public ChatTemplateException WrongType(string what, Value value) =>
        value is UndefinedValue u ? Undefined(u) : Fail($"{what}, and '{value.TypeName}' is given");

    private ChatTemplateException Limit(string detail) => new(ChatTemplateError.Limit, _file, Line, 0, detail);

    public Text TextOf(Value value, string what) => value as Text ?? throw WrongType($"{what} must be a string", value);

    public long IntOf(Value value, string what) => value switch
    {
        IntValue i => i.Value,
        BoolValue b => b.Value ? 1 : 0,
        _ => throw WrongType($"{what} must be an integer", value),
    };

    public int SmallIntOf(Value value, string what) => (int)Math.Clamp(IntOf(value, what), int.MinValue / 2, int.MaxValue / 2);

    /// <summary>The items of a value, each costing a step. Lists are read as they are at that moment, as Python does.</summary>
    public IEnumerable<Value> Iterate(Value value)
    {
        EnsureStack(); // one generator may ask another, and so on
        switch (value)
        {
            case ListValue list:
                for (int i = 0; i < list.Items.Count; i++)
                {
                    Step();
                    yield return list.Items[i];
                }

                break;
            case DictValue dict:
                for (int i = 0; i < dict.Entries.Count; i++)
                {
                    Step();
                    yield return dict.Entries[i].Key;
                }

                break;
            case ViewValue view:
                for (int i = 0; i < view.Length; i++)
                {
                    Step();
                    yield return view.At(i);
                }

                break;
            case Text text:
                for (int i = 0; i < text.S.Length;)
                {
                    Step();
                    int size = text.Step(i);
                    yield return text.Cut(i, size);
                    i += size;
                }

                break;
            case RangeValue range:
                for (int i = 0; i < range.Length; i++)
                {
                    Step();
                    yield return IntValue.Of(range.At(i));
                }

                break;
            case GeneratorValue generator:
                while (generator.Items.MoveNext())
                {
                    EnsureStack();
                    Step();
                    yield return generator.Items.Current;
                }

                break;
            case LoopValue loop:
                while (loop.Advance())
                {
                    Step();
                    yield return loop.Current;
                }

                break;
            case UndefinedValue:
                break;
            default:
                throw Fail($"'{value.TypeName}' is not iterable");
        }
    }

    /// <summary>The items of a value as a list.</summary>
    public List<Value> ListOf(Value value)
    {
        List<Value> items = [];
        foreach (Value item in Iterate(value))
        {
            items.Add(item);
        }

        return items;
    }

    /// <summary>Whether a value can be iterated, without doing it.</summary>
    public static bool IsIterable(Value value) => value is ListValue or DictValue or ViewValue or Text or RangeValue or GeneratorValue or LoopValue or UndefinedValue;

    public static GeneratorValue Generate(IEnumerable<Value> items) => new(items.GetEnumerator());
}

/// <summary>The names that a part of a template sees: its own, then those around it.</summary>
internal sealed class Scope(Scope? outer)
{
    private Dictionary<string, Value>? _names;

    public void Set(string name, Value value) => (_names ??= [])[name] = value;

    public Value? Find(string name)
    {
        for (Scope? at = this; at is not null; at = at._outer)
        {
            if (at._names is not null && at._names.TryGetValue(name, out Value? value))
            {
                return value;
            }
        }

        return null;
    }

    private readonly Scope? _outer = outer;
}
