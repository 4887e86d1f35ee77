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
/// released last is handed out first, as its memory is the likeliest to be in a cache. Not thread-safe: it belongs to one engine thread.
/// </summary>
public sealed class BlockPool
{
    private readonly int[] _references;
    private readonly int[] _free; // a stack; the top is at FreeCount - 1
    private readonly string _name;

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

    /// <summary>Free pages.</summary>
    public int FreeCount { get; private set; }

    /// <summary>Pages that hold <paramref name="tokens"/> tokens.</summary>
    public int PagesFor(int tokens) => (int)(((long)tokens + PageSize - 1) / PageSize);

    /// <summary>Takes as many pages as <paramref name="pages"/> is long, each with one user: all, or none.</summary>
    /// <exception cref="PagesExhaustedException">Fewer are free.</exception>
    public void Allocate(Span<int> pages)
    {
        if (pages.Length > FreeCount)
        {
            throw Exhausted(pages.Length);
        }

        for (int i = 0; i < pages.Length; i++)
        {
            int page = _free[--FreeCount];
            _references[page] = 1;
            pages[i] = page;
        }
    }

    /// <summary>Adds a user to a page in use.</summary>
    /// <exception cref="InvalidOperationException">The page is free.</exception>
    public void AddReference(int page)
    {
        RequireUsed(page);
        _references[page] = checked(_references[page] + 1);
    }

    /// <summary>Takes a user from a page; the last one frees it.</summary>
    /// <exception cref="InvalidOperationException">The page is free already.</exception>
    public void Release(int page)
    {
        RequireUsed(page);
        if (--_references[page] == 0)
        {
            _free[FreeCount++] = page;
        }
    }

    /// <summary>Users of a page; 0 where it is free.</summary>
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
    /// <exception cref="InvalidOperationException">A page that would move has users beside the tables. Nothing has changed.</exception>
    public PageMoves Compact(params ReadOnlySpan<PageTable> tables)
    {
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

    internal PagesExhaustedException Exhausted(int wanted) => new(wanted, FreeCount, PageCount, _name);

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
}

/// <summary>Pages whose contents have to follow their new ids: page Targets[i] = page Sources[i]. No page is a source and a target, none a target twice.</summary>
public sealed class PageMoves(int[] sources, int[] targets)
{
    /// <summary>Where the contents lie.</summary>
    public ReadOnlySpan<int> Sources => sources;

    /// <summary>Where they belong.</summary>
    public ReadOnlySpan<int> Targets => targets;
}
