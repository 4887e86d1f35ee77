using Sluice.Plotting;

namespace Sluice.Perf.Table;

/// <summary>The table as pictures.</summary>
internal static class Plots
{
    // Okabe and Ito (2008): told apart by colour-blind readers, on white and on black.
    private static readonly (string Name, string Colour, Func<AttentionCell, bool> Has)[] Kinds =
    [
        ("decode", "#0072b2", c => c.Kind == AttentionKind.Decode && c.Queries == 1 && c.DType == "F16"),
        ("decode, keys of 8 bits", "#d55e00", c => c.Kind == AttentionKind.Decode && c.DType != "F16"),
        ("decode, 2 to 8 queries", "#cc79a7", c => c.Kind == AttentionKind.Decode && c.Queries > 1 && c.DType == "F16"),
        ("append", "#e69f00", c => c.Kind == AttentionKind.Append),
        ("cascade", "#009e73", c => c.Kind == AttentionKind.Cascade),
        ("one long sequence; even", "#56b4e9", c => c.Kind is AttentionKind.Skewed or AttentionKind.Even),
    ];

    /// <summary>
    /// FLOP/s over FLOP a byte that must be moved, both logarithmic, under the read peak and the compute peak (Williams, Waterman and Patterson, 2009). A point a case; flat ones,
    /// which read a prefix as often as it is shared, stand in <see cref="Ratios"/> alone.
    /// </summary>
    public static string Roofline(AttentionTable table)
    {
        const double left = 110, top = 64, width = 620, height = 420;
        (AttentionCell Cell, BenchRow Row)[] cells = [.. table.Cells.Where(c => c.Key.Kind != AttentionKind.Flat && c.Value.Intensity is not null).Select(c => (c.Key, c.Value))];
        Svg svg = new(left + width + 230, top + height + 60);
        svg.Text(left, 24, $"Attention on {table.Device}: roofline", "title");
        svg.Text(left, 44, table.Subtitle);
        double[] xs = [.. cells.Select(c => c.Row.Intensity!.Value).DefaultIfEmpty(1)], ys = [.. cells.Select(c => c.Row.GigaflopsPerSecond).DefaultIfEmpty(1), .. table.Gigaflops is { } roof ? [roof] : Array.Empty<double>()];
        (int fromX, int toX) = Axis.Decades(xs);
        (int fromY, int toY) = Axis.Decades(ys);
        double X(double value) => left + (width * (Math.Log10(value) - fromX) / (toX - fromX));
        double Y(double value) => top + height - (height * (Math.Log10(value) - fromY) / (toY - fromY));
        for (int decade = fromX; decade <= toX; decade++)
        {
            double x = X(Math.Pow(10, decade));
            svg.Line(x, top, x, top + height, "grid");
            svg.Text(x, top + height + 18, AttentionTable.Text("#,0.######", Math.Pow(10, decade)), anchor: "middle");
        }

        for (int decade = fromY; decade <= toY; decade++)
        {
            double y = Y(Math.Pow(10, decade));
            svg.Line(left, y, left + width, y, "grid");
            svg.Text(left - 8, y + 4, Flops(Math.Pow(10, decade)), anchor: "end");
        }

        svg.Line(left, top + height, left + width, top + height, "axis");
        svg.Line(left, top, left, top + height, "axis");
        svg.Text(left + (width / 2), top + height + 42, "FLOP a byte that must be moved", anchor: "middle");

        double lowX = Math.Pow(10, fromX), highX = Math.Pow(10, toX), lowY = Math.Pow(10, fromY), highY = Math.Pow(10, toY);
        if (table.ReadPeak > 0)
        {
            double begin = Math.Max(lowX, lowY / table.ReadPeak), end = Math.Min(highX, (table.Gigaflops ?? highY) / table.ReadPeak);
            if (begin < end)
            {
                svg.Line(X(begin), Y(begin * table.ReadPeak), X(end), Y(end * table.ReadPeak), "roof");
            }

            svg.Text(left + width + 16, top + 12, $"read peak {AttentionTable.Text("#,0.##", table.ReadPeak)} GB/s (measured)", "small");
            if (table.Gigaflops is { } flat && flat / table.ReadPeak < highX)
            {
                svg.Line(X(Math.Max(lowX, flat / table.ReadPeak)), Y(flat), left + width, Y(flat), "roof");
            }
        }

        if (table.Gigaflops is { } peak)
        {
            svg.Text(left + width + 16, top + 28, $"compute peak {Flops(peak)}", "small");
            svg.Text(left + width + 16, top + 42, $"({table.Roof})", "small");
        }

        for (int form = 0, line = 0; form < Kinds.Length; form++)
        {
            (string name, string colour, Func<AttentionCell, bool> has) = Kinds[form];
            (AttentionCell Cell, BenchRow Row)[] own = [.. cells.Where(c => has(c.Cell))];
            foreach ((_, BenchRow row) in own)
            {
                svg.Mark(form, X(row.Intensity!.Value), Y(row.GigaflopsPerSecond), colour, "cell", $"{row.Case}: {AttentionTable.Text("#,0.#", row.Microseconds)} µs, {Flops(row.GigaflopsPerSecond)}{(row.Share is { } share ? $", {AttentionTable.Text("0", 100 * share)} % of the read peak" : "")}");
            }

            if (own.Length > 0)
            {
                double y = top + 70 + (20 * line++);
                svg.Mark(form, left + width + 22, y - 4, colour, "key", name);
                svg.Text(left + width + 34, y, $"{name} ({own.Length})");
            }
        }

        return svg.ToString();
    }

    /// <summary>Flat over cascade, a square a pair: blue where the cascade wins, red where it loses. Null where there is none.</summary>
    public static string? Ratios(AttentionTable table)
    {
        const double left = 60, cell = 46, line = 24, between = 14;
        IGrouping<(string Heads, string Tree), (AttentionCell Cell, BenchRow? Cascade, BenchRow? Flat)>[] panels = [.. table.Cascades()];
        if (panels.Length == 0)
        {
            return null;
        }

        double widest = panels.Max(p => (cell * Columns(p).Length) + (between * Columns(p).Select(c => c.Prefix).Distinct().Count())), tallest = panels.Sum(p => 84 + (line * p.Select(c => c.Cell.Batch).Distinct().Count()));
        Svg svg = new(Math.Max(left + widest + 20, 640), tallest + 70);
        svg.Text(20, 24, $"Time of flat attention over cascade on {table.Device}", "title");
        svg.Text(20, 44, $"{table.Subtitle}; the same pages; below 1 (red, bold) the cascade loses");
        double top = 60;
        foreach (IGrouping<(string Heads, string Tree), (AttentionCell Cell, BenchRow? Cascade, BenchRow? Flat)> panel in panels)
        {
            svg.Text(20, top + 18, $"{panel.Key.Heads}{(panel.Key.Tree.Length > 0 ? $", tree {panel.Key.Tree}" : "")}", "title");
            (string Prefix, int Suffix)[] columns = Columns(panel);
            int[] batches = [.. panel.Select(c => c.Cell.Batch).Distinct().Order()];
            for (int column = 0, group = 0; column < columns.Length; column++)
            {
                bool begins = column == 0 || columns[column].Prefix != columns[column - 1].Prefix;
                group += begins && column > 0 ? 1 : 0;
                double x = left + (cell * column) + (between * group);
                if (begins)
                {
                    svg.Text(x, top + 38, $"prefix {columns[column].Prefix}", "small");
                }

                svg.Text(x + (cell / 2), top + 54, $"+ {columns[column].Suffix}", "small", "middle");
                for (int row = 0; row < batches.Length; row++)
                {
                    double y = top + 60 + (line * row);
                    if (column == 0)
                    {
                        svg.Text(left - 8, y + 16, $"bs {batches[row]}", "small", "end");
                    }

                    foreach ((AttentionCell found, BenchRow? cascade, BenchRow? flat) in panel.Where(c => c.Cell.Batch == batches[row] && (c.Cell.Prefix, c.Cell.Suffix) == columns[column]))
                    {
                        double? ratio = AttentionTable.Ratio(cascade, flat);
                        // Full colour at 16 and a sixteenth.
                        double t = ratio is { } r ? Math.Clamp(Math.Log2(r) / 4, -1, 1) : 0;
                        svg.Rectangle(x, y, cell - 2, line - 2, "cell", Colour(t), $"{found.Heads} bs {found.Batch} prefix {found.Prefix} suffix {found.Suffix}: cascade {Time(cascade)}, flat {Time(flat)}");
                        svg.Text(x + (cell / 2) - 1, y + 15, ratio is { } known ? AttentionTable.Times(known) : "?", $"{(Math.Abs(t) > 0.55 ? "on-dark" : "on-light")}{(ratio < 1 ? " loses" : "")}", "middle");
                    }
                }
            }

            top += 84 + (line * batches.Length);
        }

        return svg.ToString();

        static (string Prefix, int Suffix)[] Columns(IEnumerable<(AttentionCell Cell, BenchRow? Cascade, BenchRow? Flat)> panel) =>
            [.. panel.Select(c => (c.Cell.Prefix, c.Cell.Suffix)).Distinct().OrderBy(c => c.Prefix.Length).ThenBy(c => c.Prefix, StringComparer.Ordinal).ThenBy(c => c.Suffix)];

        static string Time(BenchRow? row) => row is null ? "not measured" : $"{AttentionTable.Text("#,0.#", row.Microseconds)} µs";
    }

    private static string Colour(double t)
    {
        (int R, int G, int B) end = t < 0 ? (178, 24, 43) : (33, 102, 172);
        int Mix(int value) => (int)Math.Round(247 + ((value - 247) * Math.Abs(t)));
        return $"#{Mix(end.R):x2}{Mix(end.G):x2}{Mix(end.B):x2}";
    }

    private static string Flops(double gigaflops) => gigaflops >= 1000 ? $"{AttentionTable.Text("#,0.##", gigaflops / 1000)} TFLOP/s" : gigaflops >= 1 ? $"{AttentionTable.Text("0.##", gigaflops)} GFLOP/s" : $"{AttentionTable.Text("0.###", gigaflops * 1000)} MFLOP/s";
}
