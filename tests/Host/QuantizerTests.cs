using System.Runtime.InteropServices;
using Sluice.Loading;

namespace Sluice.Tests.Host;

public class QuantizerTests
{
    [Theory, InlineData(TensorType.Q4_0), InlineData(TensorType.Q8_0), InlineData(TensorType.F16)]
    public void Quantize_gives_the_bytes_of_ggml(TensorType type)
    {
        byte[] source = File.ReadAllBytes(SharedData.PathOf("goldens", "quant", "source.f32"));
        byte[] golden = File.ReadAllBytes(SharedData.PathOf("goldens", "quant", TensorTypes.Name(type) + ".bin"));
        byte[] made = new byte[golden.Length];
        Quantizer.Quantize(type, MemoryMarshal.Cast<byte, float>(source), made);
        Assert.Equal(golden, made);
    }

    [Theory, InlineData(TensorType.Q4_0), InlineData(TensorType.Q8_0)]
    public void A_block_of_zeros_is_zeros(TensorType type)
    {
        byte[] made = new byte[TensorTypes.BlockBytes(type)];
        Quantizer.Quantize(type, new float[32], made);
        Assert.Equal(0, made[0] | made[1]);
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
