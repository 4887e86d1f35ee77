using System.Text;

namespace Sluice.Loading;

/// <summary>Small text files of a model's folder.</summary>
internal static class TextFile
{
    private const int MostBytes = 1 << 24;

    /// <summary>The whole of a UTF-8 file, without a byte order mark.</summary>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="ModelFormatException">It is no UTF-8, or longer than 16 MiB.</exception>
    public static string Read(string path)
    {
        using FileSource source = FileSource.Open(path, memoryMap: false);
        if (source.Length > MostBytes)
        {
            throw new ModelFormatException(path, "", $"is {source.Length:N0} bytes of text, and at most {MostBytes:N0} are read");
        }

        byte[] bytes = new byte[source.Length];
        source.Read(0, bytes);
        try
        {
            string text = new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(bytes);
            return text.StartsWith('\uFEFF') ? text[1..] : text;
        }
        catch (DecoderFallbackException e)
        {
            throw new ModelFormatException(path, "", $"is not UTF-8: {e.Message}", e);
        }
    }
}
