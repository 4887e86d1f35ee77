using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace Sluice.Perf.Cpu;

/// <summary>A peer did not run, or printed what no rate can be read from. The text has the command and what was printed.</summary>
internal sealed class PeerException(string message, Exception? inner = null) : Exception(message, inner);

/// <summary>What a peer measured: tokens a second, and its build as it calls it (empty where it does not say).</summary>
internal readonly record struct PeerResult(double TokensPerSecond, string Build);

/// <summary>
/// An engine that was built elsewhere and measures itself: llama.cpp's llama-bench, or that of its fork, with a llama-batched-bench beside it for batches. Each
/// cell is a process of its own, which loads the file, warms up and measures once.
/// </summary>
internal sealed partial class Peer
{
    private const int ContextUnit = 256; // a cache's rows of a sequence are rounded up to it

    private readonly string _bench;
    private readonly string? _batched;
    private readonly string[] _flags, _batchedFlags;
    private readonly bool _hasDepth;

    /// <summary>Looks at what a program can do; runs it with --help.</summary>
    /// <param name="specification">[NAME=]PATH [FLAGS] [-- FLAGS OF LLAMA-BATCHED-BENCH]; what has spaces in it stands in double quotes. The batched bench gets the same flags where it has none of its own.</param>
    /// <exception cref="PeerException">There is no such program, or it is another.</exception>
    public Peer(string specification)
    {
        string[] words = [.. Words().Matches(specification).Select(m => m.Value.Replace("\"", "", StringComparison.Ordinal))];
        string path = words is [var first, ..] ? first : throw new PeerException("--llama-bench wants the path of a llama-bench, and flags of it where it has some");
        int equals = path.IndexOf('=', StringComparison.Ordinal);
        string name = equals > 0 && path.AsSpan(0, equals).IndexOfAny('/', '\\') < 0 ? path[..equals] : "";
        _bench = Path.GetFullPath(name.Length > 0 ? path[(equals + 1)..] : path);
        int dashes = Array.IndexOf(words, "--");
        _flags = words[1..(dashes < 0 ? words.Length : dashes)];
        _batchedFlags = dashes < 0 ? _flags : words[(dashes + 1)..];
        string batched = Path.Combine(Path.GetDirectoryName(_bench)!, "llama-batched-bench" + Path.GetExtension(_bench));
        _batched = File.Exists(batched) ? batched : null;

        string help = Execute(_bench, ["--help"], accept: _ => true, CancellationToken.None);
        bool repacks = help.Contains("--run-time-repack", StringComparison.Ordinal);
        _hasDepth = help.Contains("--n-depth", StringComparison.Ordinal);
        if (!help.Contains("--n-prompt", StringComparison.Ordinal) || (!_hasDepth && !help.Contains("-gp <", StringComparison.Ordinal)))
        {
            throw new PeerException($"{_bench} is no llama-bench that is known here: its --help has no --n-prompt, or neither --n-depth nor -gp; it printed: {Shortened(help)}");
        }

        Name = name.Length > 0 ? name : repacks ? "ik_llama.cpp" : "llama.cpp";
    }

    public string Name { get; internal set; }

    /// <summary>Whether it is to measure a cell: batches want a llama-batched-bench, and as many long prompts as our shared one is set against would take minutes of prefill.</summary>
    public bool Has(CpuCell cell) => cell.Sequences == 1 || (_batched is not null && cell is not { Kind: CpuKind.Shared or CpuKind.Requests, OnePrompt: false });

    /// <summary>Measures a cell once.</summary>
    /// <exception cref="PeerException">It failed.</exception>
    /// <exception cref="OperationCanceledException">It was stopped.</exception>
    public PeerResult Measure(CpuCell cell, string file, int threads, CancellationToken cancellation)
    {
        bool batch = cell.Sequences > 1;
        string program = batch ? _batched! : _bench;
        string[] arguments = Arguments(cell, Path.GetFullPath(file), threads);
        string output = Execute(program, arguments, accept: code => code == 0, cancellation);
        PeerResult? result = batch ? ReadBatch(output, cell) : ReadBench(output, cell);
        return result ?? throw new PeerException($"{Command(program, arguments)}: printed no rate of {cell.What}: {Shortened(output)}");
    }

    /// <summary>The command line of a cell, without the program.</summary>
    internal string[] Arguments(CpuCell cell, string file, int threads)
    {
        string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
        if (cell.Sequences > 1)
        {
            int each = (cell.Prompt + cell.Generated + ContextUnit - 1) / ContextUnit * ContextUnit;
            return
            [
                "-m", file, "-t", Text(threads), "-c", Text(each * cell.Sequences), "-npp", Text(cell.Prompt), "-ntg", Text(cell.Generated), "-npl", Text(cell.Sequences),
                .. cell.OnePrompt ? ["-pps"] : Array.Empty<string>(), .. _batchedFlags,
            ];
        }

        string[] tokens = (cell.Prompt > 0 && cell.Generated > 0, _hasDepth) switch
        {
            (false, _) => ["-p", Text(cell.Prompt), "-n", Text(cell.Generated)],
            (true, true) => ["-p", "0", "-n", Text(cell.Generated), "-d", Text(cell.Prompt)],
            _ => ["-p", "0", "-n", "0", "-gp", $"{Text(cell.Prompt)},{Text(cell.Generated)}"],
        };
        return ["-m", file, "-t", Text(threads), .. tokens, "-r", "1", "-o", "json", .. _flags];
    }

