using System.Globalization;
using System.Text;

namespace Sluice.Kernels;

/// <summary>
/// What attention should take on GPUs that are not at hand, from how its blocks share their work and from the makers' peaks: as <see cref="PredictedTimes"/>,
/// lower bounds, of which nothing was measured.
/// </summary>
public static class PredictedAttention
{
    private const double Fill = 1.5;  // microseconds until a block's first keys are there: the plan, page ids, keys, one after the other
    private const double Join = 1.0;  // of a round of parts that become one: written, counted, read

    // Of the tensor cores' peak that mma.sync reaches: all of it before Hopper, where only its own instructions do.
    private static double Reached(Gpu gpu) => gpu.Name == "A100" ? 0.9 : 0.6;

    /// <summary>A GPU by its makers' numbers: bytes and operations a microsecond are thousands and millions of these.</summary>
    public sealed record Gpu(string Name, int Multiprocessors, double GigabytesPerSecond, double Teraflops, double CacheGigabytesPerSecond);

    /// <summary>Sequences of one length, whose first keys may be shared.</summary>
    public sealed record Load(string Name, int Heads, int KvHeads, int Dim, int Sequences, int Queries, int Prefix, int Own, double ElementBytes = 2, double ScaleBytes = 0)
    {
        public int Group => Heads / KvHeads;

        public double KeyBytes => (2.0 * Dim * ElementBytes) + ScaleBytes;

        public double StateBytes => 2 * 4 * (Dim + 2.0);
    }

    public static readonly Gpu[] Gpus = [new("A100", 108, 2039, 312, 4500), new("H100", 132, 3350, 989, 5500), new("H200", 132, 4800, 989, 5500)];

    public static readonly (Load Load, string Goal)[] Decodes =
    [
        (new("MHA 32/32, batch 1, 1k", 32, 32, 128, 1, 1, 0, 1024), "35%"), (new("MHA 32/32, batch 16, 4k", 32, 32, 128, 16, 1, 0, 4096), "90%"), (new("MHA 32/32, batch 1, 64k", 32, 32, 128, 1, 1, 0, 65536), ""),
        (new("GQA 32/4, batch 64, 8k", 32, 4, 128, 64, 1, 0, 8192), "90%"), (new("GQA 32/4, batch 1, 64k", 32, 4, 128, 1, 1, 0, 65536), "75%"), (new("GQA 32/8, batch 1, 1k", 32, 8, 128, 1, 1, 0, 1024), ""),
        (new("GQA 32/8, batch 16, 4k", 32, 8, 128, 16, 1, 0, 4096), ""), (new("GQA 32/8, batch 16, 4k, e4m3", 32, 8, 128, 16, 1, 0, 4096, 1, 8), "half of 16 bits"), (new("GQA 32/8, D 64, batch 16, 4k", 32, 8, 64, 16, 1, 0, 4096), ""),
        (new("GQA 32/8, batch 16, 4k, 8 rows", 32, 8, 128, 16, 8, 0, 4096), ""),
    ];

    public static readonly (Load Load, string Goal)[] Cascades =
    [
        (new("MHA, batch 256, prefix 8k, suffix 128", 32, 32, 128, 256, 1, 8192, 128), "15 x"), (new("GQA 32/8, batch 64, prefix 2k, suffix 128", 32, 8, 128, 64, 1, 2048, 128), "3 x"),
        (new("MHA, batch 256, prefix 1k, suffix 128", 32, 32, 128, 256, 1, 1024, 128), "3.2 x"), (new("MHA, batch 8, prefix 1k, suffix 128", 32, 32, 128, 8, 1, 1024, 128), "1.0 x"),
        (new("GQA 32/8, batch 8, prefix 32k, suffix 2k", 32, 8, 128, 8, 1, 32768, 2048), ""),
    ];

