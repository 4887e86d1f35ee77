using System.Xml.Linq;
using Sluice.Decoding;
using Sluice.Interop;
using Sluice.Loading;
using Sluice.Tests.Host;

namespace Sluice.Perf.Cpu;

/// <summary>Ours beside other engines: what they print is read, medians are medians, and what goes wrong is told and stops nothing. Times are looked at nowhere.</summary>
public class CpuTests
{
    private static readonly XNamespace Space = "http://www.w3.org/2000/svg";

    private static readonly CpuCell Prefill = new(CpuKind.Prefill, "qwen2.5-0.5b", "q4_0", 512, 0), Decode = new(CpuKind.Decode, "qwen2.5-0.5b", "q4_0", 0, 64);
    private static readonly CpuCell Long = new(CpuKind.Context, "qwen2.5-0.5b", "q4_0", 2_048, 64), Batch = new(CpuKind.Batch, "qwen2.5-0.5b", "q4_0", 512, 32, 8);
    private static readonly CpuCell Own = new(CpuKind.Shared, "qwen2.5-0.5b", "q4_0", 1_024, 32, 16), One = Own with { OnePrompt = true };

    [Fact]
    public void Both_forms_of_json_are_read_by_their_samples()
    {
        // A depth of its own, or a prompt that the test counts and does not time.
        const string Depth = """[ { "build_commit": "0a1b2c3d", "build_number": 77, "n_prompt": 0, "n_gen": 64, "n_depth": 2048, "avg_ts": 1.0, "samples_ns": [ 4000000000, 1000000000, 2000000000 ] } ]""";
        const string Behind = """
            some words before [
              { "build_commit": "unknown", "build_number": 0, "n_prompt": 2048, "n_gen": 64, "avg_ts": 9999.0, "test": "tg64@pp2048", "samples_ns": [ 500000000 ] }
            ]
            """;
        Assert.Equal(new PeerResult(32, "build 77 (0a1b2c3d)"), Peer.ReadBench(Depth, Long));
        Assert.Equal(new PeerResult(128, ""), Peer.ReadBench(Behind, Long));
        Assert.Equal(new PeerResult(256, "0a1b2c3d"), Peer.ReadBench("""[{"build_commit":"0a1b2c3d","n_prompt":512,"n_gen":0,"samples_ns":[2000000000]}]""", Prefill));
        // Another test, none, two, half of one, and no number.
        Assert.Null(Peer.ReadBench(Depth, Decode));
        Assert.Null(Peer.ReadBench("[]", Prefill));
        Assert.Null(Peer.ReadBench("""[{"n_prompt":512,"n_gen":0,"samples_ns":[1]},{"n_prompt":512,"n_gen":0,"samples_ns":[1]}]""", Prefill));
        Assert.Null(Peer.ReadBench("""[{"n_prompt":512,"n_gen":0,"samples_ns":[]}]""", Prefill));
        Assert.Null(Peer.ReadBench("""[{"n_prompt":512,"n_gen":0}]""", Prefill));
        Assert.Null(Peer.ReadBench("[1]", Prefill));
        Assert.Null(Peer.ReadBench(Depth[..60], Long));
        Assert.Null(Peer.ReadBench("] error: no such model [", Prefill));
    }

    [Fact]
    public void A_batch_is_found_among_the_lines_of_its_table()
    {
        const string Output = """
            main: n_kv_max = 4608, n_batch = 2048

            |    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |
            |-------|--------|------|--------|----------|----------|----------|----------|----------|----------|
            |   512 |     32 |    4 |   2176 |    2.000 |  1024.00 |    1.000 |   128.00 |    3.000 |   725.33 |
            |   512 |     32 |    8 |   4352 |    4.000 |  1024.00 |    1.600 |   160.50 |    5.600 |   777.14 |
            """;
        Assert.Equal(160.5, Peer.ReadBatch(Output, Batch)!.Value.TokensPerSecond);
        Assert.Equal(128, Peer.ReadBatch(Output, Batch with { Sequences = 4 })!.Value.TokensPerSecond);
        Assert.Null(Peer.ReadBatch(Output, Batch with { Sequences = 16 }));
        Assert.Null(Peer.ReadBatch(Output.Replace("160.50", "nan", StringComparison.Ordinal), Batch));
        Assert.Null(Peer.ReadBatch("error: failed to create context", Batch));
    }

