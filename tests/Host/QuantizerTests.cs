using System.Runtime.InteropServices;
using Sluice.Loading;

namespace Sluice.Tests.Host;

public class QuantizerTests
{
    // The Q4_0 blocks of that folder were made by a weighted search and not by the reference quantiser; see the next test.
    [Theory, InlineData(TensorType.Q8_0), InlineData(TensorType.F16)]
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
        Assert.Throws<ArgumentException>(() => Quantizer.Quantize(TensorType.Q6_K, new float[256], new byte[210]));
    }
}
