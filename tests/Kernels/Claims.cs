using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>Switched as the kernels that they are about land: each turns a looser claim into the one that counts.</summary>
public static class KernelsLanded
{
    /// <summary>Attention multiplies tiles of query rows on tensor cores (f32: on tiles), and reads keys and values once a tile.</summary>
    public static bool AttentionTiles => true;

    /// <summary>linear multiplies more than 16 rows of 16-bit activations on tensor cores, in tiles.</summary>
    public static bool MatrixTiles => true;

    /// <summary>cascade_attention reads a shared prefix once for its group.</summary>
    public static bool CascadeReadsPrefixOnce => true;
}

/// <summary>
/// What an op may cost, asserted in every test run beside its error. The first row of an op whose condition holds is a
/// case's claim. Launches, tensor cores, bank conflicts and reads of the KV cache hold for every case; bytes and sector use
/// for the sizes of <see cref="CountedCases"/>: in a small case everything is rounding.
/// </summary>
public sealed record Claim(string Op, string Why)
{
    public Func<OpCase, bool> When { get; init; } = _ => true;

    public Func<OpCase, long> Launches { get; init; } = _ => 1;

    /// <summary>Bytes of sectors that may be touched, as a function of the run (its case, its least).</summary>
    public required Func<CountedRun, double> Moved { get; init; }

    /// <summary>Asked bytes over touched bytes, at least.</summary>
    public required double SectorUse { get; init; }

    /// <summary>Extra passes of shared memory, at most.</summary>
    public Func<OpCase, double> Conflicts { get; init; } = _ => 0;

    /// <summary>Bytes that attention may read of KV pages.</summary>
    public Func<OpCase, double>? KvRead { get; init; }

    /// <summary>True: there must be tensor-core instructions; false: there must be none; null: either.</summary>
    public Func<OpCase, bool?> Mma { get; init; } = _ => false;

