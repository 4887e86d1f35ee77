using Sluice.Interop;

namespace Sluice.Kernels;

public static partial class AttentionCases
{
    /// <summary>Attention's and fused QKV's part of <see cref="CountedCases"/>.</summary>
    public static IEnumerable<OpCase> Counted()
    {
        const DType f16 = DType.F16;
        Shape[] decode =
        [
            new("decode GQA 32/8 bs 4 kv 1024", [1, 1, 1, 1], [1024, 1024, 1024, 1024], H: 32, Hkv: 8, D: 128),
            new("decode MHA 8/8 bs 4 kv 512", [1, 1, 1, 1], [512, 512, 512, 512], H: 8, Hkv: 8, D: 128),
            new("decode GQA 32/4 bs 4 kv 512", [1, 1, 1, 1], [512, 512, 512, 512], H: 32, Hkv: 4, D: 128),
            new("decode GQA 4/1 bs 1 kv 8192", [1], [8192], H: 4, Hkv: 1, D: 128),
            new("decode GQA 8/2 D 64 bs 4 kv 512 page 1", [1, 1, 1, 1], [512, 512, 512, 512], H: 8, Hkv: 2, D: 64, Page: 1),
        ];
        foreach (Shape s in decode)
        {
            yield return Attention("paged_attention", $"{f16} {s.Name}", s, f16, f16, causal: true);
        }

        yield return Attention("paged_attention", $"{f16} prefill 128 on 128, 8/2", new Shape("prefill", [128], [256], H: 8, Hkv: 2, D: 128), f16, f16, causal: true);
        yield return Attention("paged_attention", $"{f16} verify 8 on 1024, 8/2 bs 4", new Shape("verify", [8, 8, 8, 8], [1032, 1032, 1032, 1032], H: 8, Hkv: 2, D: 128), f16, f16, causal: true);
        int[] ones = [.. Enumerable.Repeat(1, 8)], lengths = [.. Enumerable.Repeat(544, 8)];
        int[] sixteen = [.. Enumerable.Repeat(1, 16)], long16 = [.. Enumerable.Repeat(4096 + 256, 16)];
        yield return Attention("cascade_attention", $"{f16} bs 16 prefix 4096 suffix 256, 8/2", new Shape("cascade", sixteen, long16, H: 8, Hkv: 2, D: 128) { Prefixes = [new SharedPrefix(0, 16, 0, 4096)] }, f16, f16, causal: true);
        yield return Attention("cascade_attention", $"{f16} bs 8 prefix 512 suffix 32, 8/2", new Shape("cascade", ones, lengths, H: 8, Hkv: 2, D: 128) { Prefixes = [new SharedPrefix(0, 8, 0, 512)] }, f16, f16, causal: true);

        Shape append = new($"{f16} 32 tokens, 8 heads", [32], [64], H: 8, Hkv: 8, D: 128);
        CaseData r = new("counted append");
        (KvCacheOptions cache, HostStep step) = append.Plan(r, f16);
        OpCase appended = Base("kv_append", append.Name, append, cache, step, r, appended: false);
        appended.Inputs["k"] = r.Tensor(f16, 32, 8, 128);
        appended.Inputs["v"] = r.Tensor(f16, 32, 8, 128);
        ReadSlots(appended, append, step, f16);
        yield return appended;

        yield return Copy($"{f16} 3 pages, 8 heads", new Shape("copy", [1], [60], H: 8, Hkv: 8, D: 128), f16);
        yield return Save($"{f16} 3 pages, 8 heads", new Shape("save", [1], [60], H: 8, Hkv: 8, D: 128), f16, offset: 128);
        yield return Load($"{f16} 3 pages, 8 heads", new Shape("load", [1], [60], H: 8, Hkv: 8, D: 128), f16, offset: 128, layers: 1);

        foreach ((WeightEncoding q, WeightEncoding v) in new[] { (WeightEncoding.Q4_0, WeightEncoding.Q4_0), (WeightEncoding.F16, WeightEncoding.F16), (WeightEncoding.Q4K, WeightEncoding.Q6K) })
        {
            yield return Fused($"{f16} {q} {v} decode", new Shape("decode", [1], [101], H: 8, Hkv: 2, D: 64), q, v);
        }

        yield return Fused($"{f16} {WeightEncoding.Q4_0} {WeightEncoding.Q4_0} decode bs 4", new Shape("decode", [1, 1, 1, 1], [101, 64, 33, 1], H: 8, Hkv: 2, D: 64), WeightEncoding.Q4_0, WeightEncoding.Q4_0);
        yield return Fused($"{f16} {WeightEncoding.Q4_0} {WeightEncoding.Q4_0} prefill 32", new Shape("prefill", [32], [40], H: 8, Hkv: 2, D: 64), WeightEncoding.Q4_0, WeightEncoding.Q4_0);
        yield return Fused($"{f16} {WeightEncoding.F16} {WeightEncoding.F16} prefill 32", new Shape("prefill", [32], [40], H: 8, Hkv: 2, D: 64), WeightEncoding.F16, WeightEncoding.F16);
    }

    private static OpCase Fused(string name, Shape s, WeightEncoding q, WeightEncoding v)
    {
        const int columns = 512;
        CaseData r = new("fused" + name);
        (KvCacheOptions cache, HostStep step) = s.Plan(r, DType.F16);
        OpCase c = Base("fused_qkv", name, s, cache, step, r, appended: false);
        c.Inputs["x"] = r.Tensor(DType.F16, step.Tokens, columns);
        c.Inputs["norm_weight"] = r.Tensor(DType.F16, columns);
        c.Weights["wq"] = r.Weight(q, s.H * s.D, columns);
        c.Weights["wk"] = r.Weight(q, s.Hkv * s.D, columns);
        c.Weights["wv"] = r.Weight(v, s.Hkv * s.D, columns);
        c.Inputs["inv_freq"] = HostTensor.Of(DType.F32, KernelCases.InvFreq(s.D), s.D / 2);
        c.Outputs["q"] = (DType.F16, [step.Tokens, s.H, s.D]);
        ReadSlots(c, s, step, DType.F16);
        return c;
    }
}
