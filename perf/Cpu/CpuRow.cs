using System.Text;
using System.Text.Json;

namespace Sluice.Perf.Cpu;

/// <summary>One measurement of one engine. A line of JSON each, so that a run that was stopped keeps what it has, and goes on.</summary>
/// <param name="Round">From 1.</param>
/// <param name="Engine">Ours, or a peer's name.</param>
/// <param name="Build">The commit of ours; what a peer says of itself.</param>
/// <param name="Cell">A <see cref="CpuCell.Name"/>.</param>
/// <param name="TokensPerSecond">Of all sequences together.</param>
/// <param name="ReadGigabytes">GB/s that memory was read at beside it, where that was measured; else 0.</param>
/// <param name="BytesPerToken">Weights that a step of one token reads, where it is known; else 0.</param>
/// <param name="Device">The processor.</param>
/// <param name="Threads">That each engine had.</param>
/// <param name="Date">UTC.</param>
internal sealed record CpuRow(int Round, string Engine, string Build, string Cell, double TokensPerSecond, double ReadGigabytes, long BytesPerToken, string Device, int Threads, string Date)
{
    public const string Ours = "sluice";

    public string ToJson()
    {
        using MemoryStream text = new();
        using (Utf8JsonWriter json = new(text))
        {
            json.WriteStartObject();
            json.WriteNumber("round", Round);
            json.WriteString("engine", Engine);
            json.WriteString("build", Build);
            json.WriteString("cell", Cell);
            json.WriteNumber("tok_per_s", Math.Round(TokensPerSecond, 3));
            if (ReadGigabytes > 0)
            {
                json.WriteNumber("read_gb_per_s", Math.Round(ReadGigabytes, 3));
                json.WriteNumber("bytes_per_token", BytesPerToken);
            }

            json.WriteString("device", Device);
            json.WriteNumber("threads", Threads);
            json.WriteString("date", Date);
            json.WriteEndObject();
        }

        return Encoding.UTF8.GetString(text.ToArray());
    }

    /// <summary>Every whole line that is a row: a run that was killed may leave half of one.</summary>
    public static List<CpuRow> Read(IEnumerable<string> lines) => [.. lines.Select(Parse).OfType<CpuRow>()];

    private static CpuRow? Parse(string line)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(line);
            JsonElement row = document.RootElement;
            return row.ValueKind == JsonValueKind.Object && Text("engine").Length > 0 && Text("cell").Length > 0 && Number("round") >= 1 && Number("tok_per_s") > 0
                ? new CpuRow(
                    (int)Number("round"), Text("engine"), Text("build"), Text("cell"), Number("tok_per_s"), Number("read_gb_per_s"), (long)Number("bytes_per_token"), Text("device"), (int)Number("threads"), Text("date"))
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
