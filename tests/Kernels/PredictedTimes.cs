using System.Globalization;
using System.Text;
using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>
/// What a product and a whole token should take on GPUs that are not at hand: from <see cref="LinearRoute"/>, which the counts of every test run hold to
/// what kernels do, from the instructions that nvcc made of their loops, and from the makers' peaks. Nothing here was measured; it tells what binds a
/// kernel, and what a measured time is to be compared with.
/// </summary>
public static class PredictedTimes
{
    internal const double LaunchMicroseconds = 1.3; // of a kernel within a graph, as measured by others on an H100

    private static readonly Gpu[] Gpus = [new("A100", 108, 1.41, 2039, 312, 4500), new("H100", 132, 1.755, 3350, 989, 5500), new("H200", 132, 1.755, 4800, 989, 5500)];

    private static readonly (string Name, WeightEncoding Encoding, int Group, double Bits, string Scales)[] Types =
    [
        ("F16", WeightEncoding.F16, 0, 16, "any"), ("Q8_0", WeightEncoding.Q8_0, 0, 8.5, "half"), ("Q6_K", WeightEncoding.Q6K, 0, 6.5625, "super_signed"), ("Q4_K", WeightEncoding.Q4K, 0, 4.625, "super"),
        ("Q4_0", WeightEncoding.Q4_0, 0, 4.5, "half"), ("GPTQ g128, one zero", WeightEncoding.GPTQ4, 128, 4.125, "half"),
    ];

