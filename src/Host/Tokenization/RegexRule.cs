using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>A regular expression as a <see cref="WordRule"/>: by hand where it is a known one, else by <see cref="RegexMatcher"/>.</summary>
internal sealed class RegexRule
{
    // What a match may take: far above what honest expressions need, and below a minute for a megabyte.
    private const long StepsForAll = 10_000_000;
    private const long StepsPerByte = 500;

    private readonly RegexProgram _program;
    private readonly string _file;
    private readonly string _field;

    private RegexRule(RegexProgram program, string file, string field) => (_program, _file, _field) = (program, file, field);

    /// <summary>The rule of an expression that stands in a file's field.</summary>
    /// <exception cref="UnsupportedModelException">The expression is malformed, or uses what is not supported.</exception>
    public static WordRule Create(string expression, string file, string field) => WordRules.Find(expression) ?? Compile(expression, file, field);

    /// <summary>The same, never by hand.</summary>
    /// <exception cref="UnsupportedModelException">The expression is malformed, or uses what is not supported.</exception>
    public static WordRule Compile(string expression, string file, string field)
    {
        try
        {
            return new RegexRule(RegexProgram.Compile(RegexParser.Parse(expression)), file, field).Match;
        }
        catch (FormatException e)
        {
            string shown = expression.Length > 100 ? expression[..100] + "..." : expression;
            throw new UnsupportedModelException(file, field, $"the regular expression '{shown}' {e.Message}");
        }
    }

    private int Match(ReadOnlySpan<byte> text, int position)
    {
        RegexMatcher matcher = RegexMatcher.Current;
        if (position == 0)
        {
            matcher.Budget = StepsForAll + (StepsPerByte * text.Length);
        }

        int end = matcher.Match(_program, text, position);
        if (end == -2)
        {
            throw new UnsupportedModelException(_file, _field, $"the regular expression takes more than {StepsForAll + (StepsPerByte * text.Length):N0} steps on a text of {text.Length:N0} bytes");
        }

        if (end < 0)
        {
            CharClass.At(text, position, out int length);
            return -length;
        }

        return end - position;
    }
}
