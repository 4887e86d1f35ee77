using System.Runtime.CompilerServices;

namespace Sluice.Interop;

/// <summary>A view of device memory: an element type, up to four extents and strides, and a buffer. A value, not a handle; it keeps its buffer alive.</summary>
public readonly struct Tensor
{
    private readonly Extents _shape;
    private readonly Extents _stride;

    [InlineArray(Constants.MaxRank)]
    private struct Extents
    {
        private long _first;
    }

    /// <summary>A dense view of a buffer, row-major.</summary>
    /// <param name="buffer">The memory.</param>
    /// <param name="dtype">The element type.</param>
    /// <param name="shape">One to four extents; bounds are checked by the ops that use the tensor.</param>
    /// <exception cref="ArgumentException">The rank is not 1..4, or an extent is negative.</exception>
    public Tensor(DeviceBuffer buffer, DType dtype, params ReadOnlySpan<long> shape)
        : this(buffer, 0, 0, dtype, shape)
    {
    }

    internal Tensor(DeviceBuffer? buffer, nint pointer, ulong offset, DType dtype, ReadOnlySpan<long> shape, ReadOnlySpan<long> stride = default)
    {
        if (shape.Length is 0 or > Constants.MaxRank)
        {
            throw new ArgumentException($"a tensor has 1..{Constants.MaxRank} dimensions, not {shape.Length}", nameof(shape));
        }

        Buffer = buffer;
        Pointer = pointer;
        Offset = offset;
        DType = dtype;
        Rank = shape.Length;
        long dense = 1;
        for (int i = shape.Length - 1; i >= 0; i--)
        {
            ArgumentOutOfRangeException.ThrowIfNegative(shape[i], nameof(shape));
            _shape[i] = shape[i];
            _stride[i] = stride.IsEmpty ? dense : stride[i];
            dense = checked(dense * shape[i]);
        }
    }

    /// <summary>The memory, or null for imported memory and for <see langword="default"/>.</summary>
    public DeviceBuffer? Buffer { get; }

    /// <summary>Imported memory's address; 0 where there is a buffer.</summary>
    public nint Pointer { get; }

    /// <summary>Bytes from the buffer's start.</summary>
    public ulong Offset { get; }

    /// <summary>The element type.</summary>
    public DType DType { get; }

    /// <summary>The number of dimensions; 0 for <see langword="default"/>, which stands for an absent optional tensor.</summary>
    public int Rank { get; }

    /// <summary>Whether this is <see langword="default"/>: no tensor.</summary>
    public bool IsAbsent => Rank == 0;

    /// <summary>The product of the extents.</summary>
    public long Count
    {
        get
        {
            long count = Rank == 0 ? 0 : 1;
            for (int i = 0; i < Rank; i++)
            {
                count *= _shape[i];
            }

            return count;
        }
    }

    /// <summary>An extent.</summary>
    public long Shape(int dimension) => _shape[dimension];

    /// <summary>A stride in elements.</summary>
    public long Stride(int dimension) => _stride[dimension];

    /// <summary>Rows <paramref name="first"/> .. of the first dimension.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The rows are not all there.</exception>
    public Tensor Rows(long first, long count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(first);
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, _shape[0] - first);
        Extents shape = _shape;
        shape[0] = count;
        return new Tensor(Buffer, Pointer, Offset + (ulong)(first * _stride[0] * DType.Size()), DType, ((ReadOnlySpan<long>)shape)[..Rank], ((ReadOnlySpan<long>)_stride)[..Rank]);
    }

    /// <summary>The same elements with other extents; only for a dense tensor.</summary>
    /// <exception cref="InvalidOperationException">The tensor is not dense, or the counts differ.</exception>
    public Tensor Reshape(params ReadOnlySpan<long> shape)
    {
        Tensor reshaped = new(Buffer, Pointer, Offset, DType, shape);
        long dense = 1;
        for (int i = Rank - 1; i >= 0; dense *= _shape[i--])
        {
            if (_shape[i] > 1 && _stride[i] != dense)
            {
                throw new InvalidOperationException("only a dense tensor can be reshaped");
            }
        }

        return reshaped.Count == Count ? reshaped : throw new InvalidOperationException($"{Count} elements cannot become {reshaped.Count}");
    }

    /// <inheritdoc/>
    public override string ToString() => $"{DType} [{string.Join(",", ((ReadOnlySpan<long>)_shape)[..Rank].ToArray())}]";
}

/// <summary>Facts of element types.</summary>
public static class DTypes
{
    /// <summary>Bytes an element.</summary>
    public static int Size(this DType dtype) => dtype switch
    {
        DType.F32 or DType.I32 => 4,
        DType.F16 or DType.BF16 => 2,
        DType.I64 => 8,
        DType.U8 or DType.I8 or DType.FP8E4M3 => 1,
        _ => throw new ArgumentOutOfRangeException(nameof(dtype), dtype, "no such element type"),
    };
}
