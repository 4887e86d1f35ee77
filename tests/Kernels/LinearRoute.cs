using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>
/// What a case of linear costs, from the rules of native/kernels/linear.cu alone: the kernel that takes it, how its work is
/// cut, and the bytes that blocks read and write. Counted for the executor's four multiprocessors.
/// </summary>
public sealed class LinearRoute
{
    private const int Multiprocessors = 4;

    private readonly long _weightReads, _groupBytes, _groupReads;
    private readonly double _rest;

    private enum Storage { F32, Bits16, Four, Eight }

    public LinearRoute(OpCase c)
    {
        HostTensor x = c.Inputs["x"];
        HostWeight w = c.Weights["w"];
        long m = x.Shape[0], n = w.Rows, k = w.Cols, y = c.Outputs["y"].DType.Size(), xBytes = x.DType.Size();
        (Storage storage, int group) = StoredAs(w);
        bool quantised = storage is Storage.Four or Storage.Eight;
        bool gemm = m > 4 && (storage == Storage.Bits16 || (quantised && x.DType != DType.F32 && group % 16 == 0 && k * xBytes % 16 == 0));
        // The epilogue: bias and residual beside y.
        double ends = m * n * (y + (c.Inputs.ContainsKey("bias") ? 4 : 0) + (c.Inputs.TryGetValue("residual", out HostTensor? r) ? r.DType.Size() : 0));
        if (m <= 4 || (m <= 16 && !gemm))
        {
            // x in shared memory once a block; the sums of a warp's rows of w are neighbours in y: a sector for each warp and row of x.
            long tile = m == 1 ? 1 : 4, rows = m > 1 ? 4 : storage == Storage.F32 ? 1 : 2, share = 1;
            while (share < 8 && Ceil(n, 8 / share * rows) * Ceil(m, tile) < 2 * Multiprocessors && Ceil(k, storage switch { Storage.Four => 32, Storage.Eight => 16, _ => 8 }) > 32 * share)
            {
                share *= 2;
            }

            _weightReads = Ceil(m, tile);
            _rest = (Ceil(n, 8 / share * rows) * (double)(m * k * xBytes)) + (Ceil(n, rows) * m * 32.0);
            return;
        }

        long tileM = gemm ? m <= 16 ? 16 : m > 64 && Ceil(m, 128) * Ceil(n, 128) >= Multiprocessors ? 128 : 64 : 64, tileN = gemm ? 128 : 64;
        long tiles = Ceil(m, tileM) * Ceil(n, tileN), steps = Ceil(k, gemm ? 64 : 32);
        long split = tileM == 128 ? 1 : Splits(tiles, steps, gemm ? 4 : 8, (gemm && m > 16 ? 2 : 3) * Multiprocessors);
        TensorCores = gemm;
        DType type = w.Encoding switch { WeightEncoding.F16 => DType.F16, WeightEncoding.BF16 => DType.BF16, _ => x.DType };
        Tile = (tileM, type, storage != Storage.Bits16 ? storage.ToString() : x.DType == type && k * xBytes % 16 == 0 ? "dense" : "dense, x through registers");
        Products = gemm ? tiles * (tileM / 16) * (tileN / 8) * steps * (64 / 16) : 0;
        Launches = split > 1 ? 2 : 1;
        if (gemm && quantised)
        {
            // Of each row of w that a step meets, its groups' scales: neighbours along N lie a row apart.
            _groupBytes = n * (k / group) * (storage == Storage.Eight || w.Encoding == WeightEncoding.Q4K ? 8 : 4);
            _groupReads = n * steps * Ceil(64, group) * 32;
        }

        // Sums of a split are written, and read once more.
        _weightReads = Ceil(m, tileM);
        _rest = (Ceil(n, tileN) * (double)(m * k * xBytes)) + (split > 1 ? 2.0 * split * m * n * 4 : 0) + ends;
    }

    public bool TensorCores { get; }

    /// <summary>The instantiation of the tensor-core kernel, where it is that one.</summary>
    public (long Rows, DType Products, string Operands) Tile { get; }

    /// <summary>Tensor-core instructions, of 16 x 8 x 16.</summary>
    public long Products { get; }

    public long Launches { get; } = 1;

    /// <summary>Bytes that blocks move, where tiles are whole.</summary>
    public double Moved(long weightBytes) => (_weightReads * (double)(weightBytes - _groupBytes + _groupReads)) + _rest;

    private static long Splits(long tiles, long steps, long least, long wanted)
    {
        long n = Math.Min(Math.Min(Ceil(wanted, tiles), steps / least), 32);
        return n <= 1 || tiles * 4 > wanted * 3 ? 1 : Ceil(steps, Ceil(steps, n));
    }

    // As native/cuda/weights.cpp keeps it, and the weights that share a scale.
    private static (Storage Storage, int Group) StoredAs(HostWeight w) => w.Encoding switch
    {
        WeightEncoding.F16 or WeightEncoding.BF16 => (Storage.Bits16, 1),
        WeightEncoding.Q4_0 or WeightEncoding.Q4_1 or WeightEncoding.Q4K => (Storage.Four, 32),
        WeightEncoding.GPTQ4 or WeightEncoding.GPTQ4V2 or WeightEncoding.AWQ4 when w.Group % 8 == 0 && w.Order.Select((g, k) => g == k / w.Group).All(same => same) => (Storage.Four, w.Group),
        WeightEncoding.Q5_0 or WeightEncoding.Q5_1 or WeightEncoding.Q5K or WeightEncoding.Q8_0 => (Storage.Eight, 32),
        WeightEncoding.Q6K => (Storage.Eight, 16),
        WeightEncoding.INT8 when w.Group % 8 == 0 => (Storage.Eight, w.Group),
        _ => (Storage.F32, 1),
    };

    private static long Ceil(long n, long by) => (n + by - 1) / by;
}
