using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>A case to be timed that is not made before it is its turn; its cache, of the pages that the step names, may take gigabytes.</summary>
public sealed record TimedCase(string Op, string Name, long CacheBytes, Func<OpCase> Make)
{
    public override string ToString() => $"{Op} {Name}";
}

public static partial class AttentionCases
{
    private const long MostCacheBytes = 16L << 30;

    // The field's axes: query heads, KV heads, head dim; sequences; keys.
    private static readonly (int H, int Kv, int D)[] TimedHeads = [(32, 32, 128), (32, 8, 128), (32, 8, 64), (28, 4, 128), (64, 8, 128), (8, 4, 256)];
    private static readonly int[] Batches = [1, 2, 4, 8, 16, 32, 64, 128, 256], Lengths = [512, 1024, 2048, 4096, 8192, 16384, 32768];
    private static readonly int[] Chunks = [128, 512, 2048, 8192], Before = [0, 4096, 32768], Shared = [1024, 2048, 8192, 32768], Own = [128, 256, 512, 1024, 2048];

    /// <summary>
    /// Attention to be timed: the shapes that tables of the field have, what goals are set for first, then a coarse grid of all kinds. What follows is all of the
    /// grid: each name comes once. Nothing of a case is made before it is asked for. A cascade has beside it paged_attention over the very same pages, "flat".
    /// </summary>
    /// <param name="whole">Also what the coarse grid leaves out.</param>
    public static IEnumerable<TimedCase> Timed(bool whole)
    {
        HashSet<string> seen = [];
        return TimedGoals().Concat(TimedCoarse()).Concat(whole ? TimedGrid() : []).Where(c => c.CacheBytes <= MostCacheBytes && seen.Add(c.ToString()));
    }

    /// <summary>Of the shapes that goals are set for.</summary>
    public static IEnumerable<TimedCase> TimedGoals() =>
    [
        Decode(32, 32, 128, 16, 4096), Decode(32, 4, 128, 64, 8192), Decode(32, 4, 128, 1, 65536), Decode(32, 32, 128, 1, 1024), Decode(32, 32, 128, 1, 65536), Decode(32, 8, 128, 1, 1024),
        Decode(32, 32, 128, 16, 4096, kv: DType.FP8E4M3), Decode(32, 4, 128, 64, 8192, kv: DType.FP8E4M3), Append(8192, 0, 32, 32, 128), Append(8192, 0, 32, 8, 128),
        .. Cascade(32, 32, 128, 256, [8192], 128), .. Cascade(32, 8, 128, 64, [2048], 128), .. Cascade(32, 32, 128, 256, [1024], 128), .. Cascade(32, 32, 128, 8, [1024], 128),
    ];

    /// <summary>Some of every kind in sizes that an executor runs.</summary>
    public static IEnumerable<TimedCase> TimedSmall() =>
    [
        Decode(4, 4, 64, 1, 128), Decode(4, 2, 64, 2, 256), Decode(4, 2, 64, 2, 256, page: 1), Decode(4, 2, 64, 2, 256, kv: DType.I8), Decode(4, 2, 64, 2, 256, queries: 2),
        .. Skewed(4, 2, 64, 4, 384, 128), Append(32, 96, 4, 2, 64), .. Cascade(4, 2, 64, 4, [256], 32), .. Cascade(4, 2, 64, 8, [256, 256, 256], 32),
    ];

