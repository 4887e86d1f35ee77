using System.Text.Json;

namespace Sluice.Hub;

/// <summary>A file as the hub lists it.</summary>
/// <param name="Path">Its path in the model; checked, so that it stays below the folder it is joined to.</param>
/// <param name="Size">Bytes; -1 where the hub does not tell.</param>
/// <param name="Sha256">The SHA-256 of its bytes in lower hex; null for a file that git itself holds.</param>
/// <param name="BlobId">Git's SHA-1 of it as a blob in lower hex; null where the hub does not tell.</param>
public sealed record HubFile(string Path, long Size, string? Sha256, string? BlobId);

/// <summary>A model at one commit: what <c>GET /api/models/OWNER/NAME/revision/REVISION?blobs=true</c> answers.</summary>
/// <param name="Commit">The commit that the revision means.</param>
/// <param name="Files">Its files.</param>
public sealed record HubListing(string Commit, IReadOnlyList<HubFile> Files)
{
    private const int MostFiles = 100_000;

    /// <summary>Reads the hub's answer.</summary>
    /// <exception cref="HubException">It is something else, or names a file that must not be written.</exception>
    internal static HubListing Parse(string model, ReadOnlyMemory<byte> json)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(json);
            JsonElement top = document.RootElement;
            string commit = top.GetProperty("sha").GetString() ?? "";
            if (!IsHex(commit, 40) && !IsHex(commit, 64))
            {
                throw Wrong(model, $"its commit is '{HubReference.Shown(commit)}'");
            }

            JsonElement siblings = top.GetProperty("siblings");
            if (siblings.GetArrayLength() > MostFiles)
            {
                throw Wrong(model, $"it lists more than {MostFiles:N0} files");
            }

            List<HubFile> files = [];
            HashSet<string> names = new(StringComparer.OrdinalIgnoreCase);
            foreach (JsonElement sibling in siblings.EnumerateArray())
            {
                HubFile file = ParseFile(model, sibling);
                files.Add(names.Add(file.Path) ? file : throw Wrong(model, $"it lists '{file.Path}' twice"));
            }

            return new HubListing(commit, files);
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException or FormatException)
        {
            throw Wrong(model, "it is not the JSON that the API gives", e);
        }
    }

    /// <summary>Whether a text is a number of so many lower or upper hexadecimal digits.</summary>
    internal static bool IsHex(string text, int length) => text.Length == length && text.All(char.IsAsciiHexDigit);

    private static HubFile ParseFile(string model, JsonElement sibling)
    {
        string path = sibling.GetProperty("rfilename").GetString() ?? "";
        if (!HubReference.IsSafeFile(path))
        {
            throw Wrong(model, $"it lists a file '{HubReference.Shown(path)}', which must not be written");
        }

        long size = sibling.TryGetProperty("size", out JsonElement s) && s.ValueKind == JsonValueKind.Number ? s.GetInt64() : -1;
        string? sha = null;
        if (sibling.TryGetProperty("lfs", out JsonElement lfs) && lfs.ValueKind == JsonValueKind.Object)
        {
            sha = Hash(model, lfs, "sha256", 64);
            size = lfs.TryGetProperty("size", out JsonElement large) && large.ValueKind == JsonValueKind.Number ? large.GetInt64() : size;
        }

        return new HubFile(path, size < 0 ? -1 : size, sha, sha is null ? Hash(model, sibling, "blobId", 40) : null);
    }

    private static string? Hash(string model, JsonElement element, string name, int length)
    {
        if (!element.TryGetProperty(name, out JsonElement value) || value.ValueKind != JsonValueKind.String)
        {
            return null;
        }

        string hash = value.GetString()!;
        return IsHex(hash, length) ? hash.ToLowerInvariant() : throw Wrong(model, $"a {name} is '{HubReference.Shown(hash)}'");
    }

    private static HubException Wrong(string model, string detail, Exception? inner = null) =>
        new(HubError.Protocol, $"{model}: the hub's listing cannot be used: {detail}", inner);
}
