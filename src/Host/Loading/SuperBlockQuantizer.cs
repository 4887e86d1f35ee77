using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace Sluice.Loading;

/// <summary>
/// The types of 256-value blocks. A group's scale (and minimum) is searched for: several grids are tried, each is fitted to the values by least squares,
/// and the one with the least weighted error stays (as in llama.cpp's k-quants). Then the groups' scales are themselves stored in 6 or 8 bits.
/// </summary>
internal static class SuperBlockQuantizer
{
    private const int Values = 256;
    private const float Nothing = 1e-15f;

    public static void Quantize(TensorType type, ReadOnlySpan<float> values, Span<byte> block)
    {
        switch (type)
        {
            case TensorType.Q4_K:
                WithMinima(values, block, 4, -1f, 20);
                break;
            case TensorType.Q5_K:
                WithMinima(values, block, 5, -0.5f, 15);
                break;
            case TensorType.Q6_K:
                Symmetric(values, block);
                break;
            default:
                throw new ArgumentException($"{TensorTypes.Name(type)} has no blocks of {Values}", nameof(type));
        }
    }

    // Q4_K and Q5_K: eight groups of 32, w = d * scale * q - dmin * minimum, scale and minimum in 6 bits.
    private static void WithMinima(ReadOnlySpan<float> values, Span<byte> block, int bits, float firstShift, int steps)
    {
        const int Group = 32, Groups = Values / Group;
        int most = (1 << bits) - 1;
        Span<float> scales = stackalloc float[Groups], minima = stackalloc float[Groups];
        float largestScale = 0, largestMinimum = 0;
        for (int g = 0; g < Groups; g++)
        {
            scales[g] = FitWithMinimum(values.Slice(g * Group, Group), most, firstShift, steps, out minima[g]);
            largestScale = Math.Max(largestScale, scales[g]);
            largestMinimum = Math.Max(largestMinimum, minima[g]);
        }

        Half d = (Half)(largestScale / 63), dMinimum = (Half)(largestMinimum / 63);
        BinaryPrimitives.WriteHalfLittleEndian(block, d);
        BinaryPrimitives.WriteHalfLittleEndian(block[2..], dMinimum);
        Span<byte> packed = block.Slice(4, 12);
        packed.Clear();
        Span<byte> q = stackalloc byte[Values];
        for (int g = 0; g < Groups; g++)
        {
            int scale = Math.Min(63, Nearest(largestScale > 0 ? 63 / largestScale * scales[g] : 0));
            int minimum = Math.Min(63, Nearest(largestMinimum > 0 ? 63 / largestMinimum * minima[g] : 0));
            PackSixBits(packed, g, scale, minimum);
            float step = (float)d * scale, offset = (float)dMinimum * minimum;
            for (int i = g * Group; i < (g + 1) * Group; i++)
            {
                q[i] = step == 0 ? (byte)0 : (byte)Math.Clamp(Nearest((values[i] + offset) / step), 0, most);
            }
        }

        // Q5_K: bit g of byte i is the fifth bit of value i of group g.
        Span<byte> low = block[(bits == 5 ? 48 : 16)..];
        if (bits == 5)
        {
            Span<byte> high = block.Slice(16, 32);
            high.Clear();
            for (int i = 0; i < Values; i++)
            {
                high[i % Group] |= (byte)(q[i] >> 4 << (i / Group));
            }
        }

        for (int pair = 0; pair < Groups / 2; pair++)
        {
            for (int i = 0; i < Group; i++)
            {
                low[(pair * Group) + i] = (byte)((q[(2 * pair * Group) + i] & 15) | ((q[(((2 * pair) + 1) * Group) + i] & 15) << 4));
            }
        }
    }

    // The first four groups' numbers have bytes of their own; the others' lower bits share bytes, and their upper bits fill the first ones.
    private static void PackSixBits(Span<byte> packed, int group, int scale, int minimum)
    {
        if (group < 4)
        {
            packed[group] |= (byte)scale;
            packed[group + 4] |= (byte)minimum;
            return;
        }

        packed[group + 4] = (byte)((scale & 15) | ((minimum & 15) << 4));
        packed[group - 4] |= (byte)(scale >> 4 << 6);
        packed[group] |= (byte)(minimum >> 4 << 6);
    }

