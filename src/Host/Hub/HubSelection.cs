namespace Sluice.Hub;

/// <summary>Chooses which files of a model are brought.</summary>
/// <param name="Files">The files.</param>
/// <param name="Entry">The file to load, or null where it is the folder.</param>
internal sealed record HubSelection(IReadOnlyList<HubFile> Files, string? Entry)
{
    private static readonly string[] FolderFiles =
    [
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
        "chat_template.jinja", "chat_template.json", "quantize_config.json", "quant_config.json", "model.safetensors.index.json",
    ];

    /// <summary>The files that a reference means.</summary>
    /// <exception cref="HubException">There are none, or several that a person must choose from; the text lists them.</exception>
    public static HubSelection Choose(HubReference reference, IReadOnlyList<HubFile> files)
    {
        List<HubFile> ggufs = [.. files.Where(f => f.Path.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase)).OrderBy(f => f.Path, StringComparer.Ordinal)];
        if (reference.File is { } wanted)
        {
            if (files.FirstOrDefault(f => f.Path == wanted) is { } exact)
            {
                return WithParts(exact, ggufs);
            }

            bool pattern = wanted.AsSpan().IndexOfAny('*', '?') >= 0;
            List<HubFile> found = [.. (pattern ? files : ggufs).Where(f => pattern ? Matches(f.Path, wanted) || Matches(FileName(f.Path), wanted) : HasTag(f.Path, wanted))];
            return Single(found, ggufs) ?? throw new HubException(
                found.Count == 0 ? HubError.NotFound : HubError.Request,
                found.Count == 0 ? $"{reference.Model}@{reference.Revision} has no file '{wanted}'; it has {List(files)}" : $"{reference.Model}: '{wanted}' means several files: {List(found)}; name one of them");
        }

        List<HubFile> tensors = [.. files.Where(f => f.Path.EndsWith(".safetensors", StringComparison.Ordinal) && !f.Path.Contains('/', StringComparison.Ordinal))];
        if (tensors.Count > 0 && files.Any(f => f.Path == "config.json"))
        {
            // Mistral's own repositories carry the weights a second time, as one file.
            if (tensors.Any(f => f.Path.StartsWith("model", StringComparison.Ordinal)))
            {
                tensors.RemoveAll(f => f.Path.StartsWith("consolidated", StringComparison.Ordinal));
            }

            return new HubSelection([.. files.Where(f => FolderFiles.Contains(f.Path)), .. tensors], null);
        }

        // A projector for pictures goes with a model, and is none.
        List<HubFile> models = [.. ggufs.Where(f => !FileName(f.Path).StartsWith("mmproj", StringComparison.OrdinalIgnoreCase))];
        return Single(models, ggufs) ?? throw new HubException(
            HubError.Request,
            models.Count == 0 ? $"{reference.Model} holds neither safetensors with a config.json nor a GGUF file; it has {List(files)}"
                : $"{reference.Model} holds several models: {List(models)}; name one, as in {reference.Model}:{FileName(models[0].Path)}");
    }

    /// <summary>Whether a path matches a pattern in which <c>*</c> is any text and <c>?</c> any character. Linear in both.</summary>
    public static bool Matches(string path, string pattern)
    {
        int p = 0, s = 0, star = -1, resume = 0;
        while (s < path.Length)
        {
            if (p < pattern.Length && (pattern[p] == '?' || pattern[p] == path[s]) && pattern[p] != '*')
            {
                p++;
                s++;
            }
            else if (p < pattern.Length && pattern[p] == '*')
            {
                star = p++;
                resume = s;
            }
            else if (star >= 0)
            {
                p = star + 1;
                s = ++resume;
            }
            else
            {
                return false;
            }
        }

        return pattern.AsSpan(p).Trim('*').Length == 0;
    }

    private static string FileName(string path) => path[(path.LastIndexOf('/') + 1)..];

    // "Q4_K_M" in "dir/Model-Q4_K_M.gguf", "Model.Q4_K_M-00001-of-00002.gguf" or "Q4_K_M/Model.gguf", and not "Q4_K" in it.
    private static bool HasTag(string path, string tag)
    {
        for (int at = path.IndexOf(tag, StringComparison.OrdinalIgnoreCase); at >= 0; at = path.IndexOf(tag, at + 1, StringComparison.OrdinalIgnoreCase))
        {
            int end = at + tag.Length;
            if ((at == 0 || path[at - 1] is '-' or '.' or '/' or '_') && (end == path.Length || path[end] is '-' or '.' or '/'))
            {
                return true;
            }
        }

        return false;
    }

    // One file, or the parts of one.
    private static HubSelection? Single(List<HubFile> found, List<HubFile> ggufs) => found.Count switch
    {
        0 => null,
        1 => WithParts(found[0], ggufs),
        _ when Stem(found[0].Path) is { } stem && found.All(f => Stem(f.Path) == stem) => WithParts(found[0], ggufs),
        _ => null,
    };

    private static HubSelection WithParts(HubFile file, List<HubFile> ggufs)
    {
        if (Stem(file.Path) is not { } stem)
        {
            return new HubSelection([file], file.Path);
        }

        List<HubFile> parts = [.. ggufs.Where(f => Stem(f.Path) == stem)];
        int count = int.Parse(stem.AsSpan(stem.Length - 5), System.Globalization.CultureInfo.InvariantCulture);
        return parts.Count == count ? new HubSelection(parts, parts[0].Path)
            : throw new HubException(HubError.NotFound, $"'{file.Path}' is one of {count} parts, and the model holds {parts.Count} of them");
    }

    // "x-00002-of-00003.gguf" is "x-of-00003"; null for what is no part.
    private static string? Stem(string path)
    {
        const string Shape = "-00000-of-00000.gguf";
        if (path.Length < Shape.Length)
        {
            return null;
        }

        string end = path[^Shape.Length..];
        bool part = end.EndsWith(".gguf", StringComparison.Ordinal) && end[0] == '-' && end.AsSpan(6, 4).SequenceEqual("-of-") && end.AsSpan(1, 5).ContainsAnyExceptInRange('0', '9') is false && end.AsSpan(10, 5).ContainsAnyExceptInRange('0', '9') is false;
        return part ? path[..^Shape.Length] + end[6..15] : null;
    }

    private static string List(IReadOnlyList<HubFile> files)
    {
        const int Most = 40;
        return files.Count == 0 ? "no files" : string.Join(", ", files.Take(Most).Select(f => f.Path)) + (files.Count > Most ? $" and {files.Count - Most} more" : "");
    }
}
