using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using Sluice.Interop;
using Sluice.Loading;
using Sluice.Models;

namespace Sluice;

/// <summary>What became of the packed copy of a model's weights.</summary>
public enum PackedCopyUse
{
    /// <summary>There is none, and none could be written.</summary>
    None,

    /// <summary>The weights are those of the copy; nothing was packed.</summary>
    Read,

    /// <summary>The weights were packed, and the copy was written.</summary>
    Written,
}

/// <summary>The packed weights of a model in a file beside it (<see cref="ModelOptions.CachePacked"/>).</summary>
/// <param name="Path">The file.</param>
/// <param name="Use">What became of it.</param>
/// <param name="Note">Why there is none, or why an older one was not used; empty where there is nothing to tell.</param>
public sealed record PackedCopy(string Path, PackedCopyUse Use, string Note)
{
    private const string Suffix = ".packed-cpu";
    private const int SampleBytes = 4_096, Samples = 4;

    /// <summary>Loads weights from the copy, or packs them and writes one.</summary>
    /// <inheritdoc cref="ModelWeights.Load"/>
    internal static ModelWeights Load(
        ModelSource source, ModelTensors tensors, ModelConfig config, ComputeStream stream, bool memoryMap, bool verify, IProgress<LoadProgress>? progress, CancellationToken cancellation, out PackedCopy copy)
    {
        string path = source.CopyPath(Suffix);
        if (stream.Device.Backend != Backend.Cpu)
        {
            copy = new PackedCopy(path, PackedCopyUse.None, "the cpu backend alone keeps one");
            return ModelWeights.Load(tensors, config, stream, null, progress, cancellation);
        }

        byte[] identity = IdentityOf(tensors);
        string stale;
        try
        {
            using PackedFile file = PackedFile.Open(path, memoryMap);
            if (file.Identity.AsSpan().SequenceEqual(identity))
            {
                if (verify)
                {
                    file.Verify(cancellation);
                }

                ModelWeights read = ModelWeights.Load(tensors, config, stream, file, progress, cancellation);
                copy = new PackedCopy(path, PackedCopyUse.Read, "");
                return read;
            }

            stale = $"{path}: is of other files than the model's, or the model's have changed";
        }
        catch (FileNotFoundException)
        {
            stale = "";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or SluiceModelException)
        {
            stale = e.Message;
        }

        long total = tensors.ByteLength;
        ModelWeights weights = ModelWeights.Load(tensors, config, stream, null, progress is null ? null : new Report<LoadProgress>(p => progress.Report(p with { TotalBytes = 2 * total })), cancellation);
        try
        {
            stream.Synchronize();
            copy = Write(path, identity, weights, progress is null ? null : share => progress.Report(new LoadProgress(total + (long)(share * total), 2 * total, path)), stale, cancellation);
            return weights;
        }
        catch
        {
            weights.Dispose();
            throw;
        }
    }

    /// <summary>Throws unless the folder of a file has room for so many bytes.</summary>
    /// <exception cref="IOException">It has not; the text says how much there is.</exception>
    internal static void RequireSpace(string path, long bytes)
    {
        string folder = System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(path))!;
        if (OperatingSystem.IsWindows())
        {
            folder = System.IO.Path.GetPathRoot(folder)!;
            if (folder.StartsWith(@"\\", StringComparison.Ordinal))
            {
                return; // a share: the system tells when it is full
            }
        }

        long free = new DriveInfo(folder).AvailableFreeSpace;
        if (free < bytes)
        {
            throw new IOException($"{path}: needs {bytes / 1e6:N0} MB, and {free / 1e6:N0} MB are free there");
        }
    }

    private static PackedCopy Write(string path, byte[] identity, ModelWeights weights, Action<double>? progress, string stale, CancellationToken cancellation)
    {
        try
        {
            RequireSpace(path, (long)weights.Bytes);
            OutputPlace.File(path, file =>
            {
                long length = PackedFile.Write(file, identity, weights.Matrices, done => progress?.Invoke(done / (double)weights.Bytes), cancellation);
                file.Flush(flushToDisk: true); // before the file gets its name: after a crash there is a whole one or none
                return length;
            });
            return new PackedCopy(path, PackedCopyUse.Written, stale);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return new PackedCopy(path, PackedCopyUse.None, stale.Length == 0 ? $"none could be written: {e.Message}" : $"{stale}; and none could be written: {e.Message}");
        }
    }

    // What the weights are made of, wherever the files lie: each file's length and time of its last change, each matrix's sizes, and bytes from its begin,
    // its end and between. Whoever changes a weight changes one of these, unless he keeps both the file's length and its time on purpose.
    private static byte[] IdentityOf(ModelTensors tensors)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        HashSet<FileSource> seen = [];
        byte[] sample = new byte[SampleBytes];
        foreach ((string name, ModelTensor t) in tensors.All.OrderBy(t => t.Key, StringComparer.Ordinal).Where(t => t.Value.Rank == 2))
        {
            byte[] text = Encoding.UTF8.GetBytes(name);
            Number(text.Length);
            hash.AppendData(text);
            foreach (long number in new[] { (long)t.Encoding, t.Rows, t.Columns, t.Group, t.FirstRow, t.AllRows })
            {
                Number(number);
            }

            Span(t.Data);
            if (t.IsGrouped)
            {
                Span(t.Scales);
                Span(t.Zeros);
            }

            Number(t.Order is null ? 0 : 1);
            if (t.Order is { } order)
            {
                Span(order);
            }
        }

        return hash.GetHashAndReset();

        void Span(FileSpan span)
        {
            if (seen.Add(span.File))
            {
                Number(span.File.Length);
                Number(span.File.Modified.Ticks);
            }

            Number(span.Length);
            int bytes = (int)Math.Min(SampleBytes, span.Length);
            for (int i = 0; i < Samples; i++)
            {
                Span<byte> part = sample.AsSpan(0, bytes);
                span.Read((span.Length - bytes) * i / (Samples - 1), part);
                hash.AppendData(part);
            }
        }

        void Number(long number) => hash.AppendData(MemoryMarshal.AsBytes(new ReadOnlySpan<long>(ref number)));
    }

    // Progress<T> posts to a context and may come late.
    private sealed class Report<T>(Action<T> act) : IProgress<T>
    {
        void IProgress<T>.Report(T value) => act(value);
    }
}
