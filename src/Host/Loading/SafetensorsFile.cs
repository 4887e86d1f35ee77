using System.Buffers.Binary;
using System.Collections.Immutable;
using System.Text.Json;

namespace Sluice.Loading;

/// <summary>A tensor of a safetensors file.</summary>
/// <param name="Name">The name, unique in its file.</param>
/// <param name="DType">The element type as the format names it: <c>F32</c>, <c>BF16</c>, <c>I32</c>.</param>
/// <param name="Shape">The sizes, the contiguous dimension last (as in PyTorch); empty for a single value.</param>
/// <param name="Offset">Byte offset from the start of the file.</param>
/// <param name="ByteLength">Bytes of the values.</param>
public sealed record SafetensorsTensor(string Name, string DType, ImmutableArray<long> Shape, long Offset, long ByteLength)
{
    /// <summary>The shape in words, the contiguous dimension last: <c>14,336 x 4,096</c>.</summary>
    public string ShapeText => Shape.IsEmpty ? "a single value" : GgufTensor.ShapeText(Shape.AsSpan());
}

/// <summary>
/// An open safetensors file: a length, a JSON header of that length, and the tensors' bytes without gaps. All of the header is
/// checked when the file is opened. Reading is thread-safe; disposing while another thread reads is not.
/// </summary>
/// <remarks>The format: https://huggingface.co/docs/safetensors.</remarks>
public sealed class SafetensorsFile : IDisposable
{
    private const int MostHeaderBytes = 100_000_000; // the format's own limit
    private const int MostDimensions = 8;
    private const int MostTensors = 1 << 17; // far above what a file has; each takes some hundred bytes of memory
    private const int MostMetadata = 1 << 16;
    private const int MostMetadataBytes = 1 << 22;

    private readonly FileSource _source;
    private readonly Dictionary<string, SafetensorsTensor> _byName = new(StringComparer.Ordinal);
    private readonly List<SafetensorsTensor> _tensors = [];
    private readonly Dictionary<string, string> _metadata = new(StringComparer.Ordinal);
    private long _dataStart;

    private SafetensorsFile(FileSource source) => _source = source;

    /// <summary>The path as it was given.</summary>
    public string Path => _source.Path;

    /// <summary>The file's length in bytes.</summary>
    public long Length => _source.Length;

    /// <summary>The tensors, in the order of the header.</summary>
    public IReadOnlyList<SafetensorsTensor> Tensors => _tensors;

    /// <summary>The free texts under <c>__metadata__</c>.</summary>
    public IReadOnlyDictionary<string, string> Metadata => _metadata;

    /// <summary>Opens and checks a file.</summary>
    /// <param name="path">The file.</param>
    /// <param name="memoryMap">False to read by file calls: slower, but safe for files that may change underneath.</param>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="ModelFormatException">The file is malformed.</exception>
    /// <exception cref="UnsupportedModelException">A tensor's element type is not known.</exception>
    /// <exception cref="IOException">The system cannot read the file.</exception>
    /// <exception cref="UnauthorizedAccessException">The file may not be read.</exception>
    public static SafetensorsFile Open(string path, bool memoryMap = true)
    {
        FileSource source = FileSource.Open(path, memoryMap);
        try
        {
            SafetensorsFile file = new(source);
            file.ReadHeader();
            return file;
        }
        catch
        {
            source.Dispose();
            throw;
        }
    }

    /// <summary>Finds a tensor by its name.</summary>
    public bool TryGetTensor(string name, [System.Diagnostics.CodeAnalysis.NotNullWhen(true)] out SafetensorsTensor? tensor) => _byName.TryGetValue(name, out tensor);

    /// <summary>Copies bytes of a tensor, from <paramref name="offset"/> bytes after its start, into all of <paramref name="destination"/>.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The range is not inside the tensor.</exception>
    /// <exception cref="ModelFormatException">The file became shorter (only without a mapping).</exception>
    public void Read(SafetensorsTensor tensor, long offset, Span<byte> destination) => Span(tensor).Read(offset, destination);

    /// <summary>Closes the file and its mapping.</summary>
    public void Dispose() => _source.Dispose();

    internal FileSpan Span(SafetensorsTensor tensor) => new(_source, tensor.Offset, tensor.ByteLength);

