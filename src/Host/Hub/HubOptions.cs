namespace Sluice.Hub;

/// <summary>How far a pull is.</summary>
/// <param name="File">The file that is being brought.</param>
/// <param name="FileBytes">Bytes of it that are here.</param>
/// <param name="FileTotal">Its size; -1 where the hub does not tell.</param>
/// <param name="Bytes">Bytes of all files that are here.</param>
/// <param name="Total">Bytes of all files, as far as the hub tells.</param>
public readonly record struct HubProgress(string File, long FileBytes, long FileTotal, long Bytes, long Total);

/// <summary>Where the hub is, and where its files go.</summary>
public sealed record HubOptions
{
    /// <summary>The public hub.</summary>
    public const string DefaultEndpoint = "https://huggingface.co";

    /// <summary>The hub's address: <c>HF_ENDPOINT</c>, else the public one.</summary>
    public Uri Endpoint { get; init; } = new(DefaultEndpoint);

    /// <summary>The token that opens gated and private models, or null. It is sent to <see cref="Endpoint"/> and to no other host.</summary>
    public string? Token { get; init; }

    /// <summary>The folder that keeps what was brought.</summary>
    public required string CacheFolder { get; init; }

    /// <summary>Whether only what is in the cache is used.</summary>
    public bool Offline { get; init; }

    /// <summary>Tries in a row that bring no byte before a pull gives up.</summary>
    public int Attempts { get; init; } = 6;

    /// <summary>How long a connection may be silent before it is taken for dead.</summary>
    public TimeSpan Stall { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>Waits between tries, and for the lock of another process.</summary>
    internal Func<TimeSpan, CancellationToken, Task> Delay { get; init; } = Task.Delay;

    /// <summary>Bytes free where a folder is; null where that cannot be told.</summary>
    internal Func<string, long?> FreeSpace { get; init; } = FreeBytes;

    /// <summary>
    /// What the environment says: <c>HF_ENDPOINT</c>; a token from <c>HF_TOKEN</c>, <c>HUGGING_FACE_HUB_TOKEN</c> or the file <c>token</c> in <c>HF_HOME</c>
    /// (else <c>~/.cache/huggingface</c>); <c>HF_HUB_OFFLINE</c>; <c>SLUICE_CACHE</c>, else the platform's cache folder.
    /// </summary>
    /// <exception cref="HubException"><c>HF_ENDPOINT</c> is no address, or there is no home folder.</exception>
    public static HubOptions FromEnvironment() => Read(Environment.GetEnvironmentVariable, Environment.GetFolderPath(Environment.SpecialFolder.UserProfile));

    internal static HubOptions Read(Func<string, string?> variable, string home)
    {
        string endpoint = Set("HF_ENDPOINT") ?? DefaultEndpoint;
        if (!Uri.TryCreate(endpoint, UriKind.Absolute, out Uri? address) || (address.Scheme != Uri.UriSchemeHttps && address.Scheme != Uri.UriSchemeHttp))
        {
            throw new HubException(HubError.Request, $"HF_ENDPOINT is '{HubReference.Shown(endpoint)}', and must be an address such as {DefaultEndpoint}");
        }

        return new HubOptions
        {
            Endpoint = address,
            Token = Set("HF_TOKEN") ?? Set("HUGGING_FACE_HUB_TOKEN") ?? TokenFile(),
            CacheFolder = Set("SLUICE_CACHE") ?? Path.Combine(Cache(), "sluice"),
            Offline = Set("HF_HUB_OFFLINE") is "1" or "true" or "TRUE" or "ON" or "YES",
        };

        string? Set(string name) => variable(name)?.Trim() is { Length: > 0 } value ? value : null;

        string Cache() =>
            OperatingSystem.IsWindows() ? Set("LOCALAPPDATA") ?? Path.Combine(Home(), "AppData", "Local")
            : OperatingSystem.IsMacOS() ? Path.Combine(Home(), "Library", "Caches")
            : Set("XDG_CACHE_HOME") is { } xdg && Path.IsPathRooted(xdg) ? xdg : Path.Combine(Home(), ".cache");

        string Home() => home.Length > 0 ? home : throw new HubException(HubError.Request, "there is no home folder to keep models in: set SLUICE_CACHE to a folder");

        string? TokenFile()
        {
            string folder = Set("HF_HOME") ?? Path.Combine(home, ".cache", "huggingface");
            string path = Path.Combine(folder, "token");
            try
            {
                return File.Exists(path) && File.ReadAllText(path).Trim() is { Length: > 0 } token ? token : null;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                return null; // open models need none
            }
        }
    }

    private static long? FreeBytes(string folder)
    {
        try
        {
            return new DriveInfo(Path.GetFullPath(folder)).AvailableFreeSpace;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return null;
        }
    }
}
