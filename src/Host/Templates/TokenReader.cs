using System.Runtime.CompilerServices;

namespace Sluice.Templates;

/// <summary>A place in a template's tokens: looks, takes, expects, and tells where an error is.</summary>
internal abstract class TokenReader
{
    // Brackets and blocks within each other; CPython's own parser ends at 200 brackets.
    private const int MostNesting = 200;

    private readonly string _file;
    private readonly string _source;
    private readonly List<Token> _tokens;
    private readonly List<int> _lines = [0];
    private int _at;
    private int _nesting;

    protected TokenReader(string file, string source)
    {
        _file = file;
        (_tokens, _source) = TemplateLexer.Read(file, source);
        for (int i = _source.IndexOf('\n', StringComparison.Ordinal); i >= 0; i = _source.IndexOf('\n', i + 1))
        {
            _lines.Add(i + 1);
        }
    }

    protected Token Current => _tokens[_at];

    protected Token Following => _tokens[Math.Min(_at + 1, _tokens.Count - 1)];

    protected int Line => LineOf(Current);

    protected Token Take() => Current.Kind == TokenKind.End ? Current : _tokens[_at++];

    protected int LineOf(Token token)
    {
        int found = _lines.BinarySearch(token.At);
        return found >= 0 ? found + 1 : ~found;
    }

    protected bool Skip(string op)
    {
        if (!Current.Is(op))
        {
            return false;
        }

        _at++;
        return true;
    }

    protected bool SkipName(string name)
    {
        if (!Current.IsName(name))
        {
            return false;
        }

        _at++;
        return true;
    }

    protected void Expect(string op)
    {
        if (!Skip(op))
        {
            throw Unexpected($"'{op}'");
        }
    }

    protected void ExpectKeyword(string name)
    {
        if (!SkipName(name))
        {
            throw Unexpected($"'{name}'");
        }
    }

    protected Token Expect(TokenKind kind, string what) => Current.Kind == kind ? Take() : throw Unexpected(what);

    protected ChatTemplateException Unexpected(string expected) => Error(Current, $"{Describe(Current)} stands where {expected} is expected");

    protected ChatTemplateException Error(Token at, string detail) => TemplateLexer.Error(_file, _source, at.At, detail);

    protected void Enter()
    {
        // The second bound is for callers with little stack left.
        if (++_nesting > MostNesting || !RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw Error(Current, $"nests too deep: {_nesting} levels, and {MostNesting} are the most");
        }
    }

    protected void Leave() => _nesting--;

    protected static string Describe(Token token) => token.Kind switch
    {
        TokenKind.End => "the template's end",
        TokenKind.BlockEnd => "the block's end",
        TokenKind.PrintEnd => "the print statement's end",
        TokenKind.Text => "a string",
        TokenKind.Data => "text",
        TokenKind.BlockBegin => "a block",
        TokenKind.PrintBegin => "a print statement",
        _ => $"'{(token.Text.Length > 40 ? token.Text[..40] + "..." : token.Text)}'",
    };
}
