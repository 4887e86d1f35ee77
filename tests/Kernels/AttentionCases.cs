using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>Cases on the paged KV cache: append, fused QKV, attention, cascade.</summary>
public static partial class AttentionCases
{
    /// <summary>A ragged step: pages permuted over the pool, some pages unused.</summary>
    private sealed record Shape(string Name, int[] Queries, int[] Lengths, int H = 4, int Hkv = 2, int D = 64, int Page = 16)
    {
        public int Dv { get; init; }

        public SharedPrefix[] Prefixes { get; init; } = [];

        public int ValueDim => Dv == 0 ? D : Dv;

        public (KvCacheOptions Cache, HostStep Step) Plan(CaseData r, DType kv)
        {
            int[] counts = [.. Lengths.Select(l => (l + Page - 1) / Page)];
            int spare = 3;
            int[] free = r.Permutation(counts.Sum() + spare);
            int[] indptr = new int[counts.Length + 1];
            int[] query = new int[counts.Length + 1];
            for (int b = 0; b < counts.Length; b++)
            {
                indptr[b + 1] = indptr[b] + counts[b];
                query[b + 1] = query[b] + Queries[b];
            }

            int[] pages = free[..indptr[^1]];
            foreach (SharedPrefix p in Prefixes)
            {
                for (int b = p.FirstSequence + 1; b < p.FirstSequence + p.NumSequences; b++)
                {
                    for (int page = p.FirstKey / Page; page < (p.FirstKey + p.NumKeys) / Page; page++)
                    {
                        pages[indptr[b] + page] = pages[indptr[p.FirstSequence] + page];
                    }
                }
            }

            return (new KvCacheOptions(kv, 1, free.Length, Hkv, D, ValueDim, Page), new HostStep(query, Lengths, indptr, pages) { Prefixes = Prefixes });
        }
    }

    public static IEnumerable<OpCase> Appends()
    {
        foreach (DType kv in new[] { DType.F32, DType.F16, DType.BF16 })
        {
            foreach (DType dtype in new[] { DType.F32, kv }.Distinct())
            {
                Shape s = new($"{dtype} to {kv}", [1, 5, 0, 17], [1, 37, 4, 17], Page: 8, D: 24) { Dv = 16 };
                CaseData r = new("append" + s.Name);
                (KvCacheOptions cache, HostStep step) = s.Plan(r, kv);
                OpCase c = Base("kv_append", s.Name, s, cache, step, r, appended: false);
                c.Inputs["k"] = r.Tensor(dtype, step.Tokens, s.Hkv, s.D);
                c.Inputs["v"] = r.Tensor(dtype, step.Tokens, s.Hkv, s.ValueDim);
                ReadSlots(c, s, step, kv);
                yield return c;
            }
        }

        // To eight bits: vectors of any magnitude, of zeros and of one large element.
        foreach (DType kv in new[] { DType.I8, DType.FP8E4M3 })
        {
            foreach (DType dtype in new[] { DType.F32, DType.BF16 })
            {
                Shape s = new($"{dtype} to {kv}", [1, 5, 0, 17], [1, 37, 4, 17], Page: 8, D: 24) { Dv = 17 };
                CaseData r = new("append" + s.Name);
                (KvCacheOptions cache, HostStep step) = s.Plan(r, kv);
                OpCase c = Base("kv_append", s.Name, s, cache, step, r, appended: false);
                float[] k = r.Normal(step.Tokens * s.Hkv * s.D), v = r.Normal(step.Tokens * s.Hkv * s.ValueDim, 1e-3f);
                Array.Clear(k, s.D, s.D);
                (k[3 * s.D], v[0], v[1]) = (1e6f, -7, 1e-30f);
                c.Inputs["k"] = HostTensor.Of(dtype, k, step.Tokens, s.Hkv, s.D);
                c.Inputs["v"] = HostTensor.Of(dtype, v, step.Tokens, s.Hkv, s.ValueDim);
                ReadSlots(c, s, step, kv);
                yield return c;
            }
        }
    }

