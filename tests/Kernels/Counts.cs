using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>What one run of a case moved on the executor, beside the least that it could.</summary>
public sealed record CountedRun(OpCase Case, Counters Counters, IReadOnlyList<KernelCounters> Kernels, long MinimumBytes, IReadOnlyDictionary<string, long> WeightBytes)
{
    /// <summary>Bytes of the 32-byte sectors that the warps' accesses touched, each access on its own: what reaches L1.</summary>
    public long MovedBytes => 32 * (long)(Counters.SectorsRead + Counters.SectorsWritten);

    public double Ratio => MovedBytes / (double)MinimumBytes;

    /// <summary>Bytes that lanes asked for over bytes of the sectors touched; above one where lanes share a word.</summary>
    public double SectorUse => (Counters.BytesRead + Counters.BytesWritten) / (double)Math.Max(1, MovedBytes);

    /// <summary>Runs a case once; the device must be nobody else's.</summary>
    public static CountedRun Of(Device device, OpRunner runner, OpCase c)
    {
        runner.Stream.Synchronize();
        device.ResetCounters();
        runner.Run();
        runner.Stream.Synchronize();
        return new CountedRun(c, device.ReadCounters(), device.ReadKernelCounters(), Minimum.Of(c, runner.WeightBytes), c.Weights.Keys.ToDictionary(name => name, runner.WeightBytes));
    }
}
