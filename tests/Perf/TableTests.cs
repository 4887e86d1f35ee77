using System.Globalization;
using System.Text.Json;
using System.Xml.Linq;
using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Perf.Table;

/// <summary>From lines of JSON to the table and its pictures: nothing is lost on the way, and nothing breaks the form.</summary>
public class TableTests
{
    private const string Odd = "A<B> & \"C\" 'D' |E|\u0001";

    private static readonly XNamespace Space = "http://www.w3.org/2000/svg";

    [Fact]
    public void Every_timed_case_has_its_place_in_the_table()
    {
        TimedCase[] cases = [.. AttentionCases.Timed(whole: true)];
        Assert.Equal(cases.Length, cases.Select(c => c.ToString()).Distinct().Count());
        Assert.All(cases.Concat(AttentionCases.TimedSmall()), c => Assert.NotNull(AttentionCell.Parse(c.ToString())));
        Assert.Equal(cases.Length, cases.Select(c => AttentionCell.Parse(c.ToString())).Distinct().Count());
        // As perf/RESULTS.md says.
        Assert.Equal((235, 1260), (AttentionCases.Timed(whole: false).Count(), cases.Length));
        // Goals come first, the coarse grid before the rest, and each cascade has flat attention behind it.
        Assert.Equal(AttentionCases.TimedGoals().Select(c => c.ToString()), cases.Take(AttentionCases.TimedGoals().Count()).Select(c => c.ToString()));
        Assert.Equal(AttentionCases.Timed(whole: false).Select(c => c.ToString()), cases.Take(AttentionCases.Timed(whole: false).Count()).Select(c => c.ToString()));
        Assert.All(cases.Index().Where(c => c.Item.Op == "cascade_attention"), c => Assert.Equal($"paged_attention flat {c.Item.Name}", cases[c.Index + 1].ToString()));
    }

    [Theory]
    [InlineData("linear F16 16x4096x4096")]
    [InlineData("paged_attention decode F16")]
    [InlineData("paged_attention decode 32/8/128 bs many kv 10")]
    [InlineData("paged_attention append 16 on")]
    [InlineData("cascade_attention")]
    [InlineData("")]
    public void What_is_no_timed_case_has_no_place(string name) => Assert.Null(AttentionCell.Parse(name));

    [Fact]
    public void Cases_are_read_as_they_are_named()
    {
        Assert.Equal(new AttentionCell(AttentionKind.Decode, "32/4/128", 64, 8192, 2, 1, "I8"), AttentionCell.Parse("paged_attention decode 32/4/128 bs 64 kv 8192 q 2 page 1 I8"));
        Assert.Equal(new AttentionCell(AttentionKind.Append, "32/8/128", 1, 4096, 512), AttentionCell.Parse("paged_attention append 512 on 4096 32/8/128"));
        Assert.Equal(new AttentionCell(AttentionKind.Cascade, "32/8/128", 16, Prefix: "2048+1024+512", Suffix: 128), AttentionCell.Parse("cascade_attention 32/8/128 bs 16 prefix 2048+1024+512 suffix 128"));
    }

    [Fact]
    public void A_shared_page_is_there_once_and_small_cases_add_up()
    {
        TimedCase[] cases = [.. AttentionCases.TimedSmall()];
        foreach (TimedCase timed in cases)
        {
            OpCase c = timed.Make();
            // A pool without a spare page; each is named, by more than one sequence where they share it.
            Assert.Equal(Enumerable.Range(0, c.Cache!.Pages), c.Step!.PageIds.Distinct().Order());
            Assert.Equal(timed.CacheBytes, c.Cache.Pages * c.Cache.PageSize * Minimum.RowBytes(c.Cache));
            Assert.Equal(c.Op == "cascade_attention", c.Step.Prefixes.Length > 0);
        }

        OpCase cascade = cases.First(c => c.Name == "4/2/64 bs 4 prefix 256 suffix 32").Make(), flat = cases.First(c => c.Name == "flat 4/2/64 bs 4 prefix 256 suffix 32").Make();
        Assert.Equal((256 + (4 * 32)) * Minimum.RowBytes(cascade.Cache!), Minimum.KvBytes(cascade));
        Assert.Equal(4 * (256 + 32) * Minimum.RowBytes(flat.Cache!), Minimum.KvBytes(flat));
        Assert.Equal(4L * 4 * 64 * ((32 * 96) + (32 * 33 / 2)), cases.First(c => c.Name == "append 32 on 96 4/2/64").Make().Flops);
    }

