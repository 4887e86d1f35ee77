using Sluice.Perf;
using Sluice.Perf.Cpu;
using Sluice.Perf.Soak;
using Sluice.Perf.Table;

// perf ops [TARGET...] times every case of the list: bytes and flops a second, JSON lines; perf table FILE... --out DIR makes tables and pictures of such
// lines; perf cpu measures whole models beside other engines; perf soak puts engines under a random load. All else goes to BenchmarkDotNet, which is not touched before: where it is not (the GPU bundle), these still run.
return args switch
{
    ["ops", .. var rest] => OpTable.Run(rest),
    ["table", .. var rest] => TableVerb.Run(rest),
    ["cpu", .. var rest] => await CpuVerb.RunAsync(rest),
    ["soak", .. var rest] => await SoakVerb.RunAsync(rest),
    _ => Benchmarks.Run(args),
};
