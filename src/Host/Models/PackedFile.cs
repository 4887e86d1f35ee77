using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using Sluice.Interop;
using Sluice.Loading;

namespace Sluice.Models;

/// <summary>
/// A file of packed weights, as a device keeps them:
/// <code>
/// 0    header: "SLUICEPK", u32 version, u32 weights, [32] identity of what they were made from, u64 offset and u64 bytes of the table, [32] SHA-256
///      of the header before it and of the table
/// 128  the weights: each from a multiple of 64 bytes on, then, where it has one, its order of columns (i32), from a multiple of 64 on
///      the table, up to the file's end. Of each weight, in the file's order: u16 length and UTF-8 of its name, i32 encoding, i64 rows, i64 cols,
///      i32 group, u64 layout, u64 offset, u64 bytes, u64 offset of the order or 0, u32 CRC-32C of its bytes and its order
/// </code>
/// All numbers are little-endian. Nothing in it is believed before it is checked; what weights hold are numbers of which any are right.
/// </summary>
internal sealed class PackedFile : IDisposable
{
    public const int IdentityBytes = 32;
    private const int HeaderBytes = 128, SignedBytes = 64, DigestBytes = 32, Alignment = 64, MostTableBytes = 1 << 26, PieceBytes = 1 << 20;
    private const uint Version = 1;
    private readonly FileSource _file;
    private readonly Dictionary<string, Entry> _entries = new(StringComparer.Ordinal);

    private PackedFile(FileSource file) => _file = file;

    /// <summary>What the weights were made from; see <see cref="PackedCopy"/>.</summary>
    public byte[] Identity { get; private set; } = [];

    private static ReadOnlySpan<byte> Magic => "SLUICEPK"u8;

    /// <summary>Opens a file and checks its header and table.</summary>
    /// <param name="path">The file.</param>
    /// <param name="memoryMap">False to read weights by file calls into memory of their own.</param>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="SluiceModelException">It is no file of packed weights, or a damaged one, or of another version.</exception>
    /// <exception cref="IOException">The system cannot read it.</exception>
    /// <exception cref="UnauthorizedAccessException">It may not be read.</exception>
    public static PackedFile Open(string path, bool memoryMap)
    {
        PackedFile packed = new(FileSource.Open(path, memoryMap));
        try
        {
            packed.ReadTable();
            return packed;
        }
        catch
        {
            packed.Dispose();
            throw;
        }
    }

