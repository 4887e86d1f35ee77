using Sluice.Perf;
using Sluice.Perf.Table;

// perf ops [TARGET...] times every case of the list: bytes and flops a second, JSON lines; perf table FILE... --out DIR makes tables and pictures of such
// lines. All else goes to BenchmarkDotNet, which is not touched before: where it is not (the GPU bundle), these still run.
return args switch
{
    ["ops", .. var rest] => OpTable.Run(rest),
    ["table", .. var rest] => TableVerb.Run(rest),
    _ => Benchmarks.Run(args),
};
