using System.Globalization;
using System.Text;

namespace Sluice.Perf.Table;

/// <summary>All that one target measured of attention on one device, with what stood beside it.</summary>
internal sealed class AttentionTable
{
    private readonly Dictionary<AttentionCell, BenchRow> _cells = [];
    private readonly ILookup<string, BenchRow> _peers;

    /// <param name="rows">Of any targets.</param>
    /// <param name="target">Whose table it is; null: of the only one that is no peer.</param>
    /// <param name="teraflops">The device's compute peak; null: the fastest dense product of 16 bits among the rows.</param>
    /// <exception cref="ArgumentException">No such target, or more than one, or more than one device.</exception>
    public AttentionTable(IReadOnlyList<BenchRow> rows, string? target = null, double? teraflops = null)
    {
        Rows = [.. rows.Where(r => !r.IsPeer && (target is null || r.Target == target) && AttentionCell.Parse(r.Case) is not null)];
        Target = One("target", r => r.Target);
        Device = One("device", r => r.Device);
        foreach (BenchRow row in Rows)
        {
            _cells[AttentionCell.Parse(row.Case)!] = row;
        }

        _peers = rows.Where(r => r.IsPeer).ToLookup(r => r.Case);
        Dates = string.Join(", ", Rows.Select(r => r.Date).Where(d => d.Length > 0).Distinct().Order());
        Commits = string.Join(", ", Rows.Select(r => r.Commit).Where(c => c.Length > 0).Distinct());
        double[] peaks = [.. Rows.Select(r => r.ReadPeak).Order()];
        ReadPeak = peaks[peaks.Length / 2];
        BenchRow? fastest = rows.Where(r => (r.IsPeer || (r.Target == Target && r.Device == Device)) && r.Case.StartsWith("linear F16 ", StringComparison.Ordinal)).MaxBy(r => r.GigaflopsPerSecond);
        (Gigaflops, Roof) = (teraflops, fastest) switch
        {
            ({ } given, _) => (given * 1000, "given"),
            (null, { } row) => (row.GigaflopsPerSecond, $"{row.Target}: {row.Case}"),
            _ => ((double?)null, ""),
        };

        string One(string what, Func<BenchRow, string> of) => Rows.Select(of).Distinct().ToArray() switch
        {
            [var only] => only,
            [] => throw new ArgumentException(target is null ? "no row is a case of attention" : $"no row of {target} is a case of attention"),
            var all => throw new ArgumentException($"rows of more than one {what}: {string.Join(", ", all)}; name one by --target, or give other files"),
        };
    }

    public IReadOnlyList<BenchRow> Rows { get; }

    public IReadOnlyDictionary<AttentionCell, BenchRow> Cells => _cells;

    public string Target { get; }

    public string Device { get; }

    public string Dates { get; }

    public string Commits { get; }

    /// <summary>GB/s: the median of what the rows' processes measured.</summary>
    public double ReadPeak { get; }

    /// <summary>The compute peak, where one is known, and where it comes from.</summary>
    public double? Gigaflops { get; }

    public string Roof { get; }

    public string Subtitle => string.Join(", ", new[] { Target, Dates, Commits.Length > 0 ? $"commit {Commits}" : "" }.Where(t => t.Length > 0));

    /// <summary>Cascades of one kind of heads; each tree of prefixes on its own. Whoever has no partner has no ratio.</summary>
    public IEnumerable<IGrouping<(string Heads, string Tree), (AttentionCell Cell, BenchRow? Cascade, BenchRow? Flat)>> Cascades() => Cells.Keys
        .Where(c => c.Kind is AttentionKind.Cascade or AttentionKind.Flat)
        .Select(c => c with { Kind = AttentionKind.Cascade }).Distinct()
        .OrderBy(c => c.Batch).ThenBy(c => First(c.Prefix)).ThenBy(c => c.Suffix)
        .Select(c => (Cell: c, Cascade: _cells.GetValueOrDefault(c), Flat: _cells.GetValueOrDefault(c.Base!)))
        .GroupBy(c => (c.Cell.Heads, c.Cell.Prefix.Contains('+', StringComparison.Ordinal) ? c.Cell.Prefix : ""));

