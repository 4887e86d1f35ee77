using System.Globalization;
using System.Text;

namespace Sluice.Perf.Cpu;

/// <summary>Rows as medians and ratios of medians: ours to the better of the peers.</summary>
internal sealed class CpuTable
{
    private readonly ILookup<(string Engine, string Cell), CpuRow> _rows;

    /// <param name="cells">In the table's order; those without a row are left out.</param>
    /// <param name="rows">Of one machine.</param>
    /// <param name="peers">Names in the columns' order.</param>
    public CpuTable(IReadOnlyList<CpuCell> cells, IReadOnlyList<CpuRow> rows, IReadOnlyList<string> peers)
    {
        _rows = rows.ToLookup(r => (r.Engine, r.Cell));
        HashSet<string> measured = [.. rows.Select(r => r.Cell)];
        Cells = [.. cells.Where(c => measured.Contains(c.Name))];
        Peers = [.. peers.Where(p => rows.Any(r => r.Engine == p))];
        Engines = [CpuRow.Ours, .. Peers];
        string Distinct(Func<CpuRow, string> of) => string.Join(", ", rows.Select(of).Where(t => t.Length > 0).Distinct().Order(StringComparer.Ordinal));
        Rounds = rows.Count == 0 ? 0 : rows.Max(r => r.Round);
        string machine = Distinct(r => r.Device), threads = Distinct(r => r.Threads.ToString(CultureInfo.InvariantCulture));
        Subtitle = $"{machine}, {threads} {(threads == "1" ? "thread" : "threads")}, {Distinct(r => r.Date)}; {string.Join("; ", Engines.Select(e => string.Join(' ', new[] { e, string.Join(", ", rows.Where(r => r.Engine == e && r.Build.Length > 0).Select(r => r.Build).Distinct()) }.Where(t => t.Length > 0))))}";
    }

    public IReadOnlyList<CpuCell> Cells { get; }

    public IReadOnlyList<string> Peers { get; }

    /// <summary>Ours first.</summary>
    public IReadOnlyList<string> Engines { get; }

    public int Rounds { get; }

    public string Subtitle { get; }

    /// <summary>The middle value, or the mean of the two in the middle.</summary>
    /// <exception cref="ArgumentException">There is no value.</exception>
    public static double Median(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        int middle = sorted.Length / 2;
        return sorted.Length == 0 ? throw new ArgumentException("no values have no median", nameof(values)) : sorted.Length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }

    /// <summary>Tokens a second of an engine, the median of its rounds; null: not measured.</summary>
    public double? Rate(string engine, CpuCell cell) => Of(engine, cell, r => r.TokensPerSecond);

    /// <summary>Ours over the better of the peers; null where either is missing.</summary>
    public double? Ratio(CpuCell cell) => Rate(CpuRow.Ours, cell) / Peers.Select(p => Rate(p, cell)).Max();

    /// <summary>GB/s that memory was read at beside our decode.</summary>
    public double? ReadGigabytes(CpuCell cell) => Of(CpuRow.Ours, cell, r => r.ReadGigabytes, r => r.ReadGigabytes > 0);

    /// <summary>The part of that rate at which our decode read weights: of each round, then the median.</summary>
    public double? ReadShare(CpuCell cell) => Of(CpuRow.Ours, cell, r => r.TokensPerSecond * r.BytesPerToken / 1e9 / r.ReadGigabytes, r => r.ReadGigabytes > 0);

    public string Markdown()
    {
        StringBuilder text = new();
        text.AppendLine("# On a CPU, beside other engines").AppendLine();
        text.AppendLine(CultureInfo.InvariantCulture, $"{Subtitle}.");
        Single(text);
        Many(text);
        text.AppendLine();
        text.AppendLine(CultureInfo.InvariantCulture, $"tok/s, medians of {Rounds} interleaved round{(Rounds == 1 ? "" : "s")}; a ratio is that of our median to the better of the peers'. Every cell of every round loads its engine anew, warms up and measures once; the load");
        text.AppendLine("is not counted; ours is loaded once a file and round. The same files, of random weights in true shapes; random tokens (a peer may use one token over and over); keys and values in f16. pp: a prompt and the logits of");
        text.AppendLine("its last token. tg: tokens one after the other from an empty cache, or after a prompt that is not counted; of several sequences the tokens of all. Ours takes the arg-max of");
        text.AppendLine("every row of logits, peers choose nothing. Requests go through the library's engine, with its default options: generated tokens of all by the time from the first request to the last token; a peer's are those of its");
        text.AppendLine("batched benchmark by its time of prompts and decode. Memory: arg-max over up to 1 GB, before and behind each decode of ours; % of it: bytes of weights a token times tokens a second.");
        return text.ToString();
    }

