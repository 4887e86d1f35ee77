using System.Runtime.InteropServices;

namespace Sluice.Interop;

/// <summary>Is told of what is put on a stream, call by call: how a step's time is taken apart. See <see cref="ComputeStream.Observer"/>.</summary>
internal interface IStreamObserver
{
    /// <summary>A call on the stream has returned. Events that are recorded here stand right behind its work.</summary>
    /// <param name="method">The method's name, as <c>FusedQkv</c>.</param>
    /// <param name="handles">What the call used, among it the weights.</param>
    void Called(string method, ReadOnlySpan<SafeHandle?> handles);
}
