namespace Sluice.Templates;

/// <summary>Reads a template's statements from tokens.</summary>
internal sealed class StatementParser : ExpressionParser
{
    // Binding looks each name up in the list.
    private const int MostParameters = 255;

    private int _loops;

    private StatementParser(string file, string source)
        : base(file, source)
    {
    }

    public static Body Parse(string file, string source)
    {
        StatementParser parser = new(file, source);
        Body body = parser.ParseBody([]);
        return parser.Current.Kind == TokenKind.End ? body : throw parser.Unexpected("the template's end");
    }

    // Up to a block whose first name is one of the ends, which is left to be read; no ends: the whole template.
    private Body ParseBody(params string[] ends)
    {
        Enter();
        List<Statement> statements = [];
        while (true)
        {
            int line = Line;
            Token token = Current;
            switch (token.Kind)
            {
                case TokenKind.Data:
                    Take();
                    statements.Add(new WriteText(token.Text) { Line = line });
                    continue;
                case TokenKind.PrintBegin:
                    Take();
                    statements.Add(new Print(ParseTuple()) { Line = line });
                    Expect(TokenKind.PrintEnd, "'}}'");
                    continue;
                case TokenKind.BlockBegin:
                    Take();
                    if (Current.Kind == TokenKind.Name && ends.Contains(Current.Text))
                    {
                        Leave();
                        return new Body(statements);
                    }

                    statements.Add(ParseStatement(ends));
                    Expect(TokenKind.BlockEnd, "'%}'");
                    continue;
                default:
                    if (ends.Length > 0)
                    {
                        throw Unexpected(string.Join(" or ", ends.Select(e => $"'{e}'")));
                    }

                    Leave();
                    return new Body(statements);
            }
        }
    }

    // A block's body after its head, and its end.
    private Body ParseBlock(string end)
    {
        Body body = ParseInner(end);
        Take();
        return body;
    }

    private Body ParseInner(params string[] ends)
    {
        Skip(":");
        Expect(TokenKind.BlockEnd, "'%}'");
        return ParseBody(ends);
    }

    private Statement ParseStatement(string[] ends)
    {
        Token tag = Expect(TokenKind.Name, "a tag's name");
        int line = LineOf(tag);
        switch (tag.Text)
        {
            case "if":
                return ParseIf(line);
            case "for":
                return ParseFor(line);
            case "set":
                return ParseSet(line);
            case "macro":
                return ParseMacro(line);
            case "call":
                return ParseCallBlock(line, tag);
            case "with":
                return ParseWith(line);
            case "filter":
                FilterCall filter = ParseFilter(null, true);
                return new FilterBlock(filter, ParseBlock("endfilter")) { Line = line };
            case "generation":
                return new With([], ParseBlock("endgeneration")) { Line = line };
            case "print":
                return ParsePrint(line);
            case "block":
                return ParseNamedBlock(line);
            case "autoescape":
                return ParseAutoescape(line);
            case "break" or "continue":
                return _loops > 0 ? new BreakOrContinue(tag.Text == "break" ? Flow.Break : Flow.Continue) { Line = line } : throw Error(tag, $"'{tag.Text}' stands outside of a loop");
            case "include" or "import" or "from" or "extends":
                throw Error(tag, $"'{tag.Text}' needs another template, and a chat template stands alone");
            default:
                throw Error(tag, ends.Length == 0 ? $"there is no tag '{tag.Text}'" : $"there is no tag '{tag.Text}'; {string.Join(" or ", ends.Select(e => $"'{e}'"))} is expected");
        }
    }

    private If ParseIf(int line)
    {
        List<(Expression?, Body)> branches = [];
        while (true)
        {
            Expression condition = ParseTuple(conditional: false);
            branches.Add((condition, ParseInner("elif", "else", "endif")));
            string end = Take().Text;
            if (end == "else")
            {
                branches.Add((null, ParseBlock("endif")));
            }

            if (end != "elif")
            {
                return new If(branches) { Line = line };
            }
        }
    }

    private For ParseFor(int line)
    {
        Target target = ParseTargets("in");
        ExpectKeyword("in");
        Expression items = ParseTuple("recursive", conditional: false);
        Expression? condition = SkipName("if") ? ParseExpression() : null;
        bool recursive = SkipName("recursive");
        _loops++;
        Body body = ParseInner("endfor", "else");
        _loops--;
        Body? otherwise = Take().Text == "else" ? ParseBlock("endfor") : null;
        return new For(target, items, condition, body, otherwise, recursive) { Line = line };
    }

    private Statement ParseSet(int line)
    {
        Target target;
        if (Current.Kind == TokenKind.Name && Following.Is("."))
        {
            string name = Take().Text;
            Take();
            target = new Target(name, Expect(TokenKind.Name, "an attribute's name").Text);
        }
        else
        {
            target = ParseTargets(null);
        }

        if (Skip("="))
        {
            return new Set(target, ParseTuple()) { Line = line };
        }

        FilterCall? filter = Current.Is("|") ? ParseFilter(null, false) : null;
        return new SetBlock(target, filter, OutOfLoop(() => ParseBlock("endset"))) { Line = line };
    }

