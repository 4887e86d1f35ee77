using System.Diagnostics;
using Sluice.Interop;

namespace Sluice.Decoding;

/// <summary>Times work from a flushed L2 by device events, each run alone: the median of at least 100 ms of runs after 25 ms that warm up.</summary>
internal static class FlushedTimer
{
    private const double WarmMilliseconds = 25, CountedMilliseconds = 100;
    private const int MostRuns = 400;
    private const long MostMilliseconds = 2_000;

    /// <summary>Milliseconds of one run. Each finds an L2 (50 MB on an H100) that other bytes went through, and the device busy, so that no launch is waited for.</summary>
    /// <param name="stream">Where the work is put.</param>
    /// <param name="run">Puts it there once.</param>
    /// <param name="atLeast">Runs that are counted however long they take.</param>
    /// <exception cref="SluiceException">The device failed, or has no memory for what flushes it: 256 MB on cuda, 1 MB elsewhere.</exception>
    public static double Median(ComputeStream stream, Action run, int atLeast = 1)
    {
        using DeviceBuffer other = stream.CreateBuffer(FlushedBytes(stream));
        List<double> all = [];
        Stopwatch watch = Stopwatch.StartNew();
        for (double warm = 0; warm < WarmMilliseconds && watch.ElapsedMilliseconds < MostMilliseconds / 2; warm += Batch(stream, run, other).Sum())
        {
        }

        watch.Restart();
        while (all.Count < atLeast || (all.Sum() < CountedMilliseconds && all.Count < MostRuns && watch.ElapsedMilliseconds < MostMilliseconds))
        {
            all.AddRange(Batch(stream, run, other));
        }

        return MedianOf(all);
    }

    /// <summary>The same of few runs, where many things are to be told from each other: 40 after 20 that warm up.</summary>
    /// <inheritdoc cref="Median"/>
    public static double Quick(ComputeStream stream, Action run)
    {
        using DeviceBuffer other = stream.CreateBuffer(FlushedBytes(stream));
        Batch(stream, run, other);
        return MedianOf([.. Batch(stream, run, other), .. Batch(stream, run, other)]);
    }

    private static ulong FlushedBytes(ComputeStream stream) => stream.Device.Backend == Backend.Cuda ? 256UL << 20 : 1 << 20;

    private static double MedianOf(List<double> all)
    {
        all.Sort();
        return all[all.Count / 2];
    }

    private static double[] Batch(ComputeStream stream, Action run, DeviceBuffer other)
    {
        int atOnce = stream.Device.Backend == Backend.Cuda ? 20 : 2;
        (ComputeEvent Start, ComputeEvent End)[] events = [.. Enumerable.Range(0, atOnce).Select(_ => (new ComputeEvent(stream.Device), new ComputeEvent(stream.Device)))];
        foreach ((ComputeEvent start, ComputeEvent end) in events)
        {
            stream.Fill(other, 0, 0, FlushedBytes(stream));
            start.Record(stream);
            run();
            end.Record(stream);
        }

        stream.Synchronize();
        double[] took = [.. events.Select(e => e.End.MillisecondsSince(e.Start))];
        foreach ((ComputeEvent start, ComputeEvent end) in events)
        {
            start.Dispose();
            end.Dispose();
        }

        return took;
    }
}
