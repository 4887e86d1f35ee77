using Sluice.Interop;

namespace Sluice.Paging;

/// <summary>
/// Pinned host memory for pages that make room in a KV cache: page slots, handed out as a pool's pages are. Belongs to one engine thread and to the stream that the
/// cache's steps run on, whose order is all the synchronisation that there is: nothing here waits.
/// </summary>
public sealed class SwapSpace : IDisposable
{
    private readonly BlockPool _slots;
    private readonly DeviceBuffer _memory;
    private readonly ComputeStream _stream;
    private readonly KvCache _cache;

    /// <summary>Allocates <paramref name="pages"/> slots of <see cref="KvCache.PageBytes"/> each.</summary>
    /// <exception cref="SluiceException">There is no such memory.</exception>
    public SwapSpace(ComputeStream stream, KvCache cache, int pages)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(pages);
        (_stream, _cache) = (stream, cache);
        _slots = new BlockPool(pages, cache.Options.PageSize, "the swap space");
        _memory = stream.CreateBuffer(checked((ulong)pages * cache.PageBytes), MemoryKind.Host);
    }

    /// <summary>P: tokens of a page.</summary>
    public int PageSize => _slots.PageSize;

    /// <summary>Slots, free or not.</summary>
    public int PageCount => _slots.PageCount;

    /// <summary>Free slots.</summary>
    public int FreeCount => _slots.FreeCount;

    /// <summary>Releases the memory, behind what was put on the stream.</summary>
    public void Dispose() => _memory.Dispose();

    // Ascending, so that slots which stand together take one call.
    internal void Take(Span<int> slots)
    {
        _slots.Allocate(slots);
        slots.Sort();
    }

    // The highest first: the pool hands out what came back last, and so ascending again.
    internal void Release(ReadOnlySpan<int> slots)
    {
        for (int i = slots.Length - 1; i >= 0; i--)
        {
            _slots.Release(slots[i]);
        }
    }

    internal void Save(ReadOnlySpan<int> pages, ReadOnlySpan<int> slots)
    {
        for (int i = 0, n; i < slots.Length; i += n)
        {
            n = RunAt(slots, i);
            _cache.SavePages(_stream, pages.Slice(i, n), _memory, (ulong)slots[i] * _cache.PageBytes);
        }
    }

    internal void Load(ReadOnlySpan<int> slots, ReadOnlySpan<int> pages)
    {
        for (int i = 0, n; i < slots.Length; i += n)
        {
            n = RunAt(slots, i);
            _cache.LoadPages(_stream, pages.Slice(i, n), _memory, (ulong)slots[i] * _cache.PageBytes);
        }
    }

    private static int RunAt(ReadOnlySpan<int> slots, int first)
    {
        int n = 1;
        while (first + n < slots.Length && slots[first + n] == slots[first] + n)
        {
            n++;
        }

        return n;
    }
}

/// <summary>
/// One sequence's place in a swap space: empty, or the pages of a table that has given them back. Kept beside the sequence's <see cref="PageTable"/>; swapping to and
/// fro allocates nothing once it has held as many pages. Not thread-safe.
/// </summary>
public sealed class SwappedPages(SwapSpace space) : IDisposable
{
    private int[] _slots = [];
    private int _count;

    /// <summary>Tokens that are held; 0 when empty.</summary>
    public int Length { get; private set; }

    /// <summary>Pages that are held: as many as <see cref="SwapIn"/> takes.</summary>
    public int PageCount => _count;

    /// <summary>
    /// Saves the table's pages and releases them: the table is empty afterwards. A page that others share is saved for this sequence and stays with them. No page is
    /// free for anything but what follows on the space's stream.
    /// </summary>
    /// <exception cref="InvalidOperationException">Pages are held already.</exception>
    /// <exception cref="ArgumentException">The table's pages are of another size.</exception>
    /// <exception cref="PagesExhaustedException">The swap space has too few slots left; nothing has changed.</exception>
    /// <exception cref="SluiceException">The pages could not be saved; nothing has changed.</exception>
    public void SwapOut(PageTable table)
    {
        RequireSize(table);
        if (_count > 0)
        {
            throw new InvalidOperationException($"{_count:N0} swapped pages of {Length:N0} tokens are held already: swap them in, or discard them, first");
        }

        int count = table.Pages.Length;
        if (count > _slots.Length)
        {
            _slots = new int[Math.Max(count, 2 * _slots.Length)];
        }

        Span<int> slots = _slots.AsSpan(0, count);
        space.Take(slots);
        try
        {
            space.Save(table.Pages, slots);
        }
        catch
        {
            space.Release(slots);
            throw;
        }

        (_count, Length) = (count, table.Length);
        table.Reset();
    }

    /// <summary>Takes new pages for an empty table, loads what is held into them, and is empty: all pages, or none. No page is shared then.</summary>
    /// <exception cref="InvalidOperationException">The table has tokens.</exception>
    /// <exception cref="ArgumentException">The table's pages are of another size.</exception>
    /// <exception cref="PagesExhaustedException">The pool has too few pages free; nothing has changed.</exception>
    /// <exception cref="SluiceException">The pages could not be loaded; they are still held, and the table is empty.</exception>
    public void SwapIn(PageTable table)
    {
        RequireSize(table);
        if (table.Length > 0)
        {
            throw new InvalidOperationException($"the table has {table.Length:N0} tokens, and swapped pages come back to an empty one: reset it first");
        }

        table.Append(Length);
        try
        {
            space.Load(_slots.AsSpan(0, _count), table.Pages);
        }
        catch
        {
            table.Reset();
            throw;
        }

        Discard();
    }

    /// <summary>Gives up what is held: the tokens are to be computed anew.</summary>
    public void Discard()
    {
        space.Release(_slots.AsSpan(0, _count));
        (_count, Length) = (0, 0);
    }

    /// <summary>Gives up what is held; safe to call twice.</summary>
    public void Dispose() => Discard();

    private void RequireSize(PageTable table)
    {
        if (table.Pool.PageSize != space.PageSize)
        {
            throw new ArgumentException($"the table's pages have {table.Pool.PageSize:N0} tokens, those of the swap space {space.PageSize:N0}", nameof(table));
        }
    }
}
