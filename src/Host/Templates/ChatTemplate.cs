namespace Sluice.Templates;

/// <summary>
/// A chat template: the Jinja text that comes with a model and writes a conversation the way the model was trained on it. Rendered as
/// transformers does (trim_blocks, lstrip_blocks, no autoescape, an immutable sandbox, <c>tojson</c> as json.dumps without ASCII escapes),
/// with Jinja 3.1's meaning. A template reaches nothing but its input; what it may do is bounded by <see cref="ChatTemplateLimits"/>.
/// Templates are immutable, and may render on several threads at once.
/// </summary>
public sealed class ChatTemplate
{
    private const int MostSource = 4 << 20;

    private readonly Body _body;

    private ChatTemplate(string file, string source, Body body) => (File, Source, _body) = (file, source, body);

    /// <summary>Where the template came from, for errors.</summary>
    public string File { get; }

    /// <summary>The template's text.</summary>
    public string Source { get; }

    /// <summary>Reads a template.</summary>
    /// <param name="source">Its text.</param>
    /// <param name="file">Where it came from, for errors.</param>
    /// <exception cref="ChatTemplateException">It is not the Jinja that is supported; the text names line and column.</exception>
    public static ChatTemplate Parse(string source, string file)
    {
        ArgumentNullException.ThrowIfNull(source);
        ArgumentNullException.ThrowIfNull(file);
        if (source.Length > MostSource)
        {
            throw new ChatTemplateException(ChatTemplateError.Limit, file, 0, 0, $"is {source.Length:N0} characters, and at most {MostSource:N0} are read");
        }

        return new ChatTemplate(file, source, StatementParser.Parse(file, source));
    }

    /// <summary>Renders a conversation.</summary>
    /// <returns>The prompt, and which of its characters came from messages, tools and variables.</returns>
    /// <exception cref="ChatTemplateException">
    /// The template refuses the messages (<see cref="ChatTemplateError.Raised"/>), fails on them, or exceeds the limits; or the input is not
    /// what can be given to a template.
    /// </exception>
    public RenderedChat Render(ChatTemplateInput input)
    {
        ArgumentNullException.ThrowIfNull(input);
        Runtime rt = new(File, input);
        Scope scope = InputValues.Scope(rt, input);
        Text text = _body.Capture(rt, scope);
        List<TextRange> data = [];
        for (int i = 0; text.Marks is not null && i < text.Marks.Length; i += 2)
        {
            data.Add(new TextRange(text.Marks[i], text.Marks[i + 1]));
        }

        return new RenderedChat(text.S, data);
    }
}
