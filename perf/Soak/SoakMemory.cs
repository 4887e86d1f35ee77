using System.Diagnostics;
using System.Globalization;

namespace Sluice.Perf.Soak;

/// <summary>What the process holds.</summary>
/// <param name="Managed">Bytes of managed objects.</param>
/// <param name="Resident">Bytes of memory that the system has given it.</param>
/// <param name="Handles">Open files, sockets and the like.</param>
/// <param name="Threads">Threads but those of the runtime's pool, which come and go as it likes.</param>
internal readonly record struct SoakMemory(long Managed, long Resident, int Handles, int Threads)
{
    // What differs from one look to the next where nothing leaks; a leak is one for each of hundreds of requests or of many engines.
    private const int SpareHandles = 4, SpareThreads = 3;
    private const long SpareManaged = 1 << 20, SpareResident = 48 << 20;

    /// <summary>Looks after all that is garbage is gone.</summary>
    public static SoakMemory Read()
    {
        for (int i = 0; i < 3; i++)
        {
            GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
            GC.WaitForPendingFinalizers();
        }

        using Process process = Process.GetCurrentProcess();
        return new SoakMemory(GC.GetTotalMemory(forceFullCollection: true), process.WorkingSet64, process.HandleCount, process.Threads.Count - ThreadPool.ThreadCount);
    }

    /// <summary>Tells what is more than it was, beyond what comes and goes.</summary>
    public IEnumerable<string> LeaksSince(SoakMemory start)
    {
        SoakMemory now = this;
        return new (string What, long Before, long Now, long Spare)[]
        {
            ("managed bytes", start.Managed, now.Managed, SpareManaged + (start.Managed / 10)),
            ("resident bytes", start.Resident, now.Resident, SpareResident + (start.Resident / 10)),
            ("handles", start.Handles, now.Handles, SpareHandles),
            ("threads", start.Threads, now.Threads, SpareThreads),
        }.Where(x => x.Now > x.Before + x.Spare).Select(x => string.Create(CultureInfo.InvariantCulture, $"{x.What}: {x.Before:N0} after the warm-up, {x.Now:N0} at the end; {x.Spare:N0} more may come and go"));
    }
}
