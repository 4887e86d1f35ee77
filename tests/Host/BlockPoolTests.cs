using Sluice.Paging;

namespace Sluice.Tests.Host;

public class BlockPoolTests
{
    [Fact]
    public void Pages_are_handed_out_once_and_come_back_when_the_last_user_leaves()
    {
        BlockPool pool = new(4, 16);
        int[] pages = new int[3];
        pool.Allocate(pages);
        Assert.Equal(3, pages.Distinct().Count());
        Assert.Equal(1, pool.FreeCount);
        pool.AddReference(pages[0]);
        pool.Release(pages[0]);
        Assert.Equal((1, 1), (pool.FreeCount, pool.ReferencesOf(pages[0])));
        pool.Release(pages[0]);
        Assert.Equal((2, 0), (pool.FreeCount, pool.ReferencesOf(pages[0])));
        int[] again = new int[1];
        pool.Allocate(again);
        Assert.Equal(pages[0], again[0]);
    }

    [Fact]
    public void A_page_is_never_freed_twice()
    {
        BlockPool pool = new(2, 16);
        int[] page = new int[1];
        pool.Allocate(page);
        pool.Release(page[0]);
        Assert.Throws<InvalidOperationException>(() => pool.Release(page[0]));
        Assert.Throws<InvalidOperationException>(() => pool.AddReference(page[0]));
        Assert.Throws<ArgumentOutOfRangeException>(() => pool.Release(2));
        Assert.Equal(2, pool.FreeCount);
    }

    [Fact]
    public void Too_few_pages_take_none_and_the_error_has_the_numbers()
    {
        BlockPool pool = new(3, 16);
        using PageTable table = new(pool);
        table.Append(17);
        PagesExhaustedException full = Assert.Throws<PagesExhaustedException>(() => table.Append(32));
        Assert.Equal((2, 1, 3), (full.Wanted, full.Free, full.Total));
        Assert.Contains("2 more pages wanted, 1 of 3 free", full.Message);
        Assert.Equal((17, 2, 1), (table.Length, table.Pages.Length, pool.FreeCount));
        Assert.Throws<PagesExhaustedException>(() => pool.Allocate(new int[2]));
        table.Append(31);
        Assert.Equal(0, pool.FreeCount);
    }

    [Fact]
    public void A_table_grows_shrinks_and_gives_all_back()
    {
        BlockPool pool = new(10, 4);
        PageTable table = new(pool);
        table.Append(4);
        Assert.Equal((1, 4), (table.Pages.Length, table.Capacity));
        table.Append(1);
        Assert.Equal(2, table.Pages.Length);
        int[] before = table.Pages.ToArray();
        table.Append(30);
        Assert.Equal(9, table.Pages.Length);
        Assert.Equal(before, table.Pages[..2]);
        table.Truncate(5);
        Assert.Equal(before, table.Pages);
        table.Truncate(4);
        Assert.Equal((1, 9), (table.Pages.Length, pool.FreeCount));
        Assert.Throws<ArgumentOutOfRangeException>(() => table.Truncate(5));
        table.Reset();
        Assert.Equal((0, 10), (table.Length, pool.FreeCount));
        table.Append(3);
        table.Dispose();
        table.Dispose();
        Assert.Equal(10, pool.FreeCount);
        Assert.Throws<ObjectDisposedException>(() => table.Append(1));
    }

    [Fact]
    public void Full_pages_are_shared()
    {
        BlockPool pool = new(10, 4);
        using PageTable first = new(pool);
        first.Append(9);
        using (PageTable second = new(pool))
        {
            second.AppendShared(first.Pages[..2]);
            second.Append(2);
            Assert.Equal((10, 3), (second.Length, second.Pages.Length));
            Assert.Equal(2, pool.ReferencesOf(first.Pages[0]));
            int[] more = first.Pages[..1].ToArray();
            Assert.Throws<InvalidOperationException>(() => second.AppendShared(more));
        }

        Assert.Equal(1, pool.ReferencesOf(first.Pages[0]));
        Assert.Equal(7, pool.FreeCount);
    }

    [Fact]
    public void Pages_in_use_move_to_the_lowest_ids_and_tables_follow()
    {
        BlockPool pool = new(12, 4);
        using PageTable gone = new(pool), first = new(pool), hole = new(pool), second = new(pool);
        gone.Append(8);
        first.Append(9);
        hole.Append(4);
        second.AppendShared(first.Pages[..2]);
        second.Append(5);
        Assert.Equal([2, 3, 4], first.Pages);
        Assert.Equal([2, 3, 6, 7], second.Pages);
        gone.Reset();
        hole.Reset();

        PageMoves moves = pool.Compact(first, second, gone, hole);
        Assert.Equal([6, 7], moves.Sources);
        Assert.Equal([0, 1], moves.Targets);
        Assert.Equal([2, 3, 4], first.Pages);
        Assert.Equal([2, 3, 0, 1], second.Pages);
        Assert.Equal(7, pool.FreeCount);
        Assert.Equal([1, 1, 2, 2, 1, 0, 0], Enumerable.Range(0, 7).Select(pool.ReferencesOf));
        gone.Append(5);
        Assert.Equal([5, 6], gone.Pages);
        Assert.True(pool.Compact(first, second, gone).Sources.IsEmpty);
    }

    [Fact]
    public void A_page_with_a_user_that_was_not_named_does_not_move()
    {
        BlockPool pool = new(6, 4), other = new(6, 4);
        using PageTable gone = new(pool), named = new(pool), unnamed = new(pool), stranger = new(other);
        gone.Append(4);
        named.Append(8);
        unnamed.AppendShared(named.Pages);
        gone.Reset();
        InvalidOperationException refused = Assert.Throws<InvalidOperationException>(() => pool.Compact(named));
        Assert.Contains("page 2 of the KV cache has 2 users and stands 1 times", refused.Message, StringComparison.Ordinal);
        Assert.Throws<InvalidOperationException>(() => pool.Compact(named, unnamed, unnamed));
        Assert.Throws<ArgumentException>(() => pool.Compact(named, unnamed, stranger));
        Assert.Equal([1, 2], named.Pages);
        Assert.Equal([2, 2], [pool.ReferencesOf(1), pool.ReferencesOf(2)]);
        Assert.Equal([2], pool.Compact(named, unnamed).Sources);
        Assert.Equal([1, 0], unnamed.Pages);
    }
}
