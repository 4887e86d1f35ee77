using System.Runtime.InteropServices;

namespace Sluice.Tokenization;

/// <summary>Encodes words and remembers them. Holds its own buffers: one thread at a time.</summary>
internal sealed class BytePairEncoder(PreTokenizer preTokenizer, BytePairVocabulary vocabulary)
{
    private const int ShortWord = ShortWordMerger.MostSymbols;
    private const int LongestCached = 32;

    private readonly List<int> _ends = [];
    private readonly List<int> _scratch = [];
    private readonly WordCache _cache = new();
    private readonly LongWordMerger _long = new(vocabulary.Merges);

    public void Encode(ReadOnlySpan<byte> text, List<int> ids)
    {
        preTokenizer.Split(text, _ends, _scratch);
        int start = 0;
        foreach (int end in CollectionsMarshal.AsSpan(_ends))
        {
            EncodeWord(text[start..end], ids);
            start = end;
        }

        // A huge text must not leave its buffers behind for ever.
        if (_ends.Capacity > 1 << 20)
        {
            _ends.Clear();
            _scratch.Clear();
            _ends.Capacity = 0;
            _scratch.Capacity = 0;
        }
    }

    private void EncodeWord(ReadOnlySpan<byte> word, List<int> ids)
    {
        if (word.Length == 1)
        {
            AddByte(word[0], ids);
            return;
        }

        uint hash = 0;
        if (word.Length <= LongestCached)
        {
            hash = ByteStringIndex.Hash(word);
            if (_cache.TryGet(hash, word, out ReadOnlySpan<int> known))
            {
                ids.AddRange(known);
                return;
            }
        }

        int before = ids.Count;
        int whole = vocabulary.WholeWord(word);
        if (whole >= 0)
        {
            ids.Add(whole);
        }
        else if (word.Length <= ShortWord)
        {
            MergeShort(word, ids);
        }
        else
        {
            Span<int> symbols = _long.Begin(word.Length);
            int count = 0;
            foreach (byte b in word)
            {
                int id = vocabulary.ByteToken(b);
                if (id >= 0)
                {
                    symbols[count++] = id;
                }
            }

            _long.Merge(count, ids);
        }

        if (word.Length <= LongestCached)
        {
            _cache.Add(hash, word, CollectionsMarshal.AsSpan(ids)[before..]);
        }
    }

    private void AddByte(byte value, List<int> ids)
    {
        int id = vocabulary.ByteToken(value);
        if (id >= 0)
        {
            ids.Add(id);
        }
    }

    private void MergeShort(ReadOnlySpan<byte> word, List<int> ids)
    {
        Span<int> tokens = stackalloc int[ShortWord];
        int count = 0;
        foreach (byte b in word)
        {
            int id = vocabulary.ByteToken(b);
            if (id >= 0)
            {
                tokens[count++] = id;
            }
        }

        ShortWordMerger.Merge(vocabulary.Merges, tokens, count, ids);
    }
}