    /// <summary>Bits of an element, or 0 where the type is not known.</summary>
    internal static int BitsOf(string dtype) => dtype switch
    {
        "F64" or "I64" or "U64" or "C64" => 64,
        "F32" or "I32" or "U32" => 32,
        "F16" or "BF16" or "I16" or "U16" => 16,
        "F8_E5M2" or "F8_E4M3" or "F8_E8M0" or "I8" or "U8" or "BOOL" => 8,
        "F4" => 4,
        _ => 0,
    };

    private void ReadHeader()
    {
        if (_source.Length < 10)
        {
            throw Malformed("header", $"the file is {_source.Length:N0} bytes, and a safetensors file has 10 at least");
        }

        Span<byte> prefix = stackalloc byte[8];
        _source.Read(0, prefix);
        ulong length = BinaryPrimitives.ReadUInt64LittleEndian(prefix);
        if (length > (ulong)(_source.Length - 8))
        {
            throw Malformed("header length", $"is {length:N0}, and the file has {_source.Length - 8:N0} bytes left");
        }

        if (length is < 2 or > MostHeaderBytes)
        {
            throw Malformed("header length", $"is {length:N0}, and must be from 2 to {MostHeaderBytes:N0}");
        }

        byte[] header = new byte[length];
        _source.Read(8, header);
        _dataStart = 8 + (long)length;
        try
        {
            Parse(header);
        }
        catch (JsonException e)
        {
            throw new ModelFormatException(Path, "header", $"is not the JSON that is expected: {e.Message}", e);
        }
        catch (InvalidOperationException e)
        {
            // The reader's answer to a lone surrogate in an escaped text, or to another kind of value.
            throw new ModelFormatException(Path, "header", $"is not the JSON that is expected: {e.Message}", e);
        }

        CheckSpans();
    }

    // Token by token, without a tree: a header of 100 MB may hold nothing but brackets.
    private void Parse(ReadOnlySpan<byte> header)
    {
        Utf8JsonReader reader = new(header, new JsonReaderOptions { MaxDepth = 8 });
        if (!reader.Read() || reader.TokenType != JsonTokenType.StartObject)
        {
            throw Malformed("header", "is no JSON object");
        }

        bool metadataSeen = false;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string name = reader.GetString()!;
            if (name == "__metadata__")
            {
                if (metadataSeen)
                {
                    throw Malformed(name, "stands twice");
                }

                metadataSeen = true;
                ReadMetadata(ref reader);
                continue;
            }

            SafetensorsTensor tensor = ReadTensor(ref reader, name);
            if (!_byName.TryAdd(name, tensor))
            {
                throw Malformed(Field(name), "stands twice in the header");
            }

            _tensors.Add(tensor);
            if (_tensors.Count > MostTensors)
            {
                throw Malformed("header", $"has more than {MostTensors:N0} tensors");
            }
        }