    private static readonly Shape[] Models = [new("qwen2.5-0.5b", 24, 896, 14, 2, 64, 4864, 151936), new("llama-3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256), new("llama-3-8b", 32, 4096, 32, 8, 128, 14336, 128256)];

    private sealed record Gpu(string Name, int Multiprocessors, double Gigahertz, double GigabytesPerSecond, double Teraflops, double CacheGigabytesPerSecond);

    private sealed record Shape(string Name, int Layers, int Width, int Heads, int KvHeads, int HeadDim, int FeedForward, int Vocabulary);

    private readonly record struct Prediction(double Microseconds, string Bound);

    /// <summary>Two tables in Markdown.</summary>
    /// <param name="instructions">What tools/instructions.py printed.</param>
    public static string Write(string instructions)
    {
        Dictionary<(string Kernel, string Operand, string Scales), double> issued = instructions.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => line.Split('\t')).Where(f => f[1] == "f16")
            .ToDictionary(f => (f[0], f[2], f[3]), f => double.Parse(f[4], CultureInfo.InvariantCulture));
        StringBuilder text = new();
        text.Append(CultureInfo.InvariantCulture, $"""
            **Predicted, not measured.** {LaunchMicroseconds} µs a launch, and the longest of: weights, activations and results once at the memory's peak; all that blocks move at the second-level
            cache's; a warp's instructions ({issued.Count} loops, counted in sm_90's code by `tools/instructions.py`: a lower bound) on four schedulers a multiprocessor; tensor-core operations at their
            peak. From 64 rows of F16, and above 512 of others (which go to 16 bits first), cuBLASLt takes them: there flops and bytes at their peaks. {string.Join(", ", Gpus.Select(g => $"{g.Name}: {g.Multiprocessors} multiprocessors, {g.Gigahertz} GHz, {g.GigabytesPerSecond} GB/s, {g.Teraflops} TFLOP/s"))}. % is the weights' bytes
            over that time, of the memory's peak.

            | weight | N x K | rows | kernel | {string.Join(" | ", Gpus.Select(g => $"{g.Name} µs | % | bound by"))} |
            |---|---|---|---|{string.Concat(Gpus.Select(_ => "---|---|---|"))}

            """);
        foreach ((string name, WeightEncoding encoding, int group, double bits, string scales) in Types)
        {
            foreach ((int n, int k) in new[] { (2048, 2048), (6144, 4096), (28672, 4096), (4096, 14336), (57344, 8192) })
            {
                foreach (int m in new[] { 1, 8, 16, 64, 512, 1024 })
                {
                    if ((m is 8 or 16 or 64 or 1024 && n != 28672) || (m == 512 && n is not (28672 or 4096)))
                    {
                        continue;
                    }

                    bool library = encoding == WeightEncoding.F16 ? m >= 64 : m > 512;
                    string kernel = library ? "cuBLASLt" : RouteOf(encoding, group, n, k, m, Gpus[1].Multiprocessors).Kernel;
                    text.Append(CultureInfo.InvariantCulture, $"| {name} | {n} x {k} | {m} | {kernel} |");
                    foreach (Gpu gpu in Gpus)
                    {
                        double bytes = bits / 8 * n * k;
                        Prediction p = library ? ByLibrary(gpu, encoding, bytes, n, k, m) : Of(gpu, RouteOf(encoding, group, n, k, m, gpu.Multiprocessors), bytes, 2.0 * m * (n + k), issued, scales, 2.0 * m * n * k);
                        text.Append(CultureInfo.InvariantCulture, $" {p.Microseconds:0.0} | {bytes / p.Microseconds / 1e3 / gpu.GigabytesPerSecond * 100:0} | {p.Bound} |");
                    }

                    text.Append('\n');
                }
            }
        }

        text.Append(CultureInfo.InvariantCulture, $"""

            A token at batch 1 with 512 keys of f16: five launches a layer, and embedding, gather, norm, head and arg-max.

            | model | weights (head F16) | {string.Join(" | ", Gpus.Select(g => $"{g.Name} tok/s | % of weight bandwidth"))} |
            |---|---|{string.Concat(Gpus.Select(_ => "---|---|"))}

            """);
        foreach (Shape s in Models)
        {
            foreach ((string name, WeightEncoding encoding, int group, double bits, string scales) in Types.Where(t => t.Name is "F16" or "Q4_0" || t.Name.StartsWith("GPTQ", StringComparison.Ordinal)))
            {
                text.Append(CultureInfo.InvariantCulture, $"| {s.Name} | {name} |");
                foreach (Gpu gpu in Gpus)
                {
                    double total = 5 * LaunchMicroseconds, weights = 0;
                    int q = s.Heads * s.HeadDim, kv = s.KvHeads * s.HeadDim;
                    foreach ((int n, int k, int times) in new[] { (q + (2 * kv), s.Width, s.Layers), (s.Width, q, s.Layers), (2 * s.FeedForward, s.Width, s.Layers), (s.Width, s.FeedForward, s.Layers) })
                    {
                        double bytes = bits / 8 * n * k;
                        weights += bytes * times;
                        total += times * Of(gpu, RouteOf(encoding, group, n, k, 1, gpu.Multiprocessors), bytes, 2.0 * (n + k), issued, scales, 2.0 * n * k).Microseconds;
                    }

                    double head = 2.0 * s.Vocabulary * s.Width;
                    weights += head;
                    total += Of(gpu, RouteOf(WeightEncoding.F16, 0, s.Vocabulary, s.Width, 1, gpu.Multiprocessors), head, 4.0 * s.Vocabulary, issued, "any", head).Microseconds;
                    total += s.Layers * (LaunchMicroseconds + (512 * 2.0 * 2 * kv / gpu.GigabytesPerSecond / 1e3));
                    text.Append(CultureInfo.InvariantCulture, $" {1e6 / total:0} | {weights / total / 1e3 / gpu.GigabytesPerSecond * 100:0} |");
                }

                text.Append('\n');
            }
        }

        return text.ToString();
    }

    private static Prediction ByLibrary(Gpu gpu, WeightEncoding encoding, double bytes, double n, double k, double m)
    {
        double dense = 2 * n * k, unpacked = encoding == WeightEncoding.F16 ? 0 : (bytes + dense) / gpu.GigabytesPerSecond / 1e3;
        double read = (dense + (2 * m * (n + k))) / gpu.GigabytesPerSecond / 1e3, multiplied = 2 * m * n * k / gpu.Teraflops / 1e6;
        return new Prediction(((encoding == WeightEncoding.F16 ? 1 : 2) * LaunchMicroseconds) + unpacked + Math.Max(read, multiplied), read > multiplied ? "memory" : "tensor cores");
    }

    private static LinearRoute RouteOf(WeightEncoding encoding, int group, int n, int k, int m, int multiprocessors) => new(
        new HostTensor(DType.F16, [m, k], []), DType.F16, new HostWeight(encoding, n, k, []) { Group = group }, n, DType.F16, 0, multiprocessors: multiprocessors);

    private static Prediction Of(Gpu gpu, LinearRoute route, double weightBytes, double rowBytes, Dictionary<(string, string, string), double> issued, string scales, double flops)
    {
        double perMma = route.Kernel == "few" ? issued[("few_linear", route.Operand, scales)] : issued[($"tile_linear {route.Kernel}", route.Operand, "any")];
        (double Time, string Bound)[] all =
        [
            ((weightBytes + rowBytes) / gpu.GigabytesPerSecond / 1e3, "memory"),
            (route.Moved((long)weightBytes) / gpu.CacheGigabytesPerSecond / 1e3, "cache"),
            (route.Mma * perMma / (4.0 * gpu.Multiprocessors * gpu.Gigahertz * 1e3), "issue"),
            (flops / gpu.Teraflops / 1e6, "tensor cores"),
        ];
        (double time, string bound) = all.MaxBy(a => a.Time);
        return new Prediction((route.Launches * LaunchMicroseconds) + time, bound);
    }
}
