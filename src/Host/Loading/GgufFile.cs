using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;

namespace Sluice.Loading;

/// <summary>
/// An open GGUF file (version 2 or 3, little-endian): metadata, tensor table, and the tensors' bytes. All of the
/// header is checked when the file is opened. Reading is thread-safe; disposing while another thread reads is not.
/// </summary>
/// <remarks>
/// The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A mapped file that another program truncates
/// can end the process at the next read (the system's rule, not ours); open such files with <c>memoryMap: false</c>.
/// </remarks>
public sealed class GgufFile : IDisposable
{
    private readonly FileSource _source;
    private readonly Dictionary<string, GgufTensor> _byName;

    private GgufFile(FileSource source, GgufReader header)
    {
        _source = source;
        Version = (int)header.Version;
        Alignment = header.Alignment;
        DataStart = header.DataStart;
        Metadata = header.Metadata;
        Tensors = header.Tensors;
        _byName = new Dictionary<string, GgufTensor>(header.Tensors.Count, StringComparer.Ordinal);
        foreach (GgufTensor tensor in header.Tensors)
        {
            _byName.Add(tensor.Name, tensor);
        }
    }

    /// <summary>The path as it was given.</summary>
    public string Path => _source.Path;

    /// <summary>The file's length in bytes.</summary>
    public long Length => _source.Length;

    /// <summary>2 or 3.</summary>
    public int Version { get; }

    /// <summary>Tensors begin at multiples of so many bytes from <see cref="DataStart"/>.</summary>
    public int Alignment { get; }

    /// <summary>File offset of the tensor data.</summary>
    public long DataStart { get; }

    /// <summary>The metadata, in file order.</summary>
    public GgufMetadata Metadata { get; }

    /// <summary>The tensors, in file order.</summary>
    public IReadOnlyList<GgufTensor> Tensors { get; }

    /// <summary>
    /// The memory mapping, or null where the file was opened without one. File offset <c>o</c> (as in
    /// <see cref="GgufTensor.Offset"/>) is at byte <c>o + MappedStart</c> of it. It belongs to this object.
    /// </summary>
    public SafeBuffer? Mapping => _source.Mapping;

    /// <summary>The mapping's byte at which file offset 0 is.</summary>
    public long MappedStart => _source.MappedStart;

    /// <summary>Opens and checks a file.</summary>
    /// <param name="path">The file.</param>
    /// <param name="memoryMap">False to read by file calls: slower, but safe for files that may change underneath.</param>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="ModelFormatException">The file is malformed.</exception>
    /// <exception cref="UnsupportedModelException">The version, byte order or a tensor's type number is not read.</exception>
    /// <exception cref="IOException">The system cannot read the file.</exception>
    /// <exception cref="UnauthorizedAccessException">The file may not be read.</exception>
    public static GgufFile Open(string path, bool memoryMap = true)
    {
        FileSource source = FileSource.Open(path, memoryMap);
        try
        {
            GgufReader header = new(source);
            header.Parse();
            return new GgufFile(source, header);
        }
        catch
        {
            source.Dispose();
            throw;
        }
    }

    /// <summary>Finds a tensor by its name.</summary>
    public bool TryGetTensor(string name, [NotNullWhen(true)] out GgufTensor? tensor) => _byName.TryGetValue(name, out tensor);

    /// <summary>Copies bytes of a tensor, from <paramref name="offset"/> bytes after its start, into all of <paramref name="destination"/>.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The range is not inside the tensor.</exception>
    /// <exception cref="ModelFormatException">The file became shorter (only without a mapping).</exception>
    public void Read(GgufTensor tensor, long offset, Span<byte> destination)
    {
        if (offset < 0 || offset > tensor.ByteLength || destination.Length > tensor.ByteLength - offset)
        {
            throw new ArgumentOutOfRangeException(nameof(offset), $"{destination.Length:N0} bytes at {offset:N0} are not inside tensor '{tensor.Name}' of {tensor.ByteLength:N0}");
        }

        _source.Read(tensor.Offset + offset, destination);
    }

    internal FileSpan Span(GgufTensor tensor) => new(_source, tensor.Offset, tensor.ByteLength);

    /// <summary>Closes the file and its mapping.</summary>
    public void Dispose() => _source.Dispose();
}
