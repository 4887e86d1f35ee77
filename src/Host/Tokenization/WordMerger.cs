namespace Sluice.Tokenization;

/// <summary>Merges words of few symbols: looking at all ranks for the least is faster than keeping a heap.</summary>
internal static class ShortWordMerger
{
    public const int MostSymbols = 48;

    /// <summary>Merges the first <paramref name="count"/> symbols of <paramref name="tokens"/>, and appends the tokens that are left.</summary>
    public static void Merge(MergeTable merges, Span<int> tokens, int count, List<int> ids)
    {
        Span<int> ranks = stackalloc int[MostSymbols];
        Span<int> merged = stackalloc int[MostSymbols];
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

    /// <summary>Room for a word's symbols, to be written before <see cref="Merge"/>.</summary>
    public Span<int> Begin(int most)
    {
        if (_tokens.Length < most)
        {
            int size = Math.Max(most, 1024);
            (_tokens, _next, _previous, _ranks, _merged) = (new int[size], new int[size], new int[size], new int[size], new int[size]);
        }

        return _tokens;
    }

    /// <summary>Merges the first symbols of what <see cref="Begin"/> gave, and appends the tokens that are left.</summary>
    public void Merge(int count, List<int> ids)
    {
        if (count == 0)
        {
            return;
        }

        for (int i = 0; i < count; i++)
        {
            _previous[i] = i - 1;
            _next[i] = i + 1;
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
