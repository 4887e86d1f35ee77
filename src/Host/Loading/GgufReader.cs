using System.Buffers.Binary;
using System.Collections.Immutable;
using System.Text;

namespace Sluice.Loading;

/// <summary>Parses a GGUF header. Nothing in the file is believed before it is checked against the bytes that are there.</summary>
internal sealed class GgufReader(FileSource source)
{
    // Far above what models have (hundreds of keys, tens of thousands of tensors), and small enough that a hostile count costs little memory.
    private const long MostKeys = 65_536;
    private const long MostTensors = 131_072;
    private const int MostKeyBytes = 65_535;
    private const int MostNameBytes = 64;
    private const int MostDimensions = 4;
    private const int MostNesting = 4;
    private const int MostAlignment = 1 << 20;
    private const int DefaultAlignment = 32;

    private static readonly UTF8Encoding Strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    private readonly byte[] _window = new byte[64 * 1024];
    private long _windowStart;
    private int _windowLength;
    private long _position;

    public uint Version { get; private set; }

    public int Alignment { get; private set; } = DefaultAlignment;

    /// <summary>File offset of the first byte after the tensor table, rounded up to the alignment.</summary>
    public long DataStart { get; private set; }

    public GgufMetadata Metadata { get; } = new(source.Path);

    public List<GgufTensor> Tensors { get; } = [];

    private long Remaining => source.Length - _position;

    public void Parse()
    {
        if (source.Length < 24)
        {
            throw Malformed("header", $"is {source.Length:N0} bytes, and a GGUF header alone needs 24");
        }

        ReadOnlySpan<byte> magic = Take(4, "magic");
        if (!magic.SequenceEqual("GGUF"u8))
        {
            throw Malformed("magic", $"is {Convert.ToHexString(magic)}, and a GGUF file begins with 47475546 ('GGUF')");
        }

        Version = ReadUInt32("version");
        if ((Version & 0xFFFF) == 0 && Version != 0)
        {
            throw new UnsupportedModelException(source.Path, "version", $"{BinaryPrimitives.ReverseEndianness(Version)} in big-endian byte order; only little-endian files are read");
        }

        if (Version is not (2 or 3))
        {
            throw new UnsupportedModelException(source.Path, "version", $"is {Version:N0}, and versions 2 and 3 are read");
        }

        long tensorCount = ReadCount("tensor count", 33, MostTensors);
        long keyCount = ReadCount("metadata count", 14, MostKeys);
        for (long i = 0; i < keyCount; i++)
        {
            ReadEntry(i);
        }

        ReadAlignment();
        ReadTensors(tensorCount);
    }

    private void ReadEntry(long index)
    {
        string key = ReadName($"metadata key {index:N0}", MostKeyBytes);
        GgufValueType type = ReadValueType(key);
        GgufValue value;
        if (type == GgufValueType.Array)
        {
            value = ReadArray(key);
        }
        else if (type == GgufValueType.String)
        {
            value = new GgufValue(type, type, 1, Copy(ReadLength(key, Remaining - 8), key));
        }
        else
        {
            value = new GgufValue(type, type, 1, Take(GgufValue.FixedSize(type), key).ToArray());
            if (type == GgufValueType.Bool && value.Bytes[0] > 1)
            {
                throw Malformed(key, $"is a boolean of value {value.Bytes[0]}, and must be 0 or 1");
            }
        }

        if (!Metadata.TryAdd(key, value))
        {
            throw Malformed(key, "stands twice in the metadata");
        }
    }

    private GgufValue ReadArray(string key)
    {
        (GgufValueType element, long count) = ReadArrayHeader(key);
        long start = _position;
        SkipElements(key, element, count, 1);
        long end = _position;
        _position = start;
        return new GgufValue(GgufValueType.Array, element, count, Copy(end - start, key));
    }

    private (GgufValueType Element, long Count) ReadArrayHeader(string key)
    {
        GgufValueType element = ReadValueType(key);
        ulong count = ReadUInt64(key);
        int least = element switch
        {
            GgufValueType.String => 8,
            GgufValueType.Array => 12,
            _ => GgufValue.FixedSize(element),
        };
        if (count > (ulong)(Remaining / least))
        {
            throw Malformed(key, $"is an array of {count:N0} {element}, and the file has {Remaining:N0} bytes left");
        }

        return (element, (long)count);
    }

