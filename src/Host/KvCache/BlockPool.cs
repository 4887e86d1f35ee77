namespace Sluice.Paging;

/// <summary>More pages of the KV cache, or of the swap space, were wanted than are free. Nothing was taken.</summary>
public sealed class PagesExhaustedException(int wanted, int free, int total, string pool = "the KV cache") : Exception(
    $"{pool} is full: {wanted:N0} more pages wanted, {free:N0} of {total:N0} free")
{
    /// <summary>Pages that were wanted.</summary>
    public int Wanted { get; } = wanted;

    /// <summary>Pages that were free.</summary>
    public int Free { get; } = free;

    /// <summary>Pages of the pool.</summary>
    public int Total { get; } = total;
}

/// <summary>
/// Hands out the pages of a KV cache and counts who uses each: a page is free when its last user releases it. The page
/// released last is handed out first, as its memory is the likeliest to be in a cache. A page that somebody keeps (a prefix cache, for its contents)
/// is then cached instead: it can be used again as it is, until it is wanted and no free page is left. Not thread-safe: it belongs to one engine thread.
/// </summary>
public sealed class BlockPool
{
    private readonly int[] _references;
    private readonly int[] _free; // a stack; the top is at FreeCount - 1
    private readonly string _name;
    private readonly ByAge _cached = new();
    private bool[] _kept = []; // of each page, once anybody keeps pages
    private Action<int>? _evicted;

    /// <summary>Makes a pool of pages 0 to <paramref name="pageCount"/> - 1, all free, of P = <paramref name="pageSize"/> tokens each.</summary>
    /// <param name="pageCount">Pages.</param>
    /// <param name="pageSize">P.</param>
    /// <param name="name">What messages call it.</param>
    public BlockPool(int pageCount, int pageSize, string name = "the KV cache")
    {
        ArgumentOutOfRangeException.ThrowIfNegative(pageCount);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(pageSize);
        PageSize = pageSize;
        _name = name;
        _references = new int[pageCount];
        _free = new int[pageCount];
        FreeCount = pageCount;
        OfferLowestFirst();
    }

    /// <summary>P: tokens of a page.</summary>
    public int PageSize { get; }

    /// <summary>Pages, free or not.</summary>
    public int PageCount => _references.Length;

    /// <summary>Free pages: nobody uses them, and nobody wants what is in them.</summary>
    public int FreeCount { get; private set; }

    /// <summary>Pages that nobody uses and whose contents are kept for as long as no other page is free. Free, cached and used ones are all that there are.</summary>
    public int CachedCount => _cached.Count;

    /// <summary>Pages that can be taken: free ones, then cached ones.</summary>
    public int AvailableCount => FreeCount + CachedCount;

    /// <summary>Pages that hold <paramref name="tokens"/> tokens.</summary>
    public int PagesFor(int tokens) => (int)(((long)tokens + PageSize - 1) / PageSize);

    /// <summary>Takes as many pages as <paramref name="pages"/> is long, each with one user: all, or none.</summary>
    /// <exception cref="PagesExhaustedException">Fewer are free or cached.</exception>
    public void Allocate(Span<int> pages)
    {
        if (pages.Length > AvailableCount)
        {
            throw Exhausted(pages.Length);
        }

        for (int i = 0; i < pages.Length; i++)
        {
            int page = FreeCount > 0 ? _free[--FreeCount] : EvictOldest();
            _references[page] = 1;
            pages[i] = page;
        }
    }

    /// <summary>Adds a user to a page in use, or to a cached one, which is in use again.</summary>
    /// <exception cref="InvalidOperationException">The page is free.</exception>
    public void AddReference(int page)
    {
        if (ReferencesOf(page) == 0 && IsKept(page))
        {
            _cached.Remove(page);
            _references[page] = 1;
            return;
        }

        RequireUsed(page);
        _references[page] = checked(_references[page] + 1);
    }

    /// <summary>Takes a user from a page; the last one frees it, or leaves it cached where it is kept.</summary>
    /// <exception cref="InvalidOperationException">The page is free already.</exception>
    public void Release(int page)
    {
        RequireUsed(page);
        if (--_references[page] > 0)
        {
            return;
        }

        if (IsKept(page))
        {
            _cached.Add(page);
        }
        else
        {
            _free[FreeCount++] = page;
        }
    }

