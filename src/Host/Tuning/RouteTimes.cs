using Sluice.Decoding;
using Sluice.Interop;
using Sluice.Loading;

namespace Sluice.Tuning;

/// <summary>What one number of rows of x took by each way, in microseconds; null where that way does not take it.</summary>
/// <param name="Kept">How the weight is kept.</param>
/// <param name="Rows">Rows of x.</param>
/// <param name="Few">One launch with all of x by the side.</param>
/// <param name="Narrow">Tiles of 16 rows.</param>
/// <param name="Wide">Tiles of 64 rows.</param>
/// <param name="Dense">The weight to 16 bits first; of a dense one the vendor's library.</param>
public readonly record struct RouteTime(Kept Kept, int Rows, double? Few, double? Narrow, double? Wide, double? Dense);

/// <summary>What is measured, and how much of it.</summary>
public sealed record TuningOptions
{
    /// <summary>N of the square weights.</summary>
    public int Size { get; init; } = 8_192;

    /// <summary>Rows of x at most.</summary>
    public int MostRows { get; init; } = 2_048;
}

/// <summary>Times the ways that a product can take on a GPU, and says where one overtakes another.</summary>
public static class RouteTimes
{
    private const int MostFew = 8, LeastRows = 16; // fewer would make a rule of what was not measured

    private static readonly (Kept Kept, TensorType Type, WeightEncoding Encoding)[] Weights =
    [
        (Kept.Dense, TensorType.F16, WeightEncoding.F16), (Kept.Four, TensorType.Q4_0, WeightEncoding.Q4_0), (Kept.Five, TensorType.Q5_0, WeightEncoding.Q5_0),
        (Kept.Six, TensorType.Q6_K, WeightEncoding.Q6K), (Kept.Eight, TensorType.Q8_0, WeightEncoding.Q8_0),
    ];

    private static readonly int[] Rows = [1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024, 1_536, 2_048];

    /// <summary>Measures a device: from a flushed L2, by its own events, medians.</summary>
    /// <param name="device">cuda or simt (where times are the executor's, and mean nothing but that the way works).</param>
    /// <param name="options">Sizes.</param>
    /// <param name="progress">Told of each number of rows: done, of all.</param>
    /// <param name="cancellation">Looked at between measurements.</param>
    /// <exception cref="ArgumentException">A size out of its range.</exception>
    /// <exception cref="SluiceException">A backend of one way, no memory, or a failed device.</exception>
    public static IReadOnlyList<RouteTime> Measure(Device device, TuningOptions options, IProgress<ByteProgress>? progress = null, CancellationToken cancellation = default)
    {
        if (options.Size is < 256 or > 32_768 || options.Size % 256 != 0 || options.MostRows is < LeastRows or > 65_536)
        {
            throw new ArgumentException($"weights of {options.Size:N0} and {options.MostRows:N0} rows were asked for: a size may be 256 to 32,768 and goes by 256, rows may be {LeastRows} to 65,536");
        }

        _ = device.SwitchPoints; // a backend that has none says so
        int[] rows = [.. Rows.Where(m => m <= options.MostRows)];
        using ComputeStream stream = device.CreateStream();
        List<RouteTime> all = [];
        foreach ((Kept kept, TensorType type, WeightEncoding encoding) in Weights)
        {
            using Weight weight = Square(stream, type, encoding, options.Size);
            foreach (int m in rows)
            {
                cancellation.ThrowIfCancellationRequested();
                Tensor x = stream.CreateTensor(DType.F16, m, options.Size), y = stream.CreateTensor(DType.F16, m, options.Size);
                using DeviceBuffer input = x.Buffer!, output = y.Buffer!;
                stream.Fill(input, 0, 0, (ulong)x.Count * sizeof(short));
                all.Add(new RouteTime(kept, m, Time(Route.Few), Time(Route.Narrow), Time(Route.Wide), Time(Route.Dense)));
                progress?.Report(new ByteProgress(all.Count, rows.Length * Weights.Length));

                double? Time(Route route)
                {
                    try
                    {
                        void Run() => stream.Linear(x, weight, y, route: route);
                        stream.Reserve(stream.Measure(Run));
                        return FlushedTimer.Quick(stream, Run) * 1000;
                    }
                    catch (SluiceException e) when (e.Status == Status.ErrUnsupported)
                    {
                        return null;
                    }
                }
            }
        }

        return all;
    }

    /// <summary>
    /// Where to change: few rows go one way as long as no other is faster, then tiles of 16 rows as long as tiles of 64 are not, and weights go to 16 bits
    /// from where that is faster for all more rows that were measured.
    /// </summary>
    /// <exception cref="ArgumentException">No times of some way to keep a weight.</exception>
    public static SwitchPoints Choose(IReadOnlyList<RouteTime> times)
    {
        SwitchPoints points = new() { Few = new int[(int)Kept.Kinds], Narrow = new int[(int)Kept.Kinds], Dense = new int[(int)Kept.Kinds] };
        for (int kept = 0; kept < (int)Kept.Kinds; kept++)
        {
            RouteTime[] rows = [.. times.Where(t => (int)t.Kept == kept).OrderBy(t => t.Rows)];
            if (rows.Length == 0)
            {
                throw new ArgumentException($"no times of weights that are kept as {(Kept)kept}");
            }

            // An absent way is slower than any.
            static double Of(double? time) => time ?? double.PositiveInfinity;
            points.Few[kept] = rows.TakeWhile(t => t.Rows <= MostFew && t.Few is { } few && few <= Math.Min(Of(t.Narrow), Of(t.Wide))).Select(t => t.Rows).LastOrDefault();
            points.Narrow[kept] = rows.SkipWhile(t => t.Rows <= points.Few[kept]).TakeWhile(t => Of(t.Narrow) <= Of(t.Wide) && t.Narrow is not null).Select(t => t.Rows).LastOrDefault();
            points.Dense[kept] = rows.Reverse().TakeWhile(t => t.Rows > points.Few[kept] && t.Dense is { } dense && dense <= Math.Min(Of(t.Narrow), Of(t.Wide))).Select(t => t.Rows).LastOrDefault();
            if (points.Dense[kept] > 0)
            {
                points.Narrow[kept] = Math.Min(points.Narrow[kept], points.Dense[kept] - 1); // which is asked for first
            }
        }

        return points;
    }

    // Of one row's bytes again and again: what numbers a product meets is nothing to its time.
    private static Weight Square(ComputeStream stream, TensorType type, WeightEncoding encoding, int size)
    {
        float[] row = new float[size];
        Random random = new(1);
        for (int i = 0; i < size; i++)
        {
            row[i] = (float)(random.NextDouble() - 0.5);
        }

        byte[] bytes = new byte[TensorTypes.Bytes(type, size)], all = new byte[(long)bytes.Length * size];
        Quantizer.Quantize(type, row, bytes);
        for (int n = 0; n < size; n++)
        {
            bytes.CopyTo(all.AsSpan(n * bytes.Length));
        }

        return Weight.Create(stream, new WeightSource { Encoding = encoding, Rows = size, Cols = size, Data = all });
    }
}