    /// <summary>What does not hold, a line each.</summary>
    public IEnumerable<string> Broken(CountedRun run, bool sized)
    {
        Counters n = run.Counters;
        OpCase c = run.Case;
        if (n.Launches > (ulong)Launches(c) || n.Launches == 0)
        {
            yield return Text("launches", n.Launches, Launches(c));
        }

        if (n.BankConflicts > Conflicts(c))
        {
            yield return Text("extra passes of shared memory", n.BankConflicts, Conflicts(c));
        }

        if (Mma(c) is { } wanted && wanted != n.Mma > 0)
        {
            yield return Text("tensor-core instructions", n.Mma, wanted ? "more than 0" : "0");
        }

        if (KvRead?.Invoke(c) is { } read && n.KvBytesRead > read)
        {
            yield return Text($"bytes read of KV pages (each once is {Minimum.KvBytes(c):#,0})", n.KvBytesRead, read);
        }

        if (sized && run.MovedBytes > Moved(run))
        {
            yield return Text($"bytes of sectors (the least is {run.MinimumBytes:#,0})", run.MovedBytes, Moved(run));
        }

        if (sized && run.SectorUse < SectorUse)
        {
            yield return string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{c}: sector use: found {run.SectorUse:0.000}, allowed {SectorUse:0.000} and above ({Why})");
        }

        string Text<TFound, TAllowed>(string what, TFound found, TAllowed allowed) =>
            string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{c}: {what}: found {found:#,0}, allowed {allowed:#,0} ({Why})");
    }
}

/// <summary>The table of claims.</summary>
public static class Claims
{
    private static readonly Claim[] Table =
    [
        // A weight's element is read by itself, lanes a vector apart: 16 bytes of sector for each of its bytes' vector.
        new("rms_norm", "x and y once; w once a row") { Moved = r => (1.01 * r.MinimumBytes) + NormWeight(r.Case), SectorUse = 0.99 },
        new("add_rms_norm", "x, y and the residual once each way; w once a row") { Moved = r => (1.01 * r.MinimumBytes) + NormWeight(r.Case), SectorUse = 0.99 },
        new("rms_norm_add", "x, y and the residual once; w once a row") { Moved = r => (1.01 * r.MinimumBytes) + NormWeight(r.Case), SectorUse = 0.99 },
        new("gated_activation", "gate, up and y once") { Moved = r => 1.01 * r.MinimumBytes, SectorUse = 0.99 },
        new("embedding", "a row once; a word of eight weights and a group's numbers serve several lanes") { Moved = r => (r.Case.Weights["table"].Encoding is WeightEncoding.F16 or WeightEncoding.BF16 or WeightEncoding.F32 ? 1.02 : 2.0) * r.MinimumBytes, SectorUse = 0.99 },
        new("gather", "a row once") { Moved = r => 1.02 * r.MinimumBytes, SectorUse = 0.99 },
        new("rope", "neighbours: every second element a lane, twice") { When = c => c.Scalar("kind") == 1, Moved = r => 2.7 * r.MinimumBytes, SectorUse = 0.75 },
        new("rope", "x and y once, and the frequencies once a head") { Moved = r => r.MinimumBytes + (double)(r.Case.Inputs["x"].Shape[0] * r.Case.Inputs["x"].Shape[1] * (r.Case.Inputs["inv_freq"].Data.Length + 96)), SectorUse = 0.99 },
        new("kv_append", "k, v and slots once; where a token stands, for each head") { Moved = r => 1.35 * r.MinimumBytes, SectorUse = 0.99 },
        new("copy_pages", "keys, then values; each page once there and back") { Launches = _ => 2, Moved = r => 1.01 * r.MinimumBytes, SectorUse = 0.99 },
        new("merge_states", "states once, and the weights of all states for each element") { Moved = r => 1.5 * r.MinimumBytes, SectorUse = 0.85 },

        new("linear", "tensor cores, tiles of 64 columns: w once a tile of rows, x once a tile of columns; sums of two splits of K there and back, by a second launch")
        {
            When = c => KernelsLanded.MatrixTiles && Rows(c) > 4 && Bits16(c) && c.Weights["w"].Encoding != WeightEncoding.F32, Launches = _ => 2, Mma = c => Rows(c) > 16 && c.Weights["w"].Group % 32 == 0 ? true : null, SectorUse = 0.55,
            Moved = r => (Rows(r.Case) > 16 ? 1.15 : 1.6) * (r.MinimumBytes + (WeightReads(r) * (Ceil(Rows(r.Case), 64) - 1)) + ((double)InputBytes(r.Case) * (Ceil(Columns(r.Case), 64) - 1)) + (16.0 * Rows(r.Case) * Columns(r.Case))),
        },
        new("linear", "w once, x once for 16 rows of w") { When = c => KernelsLanded.MatrixTiles && Rows(c) <= 4, Moved = r => 1.05 * (r.MinimumBytes + ((double)InputBytes(r.Case) * Ceil(Columns(r.Case), 16))), SectorUse = 0.93 },
        new("linear", "a warp a row of w: w once a tile of 1, 4 or 16 rows of x; x once a warp; a sector for each y")
        {
            Moved = r => 1.03 * GemvMoved(r, "w", Rows(r.Case)), SectorUse = 0.50,
            When = c => c.Weights["w"].Encoding is WeightEncoding.Q8_0 or WeightEncoding.Q6K or WeightEncoding.Q5_0 or WeightEncoding.Q5_1 or WeightEncoding.Q5K or WeightEncoding.INT8,
            Mma = NoTensorCores, Launches = c => KernelsLanded.MatrixTiles && Rows(c) > 4 ? 2 : 1,
        },
        new("linear", "a warp a row of w, two for INT4: w once a tile of 1, 4 or 16 rows of x; x once a warp; a sector for each y")
        {
            Moved = r => 1.03 * GemvMoved(r, "w", Rows(r.Case)), SectorUse = 0.95, Mma = NoTensorCores, Launches = c => KernelsLanded.MatrixTiles && Rows(c) > 4 ? 2 : 1,
        },

        new("fused_qkv", "one launch: the weights once for four rows of x, x once a block of 16 dims at most, where blocks are many")
        {
            When = c => Rows(c) <= 16 && !WholeRowNorm(c), SectorUse = 0.55, Moved = ProjectionsMoved, Conflicts = HeadConflicts,
        },
        new("fused_qkv", "one launch on tensor cores: the weights once for 64 rows of x, x twice a tile of 128 columns")
        {
            When = c => Rows(c) > 16 && InOneLaunch(c), SectorUse = 0.95, Mma = _ => true, Moved = ProjectionsMoved,
            Conflicts = HeadConflicts,
        },
        new("fused_qkv", "norm (or x in q's type), three projections of two launches at most, and the heads; norms of whole rows are two more")
        {
            Launches = c => 4 + (KernelsLanded.MatrixTiles && Rows(c) > 4 ? 3 : 0) + (c.Inputs.ContainsKey("norm_weight") || c.Inputs["x"].DType != c.Outputs["q"].DType ? 1 : 0) + (WholeRowNorm(c) ? (c.Inputs.ContainsKey("norm_q") ? 1 : 0) + (c.Inputs.ContainsKey("norm_k") ? 1 : 0) : 0),
            Moved = r => KernelsLanded.MatrixTiles ? ProjectionsMoved(r) : 1.1 * (r.MinimumBytes + new[] { "wq", "wk", "wv" }.Sum(w => GemvMoved(r, w, Rows(r.Case)))), SectorUse = 0.60, Mma = NoTensorCores,
        },

        new("paged_attention", "tiles: keys and values once for 64 rows of query and head (f32: 32), for 16 where there are few; below, once a query token")
        {
            When = c => KernelsLanded.AttentionTiles, Launches = _ => 2, Mma = c => Tensor(c) && Queries(c) * Group(c) > 16 ? true : Bits16(c, "q") ? null : false,
            KvRead = KvTileReads, Moved = r => (1.05 * KvTileReads(r.Case)) + (4.0 * (r.MinimumBytes - Minimum.KvBytes(r.Case))), SectorUse = 0.90,
            Conflicts = c => Tensor(c) && Queries(c) * Group(c) > 16 && c.Cache!.KeyDim == c.Cache.ValueDim && c.Cache.KeyDim is 64 or 128 or 256 ? 0 : MergeConflicts(c),
        },
        new("paged_attention", "keys and values once for each query token and eight heads; a split merges by a second launch")
        {
            KvRead = KvTokenReads, Launches = _ => 2, SectorUse = 0.90, Mma = c => Bits16(c, "q") ? null : false, Conflicts = MergeConflicts,
            Moved = r => TokenMoved(r.Case),
        },
        new("cascade_attention", "each shared prefix once for its group; prefixes, suffixes and a merge")
        {
            When = _ => KernelsLanded.CascadeReadsPrefixOnce, Launches = _ => 3, Mma = c => Bits16(c, "q") ? null : false, SectorUse = 0.90, Conflicts = MergeConflicts,
            KvRead = c => 1.25 * Minimum.KvBytes(c, masked: false) * Ceil(Queries(c) * Group(c), 16),
            Moved = r => (1.03 * Minimum.KvBytes(r.Case) * Ceil(Queries(r.Case) * Group(r.Case), 16)) + (14.0 * (r.MinimumBytes - Minimum.KvBytes(r.Case))),
        },
        new("cascade_attention", "as paged_attention: each sequence reads the prefix")
        {
            KvRead = KvTokenReads, Launches = _ => 2, SectorUse = 0.90, Mma = c => Bits16(c, "q") ? null : false, Conflicts = MergeConflicts,
            Moved = r => TokenMoved(r.Case),
        },

        new("argmax", "logits once") { Moved = r => 1.01 * r.MinimumBytes, SectorUse = 0.99 },
        new("log_probs", "logits once for the largest, once for the sum, once for each of the top")
        {
            Moved = r => (1.02 * r.MinimumBytes) + ((double)r.Case.Inputs["logits"].Data.Length * (1 + (r.Case.Outputs.TryGetValue("top_ids", out (DType DType, long[] Shape) top) ? top.Shape[1] : 0))), SectorUse = 0.99,
        },
        new("penalties", "for each token of the history: itself three times, and a sector of its count (three times each way) and of its logit (each way)")
        {
            Moved = r => (8 * 32.0 * r.Case.Inputs["history"].Data.Length / sizeof(int)) + (3.5 * r.MinimumBytes), SectorUse = 0.25,
        },
        new("sample", "the largest alone") { When = c => c.Inputs["temperature"].ToDoubles().All(t => t <= 0), Moved = r => 1.02 * r.MinimumBytes, SectorUse = 0.99 },
        new("sample", "logits for the largest, for the draw, and up to eight passes for top-k and nine for top-p, four where no logits tie; a pass counts by atomics on 256 words")
        {
            Moved = r => 1.01 * r.MinimumBytes * (2.1 + (r.Case.Inputs["top_k"].ToDoubles().Any(k => k > 0) ? 5 : 0) + (r.Case.Inputs["top_p"].ToDoubles().Any(p => p < 1) ? 7 : 0)), SectorUse = 0.99,
            Conflicts = c => (c.Inputs["logits"].Data.Length / 8.0) + (300 * c.Inputs["logits"].Shape[0]),
        },
    ];