    /// <summary>Users of a page; 0 where it is free or cached.</summary>
    public int ReferencesOf(int page)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(page);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(page, PageCount);
        return _references[page];
    }

    /// <summary>
    /// Moves the pages in use to the lowest ids, so that the free ones stand together behind them, and makes the tables follow. As few pages move as can: those at
    /// or past the count of pages in use. Users and free counts stay as they are; the lowest free page is handed out next.
    /// </summary>
    /// <param name="tables">Every table that has pages of this pool, each once.</param>
    /// <returns>What <see cref="Interop.KvCache.CopyPages"/> has to copy, on the stream of the cache and before anything else is put there.</returns>
    /// <exception cref="ArgumentException">A table is of another pool.</exception>
    /// <exception cref="InvalidOperationException">A page that would move has users beside the tables, or pages are cached. Nothing has changed.</exception>
    public PageMoves Compact(params ReadOnlySpan<PageTable> tables)
    {
        if (CachedCount > 0)
        {
            throw new InvalidOperationException($"{CachedCount:N0} pages of {_name} are cached, and whoever keeps them would not find them again: let go of them first");
        }

        int used = PageCount - FreeCount, moves = 0;
        // Of each page past the ones that stay: how many tables' entries name it, and then where it goes.
        int[] moved = new int[FreeCount];
        foreach (PageTable table in tables)
        {
            if (table.Pool != this)
            {
                throw new ArgumentException("a table has its pages from another pool, and only this pool's pages move", nameof(tables));
            }

            foreach (int page in table.Pages)
            {
                if (page >= used)
                {
                    moved[page - used]++;
                }
            }
        }

        for (int page = used; page < PageCount; page++)
        {
            if (_references[page] != moved[page - used])
            {
                throw new InvalidOperationException(
                    $"page {page:N0} of {_name} has {_references[page]:N0} users and stands {moved[page - used]:N0} times in the tables given: give each table of the pool once, and no page that somebody else holds can move");
            }

            moves += _references[page] > 0 ? 1 : 0;
        }

        int[] sources = new int[moves], targets = new int[moves];
        int hole = 0;
        for (int page = used, i = 0; i < moves; page++)
        {
            if (_references[page] == 0)
            {
                continue;
            }

            while (_references[hole] > 0)
            {
                hole++;
            }

            (_references[hole], _references[page]) = (_references[page], 0);
            (sources[i], targets[i++]) = (page, hole);
            moved[page - used] = hole;
        }

        foreach (PageTable table in tables)
        {
            table.Follow(used, moved);
        }

        OfferLowestFirst();
        return new PageMoves(sources, targets);
    }

    internal PagesExhaustedException Exhausted(int wanted) => new(wanted, AvailableCount, PageCount, _name);

    /// <summary>Lets one owner keep pages. It is told of each page that is taken from it, which then is kept no more.</summary>
    internal void AllowKeeping(Action<int> evicted)
    {
        _evicted = _evicted is null ? evicted : throw new InvalidOperationException($"somebody keeps pages of {_name} already");
        _kept = new bool[PageCount];
        _cached.Reserve(PageCount);
    }

    /// <summary>Whether a page's contents are kept, in use or not.</summary>
    internal bool IsKept(int page) => _kept.Length > 0 && _kept[page];

    /// <summary>Keeps the contents of a page in use beyond its last user.</summary>
    internal void Keep(int page)
    {
        RequireUsed(page);
        _kept[page] = true;
    }

    /// <summary>Keeps a page's contents no more: a cached one is free.</summary>
    internal void LetGo(int page)
    {
        if (_kept[page] && _references[page] == 0)
        {
            _cached.Remove(page);
            _free[FreeCount++] = page;
        }

        _kept[page] = false;
    }

    /// <summary>Makes a cached page the last that is evicted; one in use becomes so anyway.</summary>
    internal void Touch(int page)
    {
        if (_references[page] == 0 && _kept[page])
        {
            _cached.Remove(page);
            _cached.Add(page);
        }
    }

    private int EvictOldest()
    {
        int page = _cached.Oldest;
        _cached.Remove(page);
        _kept[page] = false;
        _evicted!(page);
        return page;
    }

    // The free pages are the last ones: all of them at the start, and those behind the pages in use once these are compact.
    private void OfferLowestFirst()
    {
        for (int i = 0; i < FreeCount; i++)
        {
            _free[i] = PageCount - 1 - i;
        }
    }

    private void RequireUsed(int page)
    {
        if (ReferencesOf(page) == 0)
        {
            throw new InvalidOperationException($"page {page:N0} of {_name} is free, and only a page in use can be shared or released");
        }
    }

    // The cached pages from the one that came first to the one that came last: links by page, so that any page leaves at once.
    private sealed class ByAge
    {
        private int[] _older = [], _newer = [];
        private int _newest = -1;

        public int Oldest { get; private set; } = -1;

        public int Count { get; private set; }

        public void Reserve(int pages) => (_older, _newer) = (new int[pages], new int[pages]);

        public void Add(int page)
        {
            (_older[page], _newer[page]) = (_newest, -1);
            if (_newest >= 0)
            {
                _newer[_newest] = page;
            }
            else
            {
                Oldest = page;
            }

            _newest = page;
            Count++;
        }

        public void Remove(int page)
        {
            (int older, int newer) = (_older[page], _newer[page]);
            if (older >= 0)
            {
                _newer[older] = newer;
            }
            else
            {
                Oldest = newer;
            }

            if (newer >= 0)
            {
                _older[newer] = older;
            }
            else
            {
                _newest = older;
            }

            Count--;
        }
    }
}

/// <summary>Pages whose contents have to follow their new ids: page Targets[i] = page Sources[i]. No page is a source and a target, none a target twice.</summary>
public sealed class PageMoves(int[] sources, int[] targets)
{
    /// <summary>Where the contents lie.</summary>
    public ReadOnlySpan<int> Sources => sources;

    /// <summary>Where they belong.</summary>
    public ReadOnlySpan<int> Targets => targets;
}
