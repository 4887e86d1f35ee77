namespace Sluice.Plotting;

/// <summary>What pictures of numbers have in common.</summary>
internal static class Axis
{
    // Okabe and Ito (2008): told apart by colour-blind readers, on white and on black.
    private static readonly string[] Colours = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"];

    /// <summary>The colour of a series; they come again where there are many.</summary>
    public static string Colour(int series) => Colours[series % Colours.Length];

    /// <summary>A fifth of an axis from 0 that shows <paramref name="most"/>: 1, 2 or 5 times a power of ten, or halfway between.</summary>
    public static double Step(double most)
    {
        double power = Math.Pow(10, Math.Floor(Math.Log10(Math.Max(most, 1e-3) / 5)));
        return power * new[] { 1, 2, 2.5, 4, 5, 8, 10, 20 }.First(n => n * power * 5 >= most * 1.02);
    }

    /// <summary>The powers of ten around values above 0.</summary>
    public static (int From, int To) Decades(IEnumerable<double> values)
    {
        (double least, double most) = (values.Min(), values.Max());
        int from = (int)Math.Floor(Math.Log10(least)), to = (int)Math.Ceiling(Math.Log10(most));
        return (from, Math.Max(to, from + 1));
    }
}
