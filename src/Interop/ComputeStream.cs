using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Sluice.Interop;

/// <summary>
/// An ordered queue of work and its workspace. Used by one thread at a time, which the native side checks; reference and
/// cpu run at the call. The ops are in Ops.cs.
/// </summary>
public sealed unsafe partial class ComputeStream : NativeHandle
{
    private ComputeStream(Device device) => Device = device;

    /// <summary>The device.</summary>
    public Device Device { get; }

    /// <summary>Told of every call on this stream but those on events, or null: then it costs a comparison a call. Steps that are observed run op by op, not as graphs.</summary>
    internal IStreamObserver? Observer { get; set; }

    internal static ComputeStream Create(Device device, nint cudaStream)
    {
        using Lease lease = default;
        ComputeStream stream = new(device);
        sl_stream* handle;
        SluiceException.ThrowIfFailed(NativeMethods.sl_stream_create((sl_device*)lease.Hold(device), (void*)cudaStream, &handle));
        stream.Adopt(handle);
        return stream;
    }

    /// <summary>Waits until all that was put on the stream is done.</summary>
    /// <exception cref="SluiceException">Something on the stream failed.</exception>
    public void Synchronize()
    {
        using Lease lease = default;
        SluiceException.ThrowIfFailed(NativeMethods.sl_stream_synchronize((sl_stream*)lease.Hold(this)));
    }

    /// <summary>Runs <paramref name="ops"/> with this stream's ops checked and not run, and returns the largest workspace that one of them asks for, in bytes.</summary>
    public ulong Measure(Action ops)
    {
        using Lease lease = default;
        sl_stream* s = (sl_stream*)lease.Hold(this);
        SluiceException.ThrowIfFailed(NativeMethods.sl_stream_measure(s, 1));
        try
        {
            ops();
        }
        finally
        {
            SluiceException.ThrowIfFailed(NativeMethods.sl_stream_measure(s, 0));
        }

        ulong bytes;
        SluiceException.ThrowIfFailed(NativeMethods.sl_stream_get_measured(s, &bytes));
        return bytes;
    }

    /// <summary>The largest workspace that was reserved, in bytes: graphs captured before it grew are to be captured anew.</summary>
    public ulong WorkspaceBytes { get; private set; }

    /// <summary>Makes the workspace at least that large.</summary>
    public void Reserve(ulong bytes)
    {
        using Lease lease = default;
        SluiceException.ThrowIfFailed(NativeMethods.sl_stream_reserve((sl_stream*)lease.Hold(this), bytes));
        WorkspaceBytes = Math.Max(WorkspaceBytes, bytes);
    }

    /// <summary>Allocates device (or pinned host) memory, contents undefined.</summary>
    /// <exception cref="SluiceException">Out of memory: the message says how much was wanted and free.</exception>
    public DeviceBuffer CreateBuffer(ulong bytes, MemoryKind kind = MemoryKind.Device)
    {
        using Lease lease = default;
        DeviceBuffer buffer = new(kind);
        sl_buffer* handle;
        SluiceException.ThrowIfFailed(NativeMethods.sl_buffer_create((sl_stream*)lease.Hold(this), bytes, kind, &handle));
        buffer.Adopt(handle);
        return buffer;
    }

    /// <summary>A dense tensor in memory of its own, contents undefined.</summary>
    public Tensor CreateTensor(DType dtype, params ReadOnlySpan<long> shape)
    {
        long bytes = dtype.Size();
        foreach (long extent in shape)
        {
            bytes = checked(bytes * extent);
        }

        return new Tensor(CreateBuffer((ulong)Math.Max(bytes, 1)), dtype, shape);
    }

    /// <summary>A dense tensor in memory of its own, filled with <paramref name="values"/>.</summary>
    public Tensor CreateTensor<T>(DType dtype, ReadOnlySpan<T> values, params ReadOnlySpan<long> shape)
        where T : unmanaged
    {
        Tensor t = CreateTensor(dtype, shape);
        Upload(t, values);
        return t;
    }

