using Sluice.Interop;
using Sluice.Paging;
using Sluice.Scheduling;

namespace Sluice.Tests.Host;

/// <summary>
/// A scheduler with a model that needs no device: what a page's slot holds is the hash of all tokens up to it, of whose sequence it is and of the class of its length. Each step copies, writes,
/// and then reads every key of every sequence, so a page that is shared, evicted, copied or swapped wrongly is seen at once; and the next token comes of what was read.
/// </summary>
internal sealed class SchedulerWorld
{
    public const int Vocabulary = 2;

    private readonly ulong[] _slots; // [pages, P]
    private readonly Dictionary<long, int> _rows = []; // of each live sequence: the next token whose row is to come
    private readonly Dictionary<long, SequenceState> _before = [];

    public SchedulerWorld(int pages, int pageSize, SchedulerOptions options, int swapPages = 0, ulong hashMask = ulong.MaxValue)
    {
        Options = options;
        Pool = new BlockPool(pages, pageSize);
        _slots = new ulong[pages * pageSize];
        Swap = swapPages > 0 ? new FakeSwap(this, swapPages) : null;
        Scheduler = new Scheduler(Pool, options, Swap, new PrefixCache(Pool, options.PrefixCaching, hashMask));
    }

    public SchedulerOptions Options { get; }

    public BlockPool Pool { get; }

    public FakeSwap? Swap { get; }

    public Scheduler Scheduler { get; }

    public List<Sequence> Live { get; } = [];

    public List<Sequence> Ended { get; } = [];

    public StepStatistics Totals;

    public long Copies, PrefixNodes, DeepNodes;

    /// <summary>The pages that the last step copied.</summary>
    public int[] LastCopied { get; private set; } = [];

    public Sequence Add(long id, ReadOnlySpan<int> prompt, int maxLength, int priority = 0, ulong salt = 0, int? firstRow = null)
    {
        Sequence sequence = new(id, prompt, maxLength, priority, salt, firstRow);
        Scheduler.Add(sequence);
        _rows[id] = sequence.RowsWanted;
        Live.Add(sequence);
        return sequence;
    }

    public Sequence Fork(Sequence sequence, long id)
    {
        Sequence fork = Scheduler.Fork(sequence, id);
        _rows[id] = _rows[sequence.Id];
        Live.Add(fork);
        return fork;
    }

    public void Finish(Sequence sequence)
    {
        Scheduler.Finish(sequence);
        Live.Remove(sequence);
    }

    /// <summary>A whole step. <paramref name="meanwhile"/> is called while it is under way; where it returns false, the step fails.</summary>
    public StepPlan Step(Func<bool>? meanwhile = null)
    {
        _before.Clear();
        foreach (Sequence sequence in Live)
        {
            _before[sequence.Id] = sequence.State;
        }

        StepPlan plan = Scheduler.Schedule();
        Check(plan);
        Sum(plan);
        (Sequence Sequence, int Row)[] last = [.. plan.Sequences.ToArray().Select(static s => (s, s.Computed + s.Given))];
        Execute(plan);
        if (meanwhile is not null && !meanwhile())
        {
            foreach (ref ulong slot in _slots.AsSpan())
            {
                slot = Mix(slot, 77); // no key is what it was, but what nobody may read again
            }

            Scheduler.Abandon();
            return plan;
        }

        CheckKeys(plan);
        int[] rows = plan.RowSequences.ToArray();
        Scheduler.Commit();
        for (int r = 0; r < rows.Length; r++)
        {
            (Sequence sequence, int end) = last[rows[r]];
            int row = end - (plan.QueryIndptr[rows[r] + 1] - plan.Rows[r]);
            if (sequence.State == SequenceState.Finished)
            {
                continue;
            }

            Assert.Equal(_rows[sequence.Id]++, row);
            if (row == sequence.Length - 1)
            {
                int page = sequence.Table.Pages[row / Pool.PageSize];
                int token = Draw(_slots[page * Pool.PageSize + row % Pool.PageSize], sequence.Id);
                if (sequence.Length < sequence.MaxLength)
                {
                    sequence.Append(token);
                }

                if (sequence.Length == sequence.MaxLength)
                {
                    Finish(sequence);
                    Ended.Add(sequence);
                }
            }
        }

        CheckPages(plan);
        return plan;
    }