    // Q6_K: sixteen groups of 16, w = d * scale * (q - 32), scales in 8 bits.
    private static void Symmetric(ReadOnlySpan<float> values, Span<byte> block)
    {
        const int Group = 16, Groups = Values / Group, Half = 32;
        Span<float> scales = stackalloc float[Groups];
        float extreme = 0;
        for (int g = 0; g < Groups; g++)
        {
            scales[g] = FitSymmetric(values.Slice(g * Group, Group), Half);
            extreme = Math.Abs(scales[g]) > Math.Abs(extreme) ? scales[g] : extreme;
        }

        block.Clear();
        if (Math.Abs(extreme) < Nothing)
        {
            // Zeros all: stored 0 means -32 times a scale of 0.
            return;
        }

        float inverse = -128f / extreme;
        System.Half d = (System.Half)(1 / inverse);
        Span<byte> low = block[..128], high = block.Slice(128, 64), packedScales = block.Slice(192, Groups);
        BinaryPrimitives.WriteHalfLittleEndian(block[208..], d);
        Span<byte> q = stackalloc byte[Values];
        for (int g = 0; g < Groups; g++)
        {
            sbyte scale = (sbyte)Math.Clamp(Nearest(inverse * scales[g]), -128, 127);
            packedScales[g] = (byte)scale;
            float step = (float)d * scale;
            for (int i = g * Group; i < (g + 1) * Group; i++)
            {
                q[i] = (byte)(Half + (step == 0 ? 0 : Math.Clamp(Nearest(values[i] / step), -Half, Half - 1)));
            }
        }

        for (int part = 0; part < 2; part++)
        {
            ReadOnlySpan<byte> from = q.Slice(part * 128, 128);
            for (int i = 0; i < 32; i++)
            {
                low[(part * 64) + i] = (byte)((from[i] & 15) | ((from[i + 64] & 15) << 4));
                low[(part * 64) + i + 32] = (byte)((from[i + 32] & 15) | ((from[i + 96] & 15) << 4));
                high[(part * 32) + i] = (byte)((from[i] >> 4) | (from[i + 32] >> 4 << 2) | (from[i + 64] >> 4 << 4) | (from[i + 96] >> 4 << 6));
            }
        }
    }

    // The scale and (positive) minimum of 32 values on a grid of 0..most, large values weighing more.
    private static float FitWithMinimum(ReadOnlySpan<float> x, int most, float firstShift, int steps, out float minimum)
    {
        ReadOnlySpan<Vector256<float>> v = MemoryMarshal.Cast<float, Vector256<float>>(x);
        Vector256<float> least = v[0], largest = v[0], squares = Vector256<float>.Zero;
        foreach (Vector256<float> part in v)
        {
            least = Vector256.Min(least, part);
            largest = Vector256.Max(largest, part);
            squares += part * part;
        }

        float low = 0, high = float.MinValue;
        for (int i = 0; i < 8; i++)
        {
            low = Math.Min(low, least[i]);
            high = Math.Max(high, largest[i]);
        }

        if (high <= low)
        {
            minimum = -low;
            return 0;
        }

        Vector256<float> typical = Vector256.Create(MathF.Sqrt(Vector256.Sum(squares) / x.Length));
        Vector256<float> sumW = Vector256<float>.Zero, sumX = Vector256<float>.Zero;
        foreach (Vector256<float> part in v)
        {
            Vector256<float> w = typical + Vector256.Abs(part);
            sumW += w;
            sumX += w * part;
        }

        // Each try stretches the grid a little, over the range from the best minimum so far, as ggml does.
        float weight = Vector256.Sum(sumW), weighted = Vector256.Sum(sumX);
        float inverse = most / (high - low), scale = 1 / inverse;
        float best = Error(v, typical, inverse, low, scale, low, most);
        for (int step = 0; step <= steps; step++)
        {
            inverse = (firstShift + (0.1f * step) + most) / (high - low);
            (float q, float qq, float xq) = Moments(v, typical, inverse, low, most);
            float determinant = (weight * qq) - (q * q);
            if (determinant <= 0)
            {
                continue;
            }

            float fitted = ((weight * xq) - (weighted * q)) / determinant, shift = ((qq * weighted) - (q * xq)) / determinant;
            if (shift > 0)
            {
                // A minimum is subtracted: it cannot lift values.
                (fitted, shift) = (xq / qq, 0);
            }

            float error = Error(v, typical, inverse, low, fitted, shift, most);
            if (error < best)
            {
                (best, scale, low) = (error, fitted, shift);
            }
        }

        minimum = -low;
        return scale;
    }

