using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.Emit;
using Sluice.Perf;

// The in-process toolchain: no project is built on the side, so that the benchmarks run wherever the program does.
// perf ops [TARGET...] times every case of the list instead: bytes and flops a second, JSON lines.
if (args.Length > 0 && args[0] == "ops")
{
    return OpTable.Run(args[1..]);
}

IConfig config = DefaultConfig.Instance
    .AddJob(Job.ShortRun.WithToolchain(InProcessEmitToolchain.Instance))
    .WithArtifactsPath(Path.Combine("artifacts", "benchmarks"));
BenchmarkSwitcher.FromAssembly(typeof(Program).Assembly).Run(args.Length == 0 ? ["--filter", "*"] : args, config);
return 0;
