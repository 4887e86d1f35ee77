using BenchmarkDotNet.Attributes;
using Sluice.Interop;

namespace Sluice.Perf;

/// <summary>What crossing the boundary costs: a call that does nothing, a getter with a handle, and a checked op on no rows.</summary>
[MemoryDiagnoser]
public class InteropBenchmarks
{
    private Device _device = null!;
    private ComputeStream _stream = null!;
    private Tensor _x, _w, _empty;

    [GlobalSetup]
    public void Setup()
    {
        _device = Device.Open(new DeviceOptions(Backend.Cpu) { Threads = 1 });
        _stream = _device.CreateStream();
        _x = _stream.CreateTensor<float>(DType.F32, new float[64], 1, 64);
        _w = _stream.CreateTensor<float>(DType.F32, new float[64], 64);
        _empty = _x.Rows(0, 0);
    }

    [GlobalCleanup]
    public void Cleanup()
    {
        _stream.Dispose();
        _device.Dispose();
    }

    [Benchmark(Baseline = true, Description = "sl_version")]
    public uint Version() => NativeMethods.sl_version();

    [Benchmark(Description = "synchronize")]
    public void Synchronize() => _stream.Synchronize();

    [Benchmark(Description = "rms_norm, no rows")]
    public void EmptyNorm() => _stream.RmsNorm(_empty, _w, 1e-5f, _empty);

    [Benchmark(Description = "rms_norm 1x64")]
    public void SmallNorm() => _stream.RmsNorm(_x, _w, 1e-5f, _x);
}