    private static IEnumerable<TimedCase> TimedCoarse()
    {
        foreach ((int h, int kv, int d) in TimedHeads)
        {
            foreach (int batch in new[] { 1, 8, 64, 256 })
            {
                foreach (int length in new[] { 1024, 4096, 32768 })
                {
                    yield return Decode(h, kv, d, batch, length);
                }
            }
        }

        foreach (TimedCase c in Before.SelectMany(prefix => Chunks.Select(queries => Append(queries, prefix, 32, 8, 128))))
        {
            yield return c;
        }

        foreach ((int h, int kv) in new[] { (32, 32), (32, 8) })
        {
            foreach (TimedCase c in from batch in new[] { 8, 64, 256 } from prefix in Shared from suffix in new[] { 128, 2048 } from c in Cascade(h, kv, 128, batch, [prefix], suffix) select c)
            {
                yield return c;
            }
        }

        foreach (TimedCase c in new[] { 16, 64, 256 }.SelectMany(batch => Cascade(32, 8, 128, batch, [2048, 1024, 512], 128)))
        {
            yield return c;
        }

        // Around one cell of the grid: pages, elements, queries of speculated tokens, batches that are not even; and one sequence that is very long.
        foreach ((int h, int kv) in new[] { (32, 32), (32, 8) })
        {
            foreach (int batch in new[] { 1, 16, 64 })
            {
                yield return Decode(h, kv, 128, batch, 4096, page: 1);
                yield return Decode(h, kv, 128, batch, 4096, page: 64);
                yield return Decode(h, kv, 128, batch, 4096, kv: DType.FP8E4M3);
                yield return Decode(h, kv, 128, batch, 4096, kv: DType.I8);
                yield return Decode(h, kv, 128, batch, 4096, queries: 2);
                yield return Decode(h, kv, 128, batch, 4096, queries: 4);
                yield return Decode(h, kv, 128, batch, 4096, queries: 8);
            }

            foreach (TimedCase c in Skewed(h, kv, 128, 64, 131072, 2048))
            {
                yield return c;
            }

            yield return Decode(h, kv, 128, 1, 131072);
        }
    }

    private static IEnumerable<TimedCase> TimedGrid()
    {
        foreach ((int h, int kv, int d) in TimedHeads)
        {
            foreach (TimedCase c in Batches.SelectMany(batch => Lengths.Select(length => Decode(h, kv, d, batch, length))))
            {
                yield return c;
            }

            yield return Decode(h, kv, d, 1, 131072);
        }

        foreach ((int h, int kv, int d) in TimedHeads)
        {
            foreach (TimedCase c in Before.SelectMany(prefix => Chunks.Select(queries => Append(queries, prefix, h, kv, d))))
            {
                yield return c;
            }

            foreach (TimedCase c in from queries in new[] { 2, 4, 8 } from batch in new[] { 1, 16, 64 } from length in new[] { 1024, 32768 } select Decode(h, kv, d, batch, length, queries: queries))
            {
                yield return c;
            }

            foreach (TimedCase c in from type in new[] { DType.FP8E4M3, DType.I8 } from batch in new[] { 1, 16, 64, 256 } from length in new[] { 1024, 32768 } select Decode(h, kv, d, batch, length, kv: type))
            {
                yield return c;
            }

            foreach (TimedCase c in Skewed(h, kv, d, 64, 131072, 2048).Concat(Skewed(h, kv, d, 16, 32768, 512)))
            {
                yield return c;
            }
        }

        foreach ((int h, int kv) in new[] { (32, 32), (32, 8) })
        {
            foreach (TimedCase c in from batch in Batches where batch >= 8 from prefix in Shared from suffix in Own from c in Cascade(h, kv, 128, batch, [prefix], suffix) select c)
            {
                yield return c;
            }

            foreach (TimedCase c in from batch in Batches where batch >= 8 from suffix in new[] { 128, 512, 2048 } from c in Cascade(h, kv, 128, batch, [2048, 1024, 512], suffix) select c)
            {
                yield return c;
            }
        }
    }

    private static TimedCase Decode(int h, int kvHeads, int d, int batch, int length, int queries = 1, int page = 16, DType kv = DType.F16)
    {
        string name = $"decode {h}/{kvHeads}/{d} bs {batch} kv {length}{(queries > 1 ? $" q {queries}" : "")}{(page != 16 ? $" page {page}" : "")}{(kv != DType.F16 ? $" {kv}" : "")}";
        return new TimedPlan([.. Enumerable.Repeat(queries, batch)], [.. Enumerable.Repeat(length, batch)], h, kvHeads, d) { Page = page, Kv = kv }.Case("paged_attention", name);
    }

