using Sluice.Interop;
using Sluice.Paging;

namespace Sluice.Scheduling;

/// <summary>What happened in the making of a step.</summary>
/// <param name="Tokens">T: tokens that are computed.</param>
/// <param name="Admitted">Sequences that began to run, or to run again.</param>
/// <param name="CachedTokens">Tokens that these had not to compute, as they were in the prefix cache.</param>
/// <param name="Preempted">Sequences that had to make room, swapped or not.</param>
/// <param name="Swapped">Those of them that are in the swap space.</param>
internal record struct StepStatistics(int Tokens, int Admitted, int CachedTokens, int Preempted, int Swapped);

/// <summary>
/// One step, ready for <see cref="Batch.Update"/> and the forward pass: B sequences with T tokens, R of which want logits. One object, made anew by each
/// <see cref="Scheduler.Schedule"/>; while the same sequences decode, only what has changed is written.
/// </summary>
internal sealed class StepPlan
{
    private const int Slack = 4; // pages: a row of ids has so much room to grow in before all rows are laid out again

    private readonly BlockPool _pool;
    private readonly SchedulerOptions _options;
    private readonly RunningOrder _order;
    private readonly PrefixTree _tree;
    private readonly Sequence[] _sequences;
    private readonly int[] _queryIndptr, _kvLengths, _pageIndptr, _ids, _rows, _rowSequences, _sources, _targets;
    private readonly int[] _rowPages, _nextChunk; // [B]: pages of a row that are in use; keys at which the next chunk is full
    private int[] _pageIds; // room for all pages once; more is taken as more are shared
    private int _copies;
    private bool _isDecode; // the arrays are those of a step in which all that run computed a token each, and nobody has come, left or moved since
    private StepStatistics _statistics;

    internal StepPlan(BlockPool pool, SchedulerOptions options, RunningOrder order)
    {
        (_pool, _options, _order) = (pool, options, order);
        int sequences = options.MaxSequences;
        _tree = new PrefixTree(sequences, pool.PageSize, options.PrefixChunk);
        _sequences = new Sequence[sequences];
        (_queryIndptr, _kvLengths, _pageIndptr) = (new int[sequences + 1], new int[sequences], new int[sequences + 1]);
        (_ids, _rows, _rowSequences) = (new int[options.TokenBudget], new int[options.Rows], new int[options.Rows]);
        _pageIds = new int[Math.Min(MaxPageIds, (long)pool.PageCount + Slack * sequences)];
        (_sources, _targets, _rowPages, _nextChunk) = (new int[sequences], new int[sequences], new int[sequences], new int[sequences]);
    }

    /// <summary>B: sequences of the step; 0: there is nothing to compute.</summary>
    public int Count { get; private set; }

    /// <summary>T: tokens of the step.</summary>
    public int TokenCount => _queryIndptr[Count];

    /// <summary>The sequences [B], in the order of their rows.</summary>
    public ReadOnlySpan<Sequence> Sequences => _sequences.AsSpan(0, Count);

    /// <summary>[B+1]: the tokens of each sequence.</summary>
    public ReadOnlySpan<int> QueryIndptr => _queryIndptr.AsSpan(0, Count + 1);

    /// <summary>[B]: keys of each sequence, those of the step included.</summary>
    public ReadOnlySpan<int> KvLengths => _kvLengths.AsSpan(0, Count);

    /// <summary>[B+1]: into <see cref="PageIds"/>. A row may end in ids without a meaning.</summary>
    public ReadOnlySpan<int> PageIndptr => _pageIndptr.AsSpan(0, Count + 1);

    /// <summary>The pages of each sequence.</summary>
    public ReadOnlySpan<int> PageIds => _pageIds.AsSpan(0, _pageIndptr[Count]);

    /// <summary>[T]: the tokens.</summary>
    public ReadOnlySpan<int> Ids => _ids.AsSpan(0, TokenCount);

    /// <summary>[R]: the tokens, by their place in <see cref="Ids"/>, whose logits are wanted; ascending.</summary>
    public ReadOnlySpan<int> Rows => _rows.AsSpan(0, RowCount);

    /// <summary>[R]: the sequence of each row, by its place in <see cref="Sequences"/>.</summary>
    public ReadOnlySpan<int> RowSequences => _rowSequences.AsSpan(0, RowCount);

    /// <summary>R: rows of logits.</summary>
    public int RowCount { get; private set; }

    /// <summary>Pages to copy before the step: page CopyTargets[i] = page CopySources[i]. No page is in both, and no target twice.</summary>
    public ReadOnlySpan<int> CopySources => _sources.AsSpan(0, _copies);

    /// <inheritdoc cref="CopySources"/>
    public ReadOnlySpan<int> CopyTargets => _targets.AsSpan(0, _copies);

    /// <summary>What neighbouring sequences share.</summary>
    public ReadOnlySpan<SharedPrefix> Prefixes => _tree.Nodes;

    /// <summary>The class of the sequences' lengths.</summary>
    public int LengthClass { get; private set; }

