using System.Buffers.Binary;
using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>Reads the fields of a message in Protocol Buffers' wire format. Every length is held against the bytes that are left.</summary>
/// <param name="file">The file's path, for errors.</param>
/// <param name="message">The message's place in the file, for errors.</param>
/// <param name="bytes">The message.</param>
internal ref struct ProtobufReader(string file, string message, ReadOnlySpan<byte> bytes)
{
    private readonly ReadOnlySpan<byte> _bytes = bytes;
    private int _at;
    private Wire _wire;

    private enum Wire
    {
        Varint = 0,
        Fixed64 = 1,
        Bytes = 2,
        Fixed32 = 5,
    }

    /// <summary>The field's number.</summary>
    public int Field { get; private set; }

    /// <summary>Goes on to the next field, whose value is then read or skipped; false at the message's end.</summary>
    /// <exception cref="ModelFormatException">What stands there is no field.</exception>
    public bool Next()
    {
        if (_at == _bytes.Length)
        {
            return false;
        }

        ulong tag = Varint();
        _wire = (Wire)(tag & 7);
        if (tag >> 3 is 0 or > 0x1FFF_FFFF || _wire is not (Wire.Varint or Wire.Fixed64 or Wire.Bytes or Wire.Fixed32))
        {
            throw Error($"holds the tag {tag:N0}, which is no field");
        }

        Field = (int)(tag >> 3);
        return true;
    }

    /// <summary>The value of a field of bytes, text, or a message.</summary>
    /// <exception cref="ModelFormatException">The field is of another kind, or longer than what is left.</exception>
    public ReadOnlySpan<byte> ReadBytes()
    {
        Require(Wire.Bytes);
        ulong length = Varint();
        if (length > (ulong)(_bytes.Length - _at))
        {
            throw Error($"has a field {Field} of {length:N0} bytes, and {_bytes.Length - _at:N0} are left");
        }

        ReadOnlySpan<byte> value = _bytes.Slice(_at, (int)length);
        _at += value.Length;
        return value;
    }

    /// <summary>The value of a field of kind int32 or enum.</summary>
    /// <exception cref="ModelFormatException">The field is of another kind, or cut short.</exception>
    public int ReadInteger()
    {
        Require(Wire.Varint);
        return (int)Varint();
    }

    /// <summary>The value of a field of kind bool.</summary>
    /// <exception cref="ModelFormatException">The field is of another kind, or cut short.</exception>
    public bool ReadBoolean()
    {
        Require(Wire.Varint);
        return Varint() != 0;
    }

    /// <summary>The value of a field of kind float.</summary>
    /// <exception cref="ModelFormatException">The field is of another kind, or cut short.</exception>
    public float ReadFloat()
    {
        Require(Wire.Fixed32);
        return BinaryPrimitives.ReadSingleLittleEndian(Take(4));
    }

    /// <summary>Goes over the field's value, whatever it is.</summary>
    /// <exception cref="ModelFormatException">It is cut short.</exception>
    public void Skip()
    {
        switch (_wire)
        {
            case Wire.Varint:
                Varint();
                break;
            case Wire.Bytes:
                ReadBytes();
                break;
            default:
                Take(_wire == Wire.Fixed32 ? 4 : 8);
                break;
        }
    }

    private ReadOnlySpan<byte> Take(int count)
    {
        if (count > _bytes.Length - _at)
        {
            throw Error($"has a field {Field} of {count} bytes, and {_bytes.Length - _at:N0} are left");
        }

        _at += count;
        return _bytes.Slice(_at - count, count);
    }

    private ulong Varint()
    {
        ulong value = 0;
        for (int shift = 0; shift < 64; shift += 7)
        {
            if (_at == _bytes.Length)
            {
                throw Error("ends within a number");
            }

            byte next = _bytes[_at++];
            value |= (ulong)(next & 0x7F) << shift;
            if (next < 0x80)
            {
                return value;
            }
        }

        throw Error("holds a number of more than 64 bits");
    }

    private readonly void Require(Wire wire)
    {
        if (_wire != wire)
        {
            throw Error($"has a field {Field} of kind {_wire}, and {wire} is expected");
        }
    }

    private readonly ModelFormatException Error(string detail) => new(file, message, $"{detail}, at byte {_at:N0}");
}
