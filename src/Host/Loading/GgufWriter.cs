using System.Text;

namespace Sluice.Loading;

/// <summary>
/// Writes a GGUF version 3 file: first <see cref="AddMetadata(string, GgufValue)"/> and <see cref="AddTensor"/>, then the bytes of each
/// tensor in the order of declaration by <see cref="Write"/>, then <see cref="Finish"/>. Tensor bytes are streamed, never kept.
/// </summary>
public sealed class GgufWriter
{
    private readonly Stream _stream;
    private readonly List<KeyValuePair<string, GgufValue>> _metadata = [];
    private readonly List<(string Name, TensorType Type, long[] Dimensions, long Bytes)> _tensors = [];
    private readonly HashSet<string> _names = new(StringComparer.Ordinal);
    private int _alignment = 32;
    private int _current = -1;
    private long _left;
    private bool _finished;

    /// <summary>Makes a writer on a stream, which stays the caller's and need not seek.</summary>
    public GgufWriter(Stream stream) => _stream = stream;

    /// <summary>Adds a metadata entry. <c>general.alignment</c> (UInt32, a power of two) sets the alignment, 32 bytes otherwise.</summary>
    /// <exception cref="ArgumentException">The key was added before, or an alignment is no power of two.</exception>
    /// <exception cref="InvalidOperationException">Tensor bytes have been written.</exception>
    public void AddMetadata(string key, GgufValue value)
    {
        ArgumentException.ThrowIfNullOrEmpty(key);
        RequireOpen();
        if (!_names.Add("k:" + key))
        {
            throw new ArgumentException($"metadata key '{key}' was added before", nameof(key));
        }

        if (key == "general.alignment")
        {
            if (value.Type != GgufValueType.UInt32 || !value.TryGetInteger(out long alignment) || alignment is 0 or > 1 << 20 || (alignment & (alignment - 1)) != 0)
            {
                throw new ArgumentException($"general.alignment must be a UInt32 power of two, and is {value}", nameof(value));
            }

            _alignment = (int)alignment;
        }

        _metadata.Add(new(key, value));
    }

    /// <summary>Declares a tensor; the contiguous dimension comes first.</summary>
    /// <exception cref="ArgumentException">The name is taken or longer than 64 bytes, or the shape does not fit the type.</exception>
    /// <exception cref="InvalidOperationException">Tensor bytes have been written.</exception>
    public void AddTensor(string name, TensorType type, params ReadOnlySpan<long> dimensions)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        RequireOpen();
        if (Encoding.UTF8.GetByteCount(name) > 64 || !_names.Add("t:" + name))
        {
            throw new ArgumentException($"tensor name '{name}' is taken or longer than 64 bytes", nameof(name));
        }

        if (dimensions.Length is 0 or > 4)
        {
            throw new ArgumentException($"tensor '{name}' has {dimensions.Length} dimensions, and 1 to 4 are allowed", nameof(dimensions));
        }

        long values = 1;
        foreach (long size in dimensions)
        {
            ArgumentOutOfRangeException.ThrowIfNegativeOrZero(size, nameof(dimensions));
            values = checked(values * size);
        }

        if (dimensions[0] % TensorTypes.BlockValues(type) != 0)
        {
            throw new ArgumentException($"tensor '{name}': a row of {dimensions[0]:N0} values is no whole number of {TensorTypes.Name(type)} blocks", nameof(dimensions));
        }

        _tensors.Add((name, type, dimensions.ToArray(), TensorTypes.Bytes(type, values)));
    }

    /// <summary>Writes the next bytes of the current tensor. All of its bytes must come before the next tensor's.</summary>
    /// <exception cref="InvalidOperationException">More bytes come than the declared tensors have.</exception>
    /// <exception cref="IOException">The stream cannot be written.</exception>
    public void Write(ReadOnlySpan<byte> bytes)
    {
        Start();
        while (!bytes.IsEmpty)
        {
            if (_current == _tensors.Count)
            {
                throw new InvalidOperationException($"{bytes.Length:N0} bytes more than the {_tensors.Count:N0} declared tensors have");
            }

            int part = (int)Math.Min(bytes.Length, _left);
            _stream.Write(bytes[..part]);
            bytes = bytes[part..];
            _left -= part;
            if (_left == 0)
            {
                Pad(_tensors[_current].Bytes);
                Next();
            }
        }
    }

    /// <summary>Writes what is left of the header and flushes the stream.</summary>
    /// <exception cref="InvalidOperationException">A tensor's bytes are missing.</exception>
    /// <exception cref="IOException">The stream cannot be written.</exception>
    public void Finish()
    {
        Start();
        if (_current != _tensors.Count)
        {
            throw new InvalidOperationException($"tensor '{_tensors[_current].Name}' lacks {_left:N0} of its {_tensors[_current].Bytes:N0} bytes");
        }

        _finished = true;
        _stream.Flush();
    }

    private void RequireOpen()
    {
        if (_current >= 0 || _finished)
        {
            throw new InvalidOperationException("the header has been written");
        }
    }

    private void Start()
    {
        if (_current >= 0)
        {
            return;
        }

        byte[] header = Header();
        _stream.Write(header);
        Pad(header.Length);
        Next();
    }

    private void Next()
    {
        _current++;
        _left = _current < _tensors.Count ? _tensors[_current].Bytes : 0;
    }

    private byte[] Header()
    {
        using MemoryStream bytes = new();
        using BinaryWriter writer = new(bytes);
        writer.Write("GGUF"u8);
        writer.Write(3u);
        writer.Write((ulong)_tensors.Count);
        writer.Write((ulong)_metadata.Count);
        foreach ((string key, GgufValue value) in _metadata)
        {
            WriteString(writer, key);
            writer.Write((uint)value.Type);
            switch (value.Type)
            {
                case GgufValueType.Array:
                    writer.Write((uint)value.ElementType);
                    writer.Write((ulong)value.Count);
                    break;
                case GgufValueType.String:
                    writer.Write((ulong)value.Bytes.Length);
                    break;
            }

            writer.Write(value.Bytes);
        }

        long offset = 0;
        foreach ((string name, TensorType type, long[] dimensions, long size) in _tensors)
        {
            WriteString(writer, name);
            writer.Write((uint)dimensions.Length);
            foreach (long dimension in dimensions)
            {
                writer.Write((ulong)dimension);
            }

            writer.Write((uint)type);
            writer.Write((ulong)offset);
            offset = checked((offset + size + _alignment - 1) / _alignment * _alignment);
        }

        writer.Flush();
        return bytes.ToArray();
    }

    private static void WriteString(BinaryWriter writer, string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        writer.Write((ulong)bytes.Length);
        writer.Write(bytes);
    }

    private void Pad(long written)
    {
        int padding = (int)(-written & (_alignment - 1));
        Span<byte> zeros = stackalloc byte[64];
        zeros.Clear();
        for (; padding > 0; padding -= Math.Min(padding, zeros.Length))
        {
            _stream.Write(zeros[..Math.Min(padding, zeros.Length)]);
        }
    }
}
