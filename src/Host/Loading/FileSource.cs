using System.IO.MemoryMappedFiles;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Sluice.Loading;

/// <summary>
/// A file's bytes by offset, mapped into memory or not. Reads are file calls either way, which leave none of the file in the process's memory; they may come
/// from any thread.
/// </summary>
internal sealed class FileSource : IDisposable
{
    private readonly SafeFileHandle? _file;
    private readonly MemoryMappedFile? _map;
    private readonly MemoryMappedViewAccessor? _view;

    private FileSource(string path, SafeFileHandle? file, long length, MemoryMappedFile? map, MemoryMappedViewAccessor? view)
    {
        Path = path;
        Length = length;
        _file = file;
        _map = map;
        _view = view;
    }

    public string Path { get; }

    /// <summary>The file's length in bytes when it was opened.</summary>
    public long Length { get; }

    /// <summary>The mapping, or null without one. File offset o is at byte o + <see cref="MappedStart"/> of it.</summary>
    public SafeBuffer? Mapping => _view?.SafeMemoryMappedViewHandle;

    public long MappedStart => _view?.PointerOffset ?? 0;

    /// <summary>When its contents were changed last, before it was opened.</summary>
    public DateTime Modified => _file is null ? default : File.GetLastWriteTimeUtc(_file);

    /// <summary>
    /// A mapping of this range alone, or null where the file is not mapped: what is touched of it is in the process's memory until it is disposed, and no longer,
    /// unlike what is touched of <see cref="Mapping"/>.
    /// </summary>
    public MemoryMappedViewAccessor? MapRange(long offset, long length) => _map?.CreateViewAccessor(offset, length, MemoryMappedFileAccess.Read);

    public static FileSource Open(string path, bool memoryMap)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        if (Directory.Exists(path))
        {
            throw new UnsupportedModelException(path, "", "is a folder, and a file is expected");
        }

        if (!File.Exists(path))
        {
            throw new FileNotFoundException($"model file '{path}' does not exist", path);
        }

        string target = File.ResolveLinkTarget(path, returnFinalTarget: true)?.FullName ?? path;
        if (new FileInfo(target).Length == 0)
        {
            // Nothing to read; and what only seems to be empty, a pipe or a device, might never answer.
            return new FileSource(path, null, 0, null, null);
        }

        SafeFileHandle file = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete);
        MemoryMappedFile? map = null;
        try
        {
            long length;
            try
            {
                length = RandomAccess.GetLength(file);
            }
            catch (NotSupportedException e)
            {
                throw new ModelFormatException(path, "", "is not a regular file, and a model must be read at any offset", e);
            }

            if (!memoryMap || length == 0)
            {
                return new FileSource(path, file, length, null, null);
            }

            map = MemoryMappedFile.CreateFromFile(file, null, 0, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: true);
            MemoryMappedViewAccessor view = map.CreateViewAccessor(0, length, MemoryMappedFileAccess.Read);
            return new FileSource(path, file, length, map, view);
        }
        catch
        {
            map?.Dispose();
            file.Dispose();
            throw;
        }
    }

    /// <summary>Fills <paramref name="destination"/> from <paramref name="offset"/>; the caller has checked the range against <see cref="Length"/>.</summary>
    public void Read(long offset, Span<byte> destination)
    {
        if (offset < 0 || destination.Length > Length - offset)
        {
            throw new ArgumentOutOfRangeException(nameof(offset), $"bytes {offset:N0} to {offset + destination.Length:N0} are outside a file of {Length:N0}");
        }

        while (!destination.IsEmpty)
        {
            int got = RandomAccess.Read(_file!, destination, offset);
            if (got == 0)
            {
                throw new ModelFormatException(Path, "", $"had {Length:N0} bytes when opened and now ends at {offset:N0}");
            }

            destination = destination[got..];
            offset += got;
        }
    }

    public void Dispose()
    {
        _view?.Dispose();
        _map?.Dispose();
        _file?.Dispose();
    }
}