    // Pages of one sequence to spare ones, of whole vectors and not.
    public static IEnumerable<OpCase> Copies()
    {
        foreach (DType kv in new[] { DType.F32, DType.F16, DType.BF16 })
        {
            foreach (int d in new[] { 32, 10 })
            {
                yield return Copy($"{kv} D {d}", new Shape("copy", [1, 2], [37, 20], Page: d == 10 ? 1 : 8, D: d), kv);
            }
        }
    }

    private static OpCase Copy(string name, Shape s, DType kv)
    {
        CaseData r = new("copy" + name);
        (KvCacheOptions cache, HostStep step) = s.Plan(r, kv);
        OpCase c = Base("copy_pages", name, s, cache, step, r, appended: true);
        int[] sources = [step.PageIds[0], step.PageIds[2], step.PageIds[0]], targets = [.. Enumerable.Range(0, cache.Pages).Except(step.PageIds).Take(3)];
        int[] rows = [.. targets.SelectMany(page => Enumerable.Range(page * s.Hkv * s.Page, s.Hkv * s.Page))];
        c.Inputs["sources"] = HostTensor.Of(sources);
        c.Inputs["targets"] = HostTensor.Of(targets);
        c.Inputs["cache_rows"] = HostTensor.Of(rows);
        c.Outputs["cache_k"] = (kv, [rows.Length, s.D]);
        c.Outputs["cache_v"] = (kv, [rows.Length, s.ValueDim]);
        return c;
    }

    // Pages of one sequence to host memory, one of them twice, and spare pages from there: whole vectors and not, gaps between the parts and not.
    public static IEnumerable<OpCase> Swaps()
    {
        foreach (DType kv in new[] { DType.F32, DType.F16, DType.BF16, DType.I8, DType.FP8E4M3 })
        {
            foreach ((int page, int d, int dv) in new[] { (1, 10, 10), (8, 32, 32), (16, 24, 17) })
            {
                Shape s = new($"{kv} P {page} D {d}/{dv}", [1], [60], Page: page, D: d) { Dv = dv };
                yield return Save(s.Name, s, kv, offset: 48);
                yield return Load(s.Name, s, kv, offset: 48, layers: 3);
            }
        }
    }

    private static OpCase Save(string name, Shape s, DType kv, int offset)
    {
        CaseData r = new("save" + name);
        (KvCacheOptions cache, HostStep step) = s.Plan(r, kv);
        OpCase c = Base("save_pages", name, s, cache, step, r, appended: true);
        c.Inputs["pages"] = HostTensor.Of([step.PageIds[0], step.PageIds[2], step.PageIds[0]]);
        c.Scalars["offset"] = offset;
        c.Outputs["saved"] = (DType.I32, [3, HostPageBytes(cache) / sizeof(int)]);
        return c;
    }

    private static OpCase Load(string name, Shape s, DType kv, int offset, int layers)
    {
        CaseData r = new("load" + name);
        (KvCacheOptions cache, HostStep step) = s.Plan(r, kv);
        cache = cache with { Layers = layers };
        OpCase c = Base("load_pages", name, s, cache, step, r, appended: true);
        int[] targets = [.. Enumerable.Range(0, cache.Pages).Except(step.PageIds).Take(3)];
        int[] rows = [.. targets.SelectMany(page => Enumerable.Range(page * s.Hkv * s.Page, s.Hkv * s.Page))];
        int bytes = 3 * (int)HostPageBytes(cache);
        byte[] saved = kv.Size() == 1 ? [.. r.Ints(bytes, 120).Select(x => (byte)x)] : HostTensor.Of(kv, r.Normal(bytes / kv.Size())).Data;
        c.Inputs["saved"] = new HostTensor(DType.I32, [3, bytes / 3 / sizeof(int)], saved);
        c.Inputs["pages"] = HostTensor.Of(targets);
        c.Inputs["cache_rows"] = HostTensor.Of(rows);
        c.Scalars["offset"] = offset;
        c.Outputs["cache_k"] = (kv, [rows.Length, s.D]);
        c.Outputs["cache_v"] = (kv, [rows.Length, s.ValueDim]);
        return c;
    }

    /// <summary>Bytes of a page in host memory, as sluice.h lays it out.</summary>
    public static long HostPageBytes(KvCacheOptions cache)
    {
        long slots = (long)cache.Layers * cache.KvHeads * cache.PageSize, scales = cache.DType.Size() == 1 ? Whole(slots * sizeof(float)) : 0;
        return Whole(slots * cache.KeyDim * cache.DType.Size()) + Whole(slots * cache.ValueDim * cache.DType.Size()) + (2 * scales);

        static long Whole(long bytes) => (bytes + 15) / 16 * 16;
    }

