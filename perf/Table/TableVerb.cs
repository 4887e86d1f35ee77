using System.Globalization;

namespace Sluice.Perf.Table;

/// <summary>From the JSON lines of <c>perf ops</c>, wherever they were measured, attention.md and two pictures beside it.</summary>
internal static class TableVerb
{
    /// <param name="arguments">FILE... --out DIR [--target T] [--tflops N].</param>
    public static int Run(string[] arguments)
    {
        List<string> files = [];
        string? folder = null, target = null;
        double? teraflops = null;
        for (int i = 0; i < arguments.Length; i++)
        {
            string next = i + 1 < arguments.Length ? arguments[i + 1] : "";
            switch (arguments[i])
            {
                case "--out":
                    folder = next;
                    i++;
                    break;
                case "--target":
                    target = next;
                    i++;
                    break;
                case "--tflops" when double.TryParse(next, NumberStyles.Float, CultureInfo.InvariantCulture, out double given) && given > 0:
                    teraflops = given;
                    i++;
                    break;
                case var file when !file.StartsWith('-'):
                    files.Add(file);
                    break;
                default:
                    Console.Error.WriteLine($"perf table: '{arguments[i]}' is no option, or has no value");
                    return 2;
            }
        }

        if (files.Count == 0 || string.IsNullOrEmpty(folder))
        {
            Console.Error.WriteLine("usage: perf table FILE... --out DIR [--target cuda] [--tflops N]");
            return 2;
        }

        try
        {
            AttentionTable table = new(BenchRow.Read(files.SelectMany(File.ReadLines)), target, teraflops);
            Directory.CreateDirectory(folder);
            File.WriteAllText(Path.Combine(folder, "attention.md"), table.Markdown());
            File.WriteAllText(Path.Combine(folder, "roofline.svg"), Plots.Roofline(table));
            if (Plots.Ratios(table) is { } ratios)
            {
                File.WriteAllText(Path.Combine(folder, "cascade.svg"), ratios);
            }

            Console.Error.WriteLine($"{table.Rows.Count} cases of attention on {table.Device}: {folder}");
            return 0;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            Console.Error.WriteLine($"perf table: {e.Message}");
            return 1;
        }
    }
}
