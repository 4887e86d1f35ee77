using System.Runtime.InteropServices;

namespace Sluice.Interop;

/// <summary>Host memory of any size, outside of the managed heap and aligned to 64 bytes: where a file's bytes wait when it is not mapped.</summary>
public sealed unsafe class HostBlock : SafeBuffer
{
    /// <summary>Allocates <paramref name="bytes"/> bytes, contents undefined.</summary>
    /// <exception cref="OutOfMemoryException">There is no such block.</exception>
    public HostBlock(ulong bytes)
        : base(ownsHandle: true)
    {
        SetHandle((nint)NativeMemory.AlignedAlloc((nuint)bytes, 64));
        Initialize(bytes);
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        NativeMemory.AlignedFree((void*)handle);
        return true;
    }
}