    public static IEnumerable<OpCase> FusedQkvs()
    {
        (WeightEncoding Q, WeightEncoding V)[] mixes = [(WeightEncoding.F32, WeightEncoding.F32), (WeightEncoding.Q4_0, WeightEncoding.Q4_0), (WeightEncoding.Q4K, WeightEncoding.Q6K), (WeightEncoding.F16, WeightEncoding.F16)];
        int turn = 0;
        foreach ((WeightEncoding q, WeightEncoding v) in mixes)
        {
            foreach (DType dtype in new[] { DType.F32, q == WeightEncoding.F16 ? DType.F16 : DType.BF16 })
            {
                foreach (bool decode in new[] { true, false })
                {
                    turn++;
                    Shape s = new($"{dtype} {q} {v} {(decode ? "decode" : "prefill")}", decode ? [1, 1, 1] : [3, 9], decode ? [33, 1, 16] : [3, 20], H: 4, Hkv: turn % 3 == 0 ? 1 : 2, D: 32);
                    CaseData r = new("fused" + s.Name);
                    DType kv = dtype == DType.F32 ? DType.F32 : dtype;
                    (KvCacheOptions cache, HostStep step) = s.Plan(r, kv);
                    OpCase c = Base("fused_qkv", s.Name, s, cache, step, r, appended: false) with { PaddingRows = decode ? 2 : 0 };
                    int rows = step.Tokens + c.PaddingRows;
                    c.Inputs["x"] = r.Tensor(dtype, rows, 256);
                    c.Inputs["norm_weight"] = r.Tensor(DType.F32, 256);
                    c.Weights["wq"] = r.Weight(q, s.H * s.D, 256);
                    c.Weights["wk"] = r.Weight(q, s.Hkv * s.D, 256);
                    c.Weights["wv"] = r.Weight(v, s.Hkv * s.D, 256);
                    if (turn % 2 == 0)
                    {
                        c.Inputs["bias_q"] = r.Tensor(DType.F32, s.H * s.D);
                        c.Inputs["bias_k"] = r.Tensor(DType.F32, s.Hkv * s.D);
                        c.Inputs["bias_v"] = r.Tensor(DType.F32, s.Hkv * s.D);
                    }

                    if (turn % 4 == 1)
                    {
                        c.Inputs["norm_q"] = r.Tensor(DType.F32, s.D);
                        c.Inputs["norm_k"] = r.Tensor(DType.F32, s.D);
                    }

                    c.Inputs["inv_freq"] = HostTensor.Of(DType.F32, KernelCases.InvFreq(s.D), s.D / 2);
                    c.Scalars["kind"] = turn / 2 % 2;
                    c.Scalars["rope_scale"] = turn % 3 == 0 ? 1.1 : 0;
                    c.Outputs["q"] = (dtype, [rows, s.H, s.D]);
                    ReadSlots(c, s, step, kv);
                    yield return c;
                }
            }
        }
    }

    // x of f32, with and without its norm, for 16-bit queries and keys.
    public static IEnumerable<OpCase> WideFusedQkvs()
    {
        int turn = 0;
        foreach (WeightEncoding encoding in new[] { WeightEncoding.F32, WeightEncoding.F16, WeightEncoding.BF16, WeightEncoding.Q4_0, WeightEncoding.Q6K })
        {
            foreach (bool decode in new[] { true, false })
            {
                DType dtype = turn++ % 3 == 0 ? DType.BF16 : DType.F16;
                Shape s = new($"f32 to {dtype} {encoding} {(decode ? "decode" : "prefill")}", decode ? [1, 1, 1] : [20, 9], decode ? [33, 1, 16] : [20, 20], H: 4, Hkv: 2, D: 32);
                CaseData r = new("fused" + s.Name);
                (KvCacheOptions cache, HostStep step) = s.Plan(r, dtype);
                OpCase c = Base("fused_qkv", s.Name, s, cache, step, r, appended: false) with { PaddingRows = decode ? 2 : 0 };
                int rows = step.Tokens + c.PaddingRows;
                c.Inputs["x"] = r.Tensor(DType.F32, rows, 256);
                if (turn % 4 != 2)
                {
                    c.Inputs["norm_weight"] = r.Tensor(DType.F32, 256);
                }

                c.Weights["wq"] = r.Weight(encoding, s.H * s.D, 256);
                c.Weights["wk"] = r.Weight(encoding, s.Hkv * s.D, 256);
                c.Weights["wv"] = r.Weight(encoding, s.Hkv * s.D, 256);
                c.Inputs["inv_freq"] = HostTensor.Of(DType.F32, KernelCases.InvFreq(s.D), s.D / 2);
                c.Outputs["q"] = (dtype, [rows, s.H, s.D]);
                ReadSlots(c, s, step, dtype);
                yield return c;
            }
        }
    }

