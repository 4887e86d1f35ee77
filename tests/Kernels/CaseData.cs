using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>Seeded data for cases: the same on every machine.</summary>
public sealed class CaseData
{
    private readonly Random _random;

    /// <param name="name">The seed: the case's name, so that adding one case changes no other.</param>
    public CaseData(string name)
    {
        uint hash = 2166136261;
        foreach (char c in name)
        {
            hash = (hash ^ c) * 16777619;
        }

        _random = new Random((int)(hash & 0x7fffffff));
    }

    public int Next(int below) => _random.Next(below);

    public float[] Normal(long count, float scale = 1, float mean = 0)
    {
        float[] values = new float[count];
        for (int i = 0; i < values.Length; i++)
        {
            double u = 1 - _random.NextDouble(), v = _random.NextDouble();
            values[i] = mean + (scale * (float)(Math.Sqrt(-2 * Math.Log(u)) * Math.Cos(2 * Math.PI * v)));
        }

        return values;
    }

    public HostTensor Tensor(DType dtype, params long[] shape) => HostTensor.Of(dtype, Normal(shape.Aggregate(1L, (a, b) => a * b)), shape);

    /// <summary>Values of a small block over and over: for what is timed and not compared, where drawing each would take longer than all the rest.</summary>
    public static HostTensor Repeated(DType dtype, params long[] shape)
    {
        // A prime, so that rows and heads differ.
        byte[] block = HostTensor.Of(dtype, new CaseData("repeated").Normal(65521), 65521).Data, data = new byte[shape.Aggregate((long)dtype.Size(), (a, b) => a * b)];
        for (int at = 0; at < data.Length; at += block.Length)
        {
            block.AsSpan(0, Math.Min(block.Length, data.Length - at)).CopyTo(data.AsSpan(at));
        }

        return new HostTensor(dtype, shape, data);
    }

    public int[] Permutation(int count)
    {
        int[] values = [.. Enumerable.Range(0, count)];
        _random.Shuffle(values);
        return values;
    }

    public int[] Ints(int count, int below) => [.. Enumerable.Range(0, count).Select(_ => _random.Next(below))];

    /// <summary>Random blocks of an encoding with sane scales: values of about 1/sqrt(cols).</summary>
    public HostWeight Weight(WeightEncoding encoding, long rows, long cols, int group = 0)
    {
        float spread = 1 / MathF.Sqrt(cols);
        switch (encoding)
        {
            case WeightEncoding.F32:
                return new HostWeight(encoding, rows, cols, HostTensor.Of(DType.F32, Normal(rows * cols, spread), rows, cols).Data);
            case WeightEncoding.F16:
                return new HostWeight(encoding, rows, cols, HostTensor.Of(DType.F16, Normal(rows * cols, spread), rows, cols).Data);
            case WeightEncoding.BF16:
                return new HostWeight(encoding, rows, cols, HostTensor.Of(DType.BF16, Normal(rows * cols, spread), rows, cols).Data);
            case WeightEncoding.INT8:
                return new HostWeight(encoding, rows, cols, Bytes(rows * cols))
                {
                    Group = group,
                    Scales = HostTensor.Of(DType.F32, [.. Normal(rows * (cols / group)).Select(v => spread / 64 * (1 + MathF.Abs(v)))], rows, cols / group).Data,
                };
            case WeightEncoding.GPTQ4 or WeightEncoding.GPTQ4V2 or WeightEncoding.AWQ4:
                return new HostWeight(encoding, rows, cols, Bytes(rows * cols / 2))
                {
                    Group = group,
                    Scales = HostTensor.Of(DType.F16, [.. Normal(rows * (cols / group)).Select(v => spread / 5 * (1 + MathF.Abs(v)))], cols / group, rows).Data,
                    Zeros = Bytes(cols / group * rows / 2),
                };
            default:
                return Blocks(encoding, rows, cols, spread);
        }
    }

    private HostWeight Blocks(WeightEncoding encoding, long rows, long cols, float spread)
    {
        // Values a block, its bytes, where its f16 scales and minimums stand, and how large a scale of 1 makes the values.
        (int values, int bytes, int scaleAt, int minimumAt, float magnitude) = encoding switch
        {
            WeightEncoding.Q4_0 => (32, 18, 0, -1, 5f),
            WeightEncoding.Q4_1 => (32, 20, 0, 2, 8f),
            WeightEncoding.Q5_0 => (32, 22, 0, -1, 10f),
            WeightEncoding.Q5_1 => (32, 24, 0, 2, 16f),
            WeightEncoding.Q8_0 => (32, 34, 0, -1, 74f),
            WeightEncoding.Q4K => (256, 144, 0, 2, 8f * 32),
            WeightEncoding.Q5K => (256, 176, 0, 2, 16f * 32),
            WeightEncoding.Q6K => (256, 210, 208, -1, 18f * 74),
            _ => throw new ArgumentOutOfRangeException(nameof(encoding)),
        };
        long blocks = rows * cols / values;
        byte[] data = Bytes(blocks * bytes);
        float[] scales = Normal(blocks * 2);
        for (long b = 0; b < blocks; b++)
        {
            BitConverter.TryWriteBytes(data.AsSpan((int)(b * bytes) + scaleAt), (Half)(spread / magnitude * (1 + MathF.Abs(scales[2 * b]))));
            if (minimumAt >= 0)
            {
                BitConverter.TryWriteBytes(data.AsSpan((int)(b * bytes) + minimumAt), (Half)(spread / magnitude * 8 * scales[(2 * b) + 1] / (values == 256 ? 8 : 1)));
            }
        }

        return new HostWeight(encoding, rows, cols, data);
    }

    private byte[] Bytes(long count)
    {
        byte[] data = new byte[count];
        _random.NextBytes(data);
        return data;
    }
}