    /// <summary>The rate of the only test in llama-bench's JSON, from its samples: engines count a test's tokens in their own ways. Null: it is not there.</summary>
    internal static PeerResult? ReadBench(string output, CpuCell cell)
    {
        int begin = output.IndexOf('[', StringComparison.Ordinal), end = output.LastIndexOf(']');
        try
        {
            using JsonDocument document = JsonDocument.Parse(begin < 0 || end < begin ? "" : output[begin..(end + 1)]);
            if (document.RootElement.EnumerateArray().ToArray() is not [var test] || Number("n_gen") != cell.Generated || Number("n_prompt") + Number("n_depth") != cell.Prompt)
            {
                return null;
            }

            double[] seconds = [.. test.GetProperty("samples_ns").EnumerateArray().Select(s => s.GetDouble() / 1e9)];
            string build = Number("build_number") > 0 ? $"build {Number("build_number"):0} ({Commit()})" : Commit() == "unknown" ? "" : Commit();
            return seconds.Length > 0 && seconds.All(s => s > 0) ? new PeerResult((cell.Generated > 0 ? cell.Generated : cell.Prompt) / CpuTable.Median(seconds), build) : null;

            double Number(string name) => test.TryGetProperty(name, out JsonElement e) && e.ValueKind == JsonValueKind.Number ? e.GetDouble() : 0;

            string Commit() => test.TryGetProperty("build_commit", out JsonElement e) && e.ValueKind == JsonValueKind.String ? e.GetString()! : "";
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or KeyNotFoundException)
        {
            return null;
        }
    }

    /// <summary>Decode's rate in llama-batched-bench's table: PP, TG, B, N_KV, T_PP, S_PP, T_TG, S_TG, T, S; of whole requests, generated tokens by the time of all. Null: the cell's line is not there.</summary>
    internal static PeerResult? ReadBatch(string output, CpuCell cell)
    {
        foreach (string line in output.Split('\n'))
        {
            string[] fields = line.Split('|', StringSplitOptions.TrimEntries);
            double[] numbers = [.. fields.Skip(1).SkipLast(1).Select(f => double.TryParse(f, NumberStyles.Float, CultureInfo.InvariantCulture, out double n) ? n : double.NaN)];
            if (numbers.Length == 10 && numbers[0] == cell.Prompt && numbers[1] == cell.Generated && numbers[2] == cell.Sequences && double.IsFinite(numbers[7]) && numbers[7] > 0 && numbers[8] > 0)
            {
                return new PeerResult(cell.Kind == CpuKind.Requests ? cell.Generated * cell.Sequences / numbers[8] : numbers[7], "");
            }
        }

        return null;
    }

    // In a folder of its own: some builds leave logs where they run. Standard error is kept for messages; the batched bench of some prints its table there.
    private static string Execute(string program, string[] arguments, Func<int, bool> accept, CancellationToken cancellation)
    {
        DirectoryInfo folder = Directory.CreateTempSubdirectory("sluice-peer-");
        try
        {
            using Process process = new() { StartInfo = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true, WorkingDirectory = folder.FullName } };
            process.Start();
            process.StandardInput.Close();
            using CancellationTokenRegistration stop = cancellation.Register(() => Kill(process));
            Task<string> error = process.StandardError.ReadToEndAsync(CancellationToken.None);
            string output = process.StandardOutput.ReadToEnd(), errors = error.GetAwaiter().GetResult();
            process.WaitForExit();
            cancellation.ThrowIfCancellationRequested();
            return accept(process.ExitCode) ? $"{output}\n{errors}" : throw new PeerException($"{Command(program, arguments)}: ended with code {process.ExitCode}: {Shortened($"{output}\n{errors}")}");
        }
        catch (Win32Exception e)
        {
            throw new PeerException($"{program} does not run: {e.Message}", e);
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    private static void Kill(Process process)
    {
        try
        {
            process.Kill(entireProcessTree: true);
        }
        catch (InvalidOperationException)
        {
            // It has ended.
        }
    }

    private static string Command(string program, string[] arguments) => string.Join(' ', [program, .. arguments]);

    // What went wrong stands last.
    private static string Shortened(string text) => text.Trim() is { Length: > 600 } whole ? $"... {whole[^600..]}" : text.Trim() is { Length: > 0 } some ? some : "nothing";

    [GeneratedRegex("""(?:[^\s"]|"[^"]*")+""")]
    private static partial Regex Words();
}