    [Fact]
    public void Timed_cases_attend_to_what_they_say()
    {
        // On the reference: a cascade's result is that of flat attention over the same pages, and no slot is left unwritten.
        Device device = Targets.Open("truth");
        using OpRunner cascade = new(device, AttentionCases.TimedSmall().First(c => c.Op == "cascade_attention").Make());
        using OpRunner flat = new(device, AttentionCases.TimedSmall().First(c => c.Op == "cascade_attention").Make() with { Op = "paged_attention" });
        cascade.Run();
        flat.Run();
        double[] a = cascade.Read()["o"].ToDoubles(), b = flat.Read()["o"].ToDoubles();
        Assert.All(a.Zip(b), p => Assert.Equal(p.First, p.Second, 2e-3));
        Assert.True(a.Distinct().Count() > 100);
    }

    [Fact]
    public void Every_row_is_drawn_and_written()
    {
        AttentionTable table = new(BenchRow.Read(Lines(AttentionCases.Timed(whole: true))));
        Assert.Equal(AttentionCases.Timed(whole: true).Count(), table.Rows.Count);
        XElement roofline = XElement.Parse(Plots.Roofline(table)), ratios = XElement.Parse(Plots.Ratios(table)!);
        string[] points = Titles(roofline), squares = Titles(ratios);
        string[] shown = [.. table.Rows.Select(r => r.Case).Where(c => !c.StartsWith("paged_attention flat", StringComparison.Ordinal))];
        Assert.Equal(shown.Order(StringComparer.Ordinal), points.Select(t => t[..t.IndexOf(':', StringComparison.Ordinal)]).Order(StringComparer.Ordinal));
        Assert.Equal(table.Rows.Count(r => r.Case.StartsWith("cascade", StringComparison.Ordinal)), squares.Length);
        Assert.DoesNotContain(squares, t => t.Contains("not measured", StringComparison.Ordinal));
        // All within the frame.
        Assert.All(roofline.Elements(Space + "circle").Where(IsCell), e => Assert.InRange((double)e.Attribute("cx")!, 110, 730));
        Assert.All(ratios.Elements(Space + "rect").Where(IsCell), e => Assert.True((double)e.Attribute("x")! + (double)e.Attribute("width")! <= (double)ratios.Attribute("width")! && (double)e.Attribute("y")! + (double)e.Attribute("height")! <= (double)ratios.Attribute("height")!));

        string text = table.Markdown();
        // A number a case, in grids or in lines of their own.
        Assert.All(table.Rows, r => Assert.Contains(Shown(r), text, StringComparison.Ordinal));
        string[] rows = [.. text.Split('\n').Where(l => l.StartsWith('|'))];
        Assert.Equal(table.Rows.Count(r => AttentionCell.Parse(r.Case) is { Kind: AttentionKind.Append }), Section(text, "## Prefill").Length - 2);
        Assert.Equal(table.Rows.Count(r => AttentionCell.Parse(r.Case) is { Kind: AttentionKind.Decode or AttentionKind.Skewed or AttentionKind.Even, IsPlain: false }), Section(text, "## Other pages").Length - 2);
        Assert.True(rows.Length > 100);
    }

    [Fact]
    public void Names_that_would_break_a_picture_or_a_table_do_not()
    {
        AttentionTable table = new(BenchRow.Read(Lines(AttentionCases.TimedSmall(), Odd)));
        XElement roofline = XElement.Parse(Plots.Roofline(table)), ratios = XElement.Parse(Plots.Ratios(table)!);
        Assert.Contains(roofline.Elements(Space + "text"), e => e.Value == $"Attention on {Odd[..^1]}: roofline");
        Assert.Contains(ratios.Elements(Space + "text"), e => e.Value.EndsWith(Odd[..^1], StringComparison.Ordinal));
        string title = table.Markdown().Split('\n')[0];
        Assert.Contains("A&lt;B", title, StringComparison.Ordinal);
        Assert.Contains("\\|E\\|", title, StringComparison.Ordinal);
    }

    [Fact]
    public void A_run_that_was_stopped_still_gives_its_table()
    {
        List<string> lines = [.. Lines(AttentionCases.TimedSmall())];
        lines.Insert(3, """{"model":"random.gguf","batch":1}""");
        lines.Insert(5, "[1,2]");
        lines.Add(lines[^1][..40]);
        lines.RemoveAll(l => l.Contains("paged_attention flat 4/2/64 bs 4", StringComparison.Ordinal));
        AttentionTable table = new(BenchRow.Read(lines));
        Assert.Equal(AttentionCases.TimedSmall().Count() - 1, table.Rows.Count);
        // A cascade whose partner is missing is shown, and has no ratio.
        Assert.Contains(Titles(XElement.Parse(Plots.Ratios(table)!)), t => t.Contains("flat not measured", StringComparison.Ordinal));
        Assert.Contains("? (", table.Markdown(), StringComparison.Ordinal);
    }

