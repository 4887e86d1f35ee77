using System.Text.Json;

namespace Sluice.Perf.Table;

/// <summary>A timed case, of ours (target cuda, cpu/avx2, ...) or of a peer (torch, torch/flash, torch/cudnn). The read peak is GB/s of the same process.</summary>
internal sealed record BenchRow(string Target, string Device, string Case, double Microseconds, double GigabytesPerSecond, double GigaflopsPerSecond, double ReadPeak, string Date, string Commit)
{
    /// <summary>Of that peak; null where there is none.</summary>
    public double? Share => ReadPeak > 0 ? GigabytesPerSecond / ReadPeak : null;

    /// <summary>FLOP a byte that has to be moved; null where one of them is too small to have been written.</summary>
    public double? Intensity => GigabytesPerSecond > 0 && GigaflopsPerSecond > 0 ? GigaflopsPerSecond / GigabytesPerSecond : null;

    public bool IsPeer => Target.StartsWith("torch", StringComparison.Ordinal);

    /// <summary>Every whole line that is a case's: a run that was stopped may leave half of one. Of a case that ran more than once, the median run.</summary>
    public static List<BenchRow> Read(IEnumerable<string> lines) =>
        [.. lines.Select(Parse).OfType<BenchRow>().GroupBy(r => (r.Target, r.Device, r.Case)).Select(g => g.OrderBy(r => r.Microseconds).ElementAt(g.Count() / 2))];

    private static BenchRow? Parse(string line)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(line);
            JsonElement row = document.RootElement;
            return row.ValueKind == JsonValueKind.Object && row.TryGetProperty("case", out _) && row.TryGetProperty("target", out _) && Number("us") > 0
                ? new BenchRow(Text("target"), Text("device"), Text("case"), Number("us"), Number("gb_per_s"), Number("gflop_per_s"), Number("read_peak_gb_per_s"), Text("date"), Text("commit"))
                : null;

            string Text(string name) => row.TryGetProperty(name, out JsonElement e) && e.ValueKind == JsonValueKind.String ? e.GetString()! : "";

            double Number(string name) => row.TryGetProperty(name, out JsonElement e) && e.ValueKind == JsonValueKind.Number ? e.GetDouble() : 0;
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
