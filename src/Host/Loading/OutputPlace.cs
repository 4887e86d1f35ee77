namespace Sluice.Loading;

/// <summary>Files and folders that appear under their names when they are complete, and not at all when the work fails.</summary>
internal static class OutputPlace
{
    private static readonly string[] SystemFolders = ["/dev/", "/proc/", "/sys/"];

    /// <summary>Makes a file; an older one is replaced.</summary>
    /// <exception cref="IOException">The name is a folder's or a device's, or the file cannot be written.</exception>
    public static T File<T>(string path, Func<FileStream, T> write)
    {
        // A rename would put a file in a device's place.
        string full = Path.GetFullPath(path);
        if (Directory.Exists(path) || (!OperatingSystem.IsWindows() && SystemFolders.Any(root => full.StartsWith(root, StringComparison.Ordinal))))
        {
            throw new IOException($"{path}: is a folder or a device: name a file");
        }

        string partial = $"{path}.{Environment.ProcessId}.partial";
        try
        {
            T result;
            using (FileStream stream = new(partial, FileMode.CreateNew, FileAccess.Write, FileShare.None, 1))
            {
                result = write(stream);
            }

            System.IO.File.Move(partial, path, overwrite: true);
            return result;
        }
        catch
        {
            System.IO.File.Delete(partial);
            throw;
        }
    }

    /// <summary>Makes a folder.</summary>
    /// <exception cref="IOException">It holds something already, or cannot be written.</exception>
    public static T Folder<T>(string path, Func<string, T> write)
    {
        if (System.IO.File.Exists(path) || (Directory.Exists(path) && Directory.EnumerateFileSystemEntries(path).Any()))
        {
            throw new IOException($"{path}: exists: name a folder that does not, or a file that ends in .gguf");
        }

        string partial = $"{Path.TrimEndingDirectorySeparator(path)}.{Environment.ProcessId}.partial";
        try
        {
            Directory.CreateDirectory(partial);
            T result = write(partial);
            if (Directory.Exists(path))
            {
                Directory.Delete(path);
            }

            Directory.Move(partial, path);
            return result;
        }
        catch
        {
            if (Directory.Exists(partial))
            {
                Directory.Delete(partial, recursive: true);
            }

            throw;
        }
    }
}