    /// <exception cref="InvalidOperationException">No row is about the case's op.</exception>
    public static Claim Of(OpCase c) => Table.FirstOrDefault(k => k.Op == c.Op && k.When(c)) ?? throw new InvalidOperationException($"no claim in {nameof(Claims)} is about {c.Op}");

    /// <summary>Fails with a line for each claim that does not hold.</summary>
    /// <param name="run">What was counted.</param>
    /// <param name="sized">The case is large enough for its bytes to tell something.</param>
    public static void Assert(CountedRun run, bool sized)
    {
        string[] broken = [.. Of(run.Case).Broken(run, sized)];
        Xunit.Assert.True(broken.Length == 0, string.Join('\n', broken));
    }

    private static long Ceil(long n, long by) => (n + by - 1) / by;

    private static long Rows(OpCase c) => c.Inputs["x"].Shape[0];

    private static long Columns(OpCase c) => c.Weights["w"].Rows;

    private static long InputBytes(OpCase c) => c.Inputs["x"].Data.Length;

    private static bool Bits16(DType t) => t is DType.F16 or DType.BF16;

    private static bool Bits16(OpCase c, string input = "x") => Bits16(c.Inputs[input].DType);

    private static long Group(OpCase c) => c.Inputs["q"].Shape[1] / c.Cache!.KvHeads;

