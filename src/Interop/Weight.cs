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
