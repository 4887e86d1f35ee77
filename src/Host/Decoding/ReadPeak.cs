using Sluice.Interop;

namespace Sluice.Decoding;

/// <summary>
/// The rate at which a device reads memory, as far as an op of the library can tell: arg-max over a gigabyte, which reads every byte once, keeps nothing and
/// is spread over all threads or multiprocessors of the device. On cuda a copy's reads and writes together, where they are faster. It is what was reached
/// in this process beside whatever else ran, and no figure of the maker's: a decode may come above it by what a run differs from another.
/// On simt and reference, which compute too slowly for memory to matter, it is the rate of their loops.
/// </summary>
public static class ReadPeak
{
    private const long Gigabyte = 1L << 30, Few = 4L << 20, Least = 64L << 20;
    private const int Rows = 2_048, AtLeast = 5;

    /// <summary>Measures a model's device: seconds at most, a gigabyte of its memory (two on cuda), or less where less is free.</summary>
    /// <returns>Gigabytes (10^9 bytes) a second; the median of five runs at least.</returns>
    /// <exception cref="SluiceException">The device failed, or has no 256 MB left.</exception>
    public static double Measure(Model model) => Measure(model.Device);

    /// <summary>Measures a device.</summary>
    internal static double Measure(Device device)
    {
        using ComputeStream stream = device.CreateStream();
        bool copies = device.Backend == Backend.Cuda;
        long bytes = device.Backend is Backend.Cuda or Backend.Cpu ? Gigabyte : Few;
        // A quarter of what is free: pages of the host are given when they are touched, and nobody's model should go for it.
        for (long free = (long)device.Info.MemoryFree; bytes > Least && free > 0 && bytes > free / 4;)
        {
            bytes /= 2;
        }

        Tensor logits = stream.CreateTensor(DType.F32, Rows, bytes / sizeof(float) / Rows), ids = stream.CreateTensor(DType.I32, Rows);
        using DeviceBuffer from = logits.Buffer!, other = ids.Buffer!;
        stream.Fill(from, 0, 0, (ulong)bytes); // memory that was never written may be one page many times
        stream.Reserve(stream.Measure(() => stream.ArgMax(logits, ids)));
        double read = bytes / FlushedTimer.Median(stream, () => stream.ArgMax(logits, ids), AtLeast) / 1e6;
        if (!copies)
        {
            return read;
        }

        using DeviceBuffer to = stream.CreateBuffer((ulong)bytes);
        return Math.Max(read, 2 * bytes / FlushedTimer.Median(stream, () => stream.Copy(from, 0, to, 0, (ulong)bytes), AtLeast) / 1e6);
    }
}
