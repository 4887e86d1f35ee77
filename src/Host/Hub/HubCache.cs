using System.Text.Json;

namespace Sluice.Hub;

/// <summary>
/// What was brought, on disk: <c>models/OWNER/NAME/COMMIT/FILE</c>; beside the commit's folder <c>COMMIT.json</c> (its files as the hub listed
/// them) and <c>refs/REVISION</c> (the commit that it last meant). A file under its own name is whole and checked; what is on its way has
/// the ending <c>.partial</c>.
/// </summary>
internal sealed class HubCache(HubOptions options, HubReference reference)
{
    private const int LockPauseMs = 250;

    private readonly string _model = Path.Combine(Path.GetFullPath(options.CacheFolder), "models", reference.Owner, reference.Name);

    public string Folder(string commit) => Path.Combine(_model, commit);

    /// <summary>Where a file goes; never outside of the commit's folder.</summary>
    public string PathOf(string commit, HubFile file)
    {
        string folder = Folder(commit) + Path.DirectorySeparatorChar;
        string path = Path.GetFullPath(Path.Combine(folder, file.Path.Replace('/', Path.DirectorySeparatorChar)));
        return path.StartsWith(folder, StringComparison.Ordinal) && HubReference.IsSafeFile(file.Path) ? path
            : throw new HubException(HubError.Protocol, $"{reference.Model} lists a file '{HubReference.Shown(file.Path)}', which must not be written");
    }

    /// <summary>Whether a file is here, whole.</summary>
    public bool Has(string commit, HubFile file)
    {
        FileInfo info = new(PathOf(commit, file));
        return info.Exists && (file.Size < 0 || info.Length == file.Size);
    }

    /// <summary>What the hub last listed for the revision, or null.</summary>
    public HubListing? ReadListing()
    {
        try
        {
            string commit = HubListing.IsHex(reference.Revision, 40) ? reference.Revision : File.ReadAllText(RefPath).Trim();
            string path = Folder(commit) + ".json";
            return HubListing.IsHex(commit, commit.Length) && File.Exists(path) ? HubListing.Parse(reference.Model, File.ReadAllBytes(path)) : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or HubException)
        {
            return null; // as good as not there
        }
    }

    /// <summary>Keeps a listing for when the hub cannot be reached.</summary>
    public void WriteListing(HubListing listing)
    {
        using MemoryStream json = new();
        using (Utf8JsonWriter writer = new(json))
        {
            writer.WriteStartObject();
            writer.WriteString("sha", listing.Commit);
            writer.WriteStartArray("siblings");
            foreach (HubFile file in listing.Files)
            {
                writer.WriteStartObject();
                writer.WriteString("rfilename", file.Path);
                writer.WriteNumber("size", file.Size);
                if (file.BlobId is not null)
                {
                    writer.WriteString("blobId", file.BlobId);
                }

                if (file.Sha256 is not null)
                {
                    writer.WriteStartObject("lfs");
                    writer.WriteString("sha256", file.Sha256);
                    writer.WriteEndObject();
                }

                writer.WriteEndObject();
            }

            writer.WriteEndArray();
            writer.WriteEndObject();
        }

        OnDisk(() =>
        {
            Directory.CreateDirectory(Path.GetDirectoryName(RefPath)!);
            Replace(Folder(listing.Commit) + ".json", json.ToArray());
            Replace(RefPath, System.Text.Encoding.ASCII.GetBytes(listing.Commit));
            return true;
        });
    }

    /// <summary>Waits until no other process brings this commit, and keeps others waiting until it is disposed.</summary>
    public async Task<FileStream> LockAsync(string commit, CancellationToken cancellation)
    {
        OnDisk(() => Directory.CreateDirectory(Folder(commit)));
        while (true)
        {
            cancellation.ThrowIfCancellationRequested();
            try
            {
                return new FileStream(Folder(commit) + ".lock", FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (UnauthorizedAccessException e)
            {
                throw DiskFailure(e);
            }
            catch (IOException e) when (e is not (DirectoryNotFoundException or PathTooLongException))
            {
                await options.Delay(TimeSpan.FromMilliseconds(LockPauseMs), cancellation).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Fails where so many bytes have no room.</summary>
    public void RequireSpace(string commit, long bytes)
    {
        if (options.FreeSpace(Folder(commit)) is { } free && bytes > free)
        {
            throw new HubException(HubError.Disk, $"{reference}: {bytes:N0} bytes are still to come, and {_model} has {free:N0} free: make room, or set SLUICE_CACHE to another folder");
        }
    }

    /// <summary>Does something on disk; what fails there is a typed error.</summary>
    public T OnDisk<T>(Func<T> act)
    {
        try
        {
            return act();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw DiskFailure(e);
        }
    }

    /// <summary>An error of the cache's disk.</summary>
    public HubException DiskFailure(Exception e) =>
        new(HubError.Disk, $"{reference}: the cache at {_model} cannot be written ({e.Message}): make room or give permission, or set SLUICE_CACHE to another folder", e);

    private string RefPath => Path.Combine(_model, "refs", Uri.EscapeDataString(reference.Revision));

    // Others read the old one or the new one, never half of it.
    private static void Replace(string path, byte[] bytes)
    {
        string fresh = $"{path}.{Guid.NewGuid():N}.tmp";
        File.WriteAllBytes(fresh, bytes);
        File.Move(fresh, path, overwrite: true);
    }
}
