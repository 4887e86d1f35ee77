using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>
/// What a product x * w^T costs on cuda, from the rules of native/kernels/linear.cu and products.cuh alone: the kernel that takes it, how its
/// work is cut, and the bytes that blocks read and write. For the executor's four multiprocessors, or a GPU's.
/// </summary>
public sealed class LinearRoute
{
    private const int Played = 4;
    private const long PanelBytes = 512 << 10;

    private readonly double _weightReads = 1, _rest;

    public LinearRoute(OpCase c)
        : this(c.Inputs["x"], c.Inputs["x"].DType, c.Weights["w"], c.Weights["w"].Rows, c.Outputs["y"].DType, 0, route: (Route)(int)c.Scalar("route"))
    {
        HostTensor x = c.Inputs["x"];
        // The epilogue: bias and residual beside y.
        _rest += x.Shape[0] * c.Weights["w"].Rows * ((c.Inputs.ContainsKey("bias") ? 4.0 : 0) + (c.Inputs.TryGetValue("residual", out HostTensor? r) ? r.DType.Size() : 0));
        Launches += Products == DType.F32 && c.Outputs.ContainsKey("squares") ? 1 : 0;
    }

    /// <param name="x">Rows of x.</param>
    /// <param name="rounded">The type that they are rounded to.</param>
    /// <param name="w">The weight, of whose storage all others are.</param>
    /// <param name="columns">Rows of all weights.</param>
    /// <param name="y">The result's type.</param>
    /// <param name="normBytes">Of the norm's weight, where few rows are normalised on their way.</param>
    /// <param name="squared">The sums of x's squares are there: each of a block's warps reads them.</param>
    /// <param name="multiprocessors">Of the device.</param>
    /// <param name="route">The kernels that are asked for; else as a device that was not measured chooses.</param>
    public LinearRoute(HostTensor x, DType rounded, HostWeight w, long columns, DType y, long normBytes, bool squared = false, Route route = Route.Any, int multiprocessors = Played)
    {
        long m = x.Shape[0], k = w.Cols, xBytes = x.DType.Size();
        Products = ProductsOf(w, rounded);
        Operand = OperandOf(w);
        double results = (double)m * columns * y.Size();
        if (Products == DType.F32)
        {
            if (m <= 16)
            {
                // x in shared memory once a block; the sums of a warp's rows of w are neighbours in y: a sector for each warp and row of x.
                long tile = m == 1 ? 1 : 4, rows = m > 1 ? 4 : 2, share = 1;
                while (share < 8 && Ceil(columns, 8 / share * rows) * Ceil(m, tile) < 2 * multiprocessors && Ceil(k, w.Encoding == WeightEncoding.F32 ? 4 : 8) > 32 * share)
                {
                    share *= 2;
                }

                _weightReads = Ceil(m, tile);
                _rest = (Ceil(columns, 8 / share * rows) * (double)(m * k * xBytes)) + (Ceil(columns, rows) * m * 32.0);
                return;
            }

            long tiles64 = Ceil(m, 64) * Ceil(columns, 64), split = Splits(tiles64, Ceil(k, 32), multiprocessors);
            Launches = split > 1 ? 2 : 1;
            _weightReads = Ceil(m, 64);
            // Sums of a split are written, and read once more.
            _rest = (Ceil(columns, 64) * (double)(m * k * xBytes)) + (split > 1 ? 2.0 * split * m * columns * 4 : 0) + results;
            return;
        }

        TensorCores = true;
        bool dense = Operand == "dense", biased = Biased(w);
        if (route == Route.Dense)
        {
            // Panels of w to 16 bits, each written and read as a dense weight of its own.
            Kernel = "dense";
            Copies = x.DType != Products || k % 8 != 0;
            long panel = Math.Max(256, multiprocessors * PanelBytes / (2 * k) / 256 * 256);
            _rest = (Copies ? m * (double)k * (xBytes + 2) : 0) + (2.0 * columns * k);
            Launches = Copies ? 1 : 0;
            for (long first = 0; first < columns; first += panel)
            {
                long rows = Math.Min(panel, columns - first);
                LinearRoute each = new(x with { DType = Products }, Products, w with { Encoding = Products == DType.F16 ? WeightEncoding.F16 : WeightEncoding.BF16 }, rows, y, 0, multiprocessors: multiprocessors);
                (Launches, Mma, _rest) = (Launches + 1 + each.Launches, Mma + each.Mma, _rest + each.Moved(2 * rows * k));
            }

            return;
        }

        if (route == Route.Few || (route == Route.Any && FewTake(m, k)))
        {
            long blocks = Ceil(k, dense ? 64 : 128), share = 8, items = Ceil(columns, 16);
            while (share > 1 && blocks < 2 * share)
            {
                share /= 2;
            }

            Kernel = "few";
            Mma = items * blocks * (dense ? 4 : biased ? 16 : 8);
            // x once a block, twice where it is normalised and the sums of its squares are not there.
            _rest = (Math.Min(Ceil(items, 8 / share), 2 * multiprocessors) * (double)m * ((k * xBytes * (normBytes > 0 && !squared ? 2 : 1)) + (squared ? 8 * 4 * Ceil(k, 16) : 0) + normBytes)) + (1.1 * results);
            return;
        }

        bool narrow = route == Route.Narrow || (route == Route.Any && m <= 16);
        long bm = narrow ? 16 : 64, bn = narrow ? 128 : 256, steps = Ceil(k, 128), tilesM = Ceil(m, bm), tilesN = Ceil(columns, bn), tiles = tilesM * tilesN;
        long atOnce = (narrow ? 2 : 1) * multiprocessors, units = tiles * steps;
        long grid = tiles >= 4 * atOnce ? tiles : Math.Max(Math.Min(tiles, atOnce), Math.Min(atOnce, units / 4));
        bool shared = !(units % grid == 0 && units / grid % steps == 0);
        Kernel = narrow ? "narrow" : "wide";
        Copies = x.DType != Products || k % 8 != 0;
        Launches = Copies ? 2 : 1;
        Mma = units * (narrow ? biased ? 256 : 128 : 1024);
        _weightReads = tilesM;
        // Shared tiles are written in parts, which are read once more: two for each block at most.
        _rest = (tilesN * (double)(m * k * 2)) + results + (shared ? 4.0 * grid * bm * bn * 4 : 0) + (Copies ? m * (double)k * (xBytes + 2) : 0) + normBytes;
    }

