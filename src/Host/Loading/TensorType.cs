namespace Sluice.Loading;

#pragma warning disable CA1707 // the names are the format's
/// <summary>How a GGUF tensor's values are stored; the numbers are GGUF's own.</summary>
public enum TensorType
{
    /// <summary>32-bit IEEE floats.</summary>
    F32 = 0,

    /// <summary>16-bit IEEE floats.</summary>
    F16 = 1,

    /// <summary>Blocks of 32: f16 scale, 4-bit values; <c>w = d * (q - 8)</c>.</summary>
    Q4_0 = 2,

    /// <summary>Blocks of 32: f16 scale and minimum, 4-bit values; <c>w = d * q + m</c>.</summary>
    Q4_1 = 3,

    /// <summary>Blocks of 32: f16 scale, 5-bit values; <c>w = d * (q - 16)</c>.</summary>
    Q5_0 = 6,

    /// <summary>Blocks of 32: f16 scale and minimum, 5-bit values; <c>w = d * q + m</c>.</summary>
    Q5_1 = 7,

    /// <summary>Blocks of 32: f16 scale, signed bytes; <c>w = d * q</c>.</summary>
    Q8_0 = 8,

    /// <summary>Blocks of 256 with eight 6-bit scales and minima of 32 values each; 4-bit values.</summary>
    Q4_K = 12,

    /// <summary>Blocks of 256 with eight 6-bit scales and minima of 32 values each; 5-bit values.</summary>
    Q5_K = 13,

    /// <summary>Blocks of 256 with sixteen 8-bit scales of 16 values each; 6-bit values.</summary>
    Q6_K = 14,

    /// <summary>The upper half of 32-bit IEEE floats.</summary>
    BF16 = 30,
}
#pragma warning restore CA1707

/// <summary>The sizes of tensor types. A type may be known (its bytes can be counted, the file inspected) and yet not be run.</summary>
public static class TensorTypes
{
    private readonly record struct Layout(string Name, int BlockValues, int BlockBytes);

    // By GGUF's type number; null where the number was never given out or was withdrawn.
    private static readonly Layout?[] Layouts =
    [
        new("F32", 1, 4), new("F16", 1, 2), new("Q4_0", 32, 18), new("Q4_1", 32, 20), null, null,
        new("Q5_0", 32, 22), new("Q5_1", 32, 24), new("Q8_0", 32, 34), new("Q8_1", 32, 36),
        new("Q2_K", 256, 84), new("Q3_K", 256, 110), new("Q4_K", 256, 144), new("Q5_K", 256, 176), new("Q6_K", 256, 210), new("Q8_K", 256, 292),
        new("IQ2_XXS", 256, 66), new("IQ2_XS", 256, 74), new("IQ3_XXS", 256, 98), new("IQ1_S", 256, 50), new("IQ4_NL", 32, 18),
        new("IQ3_S", 256, 110), new("IQ2_S", 256, 82), new("IQ4_XS", 256, 136),
        new("I8", 1, 1), new("I16", 1, 2), new("I32", 1, 4), new("I64", 1, 8), new("F64", 1, 8), new("IQ1_M", 256, 56), new("BF16", 1, 2),
        null, null, null, new("TQ1_0", 256, 54), new("TQ2_0", 256, 66), null, null, null, new("MXFP4", 32, 17),
    ];

    /// <summary>True where the type's block size is known, so that a tensor's bytes can be counted.</summary>
    public static bool IsKnown(TensorType type) => (uint)type < (uint)Layouts.Length && Layouts[(int)type] is not null;

    /// <summary>True where Sluice can compute with the type.</summary>
    public static bool IsSupported(TensorType type) => type is TensorType.F32 or TensorType.F16 or TensorType.BF16
        or TensorType.Q4_0 or TensorType.Q4_1 or TensorType.Q5_0 or TensorType.Q5_1 or TensorType.Q8_0
        or TensorType.Q4_K or TensorType.Q5_K or TensorType.Q6_K;

    /// <summary>True for F32, F16 and BF16: one value a block.</summary>
    public static bool IsFloat(TensorType type) => type is TensorType.F32 or TensorType.F16 or TensorType.BF16;

    /// <summary>The type's name as people write it (<c>Q4_K</c>), or <c>type 77</c> where the number is not known.</summary>
    public static string Name(TensorType type) => IsKnown(type) ? Layouts[(int)type]!.Value.Name : $"type {(uint)type}";

    /// <summary>Values in a block: 1, 32 or 256. A row must hold whole blocks.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The type is not known.</exception>
    public static int BlockValues(TensorType type) => Of(type).BlockValues;

    /// <summary>Bytes of a block.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The type is not known.</exception>
    public static int BlockBytes(TensorType type) => Of(type).BlockBytes;

    /// <summary>Bytes of <paramref name="values"/> values, which must be whole blocks.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The type is not known, or the values are not whole blocks.</exception>
    /// <exception cref="OverflowException">The bytes do not fit 63 bits.</exception>
    public static long Bytes(TensorType type, long values)
    {
        Layout layout = Of(type);
        ArgumentOutOfRangeException.ThrowIfNegative(values);
        if (values % layout.BlockValues != 0)
        {
            throw new ArgumentOutOfRangeException(nameof(values), $"{values:N0} values are no whole number of {layout.Name} blocks of {layout.BlockValues}");
        }

        return checked(values / layout.BlockValues * layout.BlockBytes);
    }

    private static Layout Of(TensorType type) => IsKnown(type)
        ? Layouts[(int)type]!.Value
        : throw new ArgumentOutOfRangeException(nameof(type), $"tensor type {(uint)type} is not known");
}
