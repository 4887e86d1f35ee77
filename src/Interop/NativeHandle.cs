using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Sluice.Interop;

/// <summary>
/// A native object. Disposing it twice, in any order, from any thread, or never, is safe: the native side counts
/// references from child to parent, and a call that is under way keeps the handle until it returns.
/// </summary>
public abstract class NativeHandle : SafeHandle
{
    private protected NativeHandle()
        : base(0, ownsHandle: true)
    {
    }

    /// <inheritdoc/>
    public override bool IsInvalid => handle == 0;

    internal unsafe void Adopt(void* native) => SetHandle((nint)native);
}

/// <summary>Holds the handles that a call uses, so that none is released under it.</summary>
internal unsafe ref struct Lease
{
    private const int Capacity = 28;
    private Handles _handles;
    private int _count;
    private IStreamObserver? _observer;
    private string _method;

    [InlineArray(Capacity)]
    private struct Handles
    {
        private SafeHandle? _first;
    }

    /// <summary>The native pointer of a handle; null for a null handle.</summary>
    /// <exception cref="ObjectDisposedException">The handle was disposed.</exception>
    public void* Hold(NativeHandle? handle)
    {
        if (handle is null)
        {
            return null;
        }

        bool added = false;
        handle.DangerousAddRef(ref added);
        _handles[_count++] = handle;
        return (void*)handle.DangerousGetHandle();
    }

    /// <summary>The stream that a call is made on: where somebody looks on, the call is told under the caller's name when the lease ends.</summary>
    public void* Hold(ComputeStream? stream, [CallerMemberName] string method = "")
    {
        (_observer, _method) = (stream?.Observer, method);
        return Hold((NativeHandle?)stream);
    }

    /// <summary>A tensor as the ABI wants it.</summary>
    public sl_tensor Hold(in Tensor t)
    {
        sl_tensor native = default;
        native.buffer = (sl_buffer*)Hold(t.Buffer);
        native.pointer = (void*)t.Pointer;
        native.offset = t.Offset;
        native.dtype = t.DType;
        native.rank = t.Rank;
        for (int i = 0; i < t.Rank; i++)
        {
            native.shape[i] = t.Shape(i);
            native.stride[i] = t.Stride(i);
        }

        return native;
    }

    public void Dispose()
    {
        for (int i = 0; i < _count; i++)
        {
            _handles[i]!.DangerousRelease();
        }

        _observer?.Called(_method, ((ReadOnlySpan<SafeHandle?>)_handles)[.._count]);
        _count = 0;
    }
}
