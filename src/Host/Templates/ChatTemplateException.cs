namespace Sluice.Templates;

/// <summary>What stopped a chat template.</summary>
public enum ChatTemplateError
{
    /// <summary>The template is not the Jinja that Sluice reads.</summary>
    Syntax,

    /// <summary>The template called <c>raise_exception</c>: these messages are not what it takes.</summary>
    Raised,

    /// <summary>An expression failed: an undefined value was used, types do not fit, something is not supported.</summary>
    Runtime,

    /// <summary>It would take more steps, output or nesting than are allowed.</summary>
    Limit,

    /// <summary>The messages, tools or variables cannot be given to a template.</summary>
    Input,
}

/// <summary>A chat template cannot be parsed, or cannot render these messages. The text names file, line and, for syntax, column.</summary>
public sealed class ChatTemplateException : SluiceModelException
{
    /// <summary>Makes an exception about <paramref name="line"/> of <paramref name="file"/>.</summary>
    /// <param name="kind">What stopped it.</param>
    /// <param name="file">Where the template came from.</param>
    /// <param name="line">From 1; 0 where no line is to blame.</param>
    /// <param name="column">From 1; 0 where only the line is known.</param>
    /// <param name="detail">What is wrong; for <see cref="ChatTemplateError.Raised"/> the template's own text.</param>
    /// <param name="inner">What caused it.</param>
    public ChatTemplateException(ChatTemplateError kind, string file, int line, int column, string detail, Exception? inner = null)
        : base(Compose(file, Place(line, column), kind == ChatTemplateError.Raised ? "the template refuses these messages: " + detail : detail), inner)
    {
        Kind = kind;
        File = file;
        Line = line;
        Column = column;
        Detail = detail;
    }

    /// <summary>What stopped it.</summary>
    public ChatTemplateError Kind { get; }

    /// <summary>Where the template came from, as it was given.</summary>
    public string File { get; }

    /// <summary>The template's line, from 1; 0 where no line is to blame.</summary>
    public int Line { get; }

    /// <summary>The column in UTF-16 units, from 1; 0 where only the line is known.</summary>
    public int Column { get; }

    /// <summary>What is wrong, without the place; the text given to <c>raise_exception</c> as it is.</summary>
    public string Detail { get; }

    private static string Place(int line, int column) => line == 0 ? "" : column == 0 ? $"line {line}" : $"line {line}, column {column}";
}
