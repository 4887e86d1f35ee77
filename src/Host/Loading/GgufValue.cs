using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;

namespace Sluice.Loading;

#pragma warning disable CA1720 // the names are the format's
/// <summary>The type of a metadata value; the numbers are GGUF's own.</summary>
public enum GgufValueType
{
    /// <summary>Unsigned byte.</summary>
    UInt8 = 0,

    /// <summary>Signed byte.</summary>
    Int8 = 1,

    /// <summary>Unsigned 16 bits.</summary>
    UInt16 = 2,

    /// <summary>Signed 16 bits.</summary>
    Int16 = 3,

    /// <summary>Unsigned 32 bits.</summary>
    UInt32 = 4,

    /// <summary>Signed 32 bits.</summary>
    Int32 = 5,

    /// <summary>32-bit IEEE float.</summary>
    Float32 = 6,

    /// <summary>One byte, 0 or 1.</summary>
    Bool = 7,

    /// <summary>A 64-bit length and that many bytes, UTF-8 by intent.</summary>
    String = 8,

    /// <summary>An element type, a 64-bit count, and the elements.</summary>
    Array = 9,

    /// <summary>Unsigned 64 bits.</summary>
    UInt64 = 10,

    /// <summary>Signed 64 bits.</summary>
    Int64 = 11,

    /// <summary>64-bit IEEE float.</summary>
    Float64 = 12,
}
#pragma warning restore CA1720

/// <summary>
/// One metadata value. It keeps the bytes of the file, little-endian, so that strings which are not UTF-8 and
/// nested arrays survive, and a written file equals the one that was read.
/// </summary>
public sealed class GgufValue
{
    private readonly byte[] _bytes;

    internal GgufValue(GgufValueType type, GgufValueType elementType, long count, byte[] bytes)
    {
        Type = type;
        ElementType = elementType;
        Count = count;
        _bytes = bytes;
    }

    /// <summary>The value's type.</summary>
    public GgufValueType Type { get; }

    /// <summary>For an array the type of its elements, else <see cref="Type"/>.</summary>
    public GgufValueType ElementType { get; }

    /// <summary>For an array its number of elements, else 1.</summary>
    public long Count { get; }

    /// <summary>
    /// A scalar's bytes; a string's bytes without its length; an array's elements as the file has them (strings with
    /// their 8-byte lengths, nested arrays with their 12-byte headers).
    /// </summary>
    public ReadOnlySpan<byte> Bytes => _bytes;

    /// <summary>Bytes of one value of a fixed-size type, or 0 for strings and arrays.</summary>
    public static int FixedSize(GgufValueType type) => type switch
    {
        GgufValueType.UInt8 or GgufValueType.Int8 or GgufValueType.Bool => 1,
        GgufValueType.UInt16 or GgufValueType.Int16 => 2,
        GgufValueType.UInt32 or GgufValueType.Int32 or GgufValueType.Float32 => 4,
        GgufValueType.UInt64 or GgufValueType.Int64 or GgufValueType.Float64 => 8,
        _ => 0,
    };

    /// <summary>Makes a value of 32 unsigned bits.</summary>
    public static GgufValue Of(uint value) => Scalar(GgufValueType.UInt32, MemoryMarshal.AsBytes(new ReadOnlySpan<uint>(in value)));

    /// <summary>Makes a value of 32 signed bits.</summary>
    public static GgufValue Of(int value) => Scalar(GgufValueType.Int32, MemoryMarshal.AsBytes(new ReadOnlySpan<int>(in value)));

    /// <summary>Makes a value of 64 unsigned bits.</summary>
    public static GgufValue Of(ulong value) => Scalar(GgufValueType.UInt64, MemoryMarshal.AsBytes(new ReadOnlySpan<ulong>(in value)));

    /// <summary>Makes a 32-bit float value.</summary>
    public static GgufValue Of(float value) => Scalar(GgufValueType.Float32, MemoryMarshal.AsBytes(new ReadOnlySpan<float>(in value)));

