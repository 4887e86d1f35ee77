using Sluice.Interop;
using Sluice.Paging;

namespace Sluice.Tests.Host;

/// <summary>Sequences keep their tokens, whatever becomes of their pages: shared, moved to the front of the pool, swapped to host memory and back.</summary>
public sealed unsafe class SwapTests
{
    private const int Layers = 2, Pages = 24, PageSize = 4, KeyDim = 2, ValueDim = 1, Slots = 14;

    [Theory]
    [InlineData(Backend.Reference, 1, 300)]
    [InlineData(Backend.Cpu, 2, 1500)]
    [InlineData(Backend.Cpu, 3, 1500)]
    [InlineData(Backend.Simt, 4, 150)]
    public void Each_sequence_reads_its_own_tokens_after_any_number_of_forks_swaps_and_moves(Backend backend, int seed, int steps)
    {
        Assert.SkipWhen(Device.Count(backend) == 0, $"no {backend} device is here");
        using World world = new(backend, seed);
        for (int i = 0; i < steps; i++)
        {
            world.Step();
            world.Check();
        }

        world.AssertAllHappened();
    }

    [Fact]
    public void Swapping_releases_the_pages_and_takes_new_ones_all_or_none()
    {
        using Cached c = new();
        using PageTable table = new(c.Pool), other = new(c.Pool);
        using SwappedPages swapped = new(c.Space);
        table.Append(10);
        swapped.SwapOut(table);
        Assert.Equal((0, 0, 10, 3, Pages, Slots - 3), (table.Length, table.Pages.Length, swapped.Length, swapped.PageCount, c.Pool.FreeCount, c.Space.FreeCount));

        other.Append((Pages - 2) * PageSize);
        PagesExhaustedException full = Assert.Throws<PagesExhaustedException>(() => swapped.SwapIn(table));
        Assert.Equal((3, 2, Pages), (full.Wanted, full.Free, full.Total));
        Assert.Equal((0, 10, 2, Slots - 3), (table.Pages.Length, swapped.Length, c.Pool.FreeCount, c.Space.FreeCount));

        other.Truncate((Pages - 3) * PageSize);
        swapped.SwapIn(table);
        Assert.Equal((10, 3, 0, 0, 0, Slots), (table.Length, table.Pages.Length, swapped.Length, swapped.PageCount, c.Pool.FreeCount, c.Space.FreeCount));
    }

    [Fact]
    public void A_swap_space_that_is_full_changes_nothing_and_says_so()
    {
        using Cached c = new();
        using PageTable table = new(c.Pool);
        using SwappedPages swapped = new(c.Space);
        table.Append((Slots + 1) * PageSize);
        int[] before = table.Pages.ToArray();
        Assert.Contains("the swap space is full: 15 more pages wanted, 14 of 14 free", Assert.Throws<PagesExhaustedException>(() => swapped.SwapOut(table)).Message, StringComparison.Ordinal);
        Assert.Equal(before, table.Pages);
        Assert.Equal((Slots, 0), (c.Space.FreeCount, swapped.Length));
    }

    [Fact]
    public void Shared_pages_stay_with_the_others_and_come_back_unshared()
    {
        using Cached c = new();
        using PageTable first = new(c.Pool), second = new(c.Pool);
        using SwappedPages swapped = new(c.Space);
        first.Append(8);
        int[] shared = first.Pages.ToArray();
        second.AppendShared(shared);
        second.Append(1);
        swapped.SwapOut(second);
        Assert.Equal((1, 1, Pages - 2), (c.Pool.ReferencesOf(shared[0]), c.Pool.ReferencesOf(shared[1]), c.Pool.FreeCount));
        swapped.SwapIn(second);
        Assert.Equal(shared, first.Pages);
        Assert.Empty(second.Pages.ToArray().Intersect(shared));
        Assert.Equal(Pages - 5, c.Pool.FreeCount);
    }

    [Fact]
    public void What_cannot_be_swapped_is_refused_and_left_as_it_was()
    {
        using Cached c = new();
        using PageTable table = new(c.Pool), odd = new(new BlockPool(4, PageSize * 2));
        using SwappedPages swapped = new(c.Space);
        odd.Append(1);
        Assert.Contains("8 tokens, those of the swap space 4", Assert.Throws<ArgumentException>(() => swapped.SwapOut(odd)).Message, StringComparison.Ordinal);
        table.Append(5);
        swapped.SwapOut(table);
        table.Append(1);
        Assert.Throws<InvalidOperationException>(() => swapped.SwapOut(table));
        Assert.Throws<InvalidOperationException>(() => swapped.SwapIn(table));
        Assert.Throws<ArgumentException>(() => swapped.SwapIn(odd));
        Assert.Equal((1, 5, 2), (table.Length, swapped.Length, swapped.PageCount));
        swapped.Discard();
        Assert.Equal((0, 0, Slots), (swapped.Length, swapped.PageCount, c.Space.FreeCount));
    }

