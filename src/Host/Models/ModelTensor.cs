using System.IO.MemoryMappedFiles;
using Sluice.Interop;
using Sluice.Loading;

namespace Sluice.Models;

/// <summary>A matrix [N, K] or vector [K] of a model: where its bytes stand, whatever the kind of file.</summary>
internal sealed record ModelTensor
{
    /// <summary>Its name in its file, for errors and progress.</summary>
    public required string Name { get; init; }

    /// <summary>The file, for errors.</summary>
    public string File => Data.File.Path;

    /// <summary>How values are stored.</summary>
    public required WeightEncoding Encoding { get; init; }

    /// <summary>1 for a vector, 2 for a matrix.</summary>
    public required int Rank { get; init; }

    /// <summary>N; 1 for a vector.</summary>
    public required long Rows { get; init; }

    /// <summary>K.</summary>
    public required long Columns { get; init; }

    /// <summary>The values. For GPTQ and AWQ packed 4-bit numbers of <see cref="AllRows"/> rows.</summary>
    public required FileSpan Data { get; init; }

    /// <summary>GPTQ and AWQ: columns that share a scale; else 0.</summary>
    public int Group { get; init; }

    /// <summary>GPTQ and AWQ: f16 [K / group, all rows].</summary>
    public FileSpan Scales { get; init; }

    /// <summary>GPTQ and AWQ: i32 [K / group, all rows / 8].</summary>
    public FileSpan Zeros { get; init; }

    /// <summary>GPTQ with act order: i32 [K], the group of each column.</summary>
    public FileSpan? Order { get; init; }

    /// <summary>GPTQ and AWQ: the first row of this matrix within what is stored.</summary>
    public long FirstRow { get; init; }

    /// <summary>GPTQ and AWQ: rows that are stored.</summary>
    public long AllRows { get; init; }

    /// <summary>The names in the files of all that this is made of.</summary>
    public required IReadOnlyList<string> Parts { get; init; }

    /// <summary>Added to each value of a vector.</summary>
    public float Plus { get; init; }

    public bool IsGrouped => Group != 0;

    public bool IsFloat => Encoding is WeightEncoding.F32 or WeightEncoding.F16 or WeightEncoding.BF16;

    /// <summary>Bytes in the files.</summary>
    public long ByteLength => !IsGrouped ? Data.Length : (Data.Length + Scales.Length + Zeros.Length) / AllRows * Rows;

    /// <summary>The shape in words.</summary>
    public string Shape => Rank == 1 ? $"{Columns:N0}" : $"{Rows:N0} x {Columns:N0}";

    /// <summary>Some of a matrix's rows, or of a vector's values.</summary>
    public ModelTensor Slice(long first, long count)
    {
        if (IsGrouped)
        {
            return this with { FirstRow = FirstRow + first, Rows = count };
        }

        long unit = Data.Length / (Rank == 1 ? Columns : Rows);
        return (Rank == 1 ? this with { Columns = count } : this with { Rows = count }) with { Data = Data.Slice(first * unit, count * unit) };
    }

    /// <summary>The values of a vector, or of a matrix of floats, row by row.</summary>
    public float[] ReadFloats()
    {
        byte[] raw = Data.ReadAll<byte>();
        int size = Encoding == WeightEncoding.F32 ? 4 : 2;
        float[] values = new float[raw.Length / size];
        for (int i = 0; i < values.Length; i++)
        {
            values[i] = Plus + Encoding switch
            {
                WeightEncoding.F32 => BitConverter.ToSingle(raw, i * 4),
                WeightEncoding.F16 => (float)BitConverter.ToHalf(raw, i * 2),
                _ => BitConverter.UInt32BitsToSingle((uint)BitConverter.ToUInt16(raw, i * 2) << 16),
            };
        }

        return values;
    }

    /// <summary>Puts a matrix on a device.</summary>
    /// <exception cref="SluiceException">The device has no memory left, or failed.</exception>
    /// <exception cref="OperationCanceledException">Cancelled while bytes were read.</exception>
    public Weight ToDevice(ComputeStream stream, CancellationToken cancellation)
    {
        if (IsGrouped)
        {
            return GroupedToDevice(stream);
        }

        // A safetensors file may put tensors at any byte; native code reads whole values.
        using (MemoryMappedViewAccessor? view = Data.File.MapRange(Data.Offset, Data.Length))
        {
            if (view is not null && view.PointerOffset % 4 == 0)
            {
                return Weight.Create(stream, Encoding, Rows, Columns, view.SafeMemoryMappedViewHandle, (ulong)view.PointerOffset, (ulong)Data.Length);
            }
        }

        using HostBlock block = new((ulong)Data.Length);
        byte[] chunk = new byte[Math.Min(Data.Length, 1 << 24)];
        for (long at = 0; at < Data.Length; at += chunk.Length)
        {
            cancellation.ThrowIfCancellationRequested();
            Span<byte> part = chunk.AsSpan(0, (int)Math.Min(chunk.Length, Data.Length - at));
            Data.Read(at, part);
            block.WriteSpan<byte>((ulong)at, part);
        }

        return Weight.Create(stream, Encoding, Rows, Columns, block, 0, (ulong)Data.Length);
    }

    private Weight GroupedToDevice(ComputeStream stream)
    {
        int[] order = Order is { } stored ? stored.ReadAll<int>() : [];
        int outside = Array.FindIndex(order, g => g < 0 || g >= Columns / Group);
        if (outside >= 0)
        {
            throw new ModelFormatException(File, $"tensor '{Name}'", $"its g_idx[{outside:N0}] is {order[outside]:N0}, and there are {Columns / Group:N0} groups");
        }

        // An order that is none costs the backend a gather.
        bool ordered = false;
        for (int i = 0; i < order.Length && !ordered; i++)
        {
            ordered = order[i] != i / Group;
        }

        bool awq = Encoding == WeightEncoding.AWQ4;
        return Weight.Create(stream, new WeightSource
        {
            Encoding = Encoding,
            Rows = Rows,
            Cols = Columns,
            Group = Group,
            Data = Columnwise(Data, awq ? 8 : 1, 4),
            Scales = Columnwise(Scales, 1, 2),
            Zeros = Columnwise(Zeros, 8, 4),
            Order = ordered ? order : [],
        });
    }

    // The rows of this matrix are columns of what is stored: `per` of them in an element of so many bytes.
    private byte[] Columnwise(FileSpan span, int per, int elementBytes)
    {
        byte[] all = span.ReadAll<byte>();
        if (Rows == AllRows)
        {
            return all;
        }

        int pitch = (int)(AllRows / per) * elementBytes;
        int first = (int)(FirstRow / per) * elementBytes;
        int width = (int)(Rows / per) * elementBytes;
        byte[] some = new byte[all.Length / pitch * width];
        for (int line = 0; line < all.Length / pitch; line++)
        {
            all.AsSpan((line * pitch) + first, width).CopyTo(some.AsSpan(line * width));
        }

        return some;
    }
}
