using Sluice.Interop;

namespace Sluice.Kernels;

public static partial class AttentionCases
{
    /// <summary>
    /// Attention to be timed: the shapes that tables of the field have. The cache holds no history (making it would take
    /// longer than all the rest), so results mean nothing; what is moved is the same.
    /// </summary>
    public static IEnumerable<OpCase> Timed()
    {
        foreach ((int h, int kv, int d) in new[] { (32, 32, 128), (32, 8, 128), (32, 8, 64), (28, 4, 128), (64, 8, 128), (8, 4, 256) })
        {
            foreach (int batch in new[] { 1, 8, 64 })
            {
                foreach (int length in new[] { 1024, 4096, 32768 })
                {
                    if (Fits(batch, length, kv, d))
                    {
                        yield return Timed("paged_attention", $"decode {h}/{kv}/{d} bs {batch} kv {length}", batch, 1, length, h, kv, d, 0);
                    }
                }
            }
        }

        foreach (int queries in new[] { 4, 512, 2048 })
        {
            foreach (int prefix in new[] { 0, 4096, 32768 })
            {
                yield return Timed("paged_attention", $"append {queries} on {prefix} 32/8/128", 1, queries, queries + prefix, 32, 8, 128, 0);
            }
        }

        foreach ((int h, int kv) in new[] { (32, 32), (32, 8) })
        {
            foreach (int batch in new[] { 8, 64 })
            {
                foreach (int prefix in new[] { 1024, 2048, 8192 })
                {
                    foreach (int suffix in new[] { 128, 512 })
                    {
                        if (Fits(batch, prefix + suffix, kv, 128))
                        {
                            string name = $"{h}/{kv}/128 bs {batch} prefix {prefix} suffix {suffix}";
                            yield return Timed("cascade_attention", name, batch, 1, prefix + suffix, h, kv, 128, prefix);
                            yield return Timed("paged_attention", $"not cascaded {name}", batch, 1, prefix + suffix, h, kv, 128, 0);
                        }
                    }
                }
            }
        }
    }

    /// <summary>fused_qkv of Llama's heads (32 and 8), one token of each of m sequences.</summary>
    public static OpCase TimedQkv(WeightEncoding encoding, int group, int m, int width, int d)
    {
        OpCase c = TimedStep("fused_qkv", $"{encoding}{(group > 0 ? $" g{group}" : "")} {m} rows, 32/8/{d} of {width}", m, d, out CaseData r, out int rows);
        c.Inputs["x"] = r.Tensor(DType.F32, rows, width);
        c.Inputs["norm_weight"] = r.Tensor(DType.F32, width);
        c.Inputs["inv_freq"] = HostTensor.Of(DType.F32, KernelCases.InvFreq(d), d / 2);
        c.Weights["wq"] = r.Weight(encoding, 32 * d, width, group);
        c.Weights["wk"] = r.Weight(encoding, 8 * d, width, group);
        c.Weights["wv"] = r.Weight(encoding, 8 * d, width, group);
        c.Scalars["kind"] = (int)RopeKind.Half;
        c.Outputs["q"] = (DType.F16, [rows, 32, d]);
        return c;
    }

    /// <summary>What stands beside the three products where nothing is fused: the norm, RoPE of queries and keys, the append.</summary>
    public static IEnumerable<OpCase> TimedQkvParts(int width, int d)
    {
        CaseData r = new($"timed parts {width}");
        yield return new OpCase("rms_norm", $"1x{width} f32 to f16") { Inputs = { ["x"] = r.Tensor(DType.F32, 1, width), ["w"] = r.Tensor(DType.F32, width) }, Scalars = { ["eps"] = 1e-5 }, Outputs = { ["y"] = (DType.F16, [1, width]) } };
        yield return new OpCase("rope", $"1x40x{d}")
        {
            Inputs = { ["x"] = r.Tensor(DType.F16, 1, 40, d), ["positions"] = HostTensor.Of([100]), ["inv_freq"] = HostTensor.Of(DType.F32, KernelCases.InvFreq(d), d / 2) },
            Scalars = { ["kind"] = (int)RopeKind.Half, ["scale"] = 1 }, Outputs = { ["y"] = (DType.F16, [1, 40, d]) },
        };
        OpCase append = TimedStep("kv_append", $"1 token, 8 heads of {d}", 1, d, out _, out int rows);
        append.Inputs["k"] = r.Tensor(DType.F16, rows, 8, d);
        append.Inputs["v"] = r.Tensor(DType.F16, rows, 8, d);
        yield return append;
    }

    private static OpCase TimedStep(string op, string name, int m, int d, out CaseData r, out int rows)
    {
        Shape s = new(name, [.. Enumerable.Repeat(1, m)], [.. Enumerable.Repeat(512, m)], H: 32, Hkv: 8, D: d);
        r = new CaseData(op + name);
        (KvCacheOptions cache, HostStep step) = s.Plan(r, DType.F16);
        rows = step.Tokens;
        return new OpCase(op, name) { Cache = cache, Step = step, History = new int[m], HistoryK = HostTensor.Of(DType.F32, [], 0, 8, d), HistoryV = HostTensor.Of(DType.F32, [], 0, 8, d) };
    }

    // A quarter of a billion elements of keys.
    private static bool Fits(long batch, long length, long kv, long d) => batch * length * kv * d <= 1 << 28;

    private static OpCase Timed(string op, string name, int batch, int queries, int length, int h, int kv, int d, int prefix)
    {
        Shape s = new(name, [.. Enumerable.Repeat(queries, batch)], [.. Enumerable.Repeat(length, batch)], H: h, Hkv: kv, D: d) { Prefixes = prefix > 0 ? [new SharedPrefix(0, batch, 0, prefix)] : [] };
        CaseData r = new(op + name);
        (KvCacheOptions cache, HostStep step) = s.Plan(r, DType.F16);
        return new OpCase(op, name)
        {
            Cache = cache,
            Step = step,
            History = new int[batch],
            HistoryK = HostTensor.Of(DType.F32, [], 0, kv, d),
            HistoryV = HostTensor.Of(DType.F32, [], 0, kv, d),
            Inputs = { ["q"] = r.Tensor(DType.F16, step.Tokens, h, d) },
            Scalars = { ["causal"] = 1 },
            Outputs = { ["o"] = (DType.F16, [step.Tokens, h, d]) },
            Flops = 4L * batch * queries * (length - (queries / 2)) * h * d,
        };
    }
}
