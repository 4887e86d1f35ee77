using System.Runtime.InteropServices;

namespace Sluice.Interop;

/// <summary>Host memory of any size, outside of the managed heap: where a file's bytes wait when it is not mapped.</summary>
public sealed unsafe class HostBlock : SafeBuffer
{
    /// <summary>Allocates <paramref name="bytes"/> bytes, contents undefined.</summary>
    /// <exception cref="OutOfMemoryException">There is no such block.</exception>
    public HostBlock(ulong bytes)
        : base(ownsHandle: true)
    {
        SetHandle((nint)NativeMemory.Alloc((nuint)bytes));
        Initialize(bytes);
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        NativeMemory.Free((void*)handle);
        return true;
    }
}
