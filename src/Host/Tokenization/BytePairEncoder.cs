using System.Runtime.InteropServices;

namespace Sluice.Tokenization;

/// <summary>Encodes words and remembers them. Holds its own buffers: one thread at a time.</summary>
internal sealed class BytePairEncoder(PreTokenizer preTokenizer, BytePairVocabulary vocabulary)
{
    private const int ShortWord = 48;
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
            _long.Merge(word, vocabulary, ids);
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

    // Few symbols: looking at all ranks for the least is faster than keeping a heap.
    private void MergeShort(ReadOnlySpan<byte> word, List<int> ids)
    {
        Span<int> tokens = stackalloc int[ShortWord];
        Span<int> ranks = stackalloc int[ShortWord];
        Span<int> merged = stackalloc int[ShortWord];
        int count = 0;
        foreach (byte b in word)
        {
            int id = vocabulary.ByteToken(b);
            if (id >= 0)
            {
                tokens[count++] = id;
            }
        }

        MergeTable merges = vocabulary.Merges;
        for (int i = 0; i + 1 < count; i++)
        {
            ranks[i] = merges.Find(tokens[i], tokens[i + 1], out merged[i]);
        }

        while (count > 1)
        {
            int best = 0;
            for (int i = 1; i < count - 1; i++)
            {
                if (ranks[i] < ranks[best])
                {
                    best = i;
                }
            }

            if (ranks[best] == MergeTable.None)
            {
                break;
            }

            tokens[best] = merged[best];
            int tail = count - best - 2;
            tokens.Slice(best + 2, tail).CopyTo(tokens[(best + 1)..]);
            ranks.Slice(best + 1, tail).CopyTo(ranks[best..]);
            merged.Slice(best + 1, tail).CopyTo(merged[best..]);
            count--;
            if (best > 0)
            {
                ranks[best - 1] = merges.Find(tokens[best - 1], tokens[best], out merged[best - 1]);
            }

            if (best + 1 < count)
            {
                ranks[best] = merges.Find(tokens[best], tokens[best + 1], out merged[best]);
            }
        }

        ids.AddRange(tokens[..count]);
    }
}

/// <summary>Merges words of any length in n log n: a linked list of symbols and a heap of (rank, place).</summary>
internal sealed class LongWordMerger(MergeTable merges)
{
    private const int Kept = 1 << 16;

    private int[] _tokens = [];
    private int[] _next = [];
    private int[] _previous = [];
    private int[] _ranks = []; // of the pair that begins at a symbol
    private int[] _merged = [];

    public void Merge(ReadOnlySpan<byte> word, BytePairVocabulary vocabulary, List<int> ids)
    {
        if (_tokens.Length < word.Length)
        {
            int size = Math.Max(word.Length, 1024);
            (_tokens, _next, _previous, _ranks, _merged) = (new int[size], new int[size], new int[size], new int[size], new int[size]);
        }

        int count = 0;
        foreach (byte b in word)
        {
            int id = vocabulary.ByteToken(b);
            if (id >= 0)
            {
                _tokens[count] = id;
                _previous[count] = count - 1;
                _next[count] = count + 1;
                count++;
            }
        }

        if (count == 0)
        {
            return;
        }

        _next[count - 1] = -1;
        _ranks[count - 1] = MergeTable.None;
        KeyHeap heap = new(count);
        for (int i = 0; i + 1 < count; i++)
        {
            Rank(i, heap);
        }

        while (heap.TryPop(out ulong key))
        {
            int rank = (int)(key >> 32);
            int left = (int)(uint)key;

            // A symbol that was merged away, or whose pair has changed since, has another rank.
            if (_ranks[left] != rank)
            {
                continue;
            }

            int right = _next[left];
            _tokens[left] = _merged[left];
            _ranks[right] = MergeTable.None;
            _next[left] = _next[right];
            if (_next[right] >= 0)
            {
                _previous[_next[right]] = left;
            }

            Rank(left, heap);
            if (_previous[left] >= 0)
            {
                Rank(_previous[left], heap);
            }
        }

        for (int i = 0; i >= 0; i = _next[i])
        {
            ids.Add(_tokens[i]);
        }

        if (_tokens.Length > Kept)
        {
            (_tokens, _next, _previous, _ranks, _merged) = ([], [], [], [], []);
        }
    }

    private void Rank(int left, KeyHeap heap)
    {
        int right = _next[left];
        _ranks[left] = right < 0 ? MergeTable.None : merges.Find(_tokens[left], _tokens[right], out _merged[left]);
        if (_ranks[left] != MergeTable.None)
        {
            heap.Push(((ulong)(uint)_ranks[left] << 32) | (uint)left);
        }
    }
}

/// <summary>A binary heap of 64-bit keys, the least on top.</summary>
internal sealed class KeyHeap(int capacity)
{
    private ulong[] _keys = new ulong[Math.Max(4, capacity)];
    private int _count;

    public void Push(ulong key)
    {
        if (_count == _keys.Length)
        {
            Array.Resize(ref _keys, _count * 2);
        }

        int at = _count++;
        while (at > 0)
        {
            int parent = (at - 1) / 2;
            if (_keys[parent] <= key)
            {
                break;
            }

            _keys[at] = _keys[parent];
            at = parent;
        }

        _keys[at] = key;
    }

    public bool TryPop(out ulong key)
    {
        if (_count == 0)
        {
            key = 0;
            return false;
        }

        key = _keys[0];
        ulong last = _keys[--_count];
        int at = 0;
        for (int child = 1; child < _count; child = (2 * at) + 1)
        {
            if (child + 1 < _count && _keys[child + 1] < _keys[child])
            {
                child++;
            }

            if (last <= _keys[child])
            {
                break;
            }

            _keys[at] = _keys[child];
            at = child;
        }

        _keys[at] = last;
        return true;
    }
}
