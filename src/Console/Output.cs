using System.Text;
using Microsoft.Win32.SafeHandles;

namespace Sluice.Console;

/// <summary>Standard output as text that comes piece by piece. The runtime's own stream swallows a reader that has gone; this one tells.</summary>
internal static class Output
{
    /// <summary>Makes standard output fail when nobody reads it any more.</summary>
    public static void Install()
    {
        if (!OperatingSystem.IsWindows() && System.Console.IsOutputRedirected)
        {
            // A regular file has no reader that could go, and a FileStream on it would write at a place of its own: over what others wrote to the same file.
            FileStream stream = new(new SafeFileHandle(1, ownsHandle: false), FileAccess.Write, bufferSize: 0);
            if (stream.CanSeek)
            {
                return;
            }

            System.Console.SetOut(new StreamWriter(stream, new UTF8Encoding(false)) { AutoFlush = false });
        }
    }

    /// <summary>Writes what is held back; a reader that has gone is no error.</summary>
    public static void Flush()
    {
        try
        {
            System.Console.Out.Flush();
        }
        catch (IOException)
        {
            // Nobody is left to tell.
        }
    }
}