    /// <summary>Writes a file.</summary>
    /// <param name="target">Where to, from its start.</param>
    /// <param name="identity">What the weights were made from, <see cref="IdentityBytes"/> bytes.</param>
    /// <param name="weights">The weights and their names.</param>
    /// <param name="progress">Told after each piece how many bytes of weights are written.</param>
    /// <param name="cancellation">Looked at between pieces.</param>
    /// <returns>The file's length.</returns>
    /// <exception cref="IOException">The file cannot be written.</exception>
    /// <exception cref="SluiceException">The device does not give its weights' bytes.</exception>
    public static long Write(Stream target, ReadOnlySpan<byte> identity, IReadOnlyList<(string Name, Weight Weight)> weights, Action<long>? progress, CancellationToken cancellation)
    {
        using MemoryStream table = new();
        using BinaryWriter rows = new(table, Encoding.UTF8);
        byte[] piece = new byte[PieceBytes];
        long at = 0, done = 0;
        Put(new byte[HeaderBytes]);
        foreach ((string name, Weight weight) in weights)
        {
            PackedWeight w = weight.Packed;
            Align();
            long start = at;
            uint checksum = 0;
            for (ulong from = 0; from < w.Bytes; from += (ulong)piece.Length)
            {
                cancellation.ThrowIfCancellationRequested();
                Span<byte> part = piece.AsSpan(0, (int)Math.Min((ulong)piece.Length, w.Bytes - from));
                weight.ReadPacked(from, part);
                checksum = Checksum(checksum, part);
                Put(part);
                done += part.Length;
                progress?.Invoke(done);
            }

            long order = 0;
            if (w.HasOrder)
            {
                Align();
                order = at;
                ReadOnlySpan<byte> columns = MemoryMarshal.AsBytes(weight.ReadPackedOrder().AsSpan());
                checksum = Checksum(checksum, columns);
                Put(columns);
            }

            byte[] text = Encoding.UTF8.GetBytes(name);
            rows.Write(checked((ushort)text.Length));
            rows.Write(text);
            rows.Write((int)w.Encoding);
            rows.Write(w.Rows);
            rows.Write(w.Cols);
            rows.Write(w.Group);
            rows.Write(w.Layout);
            rows.Write(start);
            rows.Write(w.Bytes);
            rows.Write(order);
            rows.Write(checksum);
        }

        rows.Flush();
        ReadOnlySpan<byte> all = table.ToArray();
        byte[] header = new byte[HeaderBytes];
        Magic.CopyTo(header);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(8), Version);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(12), (uint)weights.Count);
        identity.CopyTo(header.AsSpan(16, IdentityBytes));
        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(48), at);
        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(56), all.Length);
        Digest(header, all).CopyTo(header.AsSpan(SignedBytes));
        Put(all);
        target.Position = 0;
        target.Write(header);
        target.Flush();
        return at;

        void Put(ReadOnlySpan<byte> bytes)
        {
            target.Write(bytes);
            at += bytes.Length;
        }

        void Align() => Put(new byte[(int)(-at & (Alignment - 1))]);
    }

    /// <summary>Makes a weight of the bytes that stand under a name; it keeps the file's memory for as long as it needs it.</summary>
    /// <param name="stream">Of the device.</param>
    /// <param name="name">The matrix's name.</param>
    /// <param name="tensor">What it must be.</param>
    /// <exception cref="ModelFormatException">There is no such matrix, it is another, or it is not for this device.</exception>
    /// <exception cref="SluiceException">The device has no memory left.</exception>
    public Weight CreateWeight(ComputeStream stream, string name, ModelTensor tensor)
    {
        if (!_entries.TryGetValue(name, out Entry entry))
        {
            throw Malformed(name, "is missing");
        }

        PackedWeight w = entry.Weight;
        if ((w.Encoding, w.Rows, w.Cols, w.Group) != (tensor.Encoding, tensor.Rows, tensor.Columns, tensor.Group))
        {
            throw Malformed(name, $"is {w.Encoding} of {w.Rows:N0} x {w.Cols:N0} in groups of {w.Group:N0}, and the model has {tensor.Encoding} of {tensor.Shape} in groups of {tensor.Group:N0}");
        }

        try
        {
            int[] order = entry.Order is { } span ? span.ReadAll<int>() : [];
            if (_file.Mapping is { } mapping)
            {
                return Weight.Create(stream, w, mapping, (ulong)(_file.MappedStart + entry.Data.Offset), order);
            }

            using HostBlock block = new(w.Bytes);
            ForPieces(entry.Data, (at, bytes) => block.WriteSpan((ulong)at, bytes));
            return Weight.Create(stream, w, block, 0, order);
        }
        catch (SluiceException e) when (e.Status is Status.ErrUnsupported or Status.ErrShape or Status.ErrArgument)
        {
            throw new ModelFormatException(_file.Path, $"weight '{name}'", $"is not for this device and version: {e.Message}", e);
        }
    }

    /// <summary>Compares all weights with their checksums.</summary>
    /// <exception cref="ModelFormatException">One differs.</exception>
    /// <exception cref="OperationCanceledException">Cancelled between two weights.</exception>
    public void Verify(CancellationToken cancellation)
    {
        foreach ((string name, Entry entry) in _entries)
        {
            cancellation.ThrowIfCancellationRequested();
            uint checksum = 0;
            ForPieces(entry.Data, (_, bytes) => checksum = Checksum(checksum, bytes));
            if (entry.Order is { } order)
            {
                ForPieces(order, (_, bytes) => checksum = Checksum(checksum, bytes));
            }

            if (checksum != entry.Checksum)
            {
                throw Malformed(name, "has changed since it was written: its checksum is another");
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    private static void ForPieces(FileSpan span, PieceAction action)
    {
        byte[] piece = new byte[Math.Min(PieceBytes, span.Length)];
        for (long at = 0; at < span.Length; at += piece.Length)
        {
            Span<byte> part = piece.AsSpan(0, (int)Math.Min(piece.Length, span.Length - at));
            span.Read(at, part);
            action(at, part);
        }
    }

    // CRC-32C, eight bytes at a time. Pieces but the last are multiples of eight.
    private static uint Checksum(uint sum, ReadOnlySpan<byte> bytes)
    {
        foreach (ulong word in MemoryMarshal.Cast<byte, ulong>(bytes))
        {
            sum = BitOperations.Crc32C(sum, word);
        }

        foreach (byte b in bytes[(bytes.Length / 8 * 8)..])
        {
            sum = BitOperations.Crc32C(sum, b);
        }

        return sum;
    }

    private static byte[] Digest(ReadOnlySpan<byte> header, ReadOnlySpan<byte> table)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(header[..SignedBytes]);
        hash.AppendData(table);
        return hash.GetHashAndReset();
    }

    private void ReadTable()
    {
        byte[] header = new byte[HeaderBytes];
        if (_file.Length < HeaderBytes)
        {
            throw Malformed("", $"has {_file.Length:N0} bytes, fewer than its header");
        }

        _file.Read(0, header);
        uint version = BinaryPrimitives.ReadUInt32LittleEndian(header.AsSpan(8));
        if (!header.AsSpan(0, 8).SequenceEqual(Magic) || version != Version)
        {
            throw Malformed("", header.AsSpan(0, 8).SequenceEqual(Magic) ? $"is of version {version:N0}, and this library writes {Version}" : "is no file of packed weights");
        }

        uint count = BinaryPrimitives.ReadUInt32LittleEndian(header.AsSpan(12));
        long start = BinaryPrimitives.ReadInt64LittleEndian(header.AsSpan(48)), length = BinaryPrimitives.ReadInt64LittleEndian(header.AsSpan(56));
        if (start < HeaderBytes || start > _file.Length || length != _file.Length - start || length > MostTableBytes)
        {
            throw Malformed("", $"has {_file.Length:N0} bytes, and its table should stand at {start:N0} with {length:N0} to the end: it was cut or changed");
        }

        byte[] table = new byte[length];
        _file.Read(start, table);
        if (!Digest(header, table).AsSpan().SequenceEqual(header.AsSpan(SignedBytes, DigestBytes)))
        {
            throw Malformed("", "has changed since it was written: its table's checksum is another");
        }

        Identity = header[16..(16 + IdentityBytes)];
        using BinaryReader rows = new(new MemoryStream(table), Encoding.UTF8);
        try
        {
            long end = HeaderBytes;
            for (uint i = 0; i < count; i++)
            {
                ReadEntry(rows, start, ref end);
            }
        }
        catch (EndOfStreamException e)
        {
            throw new ModelFormatException(_file.Path, "", $"its table ends before the last of {count:N0} weights", e);
        }
    }

    private void ReadEntry(BinaryReader rows, long dataEnd, ref long end)
    {
        int length = rows.ReadUInt16();
        byte[] text = rows.ReadBytes(length);
        string name = text.Length == length ? Encoding.UTF8.GetString(text) : throw new EndOfStreamException();
        PackedWeight w = new((WeightEncoding)rows.ReadInt32(), rows.ReadInt64(), rows.ReadInt64(), rows.ReadInt32(), rows.ReadUInt64(), 0, false);
        FileSpan data = Range(rows.ReadInt64(), rows.ReadInt64(), ref end);
        long orderStart = rows.ReadInt64();
        FileSpan? order = null;
        if (orderStart != 0)
        {
            order = w.Cols is > 0 and <= int.MaxValue / 4 ? Range(orderStart, w.Cols * 4, ref end) : throw Malformed(name, $"has {w.Cols:N0} columns in an order of their own");
        }

        if (!_entries.TryAdd(name, new Entry(w with { Bytes = (ulong)data.Length, HasOrder = order is not null }, data, order, rows.ReadUInt32())))
        {
            throw Malformed(name, "stands in the table twice");
        }

        FileSpan Range(long offset, long bytes, ref long after)
        {
            if (offset < after || offset % Alignment != 0 || bytes < 1 || offset > dataEnd || bytes > dataEnd - offset)
            {
                throw Malformed(name, $"should have {bytes:N0} bytes at {offset:N0}, which are not within {after:N0} to {dataEnd:N0}, or not aligned");
            }

            after = offset + bytes;
            return new FileSpan(_file, offset, bytes);
        }
    }

    private ModelFormatException Malformed(string weight, string detail) => new(_file.Path, weight.Length == 0 ? "" : $"weight '{weight}'", detail);

    private delegate void PieceAction(long at, ReadOnlySpan<byte> bytes);

    private readonly record struct Entry(PackedWeight Weight, FileSpan Data, FileSpan? Order, uint Checksum);
}
