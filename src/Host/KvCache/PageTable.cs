namespace Sluice.Paging;

/// <summary>The pages of one sequence in order: token t lies in page <c>Pages[t / P]</c>, slot <c>t % P</c>. Not thread-safe.</summary>
public sealed class PageTable(BlockPool pool) : IDisposable
{
    private int[] _pages = [];
    private int _count;
    private bool _disposed;

    /// <summary>Where its pages come from.</summary>
    public BlockPool Pool => pool;

    /// <summary>Tokens that the sequence has room for in use.</summary>
    public int Length { get; private set; }

    /// <summary>The page ids; valid until the table changes.</summary>
    public ReadOnlySpan<int> Pages => _pages.AsSpan(0, _count);

    /// <summary>Tokens that fit without another page.</summary>
    public int Capacity => _count * pool.PageSize;

    /// <summary>Makes the table long enough for a sequence of <paramref name="tokens"/> tokens, so that it need not grow. Takes no pages.</summary>
    public void EnsureCapacity(int tokens)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(tokens);
        int pages = pool.PagesFor(tokens);
        if (pages > _pages.Length)
        {
            Array.Resize(ref _pages, pages);
        }
    }

    /// <summary>Makes room for <paramref name="tokens"/> more tokens, taking pages as needed: all, or none.</summary>
    /// <exception cref="PagesExhaustedException">Too few pages are free; the table is as before.</exception>
    public void Append(int tokens)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        ArgumentOutOfRangeException.ThrowIfNegative(tokens);
        int length = checked(Length + tokens);
        if (length > Capacity) // one product instead of a division: most tokens of a decode fit
        {
            int wanted = pool.PagesFor(length) - _count;
            if (wanted > pool.AvailableCount)
            {
                throw pool.Exhausted(wanted);
            }

            if (_count + wanted > _pages.Length)
            {
                Array.Resize(ref _pages, Math.Max(_count + wanted, _pages.Length * 2));
            }

            pool.Allocate(_pages.AsSpan(_count, wanted));
            _count += wanted;
        }

        Length = length;
    }

    /// <summary>Appends full pages that another sequence has filled, and shares them.</summary>
    /// <exception cref="InvalidOperationException">The last page of this table is not full, or a page is free.</exception>
    public void AppendShared(ReadOnlySpan<int> pages)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (Length != Capacity)
        {
            throw new InvalidOperationException($"{Length:N0} tokens do not fill the {_count:N0} pages of {pool.PageSize:N0}, and shared pages may follow full ones only");
        }

        foreach (int page in pages)
        {
            pool.AddReference(page);
            if (_count == _pages.Length)
            {
                Array.Resize(ref _pages, Math.Max(4, _pages.Length * 2));
            }

            _pages[_count++] = page;
            Length = checked(Length + pool.PageSize);
        }
    }

    /// <summary>Keeps the first <paramref name="length"/> tokens and releases the pages behind them.</summary>
    public void Truncate(int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, Length);
        int keep = pool.PagesFor(length);
        while (_count > keep)
        {
            pool.Release(_pages[--_count]);
        }

        Length = length;
    }

    /// <summary>Releases all pages.</summary>
    public void Reset() => Truncate(0);

    /// <summary>Makes an empty table share all pages and tokens of another one, the last page too, though it may not be full: who writes to that one first needs <see cref="DetachLast"/>.</summary>
    internal void ShareAll(PageTable other)
    {
        EnsureCapacity(other.Length);
        foreach (int page in other.Pages)
        {
            pool.AddReference(page);
            _pages[_count++] = page;
        }

        Length = other.Length;
    }

    /// <summary>Puts a new page in the place of the last one, whose user the caller becomes.</summary>
    /// <returns>The page that was there. Its contents have to be copied, and it to be released.</returns>
    /// <exception cref="PagesExhaustedException">No page is free; the table is as before.</exception>
    internal int DetachLast()
    {
        int before = _pages[_count - 1];
        pool.Allocate(_pages.AsSpan(_count - 1, 1));
        return before;
    }

    // Pages from `first` on have moved to targets[page - first].
    internal void Follow(int first, ReadOnlySpan<int> targets)
    {
        foreach (ref int page in _pages.AsSpan(0, _count))
        {
            page = page < first ? page : targets[page - first];
        }
    }

    /// <summary>Releases all pages for good; safe to call twice.</summary>
    public void Dispose()
    {
        if (!_disposed)
        {
            Reset();
            _disposed = true;
        }
    }
}
