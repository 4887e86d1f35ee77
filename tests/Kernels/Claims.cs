using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>
/// What an op may cost, asserted in every test run beside its error. The first row of an op whose condition holds is a
/// case's claim. Launches, tensor cores, bank conflicts and reads of the KV cache hold for every case; bytes and sector use
/// for the sizes of <see cref="CountedCases"/>: in a small case everything is rounding.
/// </summary>
public sealed record Claim(string Op, string Why)
{
    public Func<OpCase, bool> When { get; init; } = _ => true;

    /// <summary>As many, and no fewer.</summary>
    public Func<OpCase, long> Launches { get; init; } = _ => 1;

    /// <summary>Bytes of sectors that may be touched, as a function of the run (its case, its least).</summary>
    public required Func<CountedRun, double> Moved { get; init; }

    /// <summary>Asked bytes over touched bytes, at least.</summary>
    public required double SectorUse { get; init; }

    /// <summary>Extra passes of shared memory, at most.</summary>
    public Func<OpCase, double> Conflicts { get; init; } = _ => 0;

    /// <summary>Bytes that attention reads of KV pages: so many, and no fewer.</summary>
    public Func<OpCase, long>? KvRead { get; init; }

    /// <summary>True: there must be tensor-core instructions; false: there must be none; null: either.</summary>
    public Func<OpCase, bool?> Mma { get; init; } = _ => false;