    /// <summary>Microseconds of attention that reads every sequence's keys.</summary>
    public static double Flat(Gpu gpu, Load l)
    {
        long rows = (long)l.Queries * l.Group, tile = rows <= 16 ? 16 : 64, tiles = (rows + tile - 1) / tile;
        return Launch(gpu, l, l.Sequences * (double)l.KvHeads * tiles, tile, l.Prefix + l.Own, rows * l.Sequences * (double)l.KvHeads, tiles);
    }

    /// <summary>Microseconds of attention that reads the prefix once for all.</summary>
    public static double Shared(Gpu gpu, Load l)
    {
        long rows = (long)l.Sequences * l.Queries * l.Group, tiles = (rows + 63) / 64;
        double states = l.StateBytes * rows * l.KvHeads / (gpu.CacheGigabytesPerSecond * 1e3);
        return Launch(gpu, l, (double)tiles * l.KvHeads, 64, l.Prefix, (double)rows * l.KvHeads, tiles) + states + Flat(gpu, l with { Prefix = 0 });
    }

    /// <summary>Two tables in Markdown.</summary>
    public static string Write()
    {
        StringBuilder text = new();
        text.Append(CultureInfo.InvariantCulture, $"""

            **Predicted, not measured**: attention, 16-bit but where said, D 128 but where said. {PredictedTimes.LaunchMicroseconds} µs a launch, {Fill} until the first keys are there, and the longest of: keys and values once at the memory's
            peak; all that is read and written, parts of shared tiles too, at the cache's; tensor-core operations at what mma.sync reaches; then {Join} µs a round in which parts become one. % is the keys' bytes over that time, of the memory's peak.

            | decode | {string.Join(" | ", Gpus.Select(g => $"{g.Name} µs | %"))} | goal |
            |---|{string.Concat(Gpus.Select(_ => "---|---|"))}---|

            """);
        foreach ((Load l, string goal) in Decodes)
        {
            text.Append(CultureInfo.InvariantCulture, $"| {l.Name} |");
            foreach (Gpu gpu in Gpus)
            {
                double took = Flat(gpu, l);
                text.Append(CultureInfo.InvariantCulture, $" {took:0.0} | {100 * l.Sequences * (double)l.KvHeads * l.Own * l.KeyBytes / (took * gpu.GigabytesPerSecond * 1e3):0} |");
            }

            text.Append(CultureInfo.InvariantCulture, $" {goal} |\n");
        }

        text.Append(CultureInfo.InvariantCulture, $"\n| cascade over flat, decode | {string.Join(" | ", Gpus.Select(g => g.Name))} | goal |\n|---|{string.Concat(Gpus.Select(_ => "---|"))}---|\n");
        foreach ((Load l, string goal) in Cascades)
        {
            text.Append(CultureInfo.InvariantCulture, $"| {l.Name} | {string.Join(" | ", Gpus.Select(g => string.Create(CultureInfo.InvariantCulture, $"{Flat(g, l) / Shared(g, l):0.0} x")))} | {goal} |\n");
        }

        return text.ToString();
    }

    // A launch over tiles of so many keys; `readers` of them share keys, which come from memory once.
    private static double Launch(Gpu gpu, Load l, double tiles, long tileRows, double keys, double rows, double readers)
    {
        double once = tiles / readers * keys * l.KeyBytes, blocks = gpu.Multiprocessors * 2, least = tileRows == 16 ? 128 : 256;
        double sharing = Math.Min(blocks, tiles * keys / least), partRows = Math.Min(tileRows, rows / tiles);
        double parts = sharing > tiles || sharing % tiles != 0 ? 2 * sharing * partRows * l.StateBytes : 0;
        double memory = once / (gpu.GigabytesPerSecond * 1e3), cache = ((once * readers) + parts + (rows * 4 * l.Dim)) / (gpu.CacheGigabytesPerSecond * 1e3);
        double products = 4 * tiles * tileRows * keys * l.Dim / (gpu.Teraflops * Reached(gpu) * 1e6);
        double each = sharing / tiles, rounds = each <= 1 ? 0 : each <= 8 ? 1 : 2;
        return PredictedTimes.LaunchMicroseconds + Fill + Math.Max(memory, Math.Max(cache, products)) + (Join * rounds);
    }
}
