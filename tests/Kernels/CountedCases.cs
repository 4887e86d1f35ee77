using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>
/// Cases whose counts tell something: sizes of real layers in small, below a second each on simt. They are the rows of
/// perf/COUNTS.md, and are held to the claims of <see cref="Claims"/> as all cases are.
/// </summary>
public static class CountedCases
{
    private static readonly Lazy<Dictionary<string, OpCase>> ByName = new(() => Build().ToDictionary(c => c.ToString()));

    public static IReadOnlyCollection<OpCase> All => ByName.Value.Values;

    public static OpCase Get(string name) => ByName.Value[name];

    private static IEnumerable<OpCase> Build() => [.. Rows(), .. Linears(), .. GatedLinears(), .. AttentionCases.Counted(), .. Sampling()];

    private static IEnumerable<OpCase> Linears()
    {
        (WeightEncoding Encoding, int Group)[] decoded =
        [
            (WeightEncoding.Q4_0, 0), (WeightEncoding.Q4K, 0), (WeightEncoding.GPTQ4, 128), (WeightEncoding.Q8_0, 0), (WeightEncoding.Q6K, 0), (WeightEncoding.F16, 0), (WeightEncoding.BF16, 0),
        ];
        foreach ((WeightEncoding encoding, int group) in decoded)
        {
            yield return Linear(encoding, group, 1, 512, 2048);
        }

        foreach (WeightEncoding encoding in new[] { WeightEncoding.Q4_0, WeightEncoding.F16 })
        {
            yield return Linear(encoding, 0, 4, 512, 1024);
            yield return Linear(encoding, 0, 16, 512, 1024);
        }

        foreach (WeightEncoding encoding in new[] { WeightEncoding.F16, WeightEncoding.Q4_0, WeightEncoding.Q8_0 })
        {
            yield return Linear(encoding, 0, 64, 256, 512);
        }

        OpCase dense = Linear(WeightEncoding.Q4_0, 0, 64, 256, 512);
        dense = dense with { Name = dense.Name + " dense" };
        dense.Scalars["route"] = (int)Route.Dense;
        yield return dense;

        static OpCase Linear(WeightEncoding encoding, int group, int m, int n, int k)
        {
            DType dtype = encoding == WeightEncoding.BF16 ? DType.BF16 : DType.F16;
            return KernelCases.Linear($"{dtype} {encoding}{(group > 0 ? $" g{group}" : "")} {m}x{n}x{k}", dtype, encoding, group, m, n, k, bias: false, residual: false, dtype);
        }
    }

    private static IEnumerable<OpCase> GatedLinears()
    {
        foreach ((WeightEncoding encoding, int m, int f, int k) in new[] { (WeightEncoding.Q4_0, 1, 512, 1024), (WeightEncoding.Q4K, 4, 256, 1024), (WeightEncoding.F16, 1, 256, 1024), (WeightEncoding.Q4_0, 16, 512, 1024) })
        {
            yield return KernelCases.Gated($"F16 {encoding} {m}x{f}x{k}", DType.F32, DType.F16, encoding, encoding, 0, m, f, k, norm: true, bias: false, activation: 0);
        }

        yield return KernelCases.WithSquares(KernelCases.Gated($"F16 {WeightEncoding.Q4_0} 1x512x1024 squares", DType.F32, DType.F16, WeightEncoding.Q4_0, WeightEncoding.Q4_0, 0, 1, 512, 1024, norm: true, bias: false, activation: 0));
    }

