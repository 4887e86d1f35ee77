using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>A case of the grid: made when it runs, for all of them together are too large to keep.</summary>
/// <param name="Op">The op.</param>
/// <param name="Name">What is special.</param>
/// <param name="Cost">Multiply-adds of the reference, about.</param>
/// <param name="Make">Makes the case.</param>
public sealed record GridCase(string Op, string Name, double Cost, Func<OpCase> Make)
{
    /// <summary>Rows of x whose results the reference computes; none: all. For ops whose rows do not know each other.</summary>
    public int[] SampleRows { get; init; } = [];

    public override string ToString() => $"{Op} {Name}";

    /// <summary>The same case for some of its rows.</summary>
    public static OpCase Sampled(OpCase c, int[] rows) => c with
    {
        Name = c.Name + " sampled",
        Inputs = c.Inputs.ToDictionary(i => i.Key, i => i.Key is "x" or "residual" ? Rows(i.Value, rows) : i.Value),
        Outputs = c.Outputs.ToDictionary(o => o.Key, o => (o.Value.DType, (long[])[rows.Length, .. o.Value.Shape[1..]])),
    };

    public static HostTensor Rows(HostTensor t, int[] rows)
    {
        int bytes = (int)(t.Data.Length / t.Shape[0]);
        return t with { Shape = [rows.Length, .. t.Shape[1..]], Data = [.. rows.SelectMany(r => t.Data.AsSpan(r * bytes, bytes).ToArray())] };
    }
}

/// <summary>
/// Whole grids, for a GPU and many cores beside it: what other projects test, and the shapes of their tables. Run where
/// SLUICE_GRID is 1. The reference is a loop in double, so a case ends where it would take it more than seconds.
/// </summary>
public static class GridCases
{
    /// <summary>Multiply-adds that the reference may cost a case.</summary>
    private const double Most = 4e9;

    public static IEnumerable<GridCase> All() => [.. AttentionCases.Grid(Most), .. Linears(), .. Norms()];

    private static IEnumerable<GridCase> Linears()
    {
        (WeightEncoding Encoding, int Group)[] encodings =
        [
            (WeightEncoding.Q4_0, 0), (WeightEncoding.Q4K, 0), (WeightEncoding.GPTQ4, 32), (WeightEncoding.GPTQ4, 64), (WeightEncoding.GPTQ4, 128), (WeightEncoding.AWQ4, 128),
            (WeightEncoding.Q4_1, 0), (WeightEncoding.Q5_0, 0), (WeightEncoding.Q5K, 0), (WeightEncoding.Q6K, 0), (WeightEncoding.Q8_0, 0), (WeightEncoding.F16, 0), (WeightEncoding.BF16, 0), (WeightEncoding.F32, 0),
        ];
        int[] rows = [1, 2, 4, 8, 15, 16, 17, 32, 64, 100, 128, 512, 1024, 4096];
        (int N, int K)[] shapes = [(6144, 4096), (4096, 14336), (3072, 2048), (2048, 2048), (2048, 8192), (10240, 8192), (1032, 256), (40, 8192)];
        int turn = 0;
        foreach ((int n, int k) in shapes)
        {
            foreach ((WeightEncoding encoding, int group) in encodings)
            {
                foreach (int m in rows)
                {
                    // Activations by turns; a large matrix of floats by turns too, for making its numbers takes longest.
                    DType dtype = encoding == WeightEncoding.BF16 ? DType.BF16 : turn++ % 4 == 3 ? DType.F32 : DType.F16;
                    bool dense = encoding is WeightEncoding.F16 or WeightEncoding.BF16 or WeightEncoding.F32;
                    int[] sample = m <= 4 ? [] : [.. new[] { 0, m / 2, m - 1 }.Distinct()];
                    if ((long)m * Math.Max(n, k) > 1 << 26 || (dense && (long)n * k > 1 << 25))
                    {
                        continue;
                    }

                    string name = $"{dtype} {encoding}{(group > 0 ? $" g{group}" : "")} {m}x{n}x{k}";
                    yield return new GridCase("linear", name, (double)Math.Min(m, 4) * n * k, () => KernelCases.Linear("grid " + name, dtype, encoding, group, m, n, k, bias: m % 3 == 0, residual: m % 2 == 0, dtype)) { SampleRows = sample };
                }
            }
        }

        foreach (WeightEncoding encoding in new[] { WeightEncoding.Q4_0, WeightEncoding.Q8_0 })
        {
            yield return new GridCase("linear", $"F16 {encoding} 1x128256x4096", 5e8, () => KernelCases.Linear($"grid head {encoding}", DType.F16, encoding, 0, 1, 128256, 4096, false, false, DType.F32));
            yield return new GridCase("linear", $"F16 {encoding} 1x28672x8192", 2e8, () => KernelCases.Linear($"grid 70B {encoding}", DType.F16, encoding, 0, 1, 28672, 8192, false, false, DType.F16));
        }
    }

    private static IEnumerable<GridCase> Norms()
    {
        foreach (int d in new[] { 64, 896, 2048, 4096, 5120, 8192, 16384 })
        {
            foreach (int t in new[] { 1, 19, 128, 4096 })
            {
                foreach (DType dtype in new[] { DType.F32, DType.F16, DType.BF16 })
                {
                    int[] sample = t <= 128 ? [] : [0, t / 3, t - 1];
                    yield return new GridCase("add_rms_norm", $"{dtype} {t}x{d}", (double)t * d, () =>
                    {
                        CaseData r = new($"grid norm {dtype} {t}x{d}");
                        return new OpCase("add_rms_norm", $"grid {dtype} {t}x{d}")
                        {
                            Inputs = { ["x"] = r.Tensor(dtype, t, d), ["residual"] = r.Tensor(dtype, t, d), ["w"] = r.Tensor(dtype, d) }, Scalars = { ["eps"] = 1e-6 },
                            Outputs = { ["residual"] = (dtype, [t, d]), ["y"] = (dtype, [t, d]) },
                        };
                    }) { SampleRows = sample };
                }
            }
        }
    }
}
