using System.Runtime.InteropServices;
using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>A tensor's values on the host.</summary>
public sealed record HostTensor(DType DType, long[] Shape, byte[] Data)
{
    public static HostTensor Of(DType dtype, float[] values, params long[] shape)
    {
        byte[] data = new byte[values.Length * dtype.Size()];
        for (int i = 0; i < values.Length; i++)
        {
            switch (dtype)
            {
                case DType.F32:
                    BitConverter.TryWriteBytes(data.AsSpan(i * 4), values[i]);
                    break;
                case DType.F16:
                    BitConverter.TryWriteBytes(data.AsSpan(i * 2), (Half)values[i]);
                    break;
                case DType.BF16:
                    BitConverter.TryWriteBytes(data.AsSpan(i * 2), Bf16Bits(values[i]));
                    break;
                default:
                    throw new ArgumentOutOfRangeException(nameof(dtype), dtype, "no activation dtype");
            }
        }

        return new HostTensor(dtype, shape, data);
    }

    public static HostTensor Of(int[] values, params long[] shape) =>
        new(DType.I32, shape.Length == 0 ? [values.Length] : shape, MemoryMarshal.AsBytes(values.AsSpan()).ToArray());

    public static HostTensor Of(long[] values) => new(DType.I64, [values.Length], MemoryMarshal.AsBytes(values.AsSpan()).ToArray());

    public double[] ToDoubles()
    {
        double[] values = new double[Data.Length / DType.Size()];
        for (int i = 0; i < values.Length; i++)
        {
            values[i] = DType switch
            {
                DType.F32 => BitConverter.ToSingle(Data, i * 4),
                DType.F16 => (double)BitConverter.ToHalf(Data, i * 2),
                DType.BF16 => BitConverter.UInt32BitsToSingle((uint)BitConverter.ToUInt16(Data, i * 2) << 16),
                DType.I32 => BitConverter.ToInt32(Data, i * 4),
                DType.I8 => (sbyte)Data[i],
                DType.FP8E4M3 => E4M3(Data[i]),
                _ => throw new InvalidOperationException($"{DType} has no values to compare"),
            };
        }

        return values;
    }

    private static double E4M3(byte bits)
    {
        int exponent = (bits >> 3) & 15, mantissa = bits & 7;
        double value = (bits & 127) == 127 ? double.NaN : exponent == 0 ? Math.ScaleB(mantissa, -9) : Math.ScaleB(8 + mantissa, exponent - 10);
        return bits < 128 ? value : -value;
    }

    // Round to nearest even; NaN stays NaN.
    private static ushort Bf16Bits(float value)
    {
        uint bits = BitConverter.SingleToUInt32Bits(value);
        return float.IsNaN(value) ? (ushort)((bits >> 16) | 0x40) : (ushort)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
}

/// <summary>A weight's file form on the host.</summary>
public sealed record HostWeight(WeightEncoding Encoding, long Rows, long Cols, byte[] Data)
{
    public int Group { get; init; }

    public byte[] Scales { get; init; } = [];

    public byte[] Zeros { get; init; } = [];

    public int[] Order { get; init; } = [];
}

/// <summary>A step on the host; arrays as in sl_batch_step.</summary>
public sealed record HostStep(int[] QueryIndptr, int[] KvLengths, int[] PageIndptr, int[] PageIds)
{
    public int[] Positions { get; init; } = [];

    public byte[] Mask { get; init; } = [];

    public int[] MaskIndptr { get; init; } = [];

    public SharedPrefix[] Prefixes { get; init; } = [];

    public int Tokens => QueryIndptr[^1];

    public int Sequences => KvLengths.Length;
}

/// <summary>
/// A call of one op with all that it needs, and nothing of any backend: what tests compare, benchmarks time, and the
/// native driver replays.
/// </summary>
public sealed record OpCase(string Op, string Name)
{
    public Dictionary<string, HostTensor> Inputs { get; init; } = [];

    public Dictionary<string, HostWeight> Weights { get; init; } = [];

    public Dictionary<string, double> Scalars { get; init; } = [];

    /// <summary>Names, element types and shapes; a name that is an input's too is changed in place.</summary>
    public Dictionary<string, (DType DType, long[] Shape)> Outputs { get; init; } = [];

    public KvCacheOptions? Cache { get; init; }

    public HostStep? Step { get; init; }

    /// <summary>Tokens of each sequence that lie in the cache before the op; all other slots hold NaN.</summary>
    public int[] History { get; init; } = [];

    /// <summary>[sum of History, Hkv, D], f32. Null in cases that are only timed: every page then holds the same random values, put there a block at a time.</summary>
    public HostTensor? HistoryK { get; init; }

    /// <summary>[sum of History, Hkv, Dv], f32.</summary>
    public HostTensor? HistoryV { get; init; }

    /// <summary>Rows past the step's tokens that the tensors have.</summary>
    public int PaddingRows { get; init; }

    /// <summary>Multiply-adds count as two.</summary>
    public long Flops { get; init; }

    public override string ToString() => $"{Op} {Name}";

    public float Scalar(string name) => (float)Scalars.GetValueOrDefault(name);

    /// <summary>Writes the case for the native driver: little-endian, lengths before contents, the order fixed.</summary>
    public void Write(string path)
    {
        using BinaryWriter w = new(File.Create(path));
        w.Write("SLCASE2\0"u8);
        Text(ToString());
        Text(Op);
        w.Write(PaddingRows);
        w.Write(Inputs.Count);
        foreach ((string name, HostTensor t) in Inputs)
        {
            Text(name);
            Tensor(t);
        }

        w.Write(Outputs.Count);
        foreach ((string name, (DType dtype, long[] shape)) in Outputs)
        {
            Text(name);
            w.Write((int)dtype);
            w.Write(shape.Length);
            Array.ForEach(shape, w.Write);
        }

        w.Write(Weights.Count);
        foreach ((string name, HostWeight weight) in Weights)
        {
            Text(name);
            w.Write((int)weight.Encoding);
            w.Write(weight.Rows);
            w.Write(weight.Cols);
            w.Write(weight.Group);
            Block(weight.Data);
            Block(weight.Scales);
            Block(weight.Zeros);
            Ints(weight.Order);
        }

        w.Write(Scalars.Count);
        foreach ((string name, double value) in Scalars)
        {
            Text(name);
            w.Write(value);
        }

        w.Write(Cache is null ? 0 : 1);
        if (Cache is { } c && Step is { } s)
        {
            Array.ForEach([(int)c.DType, c.Layers, c.Pages, c.KvHeads, c.KeyDim, c.ValueDim, c.PageSize], w.Write);
            Ints(s.QueryIndptr);
            Ints(s.KvLengths);
            Ints(s.PageIndptr);
            Ints(s.PageIds);
            Ints(s.Positions);
            Block(s.Mask);
            Ints(s.MaskIndptr);
            Ints([.. s.Prefixes.SelectMany(p => new[] { p.FirstSequence, p.NumSequences, p.FirstKey, p.NumKeys })]);
            Ints(History);
            Tensor(HistoryK!);
            Tensor(HistoryV!);
        }

        void Text(string text) => Block(System.Text.Encoding.UTF8.GetBytes(text));

        void Block(byte[] bytes)
        {
            w.Write((long)bytes.Length);
            w.Write(bytes);
        }

        void Ints(int[] values) => Block(MemoryMarshal.AsBytes(values.AsSpan()).ToArray());

        void Tensor(HostTensor t)
        {
            w.Write((int)t.DType);
            w.Write(t.Shape.Length);
            Array.ForEach(t.Shape, w.Write);
            Block(t.Data);
        }
    }
}
