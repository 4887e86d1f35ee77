using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Tests.Kernels;

/// <summary>Devices that are asked to round activations to int8, where the record of a product allows it: as right as all others, by integer products.</summary>
public sealed class Int8ActivationTests
{
    private static readonly WeightEncoding[] s_allowed =
    [
        WeightEncoding.Q4_0, WeightEncoding.Q4_1, WeightEncoding.Q5_0, WeightEncoding.Q5_1, WeightEncoding.Q8_0, WeightEncoding.Q4K, WeightEncoding.Q5K, WeightEncoding.Q6K, WeightEncoding.INT8,
    ];

    public static TheoryData<string, Backend> Cases()
    {
        TheoryData<string, Backend> rows = [];
        foreach (OpCase c in KernelCases.All.Where(Affected))
        {
            rows.Add(c.ToString(), Backend.Simt);
            rows.Add(c.ToString(), Backend.Cuda);
        }

        return rows;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Products_are_as_close_as_naive_loops_of_int8(string name, Backend backend)
    {
        Assert.SkipWhen(Device.Count(backend) == 0, $"no {backend} device is here");
        OpCase c = KernelCases.Get(name);
        Dictionary<string, HostTensor> truth = KernelTests.RunOnce(Targets.Open("truth"), c), naive = KernelTests.RunOnce(Targets.Open("naive"), c);
        using Device device = Device.Open(new DeviceOptions(backend) { Int8Activations = true, Seed = 3 });
        using OpRunner runner = new(device, c);
        runner.Run();
        Dictionary<string, HostTensor> found = runner.Read();
        foreach (string output in c.Outputs.Keys)
        {
            Tolerance.AssertClose(output, found[output], truth[output], naive[output]);
        }
    }

    // One launch, and a product of 32 columns where 16-bit ones take two: the counts tell that these kernels ran.
    [Theory]
    [InlineData(WeightEncoding.Q8_0, 1)]
    [InlineData(WeightEncoding.Q4_0, 2)]
    [InlineData(WeightEncoding.Q5K, 2)]
    [InlineData(WeightEncoding.Q6K, 4)]
    public void Products_are_integer_ones(WeightEncoding encoding, int products)
    {
        Assert.SkipWhen(Device.Count(Backend.Simt) == 0, "no simt device is here");
        OpCase c = KernelCases.Linear($"bytes {encoding}", DType.F16, encoding, 0, 3, 48, 512, bias: false, residual: false, DType.F16);
        using Device device = Device.Open(new DeviceOptions(Backend.Simt) { Int8Activations = true, Seed = 3 });
        using OpRunner runner = new(device, c);
        CountedRun run = CountedRun.Of(device, runner, c);
        Assert.Equal(1UL, run.Counters.Launches);
        Assert.Equal((ulong)(3 * 4 * 4 * products), run.Counters.Mma);
    }

    [Fact]
    public void Weights_made_for_16_bit_activations_keep_them()
    {
        Assert.SkipWhen(Device.Count(Backend.Simt) == 0, "no simt device is here");
        OpCase c = KernelCases.Linear("bytes GPTQ", DType.F16, WeightEncoding.GPTQ4, 32, 3, 48, 512, bias: false, residual: false, DType.F16);
        using Device bytes = Device.Open(new DeviceOptions(Backend.Simt) { Int8Activations = true, Seed = 3 }), other = Device.Open(new DeviceOptions(Backend.Simt) { Seed = 3 });
        Assert.Equal(KernelTests.RunOnce(other, c)["y"].Data, KernelTests.RunOnce(bytes, c)["y"].Data);
    }

    private static bool Affected(OpCase c) =>
        c.Op is "linear" or "gated_linear" or "fused_qkv" && c.Inputs["x"].Shape[0] <= 8 && c.Weights.Values.Any(w => s_allowed.Contains(w.Encoding));
}
