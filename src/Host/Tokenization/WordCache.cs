using System.Runtime.InteropServices;

namespace Sluice.Tokenization;

/// <summary>
/// Remembers the ids of words. Grows to 65,536 places, and forgets everything when its text is full or too many words found no place;
/// looks at a few places only, so that words of one hash cost no time.
/// </summary>
internal sealed class WordCache
{
    private const int MostSlots = 1 << 16;
    private const int Probes = 4;
    private const int MostBytes = 1 << 20;

    private readonly List<byte> _words = [];
    private readonly List<int> _ids = [];
    private Entry[] _entries = new Entry[256];
    private int _count;
    private int _refused;

    /// <summary>The ids of a word, where they are known; valid until the next <see cref="Add"/>.</summary>
    public bool TryGet(uint hash, ReadOnlySpan<byte> word, out ReadOnlySpan<int> ids)
    {
        ReadOnlySpan<byte> words = CollectionsMarshal.AsSpan(_words);
        Entry[] entries = _entries;
        for (uint probe = 0; probe < Probes; probe++)
        {
            ref readonly Entry entry = ref entries[(int)(hash + probe) & (entries.Length - 1)];
            if (entry.Hash == hash && entry.WordLength == word.Length && words.Slice(entry.WordStart, entry.WordLength).SequenceEqual(word))
            {
                ids = CollectionsMarshal.AsSpan(_ids).Slice(entry.IdStart, entry.IdCount);
                return true;
            }
        }

        ids = default;
        return false;
    }

    /// <summary>Remembers a word of 1 to 32,767 bytes that <see cref="TryGet"/> did not find.</summary>
    public void Add(uint hash, ReadOnlySpan<byte> word, ReadOnlySpan<int> ids)
    {
        if (_words.Count > MostBytes || _refused > MostSlots)
        {
            Array.Clear(_entries);
            _words.Clear();
            _ids.Clear();
            _count = 0;
            _refused = 0;
        }
        else if (_count > _entries.Length / 2 && _entries.Length < MostSlots)
        {
            Grow();
        }

        Entry entry = new() { Hash = hash, WordStart = _words.Count, WordLength = (short)word.Length, IdStart = _ids.Count, IdCount = (short)ids.Length };
        if (Place(_entries, entry))
        {
            _words.AddRange(word);
            _ids.AddRange(ids);
            _count++;
        }
        else
        {
            _refused++;
        }
    }

    private void Grow()
    {
        Entry[] larger = new Entry[_entries.Length * 4];
        foreach (Entry entry in _entries)
        {
            if (entry.WordLength > 0)
            {
                Place(larger, entry);
            }
        }

        _entries = larger;
    }

    private static bool Place(Entry[] entries, Entry entry)
    {
        for (uint probe = 0; probe < Probes; probe++)
        {
            ref Entry place = ref entries[(int)(entry.Hash + probe) & (entries.Length - 1)];
            if (place.WordLength == 0)
            {
                place = entry;
                return true;
            }
        }

        return false;
    }

    private struct Entry
    {
        public uint Hash;
        public int WordStart;
        public int IdStart;
        public short WordLength; // 0 where the place is empty
        public short IdCount;
    }
}