    // Into a cache of eight bits: RoPE and QK-norm before the scale is known.
    public static IEnumerable<OpCase> EightBitQkvs()
    {
        foreach (DType kv in new[] { DType.I8, DType.FP8E4M3 })
        {
            foreach (RopeKind kind in new[] { RopeKind.Half, RopeKind.Interleaved })
            {
                Shape s = new($"into {kv} {kind}", [1, 9], [33, 20], H: 4, Hkv: 2, D: 48) { Dv = 32 };
                CaseData r = new("fused" + s.Name);
                (KvCacheOptions cache, HostStep step) = s.Plan(r, kv);
                OpCase c = Base("fused_qkv", s.Name, s, cache, step, r, appended: false) with { PaddingRows = 2 };
                int rows = step.Tokens + c.PaddingRows;
                c.Inputs["x"] = r.Tensor(DType.F32, rows, 64);
                c.Weights["wq"] = r.Weight(WeightEncoding.F32, s.H * s.D, 64);
                c.Weights["wk"] = r.Weight(WeightEncoding.F32, s.Hkv * s.D, 64);
                c.Weights["wv"] = r.Weight(WeightEncoding.F32, s.Hkv * s.ValueDim, 64);
                c.Inputs["norm_k"] = r.Tensor(DType.F32, s.D);
                c.Inputs["inv_freq"] = HostTensor.Of(DType.F32, KernelCases.InvFreq(32), 16);
                c.Scalars["kind"] = (int)kind;
                c.Outputs["q"] = (DType.F32, [rows, s.H, s.D]);
                ReadSlots(c, s, step, kv);
                yield return c;
            }
        }
    }

    // QK-norm of whole rows (OLMo 2), with padding rows and without, and of q alone.
    public static IEnumerable<OpCase> WholeRowNorms()
    {
        int turn = 0;
        foreach (WeightEncoding encoding in new[] { WeightEncoding.F32, WeightEncoding.Q4_0, WeightEncoding.Q6K, WeightEncoding.GPTQ4, WeightEncoding.GPTQ4V2 })
        {
            foreach (DType dtype in new[] { DType.F32, DType.F16 })
            {
                bool decode = turn++ % 2 == 0;
                Shape s = new($"whole rows {dtype} {encoding}", decode ? [1, 1, 1] : [3, 9], decode ? [33, 1, 16] : [3, 20], H: 6, Hkv: turn % 3 == 0 ? 1 : 3, D: 40);
                CaseData r = new("fused" + s.Name);
                (KvCacheOptions cache, HostStep step) = s.Plan(r, dtype);
                OpCase c = Base("fused_qkv", s.Name, s, cache, step, r, appended: false) with { PaddingRows = decode ? 2 : 0 };
                int rows = step.Tokens + c.PaddingRows, group = encoding is WeightEncoding.GPTQ4 or WeightEncoding.GPTQ4V2 ? 32 : 0;
                c.Inputs["x"] = r.Tensor(dtype, rows, 256);
                c.Weights["wq"] = r.Weight(encoding, s.H * s.D, 256, group);
                c.Weights["wk"] = r.Weight(encoding, s.Hkv * s.D, 256, group);
                c.Weights["wv"] = r.Weight(encoding, s.Hkv * s.D, 256, group);
                c.Inputs["norm_q"] = r.Tensor(turn % 4 == 0 ? dtype : DType.F32, s.H * s.D);
                if (turn != 3)
                {
                    c.Inputs["norm_k"] = r.Tensor(DType.F32, s.Hkv * s.D);
                }

                c.Inputs["inv_freq"] = HostTensor.Of(DType.F32, KernelCases.InvFreq(s.D), s.D / 2);
                c.Outputs["q"] = (dtype, [rows, s.H, s.D]);
                ReadSlots(c, s, step, dtype);
                yield return c;
            }
        }
    }