    /// <summary>Copies to a dense tensor. The source may change when the call returns.</summary>
    /// <exception cref="ArgumentException">The sizes differ.</exception>
    public void Upload<T>(in Tensor target, ReadOnlySpan<T> source)
        where T : unmanaged
    {
        ReadOnlySpan<byte> bytes = MemoryMarshal.AsBytes(source);
        Expect(target, bytes.Length);
        Upload(target.Buffer!, target.Offset, bytes);
    }

    /// <summary>Copies bytes to a buffer. The source may change when the call returns.</summary>
    public void Upload(DeviceBuffer target, ulong offset, ReadOnlySpan<byte> source)
    {
        using Lease lease = default;
        fixed (byte* p = source)
        {
            SluiceException.ThrowIfFailed(NativeMethods.sl_buffer_upload(
                (sl_stream*)lease.Hold(this), (sl_buffer*)lease.Hold(target), offset, p, (ulong)source.Length));
        }
    }

    /// <summary>Copies a dense tensor here, and waits for it.</summary>
    /// <exception cref="ArgumentException">The sizes differ.</exception>
    public void Download<T>(in Tensor source, Span<T> target)
        where T : unmanaged
    {
        Span<byte> bytes = MemoryMarshal.AsBytes(target);
        Expect(source, bytes.Length);
        using Lease lease = default;
        fixed (byte* p = bytes)
        {
            sl_stream* s = (sl_stream*)lease.Hold(this);
            SluiceException.ThrowIfFailed(NativeMethods.sl_buffer_download(s, (sl_buffer*)lease.Hold(source.Buffer), source.Offset, p, (ulong)bytes.Length));
            SluiceException.ThrowIfFailed(NativeMethods.sl_stream_synchronize(s));
        }
    }

    /// <summary>Copies between buffers of this device; the ranges must not overlap.</summary>
    public void Copy(DeviceBuffer source, ulong sourceOffset, DeviceBuffer target, ulong targetOffset, ulong bytes)
    {
        using Lease lease = default;
        SluiceException.ThrowIfFailed(NativeMethods.sl_buffer_copy(
            (sl_stream*)lease.Hold(this), (sl_buffer*)lease.Hold(source), sourceOffset, (sl_buffer*)lease.Hold(target), targetOffset, bytes));
    }

    /// <summary>Sets every byte of a range.</summary>
    public void Fill(DeviceBuffer target, ulong offset, byte value, ulong bytes)
    {
        using Lease lease = default;
        SluiceException.ThrowIfFailed(NativeMethods.sl_buffer_fill((sl_stream*)lease.Hold(this), (sl_buffer*)lease.Hold(target), offset, value, bytes));
    }

    /// <summary>Records the ops that <paramref name="ops"/> puts on this stream, without running them.</summary>
    public ComputeGraph Capture(Action ops)
    {
        using Lease lease = default;
        sl_stream* s = (sl_stream*)lease.Hold(this);
        ComputeGraph graph = new(this);
        SluiceException.ThrowIfFailed(NativeMethods.sl_graph_begin(s));
        sl_graph* handle = null;
        try
        {
            ops();
        }
        catch
        {
            // What was begun has to end, and nobody will have it.
            _ = NativeMethods.sl_graph_end(s, &handle);
            NativeMethods.sl_graph_release(handle);
            throw;
        }

        SluiceException.ThrowIfFailed(NativeMethods.sl_graph_end(s, &handle));
        graph.Adopt(handle);
        return graph;
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        NativeMethods.sl_stream_release((sl_stream*)handle);
        return true;
    }

    private static void Expect(in Tensor t, int bytes)
    {
        if (t.Buffer is null || t.Count * t.DType.Size() != bytes)
        {
            throw new ArgumentException($"{t} holds {t.Count * (t.IsAbsent ? 0 : t.DType.Size())} bytes, the host side {bytes}");
        }
    }
}

