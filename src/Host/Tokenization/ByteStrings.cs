using System.Runtime.InteropServices;

namespace Sluice.Tokenization;

/// <summary>An immutable list of byte strings in one block of memory.</summary>
internal sealed class ByteStrings
{
    private readonly byte[] _bytes;
    private readonly int[] _ends;

    private ByteStrings(byte[] bytes, int[] ends)
    {
        _bytes = bytes;
        _ends = ends;
    }

    public int Count => _ends.Length;

    public ReadOnlySpan<byte> this[int index]
    {
        get
        {
            int start = index == 0 ? 0 : _ends[index - 1];
            return _bytes.AsSpan(start, _ends[index] - start);
        }
    }

    /// <summary>Collects strings; their bytes together must fit an array.</summary>
    internal sealed class Builder(int expectedCount)
    {
        private readonly List<byte> _bytes = new(Math.Min(expectedCount, 1 << 16) * 8);
        private readonly List<int> _ends = new(expectedCount);

        public void Add(ReadOnlySpan<byte> text)
        {
            _bytes.AddRange(text);
            _ends.Add(_bytes.Count);
        }

        public ByteStrings Build() => new([.. _bytes], [.. _ends]);
    }
}

/// <summary>Finds byte strings of a <see cref="ByteStrings"/> by their content: an open-addressed table, seeded so that no file can choose its collisions.</summary>
internal sealed class ByteStringIndex
{
    private static readonly ulong Seed = (ulong)Random.Shared.NextInt64();

    private readonly ByteStrings _strings;
    private readonly ulong[] _slots; // upper half: the hash; lower half: index + 1, or 0 where empty
    private readonly int _mask;

    public ByteStringIndex(ByteStrings strings)
    {
        _strings = strings;
        _slots = new ulong[System.Numerics.BitOperations.RoundUpToPowerOf2((uint)Math.Max(16, strings.Count + (strings.Count / 2)))];
        _mask = _slots.Length - 1;
    }

    /// <summary>Bytes of the longest string in the index.</summary>
    public int Longest { get; private set; }

    /// <summary>Adds string number <paramref name="index"/>; false where an equal one is there already.</summary>
    public bool TryAdd(int index)
    {
        ReadOnlySpan<byte> text = _strings[index];
        uint hash = Hash(text);
        int slot = (int)hash & _mask;
        for (; _slots[slot] != 0; slot = (slot + 1) & _mask)
        {
            if ((uint)(_slots[slot] >> 32) == hash && _strings[(int)(uint)_slots[slot] - 1].SequenceEqual(text))
            {
                return false;
            }
        }

        _slots[slot] = ((ulong)hash << 32) | (uint)(index + 1);
        Longest = Math.Max(Longest, text.Length);
        return true;
    }

    /// <summary>The number of the string that equals <paramref name="text"/>, or -1.</summary>
    public int Find(ReadOnlySpan<byte> text)
    {
        if (text.Length > Longest)
        {
            return -1;
        }

        uint hash = Hash(text);
        for (int slot = (int)hash & _mask; _slots[slot] != 0; slot = (slot + 1) & _mask)
        {
            if ((uint)(_slots[slot] >> 32) == hash && _strings[(int)(uint)_slots[slot] - 1].SequenceEqual(text))
            {
                return (int)(uint)_slots[slot] - 1;
            }
        }

        return -1;
    }

    /// <summary>A seeded hash by multiply and fold (as in wyhash), eight bytes a step.</summary>
    public static uint Hash(ReadOnlySpan<byte> text)
    {
        ulong state = Seed ^ (ulong)text.Length;
        while (text.Length >= 8)
        {
            state = Mix(state ^ MemoryMarshal.Read<ulong>(text));
            text = text[8..];
        }

        if (!text.IsEmpty)
        {
            ulong tail = 0;
            if (text.Length >= 4)
            {
                tail = MemoryMarshal.Read<uint>(text) | ((ulong)MemoryMarshal.Read<uint>(text[^4..]) << 32);
            }
            else
            {
                tail = text[0] | ((ulong)text[text.Length / 2] << 8) | ((ulong)text[^1] << 16);
            }

            state = Mix(state ^ tail);
        }

        return (uint)(state >> 32);
    }

    private static ulong Mix(ulong value)
    {
        ulong high = Math.BigMul(value ^ 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, out ulong low);
        return high ^ low;
    }
}
