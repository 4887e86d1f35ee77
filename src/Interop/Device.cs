using System.Text;

namespace Sluice.Interop;

/// <summary>What to open; a field that is not set has a sensible default.</summary>
public sealed record DeviceOptions(Backend Backend)
{
    /// <summary>Which GPU.</summary>
    public int Ordinal { get; init; }

    /// <summary>cpu: threads that compute, the caller's included; 0: one a physical core.</summary>
    public int Threads { get; init; }

    /// <summary>cpu: the instruction set.</summary>
    public Isa Isa { get; init; }

    /// <summary>reference: naive f32 loops rounded by each op's precision record, instead of sums in double.</summary>
    public bool Rounded { get; init; }

    /// <summary>cuda, simt: up to 8 rows of activations are rounded to int8 by blocks of 32 where they meet GGUF's block types or INT8, for integer products.</summary>
    public bool Int8Activations { get; init; }

    /// <summary>cuda, simt: a row's results are the same to the bit alone or in any batch, chunking or sharing, as they always are elsewhere. Slower; not with <see cref="Int8Activations"/>.</summary>
    public bool Invariant { get; init; }

    /// <summary>simt: multiprocessors to play; 0: four.</summary>
    public int Multiprocessors { get; init; }

    /// <summary>simt: the order in which warps and blocks run.</summary>
    public ulong Seed { get; init; }
}

/// <summary>What a device is.</summary>
/// <param name="Backend">The backend.</param>
/// <param name="Name">In the maker's words.</param>
/// <param name="Threads">Threads that compute; 0 for GPUs.</param>
/// <param name="Isa">The instruction set in use (cpu).</param>
/// <param name="ComputeCapability">90 for sm_90; 0 where there is none.</param>
/// <param name="MemoryTotal">Bytes.</param>
/// <param name="MemoryFree">Bytes, at the time of asking.</param>
public sealed record DeviceInfo(Backend Backend, string Name, int Threads, Isa Isa, int ComputeCapability, ulong MemoryTotal, ulong MemoryFree);

/// <summary>What a device has moved since the last reset; which numbers are counted depends on the backend (see sluice.h).</summary>
public readonly record struct Counters(
    ulong Launches, ulong BytesRead, ulong BytesWritten, ulong SectorsRead, ulong SectorsWritten, ulong BankConflicts, ulong Mma, ulong KvBytesRead);

/// <summary>What one kernel has moved since the last reset (simt).</summary>
public readonly record struct KernelCounters(string Kernel, Counters Counters);

/// <summary>
/// Which kernels of cuda and simt take a product, by the rows of x: see sl_switch_points in sluice.h. A number for each way that a weight is kept
/// (<see cref="Kept"/>).
/// </summary>
public sealed record SwitchPoints
{
    /// <summary>Up to so many rows, 8 at most: one launch that keeps all of x by the side.</summary>
    public required int[] Few { get; init; }

    /// <summary>Above, up to so many: tiles of 16 rows.</summary>
    public required int[] Narrow { get; init; }

    /// <summary>From so many on quantised weights go to 16 bits first, and dense ones to the vendor's library; 0: never; -1: from 513 on where that library is.</summary>
    public required int[] Dense { get; init; }
}

/// <summary>Live native objects of this process, by kind.</summary>
public readonly record struct HandleCounts(
    long Devices, long Streams, long Buffers, long Weights, long KvCaches, long Batches, long Graphs, long Events);

/// <summary>One backend on one device. Safe from any thread.</summary>
public sealed unsafe class Device : NativeHandle
{
    private Device(Backend backend) => Backend = backend;

    /// <summary>The backend.</summary>
    public Backend Backend { get; }

    /// <summary>Live native objects of this process, by kind.</summary>
    public static HandleCounts LiveHandles
    {
        get
        {
            sl_handle_counts c;
            SluiceException.ThrowIfFailed(NativeMethods.sl_live_handles(&c));
            return new HandleCounts(c.devices, c.streams, c.buffers, c.weights, c.kv_caches, c.batches, c.graphs, c.events);
        }
    }

    /// <summary>What the device is.</summary>
    /// <exception cref="ObjectDisposedException">The device was disposed.</exception>
    public DeviceInfo Info
    {
        get
        {
            using Lease lease = default;
            sl_device_info info = default;
            info.size = (uint)sizeof(sl_device_info);
            SluiceException.ThrowIfFailed(NativeMethods.sl_device_get_info((sl_device*)lease.Hold(this), &info));
            ReadOnlySpan<byte> name = new(info.name, 128);
            int end = name.IndexOf((byte)0);
            return new DeviceInfo(
                info.backend,
                System.Text.Encoding.UTF8.GetString(name[..(end < 0 ? name.Length : end)]),
                info.threads,
                info.isa,
                info.compute_capability,
                info.memory_total,
                info.memory_free);
        }
    }