    [Fact]
    public void Medians_ratios_and_shares_are_of_rounds()
    {
        Assert.Equal(2, CpuTable.Median([9, 1, 2]));
        Assert.Equal(3, CpuTable.Median([4, 1, 2, 9]));
        Assert.Throws<ArgumentException>(() => CpuTable.Median([]));
        CpuTable table = Table();
        Assert.Equal([CpuRow.Ours, "a", "b"], table.Engines);
        Assert.Equal(30, table.Rate(CpuRow.Ours, Decode));
        // 2 GB a token: 20 of 80, 60 of 100 and 70 of 100 GB/s.
        Assert.Equal(0.6, table.ReadShare(Decode)!.Value, 1e-12);
        Assert.Equal(100, table.ReadGigabytes(Decode));
        Assert.Equal(30.0 / 25, table.Ratio(Decode)!.Value, 1e-12);
        Assert.Null(table.Ratio(Own));
        Assert.Null(table.Rate("a", Own));
        string[] lines = table.Markdown().Split('\n');
        Assert.Contains("| qwen2.5-0.5b | q4_0 | 900.0 | 300.0 | 450.0 | 2.00 | 30.0 | 20.0 | 25.0 | 1.20 | 100.0 | 60 |", lines.Select(l => l.TrimEnd()));
        Assert.Contains("| qwen2.5-0.5b | q4_0 | tg64 after 2,048 | 15.0 | 5.0 |  | 3.00 | 0.50 | 0.25 |  |", lines.Select(l => l.TrimEnd()));
        Assert.Contains("| qwen2.5-0.5b | q4_0 | tg32 of 16 on one 1,024 | 80.0 |  |  |  | 2.00 |  |  |", lines.Select(l => l.TrimEnd()));
        Assert.Contains("Box, 2 threads, 2026-01-02; sluice 12345678; a build 7 (beef); b.", lines.Select(l => l.TrimEnd()));
    }

    [Fact]
    public void Every_median_is_a_bar_within_the_frame()
    {
        CpuTable table = Table();
        foreach ((CpuKind[] kinds, int bars) in new[] { (new[] { CpuKind.Prefill }, 3), ([CpuKind.Decode, CpuKind.Context], 5), ([CpuKind.Batch, CpuKind.Shared], 2) })
        {
            XElement svg = XElement.Parse(CpuPlots.Bars(table, "A & B", kinds)!);
            XElement[] drawn = [.. svg.Elements(Space + "rect").Where(e => (string?)e.Attribute("class") == "cell")];
            Assert.Equal(bars, drawn.Length);
            Assert.All(drawn, e => Assert.InRange((double)e.Attribute("y")!, 92, 391));
            Assert.All(drawn, e => Assert.True((double)e.Attribute("x")! + (double)e.Attribute("width")! < (double)svg.Attribute("width")!));
            Assert.All(drawn, e => Assert.Equal(392, (double)e.Attribute("y")! + (double)e.Attribute("height")!, 0.02));
        }

        Assert.Null(CpuPlots.Bars(table, "", CpuKind.Batch));
    }

    [Fact]
    public void Rows_survive_the_file_and_halves_of_lines_do_not()
    {
        CpuRow row = new(3, "a \"b\"", "build 7", Decode.Name, 12.5, 40.25, 1_000_000_007, "Box", 2, "2026-01-02"), other = row with { ReadGigabytes = 0, BytesPerToken = 0 };
        Assert.Equal([row, other], CpuRow.Read([row.ToJson(), row.ToJson()[..30], "", "[]", "{}", other.ToJson()]));
    }