    /// <summary>Makes a boolean value.</summary>
    public static GgufValue Of(bool value) => new(GgufValueType.Bool, GgufValueType.Bool, 1, [value ? (byte)1 : (byte)0]);

    /// <summary>Makes a string value.</summary>
    public static GgufValue Of(string value) => new(GgufValueType.String, GgufValueType.String, 1, Encoding.UTF8.GetBytes(value));

    /// <summary>Makes an array of 32-bit integers.</summary>
    public static GgufValue OfArray(ReadOnlySpan<int> values) =>
        new(GgufValueType.Array, GgufValueType.Int32, values.Length, MemoryMarshal.AsBytes(values).ToArray());

    /// <summary>Makes an array of 32-bit floats.</summary>
    public static GgufValue OfArray(ReadOnlySpan<float> values) =>
        new(GgufValueType.Array, GgufValueType.Float32, values.Length, MemoryMarshal.AsBytes(values).ToArray());

    /// <summary>Makes an array of booleans.</summary>
    public static GgufValue OfArray(ReadOnlySpan<bool> values) =>
        new(GgufValueType.Array, GgufValueType.Bool, values.Length, MemoryMarshal.AsBytes(values).ToArray());

    /// <summary>Makes an array of strings.</summary>
    public static GgufValue OfArray(IReadOnlyCollection<string> values)
    {
        using MemoryStream bytes = new();
        Span<byte> length = stackalloc byte[8];
        foreach (string value in values)
        {
            byte[] text = Encoding.UTF8.GetBytes(value);
            BinaryPrimitives.WriteInt64LittleEndian(length, text.Length);
            bytes.Write(length);
            bytes.Write(text);
        }

        return new GgufValue(GgufValueType.Array, GgufValueType.String, values.Count, bytes.ToArray());
    }

    /// <summary>The value as a signed 64-bit integer, where it is an integer that fits.</summary>
    public bool TryGetInteger(out long value)
    {
        value = 0;
        return Type != GgufValueType.Array && TryGetInteger(Type, _bytes, out value);
    }

    /// <summary>The value as a double, where it is a float or an integer.</summary>
    public bool TryGetNumber(out double value)
    {
        switch (Type)
        {
            case GgufValueType.Float32:
                value = BinaryPrimitives.ReadSingleLittleEndian(_bytes);
                return true;
            case GgufValueType.Float64:
                value = BinaryPrimitives.ReadDoubleLittleEndian(_bytes);
                return true;
            default:
                bool isInteger = TryGetInteger(out long integer);
                value = integer;
                return isInteger;
        }
    }

    /// <summary>The value as a boolean, where it is one.</summary>
    public bool TryGetBoolean(out bool value)
    {
        value = Type == GgufValueType.Bool && _bytes[0] != 0;
        return Type == GgufValueType.Bool;
    }

    /// <summary>The value as text, where it is a string; bytes that are not UTF-8 become U+FFFD.</summary>
    public bool TryGetText(out string value)
    {
        value = Type == GgufValueType.String ? Encoding.UTF8.GetString(_bytes) : "";
        return Type == GgufValueType.String;
    }

    /// <summary>An array's elements as 64-bit integers, where they are integers that fit.</summary>
    public bool TryGetIntegers(out long[] values)
    {
        values = [];
        int size = FixedSize(ElementType);
        if (Type != GgufValueType.Array || size == 0)
        {
            return false;
        }

        long[] all = new long[Count];
        for (int i = 0; i < all.Length; i++)
        {
            if (!TryGetInteger(ElementType, _bytes.AsSpan(i * size, size), out all[i]))
            {
                return false;
            }
        }

        values = all;
        return true;
    }

