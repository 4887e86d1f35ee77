using System.Collections.Concurrent;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Sluice.Hub;

namespace Sluice.Tests.Host;

/// <summary>Plays the hub's API for one model, "org/model": large files by redirect to a second server, as the hub's own are. Faults are set by the test.</summary>
internal sealed class HubFake : IDisposable
{
    public const string Commit = "0123456789abcdef0123456789abcdef01234567";

    private readonly Dictionary<string, byte[]> _files = [];
    private readonly TempFolder _folder = new();

    public HubFake()
    {
        Hub = new HubServer(AnswerHub);
        Cdn = new HubServer(AnswerCdn);
    }

    public HubServer Hub { get; }

    public HubServer Cdn { get; }

    /// <summary>After how many bytes each next body of the file server is cut.</summary>
    public ConcurrentQueue<int> Cuts { get; } = new();

    /// <summary>Answers that come before all others, by the hub.</summary>
    public ConcurrentQueue<HubAnswer> First { get; } = new();

    /// <summary>Changes an answer of the file server.</summary>
    public Func<HubAnswer, HubAnswer> Change { get; set; } = a => a;

    /// <summary>Whether the file server looks at If-Range.</summary>
    public bool HonoursIfRange { get; set; } = true;

    public string Etag { get; set; } = "\"one\"";

    public string? ListedSha { get; set; }

    public string? ExtraListing { get; set; }

    public List<TimeSpan> Delays { get; } = [];

    public string CacheFolder => _folder["cache"];

    public string ModelFolder => Path.Combine(CacheFolder, "models", "org", "model");

    /// <summary>Requests for content, at both servers.</summary>
    public int ContentRequests => Cdn.Requests.Count + Hub.Requests.Count(r => r.Path.Contains("/resolve/", StringComparison.Ordinal));

    public static byte[] Bytes(int length, int seed)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    public HubFake With(string name, byte[] bytes)
    {
        _files[name] = bytes;
        return this;
    }

    public HubFake With(params string[] names)
    {
        foreach (string name in names)
        {
            _files[name] = Bytes(500 + name.Length, name.Length);
        }

        return this;
    }

    public byte[] File(string name) => _files[name];

    public HubOptions Options() => new()
    {
        Endpoint = Hub.Address,
        CacheFolder = CacheFolder,
        Delay = (time, cancellation) =>
        {
            lock (Delays)
            {
                Delays.Add(time);
            }

            return Task.Delay(1, cancellation);
        },
    };

    public async Task<string> PullAsync(string reference, HubOptions? options = null, IProgress<HubProgress>? progress = null, CancellationToken cancellation = default)
    {
        using HubClient client = new(options ?? Options());
        return await client.PullAsync(HubReference.Parse(reference), progress, cancellation);
    }

    public void Dispose()
    {
        Hub.Dispose();
        Cdn.Dispose();
        _folder.Dispose();
    }

    private static bool IsLarge(string name) => name.EndsWith(".gguf", StringComparison.Ordinal) || name.EndsWith(".safetensors", StringComparison.Ordinal);

    private HubAnswer AnswerHub(HubRequest request)
    {
        if (First.TryDequeue(out HubAnswer? first))
        {
            return first;
        }

        if (request.Path.StartsWith("/api/models/org/model/revision/", StringComparison.Ordinal))
        {
            return request.Path.EndsWith("?blobs=true", StringComparison.Ordinal) ? new HubAnswer(200, Listing()) : new HubAnswer(400, []);
        }

        string prefix = $"/org/model/resolve/{Commit}/";
        string name = request.Path.StartsWith(prefix, StringComparison.Ordinal) ? Uri.UnescapeDataString(request.Path[prefix.Length..]) : "";
        if (!_files.TryGetValue(name, out byte[]? bytes))
        {
            return new HubAnswer(404, [], ("X-Error-Code", "EntryNotFound"), ("X-Error-Message", "Entry not found"));
        }

        return IsLarge(name) ? new HubAnswer(302, [], ("Location", $"{Cdn.Address}file/{Uri.EscapeDataString(name)}?signature=x"), ("X-Repo-Commit", Commit)) : new HubAnswer(200, bytes, ("ETag", "\"small\""));
    }

    private HubAnswer AnswerCdn(HubRequest request)
    {
        byte[] bytes = _files[Uri.UnescapeDataString(request.Path[6..request.Path.IndexOf('?', StringComparison.Ordinal)])];
        int from = 0;
        if (request.Header("Range") is not null && (!HonoursIfRange || (request.Header("If-Range") ?? Etag) == Etag))
        {
            from = int.Parse(request.Header("Range")!["bytes=".Length..^1], CultureInfo.InvariantCulture);
        }

        (string, string)[] headers = from > 0 ? [("ETag", Etag), ("Content-Range", $"bytes {from}-{bytes.Length - 1}/{bytes.Length}")] : [("ETag", Etag)];
        return Change(new HubAnswer(from > 0 ? 206 : 200, bytes[from..], headers) { CutAfter = Cuts.TryDequeue(out int cut) ? cut : null });
    }

    private byte[] Listing()
    {
        IEnumerable<string> files = _files.Select(f => IsLarge(f.Key)
            ? $$"""{"rfilename":{{Quote(f.Key)}},"size":{{f.Value.Length}},"blobId":"{{new string('a', 40)}}","lfs":{"sha256":"{{ListedSha ?? Convert.ToHexStringLower(SHA256.HashData(f.Value))}}","size":{{f.Value.Length}},"pointerSize":135} }"""
            : $$"""{"rfilename":{{Quote(f.Key)}},"size":{{f.Value.Length}},"blobId":"{{GitBlob(f.Value)}}"}""");
        return Encoding.UTF8.GetBytes($$"""{"id":"org/model","sha":"{{Commit}}","private":false,"siblings":[{{string.Join(',', files)}}{{(ExtraListing is null ? "" : "," + ExtraListing)}}]}""");
    }

    private static string Quote(string s) => "\"" + JsonEncodedText.Encode(s) + "\"";

    private static string GitBlob(byte[] bytes)
    {
#pragma warning disable CA5350 // git's own names
        return Convert.ToHexStringLower(SHA1.HashData([.. Encoding.ASCII.GetBytes($"blob {bytes.Length}\0"), .. bytes]));
#pragma warning restore CA5350
    }
}