    private static bool WholeRowNorm(OpCase c) => c.Inputs.TryGetValue("norm_q", out HostTensor? q) && q.Shape[0] > c.Cache!.KeyDim;

    private static bool Vectors(OpCase c) => c.Cache!.KeyDim * c.Cache.DType.Size() % 16 == 0 && c.Cache.ValueDim * c.Cache.DType.Size() % 16 == 0;

    // The most query tokens of a sequence.
    private static long Queries(OpCase c) => Enumerable.Range(0, c.Step!.Sequences).Max(b => c.Step.QueryIndptr[b + 1] - c.Step.QueryIndptr[b]);

    // None for one row, and none for f32 but where floats of 16 bits are met by activations that the op's record rounds to them.
    private static bool? NoTensorCores(OpCase c) => Rows(c) <= 1 || (!Bits16(c) && !(KernelsLanded.MatrixTiles && c.Weights.Values.Any(w => w.Encoding is WeightEncoding.F16 or WeightEncoding.BF16))) ? false : null;

    // Products of one 16-bit type, by whole heads where something is taken over them.
    private static bool InOneLaunch(OpCase c)
    {
        DType[] products = [.. c.Weights.Values.Select(w => w.Encoding switch
        {
            WeightEncoding.F32 => DType.F32,
            WeightEncoding.F16 => DType.F16,
            WeightEncoding.BF16 => DType.BF16,
            _ => w.Group % 16 == 0 ? c.Outputs["q"].DType : DType.F32,
        }).Distinct()];
        bool scaled = c.Cache!.DType.Size() == 1, wide = (c.Cache.KeyDim > 128 && (c.Inputs.ContainsKey("norm_q") || c.Inputs.ContainsKey("norm_k") || scaled)) || (c.Cache.ValueDim > 128 && scaled);
        return products is [DType.F16 or DType.BF16] && !WholeRowNorm(c) && !wide;
    }

    // Where the heads' places come back from shared memory: pairs that turn are neighbours there, two banks apart.
    private static double HeadConflicts(OpCase c) => Rows(c) * (double)c.Weights.Values.Sum(w => w.Rows) / 16;

    private static double NormWeight(OpCase c) => (double)(c.Inputs["x"].Shape[0] - 1) * c.Inputs["w"].Data.Length;

    private static double WeightReads(CountedRun r) => r.MinimumBytes - InputBytes(r.Case);

