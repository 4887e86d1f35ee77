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
}