    /// <summary>The tokens of a sequence that has the world to itself, from the given ones on.</summary>
    public static int[] Alone(long id, ReadOnlySpan<int> tokens, int maxLength, ulong salt, Func<int, int>? lengthClass)
    {
        List<int> all = [.. tokens];
        while (all.Count < maxLength)
        {
            ulong content = First(salt, lengthClass?.Invoke(all.Count) ?? 0);
            foreach (int token in all)
            {
                content = Mix(content, (ulong)token);
            }

            all.Add(Draw(content, id));
        }

        return [.. all];
    }

    private void Execute(StepPlan plan)
    {
        int size = Pool.PageSize;
        for (int i = 0; i < plan.CopySources.Length; i++)
        {
            _slots.AsSpan(plan.CopySources[i] * size, size).CopyTo(_slots.AsSpan(plan.CopyTargets[i] * size, size));
        }

        for (int b = 0; b < plan.Count; b++)
        {
            Sequence sequence = plan.Sequences[b];
            int from = plan.QueryIndptr[b], count = plan.QueryIndptr[b + 1] - from, start = plan.KvLengths[b] - count;
            ReadOnlySpan<int> row = plan.PageIds[plan.PageIndptr[b]..plan.PageIndptr[b + 1]];
            // The first layer's keys come of the tokens before, which the true model reads too: not of what lies in the cache.
            ulong content = First(sequence.Salt, plan.LengthClass);
            for (int i = 0; i < start; i++)
            {
                content = Mix(content, (ulong)sequence.Tokens[i]);
            }

            for (int i = 0; i < count; i++)
            {
                content = Mix(content, (ulong)plan.Ids[from + i]);
                _slots[row[(start + i) / size] * size + (start + i) % size] = content;
            }
        }
    }

    // Behind the appends every key of every sequence is its own: of those in the step through the plan, of those that run through their tables.
    private void CheckKeys(StepPlan plan)
    {
        for (int b = 0; b < plan.Count; b++)
        {
            CheckKeys(plan.Sequences[b], plan.PageIds[plan.PageIndptr[b]..plan.PageIndptr[b + 1]], plan.KvLengths[b], plan.LengthClass);
        }

        foreach (Sequence sequence in Scheduler.Running)
        {
            CheckKeys(sequence, sequence.Table.Pages, sequence.Computed, sequence.Class);
        }
    }

    private void CheckKeys(Sequence sequence, ReadOnlySpan<int> pages, int keys, int lengthClass)
    {
        ulong content = First(sequence.Salt, lengthClass);
        for (int i = 0; i < keys; i++)
        {
            content = Mix(content, (ulong)sequence.Tokens[i]);
            if (_slots[pages[i / Pool.PageSize] * Pool.PageSize + i % Pool.PageSize] != content)
            {
                Assert.Fail($"key {i} of sequence {sequence.Id} ({sequence.State}, {keys} keys) is another's");
            }
        }
    }

