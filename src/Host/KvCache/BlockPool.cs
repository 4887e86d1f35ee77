namespace Sluice.Paging;

/// <summary>More pages of the KV cache were wanted than are free. Nothing was taken.</summary>
public sealed class PagesExhaustedException(int wanted, int free, int total) : Exception(
    $"the KV cache is full: {wanted:N0} more pages wanted, {free:N0} of {total:N0} free")
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
    private readonly int[] _free; // a stack; the top is at _freeCount - 1

    /// <summary>Makes a pool of pages 0 to <paramref name="pageCount"/> - 1, all free, of P = <paramref name="pageSize"/> tokens each.</summary>
    public BlockPool(int pageCount, int pageSize)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(pageCount);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(pageSize);
        PageSize = pageSize;
        _references = new int[pageCount];
        _free = new int[pageCount];
        for (int i = 0; i < pageCount; i++)
        {
            _free[i] = pageCount - 1 - i;
        }

        FreeCount = pageCount;
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
            throw new PagesExhaustedException(pages.Length, FreeCount, PageCount);
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

    private void RequireUsed(int page)
    {
        if (ReferencesOf(page) == 0)
        {
            throw new InvalidOperationException($"page {page:N0} of the KV cache is free, and only a page in use can be shared or released");
        }
    }
}