    public bool TensorCores { get; }

    /// <summary>The type of the products; f32 on no tensor core.</summary>
    public DType Products { get; }

    /// <summary>How the weight is kept: dense, four, five, six or eight bits.</summary>
    public string Operand { get; }

    /// <summary>Of tensor cores: few, narrow or wide.</summary>
    public string Kernel { get; } = "";

    /// <summary>x goes through a copy of the products' type.</summary>
    public bool Copies { get; }

    /// <summary>Tensor-core instructions, of 16 x 8 x 16.</summary>
    public long Mma { get; }

    public long Launches { get; } = 1;

    /// <summary>The type in which products with x, rounded to a type, are made.</summary>
    public static DType ProductsOf(HostWeight w, DType rounded) => w.Encoding switch
    {
        WeightEncoding.F16 => DType.F16,
        WeightEncoding.BF16 => DType.BF16,
        WeightEncoding.F32 => DType.F32,
        _ => Kept(w) == 0 ? DType.F32 : rounded,
    };

    public static string OperandOf(HostWeight w) => w.Encoding switch
    {
        WeightEncoding.F32 or WeightEncoding.F16 or WeightEncoding.BF16 => "dense",
        WeightEncoding.Q5_0 or WeightEncoding.Q5_1 or WeightEncoding.Q5K => "five",
        WeightEncoding.Q6K => "six",
        WeightEncoding.Q8_0 or WeightEncoding.INT8 => "eight",
        _ => "four",
    };

    /// <summary>The operand and how its scales are kept.</summary>
    public static (string Operand, string Scales) FormatOf(HostWeight w) => (OperandOf(w), w.Encoding switch
    {
        WeightEncoding.Q4_0 or WeightEncoding.Q5_0 or WeightEncoding.Q8_0 => "half",
        WeightEncoding.Q4_1 or WeightEncoding.Q5_1 => "half, bias",
        WeightEncoding.Q4K or WeightEncoding.Q5K => "super",
        WeightEncoding.GPTQ4 or WeightEncoding.GPTQ4V2 or WeightEncoding.AWQ4 => Biased(w) ? "half, zero" : "half",
        _ => w.Encoding.ToString(),
    });

    /// <summary>All rows of x find room in a block's shared memory.</summary>
    public static bool FewTake(long m, long k) => m <= 8 && (m * ((Ceil(k, 128) * 256) + 64)) + 10240 <= 97 * 1024;

    /// <summary>Bytes that blocks move, where tiles are whole.</summary>
    public double Moved(long weightBytes) => (_weightReads * weightBytes) + _rest;

    private static long Splits(long tiles, long steps, long multiprocessors)
    {
        long wanted = 3 * multiprocessors;
        long n = Math.Min(Math.Min(Ceil(wanted, tiles), steps / 8), 32);
        return n <= 1 || tiles * 4 > wanted * 3 ? 1 : Ceil(steps, Ceil(steps, n));
    }

    // The weights that share a scale as native/cuda/quants.cpp keeps them; 0 stands for none.
    private static long Kept(HostWeight w)
    {
        if (w.Encoding is not (WeightEncoding.GPTQ4 or WeightEncoding.GPTQ4V2 or WeightEncoding.AWQ4 or WeightEncoding.INT8))
        {
            return w.Encoding == WeightEncoding.Q6K ? 16 : 32;
        }

        if (!w.Order.Select((g, k) => g == k / w.Group).All(same => same))
        {
            return 0;
        }

        return w.Group >= w.Cols || w.Group % 128 == 0 ? 128 : w.Group == 64 ? 64 : w.Group % 32 == 0 ? 32 : 0;
    }

    private static bool Biased(HostWeight w) => w.Encoding switch
    {
        WeightEncoding.Q4_1 or WeightEncoding.Q5_1 or WeightEncoding.Q4K or WeightEncoding.Q5K => true,
        WeightEncoding.GPTQ4 or WeightEncoding.GPTQ4V2 or WeightEncoding.AWQ4 => w.Zeros.Distinct().Count() > 1,
        _ => false,
    };

    private static long Ceil(long n, long by) => (n + by - 1) / by;
}
