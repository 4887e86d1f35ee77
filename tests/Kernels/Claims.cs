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
        new("embedding", "a row once; scales of eight rows stand together, so that a row's are a quarter of their sectors or less, and each 32 columns ask anew")
        {
            When = c => LinearRoute.OperandOf(c.Weights["table"]) != "dense", Moved = r => 3.0 * r.MinimumBytes, SectorUse = 0.4,
        },
        new("embedding", "a row once") { Moved = r => 1.02 * r.MinimumBytes, SectorUse = 0.99 },
        new("gather", "a row once") { Moved = r => 1.02 * r.MinimumBytes, SectorUse = 0.99 },
        new("rope", "neighbours: every second element a lane, twice") { When = c => c.Scalar("kind") == 1, Moved = r => 2.7 * r.MinimumBytes, SectorUse = 0.75 },
        new("rope", "x and y once, and the frequencies once a head") { Moved = r => r.MinimumBytes + (double)(r.Case.Inputs["x"].Shape[0] * r.Case.Inputs["x"].Shape[1] * (r.Case.Inputs["inv_freq"].Data.Length + 96)), SectorUse = 0.99 },
        new("kv_append", "k, v and slots once; where a token stands, for each head") { Moved = r => 1.35 * r.MinimumBytes, SectorUse = 0.99 },
        new("copy_pages", "keys, then values; each page once there and back") { Launches = _ => 2, Moved = r => 1.01 * r.MinimumBytes, SectorUse = 0.99 },
        new("save_pages", "keys, values and what scales there are, a launch each; each page once from the pool and once to the host") { Launches = PoolsOf, Moved = r => 1.01 * r.MinimumBytes, SectorUse = 0.99 },
        new("load_pages", "keys, values and what scales there are, a launch each; each page once from the host and once to the pool") { Launches = PoolsOf, Moved = r => 1.01 * r.MinimumBytes, SectorUse = 0.99 },
        new("merge_states", "states once; the weights of a row lie in as many sectors") { Moved = r => 1.01 * (r.MinimumBytes + (28.0 * (r.Case.Inputs["lse2"].Data.Length + (4 * r.Case.Outputs["y_lse2"].Shape.Aggregate(1L, (a, b) => a * b))) / 4)), SectorUse = 0.94 },

        new("linear", "tensor cores, up to 8 rows of x: w once, x once a block; a super-block's scale is a sector for each half of it")
        {
            When = c => new LinearRoute(c).Kernel == "few", Mma = _ => true, SectorUse = 0.95, Moved = r => new LinearRoute(r.Case).Moved((long)(1.06 * r.WeightBytes["w"])), Conflicts = SumConflicts,
        },
        new("linear", "tensor cores, tiles of 16 or 64 rows: w once a tile of rows, x once a tile of columns, shared tiles' sums there and back")
        {
            When = c => new LinearRoute(c).TensorCores, Mma = _ => true, Launches = c => new LinearRoute(c).Launches, SectorUse = 0.95, Moved = r => 1.01 * new LinearRoute(r.Case).Moved((long)(1.06 * r.WeightBytes["w"])),
            Conflicts = c => new LinearRoute(c).Kernel == "dense" && LinearRoute.FewTake(Rows(c), c.Inputs["x"].Shape[1]) ? SumConflicts(c) : 0,
        },
        new("linear", "products of f32, few rows: w once for 4 rows of x, x once a block; else tiles of 64: w once a tile of rows, x once a tile of columns")
        {
            Launches = c => new LinearRoute(c).Launches, SectorUse = 0.95, Moved = r => 1.01 * new LinearRoute(r.Case).Moved(r.WeightBytes["w"]),
        },

        new("gated_linear", "one launch, norm and all: both weights once, x twice a block")
        {
            When = c => GatedPath(c) == "few", Mma = _ => true, SectorUse = 0.95, Moved = GatedMoved, Conflicts = SumConflicts,
        },
        new("gated_linear", "x normalised, or in the products' type; then one launch of tiles: both weights once a tile of rows")
        {
            When = c => GatedPath(c) == "tiles", Launches = c => c.Inputs.ContainsKey("norm_weight") || GatedRoute(c).Copies ? 2 : 1, Mma = _ => true, SectorUse = 0.95, Moved = GatedMoved, Conflicts = SumConflicts,
        },
        new("gated_linear", "norm (or x in y's type), both products, the activation") { Launches = GatedChainLaunches, Mma = _ => null, SectorUse = 0.6, Moved = GatedMoved, Conflicts = SumConflicts },

        new("fused_qkv", "one launch: the weights once, x and its norm's weight twice a block")
        {
            When = c => QkvPath(c) == "few", Mma = _ => true, SectorUse = 0.55, Moved = ProjectionsMoved, Conflicts = c => HeadConflicts(c) + SumConflicts(c),
        },
        new("fused_qkv", "x normalised, or in the products' type; then tiles, a launch for each way that weights are kept: the weights once a tile of rows")
        {
            When = c => QkvPath(c) == "tiles", Launches = QkvTileLaunches, SectorUse = 0.6, Mma = _ => true, Moved = ProjectionsMoved, Conflicts = HeadConflicts,
        },
        new("fused_qkv", "norm (or x in q's type), three projections, and the heads; norms of whole rows are a launch each")
        {
            Launches = ChainLaunches, SectorUse = 0.60, Moved = ProjectionsMoved, Mma = _ => null, Conflicts = c => HeadConflicts(c) + SumConflicts(c),
        },

        new("paged_attention", "keys and values once a tile of query rows") { Launches = c => new AttentionRoute(c).Launches, Mma = c => new AttentionRoute(c).Multiplies, KvRead = c => new AttentionRoute(c).KvBytes, Moved = AttentionMoved, SectorUse = 0.99 },
        new("cascade_attention", "each shared prefix once a tile of its group's rows; prefixes, then suffixes") { Launches = c => new AttentionRoute(c).Launches, Mma = c => new AttentionRoute(c).Multiplies, KvRead = c => new AttentionRoute(c).KvBytes, Moved = AttentionMoved, SectorUse = 0.99 },

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

    private static long PoolsOf(OpCase c) => c.Cache!.DType.Size() == 1 ? 4 : 2;

    private static long Rows(OpCase c) => c.Inputs["x"].Shape[0];

    private static bool WholeRowNorm(OpCase c) => c.Inputs.TryGetValue("norm_q", out HostTensor? q) && q.Shape[0] > c.Cache!.KeyDim;

    private static bool SharesBins(OpCase c) => c.Inputs["top_k"].ToDoubles().Any(k => k > 0) || c.Inputs["top_p"].ToDoubles().Any(p => p < 1);

    private static double NormWeight(OpCase c) => (double)(c.Inputs["x"].Shape[0] - 1) * c.Inputs["w"].Data.Length;

    // Where a warp reads the sums of several items, or rows of x, at the end: their banks overlap in part.
    private static double SumConflicts(OpCase c) => Rows(c) * (double)c.Weights.Values.Sum(w => w.Rows) / 4;

    private static LinearRoute GatedRoute(OpCase c) => new(c.Inputs["x"], c.Outputs["y"].DType, c.Weights["gate"], 2 * c.Weights["gate"].Rows, c.Outputs["y"].DType, c.Inputs.TryGetValue("norm_weight", out HostTensor? norm) ? norm.Data.Length : 0, c.Inputs.ContainsKey("squares"));

    // As native/kernels/gated_linear.cu chooses.
    private static string GatedPath(OpCase c)
    {
        HostWeight gate = c.Weights["gate"], up = c.Weights["up"];
        DType y = c.Outputs["y"].DType, x = c.Inputs["x"].DType, type = LinearRoute.ProductsOf(gate, y);
        bool normal = !c.Inputs.ContainsKey("norm_weight") || ((x == DType.F32 || x == type) && gate.Cols % 8 == 0);
        return type == DType.F32 || LinearRoute.ProductsOf(up, y) != type || LinearRoute.FormatOf(gate) != LinearRoute.FormatOf(up) ? "chain"
            : LinearRoute.FewTake(Rows(c), gate.Cols) ? "few" : normal ? "tiles" : "chain";
    }

    private static double GatedMoved(CountedRun r) => 1.02 * GatedRoute(r.Case).Moved((long)(1.06 * r.WeightBytes.Values.Sum()));

    private static long GatedChainLaunches(OpCase c)
    {
        HostTensor x = c.Inputs["x"];
        DType y = c.Outputs["y"].DType;
        bool changes = c.Inputs.ContainsKey("norm_weight") || x.DType != y;
        return (changes ? 1 : 0) + ProductLaunches(c, changes ? y : x.DType, y) + 1;
    }

    // Each weight's product as linear would be launched, of x as it is or as a copy of a type, whose rows are aligned.
    private static long ProductLaunches(OpCase c, DType x, DType y)
    {
        long[] shape = c.Inputs["x"].Shape;
        return c.Weights.Values.Sum(w => new LinearRoute(new OpCase("linear", "") { Inputs = { ["x"] = new HostTensor(x, shape, []) }, Weights = { ["w"] = w }, Outputs = { ["y"] = (y, [shape[0], w.Rows]) } }).Launches);
    }

    // As native/kernels/fused_qkv.cu chooses.
    private static string QkvPath(OpCase c)
    {
        KvCacheOptions cache = c.Cache!;
        DType q = c.Outputs["q"].DType, x = c.Inputs["x"].DType;
        DType[] products = [.. c.Weights.Values.Select(w => LinearRoute.ProductsOf(w, q)).Distinct()];
        bool scaled = cache.DType.Size() == 1, turns = c.Inputs.TryGetValue("inv_freq", out HostTensor? frequencies);
        bool byEight = cache.KeyDim % 8 == 0 && cache.ValueDim % 8 == 0 && (!turns || c.Scalar("kind") == 1 || frequencies!.Shape[0] % 8 == 0);
        if (products is not [DType.F16 or DType.BF16] || WholeRowNorm(c) || !byEight)
        {
            return "chain";
        }

        long rows = Rows(c), width = c.Inputs["x"].Shape[1], whole = Math.Max(c.Inputs.ContainsKey("norm_q") || c.Inputs.ContainsKey("norm_k") || scaled ? cache.KeyDim : 0, scaled ? cache.ValueDim : 0);
        if (LinearRoute.FewTake(rows, width) && (rows * ((Ceil(width, 128) * 256) + 64)) + 10240 + (rows * whole * 4) <= 97 * 1024)
        {
            return "few";
        }

        bool normal = !c.Inputs.ContainsKey("norm_weight") || ((x == DType.F32 || x == products[0]) && width % 8 == 0);
        return normal && Ceil(whole, 16) * 16 <= (rows <= 16 ? 128 : 256) ? "tiles" : "chain";
    }

    private static long QkvTileLaunches(OpCase c)
    {
        HostTensor x = c.Inputs["x"];
        bool changes = c.Inputs.ContainsKey("norm_weight") || x.DType != LinearRoute.ProductsOf(c.Weights["wq"], c.Outputs["q"].DType) || x.Shape[1] % 8 != 0;
        return (changes ? 1 : 0) + c.Weights.Values.Select(LinearRoute.OperandOf).Distinct().Count();
    }

    // x in q's type, normalised or not; each projection as linear would be launched; norms of whole rows; the heads.
    private static long ChainLaunches(OpCase c)
    {
        HostTensor x = c.Inputs["x"];
        DType q = c.Outputs["q"].DType;
        bool changes = c.Inputs.ContainsKey("norm_weight") || x.DType != q;
        return (changes ? 1 : 0) + ProductLaunches(c, changes ? q : x.DType, DType.F32) + (WholeRowNorm(c) ? (c.Inputs.ContainsKey("norm_q") ? 1 : 0) + (c.Inputs.ContainsKey("norm_k") ? 1 : 0) : 0) + 1;
    }

    // Where the heads' places come back from shared memory: pairs that turn are neighbours there, two banks apart.
    private static double HeadConflicts(OpCase c) => Rows(c) * (double)c.Weights.Values.Sum(w => w.Rows) / 16;

    private static double ProjectionsMoved(CountedRun r)
    {
        OpCase c = r.Case;
        long rows = Rows(c), columns = c.Weights.Values.Sum(w => w.Rows);
        double norm = c.Inputs.TryGetValue("norm_weight", out HostTensor? n) ? n.Data.Length : 0, weights = 1.06 * r.WeightBytes.Values.Sum();
        double input = c.Inputs["x"].Data.Length + (rows * norm);
        return QkvPath(c) == "few"
            ? 1.05 * (r.MinimumBytes - r.WeightBytes.Values.Sum() + weights + (2 * input * Math.Min(Ceil(columns, 16), 10)) + (20.0 * rows * columns))
            : 1.8 * (r.MinimumBytes + (Ceil(rows, 64) * weights) + (input * Ceil(columns, 64)) + (16.0 * rows * columns) + (8 * 4.0 * 2 * 64 * 256));
    }

    // Beside keys and values: q and the page ids of a tile's keys; results; the plan's numbers, which each warp of a block looks for; and what
    // blocks that share a tile leave for each other, written and read, two parts a block at most, and once more where parts are many; of prefixes
    // a state a row.
    private static double AttentionMoved(CountedRun run)
    {
        OpCase c = run.Case;
        AttentionRoute route = new(c);
        KvCacheOptions cache = c.Cache!;
        double heads = cache.KvHeads, scales = cache.DType.Size() == 1 ? 8.0 * route.Keys * heads : 0, launches = route.Launches;
        double state = 2 * ((cache.ValueDim * 4) + 64), rows = c.Inputs["q"].Shape[0] * (c.Inputs["q"].Shape[1] / cache.KvHeads);
        double q = heads * (route.QueryRows + (2 * route.Blocks * Math.Min(rows, route.Rows))) * cache.KeyDim * c.Inputs["q"].DType.Size();
        double parts = launches * 2 * route.Blocks * Math.Min(rows, Math.Max(route.Rows, route.PrefixRows * (launches - 1))) * state * (route.Blocks * 2 < route.Tiles * heads ? 1 : 1.3);
        double prefixes = heads * route.PrefixQueryRows * state;
        double results = c.Outputs.Values.Sum(o => o.Shape.Aggregate((double)o.DType.Size(), (a, b) => a * b));
        double plan = (launches * route.Blocks * 4 * 32 * 8 * (1 + (c.Step!.Sequences / 8.0))) + (heads * route.Tiles * 2048) + (heads * route.Keys * 4);
        return route.KvBytes + scales + q + parts + prefixes + results + plan;
    }
}
