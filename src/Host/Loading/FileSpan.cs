using System.Runtime.InteropServices;

namespace Sluice.Loading;

/// <summary>Bytes of an open file, whose range has been checked against it.</summary>
internal readonly record struct FileSpan(FileSource File, long Offset, long Length)
{
    /// <summary>A part of these bytes.</summary>
    public FileSpan Slice(long offset, long length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, Length - offset);
        return new FileSpan(File, Offset + offset, length);
    }

    /// <summary>Copies bytes from <paramref name="offset"/> on into all of <paramref name="destination"/>.</summary>
    /// <exception cref="ModelFormatException">The file became shorter.</exception>
    public void Read(long offset, Span<byte> destination)
    {
        if (offset < 0 || destination.Length > Length - offset)
        {
            throw new ArgumentOutOfRangeException(nameof(offset), $"{destination.Length:N0} bytes at {offset:N0} are not within {Length:N0}");
        }

        File.Read(Offset + offset, destination);
    }

    /// <summary>All of the values, in the machine's byte order (little-endian, as the files are).</summary>
    public T[] ReadAll<T>()
        where T : unmanaged
    {
        T[] values = new T[Length / Marshal.SizeOf<T>()];
        Read(0, MemoryMarshal.AsBytes(values.AsSpan()));
        return values;
    }
}