    [Fact]
    public void Pages_that_cannot_be_saved_or_loaded_stay_where_they_are()
    {
        using Cached c = new();
        BlockPool large = new(Pages + 1, PageSize);
        using PageTable low = new(large), high = new(large);
        using SwappedPages swapped = new(c.Space);
        low.Append(Pages * PageSize);
        high.Append(1);
        Assert.Throws<SluiceException>(() => swapped.SwapOut(high));
        Assert.Equal((1, 1, 0, Slots), (high.Length, high.Pages.Length, swapped.Length, c.Space.FreeCount));

        low.Truncate(4);
        swapped.SwapOut(low);
        using PageTable rest = new(large);
        rest.Append((Pages - 1) * PageSize);
        rest.Append(PageSize);
        high.Reset();
        Assert.Equal(1, large.FreeCount);
        Assert.Throws<SluiceException>(() => swapped.SwapIn(high));
        Assert.Equal((0, 4, 1, Slots - 1), (high.Length, swapped.Length, large.FreeCount, c.Space.FreeCount));
    }

    [Fact]
    public void Swapping_to_and_fro_allocates_nothing()
    {
        using Cached c = new();
        using PageTable table = new(c.Pool);
        using SwappedPages swapped = new(c.Space);
        table.Append(30);
        Turn(3);
        long before = GC.GetAllocatedBytesForCurrentThread();
        Turn(50);
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);