    // What Gemma asks of attention at once, for decode, for a prompt longer than its window and for a chunk after one.
    public static IEnumerable<OpCase> CappedWindows()
    {
        foreach ((int d, int dv) in new[] { (16, 16), (80, 80), (96, 64), (128, 128), (192, 128), (256, 256), (64, 256) })
        {
            foreach ((string kind, int[] queries, int[] lengths) in new (string, int[], int[])[] { ("decode", [1, 1], [37, 290]), ("prefill", [30, 3], [30, 3]), ("chunk", [6, 9], [40, 265]) })
            {
                foreach (DType dtype in new[] { DType.F32, d == 96 ? DType.BF16 : DType.F16 })
                {
                    Shape s = new($"window, cap and scale D {d} Dv {dv} {kind}", queries, lengths, H: 4, Hkv: d == 128 ? 1 : 2, D: d) { Dv = dv };
                    yield return With(Attention("paged_attention", $"{s.Name} {dtype}", s, dtype, dtype, causal: true), c =>
                    {
                        c.Scalars["window"] = 16;
                        c.Scalars["soft_cap"] = 50;
                        c.Scalars["scale"] = 1 / Math.Sqrt(144);
                    });
                }
            }
        }
    }

    public static IEnumerable<OpCase> Attentions()
    {
        Shape decode = new("decode", [1, 1, 1, 1], [1, 16, 33, 300]);
        Shape prefill = new("prefill", [5, 40], [5, 40]);
        Shape chunk = new("chunk", [7, 1, 18], [47, 270, 256]);
        Shape[] shapes =
        [
            decode, prefill, chunk,
            new("empty sequence", [0, 1, 0], [5, 17, 0]),
            new("last page of 1 and of P", [1, 1], [33, 32]),
            new("long decode", [1], [700]),
            new("group 1", [1, 3], [20, 40], H: 2, Hkv: 2),
            new("group 3", [1, 3], [20, 40], H: 6, Hkv: 2),
            new("group 7", [1, 2], [90, 40], H: 14, Hkv: 2),
            new("group 8", [1, 2], [90, 40], H: 8, Hkv: 1),
            new("D 80", [1, 4], [33, 20], D: 80),
            new("D 96 page 1", [1, 4], [33, 20], D: 96, Page: 1),
            new("D 128 page 64", [1, 4], [130, 20], D: 128, Page: 64),
            new("D 256", [2], [40], H: 2, Hkv: 1, D: 256),
            new("D 8, Dv 24", [2, 1], [19, 30], D: 8) { Dv = 24 },
            new("D 10, Dv 6, decode", [1, 1], [33, 70], D: 10) { Dv = 6 },
            new("D 10, Dv 6, prompt", [3, 20], [33, 20], D: 10) { Dv = 6 },
            new("verify 8", [8, 4], [264, 60]),
            new("one tile for all blocks", [1], [1300], Hkv: 1),
        ];
        foreach (Shape s in shapes)
        {
            foreach (DType dtype in s == decode || s == prefill || s == chunk ? new[] { DType.F32, DType.F16, DType.BF16 } : [DType.F32, DType.F16])
            {
                yield return Attention("paged_attention", $"{s.Name} {dtype}", s, dtype, dtype, causal: true);
            }
        }

        yield return Attention("paged_attention", "f32 on f16 KV", chunk, DType.F32, DType.F16, causal: true);
        yield return Attention("paged_attention", "not causal", chunk, DType.F32, DType.F32, causal: false);
        foreach (DType dtype in new[] { DType.F32, DType.F16 })
        {
            yield return With(Attention("paged_attention", $"window {dtype}", chunk, dtype, dtype, causal: true), c => c.Scalars["window"] = 20);
            yield return With(Attention("paged_attention", $"soft cap {dtype}", chunk, dtype, dtype, causal: true), c => c.Scalars["soft_cap"] = 5);
            yield return With(Attention("paged_attention", $"scale {dtype}", decode, dtype, dtype, causal: true), c => c.Scalars["scale"] = 0.3);
            yield return With(Attention("paged_attention", $"sinks {dtype}", decode, dtype, dtype, causal: true), c => c.Inputs["sinks"] = HostTensor.Of(DType.F32, [0, 2, -3, 6], 4));
            yield return With(Attention("paged_attention", $"ALiBi {dtype}", chunk, dtype, dtype, causal: true), c => c.Inputs["alibi_slopes"] = HostTensor.Of(DType.F32, [0.5f, 0.25f, 0.125f, 0.0625f], 4));
            yield return Masked(Attention("paged_attention", $"tree mask {dtype}", new Shape("mask", [4, 1, 3], [70, 9, 19]), dtype, dtype, causal: true));
            yield return Unseen(Masked(Attention("paged_attention", $"infinity that nobody sees {dtype}", new Shape("mask", [4, 1, 3], [70, 9, 19]), dtype, dtype, causal: true)));
            yield return With(Attention("paged_attention", $"scores of -5e5 {dtype}", decode, dtype, dtype, causal: true), c =>
            {
                c.Scalars["scale"] = 1;
                c.Inputs["q"] = HostTensor.Of(dtype, [.. c.Inputs["q"].ToDoubles().Select(v => (float)v * 3000)], c.Inputs["q"].Shape);
            });
        }

        yield return With(Attention("paged_attention", "everything at once", chunk, DType.F32, DType.F32, causal: true), c =>
        {
            c.Scalars["window"] = 100;
            c.Scalars["soft_cap"] = 30;
            c.Inputs["sinks"] = HostTensor.Of(DType.F32, [0, 2, -3, 6], 4);
            c.Inputs["alibi_slopes"] = HostTensor.Of(DType.F32, [0.5f, 0.25f, 0.125f, 0.0625f], 4);
        });
        yield return With(Attention("paged_attention", "padding rows", decode, DType.F32, DType.F32, causal: true, padding: 3), _ => { });

        Shape shared = new("shared prefix", [1, 1, 3, 1], [520, 600, 530, 40]) { Prefixes = [new SharedPrefix(0, 3, 0, 512)] };
        Shape tree = new("prefix tree", [1, 1, 1, 2], [530, 777, 800, 300]) { Prefixes = [new SharedPrefix(0, 4, 0, 256), new SharedPrefix(0, 1, 256, 256), new SharedPrefix(1, 2, 256, 512)] };
        foreach (Shape s in new[] { shared, tree })
        {
            foreach (DType dtype in new[] { DType.F32, DType.F16 })
            {
                yield return Attention("cascade_attention", $"{s.Name} {dtype}", s, dtype, dtype, causal: true);
            }
        }

        yield return With(Attention("cascade_attention", "window and sinks", shared, DType.F32, DType.F32, causal: true), c =>
        {
            c.Scalars["window"] = 300;
            c.Inputs["sinks"] = HostTensor.Of(DType.F32, [0, 2, -3, 6], 4);
        });
        yield return Attention("cascade_attention", "no prefixes", chunk, DType.F32, DType.F32, causal: true);
    }