    private void Single(StringBuilder text)
    {
        (CpuCell Cell, string Key)[] cells = [.. Cells.Where(c => c.Kind is CpuKind.Prefill or CpuKind.Decode).Select(c => (c, $"{c.Model} {c.Type}"))];
        if (cells.Length == 0)
        {
            return;
        }

        string[] whats = [.. cells.Select(c => c.Cell.What).Distinct()];
        Head(text, "Prefill and decode", ["model", "type", .. whats.SelectMany(w => Columns($" {w}")), "memory GB/s", "decode's % of it"]);
        foreach (IGrouping<string, (CpuCell Cell, string Key)> file in cells.GroupBy(c => c.Key))
        {
            CpuCell any = file.First().Cell;
            CpuCell? decode = file.Select(c => c.Cell).FirstOrDefault(c => c.Kind == CpuKind.Decode);
            Row(text, [
                any.Model, any.Type, .. whats.SelectMany(w => Values(file.Select(c => c.Cell).FirstOrDefault(c => c.What == w))),
                Text("0.0", decode is null ? null : ReadGigabytes(decode)), Text("0", 100 * (decode is null ? null : ReadShare(decode))),
            ]);
        }
    }

    private void Many(StringBuilder text)
    {
        CpuCell[] cells = [.. Cells.Where(c => c.Kind is not (CpuKind.Prefill or CpuKind.Decode))];
        if (cells.Length == 0)
        {
            return;
        }

        // What a cell is set against, engine by engine: a long context against none, one prompt against as many.
        Head(text, "Batches and context", ["model", "type", "decode", .. Columns(""), .. Engines.Select(e => $"{e}: of its base")]);
        foreach (CpuCell cell in cells)
        {
            CpuCell? plain = cell switch
            {
                { Kind: CpuKind.Context } => Cells.FirstOrDefault(c => c.Kind == CpuKind.Decode && (c.Model, c.Type) == (cell.Model, cell.Type)),
                { OnePrompt: true } => Cells.FirstOrDefault(c => c == cell with { OnePrompt = false }),
                _ => null,
            };
            Row(text, [cell.Model, cell.Type, cell.What, .. Values(cell), .. Engines.Select(e => Text("0.00", plain is null ? null : Rate(e, cell) / Rate(e, plain)))]);
        }

        text.AppendLine().AppendLine("The base of a decode after a long prompt is that from an empty cache; of sequences on one prompt, as many with their own (which peers are not asked for).");
    }

    private IEnumerable<string> Columns(string suffix) => [.. Engines.Select(e => $"{e}{suffix}"), .. Peers.Count > 0 ? ["ratio"] : Array.Empty<string>()];

    private IEnumerable<string> Values(CpuCell? cell) =>
        [.. Engines.Select(e => Text("0.0", cell is null ? null : Rate(e, cell))), .. Peers.Count > 0 ? [Text("0.00", cell is null ? null : Ratio(cell))] : Array.Empty<string>()];

    private double? Of(string engine, CpuCell cell, Func<CpuRow, double> value, Func<CpuRow, bool>? where = null)
    {
        double[] values = [.. _rows[(engine, cell.Name)].Where(where ?? (_ => true)).Select(value)];
        return values.Length == 0 ? null : Median(values);
    }

    private static void Head(StringBuilder text, string title, string[] columns)
    {
        text.AppendLine().AppendLine(CultureInfo.InvariantCulture, $"## {title}").AppendLine();
        Row(text, columns);
        Row(text, [.. columns.Select(_ => "---")]);
    }

    private static void Row(StringBuilder text, string[] fields) => text.AppendLine(CultureInfo.InvariantCulture, $"| {string.Join(" | ", fields.Select(f => f.Replace("|", "\\|", StringComparison.Ordinal)))} |");

    private static string Text(string format, double? value) => value?.ToString(format, CultureInfo.InvariantCulture) ?? "";
}
