using System.Runtime.InteropServices;
using Sluice.Interop;
using Sluice.Loading;
using Sluice.Models;

namespace Sluice.Tests.Host;

public class QuantizerTests
{
    // The Q4_0 blocks of that folder were made by a weighted search and not by the reference quantiser; see the next test.
    [Theory, InlineData(TensorType.Q8_0), InlineData(TensorType.F16), InlineData(TensorType.BF16)]
    public void Quantize_gives_the_bytes_of_ggml(TensorType type)
    {
        byte[] source = File.ReadAllBytes(SharedData.PathOf("goldens", "quant", "source.f32"));
        byte[] golden = File.ReadAllBytes(SharedData.PathOf("goldens", "quant", TensorTypes.Name(type) + ".bin"));
        byte[] made = new byte[golden.Length];
        Quantizer.Quantize(type, MemoryMarshal.Cast<byte, float>(source), made);
        Assert.Equal(golden, made);
    }

    [Theory]
    [InlineData("tiny-llama-f32", "tiny-llama-q4_0", TensorType.Q4_0), InlineData("tiny-llama-f32", "tiny-llama-q8_0", TensorType.Q8_0)]
    [InlineData("tiny-llama-f32", "tiny-llama-q4_1", TensorType.Q4_1), InlineData("tiny-llama-f32", "tiny-llama-q5_0", TensorType.Q5_0)]
    [InlineData("tiny-qwen2-f32", "tiny-qwen2-q4_0", TensorType.Q4_0), InlineData("tiny-qwen2-f32", "tiny-qwen2-q8_0", TensorType.Q8_0)]
    public void Quantize_gives_the_bytes_of_a_quantised_model(string sourceName, string storedName, TensorType type)
    {
        using GgufFile source = GgufFile.Open(SharedData.PathOf("models", "tiny", sourceName + ".gguf"));
        using GgufFile stored = GgufFile.Open(SharedData.PathOf("models", "tiny", storedName + ".gguf"));
        int compared = 0;
        foreach (GgufTensor tensor in stored.Tensors.Where(t => t.Type == type))
        {
            Assert.True(source.TryGetTensor(tensor.Name, out GgufTensor? plain));
            float[] values = new float[plain.ElementCount];
            source.Read(plain, 0, MemoryMarshal.AsBytes(values.AsSpan()));
            byte[] made = new byte[tensor.ByteLength];
            Quantizer.Quantize(type, values, made);
            byte[] golden = new byte[tensor.ByteLength];
            stored.Read(tensor, 0, golden);
            Assert.True(golden.AsSpan().SequenceEqual(made), tensor.Name);
            compared++;
        }

        Assert.True(compared > 20);
    }

    public static TheoryData<TensorType> BlockTypes() => [.. Enum.GetValues<TensorType>().Where(t => !TensorTypes.IsFloat(t))];

    // Q4_1 and Q5_1 there were made by a weighted search too; those are held against a quantised model's bytes.
    public static TheoryData<TensorType> ComparableTypes() => [.. Enum.GetValues<TensorType>().Where(t => !TensorTypes.IsFloat(t) && t is not (TensorType.Q4_1 or TensorType.Q5_1))];

    [Theory, MemberData(nameof(ComparableTypes))]
    public void Blocks_are_as_near_to_their_source_as_an_independent_quantisers(TensorType type)
    {
        float[] source = Floats(SharedData.PathOf("goldens", "quant", "source.f32"));
        float[] golden = Floats(SharedData.PathOf("goldens", "quant", TensorTypes.Name(type) + ".f32"));
        byte[] made = new byte[TensorTypes.Bytes(type, source.Length)];
        Quantizer.Quantize(type, source, made);
        float[] back = Dequantize(type, made, 1024);
        Assert.True(Error(source, back) <= 1.02 * Error(source, golden), $"{TensorTypes.Name(type)}: {Error(source, back):g4}, theirs {Error(source, golden):g4}");

        // What is on the grid already stays there: nearly, as a search may prefer another grid.
        Quantizer.Quantize(type, back, made);
        Assert.True(Error(back, Dequantize(type, made, 1024)) <= 0.35 * Error(source, back));
    }

