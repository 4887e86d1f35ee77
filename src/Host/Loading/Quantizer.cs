using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace Sluice.Loading;

/// <summary>Floats to GGUF's stored types, bit for bit as ggml's reference quantisers do it.</summary>
internal static class Quantizer
{
    private const int Block = 32;

    /// <summary>True where <see cref="Quantize"/> can make the type.</summary>
    public static bool Supports(TensorType type) => type is TensorType.F32 or TensorType.F16 or TensorType.Q8_0 or TensorType.Q4_0;

    /// <summary>Stores finite values; <paramref name="destination"/> takes exactly their bytes.</summary>
    /// <exception cref="ArgumentException">The type is not made here, or the sizes do not fit.</exception>
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
            case TensorType.Q8_0:
                for (int at = 0, to = 0; at < values.Length; at += Block, to += 34)
                {
                    BlockQ8(values.Slice(at, Block), destination.Slice(to, 34));
                }

                break;
            default:
                for (int at = 0, to = 0; at < values.Length; at += Block, to += 18)
                {
                    BlockQ4(values.Slice(at, Block), destination.Slice(to, 18));
                }

                break;
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