    // One long sequence among short ones, and as many keys in as many sequences of one length.
    private static IEnumerable<TimedCase> Skewed(int h, int kvHeads, int d, int batch, int longest, int others)
    {
        int[] ones = [.. Enumerable.Repeat(1, batch)], lengths = [longest, .. Enumerable.Repeat(others, batch - 1)];
        int total = lengths.Sum();
        int[] even = [.. lengths.Select((_, b) => (total / batch) + (b < total % batch ? 1 : 0))];
        yield return new TimedPlan(ones, lengths, h, kvHeads, d).Case("paged_attention", $"skewed {h}/{kvHeads}/{d} bs {batch} keys {total}");
        yield return new TimedPlan(ones, even, h, kvHeads, d).Case("paged_attention", $"even {h}/{kvHeads}/{d} bs {batch} keys {total}");
    }

    private static TimedCase Append(int queries, int prefix, int h, int kvHeads, int d) =>
        new TimedPlan([queries], [queries + prefix], h, kvHeads, d).Case("paged_attention", $"append {queries} on {prefix} {h}/{kvHeads}/{d}");

    // Levels: keys that all sequences share, then some that a half of them does, then a half of those.
    private static IEnumerable<TimedCase> Cascade(int h, int kvHeads, int d, int batch, int[] levels, int suffix)
    {
        List<SharedPrefix> prefixes = [];
        for (int level = 0, first = 0, group = batch; level < levels.Length; first += levels[level++], group = Math.Max(1, group / 2))
        {
            for (int b = 0; b < batch; b += group)
            {
                prefixes.Add(new SharedPrefix(b, group, first, levels[level]));
            }
        }

        string name = $"{h}/{kvHeads}/{d} bs {batch} prefix {string.Join('+', levels)} suffix {suffix}";
        TimedPlan plan = new([.. Enumerable.Repeat(1, batch)], [.. Enumerable.Repeat(levels.Sum() + suffix, batch)], h, kvHeads, d) { Prefixes = [.. prefixes] };
        yield return plan.Case("cascade_attention", name);
        yield return plan.Case("paged_attention", $"flat {name}");
    }

    // A step of many keys. Pages that a prefix shares are there once.
    private sealed record TimedPlan(int[] Queries, int[] Lengths, int H, int KvHeads, int D)
    {
        public int Page { get; init; } = 16;

        public DType Kv { get; init; } = DType.F16;

        public SharedPrefix[] Prefixes { get; init; } = [];

        public TimedCase Case(string op, string name)
        {
            int pages = Lengths.Sum(length => (length + Page - 1) / Page) - Prefixes.Sum(p => (p.NumSequences - 1) * (p.NumKeys / Page));
            KvCacheOptions cache = new(Kv, 1, pages, KvHeads, D, D, Page);
            return new TimedCase(op, name, pages * Page * Minimum.RowBytes(cache), () => Make(op, name, cache));
        }

        private OpCase Make(string op, string name, KvCacheOptions cache)
        {
            int[] query = new int[Lengths.Length + 1], indptr = new int[Lengths.Length + 1];
            for (int b = 0; b < Lengths.Length; b++)
            {
                query[b + 1] = query[b] + Queries[b];
                indptr[b + 1] = indptr[b] + ((Lengths[b] + Page - 1) / Page);
            }

            int[] ids = new int[indptr[^1]], free = new CaseData(op + name).Permutation(cache.Pages);
            Array.Fill(ids, -1);
            int taken = 0;
            foreach (SharedPrefix p in Prefixes)
            {
                for (int page = p.FirstKey / Page; page < (p.FirstKey + p.NumKeys) / Page; page++, taken++)
                {
                    for (int b = p.FirstSequence; b < p.FirstSequence + p.NumSequences; b++)
                    {
                        ids[indptr[b] + page] = free[taken];
                    }
                }
            }

            for (int i = 0; i < ids.Length; i++)
            {
                ids[i] = ids[i] < 0 ? free[taken++] : ids[i];
            }

            int tokens = query[^1];
            return new OpCase(op, name)
            {
                Cache = cache,
                Step = new HostStep(query, Lengths, indptr, ids) { Prefixes = op == "cascade_attention" ? Prefixes : [] },
                Inputs = { ["q"] = CaseData.Repeated(DType.F16, tokens, H, D) },
                Scalars = { ["causal"] = 1 },
                Outputs = { ["o"] = (DType.F16, [tokens, H, D]) },
                Flops = 4L * H * D * Queries.Zip(Lengths, (q, length) => ((long)q * (length - q)) + ((long)q * (q + 1) / 2)).Sum(),
            };
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
}
