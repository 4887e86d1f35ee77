using System.Runtime.InteropServices;

namespace Sluice.Interop;

/// <summary>Where a weight's bytes lie on the host; see sl_weight_source for the layouts.</summary>
public ref struct WeightSource
{
    /// <summary>The encoding.</summary>
    public WeightEncoding Encoding { get; set; }

    /// <summary>N: outputs.</summary>
    public long Rows { get; set; }

    /// <summary>K: inputs.</summary>
    public long Cols { get; set; }

    /// <summary>Inputs that share a scale, dividing K; GPTQ4, GPTQ4_V2, AWQ4 and INT8 only.</summary>
    public int Group { get; set; }

    /// <summary>Quantised or plain values.</summary>
    public ReadOnlySpan<byte> Data { get; set; }

    /// <summary>Scales; GPTQ4, GPTQ4_V2, AWQ4 and INT8 only.</summary>
    public ReadOnlySpan<byte> Scales { get; set; }

    /// <summary>Zero points; GPTQ4, GPTQ4_V2 and AWQ4 only.</summary>
    public ReadOnlySpan<byte> Zeros { get; set; }

    /// <summary>The group of each input; GPTQ4 and GPTQ4_V2 with act order only.</summary>
    public ReadOnlySpan<int> Order { get; set; }
}

/// <summary>How a device keeps a weight: what must be known of a copy of its bytes to make the weight again; see sl_packed_weight.</summary>
/// <param name="Encoding">The encoding that it was made from.</param>
/// <param name="Rows">N: outputs.</param>
/// <param name="Cols">K: inputs.</param>
/// <param name="Group">Inputs that share a scale; 0 where the encoding alone tells.</param>
/// <param name="Layout">How the bytes lie: a number of this device and version of the library.</param>
/// <param name="Bytes">How many there are.</param>
/// <param name="HasOrder">Whether its columns stand in an order of their own.</param>
public readonly record struct PackedWeight(WeightEncoding Encoding, long Rows, long Cols, int Group, ulong Layout, ulong Bytes, bool HasOrder);

/// <summary>An immutable matrix [N, K] on a device, repacked as the backend likes. Safe from any thread.</summary>
public sealed unsafe class Weight : NativeHandle
{
    private Weight(long rows, long cols) => (Rows, Cols) = (rows, cols);

    /// <summary>N: outputs.</summary>
    public long Rows { get; }

    /// <summary>K: inputs.</summary>
    public long Cols { get; }

    /// <summary>Bytes of device memory.</summary>
    public ulong Bytes
    {
        get
        {
            using Lease lease = default;
            sl_weight_info info = default;
            info.size = (uint)sizeof(sl_weight_info);
            SluiceException.ThrowIfFailed(NativeMethods.sl_weight_get_info((sl_weight*)lease.Hold(this), &info));
            return info.bytes;
        }
    }

    /// <summary>How the device keeps it.</summary>
    /// <exception cref="SluiceException">The backend does not tell (all but cpu).</exception>
    public PackedWeight Packed
    {
        get
        {
            using Lease lease = default;
            sl_packed_weight p = Locate(lease.Hold(this));
            return new PackedWeight(p.encoding, p.rows, p.cols, p.group, p.layout, p.data_bytes, p.order is not null);
        }
    }

    /// <summary>The order of the packed columns: column k of the bytes is column order[k] of the matrix. Empty: the same.</summary>
    /// <exception cref="SluiceException">The backend does not tell (all but cpu).</exception>
    public int[] ReadPackedOrder()
    {
        using Lease lease = default;
        sl_packed_weight p = Locate(lease.Hold(this));
        return new ReadOnlySpan<int>(p.order, (int)(p.order_bytes / sizeof(int))).ToArray();
    }