    private void Check(StepPlan plan)
    {
        Assert.True(plan.Count > 0 || Live.Count == 0, "sequences are live, and none of them is in the step");
        Assert.InRange(plan.TokenCount, plan.Count, Options.TokenBudget);
        Assert.InRange(plan.RowCount, 0, Options.Rows);
        Assert.InRange(plan.Count, 0, Options.MaxSequences);
        Assert.InRange(Scheduler.Running.Count, 0, Options.MaxSequences);
        Assert.InRange(plan.PageIds.Length, 0, plan.MaxPageIds);
        Assert.Equal(plan.TokenCount, plan.Statistics.Tokens);
        HashSet<int> written = [];
        for (int b = 0; b < plan.Count; b++)
        {
            Sequence sequence = plan.Sequences[b];
            int count = plan.QueryIndptr[b + 1] - plan.QueryIndptr[b], end = plan.KvLengths[b], start = end - count;
            Assert.Equal((SequenceState.Running, sequence.Computed), (sequence.State, start));
            Assert.InRange(count, 1, Options.ChunkSize);
            Assert.Equal(sequence.Tokens[start..end], plan.Ids[plan.QueryIndptr[b]..plan.QueryIndptr[b + 1]]);
            Assert.Equal(sequence.Class, plan.LengthClass);
            ReadOnlySpan<int> row = plan.PageIds[plan.PageIndptr[b]..plan.PageIndptr[b + 1]];
            Assert.True(row.StartsWith(sequence.Table.Pages), "a row begins with the sequence's pages");
            for (int page = start / Pool.PageSize; page <= (end - 1) / Pool.PageSize; page++)
            {
                Assert.True(written.Add(row[page]), $"page {row[page]} is written twice");
            }

            foreach (int page in row)
            {
                Assert.InRange(page, 0, Pool.PageCount - 1);
            }
        }

        foreach (Sequence sequence in Live)
        {
            if (sequence.State is SequenceState.Preempted or SequenceState.Swapped && _before[sequence.Id] != sequence.State)
            {
                Assert.Equal(SequenceState.Running, _before[sequence.Id]);
                Assert.False(plan.Sequences.Contains(sequence), "who is in the step makes no room");
            }

            Assert.InRange(sequence.PassedOver, 0, Options.MaxPassedOver);
        }

        HashSet<int> sources = [.. plan.CopySources.ToArray()], targets = [.. plan.CopyTargets.ToArray()];
        Assert.Equal(plan.CopyTargets.Length, targets.Count);
        Assert.False(sources.Overlaps(targets));
        CheckPages(plan);
        CheckPrefixes(plan);
    }

    // Each page has as many users as tables and copies name it, and all are free, cached or used.
    private void CheckPages(StepPlan plan)
    {
        int[] users = new int[Pool.PageCount];
        foreach (Sequence sequence in Live)
        {
            foreach (int page in sequence.Table.Pages)
            {
                users[page]++;
            }

            Assert.True(sequence.State == SequenceState.Running || sequence.Table.Length == 0);
        }

        foreach (int page in plan.CopySources)
        {
            users[page]++;
        }

        int held = 0;
        for (int page = 0; page < users.Length; page++)
        {
            Assert.Equal(users[page], Pool.ReferencesOf(page));
            held += users[page] > 0 ? 1 : 0;
        }

        Assert.Equal(Pool.PageCount, Pool.FreeCount + Pool.CachedCount + held);
    }

