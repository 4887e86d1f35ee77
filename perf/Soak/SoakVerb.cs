using System.Diagnostics;
using System.Globalization;
using Sluice.Interop;

namespace Sluice.Perf.Soak;

/// <summary>Engines under a random load until the time is over: <c>perf soak</c>. The table goes to standard output, all else to standard error; 1 where something leaked or differed.</summary>
internal static class SoakVerb
{
    private const int Lifetimes = 16, WarmUp = 3; // the first ones fill pools, caches and heaps
    private const double Mega = 1 << 20;

    public static async Task<int> RunAsync(string[] arguments)
    {
        try
        {
            SoakOptions? options = SoakOptions.Parse(arguments);
            if (options is null)
            {
                Console.Out.WriteLine(SoakOptions.Usage);
                return 0;
            }

            return await RunAsync(options);
        }
        catch (SoakOptionException e)
        {
            Console.Error.WriteLine($"perf soak: {e.Message}\n{SoakOptions.Usage}");
            return 2;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or SluiceException or SluiceModelException)
        {
            Console.Error.WriteLine($"perf soak: {e.Message}");
            return 1;
        }
    }

    private static async Task<int> RunAsync(SoakOptions options)
    {
        using Model model = await Model.LoadAsync(options.Model, new ModelOptions { Device = Backend.Cpu });
        Say($"{options.Model} on {model.DeviceInfo.Name}, {model.DeviceInfo.Threads} threads; {options.Seconds:N0} s, seed {options.Seed}");
        SoakReport report = new();
        List<(TimeSpan At, SoakMemory Memory)> looks = [];
        List<long> samples = [];
        long start = Stopwatch.GetTimestamp(), requests = 0;
        TimeSpan whole = TimeSpan.FromSeconds(options.Seconds), each = whole / Lifetimes;
        using CancellationTokenSource over = new();
        Task sampling = SampleAsync(samples, over.Token);
        bool hangs = false;
        for (int i = 0; !hangs && report.Failures.Count == 0 && (i <= WarmUp || Stopwatch.GetElapsedTime(start) < whole); i++)
        {
            SoakLifetime lifetime = new(model, report, unchecked(options.Seed + (i * 7_919)) & int.MaxValue);
            hangs = !await lifetime.RunAsync(each, (SoakEnd)(i % 3));
            if (hangs)
            {
                break;
            }

            SoakMemory memory = await LookAsync(lifetime);
            looks.Add((Stopwatch.GetElapsedTime(start), memory));
            foreach (IGrouping<Type, object> kind in lifetime.Alive.GroupBy(o => o.GetType()))
            {
                report.Fail($"{kind.Count():N0} of {kind.Key.Name} are held by something, though their engine has ended; {lifetime}");
            }

            Say(string.Create(CultureInfo.InvariantCulture,
                $"{looks[^1].At.TotalSeconds,6:0} s: {report.Requests - requests,6:N0} requests, ended {(SoakEnd)(i % 3)}; {memory.Managed / Mega:0.00} MB managed, {memory.Resident / Mega:0} MB resident, {memory.Handles} handles, {memory.Threads} threads"));
            requests = report.Requests;
        }

        await over.CancelAsync();
        await sampling;
        SoakMemory[] kept = [.. looks.Skip(WarmUp - 1).Select(l => l.Memory)];
        if (kept.Length > 1)
        {
            foreach (string leak in kept[^1].LeaksSince(kept[0]))
            {
                report.Fail(leak);
            }
        }

        Print(report, looks, kept, samples);
        foreach (string failure in report.Failures)
        {
            Console.Error.WriteLine($"perf soak: {failure}");
        }

        if (hangs)
        {
            Environment.Exit(1); // the model must not go while somebody computes with it
        }

        return report.Failures.Count == 0 ? 0 : 1;
    }

    // Its engine's thread may be on its last steps, and the stack that this runs on may be that of what has just ended.
    private static async Task<SoakMemory> LookAsync(SoakLifetime lifetime)
    {
        for (int i = 0; ; i++)
        {
            await Task.Delay(20);
            SoakMemory memory = SoakMemory.Read();
            if (i == 20 || !lifetime.Alive.Any())
            {
                return memory;
            }
        }
    }

    // What the managed heap holds while it runs, garbage and all.
    private static async Task SampleAsync(List<long> samples, CancellationToken over)
    {
        while (!over.IsCancellationRequested)
        {
            samples.Add(GC.GetTotalMemory(forceFullCollection: false));
            await Task.Delay(250, over).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private static void Print(SoakReport r, List<(TimeSpan At, SoakMemory Memory)> looks, SoakMemory[] kept, List<long> samples)
    {
        samples.Sort();
        Row("requests", $"{r.Requests:N0}");
        Row("ended by themselves", $"{r.Finished:N0}");
        Row("cancelled", $"{r.Cancelled:N0}");
        Row("compared with what they get alone", $"{r.Compared:N0}");
        Row("engines", $"{looks.Count:N0}");
        Row("steps", $"{r.Steps:N0}");
        Row("tokens chosen, read", $"{r.GeneratedTokens:N0}, {r.Tokens:N0}");
        Row("prompt tokens from the cache", $"{r.CachedPromptTokens:N0}");
        Row("preemptions", $"{r.Preemptions:N0}");
        Row("managed heap while it ran, MB: median, most", $"{samples[samples.Count / 2] / Mega:0.0}, {samples[^1] / Mega:0.0}");
        if (kept.Length == 0)
        {
            return;
        }

        SoakMemory middle = kept[kept.Length / 2];
        Console.Out.WriteLine();
        Row("", $"after the warm-up", $"in the middle", $"at the end");
        Row("managed after a full collection, MB", $"{kept[0].Managed / Mega:0.00}", $"{middle.Managed / Mega:0.00}", $"{kept[^1].Managed / Mega:0.00}");
        Row("resident, MB", $"{kept[0].Resident / Mega:0.0}", $"{middle.Resident / Mega:0.0}", $"{kept[^1].Resident / Mega:0.0}");
        Row("handles", $"{kept[0].Handles}", $"{middle.Handles}", $"{kept[^1].Handles}");
        Row("threads outside of the pool", $"{kept[0].Threads}", $"{middle.Threads}", $"{kept[^1].Threads}");
    }

    private static void Row(string name, params FormattableString[] values) =>
        Console.Out.WriteLine($"{name,-46}{string.Concat(values.Select(v => v.ToString(CultureInfo.InvariantCulture).PadLeft(20)))}");

    private static void Say(string what) => Console.Error.WriteLine(what);
}