/// <summary>Device memory, or pinned host memory.</summary>
public sealed unsafe class DeviceBuffer : NativeHandle
{
    internal DeviceBuffer(MemoryKind kind) => Kind = kind;

    /// <summary>Where the memory lies.</summary>
    public MemoryKind Kind { get; }

    /// <summary>Reads pinned host memory. What the device writes there is there once an event behind it is.</summary>
    /// <exception cref="SluiceException">It is device memory.</exception>
    /// <exception cref="ArgumentException">The range is not within the buffer.</exception>
    public T Read<T>(ulong offset)
        where T : unmanaged
    {
        using Lease lease = default;
        sl_buffer* buffer = (sl_buffer*)lease.Hold(this);
        void* pointer;
        ulong size;
        SluiceException.ThrowIfFailed(NativeMethods.sl_buffer_get_host_pointer(buffer, &pointer));
        SluiceException.ThrowIfFailed(NativeMethods.sl_buffer_get_size(buffer, &size));
        if (offset > size || size - offset < (ulong)sizeof(T))
        {
            throw new ArgumentException($"{sizeof(T)} bytes at {offset:N0} of a buffer of {size:N0}");
        }

        return Unsafe.ReadUnaligned<T>((byte*)pointer + offset);
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        NativeMethods.sl_buffer_release((sl_buffer*)handle);
        return true;
    }
}

/// <summary>Recorded ops, replayed as one.</summary>
public sealed unsafe class ComputeGraph : NativeHandle
{
    internal ComputeGraph(ComputeStream stream) => Stream = stream;

    /// <summary>The stream that it was recorded on, and runs on.</summary>
    public ComputeStream Stream { get; }

    /// <summary>Puts the recorded ops on the stream.</summary>
    public void Launch()
    {
        using Lease lease = default;
        SluiceException.ThrowIfFailed(NativeMethods.sl_graph_launch((sl_stream*)lease.Hold(Stream), (sl_graph*)lease.Hold(this)));
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        NativeMethods.sl_graph_release((sl_graph*)handle);
        return true;
    }
}

/// <summary>A point in a stream.</summary>
public sealed unsafe class ComputeEvent : NativeHandle
{
    /// <summary>Creates an event that was not recorded yet.</summary>
    public ComputeEvent(Device device)
    {
        using Lease lease = default;
        sl_event* native;
        SluiceException.ThrowIfFailed(NativeMethods.sl_event_create((sl_device*)lease.Hold(device), &native));
        Adopt(native);
    }

    /// <summary>Marks the stream's present end.</summary>
    public void Record(ComputeStream stream)
    {
        using Lease lease = default;
        SluiceException.ThrowIfFailed(NativeMethods.sl_event_record((sl_stream*)lease.Hold((NativeHandle)stream), (sl_event*)lease.Hold(this)));
    }

    /// <summary>Work put on the stream from now on waits for this event.</summary>
    public void Wait(ComputeStream stream)
    {
        using Lease lease = default;
        SluiceException.ThrowIfFailed(NativeMethods.sl_event_wait((sl_stream*)lease.Hold((NativeHandle)stream), (sl_event*)lease.Hold(this)));
    }

    /// <summary>Waits here for the event.</summary>
    public void Synchronize()
    {
        using Lease lease = default;
        SluiceException.ThrowIfFailed(NativeMethods.sl_event_synchronize((sl_event*)lease.Hold(this)));
    }

    /// <summary>Milliseconds from an earlier event to this one, as the device saw them.</summary>
    public double MillisecondsSince(ComputeEvent start)
    {
        using Lease lease = default;
        double milliseconds;
        SluiceException.ThrowIfFailed(NativeMethods.sl_event_elapsed((sl_event*)lease.Hold(start), (sl_event*)lease.Hold(this), &milliseconds));
        return milliseconds;
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        NativeMethods.sl_event_release((sl_event*)handle);
        return true;
    }
}
