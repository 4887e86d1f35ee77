using System.Buffers;
using System.Buffers.Binary;
using System.Text.Json;

namespace Sluice.Loading;

/// <summary>
/// Writes a safetensors file: first <see cref="AddMetadata"/> and <see cref="AddTensor"/>, then the bytes of each tensor in the order of
/// declaration by <see cref="Write"/>, then <see cref="Finish"/>. Tensor bytes are streamed, never kept.
/// </summary>
public sealed class SafetensorsWriter
{
    private readonly Stream _stream;
    private readonly SortedDictionary<string, string> _metadata = new(StringComparer.Ordinal);
    private readonly List<(string Name, string DType, long[] Shape, long Bytes)> _tensors = [];
    private readonly HashSet<string> _names = new(StringComparer.Ordinal);
    private long _total;
    private long _written = -1; // bytes of data; -1 before the header

    /// <summary>Makes a writer on a stream, which stays the caller's and need not seek.</summary>
    public SafetensorsWriter(Stream stream) => _stream = stream;

    /// <summary>Adds a free text under <c>__metadata__</c>.</summary>
    /// <exception cref="ArgumentException">The key was added before.</exception>
    /// <exception cref="InvalidOperationException">Tensor bytes have been written.</exception>
    public void AddMetadata(string key, string value)
    {
        RequireOpen();
        if (!_metadata.TryAdd(key, value))
        {
            throw new ArgumentException($"metadata key '{key}' was added before", nameof(key));
        }
    }

    /// <summary>Declares a tensor; the contiguous dimension comes last.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="dtype">The element type as the format names it, of whole bytes.</param>
    /// <param name="shape">The sizes.</param>
    /// <exception cref="ArgumentException">The name is taken, the type is not known, or a size is not positive.</exception>
    /// <exception cref="InvalidOperationException">Tensor bytes have been written.</exception>
    public void AddTensor(string name, string dtype, params ReadOnlySpan<long> shape)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        RequireOpen();
        int bytes = SafetensorsFile.BitsOf(dtype) / 8;
        if (bytes == 0)
        {
            throw new ArgumentException($"tensor '{name}': dtype '{dtype}' is not known", nameof(dtype));
        }

        if (name == "__metadata__" || !_names.Add(name))
        {
            throw new ArgumentException($"tensor name '{name}' is taken", nameof(name));
        }

        long size = bytes;
        foreach (long extent in shape)
        {
            ArgumentOutOfRangeException.ThrowIfNegativeOrZero(extent, nameof(shape));
            size = checked(size * extent);
        }

        _tensors.Add((name, dtype, shape.ToArray(), size));
        _total = checked(_total + size);
    }

    /// <summary>Writes the next bytes of the current tensor.</summary>
    /// <exception cref="InvalidOperationException">More bytes come than the declared tensors have.</exception>
    /// <exception cref="IOException">The stream cannot be written.</exception>
    public void Write(ReadOnlySpan<byte> bytes)
    {
        Start();
        if (bytes.Length > _total - _written)
        {
            throw new InvalidOperationException($"{bytes.Length - (_total - _written):N0} bytes more than the {_tensors.Count:N0} declared tensors have");
        }

        _stream.Write(bytes);
        _written += bytes.Length;
    }

    /// <summary>Writes what is left of the header and flushes the stream.</summary>
    /// <exception cref="InvalidOperationException">A tensor's bytes are missing.</exception>
    /// <exception cref="IOException">The stream cannot be written.</exception>
    public void Finish()
    {
        Start();
        if (_written != _total)
        {
            throw new InvalidOperationException($"{_total - _written:N0} of the declared tensors' {_total:N0} bytes are missing");
        }

        _stream.Flush();
    }

    private void RequireOpen()
    {
        if (_written >= 0)
        {
            throw new InvalidOperationException("the header has been written");
        }
    }

    private void Start()
    {
        if (_written >= 0)
        {
            return;
        }

        ArrayBufferWriter<byte> header = new();
        using (Utf8JsonWriter json = new(header))
        {
            json.WriteStartObject();
            if (_metadata.Count > 0)
            {
                json.WriteStartObject("__metadata__");
                foreach ((string key, string value) in _metadata)
                {
                    json.WriteString(key, value);
                }

                json.WriteEndObject();
            }

            long offset = 0;
            foreach ((string name, string dtype, long[] shape, long bytes) in _tensors)
            {
                json.WriteStartObject(name);
                json.WriteString("dtype", dtype);
                json.WriteStartArray("shape");
                Array.ForEach(shape, json.WriteNumberValue);
                json.WriteEndArray();
                json.WriteStartArray("data_offsets");
                json.WriteNumberValue(offset);
                json.WriteNumberValue(offset += bytes);
                json.WriteEndArray();
                json.WriteEndObject();
            }

            json.WriteEndObject();
        }

        // Blanks behind the header keep the data on a multiple of 8 bytes.
        int length = (header.WrittenCount + 7) / 8 * 8;
        Span<byte> prefix = stackalloc byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(prefix, length);
        _stream.Write(prefix);
        _stream.Write(header.WrittenSpan);
        _stream.Write("       "u8[..(length - header.WrittenCount)]);
        _written = 0;
    }
}