    /// <summary>Tokens of the longest sequence, computed or not: what keys that depend on the length are computed for.</summary>
    public int LongestLength { get; private set; }

    /// <summary>What happened.</summary>
    public StepStatistics Statistics => _statistics;

    /// <summary>Page ids of any step at most: <see cref="BatchOptions.MaxPageIds"/>.</summary>
    public int MaxPageIds => (int)Math.Min(int.MaxValue, (long)_options.MaxSequences * Math.Min(_pool.PageCount, _pool.PagesFor(_options.MaxLength)));

    /// <summary>Prefixes of any step at most.</summary>
    public int MaxPrefixes => _options.MaxSequences;

    /// <summary>The step as the native side takes it.</summary>
    public BatchStep ToBatchStep() => new() { QueryIndptr = QueryIndptr, KvLengths = KvLengths, PageIndptr = PageIndptr, PageIds = PageIds, Prefixes = Prefixes };

    internal ref StepStatistics Counts => ref _statistics;

    internal void Begin() => _statistics = default;

    /// <summary>A sequence has come, has left, or has another page in the place of one.</summary>
    internal void Invalidate() => _isDecode = false;

    /// <summary>Has a page copied before the step. It stays in use until the step has run: a copy reads what is there then.</summary>
    internal void Copy(int source, int target) => (_sources[_copies], _targets[_copies++]) = (source, target);

    /// <summary>How many of a page's users are copies of this step.</summary>
    internal int CopiesOf(int page) => CopySources.Count(page);

    /// <summary>Lets go of the pages that were copied.</summary>
    internal void EndCopies()
    {
        foreach (int page in CopySources)
        {
            _pool.Release(page);
        }

        _copies = 0;
    }

    /// <summary>Writes the arrays for the sequences that were given tokens; <paramref name="isDecode"/>: all that run, and the last known one each.</summary>
    internal void Compose(int tokens, int lengthClass, bool isDecode)
    {
        (_statistics.Tokens, LengthClass) = (tokens, lengthClass);
        if (!isDecode || !_isDecode || !TryAdvance())
        {
            Build();
            _isDecode = isDecode;
        }
    }

    // The same sequences as in the last step, each one token further.
    private bool TryAdvance()
    {
        bool sharesMore = false;
        int size = _pool.PageSize, longest = 0;
        for (int b = 0; b < Count; b++)
        {
            Sequence sequence = _sequences[b];
            int length = sequence.Table.Length;
            (_kvLengths[b], _ids[b]) = (length, sequence.LastToken);
            longest = Math.Max(longest, length);
            ReadOnlySpan<int> pages = sequence.Table.Pages;
            int known = _rowPages[b];
            if (pages.Length > known)
            {
                if (_pageIndptr[b] + pages.Length > _pageIndptr[b + 1])
                {
                    return false;
                }

                pages[known..].CopyTo(_pageIds.AsSpan(_pageIndptr[b] + known));
                _rowPages[b] = pages.Length;
            }

            if (length > _nextChunk[b])
            {
                // A chunk is full; those who forked lately may share it.
                sharesMore |= _pool.ReferencesOf(pages[_nextChunk[b] / size - 1]) > 1;
                _nextChunk[b] += _options.PrefixChunk;
            }
        }

        LongestLength = longest;
        if (sharesMore)
        {
            _tree.Build(QueryIndptr, KvLengths, PageIndptr, PageIds);
        }

        return true;
    }

    private void Build()
    {
        (Count, RowCount, LongestLength) = (0, 0, 0);
        int tokens = 0, at = 0;
        foreach (Sequence sequence in _order.Sequences)
        {
            if (sequence.Given == 0)
            {
                continue;
            }

            int b = Count++, start = sequence.Computed, end = start + sequence.Given;
            ReadOnlySpan<int> pages = sequence.Table.Pages;
            int room = Math.Max(pages.Length, Math.Min(pages.Length + Slack, _pool.PagesFor(sequence.MaxLength)));
            if (at + room > _pageIds.Length)
            {
                Array.Resize(ref _pageIds, Math.Max(at + room, 2 * _pageIds.Length));
            }

            pages.CopyTo(_pageIds.AsSpan(at));
            _pageIds.AsSpan(at + pages.Length, room - pages.Length).Clear(); // any id that is one
            (_sequences[b], _kvLengths[b], _rowPages[b]) = (sequence, end, pages.Length);
            _nextChunk[b] = (start / _options.PrefixChunk + 1) * _options.PrefixChunk;
            sequence.Tokens[start..end].CopyTo(_ids.AsSpan(tokens));
            for (int t = Math.Max(start, sequence.RowsWanted); t < end; t++)
            {
                (_rows[RowCount], _rowSequences[RowCount++]) = (tokens + t - start, b);
            }

            (tokens, at) = (tokens + sequence.Given, at + room);
            (_queryIndptr[Count], _pageIndptr[Count]) = (tokens, at);
            LongestLength = Math.Max(LongestLength, sequence.Length);
        }

        _sequences.AsSpan(Count).Clear();
        _tree.Build(QueryIndptr, KvLengths, PageIndptr, PageIds);
    }
}