    /// <summary>Where products change their kernels. Set before the first stream is made: workspaces and graphs depend on it.</summary>
    /// <exception cref="SluiceException">A backend that has none; a number out of its range; set after a stream was made.</exception>
    /// <exception cref="ArgumentException">Not as many numbers as there are ways to keep a weight.</exception>
    public SwitchPoints SwitchPoints
    {
        get
        {
            using Lease lease = default;
            sl_switch_points p = default;
            p.size = (uint)sizeof(sl_switch_points);
            SluiceException.ThrowIfFailed(NativeMethods.sl_device_get_switch_points((sl_device*)lease.Hold(this), &p));
            return new SwitchPoints
            {
                Few = new ReadOnlySpan<int>(p.few, (int)Kept.Kinds).ToArray(), Narrow = new ReadOnlySpan<int>(p.narrow, (int)Kept.Kinds).ToArray(), Dense = new ReadOnlySpan<int>(p.dense, (int)Kept.Kinds).ToArray(),
            };
        }

        set
        {
            using Lease lease = default;
            sl_switch_points p = default;
            p.size = (uint)sizeof(sl_switch_points);
            Fill(value.Few, new Span<int>(p.few, (int)Kept.Kinds), nameof(value.Few));
            Fill(value.Narrow, new Span<int>(p.narrow, (int)Kept.Kinds), nameof(value.Narrow));
            Fill(value.Dense, new Span<int>(p.dense, (int)Kept.Kinds), nameof(value.Dense));
            SluiceException.ThrowIfFailed(NativeMethods.sl_device_set_switch_points((sl_device*)lease.Hold(this), &p));

            static void Fill(int[] from, Span<int> to, string name)
            {
                if (from.Length != to.Length)
                {
                    throw new ArgumentException($"{name} has {from.Length} numbers, and weights are kept in {to.Length} ways");
                }

                from.CopyTo(to);
            }
        }
    }

    /// <summary>Opens a device.</summary>
    /// <exception cref="SluiceException">No such device (the message says what was tried), or a bad option.</exception>
    /// <exception cref="DllNotFoundException">The native library is not beside the program.</exception>
    /// <exception cref="InvalidOperationException">The native library is of another version.</exception>
    public static Device Open(DeviceOptions options)
    {
        CheckVersion();
        sl_device_options native = default;
        native.size = (uint)sizeof(sl_device_options);
        native.backend = options.Backend;
        native.ordinal = options.Ordinal;
        native.threads = options.Threads;
        native.isa = options.Isa;
        native.rounded = options.Rounded ? 1 : 0;
        native.int8_activations = options.Int8Activations ? 1 : 0;
        native.invariant = options.Invariant ? 1 : 0;
        native.multiprocessors = options.Multiprocessors;
        native.seed = options.Seed;
        Device device = new(options.Backend);
        sl_device* handle;
        SluiceException.ThrowIfFailed(NativeMethods.sl_device_open(&native, &handle));
        device.Adopt(handle);
        return device;
    }

    /// <summary>Opens a device with the backend's defaults.</summary>
    /// <inheritdoc cref="Open(DeviceOptions)"/>
    public static Device Open(Backend backend) => Open(new DeviceOptions(backend));

    /// <summary>How many devices a backend has here.</summary>
    public static int Count(Backend backend) => NativeMethods.sl_device_count(backend);

    /// <summary>What has been moved since the last reset.</summary>
    public Counters ReadCounters()
    {
        using Lease lease = default;
        sl_counters c = default;
        c.size = (uint)sizeof(sl_counters);
        SluiceException.ThrowIfFailed(NativeMethods.sl_device_get_counters((sl_device*)lease.Hold(this), &c));
        return new Counters(c.launches, c.bytes_read, c.bytes_written, c.sectors_read, c.sectors_written, c.bank_conflicts, c.mma, c.kv_bytes_read);
    }

    /// <summary>The same by kernel, in the order of their names: empty on backends that do not count so.</summary>
    public IReadOnlyList<KernelCounters> ReadKernelCounters()
    {
        using Lease lease = default;
        List<KernelCounters> all = [];
        while (true)
        {
            sl_kernel_counters c = default;
            c.size = (uint)sizeof(sl_kernel_counters);
            SluiceException.ThrowIfFailed(NativeMethods.sl_device_get_kernel_counters((sl_device*)lease.Hold(this), all.Count, &c));
            ReadOnlySpan<byte> name = new(c.name, 64);
            int end = name.IndexOf((byte)0);
            if (end == 0)
            {
                return all;
            }

            Counters counters = new(c.launches, c.bytes_read, c.bytes_written, c.sectors_read, c.sectors_written, c.bank_conflicts, c.mma, c.kv_bytes_read);
            all.Add(new KernelCounters(System.Text.Encoding.UTF8.GetString(name[..(end < 0 ? name.Length : end)]), counters));
        }
    }

    /// <summary>Sets the counters to zero.</summary>
    public void ResetCounters()
    {
        using Lease lease = default;
        SluiceException.ThrowIfFailed(NativeMethods.sl_device_reset_counters((sl_device*)lease.Hold(this)));
    }

    /// <summary>A stream of its own on this device.</summary>
    public ComputeStream CreateStream() => ComputeStream.Create(this, 0);

    /// <summary>A stream that works on the caller's CUstream (cuda), which stays the caller's.</summary>
    public ComputeStream ImportStream(nint cudaStream) => ComputeStream.Create(this, cudaStream);

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        NativeMethods.sl_device_release((sl_device*)handle);
        return true;
    }

    private static void CheckVersion()
    {
        uint found = NativeMethods.sl_version();
        if (found >> 16 != Constants.VersionMajor || (found & 0xffff) < Constants.VersionMinor)
        {
            throw new InvalidOperationException(
                $"the native library is version {found >> 16}.{found & 0xffff}, this assembly needs {Constants.VersionMajor}.{Constants.VersionMinor} or a later {Constants.VersionMajor}.x: build both from one checkout");
        }
    }
}