    private MacroDefinition ParseMacro(int line)
    {
        string name = ParseName();
        return new MacroDefinition(ParseShape(name, "endmacro")) { Line = line };
    }

    private CallBlock ParseCallBlock(int line, Token tag)
    {
        List<(string, Expression?)> parameters = Current.Is("(") ? ParseParameters() : [];
        Call call = ParseExpression() as Call ?? throw Error(tag, "a call block needs the call of a macro");
        return new CallBlock(call, ParseMacroBody("caller", parameters, "endcall")) { Line = line };
    }

    private MacroShape ParseShape(string name, string end)
    {
        List<(string, Expression?)> parameters = ParseParameters();
        return ParseMacroBody(name, parameters, end);
    }

    private MacroShape ParseMacroBody(string name, List<(string, Expression?)> parameters, string end)
    {
        HashSet<string> around = SpecialNames;
        SpecialNames = [];
        Body body = OutOfLoop(() => ParseBlock(end));
        HashSet<string> uses = SpecialNames;
        around.UnionWith(uses);
        SpecialNames = around;
        return new MacroShape(name, parameters, body, uses);
    }

    // What is captured has no loop of its own to leave.
    private Body OutOfLoop(Func<Body> parse)
    {
        (int loops, _loops) = (_loops, 0);
        Body body = parse();
        _loops = loops;
        return body;
    }

    private List<(string Name, Expression? Default)> ParseParameters()
    {
        Expect("(");
        List<(string Name, Expression? Default)> parameters = [];
        while (!Current.Is(")"))
        {
            if (parameters.Count > 0)
            {
                Expect(",");
            }

            Token at = Current;
            string name = ParseName();
            if (parameters.Count == MostParameters)
            {
                throw Error(at, $"a macro has at most {MostParameters} parameters");
            }

            if (parameters.Any(p => p.Name == name))
            {
                throw Error(at, $"parameter '{name}' stands twice");
            }

            Expression? standard = Skip("=") ? ParseExpression() : null;
            if (standard is null && parameters.Count > 0 && parameters[^1].Default is not null)
            {
                throw Error(at, $"parameter '{name}' needs a default, because one before it has one");
            }

            parameters.Add((name, standard));
        }

        Expect(")");
        return parameters;
    }

    private With ParseWith(int line)
    {
        List<(Target, Expression)> names = [];
        while (Current.Kind != TokenKind.BlockEnd)
        {
            if (names.Count > 0)
            {
                Expect(",");
            }

            Target target = new(ParseName());
            Expect("=");
            names.Add((target, ParseExpression()));
        }

        return new With(names, ParseBlock("endwith")) { Line = line };
    }

    // Each value after the other, with nothing between.
    private With ParsePrint(int line)
    {
        List<Statement> values = [];
        while (Current.Kind != TokenKind.BlockEnd)
        {
            if (values.Count > 0)
            {
                Expect(",");
            }

            values.Add(new Print(ParseExpression()) { Line = line });
        }

        return new With([], new Body(values)) { Line = line };
    }

    private With ParseNamedBlock(int line)
    {
        string name = Expect(TokenKind.Name, "the block's name").Text;
        SkipName("scoped");
        SkipName("required");
        Body body = OutOfLoop(() => ParseBlock("endblock"));
        SkipName(name);
        return new With([], body) { Line = line };
    }

    private With ParseAutoescape(int line)
    {
        Token at = Current;
        if (ParseExpression() is not Literal { Value: BoolValue { Value: false } })
        {
            throw Error(at, "a prompt is not HTML: only 'autoescape false' is supported");
        }

        return new With([], ParseBlock("endautoescape")) { Line = line };
    }

    // Names that a value, or several values, go to.
    private Target ParseTargets(string? end)
    {
        Enter();
        List<Target> targets = [];
        bool tuple = false;
        while (true)
        {
            if (targets.Count > 0 || tuple)
            {
                Expect(",");
            }

            if (EndsTuple(end) || Current.Is("="))
            {
                break;
            }

            if (Skip("("))
            {
                targets.Add(ParseTargets(null));
                Expect(")");
            }
            else
            {
                targets.Add(new Target(ParseName()));
            }

            if (!Current.Is(","))
            {
                break;
            }

            tuple = true;
        }

        Leave();
        return targets.Count == 0 ? throw Unexpected("a name") : tuple ? new Target(targets) : targets[0];
    }

    private string ParseName()
    {
        Token token = Expect(TokenKind.Name, "a name");
        return token.Text is "true" or "false" or "none" or "True" or "False" or "None" ? throw Error(token, $"'{token.Text}' cannot be set") : token.Text;
    }
}