        void Turn(int times)
        {
            for (int i = 0; i < times; i++)
            {
                swapped.SwapOut(table);
                swapped.SwapIn(table);
            }
        }
    }

    private class Cached : IDisposable
    {
        private readonly Device _device;

        public Cached(Backend backend = Backend.Cpu)
        {
            _device = Device.Open(new DeviceOptions(backend) { Threads = backend == Backend.Cpu ? 1 : 0 });
            Stream = _device.CreateStream();
            Cache = new KvCache(Stream, new KvCacheOptions(DType.F32, Layers, Pages, 1, KeyDim, ValueDim, PageSize));
            Space = new SwapSpace(Stream, Cache, Slots);
        }

        public ComputeStream Stream { get; }

        public KvCache Cache { get; }

        public BlockPool Pool { get; } = new(Pages, PageSize);

        public SwapSpace Space { get; }

        public void Dispose()
        {
            Space.Dispose();
            Cache.Dispose();
            Stream.Dispose();
            _device.Dispose();
        }
    }

    private sealed class Sequence(Cached c) : IDisposable
    {
        public PageTable Table { get; } = new(c.Pool);

        public SwappedPages Swapped { get; } = new(c.Space);

        public List<int> Tokens { get; } = [];

        public void Dispose()
        {
            Table.Dispose();
            Swapped.Dispose();
        }
    }

    // What may happen to sequences, in a random order. The pools of these backends are the host's memory, so tokens are written and read there without any op.
    private sealed class World(Backend backend, int seed) : IDisposable
    {
        private readonly Cached _c = new(backend);
        private readonly Random _random = new(seed);
        private readonly List<Sequence> _sequences = [];
        private readonly Dictionary<string, int> _happened = [];
        private int _token;

        public void Step()
        {
            Sequence? resident = Any(s => s.Swapped.PageCount == 0);
            switch (_random.Next(8))
            {
                case 0:
                    _sequences.Add(new Sequence(_c));
                    Append(_sequences[^1]);
                    break;
                case 1 or 2 when resident is not null:
                    Append(resident);
                    break;
                case 3 when resident is not null:
                    Fork(resident);
                    break;
                case 4 when resident is not null:
                    Truncate(resident);
                    break;
                case 5 when resident is not null:
                    Try("swap out", () => resident.Swapped.SwapOut(resident.Table));
                    break;
                case 6 when Any(s => s.Swapped.PageCount > 0) is { } swapped:
                    Try("swap in", () => swapped.Swapped.SwapIn(swapped.Table));
                    break;
                case 7 when _random.Next(3) == 0:
                    Compact();
                    break;
                case 7 when _sequences.Count > 4 && Any(_ => true) is { } leaver:
                    leaver.Dispose();
                    _sequences.Remove(leaver);
                    Happened("release");
                    break;
            }
        }

        public void Check()
        {
            _c.Stream.Synchronize();
            int[] users = new int[Pages];
            foreach (Sequence s in _sequences)
            {
                Assert.Equal(s.Tokens.Count, s.Table.Length + s.Swapped.Length);
                foreach (int page in s.Table.Pages)
                {
                    users[page]++;
                }

                for (int i = 0; i < s.Table.Length; i++)
                {
                    Assert.True(Holds(s, i), $"token {i} of {s.Tokens.Count}");
                }
            }

            Assert.Equal(users, Enumerable.Range(0, Pages).Select(_c.Pool.ReferencesOf));
            Assert.Equal(users.Count(u => u == 0), _c.Pool.FreeCount);
            Assert.Equal(Slots - _sequences.Sum(s => s.Swapped.PageCount), _c.Space.FreeCount);
        }

        // A run in which something never came to pass, or never lacked room, tests less than its name says.
        public void AssertAllHappened()
        {
            foreach (string what in new[] { "append", "append refused", "fork", "truncate", "swap out", "swap out refused", "swap in", "swap in refused", "moved", "release" })
            {
                Assert.True(_happened.GetValueOrDefault(what) > 0, $"no {what} in this run");
            }
        }

        public void Dispose()
        {
            _sequences.ForEach(s => s.Dispose());
            Assert.Equal((Pages, Slots), (_c.Pool.FreeCount, _c.Space.FreeCount));
            _c.Dispose();
        }

        private Sequence? Any(Func<Sequence, bool> which)
        {
            Sequence[] found = [.. _sequences.Where(which)];
            return found.Length == 0 ? null : found[_random.Next(found.Length)];
        }

        private void Append(Sequence s)
        {
            int count = _random.Next(1, 12);
            if (!Try("append", () => s.Table.Append(count)))
            {
                return;
            }

            for (int i = 0; i < count; i++)
            {
                s.Tokens.Add(++_token);
                Write(s, s.Tokens.Count - 1);
            }
        }

        // Full pages are shared, the last one is copied where it is not full.
        private void Fork(Sequence parent)
        {
            Sequence child = new(_c);
            int full = parent.Table.Length / PageSize, rest = parent.Table.Length % PageSize;
            child.Table.AppendShared(parent.Table.Pages[..full]);
            if (!Try("fork", () => child.Table.Append(rest)))
            {
                child.Dispose();
                return;
            }

            if (rest > 0)
            {
                _c.Cache.CopyPages(_c.Stream, parent.Table.Pages[full..], child.Table.Pages[full..]);
            }

            child.Tokens.AddRange(parent.Tokens);
            _sequences.Add(child);
        }

        // Within a page only where nobody shares it: what is appended next is written there.
        private void Truncate(Sequence s)
        {
            int length = _random.Next(s.Table.Length + 1);
            length -= length % PageSize > 0 && _c.Pool.ReferencesOf(s.Table.Pages[length / PageSize]) > 1 ? length % PageSize : 0;
            s.Table.Truncate(length);
            s.Tokens.RemoveRange(length, s.Tokens.Count - length);
            Happened("truncate");
        }

        private void Compact()
        {
            PageMoves moves = _c.Pool.Compact([.. _sequences.Select(s => s.Table)]);
            _c.Cache.CopyPages(_c.Stream, moves.Sources, moves.Targets);
            int used = Pages - _c.Pool.FreeCount;
            Assert.Equal(Enumerable.Range(0, used), _sequences.SelectMany(s => s.Table.Pages.ToArray()).Distinct().Order());
            Happened(moves.Sources.IsEmpty ? "compact" : "moved");
        }

        private bool Try(string what, Action action)
        {
            try
            {
                action();
                Happened(what);
                return true;
            }
            catch (PagesExhaustedException)
            {
                Happened(what + " refused");
                return false;
            }
        }

        private void Happened(string what) => _happened[what] = _happened.GetValueOrDefault(what) + 1;

        private void Write(Sequence s, int position)
        {
            _c.Stream.Synchronize();
            foreach ((nint at, float value) in Cells(s, position))
            {
                *(float*)at = value;
            }
        }

        private bool Holds(Sequence s, int position) => Cells(s, position).All(cell => *(float*)cell.At == cell.Value);

        // Every element of the token's keys and values in every layer, and what belongs there.
        private List<(nint At, float Value)> Cells(Sequence s, int position)
        {
            int slot = (s.Table.Pages[position / PageSize] * PageSize) + (position % PageSize), next = s.Tokens[position] * Layers * (KeyDim + ValueDim);
            List<(nint, float)> cells = [];
            for (int layer = 0; layer < Layers; layer++)
            {
                (Tensor keys, Tensor values) = _c.Cache.Layer(layer);
                foreach ((Tensor pool, int dim) in new[] { (keys, KeyDim), (values, ValueDim) })
                {
                    for (int d = 0; d < dim; d++)
                    {
                        cells.Add((pool.Pointer + (((slot * dim) + d) * sizeof(float)), next++));
                    }
                }
            }

            return cells;
        }
    }
}