    private static OpCase With(OpCase c, Action<OpCase> change)
    {
        change(c);
        return c;
    }

    private static OpCase Attention(string op, string name, Shape s, DType dtype, DType kv, bool causal, int padding = 0)
    {
        CaseData r = new(op + name);
        (KvCacheOptions cache, HostStep step) = s.Plan(r, kv);
        OpCase c = Base(op, name, s, cache, step, r, appended: true) with { PaddingRows = padding };
        int rows = step.Tokens + padding;
        c.Inputs["q"] = r.Tensor(dtype, rows, s.H, s.D);
        c.Scalars["causal"] = causal ? 1 : 0;
        c.Outputs["o"] = (dtype, [rows, s.H, s.ValueDim]);
        c.Outputs["lse2_out"] = (DType.F32, [rows, s.H]);
        return c;
    }

    // Random trees: each query sees a random half of the keys, and always its own slot; one row sees nothing.
    private static OpCase Masked(OpCase c)
    {
        CaseData r = new("mask" + c.Name);
        HostStep step = c.Step!;
        int[] indptr = new int[step.Sequences + 1];
        List<byte> mask = [];
        for (int b = 0; b < step.Sequences; b++)
        {
            int rows = step.QueryIndptr[b + 1] - step.QueryIndptr[b], keys = step.KvLengths[b], width = (keys + 7) / 8;
            for (int i = 0; i < rows && b != 1; i++)
            {
                byte[] row = new byte[width];
                for (int j = 0; j < keys && !(b == 0 && i == 2); j++)
                {
                    if (r.Next(2) == 0 || j == keys - rows + i)
                    {
                        row[j / 8] |= (byte)(1 << (j % 8));
                    }
                }

                mask.AddRange(row);
            }

            indptr[b + 1] = mask.Count;
        }

        return c with { Step = step with { Mask = [.. mask], MaskIndptr = indptr } };
    }

