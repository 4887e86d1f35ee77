using System.Text;

namespace Sluice.Tests.Host;

/// <summary>Writes a GGUF file field by field, so that any of them can be wrong.</summary>
internal sealed class RawGguf
{
    private readonly List<byte> _bytes = [];

    public RawGguf(uint version = 3, ulong tensors = 0, ulong keys = 0)
    {
        _bytes.AddRange("GGUF"u8);
        U32(version).U64(tensors).U64(keys);
    }

    public RawGguf U8(byte value)
    {
        _bytes.Add(value);
        return this;
    }

    public RawGguf U32(uint value)
    {
        _bytes.AddRange(BitConverter.GetBytes(value));
        return this;
    }

    public RawGguf U64(ulong value)
    {
        _bytes.AddRange(BitConverter.GetBytes(value));
        return this;
    }

    public RawGguf Text(string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        U64((ulong)bytes.Length);
        _bytes.AddRange(bytes);
        return this;
    }

    public RawGguf Raw(params byte[] bytes)
    {
        _bytes.AddRange(bytes);
        return this;
    }

    public RawGguf KeyU32(string key, uint value) => Text(key).U32(4).U32(value);

    public RawGguf Tensor(string name, uint type, ulong offset, params ulong[] dimensions)
    {
        Text(name).U32((uint)dimensions.Length);
        foreach (ulong size in dimensions)
        {
            U64(size);
        }

        return U32(type).U64(offset);
    }

    /// <summary>Zeros up to the alignment of 32, and then so many bytes.</summary>
    public RawGguf Data(int bytes)
    {
        _bytes.AddRange(new byte[(-_bytes.Count & 31) + bytes]);
        return this;
    }

    public void Save(string path) => File.WriteAllBytes(path, [.. _bytes]);
}