    private void SkipElements(string key, GgufValueType element, long count, int depth)
    {
        if (depth > MostNesting)
        {
            throw Malformed(key, $"nests arrays more than {MostNesting} deep");
        }

        int size = GgufValue.FixedSize(element);
        if (size != 0)
        {
            if (element == GgufValueType.Bool)
            {
                for (long i = 0; i < count; i++)
                {
                    byte value = Take(1, key)[0];
                    if (value > 1)
                    {
                        throw Malformed(key, $"holds a boolean of value {value} at {i:N0}, and must be 0 or 1");
                    }
                }

                return;
            }

            _position += count * size;
            return;
        }

        for (long i = 0; i < count; i++)
        {
            if (element == GgufValueType.String)
            {
                long length = ReadLength(key, Remaining - 8);
                _position += length;
            }
            else
            {
                (GgufValueType inner, long innerCount) = ReadArrayHeader(key);
                SkipElements(key, inner, innerCount, depth + 1);
            }
        }
    }

    private void ReadAlignment()
    {
        const string Key = "general.alignment";
        if (!Metadata.TryGet(Key, out GgufValue? value))
        {
            return;
        }

        if (value.Type != GgufValueType.UInt32)
        {
            throw Malformed(Key, $"is of type {value.Describe()}, and must be UInt32");
        }

        uint alignment = BinaryPrimitives.ReadUInt32LittleEndian(value.Bytes);
        if (alignment is 0 or > MostAlignment || (alignment & (alignment - 1)) != 0)
        {
            throw Malformed(Key, $"is {alignment:N0}, and must be a power of two up to {MostAlignment:N0}");
        }

        Alignment = (int)alignment;
    }

    private void ReadTensors(long count)
    {
        HashSet<string> names = new(StringComparer.Ordinal);
        for (long i = 0; i < count; i++)
        {
            GgufTensor tensor = ReadTensor(i);
            if (!names.Add(tensor.Name))
            {
                throw Malformed(Field(tensor.Name), "stands twice in the tensor table");
            }

            Tensors.Add(tensor);
        }

        DataStart = (_position + Alignment - 1) / Alignment * Alignment;
        CheckSpans();
    }

    // Leaves the offset relative to the data's start, which is known only after the last tensor.
    private GgufTensor ReadTensor(long index)
    {
        string name = ReadName($"tensor name {index:N0}", MostNameBytes);
        string field = Field(name);
        uint dimensionCount = ReadUInt32(field);
        if (dimensionCount is 0 or > MostDimensions)
        {
            throw Malformed(field, $"has {dimensionCount:N0} dimensions, and 1 to {MostDimensions} are allowed");
        }

        long[] sizes = new long[dimensionCount];
        long values = 1;
        for (int d = 0; d < sizes.Length; d++)
        {
            ulong size = ReadUInt64(field);
            if (size is 0 or > long.MaxValue)
            {
                throw Malformed(field, $"dimension {d} is {size:N0}, and must be positive and fit 63 bits");
            }

            sizes[d] = (long)size;
            Int128 product = (Int128)values * sizes[d];
            if (product > long.MaxValue)
            {
                throw Malformed(field, $"a shape of {GgufTensor.ShapeText(sizes.AsSpan(0, d + 1))} has more values than 63 bits count");
            }

            values = (long)product;
        }

        TensorType type = (TensorType)ReadUInt32(field);
        ulong offset = ReadUInt64(field);
        if (!TensorTypes.IsKnown(type))
        {
            throw new UnsupportedModelException(source.Path, field, $"its type number {(uint)type} is not known");
        }

        if (sizes[0] % TensorTypes.BlockValues(type) != 0)
        {
            throw Malformed(field, $"a row of {sizes[0]:N0} values is no whole number of {TensorTypes.Name(type)} blocks of {TensorTypes.BlockValues(type)}");
        }

        Int128 bytes = (Int128)(values / TensorTypes.BlockValues(type)) * TensorTypes.BlockBytes(type);
        if (bytes > source.Length)
        {
            throw Malformed(field, $"{GgufTensor.ShapeText(sizes)} {TensorTypes.Name(type)} needs {bytes:N0} bytes, the file has {source.Length:N0}");
        }

        if (offset > (ulong)source.Length)
        {
            throw Malformed(field, $"begins {offset:N0} bytes into the data, the file has {source.Length:N0} bytes");
        }

        return new GgufTensor(name, type, ImmutableArray.Create(sizes), (long)offset, (long)bytes);
    }

