namespace Sluice.Decoding;

/// <summary>What is told of many measured values, all in the unit of these.</summary>
/// <param name="Count">How many.</param>
/// <param name="Mean">Their mean.</param>
/// <param name="P50">The median.</param>
/// <param name="P90">The 90th percentile.</param>
/// <param name="P99">The 99th percentile.</param>
/// <param name="Max">The largest.</param>
public sealed record Distribution(int Count, double Mean, double P50, double P90, double P99, double Max)
{
    /// <summary>The distribution of these values, in any order; null where there are none.</summary>
    public static Distribution? Of(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        return sorted.Length == 0 ? null
            : new Distribution(sorted.Length, sorted.Average(), Percentile(sorted, 50), Percentile(sorted, 90), Percentile(sorted, 99), sorted[^1]);
    }

    /// <summary>
    /// The value below which so many percent of the others lie, on the line between its neighbours: the seventh definition of Hyndman and Fan (Sample Quantiles in Statistical
    /// Packages, 1996), which is also NumPy's.
    /// </summary>
    /// <param name="sorted">One value at least, in ascending order.</param>
    /// <param name="percent">0 to 100.</param>
    /// <exception cref="ArgumentException">No value, or no percentage.</exception>
    public static double Percentile(ReadOnlySpan<double> sorted, double percent)
    {
        if (sorted.IsEmpty || !(percent is >= 0 and <= 100))
        {
            throw new ArgumentException($"percentile {percent} of {sorted.Length} values: it may be 0 to 100, and of one value at least");
        }

        double at = (sorted.Length - 1) * percent / 100;
        int below = (int)at;
        return below + 1 < sorted.Length ? sorted[below] + ((at - below) * (sorted[below + 1] - sorted[below])) : sorted[below];
    }
}