    /// <summary>An array's elements as floats, where they are 32-bit floats.</summary>
    public bool TryGetFloats(out float[] values)
    {
        values = [];
        if (Type != GgufValueType.Array || ElementType != GgufValueType.Float32)
        {
            return false;
        }

        values = MemoryMarshal.Cast<byte, float>(_bytes).ToArray();
        return true;
    }

    /// <summary>Walks the strings of an array of strings; each is given as its bytes.</summary>
    /// <exception cref="InvalidOperationException">The value is no array of strings.</exception>
    public StringEnumerator EnumerateStrings() => Type == GgufValueType.Array && ElementType == GgufValueType.String
        ? new StringEnumerator(_bytes)
        : throw new InvalidOperationException($"the value is {Describe()}, not an array of strings");

    /// <summary>The type in words: <c>UInt32</c>, <c>array of 512 String</c>.</summary>
    public string Describe() => Type == GgufValueType.Array ? $"array of {Count:N0} {ElementType}" : Type.ToString();

    /// <summary>The value in words, arrays by their type and count.</summary>
    public override string ToString()
    {
        if (TryGetText(out string text))
        {
            return text;
        }

        if (TryGetBoolean(out bool flag))
        {
            return flag ? "true" : "false";
        }

        if (Type == GgufValueType.Float32)
        {
            return BinaryPrimitives.ReadSingleLittleEndian(_bytes).ToString("R", System.Globalization.CultureInfo.InvariantCulture);
        }

        if (Type == GgufValueType.UInt64)
        {
            return BinaryPrimitives.ReadUInt64LittleEndian(_bytes).ToString(System.Globalization.CultureInfo.InvariantCulture);
        }

        return TryGetInteger(out long integer) ? integer.ToString(System.Globalization.CultureInfo.InvariantCulture)
            : TryGetNumber(out double number) ? number.ToString("R", System.Globalization.CultureInfo.InvariantCulture)
            : Describe();
    }

    private static GgufValue Scalar(GgufValueType type, ReadOnlySpan<byte> bytes) => new(type, type, 1, bytes.ToArray());

    private static bool TryGetInteger(GgufValueType type, ReadOnlySpan<byte> bytes, out long value)
    {
        value = type switch
        {
            GgufValueType.UInt8 => bytes[0],
            GgufValueType.Int8 => (sbyte)bytes[0],
            GgufValueType.UInt16 => BinaryPrimitives.ReadUInt16LittleEndian(bytes),
            GgufValueType.Int16 => BinaryPrimitives.ReadInt16LittleEndian(bytes),
            GgufValueType.UInt32 => BinaryPrimitives.ReadUInt32LittleEndian(bytes),
            GgufValueType.Int32 => BinaryPrimitives.ReadInt32LittleEndian(bytes),
            GgufValueType.UInt64 or GgufValueType.Int64 => BinaryPrimitives.ReadInt64LittleEndian(bytes),
            _ => 0,
        };
        return type switch
        {
            GgufValueType.UInt64 => value >= 0,
            GgufValueType.Bool or GgufValueType.Float32 or GgufValueType.Float64 or GgufValueType.String or GgufValueType.Array => false,
            _ => true,
        };
    }

    /// <summary>Walks length-prefixed strings.</summary>
    public ref struct StringEnumerator
    {
        private ReadOnlySpan<byte> _rest;

        internal StringEnumerator(ReadOnlySpan<byte> bytes)
        {
            _rest = bytes;
            Current = default;
        }

        /// <summary>The bytes of the current string.</summary>
        public ReadOnlySpan<byte> Current { get; private set; }

        /// <summary>This, so that <c>foreach</c> takes it.</summary>
        public readonly StringEnumerator GetEnumerator() => this;

        /// <summary>Goes to the next string; false after the last.</summary>
        public bool MoveNext()
        {
            if (_rest.IsEmpty)
            {
                return false;
            }

            int length = (int)BinaryPrimitives.ReadInt64LittleEndian(_rest);
            Current = _rest.Slice(8, length);
            _rest = _rest[(8 + length)..];
            return true;
        }
    }
}