    /// <summary>Copies packed bytes from <paramref name="offset"/> on into all of <paramref name="destination"/>.</summary>
    /// <exception cref="ArgumentOutOfRangeException">They are not within <see cref="PackedWeight.Bytes"/>.</exception>
    /// <exception cref="SluiceException">The backend does not give them (all but cpu).</exception>
    public void ReadPacked(ulong offset, Span<byte> destination)
    {
        using Lease lease = default;
        sl_packed_weight p = Locate(lease.Hold(this));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, p.data_bytes);
        ArgumentOutOfRangeException.ThrowIfGreaterThan((ulong)destination.Length, p.data_bytes - offset, nameof(destination));
        new ReadOnlySpan<byte>((byte*)p.data + offset, destination.Length).CopyTo(destination);
    }

    /// <summary>Makes a weight of bytes that <see cref="ReadPacked"/> gave, without a copy: <paramref name="memory"/> stays as long as the weight, also where it is disposed before.</summary>
    /// <param name="stream">The stream.</param>
    /// <param name="packed">What was kept.</param>
    /// <param name="memory">The memory, for example a memory-mapped view's handle. What it holds need not be trusted.</param>
    /// <param name="offset">Bytes from its start; the address is a multiple of 64.</param>
    /// <param name="order">What <see cref="ReadPackedOrder"/> gave.</param>
    /// <exception cref="ArgumentOutOfRangeException">The range is not within <paramref name="memory"/>.</exception>
    /// <exception cref="SluiceException">Another device's or version's layout, or sizes that do not fit.</exception>
    public static Weight Create(ComputeStream stream, in PackedWeight packed, SafeBuffer memory, ulong offset, ReadOnlySpan<int> order)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, memory.ByteLength);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(packed.Bytes, memory.ByteLength - offset, nameof(packed));
        using Lease lease = default;
        byte* start = null;
        memory.AcquirePointer(ref start); // until the native side releases it
        GCHandle keeps = GCHandle.Alloc(memory);
        try
        {
            fixed (int* columns = order)
            {
                sl_packed_weight native = new()
                {
                    size = (uint)sizeof(sl_packed_weight),
                    encoding = packed.Encoding,
                    rows = packed.Rows,
                    cols = packed.Cols,
                    group = packed.Group,
                    layout = packed.Layout,
                    data = start + offset,
                    data_bytes = packed.Bytes,
                    order = columns,
                    order_bytes = (ulong)order.Length * sizeof(int),
                };
                Weight weight = new(packed.Rows, packed.Cols);
                sl_weight* handle;
                SluiceException.ThrowIfFailed(NativeMethods.sl_weight_create_packed((sl_stream*)lease.Hold(stream), &native, &Released, (void*)GCHandle.ToIntPtr(keeps), &handle));
                weight.Adopt(handle);
                return weight;
            }
        }
        catch
        {
            ReleaseMemory((nint)keeps);
            throw;
        }
    }

    /// <summary>Makes a weight; the source is read before the call returns.</summary>
    /// <exception cref="SluiceException">Sizes that do not fit, or no memory.</exception>
    public static Weight Create(ComputeStream stream, WeightSource source)
    {
        fixed (byte* data = source.Data, scales = source.Scales, zeros = source.Zeros)
        fixed (int* order = source.Order)
        {
            return Create(stream, source, data, (ulong)source.Data.Length, scales, zeros, order);
        }
    }

    /// <summary>Makes a weight of a plain or GGUF encoding straight from mapped memory, which may exceed 2 GiB.</summary>
    /// <param name="stream">The stream.</param>
    /// <param name="encoding">The encoding.</param>
    /// <param name="rows">N: outputs.</param>
    /// <param name="cols">K: inputs.</param>
    /// <param name="mapped">The memory, for example a memory-mapped view's handle.</param>
    /// <param name="offset">Bytes from its start.</param>
    /// <param name="bytes">Bytes of the matrix.</param>
    /// <exception cref="ArgumentOutOfRangeException">The range is not within <paramref name="mapped"/>.</exception>
    /// <exception cref="SluiceException">Sizes that do not fit, or no memory.</exception>
    public static Weight Create(ComputeStream stream, WeightEncoding encoding, long rows, long cols, SafeBuffer mapped, ulong offset, ulong bytes)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, mapped.ByteLength);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(bytes, mapped.ByteLength - offset);
        byte* start = null;
        mapped.AcquirePointer(ref start);
        try
        {
            return Create(stream, new WeightSource { Encoding = encoding, Rows = rows, Cols = cols }, start + offset, bytes, null, null, null);
        }
        finally
        {
            mapped.ReleasePointer();
        }
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        NativeMethods.sl_weight_release((sl_weight*)handle);
        return true;
    }

    [UnmanagedCallersOnly]
    private static void Released(void* context) => ReleaseMemory((nint)context);

    private static void ReleaseMemory(nint context)
    {
        GCHandle keeps = GCHandle.FromIntPtr(context);
        ((SafeBuffer)keeps.Target!).ReleasePointer();
        keeps.Free();
    }

    private static sl_packed_weight Locate(void* weight)
    {
        sl_packed_weight packed = default;
        packed.size = (uint)sizeof(sl_packed_weight);
        SluiceException.ThrowIfFailed(NativeMethods.sl_weight_get_packed((sl_weight*)weight, &packed));
        return packed;
    }

    private static Weight Create(ComputeStream stream, WeightSource source, byte* data, ulong bytes, byte* scales, byte* zeros, int* order)
    {
        using Lease lease = default;
        sl_weight_source native = default;
        native.size = (uint)sizeof(sl_weight_source);
        native.encoding = source.Encoding;
        native.rows = source.Rows;
        native.cols = source.Cols;
        native.group = source.Group;
        native.data = data;
        native.data_bytes = bytes;
        native.scales = scales;
        native.scales_bytes = (ulong)source.Scales.Length;
        native.zeros = zeros;
        native.zeros_bytes = (ulong)source.Zeros.Length;
        native.order = order;
        native.order_bytes = (ulong)source.Order.Length * sizeof(int);
        Weight weight = new(source.Rows, source.Cols);
        sl_weight* handle;
        SluiceException.ThrowIfFailed(NativeMethods.sl_weight_create((sl_stream*)lease.Hold(stream), &native, &handle));
        weight.Adopt(handle);
        return weight;
    }
}