        // Only blanks may follow; anything else is the reader's error.
        while (reader.Read())
        {
        }
    }

    private void ReadMetadata(ref Utf8JsonReader reader)
    {
        Expect(ref reader, JsonTokenType.StartObject, "__metadata__", "an object");
        long start = reader.TokenStartIndex;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (_metadata.Count == MostMetadata || reader.BytesConsumed - start > MostMetadataBytes)
            {
                throw Malformed("__metadata__", $"holds more than {MostMetadata:N0} entries or {MostMetadataBytes:N0} bytes");
            }

            string key = reader.GetString()!;
            Expect(ref reader, JsonTokenType.String, $"__metadata__.{(key.Length > 60 ? key[..60] : key)}", "a text");
            if (reader.ValueSpan.Length > MostMetadataBytes)
            {
                throw Malformed("__metadata__", $"holds a text of {reader.ValueSpan.Length:N0} bytes, and {MostMetadataBytes:N0} are read");
            }

            if (!_metadata.TryAdd(key, reader.GetString()!))
            {
                throw Malformed($"__metadata__.{key}", "stands twice");
            }
        }
    }

    private SafetensorsTensor ReadTensor(ref Utf8JsonReader reader, string name)
    {
        string field = Field(name);
        if (name.Length == 0)
        {
            throw Malformed("header", "holds a tensor without a name");
        }

        string? dtype = null;
        List<long>? shape = null;
        List<long>? offsets = null;
        Expect(ref reader, JsonTokenType.StartObject, field, "an object");
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string key = reader.GetString()!;
            bool known = key switch
            {
                "dtype" => dtype is null,
                "shape" => shape is null,
                "data_offsets" => offsets is null,
                _ => throw Malformed(field, $"holds '{(key.Length > 60 ? key[..60] : key)}', and dtype, shape and data_offsets are expected"),
            };
            if (!known)
            {
                throw Malformed(field, $"holds '{key}' twice");
            }

            if (key == "dtype")
            {
                Expect(ref reader, JsonTokenType.String, field, "a text as dtype");
                dtype = reader.GetString()!;
            }
            else if (key == "shape")
            {
                shape = ReadNumbers(ref reader, field, key, MostDimensions);
            }
            else
            {
                offsets = ReadNumbers(ref reader, field, key, 2);
            }
        }

        if (dtype is null || shape is null || offsets is not { Count: 2 })
        {
            throw Malformed(field, "needs dtype, shape and two data_offsets");
        }

        return Check(name, dtype, shape, offsets[0], offsets[1]);
    }

    private SafetensorsTensor Check(string name, string dtype, List<long> shape, long begin, long end)
    {
        string field = Field(name);
        int bits = BitsOf(dtype);
        if (bits == 0)
        {
            throw new UnsupportedModelException(Path, field, $"its dtype '{(dtype.Length > 60 ? dtype[..60] : dtype)}' is not known");
        }

        Int128 values = 1;
        foreach (long size in shape)
        {
            if (size == 0)
            {
                throw Malformed(field, $"has a dimension of 0 in [{string.Join(", ", shape)}]");
            }

            values *= size;
            if (values > long.MaxValue)
            {
                throw Malformed(field, $"a shape of [{string.Join(", ", shape)}] has more values than 63 bits count");
            }
        }

        long data = _source.Length - _dataStart;
        if (begin > end || end > data)
        {
            throw Malformed(field, $"its bytes are {begin:N0} to {end:N0}, and the file has {data:N0} bytes of data");
        }

        Int128 needed = values * bits;
        if (needed % 8 != 0 || needed / 8 != end - begin)
        {
            throw Malformed(field, $"[{string.Join(", ", shape)}] {dtype} needs {(needed + 7) / 8:N0} bytes, and its data_offsets span {end - begin:N0}");
        }

        return new SafetensorsTensor(name, dtype, [.. shape], _dataStart + begin, end - begin);
    }

    // The format wants the tensors' bytes side by side, from the header's end to the file's.
    private void CheckSpans()
    {
        SafetensorsTensor[] byPlace = [.. _tensors];
        Array.Sort(byPlace, static (a, b) => a.Offset.CompareTo(b.Offset));
        long at = _dataStart;
        string before = "the header";
        foreach (SafetensorsTensor tensor in byPlace)
        {
            if (tensor.Offset != at)
            {
                throw Malformed(Field(tensor.Name), $"begins at byte {tensor.Offset:N0}, and {before} ends at {at:N0}: tensors must neither overlap nor leave gaps");
            }

            at += tensor.ByteLength;
            before = $"'{tensor.Name}'";
        }

        if (at != _source.Length)
        {
            throw Malformed("", $"the last tensor ends at byte {at:N0}, and the file has {_source.Length:N0}");
        }
    }

    private List<long> ReadNumbers(ref Utf8JsonReader reader, string field, string key, int most)
    {
        Expect(ref reader, JsonTokenType.StartArray, field, $"a list as {key}");
        List<long> numbers = [];
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (reader.TokenType != JsonTokenType.Number || !reader.TryGetInt64(out long number) || number < 0)
            {
                throw Malformed(field, $"its {key} holds something else than integers from 0 to 2^63 - 1");
            }

            if (numbers.Count == most)
            {
                throw Malformed(field, $"its {key} holds more than {most} numbers");
            }

            numbers.Add(number);
        }

        return numbers;
    }

    private void Expect(ref Utf8JsonReader reader, JsonTokenType type, string field, string what)
    {
        if (!reader.Read() || reader.TokenType != type)
        {
            throw Malformed(field, $"is of kind {reader.TokenType}, and {what} is expected");
        }
    }

    private static string Field(string tensor) => $"tensor '{(tensor.Length > 200 ? tensor[..200] + "..." : tensor)}'";

    private ModelFormatException Malformed(string field, string detail) => new(Path, field, detail);
}