    // A value that no query sees is infinite: it must not reach any of them.
    private static OpCase Unseen(OpCase c)
    {
        const int key = 3;
        HostStep step = c.Step!;
        int width = (step.KvLengths[0] + 7) / 8;
        for (int row = 0; row < step.QueryIndptr[1]; row++)
        {
            step.Mask[(row * width) + (key / 8)] &= unchecked((byte)~(1 << (key % 8)));
        }

        int stride = c.HistoryV!.Data.Length / c.History.Sum();
        for (int at = key * stride; at < (key + 1) * stride; at += sizeof(float))
        {
            BitConverter.TryWriteBytes(c.HistoryV.Data.AsSpan(at), float.PositiveInfinity);
        }

        return c;
    }

    private static OpCase Base(string op, string name, Shape s, KvCacheOptions cache, HostStep step, CaseData r, bool appended)
    {
        int[] history = [.. s.Lengths.Select((l, b) => appended ? l : l - s.Queries[b])];
        // Sequences that share a prefix must write the same values to its pages.
        float[] k = r.Normal((long)history.Sum() * s.Hkv * s.D), v = r.Normal((long)history.Sum() * s.Hkv * s.ValueDim);
        int[] starts = [.. history.Select((_, b) => history[..b].Sum())];
        foreach (SharedPrefix p in s.Prefixes)
        {
            for (int b = p.FirstSequence + 1; b < p.FirstSequence + p.NumSequences; b++)
            {
                Array.Copy(k, (starts[p.FirstSequence] + p.FirstKey) * s.Hkv * s.D, k, (starts[b] + p.FirstKey) * s.Hkv * s.D, p.NumKeys * s.Hkv * s.D);
                Array.Copy(v, (starts[p.FirstSequence] + p.FirstKey) * s.Hkv * s.ValueDim, v, (starts[b] + p.FirstKey) * s.Hkv * s.ValueDim, p.NumKeys * s.Hkv * s.ValueDim);
            }
        }

        return new OpCase(op, name)
        {
            Cache = cache,
            Step = step,
            History = history,
            HistoryK = HostTensor.Of(DType.F32, k, history.Sum(), s.Hkv, s.D),
            HistoryV = HostTensor.Of(DType.F32, v, history.Sum(), s.Hkv, s.ValueDim),
        };
    }

    // Reads back the slots of the step's tokens.
    private static void ReadSlots(OpCase c, Shape s, HostStep step, DType kv)
    {
        List<int> rows = [];
        for (int b = 0; b < step.Sequences; b++)
        {
            int queries = step.QueryIndptr[b + 1] - step.QueryIndptr[b];
            for (int slot = step.KvLengths[b] - queries; slot < step.KvLengths[b]; slot++)
            {
                int page = step.PageIds[step.PageIndptr[b] + (slot / s.Page)];
                for (int h = 0; h < s.Hkv; h++)
                {
                    rows.Add((((page * s.Hkv) + h) * s.Page) + (slot % s.Page));
                }
            }
        }

        c.Inputs["cache_rows"] = HostTensor.Of([.. rows]);
        c.Outputs["cache_k"] = (kv, [rows.Count, s.D]);
        c.Outputs["cache_v"] = (kv, [rows.Count, s.ValueDim]);
    }
}
