using System.Runtime.InteropServices;

namespace Sluice.Interop;

/// <summary>A native call failed. The message says which argument, what was found and what was expected.</summary>
public sealed class SluiceException : Exception
{
    /// <summary>Creates the exception.</summary>
    public SluiceException(Status status, string message)
        : base(message) => Status = status;

    /// <summary>The code that the call returned.</summary>
    public Status Status { get; }

    internal static unsafe void ThrowIfFailed(Status status)
    {
        if (status != Status.Ok)
        {
            throw new SluiceException(status, LastError(status));
        }
    }

    internal static unsafe string LastError(Status status)
    {
        string? text = Marshal.PtrToStringUTF8((nint)NativeMethods.sl_last_error());
        return string.IsNullOrEmpty(text) ? Marshal.PtrToStringUTF8((nint)NativeMethods.sl_status_name(status)) ?? "unknown" : text;
    }
}
