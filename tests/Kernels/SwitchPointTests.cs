using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Tests.Kernels;

/// <summary>A device's switch points: which kernels take a product, by its rows.</summary>
public sealed class SwitchPointTests
{
    [Fact]
    public void Switch_points_are_kept_until_the_first_stream()
    {
        Assert.SkipWhen(Device.Count(Backend.Simt) == 0, "no simt device is here");
        using Device device = Device.Open(Backend.Simt);
        SwitchPoints points = device.SwitchPoints with { Few = [1, 2, 3, 4, 5], Narrow = [0, 32, 8, 64, 0], Dense = [0, 128, 0, 256, 1] };
        device.SwitchPoints = points;
        Assert.Equal(points.Few, device.SwitchPoints.Few);
        Assert.Equal(points.Narrow, device.SwitchPoints.Narrow);
        Assert.Equal(points.Dense, device.SwitchPoints.Dense);
        using ComputeStream stream = device.CreateStream();
        SluiceException e = Assert.Throws<SluiceException>(() => device.SwitchPoints = points);
        Assert.Equal(Status.ErrState, e.Status);
        Assert.Contains("set before the first", e.Message);
    }

    [Fact]
    public void Switch_points_out_of_their_range_are_refused()
    {
        Assert.SkipWhen(Device.Count(Backend.Simt) == 0, "no simt device is here");
        using Device device = Device.Open(Backend.Simt);
        SwitchPoints points = device.SwitchPoints;
        Assert.Contains("points.few[2] is 9", Assert.Throws<SluiceException>(() => device.SwitchPoints = points with { Few = [8, 8, 9, 8, 8] }).Message);
        Assert.Contains("points.dense[4] is -2", Assert.Throws<SluiceException>(() => device.SwitchPoints = points with { Dense = [0, 0, 0, -1, -2] }).Message);
        Assert.Throws<ArgumentException>(() => device.SwitchPoints = points with { Narrow = [1, 2] });
        Assert.Equal(points.Few, device.SwitchPoints.Few);
    }

    [Fact]
    public void Backends_of_one_way_have_none()
    {
        using Device device = Device.Open(Backend.Cpu);
        Assert.Equal(Status.ErrUnsupported, Assert.Throws<SluiceException>(() => device.SwitchPoints).Status);
    }

    [Theory]
    [InlineData(1, "few_linear_kernel", 5)]
    [InlineData(2, "few_linear_kernel", 5)]
    [InlineData(3, "tile_linear_kernel", 1)]
    [InlineData(6, "dequantise_kernel", 1)]
    public void Products_switch_where_the_device_says(int rows, string kernel, int few)
    {
        Assert.SkipWhen(Device.Count(Backend.Simt) == 0, "no simt device is here");
        using Device device = Device.Open(Backend.Simt);
        device.SwitchPoints = new SwitchPoints { Few = [few, few, few, few, few], Narrow = [0, 0, 0, 0, 0], Dense = [0, 6, 0, 0, 0] };
        OpCase c = KernelCases.Linear($"switch {rows}", DType.F16, WeightEncoding.Q4_0, 0, rows, 40, 256, bias: false, residual: false, DType.F16);
        using OpRunner runner = new(device, c);
        device.ResetCounters();
        runner.Run();
        runner.Stream.Synchronize();
        Assert.Contains(device.ReadKernelCounters(), k => k.Kernel.Contains(kernel, StringComparison.Ordinal));
    }

    // The fused ops of many rows become chains of dense products, and stay right.
    [Theory]
    [InlineData("gated_linear")]
    [InlineData("fused_qkv")]
    public void Fused_ops_of_many_rows_go_to_16_bits_too(string op)
    {
        Assert.SkipWhen(Device.Count(Backend.Simt) == 0, "no simt device is here");
        int checkedCases = 0;
        foreach (OpCase c in KernelCases.All.Where(c => c.Op == op && c.Inputs["x"].Shape[0] is > 16 and < 40 && c.Weights.Values.All(w => w.Encoding is WeightEncoding.Q4K or WeightEncoding.Q4_0 or WeightEncoding.Q8_0 or WeightEncoding.GPTQ4V2)))
        {
            Dictionary<string, HostTensor> truth = KernelTests.RunOnce(Targets.Open("truth"), c), naive = KernelTests.RunOnce(Targets.Open("naive"), c);
            using Device device = Device.Open(new DeviceOptions(Backend.Simt) { Seed = 2 });
            device.SwitchPoints = device.SwitchPoints with { Dense = [17, 17, 17, 17, 17] };
            using OpRunner runner = new(device, c);
            device.ResetCounters();
            runner.Run();
            Dictionary<string, HostTensor> found = runner.Read();
            if (c.Outputs.Values.All(o => o.DType != DType.F32))
            {
                Assert.Contains(device.ReadKernelCounters(), k => k.Kernel.Contains("dequantise", StringComparison.Ordinal));
                checkedCases++;
            }

            foreach (string output in c.Outputs.Keys)
            {
                Tolerance.AssertClose(output, found[output], truth[output], naive[output]);
            }
        }

        Assert.NotEqual(0, checkedCases);
    }

    [Fact]
    public void Squares_that_overlap_what_an_op_reads_are_refused()
    {
        OpCase c = KernelCases.Linear("squares apart", DType.F16, WeightEncoding.Q4_0, 0, 4, 64, 64, bias: false, residual: true, DType.F32);
        c.Outputs["squares"] = (DType.F32, [4, 4]);
        using OpRunner runner = new(Targets.Open("cpu/portable"), c);
        foreach (string other in new[] { "y", "residual", "x" })
        {
            Tensor shared = runner[other];
            runner.Replace("squares", new Tensor(shared.Buffer, shared.Pointer, shared.Offset, DType.F32, [4, 4]));
            SluiceException e = Assert.Throws<SluiceException>(runner.Run);
            Assert.Equal(Status.ErrArgument, e.Status);
            Assert.Contains($"'squares' and '{other}' overlap", e.Message);
        }

        runner.Replace("squares", default);
        runner.Run();
    }

    [Fact]
    public void A_route_that_cannot_be_taken_is_named()
    {
        Assert.SkipWhen(Device.Count(Backend.Simt) == 0, "no simt device is here");
        OpCase c = KernelCases.Linear("no route", DType.F16, WeightEncoding.Q4_0, 0, 9, 40, 256, bias: false, residual: false, DType.F16);
        using OpRunner runner = new(Targets.Open("simt/1"), c);
        c.Scalars["route"] = (int)Route.Few;
        SluiceException e = Assert.Throws<SluiceException>(runner.Run);
        Assert.Equal(Status.ErrUnsupported, e.Status);
        Assert.Contains("9 rows of x", e.Message);
        c.Scalars["route"] = 7;
        Assert.Equal(Status.ErrArgument, Assert.Throws<SluiceException>(runner.Run).Status);
    }
}
