using Sluice.Paging;

namespace Sluice.Scheduling;

/// <summary>What a full page holds, by name: the page, and which of all contents that pages ever held it is. The name of a page that was evicted is nobody's.</summary>
internal readonly record struct PageContent(int Page, long Ordinal)
{
    /// <summary>What stands before a sequence's first page.</summary>
    public static PageContent None => new(-1, 0);
}

/// <summary>
/// Full pages by their contents: the tokens in them and in all pages before them. A page is looked up by a hash of the one before it, its tokens and the sequence's
/// salt, and believed once all of these have been compared, so no collision gives a wrong page. What nobody uses stays until the pool wants the page; tables release
/// their last page first, so what is evicted first is what the fewest share. All memory is taken at the start. (Hashed blocks as in vLLM's automatic prefix caching, 2023.)
/// </summary>
internal sealed class PrefixCache
{
    private readonly BlockPool _pool;
    private readonly ulong _hashMask;
    private readonly int[] _heads = [], _next = []; // buckets: the first page of each, and the page behind each; -1: none
    private readonly int[] _tokens = [], _classes = [], _found = []; // [pages, P]; [pages]; [pages], of the last match
    private readonly ulong[] _hashes = [], _salts = [];
    private readonly long[] _ordinals = [], _parents = []; // 0: the page is not here; 0: it is a first page
    private long _lastOrdinal;

    /// <summary>Makes a cache over the pages of a pool.</summary>
    /// <param name="pool">Which keeps pages for nobody else.</param>
    /// <param name="enabled">False: nothing is ever found.</param>
    /// <param name="hashMask">Bits of the hash that are used: fewer than all for tests alone, which want collisions.</param>
    public PrefixCache(BlockPool pool, bool enabled = true, ulong hashMask = ulong.MaxValue)
    {
        (_pool, Enabled, _hashMask) = (pool, enabled, hashMask);
        if (!enabled)
        {
            return;
        }

        int pages = pool.PageCount;
        _heads = new int[(int)System.Numerics.BitOperations.RoundUpToPowerOf2((uint)Math.Max(1, pages))];
        Array.Fill(_heads, -1);
        (_next, _classes, _found) = (new int[pages], new int[pages], new int[pages]);
        _tokens = new int[checked(pages * pool.PageSize)];
        (_hashes, _salts, _ordinals, _parents) = (new ulong[pages], new ulong[pages], new long[pages], new long[pages]);
        pool.AllowKeeping(Forget);
    }

    /// <summary>Whether pages are found at all.</summary>
    public bool Enabled { get; }

    /// <summary>Tokens that admitted sequences found here.</summary>
    public long HitTokens { get; private set; }

    /// <summary>Tokens that admitted sequences had.</summary>
    public long QueriedTokens { get; private set; }

    /// <summary>Pages whose contents were given up because the pool had no other.</summary>
    public long Evictions { get; private set; }

    /// <summary>Finds the pages that a sequence begins with, <paramref name="most"/> at most. They may be evicted by the next allocation unless they are used before.</summary>
    /// <returns>How many there are: the first so many of <see cref="Found"/>, and what the last of them holds.</returns>
    public int Match(Sequence sequence, int most, out PageContent last)
    {
        last = PageContent.None;
        if (!Enabled)
        {
            return 0;
        }

        for (int i = 0; i < most; i++)
        {
            int page = Find(sequence, i, last.Ordinal);
            if (page < 0)
            {
                return i;
            }

            last = new PageContent(page, _ordinals[page]);
            _found[i] = page;
        }

        return Math.Max(most, 0);
    }

    /// <summary>The pages of the last <see cref="Match"/>.</summary>
    public ReadOnlySpan<int> Found(int count) => _found.AsSpan(0, count);

    /// <summary>Counts an admission.</summary>
    public void Count(int queriedTokens, int hitTokens)
    {
        QueriedTokens += queriedTokens;
        HitTokens += hitTokens;
    }

    /// <summary>Makes the full pages of a sequence's table known, those that this step fills too. Where the same contents are known already, that page stays the one.</summary>
    public void Register(Sequence sequence)
    {
        if (!Enabled)
        {
            return;
        }

        int full = sequence.Table.Length / _pool.PageSize;
        if (sequence.ChainedPages > 0 && _ordinals[sequence.Chained.Page] != sequence.Chained.Ordinal)
        {
            // The page before was evicted: it was another than the sequence's own, which can take its place. Further up this goes unnoticed, and what follows is not
            // found until somebody computes it again: hits are lost, and nothing is wrong.
            (sequence.ChainedPages, sequence.Chained) = (0, PageContent.None);
        }

        for (int i = sequence.ChainedPages; i < full; i++)
        {
            int page = Find(sequence, i, sequence.Chained.Ordinal);
            if (page >= 0)
            {
                _pool.Touch(page);
            }
            else
            {
                page = sequence.Table.Pages[i];
                Insert(page, sequence, i);
            }

            (sequence.ChainedPages, sequence.Chained) = (i + 1, new PageContent(page, _ordinals[page]));
        }
    }

    /// <summary>Forgets all pages: those that nobody uses are free.</summary>
    public void Clear()
    {
        for (int page = 0; page < _ordinals.Length; page++)
        {
            if (_ordinals[page] != 0)
            {
                Unlink(page);
                _pool.LetGo(page);
            }
        }
    }

    private int Find(Sequence sequence, int index, long parent)
    {
        ulong hash = sequence.HashOf(index) & _hashMask;
        ReadOnlySpan<int> tokens = sequence.Tokens.Slice(index * _pool.PageSize, _pool.PageSize);
        for (int page = _heads[Bucket(hash)]; page >= 0; page = _next[page])
        {
            // The parent is one content, not one hash, so equal pages have all tokens before them in common.
            if (_hashes[page] == hash && _parents[page] == parent && _salts[page] == sequence.Salt && _classes[page] == sequence.Class
                && tokens.SequenceEqual(TokensOf(page)))
            {
                return page;
            }
        }

        return -1;
    }

    private void Insert(int page, Sequence sequence, int index)
    {
        if (_ordinals[page] != 0)
        {
            Unlink(page); // it stood behind a page that was evicted, where nobody can find it
        }

        ulong hash = sequence.HashOf(index) & _hashMask;
        (_hashes[page], _parents[page], _salts[page], _classes[page]) = (hash, sequence.Chained.Ordinal, sequence.Salt, sequence.Class);
        sequence.Tokens.Slice(index * _pool.PageSize, _pool.PageSize).CopyTo(TokensOf(page));
        _ordinals[page] = ++_lastOrdinal;
        ref int head = ref _heads[Bucket(hash)];
        (_next[page], head) = (head, page);
        _pool.Keep(page);
    }

    private void Forget(int page)
    {
        Unlink(page);
        Evictions++;
    }

    private void Unlink(int page)
    {
        ref int at = ref _heads[Bucket(_hashes[page])];
        while (at != page)
        {
            at = ref _next[at];
        }

        at = _next[page];
        _ordinals[page] = 0;
    }

    private int Bucket(ulong hash) => (int)(hash & (ulong)(_heads.Length - 1));

    private Span<int> TokensOf(int page) => _tokens.AsSpan(page * _pool.PageSize, _pool.PageSize);
}