    /// <summary>flat / cascade: above 1 the cascade is faster.</summary>
    public static double? Ratio(BenchRow? cascade, BenchRow? flat) => flat?.Microseconds / cascade?.Microseconds;

    public static string Times(double ratio) => Text(ratio < 10 ? "0.00" : "0.0", ratio);

    public static string Text(string format, double value) => value.ToString(format, CultureInfo.InvariantCulture);

    public string Markdown()
    {
        StringBuilder text = new();
        text.AppendLine(CultureInfo.InvariantCulture, $"# Attention on {Escape(Device)}").AppendLine();
        text.AppendLine(CultureInfo.InvariantCulture, $"{Subtitle}. {Rows.Count} cases, each run from a flushed second-level cache and timed alone by device events: the median of at least 100 ms of runs after");
        text.AppendLine(CultureInfo.InvariantCulture, $"25 ms. % is of the read peak measured in the same process ({ReadPeak:#,0.##} GB/s), of the bytes that must be moved at least: each key and value once for its head.");
        text.AppendLine("Heads are Hq/Hkv/D; bs sequences of kv keys each; keys of 16 bits in pages of 16 unless a case says otherwise. They hold random values, a small block of them over and over.");
        if (Gigaflops is { } flops)
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"Compute peak: {flops / 1000:#,0.##} TFLOP/s ({Escape(Roof)}).");
        }

        Plain(text);
        Others(text);
        Appends(text);
        Ratios(text);
        Peers(text);
        return text.ToString();
    }

    private void Plain(StringBuilder text)
    {
        foreach (IGrouping<string, KeyValuePair<AttentionCell, BenchRow>> heads in Cells.Where(c => c.Key.IsPlain).GroupBy(c => c.Key.Heads))
        {
            int[] lengths = [.. heads.Select(c => c.Key.Keys).Distinct().Order()];
            Head(text, $"Decode {heads.Key}: µs (% of the read peak)", ["bs", .. lengths.Select(n => $"kv {n}")]);
            foreach (IGrouping<int, KeyValuePair<AttentionCell, BenchRow>> batch in heads.GroupBy(c => c.Key.Batch).OrderBy(g => g.Key))
            {
                Row(text, [$"{batch.Key}", .. lengths.Select(n => batch.Where(c => c.Key.Keys == n).Select(c => Cell(c.Value)).FirstOrDefault(""))]);
            }
        }

        static string Cell(BenchRow row) => $"{Microseconds(row)}{(row.Share is { } share ? $" ({Text("0", 100 * share)})" : "")}";
    }

    private void Others(StringBuilder text)
    {
        KeyValuePair<AttentionCell, BenchRow>[] others = [.. Cells.Where(c => c.Key.Kind is AttentionKind.Skewed or AttentionKind.Even || (c.Key.Kind == AttentionKind.Decode && !c.Key.IsPlain))];
        if (others.Length == 0)
        {
            return;
        }

        Head(text, "Other pages, elements and counts of queries; batches of different lengths", ["case", "µs", "GB/s", "% of the read peak", "time over that of the plain case, or of the even batch"]);
        foreach ((AttentionCell cell, BenchRow row) in others)
        {
            string over = cell.Base is { } plain && _cells.TryGetValue(plain, out BenchRow? other) ? Times(row.Microseconds / other.Microseconds) : "";
            Row(text, [Name(row), Microseconds(row), Text("#,0.##", row.GigabytesPerSecond), row.Share is { } share ? Text("0", 100 * share) : "", over]);
        }
    }

    private void Appends(StringBuilder text)
    {
        KeyValuePair<AttentionCell, BenchRow>[] appends = [.. Cells.Where(c => c.Key.Kind == AttentionKind.Append).OrderBy(c => c.Key.Heads, StringComparer.Ordinal).ThenBy(c => c.Key.Keys).ThenBy(c => c.Key.Queries)];
        if (appends.Length == 0)
        {
            return;
        }

        Head(text, "Prefill and append, causal", ["heads", "queries", "on a prefix of", "µs", "TFLOP/s", .. Gigaflops is null ? Array.Empty<string>() : ["% of the compute peak"]]);
        foreach ((AttentionCell cell, BenchRow row) in appends)
        {
            Row(text, [cell.Heads, $"{cell.Queries}", $"{cell.Keys}", Microseconds(row), Text("#,0.###", row.GigaflopsPerSecond / 1000), .. Gigaflops is { } peak ? [Text("0", 100 * row.GigaflopsPerSecond / peak)] : Array.Empty<string>()]);
        }
    }

    private void Ratios(StringBuilder text)
    {
        foreach (IGrouping<(string Heads, string Tree), (AttentionCell Cell, BenchRow? Cascade, BenchRow? Flat)> panel in Cascades())
        {
            int[] suffixes = [.. panel.Select(c => c.Cell.Suffix).Distinct().Order()];
            double[] ratios = [.. panel.Select(c => Ratio(c.Cascade, c.Flat)).OfType<double>()];
            Head(
                text, $"Cascade {panel.Key.Heads}{(panel.Key.Tree.Length > 0 ? $", a tree of prefixes {panel.Key.Tree}" : "")}: time of flat over cascade (µs of the cascade)",
                ["bs", "prefix", .. suffixes.Select(s => $"suffix {s}")],
                $"The cascade loses in {ratios.Count(r => r < 1)} of {ratios.Length} cells (bold). Flat is paged_attention over the very same pages, which knows of no prefix.");
            foreach (var row in panel.GroupBy(c => (c.Cell.Batch, c.Cell.Prefix)))
            {
                Row(text, [$"{row.Key.Batch}", row.Key.Prefix, .. suffixes.Select(s => row.Where(c => c.Cell.Suffix == s).Select(c => Both(c.Cascade, c.Flat)).FirstOrDefault(""))]);
            }
        }

        static string Both(BenchRow? cascade, BenchRow? flat)
        {
            string ratio = Ratio(cascade, flat) is { } r ? r < 1 ? $"**{Times(r)}**" : Times(r) : "?";
            return cascade is null ? ratio : $"{ratio} ({Microseconds(cascade)})";
        }
    }

    private void Peers(StringBuilder text)
    {
        BenchRow[] both = [.. Rows.Where(r => _peers[r.Case].Any())];
        string[] kinds = [.. both.SelectMany(r => _peers[r.Case]).Select(p => p.Target).Distinct().Order(StringComparer.Ordinal)];
        if (both.Length == 0)
        {
            return;
        }

        Head(text, "Beside PyTorch: our time over its own, on keys that lie in one piece", ["case", "µs", .. kinds], "Below 1 we are faster. torch: what scaled_dot_product_attention chooses by itself; the others: that backend of it.");
        foreach (BenchRow row in both)
        {
            Row(text, [Name(row), Microseconds(row), .. kinds.Select(k => _peers[row.Case].Where(p => p.Target == k).Select(p => Times(row.Microseconds / p.Microseconds)).FirstOrDefault(""))]);
        }
    }

    private static string Name(BenchRow row) => Escape(row.Case.Replace("paged_attention ", "", StringComparison.Ordinal));

    private static string Microseconds(BenchRow row) => Text(row.Microseconds < 100 ? "0.0" : "#,0", row.Microseconds);

    private static string Escape(string text) => text.Replace("|", "\\|", StringComparison.Ordinal).Replace("<", "&lt;", StringComparison.Ordinal).Replace('\n', ' ');

    private static int First(string prefix) => int.TryParse(prefix.Split('+')[0], NumberStyles.None, CultureInfo.InvariantCulture, out int first) ? first : 0;

    private static void Head(StringBuilder text, string title, string[] columns, string? note = null)
    {
        text.AppendLine().AppendLine(CultureInfo.InvariantCulture, $"## {title}").AppendLine();
        if (note is not null)
        {
            text.AppendLine(note).AppendLine();
        }

        Row(text, columns);
        Row(text, [.. columns.Select(_ => "---")]);
    }

    private static void Row(StringBuilder text, string[] cells) => text.Append("| ").AppendJoin(" | ", cells).AppendLine(" |");
}
