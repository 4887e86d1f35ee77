namespace Sluice.Hub;

/// <summary>What to bring from the hub: <c>OWNER/NAME[@REVISION][:FILE]</c>.</summary>
/// <param name="Owner">A user or an organisation.</param>
/// <param name="Name">The model's name.</param>
/// <param name="Revision">A branch, a tag or a commit.</param>
/// <param name="File">A file, a pattern with <c>*</c> and <c>?</c>, or the tag of a quantisation (<c>Q4_K_M</c>); null: what the model needs.</param>
public sealed record HubReference(string Owner, string Name, string Revision, string? File)
{
    /// <summary>The revision where none is named.</summary>
    public const string DefaultRevision = "main";

    private const string Prefix = "hf:";
    private const int MostName = 96;
    private const int MostPath = 512;

    /// <summary><c>OWNER/NAME</c>.</summary>
    public string Model => $"{Owner}/{Name}";

    /// <summary>Whether a text is meant as a model on the hub: it begins with <c>hf:</c>.</summary>
    public static bool IsReference(string text) => text.StartsWith(Prefix, StringComparison.Ordinal);

    /// <summary>Reads <c>[hf:]OWNER/NAME[@REVISION][:FILE]</c>.</summary>
    /// <exception cref="HubException">It is none, or a name holds what a name on the hub cannot.</exception>
    public static HubReference Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        string rest = IsReference(text) ? text[Prefix.Length..] : text;
        string? file = null;
        int colon = rest.IndexOf(':', StringComparison.Ordinal);
        if (colon >= 0)
        {
            (rest, file) = (rest[..colon], rest[(colon + 1)..]);
        }

        string revision = DefaultRevision;
        int at = rest.IndexOf('@', StringComparison.Ordinal);
        if (at >= 0)
        {
            (rest, revision) = (rest[..at], rest[(at + 1)..]);
        }

        string[] parts = rest.Split('/');
        bool valid = parts.Length == 2 && IsName(parts[0]) && IsName(parts[1]) && IsPath(revision, "._-/") && (file is null || IsPath(file, "._-/*?+ ()[]=,@~"));
        return valid ? new HubReference(parts[0], parts[1], revision, file)
            : throw new HubException(HubError.Request, $"'{Shown(text)}' names no model on the hub: OWNER/NAME[@REVISION][:FILE] is expected, such as Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M");
    }

    /// <inheritdoc/>
    public override string ToString() => $"{Model}{(Revision == DefaultRevision ? "" : "@" + Revision)}{(File is null ? "" : ":" + File)}";

    /// <summary>Whether a file that a server names may be written below the cache: relative, without <c>..</c>, and of plain characters on every system.</summary>
    internal static bool IsSafeFile(string path) => IsPath(path, "._-/+ ()[]=,@~!#&'");

    /// <summary>A text that a server or user gave, made fit for a message.</summary>
    internal static string Shown(string text)
    {
        string plain = string.Concat(text.Select(c => char.IsControl(c) || char.IsSurrogate(c) ? '?' : c));
        return plain.Length > 120 ? plain[..120] + "..." : plain;
    }

    private static bool IsName(string name) =>
        name.Length is > 0 and <= MostName && name.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '_' or '-') && name[0] is not '.' and not '-' && IsSegment(name);

    private static bool IsPath(string path, string marks) =>
        path.Length is > 0 and <= MostPath && path.All(c => char.IsLetterOrDigit(c) || marks.Contains(c, StringComparison.Ordinal)) && path.Split('/').All(IsSegment);

    // Windows drops dots and blanks at a name's end, and has names of devices.
    private static bool IsSegment(string segment) =>
        segment.Length > 0 && segment is not "." and not ".." && segment[^1] is not '.' and not ' ' && segment[0] != ' '
        && segment.Split('.')[0].ToUpperInvariant() is not ("CON" or "PRN" or "AUX" or "NUL" or "COM1" or "COM2" or "COM3" or "COM4" or "COM5" or "COM6" or "COM7" or "COM8" or "COM9"
            or "LPT1" or "LPT2" or "LPT3" or "LPT4" or "LPT5" or "LPT6" or "LPT7" or "LPT8" or "LPT9");
}
