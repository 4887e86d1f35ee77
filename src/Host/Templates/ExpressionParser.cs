using System.Globalization;
using System.Text;

namespace Sluice.Templates;

/// <summary>Reads expressions from tokens: Jinja's grammar, one method a level of precedence.</summary>
internal class ExpressionParser : TokenReader
{
    // A chain such as a + b + c is a tree as deep as it is long.
    private const int MostDepth = 1000;

    protected ExpressionParser(string file, string source)
        : base(file, source)
    {
    }

    /// <summary>Which of <c>caller</c>, <c>kwargs</c> and <c>varargs</c> the macro that is being read uses; macros around it use them too.</summary>
    protected HashSet<string> SpecialNames { get; set; } = [];

    protected Expression ParseExpression(bool conditional = true) => conditional ? ParseConditional() : ParseJunction(false);

    /// <summary>An expression, or several with commas between: a tuple.</summary>
    /// <param name="end">A name that ends it, besides what ends any tag; null: none.</param>
    /// <param name="conditional">Whether <c>a if b</c> may stand in it.</param>
    /// <param name="parentheses">Whether it stands in parentheses, where nothing is the empty tuple.</param>
    protected Expression ParseTuple(string? end = null, bool conditional = true, bool parentheses = false)
    {
        int line = Line;
        List<Expression> items = [];
        bool tuple = false;
        while (true)
        {
            if (items.Count > 0)
            {
                Expect(",");
            }

            if (EndsTuple(end))
            {
                break;
            }

            items.Add(ParseExpression(conditional));
            if (!Current.Is(","))
            {
                break;
            }

            tuple = true;
        }

        if (!tuple && items.Count == 1)
        {
            return items[0];
        }

        if (!tuple && !parentheses)
        {
            throw Unexpected("an expression");
        }

        return Deep(new Sequence(items, true) { Line = line }, [.. items]);
    }

    protected bool EndsTuple(string? end) => Current.Kind is TokenKind.PrintEnd or TokenKind.BlockEnd || Current.Is(")") || (end is not null && Current.IsName(end));

    /// <summary>Filters after a value, or after nothing where a block's output is meant.</summary>
    protected FilterCall ParseFilter(Expression? input, bool first)
    {
        FilterCall? node = null;
        while (first || Current.Is("|"))
        {
            if (!first)
            {
                Take();
            }

            first = false;
            int line = Line;
            string name = DottedName("a filter's name");
            ArgumentList arguments = Current.Is("(") ? ParseArguments() : ArgumentList.None;
            Expression? inner = node ?? input;
            node = Deep(new FilterCall(inner, name, arguments) { Line = line }, [inner, .. arguments.All]);
        }

        return node!;
    }

    private string DottedName(string what)
    {
        string name = Expect(TokenKind.Name, what).Text;
        while (Skip("."))
        {
            name += "." + Expect(TokenKind.Name, what).Text;
        }

        return name;
    }

    private T Deep<T>(T node, params ReadOnlySpan<Expression?> parts)
        where T : Expression
    {
        foreach (Expression? part in parts)
        {
            node.Depth = Math.Max(node.Depth, 1 + (part?.Depth ?? 0));
        }

        return node.Depth <= MostDepth ? node : throw Error(Current, $"this expression nests deeper than {MostDepth}");
    }

    private Expression ParseConditional()
    {
        Enter();
        int line = Line;
        Expression then = ParseJunction(false);
        while (SkipName("if"))
        {
            Expression condition = ParseJunction(false);
            Expression? otherwise = SkipName("else") ? ParseConditional() : null;
            then = Deep(new Conditional(condition, then, otherwise) { Line = line }, then, condition, otherwise);
            line = Line;
        }

        Leave();
        return then;
    }

    private Expression ParseJunction(bool both)
    {
        int line = Line;
        Expression left = both ? ParseNot() : ParseJunction(true);
        while (SkipName(both ? "and" : "or"))
        {
            Expression right = both ? ParseNot() : ParseJunction(true);
            left = Deep(new Junction(left, right, both) { Line = line }, left, right);
        }

        return left;
    }

    private Expression ParseNot()
    {
        int line = Line;
        if (!SkipName("not"))
        {
            return ParseComparison();
        }

        Enter();
        Expression operand = ParseNot();
        Leave();
        return Deep(new Not(operand) { Line = line }, operand);
    }

