using BenchmarkDotNet.Attributes;
using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Perf;

/// <summary>One op, a Q4_0 projection of one token, on every backend that is here.</summary>
[MemoryDiagnoser]
public class OpBenchmarks
{
    private OpRunner _runner = null!;

    public static IEnumerable<string> Here()
    {
        foreach (string target in Targets.Names.Where(t => t is not ("simt/2" or "simt/3")).Prepend("truth"))
        {
            try
            {
                Targets.Open(target);
            }
            catch (SluiceException)
            {
                continue;
            }

            yield return target;
        }
    }

    [ParamsSource(nameof(Here))]
    public string Target { get; set; } = "";

    [GlobalSetup]
    public void Setup() => _runner = new OpRunner(Targets.Open(Target), KernelCases.Linear("bench", DType.F32, WeightEncoding.Q4_0, 0, 1, 896, 896, bias: false, residual: false, DType.F32));

    [GlobalCleanup]
    public void Cleanup() => _runner.Dispose();

    [Benchmark(Description = "linear q4_0 1x896x896")]
    public void Linear()
    {
        _runner.Run();
        _runner.Stream.Synchronize();
    }
}