    [Fact]
    public void Losing_cells_are_told_and_peers_stand_beside()
    {
        string[] lines =
        [
            Line("cuda", "X", "cascade_attention 32/8/128 bs 8 prefix 1024 suffix 128", 10, 100, 400), Line("cuda", "X", "paged_attention flat 32/8/128 bs 8 prefix 1024 suffix 128", 8, 100, 400),
            Line("cuda", "X", "cascade_attention 32/8/128 bs 16 prefix 1024 suffix 128", 10, 100, 400), Line("cuda", "X", "paged_attention flat 32/8/128 bs 16 prefix 1024 suffix 128", 25, 100, 400),
            Line("cuda", "X", "paged_attention append 8192 on 0 32/8/128", 1000, 10, 500_000), Line("torch/flash", "X", "paged_attention append 8192 on 0 32/8/128", 800, 10, 600_000),
            Line("torch", "X", "linear F16 4096x4096x4096", 200, 10, 700_000),
        ];
        AttentionTable table = new(BenchRow.Read(lines));
        string text = table.Markdown();
        Assert.Contains("loses in 1 of 2 cells", text, StringComparison.Ordinal);
        Assert.Contains("| 8 | 1024 | **0.80** (10.0) |", text, StringComparison.Ordinal);
        Assert.Contains("| 16 | 1024 | 2.50 (10.0) |", text, StringComparison.Ordinal);
        Assert.Contains("| append 8192 on 0 32/8/128 | 1,000 | 1.25 |", text, StringComparison.Ordinal);
        Assert.Contains("Compute peak: 700 TFLOP/s (torch: linear F16 4096x4096x4096)", text, StringComparison.Ordinal);
        Assert.Contains("| 32/8/128 | 8192 | 0 | 1,000 | 500 | 71 |", text, StringComparison.Ordinal);
        Assert.Equal("given", new AttentionTable(BenchRow.Read(lines), teraflops: 900).Roof);
    }

    [Fact]
    public void One_table_is_of_one_device()
    {
        string[] lines = [Line("cuda", "X", "paged_attention decode 32/8/128 bs 1 kv 1024", 1, 1, 1), Line("cuda", "Y", "paged_attention decode 32/8/128 bs 1 kv 1024", 1, 1, 1), Line("cpu/avx2", "Z", "paged_attention decode 32/8/128 bs 1 kv 1024", 1, 1, 1)];
        Assert.Throws<ArgumentException>(() => new AttentionTable(BenchRow.Read(lines)));
        Assert.Throws<ArgumentException>(() => new AttentionTable(BenchRow.Read(lines), "cuda"));
        Assert.Throws<ArgumentException>(() => new AttentionTable(BenchRow.Read(lines), "simt/1"));
        Assert.Equal("Z", new AttentionTable(BenchRow.Read(lines), "cpu/avx2").Device);
    }

    // Made up, and no measurement: each case takes a time of its own.
    private static IEnumerable<string> Lines(IEnumerable<TimedCase> cases, string device = "X") =>
        cases.Select((c, i) => Line("cuda", device, c.ToString(), 10 + (1.37 * i), 100 + i, 200 + (i * (i % 7))));

    private static string Line(string target, string device, string name, double us, double gigabytes, double gigaflops) =>
        JsonSerializer.Serialize(new { target, device, @case = name, us, gb_per_s = gigabytes, gflop_per_s = gigaflops, read_peak_gb_per_s = 3000, date = "2026-01-02", commit = "0123abcd" });

    private static string Shown(BenchRow row) => AttentionCell.Parse(row.Case)!.Kind == AttentionKind.Flat ? "" : row.Microseconds.ToString(row.Microseconds < 100 ? "0.0" : "#,0", CultureInfo.InvariantCulture);

    private static string[] Section(string text, string title) => [.. text.Split('\n').SkipWhile(l => !l.StartsWith(title, StringComparison.Ordinal)).Skip(1).TakeWhile(l => !l.StartsWith('#')).Where(l => l.StartsWith('|'))];

    private static bool IsCell(XElement e) => (string?)e.Attribute("class") == "cell";

    private static string[] Titles(XElement picture) => [.. picture.Elements().Where(IsCell).Select(e => e.Element(Space + "title")!.Value)];
}
