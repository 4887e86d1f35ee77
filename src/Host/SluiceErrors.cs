namespace Sluice;

/// <summary>The base of every failure that a model's files can cause: malformed, or not supported.</summary>
public class SluiceModelException : Exception
{
    /// <summary>Makes an exception whose text is <paramref name="message"/>.</summary>
    public SluiceModelException(string message, Exception? inner = null)
        : base(message, inner)
    {
    }

    private protected static string Compose(string file, string field, string detail) =>
        field.Length == 0 ? $"{file}: {detail}" : $"{file}: {field}: {detail}";
}

/// <summary>A model file breaks its own format: truncated, inconsistent, or out of bounds. The text names file, field and number.</summary>
public sealed class ModelFormatException : SluiceModelException
{
    /// <summary>Makes an exception about <paramref name="field"/> (a header field, metadata key or tensor; may be empty) of <paramref name="file"/>.</summary>
    public ModelFormatException(string file, string field, string detail, Exception? inner = null)
        : base(Compose(file, field, detail), inner)
    {
        File = file;
        Field = field;
    }

    /// <summary>The file's path as it was given.</summary>
    public string File { get; }

    /// <summary>The header field, metadata key or tensor that is wrong; empty where it is the file as a whole.</summary>
    public string Field { get; }
}

/// <summary>A model file is well-formed, but holds something that Sluice does not run: an architecture, a tensor type, a scaling.</summary>
public sealed class UnsupportedModelException : SluiceModelException
{
    /// <summary>Makes an exception about <paramref name="field"/> (a metadata key or tensor; may be empty) of <paramref name="file"/>.</summary>
    public UnsupportedModelException(string file, string field, string detail)
        : base(Compose(file, field, detail))
    {
        File = file;
        Field = field;
    }

    /// <summary>The file's path as it was given.</summary>
    public string File { get; }

    /// <summary>The metadata key or tensor that is not supported; empty where it is the file as a whole.</summary>
    public string Field { get; }
}