    private static IEnumerable<OpCase> Rows()
    {
        const DType dtype = DType.F16;
        CaseData r = new("counted rows");
        HostTensor x = r.Tensor(dtype, 4, 4096), residual = r.Tensor(dtype, 4, 4096), w = r.Tensor(dtype, 4096);
        yield return new OpCase("rms_norm", "F16 4x4096") { Inputs = { ["x"] = x, ["w"] = w }, Scalars = { ["eps"] = 1e-5 }, Outputs = { ["y"] = (dtype, [4, 4096]) } };
        yield return new OpCase("add_rms_norm", "F16 4x4096") { Inputs = { ["x"] = x, ["residual"] = residual, ["w"] = w }, Scalars = { ["eps"] = 1e-5 }, Outputs = { ["residual"] = (dtype, [4, 4096]), ["y"] = (dtype, [4, 4096]) } };
        yield return new OpCase("rms_norm_add", "F16 4x4096") { Inputs = { ["x"] = x, ["residual"] = residual, ["w"] = w }, Scalars = { ["eps"] = 1e-5 }, Outputs = { ["y"] = (dtype, [4, 4096]) } };
        yield return new OpCase("gated_activation", "F16 4x8192") { Inputs = { ["gate"] = r.Tensor(dtype, 4, 8192), ["up"] = r.Tensor(dtype, 4, 8192) }, Outputs = { ["y"] = (dtype, [4, 8192]) } };
        foreach (WeightEncoding encoding in new[] { WeightEncoding.F16, WeightEncoding.Q4_0, WeightEncoding.Q6K })
        {
            yield return new OpCase("embedding", $"F16 {encoding} 4x4096") { Inputs = { ["ids"] = HostTensor.Of([3, 60, 0, 17]) }, Weights = { ["table"] = r.Weight(encoding, 64, 4096) }, Scalars = { ["scale"] = 1 }, Outputs = { ["y"] = (dtype, [4, 4096]) } };
        }

        yield return new OpCase("gather", "F16 4x4096 of 16") { Inputs = { ["x"] = r.Tensor(dtype, 16, 4096), ["rows"] = HostTensor.Of([15, 0, 3, 8]) }, Outputs = { ["y"] = (dtype, [4, 4096]) } };
        foreach (RopeKind kind in new[] { RopeKind.Half, RopeKind.Interleaved })
        {
            yield return new OpCase("rope", $"F16 {kind} 32x8x128")
            {
                Inputs = { ["x"] = r.Tensor(dtype, 32, 8, 128), ["positions"] = HostTensor.Of([.. Enumerable.Range(100, 32)]), ["inv_freq"] = HostTensor.Of(DType.F32, KernelCases.InvFreq(128), 64) },
                Scalars = { ["kind"] = (int)kind, ["scale"] = 1 }, Outputs = { ["y"] = (dtype, [32, 8, 128]) },
            };
        }
    }

    private static IEnumerable<OpCase> Sampling()
    {
        const int b = 4, v = 32000;
        CaseData r = new("counted sampling");
        HostTensor logits = HostTensor.Of(DType.F32, r.Normal((long)b * v, 3), b, v);
        yield return new OpCase("argmax", $"{b}x{v}") { Inputs = { ["logits"] = logits }, Outputs = { ["ids"] = (DType.I32, [b]) } };
        yield return new OpCase("log_probs", $"{b}x{v} top 5")
        {
            Inputs = { ["logits"] = logits, ["ids"] = HostTensor.Of(r.Ints(b, v)) }, Outputs = { ["log_probs"] = (DType.F32, [b]), ["top_ids"] = (DType.I32, [b, 5]), ["top_log_probs"] = (DType.F32, [b, 5]) },
        };
        yield return new OpCase("penalties", $"{b}x{v} history 256")
        {
            Inputs =
            {
                ["logits"] = logits, ["history"] = HostTensor.Of(r.Ints(b * 256, v)), ["history_indptr"] = HostTensor.Of([0, 256, 512, 768, 1024]),
                ["repetition"] = r.Tensor(DType.F32, b), ["presence"] = r.Tensor(DType.F32, b), ["frequency"] = r.Tensor(DType.F32, b),
            },
            Outputs = { ["logits"] = (DType.F32, [b, v]) },
        };
        foreach ((float temperature, int k, float p) in new[] { (0f, 0, 1f), (1f, 0, 1f), (0.8f, 40, 0.95f) })
        {
            yield return new OpCase("sample", $"{b}x{v} t{temperature} k{k} p{p}")
            {
                Inputs =
                {
                    ["logits"] = logits, ["temperature"] = HostTensor.Of(DType.F32, Enumerable.Repeat(temperature, b).ToArray(), b), ["top_k"] = HostTensor.Of(Enumerable.Repeat(k, b).ToArray()),
                    ["top_p"] = HostTensor.Of(DType.F32, Enumerable.Repeat(p, b).ToArray(), b), ["min_p"] = HostTensor.Of(DType.F32, new float[b], b),
                    ["seed"] = HostTensor.Of([1, 2, 3, 4L]), ["position"] = HostTensor.Of([5, 6, 7, 8L]),
                },
                Outputs = { ["ids"] = (DType.I32, [b]) },
            };
        }

        HostTensor states = r.Tensor(DType.F32, 8, 4, 8, 128);
        yield return new OpCase("merge_states", "F32 8 of 4x8x128") { Inputs = { ["o"] = states, ["lse2"] = r.Tensor(DType.F32, 8, 4, 8) }, Outputs = { ["y"] = (DType.F32, [4, 8, 128]), ["y_lse2"] = (DType.F32, [4, 8]) } };
    }
}