    [Theory]
    [InlineData("tiny-llama-f32", "tiny-llama-q4_k_m"), InlineData("tiny-llama-f32", "tiny-llama-q5_k_m"), InlineData("tiny-llama-f32", "tiny-llama-q6_k")]
    [InlineData("tiny-llama-f32", "tiny-llama-q4_1"), InlineData("tiny-llama-f32", "tiny-llama-q5_0"), InlineData("tiny-qwen2-f32", "tiny-qwen2-q4_k_m")]
    public void Matrices_are_as_near_to_their_source_as_a_quantised_models(string sourceName, string storedName)
    {
        using GgufFile source = GgufFile.Open(SharedData.PathOf("models", "tiny", sourceName + ".gguf"));
        using GgufFile stored = GgufFile.Open(SharedData.PathOf("models", "tiny", storedName + ".gguf"));
        foreach (IGrouping<TensorType, GgufTensor> group in stored.Tensors.Where(t => !TensorTypes.IsFloat(t.Type)).GroupBy(t => t.Type))
        {
            double ours = 0, theirs = 0;
            foreach (GgufTensor tensor in group)
            {
                Assert.True(source.TryGetTensor(tensor.Name, out GgufTensor? plain));
                float[] values = new float[plain.ElementCount];
                source.Read(plain, 0, MemoryMarshal.AsBytes(values.AsSpan()));
                byte[] bytes = new byte[tensor.ByteLength];
                stored.Read(tensor, 0, bytes);
                theirs += Math.Pow(Error(values, Dequantize(tensor.Type, bytes, (int)tensor.Columns)), 2);
                Quantizer.Quantize(tensor.Type, values, bytes);
                ours += Math.Pow(Error(values, Dequantize(tensor.Type, bytes, (int)tensor.Columns)), 2);
            }

            Assert.True(Math.Sqrt(ours) <= 1.02 * Math.Sqrt(theirs), $"{TensorTypes.Name(group.Key)}: {Math.Sqrt(ours):g4}, theirs {Math.Sqrt(theirs):g4}");
        }
    }

    [Theory, MemberData(nameof(BlockTypes))]
    public void Extremes_are_stored_or_refused(TensorType type)
    {
        int size = TensorTypes.BlockValues(type);
        byte[] made = new byte[TensorTypes.BlockBytes(type)];
        foreach (float value in new[] { 0f, -0f, 1e-39f, 1e-30f, 1f, -3f, 1e4f })
        {
            float[] values = new float[size];
            Array.Fill(values, value);
            Quantizer.Quantize(type, values, made);
            Assert.All(Dequantize(type, made, size), v => Assert.InRange(v, value - (Math.Abs(value) * 0.07f) - 1e-6f, value + (Math.Abs(value) * 0.07f) + 1e-6f));
        }

        float[] bad = new float[size];
        bad[^1] = float.NaN;
        Assert.Contains("NaN", Assert.Throws<ArgumentException>(() => Quantizer.Quantize(type, bad, made)).Message);
        bad[^1] = -1e38f;
        Assert.Contains("too large", Assert.Throws<ArgumentException>(() => Quantizer.Quantize(type, bad, made)).Message);
    }

    [Theory, InlineData(TensorType.Q4_0), InlineData(TensorType.Q4_1), InlineData(TensorType.Q5_0), InlineData(TensorType.Q5_1), InlineData(TensorType.Q8_0)]
    public void What_is_on_the_grid_stays_there(TensorType type)
    {
        float[] back = Dequantize(type, Quantized(type, Normal(256 * 200)), 256);
        Assert.Equal(back, Dequantize(type, Quantized(type, back), 256));
    }

    // The numbers: quantize_row_q*_K_ref of ggml (llama.cpp 3f545becc) on the same values, the root of its summed squared errors.
    [Theory, InlineData(TensorType.Q4_K, 16.18231), InlineData(TensorType.Q5_K, 8.16124), InlineData(TensorType.Q6_K, 4.04183)]
    public void Super_blocks_are_as_near_as_ggmls_own(TensorType type, double theirs)
    {
        float[] source = Normal(256 * 200);
        double ours = Error(source, Dequantize(type, Quantized(type, source), 256));
        Assert.True(ours <= 1.002 * theirs, $"{TensorTypes.Name(type)}: {ours:g6}, theirs {theirs:g6}");
    }

