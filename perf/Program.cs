using Sluice.Perf;

// perf ops [TARGET...] times every case of the list: bytes and flops a second, JSON lines. All else goes to BenchmarkDotNet,
// which is not touched before: where it is not (the GPU bundle), ops still run.
return args.Length > 0 && args[0] == "ops" ? OpTable.Run(args[1..]) : Benchmarks.Run(args);
