using System.Globalization;
using System.Reflection;
using System.Runtime.InteropServices;
using Sluice.Interop;
using Sluice.Loading;

namespace Sluice.Perf.Cpu;

/// <summary>Ours on a CPU beside llama.cpp's kin, on the same files, cell after cell: <c>perf cpu</c>. The table goes to standard output, all else to standard error.</summary>
internal static class CpuVerb
{
    private static string Commit { get; } =
        typeof(CpuVerb).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion.Split('+') is [_, { Length: >= 8 } revision] ? revision[..8] : "unknown";

    public static async Task<int> RunAsync(string[] arguments)
    {
        using CancellationTokenSource stop = new();

        // The first signal stops the run, which then prints what it has; a second one is the system's.
        void Stop(PosixSignalContext signal)
        {
            signal.Cancel = !stop.IsCancellationRequested;
            stop.Cancel();
        }

        using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop), terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
        try
        {
            CpuOptions? options = CpuOptions.Parse(arguments);
            if (options is null)
            {
                Console.Out.WriteLine(CpuOptions.Usage);
                return 0;
            }

            return await RunAsync(options, stop.Token);
        }
        catch (CpuOptionException e)
        {
            Console.Error.WriteLine($"perf cpu: {e.Message}\n{CpuOptions.Usage}");
            return 2;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or PeerException or SluiceException or SluiceModelException)
        {
            Console.Error.WriteLine($"perf cpu: {e.Message}");
            return 1;
        }
    }

    private static async Task<int> RunAsync(CpuOptions options, CancellationToken cancellation)
    {
        List<Peer> peers = [];
        foreach (string specification in options.Peers)
        {
            Peer peer = new(specification);
            for (int number = 2; peers.Any(p => p.Name == peer.Name) || peer.Name == CpuRow.Ours; number++)
            {
                peer.Name = $"{peer.Name.Split(" #")[0]} #{number}";
            }

            peers.Add(peer);
        }

        DeviceInfo device;
        using (Device opened = Device.Open(new DeviceOptions(Backend.Cpu) { Threads = options.Threads }))
        {
            device = opened.Info;
        }

        List<CpuRow> rows = options.Json is { } kept && File.Exists(kept) ? CpuRow.Read(File.ReadLines(kept)) : [];
        foreach (CpuRow row in rows.Where(r => r.Device != device.Name || r.Threads != device.Threads || (r.Engine == CpuRow.Ours && r.Build != Commit)))
        {
            throw new CpuOptionException($"{options.Json} has rows of {row.Engine} {row.Build} on {row.Device} with {row.Threads} threads, and this is {Commit} on {device.Name} with {device.Threads}: name another file");
        }

        List<CpuCell> cells = CpuCell.All(options.Models, options.Types, options.Kinds);
        string[] names = [.. peers.Select(p => p.Name)];
        Console.Error.WriteLine($"{device.Name}, {device.Threads} threads, commit {Commit}; {string.Join(", ", [CpuRow.Ours, .. names])}; {cells.Count} cells, {options.Rounds} rounds{(rows.Count > 0 ? $", {rows.Count} rows are there" : "")}");
        using StreamWriter? raw = options.Json is null ? null : new(options.Json, append: true) { AutoFlush = true };
        if (rows.Count > 0)
        {
            raw?.WriteLine(); // the last line may be half a line
        }

        bool whole = true;
        try
        {
            foreach ((string model, string type) in cells.Select(c => (c.Model, c.Type)).Distinct())
            {
                Make(options, model, type, cancellation);
            }

            HashSet<(int, string, string)> done = [.. rows.Select(r => (r.Round, r.Engine, r.Cell))];
            for (int round = 1; round <= options.Rounds; round++)
            {
                foreach (IGrouping<string, CpuCell> file in cells.GroupBy(c => PathOf(options, c.Model, c.Type)))
                {
                    using OurEngine? ours = file.All(c => done.Contains((round, CpuRow.Ours, c.Name))) ? null : await OurEngine.LoadAsync(file.Key, device.Threads, cancellation);
                    foreach (CpuCell cell in file)
                    {
                        List<string> told = [];
                        if (!done.Contains((round, CpuRow.Ours, cell.Name)))
                        {
                            (double rate, double read) = ours!.Measure(cell, round, cancellation);
                            Keep(CpuRow.Ours, Commit, rate, read, ours.BytesPerToken);
                        }

                        foreach (Peer peer in peers.Where(p => p.Has(cell) && !done.Contains((round, p.Name, cell.Name))))
                        {
                            try
                            {
                                PeerResult result = peer.Measure(cell, file.Key, device.Threads, cancellation);
                                Keep(peer.Name, result.Build, result.TokensPerSecond, 0, 0);
                            }
                            catch (PeerException e)
                            {
                                whole = false;
                                Console.Error.WriteLine($"perf cpu: {peer.Name}: {e.Message}");
                            }
                        }

                        if (told.Count > 0)
                        {
                            Console.Error.WriteLine($"round {round}/{options.Rounds} {cell.Name}: {string.Join(", ", told)}");
                        }

                        void Keep(string engine, string build, double rate, double read, long bytes)
                        {
                            CpuRow row = new(round, engine, build, cell.Name, rate, read, bytes, device.Name, device.Threads, DateTime.UtcNow.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture));
                            rows.Add(row);
                            raw?.WriteLine(row.ToJson());
                            told.Add(string.Create(CultureInfo.InvariantCulture, $"{engine} {rate:0.0}{(read > 0 ? $" ({read:0.0} GB/s)" : "")}"));
                        }
                    }
                }
            }
        }
        catch (OperationCanceledException)
        {
            whole = false;
            Console.Error.WriteLine($"perf cpu: stopped; what was measured follows{(options.Json is null ? "" : $", and the same command goes on from {options.Json}")}");
        }

        CpuTable table = new(cells, rows, names);
        Console.Out.Write(table.Markdown());
        if (options.Out is { } folder && rows.Count > 0)
        {
            Directory.CreateDirectory(folder);
            File.WriteAllText(Path.Combine(folder, "cpu.md"), table.Markdown());
            Picture(folder, "cpu-prefill.svg", CpuPlots.Bars(table, "Prefill of 512 tokens", CpuKind.Prefill));
            Picture(folder, "cpu-decode.svg", CpuPlots.Bars(table, "Decode of one sequence", CpuKind.Decode, CpuKind.Context));
            Picture(folder, "cpu-batch.svg", CpuPlots.Bars(table, "Decode of many sequences", CpuKind.Batch, CpuKind.Shared, CpuKind.Engine));
            Picture(folder, "cpu-requests.svg", CpuPlots.Bars(table, "Sixteen requests at once, prompts included: generated", CpuKind.Requests));
        }

        return whole ? 0 : 1;
    }

    private static void Picture(string folder, string name, string? svg)
    {
        if (svg is not null)
        {
            File.WriteAllText(Path.Combine(folder, name), svg);
        }
    }

    private static string PathOf(CpuOptions options, string model, string type) => Path.Combine(options.Folder, $"{model}-{type}.gguf");

    private static void Make(CpuOptions options, string model, string type, CancellationToken cancellation)
    {
        string path = PathOf(options, model, type);
        if (File.Exists(path))
        {
            return;
        }

        Console.Error.WriteLine($"making {path}");
        Directory.CreateDirectory(options.Folder);
        (TensorType stored, bool mixture) = type switch
        {
            "q4_0" => (TensorType.Q4_0, false),
            "q4_k_m" => (TensorType.Q4_K, true),
            "q8_0" => (TensorType.Q8_0, false),
            "bf16" => (TensorType.BF16, false),
            _ => (TensorType.F16, false),
        };
        RandomModel.Write(path, RandomModelShape.Find(model)!, stored, mixture: mixture, cancellation: cancellation);
    }
}
