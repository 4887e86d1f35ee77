using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;

namespace Sluice.Hub;

/// <summary>Brings one file: into <c>FILE.partial</c>, from where it was left, checked as it comes, and renamed when it is whole.</summary>
internal sealed class HubDownload(HubTransport transport, HubCache cache, HubReference reference, string commit, HubFile file, Action<long> report)
{
    private const int BufferBytes = 1 << 17;

    // One fresh start for a checksum that is wrong: a proxy or a disk may have been at fault.
    private const int MostRestarts = 1;

    private readonly string _path = cache.PathOf(commit, file);
    private FileStream _partial = null!;
    private IncrementalHash? _hash;
    private string? _etag;
    private long _length;
    private long _received;

    private string PartialPath => _path + ".partial";

    private string EtagPath => _path + ".partial.etag";

    public async Task RunAsync(CancellationToken cancellation)
    {
        cache.OnDisk(() => Directory.CreateDirectory(Path.GetDirectoryName(_path)!));
        _partial = cache.OnDisk(() => new FileStream(PartialPath, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, 1, useAsync: true));
        try
        {
            await ResumeAsync(cancellation).ConfigureAwait(false);
            for (int restarts = 0; ; restarts++)
            {
                await transport.RetryAsync($"{reference}: {file.Path}", () => AttemptAsync(cancellation), () => _received, cancellation).ConfigureAwait(false);
                if (Mismatch() is not { } detail)
                {
                    break;
                }

                Restart();
                if (restarts == MostRestarts)
                {
                    throw new HubException(HubError.Corrupt, $"{reference}: {file.Path} arrived twice and is not what the hub lists: {detail}. Nothing of it is kept; try again later");
                }
            }

            cache.OnDisk(() =>
            {
                _partial.Flush(flushToDisk: true);
                return true;
            });
        }
        finally
        {
            await _partial.DisposeAsync().ConfigureAwait(false);
            _hash?.Dispose();
        }

        cache.OnDisk(() =>
        {
            File.Move(PartialPath, _path, overwrite: true);
            File.Delete(EtagPath);
            return true;
        });
    }

    // What an earlier pull left counts towards the checksum.
    private async Task ResumeAsync(CancellationToken cancellation)
    {
        _length = _partial.Length;
        _etag = _length > 0 && File.Exists(EtagPath) ? cache.OnDisk(() => File.ReadAllText(EtagPath)) : null;
        if (_length > 0 && (_etag is null || (file.Size >= 0 && _length > file.Size)))
        {
            Restart();
            return;
        }

        NewHash();
        byte[] buffer = new byte[BufferBytes];
        _partial.Position = 0;
        while (_hash is not null && await ReadPartialAsync(buffer, cancellation).ConfigureAwait(false) is int count and > 0)
        {
            _hash.AppendData(buffer, 0, count);
        }

        _partial.Position = _length;
        report(_length);
    }

    private async Task<int> ReadPartialAsync(byte[] buffer, CancellationToken cancellation)
    {
        try
        {
            return await _partial.ReadAsync(buffer, cancellation).ConfigureAwait(false);
        }
        catch (IOException e)
        {
            throw cache.DiskFailure(e);
        }
    }

    private void Restart()
    {
        cache.OnDisk(() =>
        {
            _partial.SetLength(0);
            _partial.Position = 0;
            File.Delete(EtagPath);
            return true;
        });
        _length = 0;
        _etag = null;
        NewHash();
        report(0);
    }

