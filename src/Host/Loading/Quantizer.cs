using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace Sluice.Loading;

/// <summary>Floats to GGUF's stored types: the types of 32-value blocks bit for bit as ggml's reference quantisers do it, those of 256 by the same kind of search.</summary>
internal static class Quantizer
{
    private const int Block = 32;
    private const float Largest = 1 << 26;

    /// <summary>True where <see cref="Quantize"/> can make the type.</summary>
    public static bool Supports(TensorType type) => TensorTypes.IsSupported(type);

    /// <summary>Stores values; <paramref name="destination"/> takes exactly their bytes.</summary>
    /// <exception cref="ArgumentException">The type is not made here, the sizes do not fit, or the type is no float and a value not finite or too large for its scales.</exception>
    public static void Quantize(TensorType type, ReadOnlySpan<float> values, Span<byte> destination)
    {
        if (!Supports(type) || TensorTypes.Bytes(type, values.Length) != destination.Length)
        {
            throw new ArgumentException($"{values.Length:N0} values as {TensorTypes.Name(type)} into {destination.Length:N0} bytes", nameof(type));
        }

        switch (type)
        {
            case TensorType.F32:
                MemoryMarshal.AsBytes(values).CopyTo(destination);
                break;
            case TensorType.F16:
                Span<Half> halves = MemoryMarshal.Cast<byte, Half>(destination);
                for (int i = 0; i < values.Length; i++)
                {
                    halves[i] = (Half)values[i];
                }

                break;
            case TensorType.BF16:
                Span<ushort> tops = MemoryMarshal.Cast<byte, ushort>(destination);
                for (int i = 0; i < values.Length; i++)
                {
                    tops[i] = Top(values[i]);
                }

                break;
            default:
                RequireFinite(type, values);
                int size = TensorTypes.BlockValues(type), bytes = TensorTypes.BlockBytes(type);
                for (int at = 0, to = 0; at < values.Length; at += size, to += bytes)
                {
                    Span<byte> block = destination.Slice(to, bytes);
                    QuantizeBlock(type, values.Slice(at, size), block);
                    RequireStored(type, values.Slice(at, size), block);
                }

                break;
        }
    }

    private static void QuantizeBlock(TensorType type, ReadOnlySpan<float> values, Span<byte> block)
    {
        switch (type)
        {
            case TensorType.Q4_0:
                BlockQ4(values, block);
                break;
            case TensorType.Q4_1:
                BlockWithMinimum(values, block, 15);
                break;
            case TensorType.Q5_0:
                BlockQ5(values, block);
                break;
            case TensorType.Q5_1:
                BlockWithMinimum(values, block, 31);
                break;
            case TensorType.Q8_0:
                BlockQ8(values, block);
                break;
            default:
                SuperBlockQuantizer.Quantize(type, values, block);
                break;
        }
    }

    private static void RequireFinite(TensorType type, ReadOnlySpan<float> values)
    {
        foreach (float value in values)
        {
            if (!float.IsFinite(value))
            {
                throw new ArgumentException($"a weight is {value}, and {TensorTypes.Name(type)} holds finite numbers only", nameof(values));
            }

            // Past it the fits' sums of fourth powers would overflow; few types' scales reach so far.
            if (Math.Abs(value) > Largest)
            {
                throw TooLarge(type, value);
            }
        }
    }

    // A scale or minimum past 65,504 would be stored as infinity, and the block read back as no numbers at all.
    private static void RequireStored(TensorType type, ReadOnlySpan<float> values, ReadOnlySpan<byte> block)
    {
        bool two = type is TensorType.Q4_1 or TensorType.Q5_1 or TensorType.Q4_K or TensorType.Q5_K;
        int first = type is TensorType.Q6_K ? 208 : 0;
        if (Half.IsFinite(BinaryPrimitives.ReadHalfLittleEndian(block[first..])) && (!two || Half.IsFinite(BinaryPrimitives.ReadHalfLittleEndian(block[2..]))))
        {
            return;
        }

        float largest = 0;
        foreach (float value in values)
        {
            largest = Math.Max(largest, Math.Abs(value));
        }

        throw TooLarge(type, largest);
    }

    private static ArgumentException TooLarge(TensorType type, float value) =>
        new($"a weight of {value:g6} is too large for {TensorTypes.Name(type)}, whose scales are half floats");

    // The upper half, rounded to nearest, ties to even; a NaN stays one.
    private static ushort Top(float value)
    {
        uint bits = BitConverter.SingleToUInt32Bits(value);
        return float.IsNaN(value) ? (ushort)((bits >> 16) | 0x40) : (ushort)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
    }

    // d = (max - min) / most; q = trunc((x - min) / d + 0.5).
    private static void BlockWithMinimum(ReadOnlySpan<float> values, Span<byte> block, int most)
    {
        float least = float.MaxValue, largest = float.MinValue;
        foreach (float value in values)
        {
            least = Math.Min(least, value);
            largest = Math.Max(largest, value);
        }

        float d = (largest - least) / most;
        float inverse = d != 0 ? 1f / d : 0f;
        BinaryPrimitives.WriteHalfLittleEndian(block, (Half)d);
        BinaryPrimitives.WriteHalfLittleEndian(block[2..], (Half)least);
        Span<byte> q = stackalloc byte[Block];
        for (int i = 0; i < Block; i++)
        {
            q[i] = (byte)(((values[i] - least) * inverse) + 0.5f);
        }

        Pack(q, block[4..], most > 15);
    }