    private void CheckSpans()
    {
        for (int i = 0; i < Tensors.Count; i++)
        {
            GgufTensor tensor = Tensors[i];
            if (tensor.Offset % Alignment != 0)
            {
                throw Malformed(Field(tensor.Name), $"begins {tensor.Offset:N0} bytes into the data, which is no multiple of the alignment {Alignment:N0}");
            }

            long start = DataStart + tensor.Offset;
            long left = Math.Max(0, source.Length - start);
            if (tensor.ByteLength > left)
            {
                throw Malformed(Field(tensor.Name), $"{tensor.Shape} {TensorTypes.Name(tensor.Type)} needs {tensor.ByteLength:N0} bytes, the file has {left:N0} left");
            }

            Tensors[i] = tensor with { Offset = start };
        }

        GgufTensor[] byPlace = [.. Tensors];
        Array.Sort(byPlace, static (a, b) => a.Offset.CompareTo(b.Offset));
        for (int i = 1; i < byPlace.Length; i++)
        {
            GgufTensor before = byPlace[i - 1];
            if (before.Offset + before.ByteLength > byPlace[i].Offset)
            {
                throw Malformed(Field(byPlace[i].Name), $"begins at byte {byPlace[i].Offset:N0}, inside tensor '{before.Name}' which ends at {before.Offset + before.ByteLength:N0}");
            }
        }
    }

    private string ReadName(string field, int most)
    {
        long length = ReadLength(field, most);
        if (length == 0)
        {
            throw Malformed(field, "is empty");
        }

        byte[] bytes = Copy(length, field);
        try
        {
            return Strict.GetString(bytes);
        }
        catch (DecoderFallbackException e)
        {
            throw new ModelFormatException(source.Path, field, $"is not UTF-8: {Convert.ToHexString(bytes.AsSpan(0, Math.Min(bytes.Length, 64)))}", e);
        }
    }

    private long ReadLength(string field, long most)
    {
        ulong length = ReadUInt64(field);
        if (length > (ulong)Math.Max(0, Remaining))
        {
            throw Malformed(field, $"a string of {length:N0} bytes, and the file has {Remaining:N0} left");
        }

        return length <= (ulong)Math.Max(0, most) ? (long)length : throw Malformed(field, $"is {length:N0} bytes long, and at most {most:N0} are allowed");
    }

    private long ReadCount(string field, int leastBytes, long most)
    {
        ulong count = ReadUInt64(field);
        if (count > (ulong)(Remaining / leastBytes))
        {
            throw Malformed(field, $"is {count:N0}, and the {Remaining:N0} bytes left hold at most {Remaining / leastBytes:N0}");
        }

        return count <= (ulong)most ? (long)count : throw Malformed(field, $"is {count:N0}, and at most {most:N0} are allowed");
    }

    private GgufValueType ReadValueType(string key)
    {
        uint type = ReadUInt32(key);
        return type <= (uint)GgufValueType.Float64 ? (GgufValueType)type : throw Malformed(key, $"its value type {type:N0} is not known");
    }

    private uint ReadUInt32(string field) => BinaryPrimitives.ReadUInt32LittleEndian(Take(4, field));

    private ulong ReadUInt64(string field) => BinaryPrimitives.ReadUInt64LittleEndian(Take(8, field));

    private byte[] Copy(long length, string field)
    {
        if (length > Array.MaxLength)
        {
            throw Malformed(field, $"is {length:N0} bytes long, and at most {Array.MaxLength:N0} are read into memory");
        }

        if (length > Remaining)
        {
            throw Malformed(field, $"needs {length:N0} bytes, the file has {Remaining:N0} left");
        }

        byte[] bytes = new byte[length];
        source.Read(_position, bytes);
        _position += length;
        return bytes;
    }

    /// <summary>The next few bytes (at most a window), valid until the next call.</summary>
    private ReadOnlySpan<byte> Take(int count, string field)
    {
        if (count > Remaining)
        {
            throw Malformed(field, $"needs {count:N0} bytes at {_position:N0}, and the file ends at {source.Length:N0}");
        }

        if (_position < _windowStart || _position + count > _windowStart + _windowLength)
        {
            _windowStart = _position;
            _windowLength = (int)Math.Min(_window.Length, Remaining);
            source.Read(_windowStart, _window.AsSpan(0, _windowLength));
        }

        ReadOnlySpan<byte> taken = _window.AsSpan((int)(_position - _windowStart), count);
        _position += count;
        return taken;
    }

    private static string Field(string tensor) => $"tensor '{tensor}'";

    private ModelFormatException Malformed(string field, string detail) => new(source.Path, field, detail);
}
