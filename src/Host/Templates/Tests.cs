using System.Text;

namespace Sluice.Templates;

internal delegate bool Test(Runtime rt, Value value, Arguments arguments);

/// <summary>What may follow <c>is</c>.</summary>
internal static class Tests
{
    private static readonly Dictionary<string, Test> All = new()
    {
        ["boolean"] = (_, v, _) => v is BoolValue,
        ["callable"] = (_, v, _) => v is CallableValue or UndefinedValue,
        ["defined"] = (_, v, _) => v is not UndefinedValue,
        ["divisibleby"] = (rt, v, a) => Remainder(rt, v, Other(rt, a)) == 0,
        ["escaped"] = (_, v, _) => v is Text { IsMarkup: true },
        ["even"] = (rt, v, _) => Remainder(rt, v, IntValue.Of(2)) == 0,
        ["false"] = (_, v, _) => v is BoolValue { Value: false },
        ["filter"] = (_, v, _) => v is Text t && Filters.Find(t.S) is not null,
        ["float"] = (_, v, _) => v is FloatValue,
        ["in"] = (rt, v, a) => Operators.Contains(rt, Other(rt, a), v),
        ["integer"] = (_, v, _) => v is IntValue or BigValue,
        ["iterable"] = (_, v, _) => Runtime.IsIterable(v),
        ["lower"] = (rt, v, _) => StringMethods.IsCase(rt, Printer.ToText(rt, v), Rune.IsLower),
        ["mapping"] = (_, v, _) => v is DictValue,
        ["none"] = (_, v, _) => v is NoneValue,
        ["number"] = (_, v, _) => v is IntValue or FloatValue or BoolValue or BigValue,
        ["odd"] = (rt, v, _) => Remainder(rt, v, IntValue.Of(2)) == 1,
        ["sameas"] = (rt, v, a) => Same(v, Other(rt, a)),
        ["sequence"] = (_, v, _) => v is Text or ListValue or DictValue or RangeValue or UndefinedValue,
        ["string"] = (_, v, _) => v is Text,
        ["test"] = (_, v, _) => v is Text t && Find(t.S) is not null,
        ["true"] = (_, v, _) => v is BoolValue { Value: true },
        ["undefined"] = (_, v, _) => v is UndefinedValue,
        ["upper"] = (rt, v, _) => StringMethods.IsCase(rt, Printer.ToText(rt, v), Rune.IsUpper),
    };

    static Tests()
    {
        foreach ((string op, string[] names) in new (string, string[])[]
        {
            ("==", ["eq", "equalto"]), ("!=", ["ne"]), ("<", ["lt", "lessthan"]), ("<=", ["le"]), (">", ["gt", "greaterthan"]), (">=", ["ge"]),
        })
        {
            bool Holds(Runtime rt, Value v, Arguments a) => Operators.Compare(rt, op, v, Other(rt, a));
            All[op] = Holds;
            foreach (string name in names)
            {
                All[name] = Holds;
            }
        }
    }

    public static Test? Find(string name) => All.GetValueOrDefault(name);

    private static Value Other(Runtime rt, Arguments arguments) => arguments.Bind(rt, "test", "other")[0] ?? throw rt.Fail("this test needs something to compare with");

    private static double Remainder(Runtime rt, Value value, Value by) => Operators.Number(Operators.Apply(rt, "%", value is Text ? throw rt.WrongType("this test needs a number", value) : value, by))!.Value;

    private static bool Same(Value a, Value b) =>
        ReferenceEquals(a, b) || (a is NoneValue && b is NoneValue) || (a is BoolValue p && b is BoolValue q && p.Value == q.Value)
        || (a is IntValue i && b is IntValue j && i.Value == j.Value) || (a is Text s && b is Text t && s.S == t.S);
}