    // The rules of sl_batch_step, read anew; that nothing is left out which neighbours share; and that no group is cut by a stranger.
    private void CheckPrefixes(StepPlan plan)
    {
        int chunk = Options.PrefixChunk, size = Pool.PageSize;
        List<SharedPrefix>[] path = [.. Enumerable.Range(0, plan.Count).Select(static _ => new List<SharedPrefix>())];
        foreach (SharedPrefix prefix in plan.Prefixes.ToArray().OrderBy(static p => p.FirstKey))
        {
            Assert.True(prefix.FirstSequence >= 0 && prefix.NumSequences > 1 && prefix.FirstSequence + prefix.NumSequences <= plan.Count);
            Assert.True(prefix.FirstKey >= 0 && prefix.NumKeys > 0 && prefix.FirstKey % chunk == 0 && prefix.NumKeys % chunk == 0);
            List<SharedPrefix> first = path[prefix.FirstSequence];
            Assert.Equal(prefix.FirstKey, first.Sum(static p => p.NumKeys));
            for (int b = prefix.FirstSequence; b < prefix.FirstSequence + prefix.NumSequences; b++)
            {
                int queries = plan.QueryIndptr[b + 1] - plan.QueryIndptr[b];
                Assert.True(prefix.FirstKey + prefix.NumKeys <= plan.KvLengths[b] - queries);
                for (int page = prefix.FirstKey / size; page < (prefix.FirstKey + prefix.NumKeys) / size; page++)
                {
                    Assert.Equal(plan.PageIds[plan.PageIndptr[prefix.FirstSequence] + page], plan.PageIds[plan.PageIndptr[b] + page]);
                }

                Assert.Equal(first, path[b]);
            }

            for (int b = prefix.FirstSequence; b < prefix.FirstSequence + prefix.NumSequences; b++)
            {
                path[b].Add(prefix);
            }

            PrefixNodes++;
            DeepNodes += prefix.FirstKey > 0 ? 1 : 0;
        }

        for (int b = 0; b + 1 < plan.Count; b++)
        {
            int least = int.MaxValue;
            for (int c = b + 1; c < plan.Count; c++)
            {
                int common = CommonPages(plan, b, c);
                Assert.True(common <= least, "who shares more stands nearer");
                least = Math.Min(least, common);
            }

            int before = Math.Min(plan.KvLengths[b] - Queries(b), plan.KvLengths[b + 1] - Queries(b + 1));
            Assert.Equal(Math.Min(before, CommonPages(plan, b, b + 1) * size) / chunk * chunk, path[b].Intersect(path[b + 1]).Sum(static p => p.NumKeys));
        }

        int Queries(int b) => plan.QueryIndptr[b + 1] - plan.QueryIndptr[b];
    }

    private static int CommonPages(StepPlan plan, int b, int c) => plan.Sequences[b].Table.Pages.CommonPrefixLength(plan.Sequences[c].Table.Pages);

    private void Sum(StepPlan plan)
    {
        StepStatistics s = plan.Statistics;
        Totals = new StepStatistics(Totals.Tokens + s.Tokens, Totals.Admitted + s.Admitted, Totals.CachedTokens + s.CachedTokens, Totals.Preempted + s.Preempted, Totals.Swapped + s.Swapped);
        LastCopied = plan.CopySources.ToArray();
        Copies += LastCopied.Length;
    }

    private static int Draw(ulong content, long id) => (int)(Mix(content, (ulong)id * 3 + 1) >> 40) % Vocabulary;

    private static ulong First(ulong salt, int lengthClass) => Mix(salt + 5, (ulong)lengthClass + 9);

    private static ulong Mix(ulong a, ulong b)
    {
        ulong x = (a ^ (b + 0x9e3779b97f4a7c15 + (a << 6))) * 0xff51afd7ed558ccd;
        return x ^ (x >> 29);
    }

    /// <summary>Pages in a dictionary.</summary>
    internal sealed class FakeSwap(SchedulerWorld world, int pages) : IPageSwap
    {
        private readonly Dictionary<Sequence, ulong[][]> _held = [];

        public int FreeCount { get; private set; } = pages;

        public int HeldCount => _held.Count;

        public void SwapOut(Sequence sequence)
        {
            int size = world.Pool.PageSize;
            ulong[][] held = [.. sequence.Table.Pages.ToArray().Select(page => world._slots[(page * size)..((page + 1) * size)])];
            _held.Add(sequence, held);
            FreeCount -= held.Length;
            Assert.True(FreeCount >= 0);
            sequence.Table.Reset();
        }

        public void SwapIn(Sequence sequence)
        {
            sequence.Table.Append(sequence.Computed);
            ulong[][] held = _held[sequence];
            Assert.Equal(held.Length, sequence.Table.Pages.Length);
            for (int i = 0; i < held.Length; i++)
            {
                held[i].CopyTo(world._slots, sequence.Table.Pages[i] * world.Pool.PageSize);
            }

            Discard(sequence);
        }

        public void Discard(Sequence sequence)
        {
            FreeCount += _held[sequence].Length;
            _held.Remove(sequence);
        }
    }
}