    private static Vector256<float> Grid(Vector256<float> x, float inverse, float low, int most) =>
        Vector256.Clamp(Vector256.Round((x - Vector256.Create(low)) * Vector256.Create(inverse)), Vector256<float>.Zero, Vector256.Create((float)most));

    // Weighted sums of q, q^2 and x * q, where q is each value's place on the grid.
    private static (float Q, float Qq, float Xq) Moments(ReadOnlySpan<Vector256<float>> v, Vector256<float> typical, float inverse, float low, int most)
    {
        Vector256<float> sumQ = Vector256<float>.Zero, sumQq = Vector256<float>.Zero, sumXq = Vector256<float>.Zero;
        foreach (Vector256<float> x in v)
        {
            Vector256<float> q = Grid(x, inverse, low, most), wq = (typical + Vector256.Abs(x)) * q;
            sumQ += wq;
            sumQq += wq * q;
            sumXq += wq * x;
        }

        return (Vector256.Sum(sumQ), Vector256.Sum(sumQq), Vector256.Sum(sumXq));
    }

    private static float Error(ReadOnlySpan<Vector256<float>> v, Vector256<float> typical, float inverse, float low, float scale, float shift, int most)
    {
        Vector256<float> sum = Vector256<float>.Zero;
        foreach (Vector256<float> x in v)
        {
            Vector256<float> off = (Grid(x, inverse, low, most) * Vector256.Create(scale)) + Vector256.Create(shift) - x;
            sum += (typical + Vector256.Abs(x)) * off * off;
        }

        return Vector256.Sum(sum);
    }

    // The scale of 16 values on a grid of -half..half-1, weighed by their squares; the extreme value sits at one end.
    private static float FitSymmetric(ReadOnlySpan<float> x, int half)
    {
        float extreme = 0;
        foreach (float value in x)
        {
            extreme = Math.Abs(value) > Math.Abs(extreme) ? value : extreme;
        }

        if (Math.Abs(extreme) < Nothing)
        {
            return 0;
        }

        ReadOnlySpan<Vector256<float>> v = MemoryMarshal.Cast<float, Vector256<float>>(x);
        float best = 0, scale = 0;
        for (int turn = 0; turn <= 18; turn++)
        {
            // The plain grid first, so that it stays where others are only as good.
            int step = turn == 0 ? 0 : turn <= 9 ? turn - 10 : turn - 9;
            Vector256<float> inverse = Vector256.Create(-(half + (0.1f * step)) / extreme);
            Vector256<float> sumXq = Vector256<float>.Zero, sumQq = Vector256<float>.Zero;
            foreach (Vector256<float> part in v)
            {
                Vector256<float> q = Vector256.Clamp(Vector256.Round(part * inverse), Vector256.Create((float)-half), Vector256.Create(half - 1f));
                Vector256<float> wq = part * part * q;
                sumXq += wq * part;
                sumQq += wq * q;
            }

            float xq = Vector256.Sum(sumXq), qq = Vector256.Sum(sumQq);

            // The error that is left is a constant less this.
            if (qq > 0 && xq * xq > best * qq)
            {
                (best, scale) = (xq * xq / qq, xq / qq);
            }
        }

        return scale;
    }

    private static int Nearest(float x) => (int)MathF.Round(x);
}
