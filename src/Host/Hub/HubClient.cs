namespace Sluice.Hub;

/// <summary>
/// Brings models from a hub that speaks Hugging Face's HTTP API into a cache on disk. A pull that was cut goes on where it ended; a second
/// one needs no content; several processes may pull at once. May be used from several threads.
/// </summary>
public sealed class HubClient : IDisposable
{
    private const int MostListingBytes = 64 << 20;

    private readonly HubOptions _options;
    private readonly HttpClient _http;
    private readonly bool _owned;
    private readonly HubTransport _transport;

    /// <summary>Makes a client.</summary>
    /// <param name="options">Null: what the environment says.</param>
    /// <param name="http">
    /// A client to use, which stays the caller's; null: an own one. One that follows redirects by itself must drop the Authorization header then, as
    /// .NET's handlers do.
    /// </param>
    public HubClient(HubOptions? options = null, HttpClient? http = null)
    {
        _options = options ?? HubOptions.FromEnvironment();
        _owned = http is null;
        _http = http ?? HubTransport.CreateClient();
        _transport = new HubTransport(_http, _options);
    }

    /// <summary>The files of a model at a revision, as the hub lists them now.</summary>
    /// <exception cref="HubException">The hub cannot be reached, refuses, or answers something else.</exception>
    public async Task<HubListing> ListAsync(HubReference reference, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(reference);
        Uri address = _transport.Address($"api/models/{reference.Model}/revision/{Uri.EscapeDataString(reference.Revision)}?blobs=true");
        return await _transport.RetryAsync(reference.ToString(), () => ReadListingAsync(reference, address, cancellation), () => 0, cancellation).ConfigureAwait(false);
    }

    /// <summary>
    /// Brings what a reference means, as far as it is not here: the named file (with all parts of a split one), else the folder of safetensors with
    /// its configuration and tokenizer, else the only GGUF file. When the hub cannot be reached, what is cached for the revision is used.
    /// </summary>
    /// <returns>The path to load: of the GGUF file (its first part), or of the folder.</returns>
    /// <exception cref="HubException">Why it cannot be had.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled; what has come is kept for the next pull.</exception>
    public async Task<string> PullAsync(HubReference reference, IProgress<HubProgress>? progress = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(reference);
        HubCache cache = new(_options, reference);
        HubListing? known = cache.ReadListing();

        // A commit never changes: what is whole needs no question.
        bool settled = known is not null && (_options.Offline || reference.Revision == known.Commit);
        if (settled && Cached(cache, reference, known!) is { } path)
        {
            return path;
        }

        if (_options.Offline)
        {
            throw new HubException(HubError.Network, $"{reference} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it");
        }

        HubListing listing;
        try
        {
            listing = await ListAsync(reference, cancellation).ConfigureAwait(false);
        }
        catch (HubException e) when (e.Kind == HubError.Network && known is not null && Cached(cache, reference, known) is not null)
        {
            return Cached(cache, reference, known)!;
        }

        HubSelection chosen = HubSelection.Choose(reference, listing.Files);
        cache.WriteListing(listing);
        if (!chosen.Files.All(f => cache.Has(listing.Commit, f)))
        {
            await FetchAsync(cache, reference, listing.Commit, chosen, progress, cancellation).ConfigureAwait(false);
        }

        return PathOf(cache, listing, chosen);
    }

    /// <summary>Releases the connections of an own client.</summary>
    public void Dispose()
    {
        if (_owned)
        {
            _http.Dispose();
        }
    }

    private static string? Cached(HubCache cache, HubReference reference, HubListing listing)
    {
        HubSelection chosen = HubSelection.Choose(reference, listing.Files);
        return chosen.Files.All(f => cache.Has(listing.Commit, f)) ? PathOf(cache, listing, chosen) : null;
    }

    private static string PathOf(HubCache cache, HubListing listing, HubSelection chosen) =>
        chosen.Entry is { } entry ? cache.PathOf(listing.Commit, chosen.Files.First(f => f.Path == entry)) : cache.Folder(listing.Commit);

    private async Task FetchAsync(HubCache cache, HubReference reference, string commit, HubSelection chosen, IProgress<HubProgress>? progress, CancellationToken cancellation)
    {
        FileStream held = await cache.LockAsync(commit, cancellation).ConfigureAwait(false);
        await using (held.ConfigureAwait(false))
        {
            // Another process may have brought some of them meanwhile.
            long total = chosen.Files.Sum(f => Math.Max(f.Size, 0)), done = 0, missing = 0;
            foreach (HubFile file in chosen.Files.Where(f => !cache.Has(commit, f)))
            {
                FileInfo partial = new(cache.PathOf(commit, file) + ".partial");
                missing += Math.Max(0, file.Size - (partial.Exists ? partial.Length : 0));
            }

            cache.RequireSpace(commit, missing);
            foreach (HubFile file in chosen.Files)
            {
                long before = done;
                if (!cache.Has(commit, file))
                {
                    void Report(long bytes) => progress?.Report(new HubProgress(file.Path, bytes, file.Size, before + bytes, total));
                    await new HubDownload(_transport, cache, reference, commit, file, Report).RunAsync(cancellation).ConfigureAwait(false);
                }

                done += Math.Max(file.Size, 0);
                progress?.Report(new HubProgress(file.Path, file.Size, file.Size, done, total));
            }
        }
    }

    private async Task<HubListing> ReadListingAsync(HubReference reference, Uri address, CancellationToken cancellation)
    {
        using HttpResponseMessage response = await _transport.GetAsync(reference, address, null, cancellation).ConfigureAwait(false);
        Stream body = await response.Content.ReadAsStreamAsync(cancellation).ConfigureAwait(false);
        await using (body.ConfigureAwait(false))
        {
            using MemoryStream json = new();
            byte[] buffer = new byte[1 << 16];
            while (await _transport.ReadAsync(body, buffer, cancellation).ConfigureAwait(false) is int count and > 0)
            {
                json.Write(buffer, 0, count);
                if (json.Length > MostListingBytes)
                {
                    throw new HubException(HubError.Protocol, $"{reference.Model}: the hub's listing has more than {MostListingBytes:N0} bytes");
                }
            }

            return response.Content.Headers.ContentLength is { } length && length != json.Length ? throw new RetryException("the connection was cut") : HubListing.Parse(reference.Model, json.GetBuffer().AsMemory(0, (int)json.Length));
        }
    }
}