    private Expression ParseComparison()
    {
        int line = Line;
        Expression first = ParseSum();
        List<(string, Expression)> rest = [];
        while (true)
        {
            string op;
            if (Current.Kind == TokenKind.Operator && Current.Text is "==" or "!=" or "<" or "<=" or ">" or ">=")
            {
                op = Take().Text;
            }
            else if (SkipName("in"))
            {
                op = "in";
            }
            else if (Current.IsName("not") && Following.IsName("in"))
            {
                Take();
                Take();
                op = "not in";
            }
            else
            {
                break;
            }

            rest.Add((op, ParseSum()));
        }

        return rest.Count == 0 ? first : Deep(new Comparison(first, rest) { Line = line }, [first, .. rest.Select(r => r.Item2)]);
    }

    private Expression ParseSum()
    {
        int line = Line;
        Expression left = ParseConcatenation();
        while (Current.Is("+") || Current.Is("-"))
        {
            string op = Take().Text;
            Expression right = ParseConcatenation();
            left = Deep(new Binary(op, left, right) { Line = line }, left, right);
        }

        return left;
    }

    private Expression ParseConcatenation()
    {
        int line = Line;
        Expression first = ParseProduct();
        if (!Current.Is("~"))
        {
            return first;
        }

        List<Expression> parts = [first];
        while (Skip("~"))
        {
            parts.Add(ParseProduct());
        }

        return Deep(new Concatenation(parts) { Line = line }, [.. parts]);
    }

    private Expression ParseProduct()
    {
        int line = Line;
        Expression left = ParsePower();
        while (Current.Kind == TokenKind.Operator && Current.Text is "*" or "/" or "//" or "%")
        {
            string op = Take().Text;
            Expression right = ParsePower();
            left = Deep(new Binary(op, left, right) { Line = line }, left, right);
        }

        return left;
    }

    private Expression ParsePower()
    {
        int line = Line;
        Expression left = ParseUnary(true);
        while (Skip("**"))
        {
            Expression right = ParseUnary(true);
            left = Deep(new Binary("**", left, right) { Line = line }, left, right);
        }

        return left;
    }

    private Expression ParseUnary(bool filters)
    {
        Enter();
        int line = Line;
        Expression node;
        if (Current.Is("-") || Current.Is("+"))
        {
            bool negative = Take().Is("-");
            Expression operand = ParseUnary(false);
            node = Deep(new Signed(operand, negative) { Line = line }, operand);
        }
        else
        {
            node = ParsePrimary();
        }

        node = ParsePostfix(node);
        while (filters)
        {
            if (Current.Is("|"))
            {
                node = ParseFilter(node, false);
            }
            else if (SkipName("is"))
            {
                node = ParseTest(node);
            }
            else if (Current.Is("("))
            {
                node = ParseCall(node);
            }
            else
            {
                break;
            }
        }

        Leave();
        return node;
    }

    protected Expression ParsePrimary()
    {
        Token token = Take();
        int line = LineOf(token);
        switch (token.Kind)
        {
            case TokenKind.Name:
                if (token.Text is "caller" or "kwargs" or "varargs")
                {
                    SpecialNames.Add(token.Text);
                }

                return token.Text switch
                {
                    "true" or "True" => new Literal(BoolValue.True) { Line = line },
                    "false" or "False" => new Literal(BoolValue.False) { Line = line },
                    "none" or "None" => new Literal(NoneValue.Instance) { Line = line },
                    _ => new Name(token.Text) { Line = line },
                };
            case TokenKind.Text:
                StringBuilder text = new(token.Text);
                while (Current.Kind == TokenKind.Text)
                {
                    text.Append(Take().Text);
                }

                return new Literal(Text.Trusted(text.ToString())) { Line = line };
            case TokenKind.Integer:
                return new Literal(Numbers.ParseInteger(token.Text, false)) { Line = line };
            case TokenKind.Float:
                return new Literal(new FloatValue(double.Parse(token.Text, CultureInfo.InvariantCulture))) { Line = line };
            case TokenKind.Operator when token.Text == "(":
                Expression inner = ParseTuple(parentheses: true);
                Expect(")");
                return inner;
            case TokenKind.Operator when token.Text == "[":
                List<Expression> items = ParseItems("]", () => ParseExpression());
                return Deep(new Sequence(items, false) { Line = line }, [.. items]);
            case TokenKind.Operator when token.Text == "{":
                List<(Expression Key, Expression Value)> entries = ParseItems("}", () =>
                {
                    Expression key = ParseExpression();
                    Expect(":");
                    return (key, ParseExpression());
                });
                return Deep(new Mapping(entries) { Line = line }, [.. entries.Select(e => e.Key), .. entries.Select(e => e.Value)]);
            default:
                throw Error(token, $"{Describe(token)} stands where an expression is expected");
        }
    }