    private void NewHash()
    {
        _hash?.Dispose();
        _hash = null;
        if (file.Sha256 is not null)
        {
            _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        }
        else if (file.BlobId is not null && file.Size >= 0)
        {
            // Git's name of a file: SHA-1 of "blob SIZE", a zero byte, and the bytes.
            _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA1);
            _hash.AppendData(Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"blob {file.Size}\0")));
        }
    }

    private string? Mismatch()
    {
        if (file.Size >= 0 && _length != file.Size)
        {
            return $"{_length:N0} bytes came, and {file.Size:N0} are listed";
        }

        if (_hash is null)
        {
            return null;
        }

        string got = Convert.ToHexStringLower(_hash.GetHashAndReset());
        string expected = file.Sha256 ?? file.BlobId!;
        return got == expected ? null : $"its checksum is {got}, and {expected} is listed";
    }

    private async Task<bool> AttemptAsync(CancellationToken cancellation)
    {
        if (file.Size >= 0 && _length == file.Size && (_length > 0 || file.Size == 0))
        {
            return true;
        }

        string path = string.Join('/', file.Path.Split('/').Select(Uri.EscapeDataString));
        using HttpResponseMessage response = await transport.GetAsync(reference, transport.Address($"{reference.Model}/resolve/{commit}/{path}"), Ask, cancellation).ConfigureAwait(false);
        if (!Continues(response))
        {
            if (_length > 0)
            {
                Restart();
            }

            if (response.StatusCode is not HttpStatusCode.OK)
            {
                throw new RetryException($"the server answers {(int)response.StatusCode} for a part that is not the one asked for");
            }
        }

        KeepEtag(response.Headers.ETag?.ToString());
        long? total = response.Content.Headers.ContentLength is { } rest ? _length + rest : null;
        if (file.Size >= 0 && total is { } announced && announced != file.Size)
        {
            throw new HubException(HubError.Corrupt, $"{reference}: {file.Path} has {file.Size:N0} bytes as the hub lists it, and {announced:N0} are sent; try again later");
        }

        await CopyAsync(response, cancellation).ConfigureAwait(false);
        return total is null || _length == total ? true : throw new RetryException($"the connection was cut after {_length:N0} of {total:N0} bytes");
    }

    private void Ask(HttpRequestHeaders headers)
    {
        if (_length > 0)
        {
            headers.Range = new RangeHeaderValue(_length, null);

            // A weak tag must not stand there; it is compared with the answer's then.
            if (_etag is { } tag && EntityTagHeaderValue.TryParse(tag, out EntityTagHeaderValue? parsed) && !parsed.IsWeak)
            {
                headers.IfRange = new RangeConditionHeaderValue(parsed);
            }
        }
    }

    // Whether an answer goes on where the partial file ends, and is about the same bytes.
    private bool Continues(HttpResponseMessage response) =>
        _length > 0 && response.StatusCode == HttpStatusCode.PartialContent && response.Content.Headers.ContentRange is { } range && range.From == _length
        && (file.Size < 0 || range.Length is null || range.Length == file.Size) && (response.Headers.ETag?.ToString() ?? "") == _etag;

    // Bytes without a tag are no use to a later pull: an empty one says that the server gives none.
    private void KeepEtag(string? tag)
    {
        if (_etag != (tag ?? ""))
        {
            _etag = tag ?? "";
            cache.OnDisk(() =>
            {
                File.WriteAllText(EtagPath, _etag);
                return true;
            });
        }
    }

    private async Task CopyAsync(HttpResponseMessage response, CancellationToken cancellation)
    {
        Stream body = await response.Content.ReadAsStreamAsync(cancellation).ConfigureAwait(false);
        await using (body.ConfigureAwait(false))
        {
            byte[] buffer = new byte[BufferBytes];
            while (await transport.ReadAsync(body, buffer, cancellation).ConfigureAwait(false) is int count and > 0)
            {
                if (file.Size >= 0 && _length + count > file.Size)
                {
                    throw new HubException(HubError.Corrupt, $"{reference}: {file.Path} has {file.Size:N0} bytes as the hub lists it, and more are sent; try again later");
                }

                try
                {
                    // Not to be cancelled: what is counted is on disk.
                    await _partial.WriteAsync(buffer.AsMemory(0, count), CancellationToken.None).ConfigureAwait(false);
                }
                catch (IOException e)
                {
                    throw cache.DiskFailure(e);
                }

                _hash?.AppendData(buffer, 0, count);
                _length += count;
                _received += count;
                report(_length);
            }
        }
    }
}