    private static float[] Normal(int count)
    {
        Random random = new(5);
        return [.. Enumerable.Range(0, count).Select(_ => (float)(Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble())))];
    }

    private static byte[] Quantized(TensorType type, ReadOnlySpan<float> values)
    {
        byte[] made = new byte[TensorTypes.Bytes(type, values.Length)];
        Quantizer.Quantize(type, values, made);
        return made;
    }

    [Fact]
    public void Bf16_rounds_to_nearest_even_and_keeps_what_is_not_finite()
    {
        float[] values = [1f, 1.00390625f, 1.01171875f, float.NaN, float.PositiveInfinity, -0f, float.MaxValue];
        byte[] made = new byte[values.Length * 2];
        Quantizer.Quantize(TensorType.BF16, values, made);
        Assert.Equal([0x3F80, 0x3F80, 0x3F82, 0x7FC0, 0x7F80, 0x8000, 0x7F80], MemoryMarshal.Cast<byte, ushort>(made).ToArray().Select(v => (int)v & ~(v == 0xFFC0 ? 0x8000 : 0)));
    }

    [Fact]
    public void Q4_equals_the_plain_loop()
    {
        Random random = new(9);
        float[] values = new float[32 * 500];
        for (int i = 0; i < values.Length; i++)
        {
            values[i] = (float)(random.NextDouble() - 0.5) * MathF.Pow(2, (i / 32 % 40) - 20);
        }

        byte[] made = new byte[18 * 500];
        Quantizer.Quantize(TensorType.Q4_0, values, made);
        for (int block = 0; block < 500; block++)
        {
            ReadOnlySpan<float> x = values.AsSpan(block * 32, 32);
            float most = 0;
            float extreme = 0;
            foreach (float v in x)
            {
                if (most < MathF.Abs(v))
                {
                    (most, extreme) = (MathF.Abs(v), v);
                }
            }

            float d = extreme / -8;
            float inverse = d != 0 ? 1 / d : 0;
            Assert.Equal((Half)d, MemoryMarshal.Read<Half>(made.AsSpan(block * 18)));
            for (int j = 0; j < 16; j++)
            {
                int low = Math.Min(15, (int)(sbyte)((x[j] * inverse) + 8.5f));
                int high = Math.Min(15, (int)(sbyte)((x[j + 16] * inverse) + 8.5f));
                Assert.Equal(low | (high << 4), made[(block * 18) + 2 + j]);
            }
        }
    }

    [Theory, InlineData(TensorType.Q4_0), InlineData(TensorType.Q8_0)]
    public void A_block_of_zeros_is_zeros(TensorType type)
    {
        byte[] made = new byte[TensorTypes.BlockBytes(type)];
        Quantizer.Quantize(type, new float[32], made);
        Assert.Equal(0f, (float)MemoryMarshal.Read<Half>(made));
        Assert.All(made[2..], b => Assert.Equal(type == TensorType.Q4_0 ? 0x88 : 0, b));
    }

    [Fact]
    public void Q8_rounds_halves_away_from_zero()
    {
        float[] values = new float[32];
        (values[0], values[1], values[2], values[3]) = (127f, 2.5f, -2.5f, 0.49999997f);
        byte[] made = new byte[34];
        Quantizer.Quantize(TensorType.Q8_0, values, made);
        Assert.Equal([127, 3, unchecked((byte)-3), 0], made[2..6]);
    }

    [Fact]
    public void The_first_of_equal_extremes_counts()
    {
        float[] values = new float[32];
        (values[3], values[9]) = (4f, -4f);
        byte[] made = new byte[18];
        Quantizer.Quantize(TensorType.Q4_0, values, made);
        Assert.Equal(-0.5f, (float)MemoryMarshal.Read<Half>(made));
    }

    [Fact]
    public void Sizes_that_do_not_fit_are_refused()
    {
        Assert.Throws<ArgumentException>(() => Quantizer.Quantize(TensorType.Q4_0, new float[32], new byte[17]));
        Assert.Throws<ArgumentException>(() => Quantizer.Quantize((TensorType)10, new float[256], new byte[84]));
    }

    private static float[] Floats(string path) => MemoryMarshal.Cast<byte, float>(File.ReadAllBytes(path)).ToArray();

    private static double Error(ReadOnlySpan<float> source, ReadOnlySpan<float> stored)
    {
        double sum = 0;
        for (int i = 0; i < source.Length; i++)
        {
            sum += Math.Pow((double)source[i] - stored[i], 2);
        }

        return Math.Sqrt(sum);
    }

    // By the library: a row of a matrix is an embedding.
    private static float[] Dequantize(TensorType type, byte[] bytes, int columns)
    {
        using Device device = Device.Open(new DeviceOptions(Backend.Reference));
        using ComputeStream stream = device.CreateStream();
        int rows = (int)(bytes.LongLength * TensorTypes.BlockValues(type) / TensorTypes.BlockBytes(type) / columns);
        using Weight weight = Weight.Create(stream, new WeightSource { Encoding = GgufModel.EncodingOf(type)!.Value, Rows = rows, Cols = columns, Data = bytes });
        Tensor ids = stream.CreateTensor<int>(DType.I32, [.. Enumerable.Range(0, rows)], rows), values = stream.CreateTensor(DType.F32, rows, columns);
        stream.Reserve(stream.Measure(() => stream.Embedding(ids, weight, 1, values)));
        stream.Embedding(ids, weight, 1, values);
        float[] read = new float[rows * columns];
        stream.Download(values, read.AsSpan());
        stream.Synchronize();
        ids.Buffer!.Dispose();
        values.Buffer!.Dispose();
        return read;
    }
}