    // w once a tile of rows; x once for each warp and tile (its rows, whatever the tile has); each y and residual a sector.
    private static double GemvMoved(CountedRun r, string weight, long rows)
    {
        HostWeight w = r.Case.Weights[weight];
        long tile = rows == 1 ? 1 : rows <= 4 ? 4 : 16;
        bool four = w.Encoding is WeightEncoding.Q4_0 or WeightEncoding.Q4_1 or WeightEncoding.Q4K or WeightEncoding.GPTQ4 or WeightEncoding.GPTQ4V2 or WeightEncoding.AWQ4;
        bool eight = w.Encoding is WeightEncoding.Q8_0 or WeightEncoding.Q6K or WeightEncoding.Q5_0 or WeightEncoding.Q5_1 or WeightEncoding.Q5K or WeightEncoding.INT8;
        // 512 bytes hold 1,024 weights of four bits; 16 bytes of two vectors apart are half of a sector.
        double bytes = four ? (Ceil(w.Cols, 1024) * 512.0) + (w.Cols / (w.Encoding == WeightEncoding.Q4K ? 4.0 : 8.0)) : eight ? w.Cols * 1.5 : w.Cols * (w.Encoding == WeightEncoding.F32 ? 4.0 : 2.0);
        double input = (double)rows * w.Cols * r.Case.Inputs["x"].DType.Size() * (eight ? 2 : 1) / (four && tile < 16 ? 2 : 1);
        return w.Rows * ((Ceil(rows, tile) * bytes) + input + (3 * 32.0 * rows));
    }

    // x once for 16 rows of w, or for 64 of a tile; what is projected there and back in f32, twice where K is split.
    private static double ProjectionsMoved(CountedRun r)
    {
        long rows = Rows(r.Case), columns = r.Case.Weights.Values.Sum(w => w.Rows);
        return rows <= 4
            ? 1.1 * (r.MinimumBytes + ((InputBytes(r.Case) + (double)(rows * r.Case.Inputs["norm_weight"].Data.Length)) * Ceil(columns, 16)) + (12.0 * rows * columns))
            : 1.8 * (r.MinimumBytes + ((double)InputBytes(r.Case) * Ceil(columns, 64)) + (16.0 * rows * columns));
    }

    private static double KvTokenReads(OpCase c) => Minimum.KvBytes(c) * (double)(c.Op == "cascade_attention" ? c.Step!.Sequences : 1) * Queries(c) * (Vectors(c) ? Ceil(Group(c), Group(c) <= 4 ? 4 : 8) : Group(c));

    // Beside keys and values a page id (a sector) for each key, and q for each of four warps and each split, by elements that
    // are a vector apart.
    private static double TokenMoved(OpCase c)
    {
        double q = c.Inputs["q"].Data.Length, row = (c.Cache!.KeyDim + c.Cache.ValueDim) * c.Cache.DType.Size();
        long blocks = c.Inputs["q"].Shape[0] * c.Cache.KvHeads * Ceil(Group(c), 8);
        return (1.03 * KvTokenReads(c) * (1 + (32 / row))) + (4 * 16 / c.Inputs["q"].DType.Size() * 1.25 * q * Math.Max(1, 8 / blocks)) + 16384;
    }

    private static bool Tensor(OpCase c) => Bits16(c, "q") && c.Cache!.DType == c.Inputs["q"].DType && Vectors(c);

    // What a tile reads: from the first key of its first row's window to its last row's key, whatever a mask hides.
    private static double KvTileReads(OpCase c)
    {
        HostStep s = c.Step!;
        double rows = 0;
        int window = (int)c.Scalar("window");
        for (int b = 0; b < s.Sequences; b++)
        {
            long queries = s.QueryIndptr[b + 1] - s.QueryIndptr[b], all = queries * Group(c), keys = window > 0 && c.Scalar("causal") != 0 ? Math.Min(s.KvLengths[b], window + queries + 64) : s.KvLengths[b];
            long tiles = all >= 256 ? Ceil(all, Bits16(c, "q") ? 64 : 32) : Math.Max(Ceil(all, 16), queries <= 16 && all <= 32 ? queries : 0);
            rows += keys * (double)Math.Max(tiles, Vectors(c) ? 0 : all);
        }

        return 1.02 * rows * Minimum.RowBytes(c.Cache!);
    }

    // Where the warps' sums meet: a vector a lane is stored by elements, eight apart, for each of four warps.
    private static double MergeConflicts(OpCase c) => c.Inputs["q"].Shape[0] * (double)c.Inputs["q"].Shape[1] * 8 * 96 * Math.Max(1, Ceil(Math.Max(c.Cache!.KeyDim, c.Cache.ValueDim), 128));
}