    private List<T> ParseItems<T>(string close, Func<T> parse)
    {
        List<T> items = [];
        while (!Current.Is(close))
        {
            if (items.Count > 0)
            {
                Expect(",");
                if (Current.Is(close))
                {
                    break;
                }
            }

            items.Add(parse());
        }

        Expect(close);
        return items;
    }

    private Expression ParsePostfix(Expression node)
    {
        while (true)
        {
            int line = Line;
            if (Skip("."))
            {
                Token token = Take();
                node = token.Kind switch
                {
                    TokenKind.Name => Deep(new AttributeOf(node, token.Text) { Line = line }, node),
                    TokenKind.Integer => Deep(new ItemOf(node, new Literal(Numbers.ParseInteger(token.Text, false)) { Line = line }) { Line = line }, node),
                    _ => throw Error(token, $"{Describe(token)} stands where a name or an index is expected"),
                };
            }
            else if (Skip("["))
            {
                node = ParseSubscript(node, line);
            }
            else if (Current.Is("("))
            {
                node = ParseCall(node);
            }
            else
            {
                return node;
            }
        }
    }

    private Expression ParseSubscript(Expression target, int line)
    {
        Expression? from = Current.Is(":") ? null : ParseExpression();
        if (Skip(":"))
        {
            Expression? to = Bound(), step = Skip(":") ? Bound() : null;
            if (Current.Is(","))
            {
                throw Error(Current, "a slice among several indices is not supported");
            }

            Expect("]");
            return Deep(new SliceOf(target, from, to, step) { Line = line }, target, from, to, step);
        }

        List<Expression> indices = [from!];
        while (Skip(","))
        {
            indices.Add(ParseExpression());
        }

        Expect("]");
        Expression index = indices.Count == 1 ? indices[0] : new Sequence(indices, true) { Line = line };
        return Deep(new ItemOf(target, index) { Line = line }, [target, .. indices]);

        Expression? Bound() => Current.Is(":") || Current.Is("]") || Current.Is(",") ? null : ParseExpression();
    }

    private Call ParseCall(Expression target)
    {
        int line = Line;
        ArgumentList arguments = ParseArguments();
        return Deep(new Call(target, arguments) { Line = line }, [target, .. arguments.All]);
    }

    private ArgumentList ParseArguments()
    {
        Token start = Current;
        Expect("(");
        ArgumentList list = new();
        bool any = false;
        while (!Current.Is(")"))
        {
            if (any)
            {
                Expect(",");
                if (Current.Is(")"))
                {
                    break;
                }
            }

            any = true;
            bool misplaced;
            if (Skip("*"))
            {
                misplaced = list.Rest is not null || list.NamedRest is not null;
                list.Rest = ParseExpression();
            }
            else if (Skip("**"))
            {
                misplaced = list.NamedRest is not null;
                list.NamedRest = ParseExpression();
            }
            else if (Current.Kind == TokenKind.Name && Following.Is("="))
            {
                misplaced = list.NamedRest is not null;
                string name = Take().Text;
                Take();
                list.Named.Add((name, ParseExpression()));
            }
            else
            {
                misplaced = list.Rest is not null || list.NamedRest is not null || list.Named.Count > 0;
                list.Positional.Add(ParseExpression());
            }

            if (misplaced)
            {
                throw Error(start, "these arguments are in an order that a call does not have");
            }
        }

        Expect(")");
        return list;
    }

    private Expression ParseTest(Expression input)
    {
        int line = Line;
        bool negated = SkipName("not");
        string name = DottedName("a test's name");
        ArgumentList arguments = ArgumentList.None;
        if (Current.Is("("))
        {
            arguments = ParseArguments();
        }
        else if ((Current.Kind is TokenKind.Name or TokenKind.Text or TokenKind.Integer or TokenKind.Float || Current.Is("[") || Current.Is("{"))
            && !Current.IsName("else") && !Current.IsName("or") && !Current.IsName("and"))
        {
            if (Current.IsName("is"))
            {
                throw Error(Current, "tests cannot be chained with 'is'");
            }

            arguments = new ArgumentList();
            arguments.Positional.Add(ParsePostfix(ParsePrimary()));
        }

        Expression test = Deep(new TestCall(input, name, arguments) { Line = line }, [input, .. arguments.All]);
        return negated ? Deep(new Not(test) { Line = line }, test) : test;
    }
}