    // d = (the value of the largest size) / -16; q = min(31, trunc(x / d + 16.5)).
    private static void BlockQ5(ReadOnlySpan<float> values, Span<byte> block)
    {
        float extreme = 0;
        foreach (float value in values)
        {
            extreme = Math.Abs(value) > Math.Abs(extreme) ? value : extreme;
        }

        float d = extreme / -16f;
        float inverse = d != 0 ? 1f / d : 0f;
        BinaryPrimitives.WriteHalfLittleEndian(block, (Half)d);
        Span<byte> q = stackalloc byte[Block];
        for (int i = 0; i < Block; i++)
        {
            q[i] = (byte)Math.Min(31, (int)((values[i] * inverse) + 16.5f));
        }

        Pack(q, block[2..], fifthBits: true);
    }

    // Byte j holds values j (low) and j + 16 (high); the fifth bits, where there are, stand before them.
    private static void Pack(ReadOnlySpan<byte> q, Span<byte> packed, bool fifthBits)
    {
        uint high = 0;
        for (int i = 0; i < Block; i++)
        {
            high |= (uint)(q[i] >> 4 & 1) << i;
        }

        if (fifthBits)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(packed, high);
            packed = packed[4..];
        }

        for (int j = 0; j < Block / 2; j++)
        {
            packed[j] = (byte)((q[j] & 15) | ((q[j + 16] & 15) << 4));
        }
    }

    // d = absmax / 127; q = round(x / d), halves away from zero.
    private static void BlockQ8(ReadOnlySpan<float> values, Span<byte> block)
    {
        ReadOnlySpan<Vector256<float>> v = MemoryMarshal.Cast<float, Vector256<float>>(values);
        float d = AbsMax(v) / 127f;
        BinaryPrimitives.WriteHalfLittleEndian(block, (Half)d);
        Vector256<float> inverse = Vector256.Create(d != 0 ? 1f / d : 0f);
        Span<Vector128<sbyte>> q = MemoryMarshal.Cast<byte, Vector128<sbyte>>(block[2..]);
        q[0] = Narrow(Round(v[0] * inverse), Round(v[1] * inverse));
        q[1] = Narrow(Round(v[2] * inverse), Round(v[3] * inverse));
    }

    // d = (the value of the largest size) / -8; q = min(15, trunc(x / d + 8.5)); byte j holds values j (low) and j + 16 (high).
    private static void BlockQ4(ReadOnlySpan<float> values, Span<byte> block)
    {
        ReadOnlySpan<Vector256<float>> v = MemoryMarshal.Cast<float, Vector256<float>>(values);
        float size = AbsMax(v);
        Vector256<float> sizes = Vector256.Create(size);
        float extreme = 0;
        for (int i = 0; i < v.Length; i++)
        {
            uint found = Vector256.Equals(Vector256.Abs(v[i]), sizes).ExtractMostSignificantBits();
            if (found != 0)
            {
                extreme = values[(i * 8) + BitOperations.TrailingZeroCount(found)];
                break;
            }
        }

        float d = extreme / -8f;
        BinaryPrimitives.WriteHalfLittleEndian(block, (Half)d);
        Vector256<float> inverse = Vector256.Create(d != 0 ? 1f / d : 0f);
        Vector256<int> low0 = Nibble(v[0] * inverse);
        Vector256<int> low1 = Nibble(v[1] * inverse);
        Vector256<int> high0 = Nibble(v[2] * inverse);
        Vector256<int> high1 = Nibble(v[3] * inverse);
        MemoryMarshal.Cast<byte, Vector128<sbyte>>(block[2..])[0] = Narrow(low0 | (high0 << 4), low1 | (high1 << 4));
    }

    private static float AbsMax(ReadOnlySpan<Vector256<float>> v)
    {
        Vector256<float> most = Vector256.Max(
            Vector256.Max(Vector256.Abs(v[0]), Vector256.Abs(v[1])), Vector256.Max(Vector256.Abs(v[2]), Vector256.Abs(v[3])));
        Vector128<float> half = Vector128.Max(most.GetLower(), most.GetUpper());
        return Math.Max(Math.Max(half[0], half[1]), Math.Max(half[2], half[3]));
    }

    private static Vector256<int> Round(Vector256<float> x)
    {
        Vector256<float> whole = Vector256.Truncate(x);
        Vector256<float> away = Vector256.GreaterThanOrEqual(Vector256.Abs(x - whole), Vector256.Create(0.5f));
        Vector256<float> step = Vector256.CopySign(Vector256<float>.One, x) & away;
        return Vector256.ConvertToInt32(whole + step);
    }

    private static Vector256<int> Nibble(Vector256<float> x) =>
        Vector256.Min(Vector256.ConvertToInt32(x + Vector256.Create(8.5f)), Vector256.Create(15));

    private static Vector128<sbyte> Narrow(Vector256<int> first, Vector256<int> second)
    {
        Vector256<short> both = Vector256.Narrow(first, second);
        return Vector128.Narrow(both.GetLower(), both.GetUpper());
    }
}
