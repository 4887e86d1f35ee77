using System.Globalization;
using Sluice.Plotting;

namespace Sluice.Perf.Cpu;

/// <summary>The table as bar charts: a group a cell, a bar an engine.</summary>
internal static class CpuPlots
{
    /// <summary>Tokens a second of these cells; null where none of them was measured.</summary>
    /// <param name="table">The medians.</param>
    /// <param name="title">What the cells have in common.</param>
    /// <param name="kinds">Which cells.</param>
    public static string? Bars(CpuTable table, string title, params CpuKind[] kinds)
    {
        const double left = 70, top = 92, height = 300, bar = 22, between = 26, letter = 5.2;
        CpuCell[] cells = [.. table.Cells.Where(c => kinds.Contains(c.Kind))];
        if (cells.Length == 0)
        {
            return null;
        }

        double group = Math.Max(letter * cells.Max(c => Math.Max(c.What.Length, c.Model.Length)) - between + 10, bar * table.Engines.Count), width = (group + between) * cells.Length;
        double step = Axis.Step(cells.SelectMany(c => table.Engines.Select(e => table.Rate(e, c) ?? 0)).Max()), most = step * 5;
        Svg svg = new(Math.Max(left + width + 20, 760), top + height + 72);
        svg.Text(20, 24, $"{title}, tokens a second", "title");
        svg.Text(20, 44, $"{table.Subtitle}; medians of {table.Rounds}", "small");
        for (int engine = 0; engine < table.Engines.Count; engine++)
        {
            svg.Rectangle(left + (160 * engine), 58, 12, 12, "key", Axis.Colour(engine));
            svg.Text(left + (160 * engine) + 18, 68, table.Engines[engine]);
        }

        for (int line = 0; line <= 5; line++)
        {
            double y = top + height - (height * line / 5);
            svg.Line(left, y, left + width, y, line == 0 ? "axis" : "grid");
            svg.Text(left - 8, y + 4, Text("#,0.##", step * line), anchor: "end");
        }

        for (int i = 0; i < cells.Length; i++)
        {
            CpuCell cell = cells[i];
            double x = left + (between / 2) + ((group + between) * i), middle = x + (group / 2), first = middle - (bar * table.Engines.Count / 2);
            for (int engine = 0; engine < table.Engines.Count; engine++)
            {
                if (table.Rate(table.Engines[engine], cell) is { } rate)
                {
                    double size = height * rate / most;
                    svg.Rectangle(first + (bar * engine), top + height - size, bar - 2, size, "cell", Axis.Colour(engine), $"{table.Engines[engine]}, {cell.Name}: {Text("#,0.0", rate)}");
                    svg.Text(first + (bar * engine) + (bar / 2) - 1, top + height - size - 4, Text("#,0", rate), "small", "middle");
                }
            }

            svg.Text(middle, top + height + 16, cell.Model, "small", "middle");
            svg.Text(middle, top + height + 30, cell.Type, "small", "middle");
            svg.Text(middle, top + height + 44, cell.What, "small", "middle");
            if (table.Ratio(cell) is { } ratio)
            {
                svg.Text(middle, top + height + 60, $"{Text("0.00", ratio)} x", ratio < 1 ? "loses" : "", "middle");
            }
        }

        return svg.ToString();
    }

    private static string Text(string format, double value) => value.ToString(format, CultureInfo.InvariantCulture);
}