    /// <summary>What does not hold, a line each.</summary>
    public IEnumerable<string> Broken(CountedRun run, bool sized)
    {
        Counters n = run.Counters;
        OpCase c = run.Case;
        if (n.Launches != (ulong)Launches(c))
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

        if (KvRead?.Invoke(c) is { } read && n.KvBytesRead != (ulong)read)
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
        new("rms_norm", "x and y once; w once a row") { Moved = r => r.MinimumBytes + NormWeight(r.Case), SectorUse = 0.99 },
        new("add_rms_norm", "x, y and the residual once each way; w once a row") { Moved = r => r.MinimumBytes + NormWeight(r.Case), SectorUse = 0.99 },
        new("rms_norm_add", "x, y and the residual once; w once a row") { Moved = r => r.MinimumBytes + NormWeight(r.Case), SectorUse = 0.99 },
        new("gated_activation", "gate, up and y once") { Moved = r => 1.01 * r.MinimumBytes, SectorUse = 0.99 },
        new("embedding", "a row once; a word of eight weights and a group's numbers serve several lanes") { Moved = r => (r.Case.Weights["table"].Encoding is WeightEncoding.F16 or WeightEncoding.BF16 or WeightEncoding.F32 ? 1.02 : 1.6) * r.MinimumBytes, SectorUse = 0.99 },
        new("gather", "a row once") { Moved = r => 1.02 * r.MinimumBytes, SectorUse = 0.99 },
        new("rope", "neighbours: every second element a lane, twice") { When = c => c.Scalar("kind") == 1, Moved = r => 2.7 * r.MinimumBytes, SectorUse = 0.75 },
        new("rope", "x and y once, and the frequencies once a head") { Moved = r => r.MinimumBytes + (double)(r.Case.Inputs["x"].Shape[0] * r.Case.Inputs["x"].Shape[1] * (r.Case.Inputs["inv_freq"].Data.Length + 96)), SectorUse = 0.99 },
        new("kv_append", "k, v and slots once; where a token stands, for each head") { Moved = r => 1.35 * r.MinimumBytes, SectorUse = 0.99 },
        new("copy_pages", "keys, then values; each page once there and back") { Launches = _ => 2, Moved = r => 1.01 * r.MinimumBytes, SectorUse = 0.99 },
        new("merge_states", "states once; the weights of a row lie in as many sectors") { Moved = r => 1.01 * (r.MinimumBytes + (28.0 * (r.Case.Inputs["lse2"].Data.Length + (4 * r.Case.Outputs["y_lse2"].Shape.Aggregate(1L, (a, b) => a * b))) / 4)), SectorUse = 0.94 },

        new("linear", "tensor cores, tiles of 16, 64 or 128 rows: w once a tile of rows, x once a tile of columns; a group's scale is a sector, for rows of w lie apart")
        {
            When = c => new LinearRoute(c).TensorCores, Mma = _ => true, Launches = c => new LinearRoute(c).Launches, SectorUse = 0.55, Moved = r => 1.01 * new LinearRoute(r.Case).Moved(r.WeightBytes["w"]),
        },
        new("linear", "few rows: w once for 4 rows of x, x once a block; else f32 tiles of 64: w once a tile of rows, x once a tile of columns")
        {
            Launches = c => new LinearRoute(c).Launches, SectorUse = 0.95, Moved = r => 1.01 * new LinearRoute(r.Case).Moved(r.WeightBytes["w"]),
        },

        new("fused_qkv", "one launch: the weights once for four rows of x, x and its norm's weight once a block of 16 dims at most")
        {
            When = c => Rows(c) <= 16 && !WholeRowNorm(c), SectorUse = 0.55, Moved = ProjectionsMoved, Conflicts = HeadConflicts,
        },
        new("fused_qkv", "one launch on tensor cores: the weights once for 64 rows of x, x twice a tile of 128 columns")
        {
            When = c => Rows(c) > 16 && InOneLaunch(c), SectorUse = 0.95, Mma = _ => true, Moved = ProjectionsMoved, Conflicts = HeadConflicts,
        },
        new("fused_qkv", "norm (or x in q's type), three projections, and the heads; norms of whole rows are a launch each")
        {
            Launches = ChainLaunches, SectorUse = 0.60, Moved = ProjectionsMoved, Mma = _ => null, Conflicts = HeadConflicts,
        },

        new("paged_attention", "keys and values once a tile of query rows, or once a token and its heads") { Launches = c => new AttentionRoute(c).Launches, Mma = c => new AttentionRoute(c).Multiplies, KvRead = c => new AttentionRoute(c).KvBytes, Moved = AttentionMoved, SectorUse = 0.99 },
        new("cascade_attention", "each shared prefix once a tile of its group's rows; prefixes, suffixes and a merge") { Launches = c => new AttentionRoute(c).Launches, Mma = c => new AttentionRoute(c).Multiplies, KvRead = c => new AttentionRoute(c).KvBytes, Moved = AttentionMoved, SectorUse = 0.99 },

        new("argmax", "logits once") { Moved = r => 1.01 * r.MinimumBytes, SectorUse = 0.99 },
        new("log_probs", "logits once for the largest, once for the sum, once for each of the top")
        {
            Moved = r => (1.02 * r.MinimumBytes) + ((double)r.Case.Inputs["logits"].Data.Length * (1 + (r.Case.Outputs.TryGetValue("top_ids", out (DType DType, long[] Shape) top) ? top.Shape[1] : 0))), SectorUse = 0.99,
        },
        new("penalties", "a token of the history: its count zeroed, added to and taken, and its logit, each in a sector of its own") { Moved = r => (32.0 * 6 * r.Case.Inputs["history"].Data.Length / 4) + (2.0 * r.MinimumBytes), SectorUse = 0.25 },
        new("sample", "the largest alone, then the row's numbers") { When = c => c.Inputs["temperature"].ToDoubles().All(t => t <= 0), Moved = r => 1.02 * r.MinimumBytes, SectorUse = 0.99 },
        new("sample", "logits for the largest and for the draw, six passes at most for each of top-k and top-p; a pass counts by atomics on 256 words, which logits of one magnitude share")
        {
            Moved = r => 1.03 * r.MinimumBytes * (2 + (r.Case.Inputs["top_k"].ToDoubles().Any(k => k > 0) ? 6 : 0) + (r.Case.Inputs["top_p"].ToDoubles().Any(p => p < 1) ? 6 : 0)), SectorUse = 0.99,
            Conflicts = c => SharesBins(c) ? (c.Inputs["logits"].Data.Length / 8.0) + (300 * c.Inputs["logits"].Shape[0]) : 0,
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

    private static bool WholeRowNorm(OpCase c) => c.Inputs.TryGetValue("norm_q", out HostTensor? q) && q.Shape[0] > c.Cache!.KeyDim;

    private static bool SharesBins(OpCase c) => c.Inputs["top_k"].ToDoubles().Any(k => k > 0) || c.Inputs["top_p"].ToDoubles().Any(p => p < 1);

    private static double NormWeight(OpCase c) => (double)(c.Inputs["x"].Shape[0] - 1) * c.Inputs["w"].Data.Length;

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

    // x in q's type, normalised or not; each projection as linear would be launched; norms of whole rows; the heads.
    private static long ChainLaunches(OpCase c)
    {
        HostTensor x = c.Inputs["x"];
        DType q = c.Outputs["q"].DType;
        bool changes = c.Inputs.ContainsKey("norm_weight") || (x.DType != q && x.Shape[1] % 4 == 0);
        HostTensor given = new(changes ? q : x.DType, x.Shape, []);
        long products = c.Weights.Values.Sum(w => new LinearRoute(new OpCase("linear", "") { Inputs = { ["x"] = given }, Weights = { ["w"] = w }, Outputs = { ["y"] = (DType.F32, [x.Shape[0], w.Rows]) } }).Launches);
        return (changes ? 1 : 0) + products + (WholeRowNorm(c) ? (c.Inputs.ContainsKey("norm_q") ? 1 : 0) + (c.Inputs.ContainsKey("norm_k") ? 1 : 0) : 0) + 1;
    }

    // Where the heads' places come back from shared memory: pairs that turn are neighbours there, two banks apart.
    private static double HeadConflicts(OpCase c) => Rows(c) * (double)c.Weights.Values.Sum(w => w.Rows) / 16;

    private static double ProjectionsMoved(CountedRun r)
    {
        OpCase c = r.Case;
        long rows = Rows(c), columns = c.Weights.Values.Sum(w => w.Rows);
        double input = c.Inputs["x"].Data.Length + (c.Inputs.TryGetValue("norm_weight", out HostTensor? norm) ? (double)Math.Min(rows, 64) * norm.Data.Length : 0);
        return rows <= 16
            ? 1.1 * (r.MinimumBytes + (input * Ceil(columns, 16)) + (12.0 * rows * columns))
            : 1.8 * (r.MinimumBytes + (input * Ceil(columns, 64)) + (16.0 * rows * columns));
    }

    // Beside keys and values q a block (each of its warps, where it takes a token), results, with splits states that are
    // written and read again, and the numbers of the plan: some for each thread of a block, and the page ids of a warp's keys.
    private static double AttentionMoved(CountedRun run)
    {
        const double planBytes = 4096;
        OpCase c = run.Case;
        AttentionRoute route = new(c);
        KvCacheOptions cache = c.Cache!;
        double heads = cache.KvHeads, scales = cache.DType.Size() == 1 ? 8.0 * route.Keys * heads : 0;
        double q = (route.Rows == 1 ? 4 : 1) * heads * route.QueryRows * cache.KeyDim * c.Inputs["q"].DType.Size();
        double states = route.States > 1 ? 2 * heads * route.ResultRows * ((cache.ValueDim * 4) + 32) : 0;
        double results = c.Outputs.Values.Sum(o => o.Shape.Aggregate((double)o.DType.Size(), (a, b) => a * b));
        return route.KvBytes + scales + q + states + results + (heads * route.HeadTiles * ((planBytes * route.Blocks) + (route.Keys * (route.Rows == 1 || cache.PageSize == 1 ? 4 : 1))));
    }
}