    [Fact]
    public void Options_are_read_and_wrong_ones_named()
    {
        CpuOptions options = CpuOptions.Parse(["--llama-bench", "x -rtr 1", "--llama-bench", "y", "--rounds", "2", "--types", "F16,q4_0", "--only", "decode,shared", "--models", "llama-3.2-1b"])!;
        Assert.Equal(["x -rtr 1", "y"], options.Peers);
        Assert.Equal(2, options.Rounds);
        // Types in the table's order, and the cells of one type alone.
        Assert.Equal(["tg64", "tg32 of 16 on own 1,024", "tg32 of 16 on one 1,024", "tg64"], CpuCell.All(options.Models, options.Types, options.Kinds).Select(c => c.What));
        CpuCell[] all = [.. CpuCell.All(CpuCell.Models, CpuCell.Types, Enum.GetValues<CpuKind>())];
        Assert.Equal(2 * ((5 * 2) + 9), all.Select(c => c.Name).Distinct().Count());
        Assert.Null(CpuOptions.Parse(["--help"]));
        foreach (string[] wrong in new string[][] { ["--rounds", "0"], ["--rounds"], ["--types", "q4_0,q3"], ["--only", "all"], ["--frobnicate", "1"], ["cpu"] })
        {
            Assert.Contains(wrong[0], Assert.Throws<CpuOptionException>(() => CpuOptions.Parse(wrong)).Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_peer_that_fails_says_what_was_run_and_what_came()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "the stand-in for a peer is a shell script");
        using TempFolder folder = new();
        string bench = Script("llama-bench", """
            case "$*" in
              *--help*) echo "-p, --n-prompt <n>  -d, --n-depth <n>"; exit 0 ;;
              *"-p 512 -n 0"*) echo '[{"n_prompt":512,"n_gen":0,"build_commit":"beef","samples_ns":[1000000000]}]' ;;
              *"-n 64 -d 2048"*) echo "what a day" ;;
              *) echo "no memory for $*" >&2; exit 3 ;;
            esac
            """);
        Peer peer = new($"mine=\"{bench}\" -x 1");
        Assert.Equal(("mine", false), (peer.Name, peer.Has(Batch)));
        Assert.Equal(new PeerResult(512, "beef"), peer.Measure(Prefill, "f.gguf", 2, TestContext.Current.CancellationToken));
        string nonsense = Assert.Throws<PeerException>(() => peer.Measure(Long, "f.gguf", 2, TestContext.Current.CancellationToken)).Message;
        Assert.Contains("what a day", nonsense, StringComparison.Ordinal);
        Assert.Contains($"{bench} -m {Path.GetFullPath("f.gguf")} -t 2 -p 0 -n 64 -d 2048 -r 1 -o json -x 1", nonsense, StringComparison.Ordinal);
        string failure = Assert.Throws<PeerException>(() => peer.Measure(Decode, "f.gguf", 2, TestContext.Current.CancellationToken)).Message;
        Assert.Contains("code 3", failure, StringComparison.Ordinal);
        Assert.Contains("no memory for", failure, StringComparison.Ordinal);
        Assert.Throws<PeerException>(() => new Peer(folder["no-such-program"]));
        Assert.Contains("what else", Assert.Throws<PeerException>(() => new Peer(Script("other", "echo what else"))).Message, StringComparison.Ordinal);

        // The fork: no depth, weights repacked at load, and a batched bench beside it whose flags differ; that one prints its table where the other prints errors.
        string fork = Script("fork/llama-bench", "echo '-p, --n-prompt <n> -gp <pp,tg> -rtr, --run-time-repack'");
        Script("fork/llama-batched-bench", """echo "$*" >&2; echo "| 1024 | 32 | 16 | 1536 | 1.0 | 2.0 | 3.0 | 77.5 | 5.0 | 6.0 |" >&2""");
        Peer other = new($"{fork} -rtr 1 -- -rtr");
        Assert.Equal("ik_llama.cpp", other.Name);
        Assert.Equal((true, false), (other.Has(One), other.Has(Own)));
        Assert.Equal(["-m", "f", "-t", "2", "-p", "0", "-n", "0", "-gp", "2048,64", "-r", "1", "-o", "json", "-rtr", "1"], other.Arguments(Long, "f", 2));
        Assert.Equal(["-m", "f", "-t", "2", "-c", "20480", "-npp", "1024", "-ntg", "32", "-npl", "16", "-pps", "-rtr"], other.Arguments(One, "f", 2));
        Assert.Equal(77.5, other.Measure(One, "f", 2, TestContext.Current.CancellationToken).TokensPerSecond);

        string Script(string name, string text)
        {
            string path = folder[name];
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            File.WriteAllText(path, $"#!/bin/sh\n{text}\n");
            if (!OperatingSystem.IsWindows())
            {
                File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            }

            return path;
        }
    }

    [Fact]
    public async Task A_shared_prompt_is_computed_once_and_its_keys_are_read_once()
    {
        using TempFolder folder = new();
        RandomModel.Write(folder["tiny.gguf"], RandomModelShape.Find("tiny")!, TensorType.Q4_0);
        using OurEngine ours = await OurEngine.LoadAsync(folder["tiny.gguf"], 2, TestContext.Current.CancellationToken);
        (double rate, double read) = ours.Measure(new CpuCell(CpuKind.Shared, "tiny", "q4_0", 256, 2, 3, OnePrompt: true), 1, TestContext.Current.CancellationToken);
        Assert.True(rate > 0);
        Assert.Equal(0, read);
        Assert.True(ours.Measure(new CpuCell(CpuKind.Prefill, "tiny", "q4_0", 20, 0), 1, TestContext.Current.CancellationToken).TokensPerSecond > 0);
        Assert.True(ours.BytesPerToken > 0);

        using Model model = await Model.LoadAsync(folder["tiny.gguf"], new ModelOptions { Device = Backend.Cpu, Threads = 2 }, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Contains("256", Assert.Throws<ArgumentException>(() => new ModelBenchmark(model, 300, 2, 3, sharesPrompt: true)).Message, StringComparison.Ordinal);
        using ModelBenchmark shared = new(model, 256, 2, 3, sharesPrompt: true);
        shared.WarmUp(TestContext.Current.CancellationToken);
        Assert.Throws<InvalidOperationException>(() => shared.Profile(TestContext.Current.CancellationToken));
        shared.Run(1, TestContext.Current.CancellationToken);
        Assert.Contains("cascade_attention", shared.Profile(TestContext.Current.CancellationToken).Kinds.Select(k => k.Kind));
    }

    private static CpuTable Table()
    {
        CpuRow Row(int round, string engine, CpuCell cell, double rate, double read = 0) =>
            new(round, engine, engine switch { CpuRow.Ours => "12345678", "a" => "build 7 (beef)", _ => "" }, cell.Name, rate, read, read > 0 ? 2_000_000_000 : 0, "Box", 2, "2026-01-02");
        return new CpuTable(
            [Prefill, Decode, Batch, Long, Own, One],
            [
                Row(1, CpuRow.Ours, Decode, 10, 80), Row(2, CpuRow.Ours, Decode, 30, 100), Row(3, CpuRow.Ours, Decode, 35, 100), Row(1, "a", Decode, 20), Row(1, "b", Decode, 20), Row(2, "b", Decode, 30),
                Row(1, CpuRow.Ours, Prefill, 900), Row(1, "a", Prefill, 300), Row(1, "b", Prefill, 450), Row(1, CpuRow.Ours, Long, 15), Row(1, "a", Long, 5),
                Row(1, CpuRow.Ours, Own, 40), Row(1, CpuRow.Ours, One, 80),
            ],
            ["a", "b", "never measured"]);
    }
}
