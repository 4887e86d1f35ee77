using Sluice.Paging;
using Sluice.Scheduling;

namespace Sluice.Tests.Host;

public sealed class PrefixCacheTests
{
    private const int PageSize = 2;

    [Theory]
    [InlineData(ulong.MaxValue)]
    [InlineData(0ul)] // all pages collide
    public void A_page_is_found_by_all_tokens_up_to_it_and_the_salt(ulong hashMask)
    {
        BlockPool pool = new(20, PageSize);
        PrefixCache cache = new(pool, hashMask: hashMask);
        Sequence a = Filled(pool, [1, 2, 3, 4, 5]);
        cache.Register(a);
        Assert.Equal(a.Table.Pages[..2], Match(pool, cache, [1, 2, 3, 4, 9]));
        Assert.Equal(a.Table.Pages[..1], Match(pool, cache, [1, 2, 3, 5]));
        Assert.Empty(Match(pool, cache, [3, 4, 1]));
        Assert.Empty(Match(pool, cache, [1, 3]));
        Assert.Empty(Match(pool, cache, [1, 2, 3, 4], salt: 1));

        Sequence b = Filled(pool, [7, 8, 3, 4]), salted = Filled(pool, [1, 2, 3, 4], salt: 1);
        cache.Register(b);
        cache.Register(salted);
        Assert.Equal(b.Table.Pages, Match(pool, cache, [7, 8, 3, 4]));
        Assert.Equal(salted.Table.Pages, Match(pool, cache, [1, 2, 3, 4], salt: 1));
        Assert.Equal(a.Table.Pages[..2], Match(pool, cache, [1, 2, 3, 4]));
    }

    [Fact]
    public void Contents_that_are_known_keep_their_page()
    {
        BlockPool pool = new(20, PageSize);
        PrefixCache cache = new(pool);
        Sequence a = Filled(pool, [1, 2]), b = Filled(pool, [1, 2, 3, 4]);
        cache.Register(a);
        cache.Register(b);
        Assert.Equal([a.Table.Pages[0], b.Table.Pages[1]], Match(pool, cache, [1, 2, 3, 4]));
        b.Drop();
        Assert.Equal((1, 18), (pool.CachedCount, pool.FreeCount)); // its first page was a second copy
    }

    [Fact]
    public void Free_pages_are_taken_first_then_the_tails_of_what_was_released_longest_ago()
    {
        BlockPool pool = new(6, PageSize);
        PrefixCache cache = new(pool);
        Sequence a = Filled(pool, [1, 2, 3, 4]), b = Filled(pool, [5, 6, 7, 8]);
        cache.Register(a);
        cache.Register(b);
        int[] first = a.Table.Pages.ToArray(), second = b.Table.Pages.ToArray();
        a.Drop();
        b.Drop();
        Assert.Equal((2, 4, 6), (pool.FreeCount, pool.CachedCount, pool.AvailableCount));
        int[] taken = new int[4];
        pool.Allocate(taken.AsSpan(0, 2));
        Assert.Equal(0, cache.Evictions);
        pool.Allocate(taken.AsSpan(2, 1));
        Assert.Equal((first[1], 1), (taken[2], cache.Evictions));
        Assert.Equal(first[..1], Match(pool, cache, [1, 2, 3, 4]));

        pool.AddReference(first[0]); // used again, so the next is of the other
        pool.Allocate(taken.AsSpan(3, 1));
        Assert.Equal(second[1], taken[3]);
        Assert.Throws<PagesExhaustedException>(() => pool.Allocate(new int[2]));
        Assert.Equal(first[..1], Match(pool, cache, [1, 2, 3, 4]));
        Assert.Throws<InvalidOperationException>(() => pool.Compact());
        Assert.Equal((0, 1, 6), (pool.FreeCount, pool.CachedCount, pool.PageCount));
    }

    [Fact]
    public void A_child_is_not_found_behind_a_parent_that_was_evicted_until_that_is_known_again()
    {
        BlockPool pool = new(4, PageSize);
        PrefixCache cache = new(pool);
        Sequence a = Filled(pool, [1, 2]), b = Filled(pool, [1, 2, 3, 4]);
        cache.Register(a);
        cache.Register(b);
        a.Drop();
        pool.Allocate(new int[2]); // the free one, and the parent
        Assert.Equal(1, cache.Evictions);
        Assert.Empty(Match(pool, cache, [1, 2, 3, 4]));
        b.Table.Reset();
        Assert.Equal((1, 1), (pool.FreeCount, pool.CachedCount)); // the child, which nobody finds

        Sequence c = Filled(pool, [1, 2, 3, 4]);
        cache.Register(c);
        Assert.Equal(c.Table.Pages, Match(pool, cache, [1, 2, 3, 4]));
    }

    [Fact]
    public void A_sequence_takes_the_place_of_an_evicted_parent_with_its_own_page()
    {
        BlockPool pool = new(3, PageSize);
        PrefixCache cache = new(pool);
        Sequence a = Filled(pool, [1, 2]), b = Filled(pool, [1, 2, 3, 4], computed: 2);
        cache.Register(a);
        cache.Register(b);
        a.Drop();
        int[] taken = new int[2];
        pool.Allocate(taken);
        pool.Release(taken[0]);
        b.Table.Append(2);
        cache.Register(b);
        Assert.Equal(b.Table.Pages, Match(pool, cache, [1, 2, 3, 4]));
    }

    [Fact]
    public void What_is_cleared_is_free_and_what_is_off_finds_nothing()
    {
        BlockPool pool = new(4, PageSize), plain = new(4, PageSize);
        PrefixCache cache = new(pool), off = new(plain, enabled: false);
        Sequence used = Filled(pool, [1, 2]), gone = Filled(pool, [3, 4]), other = Filled(plain, [1, 2]);
        cache.Register(used);
        cache.Register(gone);
        off.Register(other);
        gone.Drop();
        cache.Clear();
        Assert.Equal((3, 0), (pool.FreeCount, pool.CachedCount));
        Assert.Empty(Match(pool, cache, [1, 2]));
        used.Drop();
        other.Drop();
        Assert.Equal((4, 4), (pool.FreeCount, plain.FreeCount));
        Assert.Empty(Match(plain, off, [1, 2]));
        Assert.Throws<InvalidOperationException>(() => new PrefixCache(pool));
    }

    private static Sequence Filled(BlockPool pool, int[] tokens, ulong salt = 0, int? computed = null)
    {
        Sequence sequence = new(0, tokens, tokens.Length, salt: salt);
        sequence.Prepare(pool);
        sequence.Table.Append(computed ?? tokens.Length);
        return sequence;
    }

    private static int[] Match(BlockPool pool, PrefixCache cache, int[] tokens, ulong salt = 0)
    {
        Sequence sequence = new(0, tokens, tokens.Length, salt: salt);
        sequence.Prepare(pool);
        int count = cache.Match(sequence, tokens.Length / PageSize, out PageContent last);
        Assert.Equal(count == 0 ? -1 : cache.Found(count)[^1], last.Page);
        return cache.Found(count).ToArray();
    }
}
