using Sluice.Paging;

namespace Sluice.Scheduling;

/// <summary>
/// Says what each step computes. There are no phases: a sequence has tokens that are known and tokens that are computed, and each step lets those that run catch up
/// within a budget (Sarathi-Serve, 2024): first who lacks one token, then chunks of who lacks more, then who waits. Where pages run out the last one makes room, and is computed anew
/// or swapped. Pure policy: no native call but those of an <see cref="IPageSwap"/>. Not thread-safe: it belongs to one engine thread.
/// <para>A step is <see cref="Schedule"/>, the plan's copies, the forward pass, <see cref="Commit"/> (or <see cref="Abandon"/>), then a <see cref="Sequence.Append"/>
/// for each sequence whose row was that of its last token, or <see cref="Finish"/>.</para>
/// </summary>
internal sealed class Scheduler
{
    private const int Window = 64; // sequences of the waiting line that are looked at for one admission

    private readonly BlockPool _pool;
    private readonly SchedulerOptions _options;
    private readonly IPageSwap? _swap;
    private readonly RunningOrder _order;
    private readonly StepPlan _plan;
    private readonly WaitingLine _waiting;
    private readonly List<Sequence> _running = []; // by rank: the last makes room first
    private readonly Dictionary<long, Sequence> _live = [];
    private readonly List<(int Class, long Step)> _classes = []; // when each class of lengths had a step last
    private long _arrivals, _steps;
    private int _tokensLeft, _rowsLeft, _scheduled, _decodes; // of the step in the making; _decodes: sequences that compute their last token alone
    private bool _isInFlight;

    /// <summary>Makes a scheduler of nobody.</summary>
    /// <param name="pool">Pages, none in use, that nobody else takes.</param>
    /// <param name="options">By which rules.</param>
    /// <param name="swap">Where pages may wait; null: who makes room is computed anew.</param>
    /// <param name="cache">The cache over the pool; null: one is made as the options want it.</param>
    /// <exception cref="ArgumentException">An option out of its range.</exception>
    public Scheduler(BlockPool pool, SchedulerOptions options, IPageSwap? swap = null, PrefixCache? cache = null)
    {
        options.Validate(pool.PageSize);
        (_pool, _options, _swap) = (pool, options, swap);
        Cache = cache ?? new PrefixCache(pool, options.PrefixCaching);
        _order = new RunningOrder(options.MaxSequences);
        _plan = new StepPlan(pool, options, _order);
        _waiting = new WaitingLine(options.Policy);
    }

    /// <summary>The pages that are found by their contents.</summary>
    public PrefixCache Cache { get; }

    /// <summary>The step in the making, or the last one.</summary>
    public StepPlan Plan => _plan;

    /// <summary>Who runs, the first in rank first.</summary>
    public IReadOnlyList<Sequence> Running => _running;

    /// <summary>How many wait.</summary>
    public int WaitingCount => _waiting.Count;

    /// <summary>How many have not ended.</summary>
    public int LiveCount => _live.Count;

    /// <summary>Who has not ended.</summary>
    public IReadOnlyCollection<Sequence> Live => _live.Values;

    /// <summary>Puts a sequence in the waiting line.</summary>
    /// <exception cref="RequestTooLargeException">It could never have all its tokens.</exception>
    /// <exception cref="ArgumentException">A live sequence has its id, or it was added before.</exception>
    public void Add(Sequence sequence)
    {
        RequireFitting(sequence);
        if (sequence.Table is not null)
        {
            throw new ArgumentException($"sequence {sequence.Id} was added before: each request is a sequence of its own", nameof(sequence));
        }

        Enter(sequence);
        sequence.Prepare(_pool);
        Enqueue(sequence, SequenceState.Waiting);
    }

    /// <summary>Makes the next step's plan, which is valid until the next call; its <see cref="StepPlan.Count"/> is 0 only where nobody has a token to compute.</summary>
    /// <exception cref="InvalidOperationException">The last step has neither been committed nor abandoned.</exception>
    /// <exception cref="Interop.SluiceException">Pages could not be moved: <see cref="Abandon"/>.</exception>
    public StepPlan Schedule()
    {
        RequireNoStep("the next is made");
        _isInFlight = true;
        _steps++;
        _plan.Begin();
        (_tokensLeft, _rowsLeft, _scheduled, _decodes) = (_options.TokenBudget, _options.Rows, 0, 0);
        int lengthClass = 0;
        if (_options.LengthClass is null)
        {
            Fill(0);
        }
        else
        {
            RestartOutgrown();
            while (_scheduled == 0 && NextClass() is { } next)
            {
                lengthClass = next;
                Fill(next);
            }
        }

        _plan.Compose(_options.TokenBudget - _tokensLeft, lengthClass, _decodes == _order.Count);
        _isInFlight = _scheduled > 0;
        return _plan;
    }

    /// <summary>The step has run: what it computed is computed.</summary>
    public void Commit()
    {
        foreach (Sequence sequence in _plan.Sequences)
        {
            if (sequence.Given > 0)
            {
                sequence.Computed += sequence.Given;
                sequence.RowsWanted = Math.Max(sequence.RowsWanted, sequence.Computed);
                sequence.Given = 0;
            }
        }

        EndStep();
    }

    /// <summary>
    /// The step has failed, or <see cref="Schedule"/> has: nothing of it counts. Who runs is computed anew, for pages that were written in part may be shared by any of them, and the
    /// prefix cache is empty. Those in the swap space stay there.
    /// </summary>
    public void Abandon()
    {
        while (_running.Count > 0)
        {
            Restart(_running.Count - 1);
        }

        Cache.Clear();
        EndStep();
    }

    /// <summary>Ends a sequence wherever it is: its pages are free at once, or cached. In a step that is under way it goes on to be computed, in vain.</summary>
    public void Finish(Sequence sequence)
    {
        switch (sequence.State)
        {
            case SequenceState.Finished:
                return;
            case SequenceState.Running:
                Leave(_running.IndexOf(sequence));
                sequence.Drop();
                break;
            case SequenceState.Swapped:
                _swap!.Discard(sequence);
                goto default;
            default:
                _waiting.Remove(sequence);
                break;
        }

        sequence.State = SequenceState.Finished;
        sequence.Given = 0;
        _live.Remove(sequence.Id);
    }

    /// <summary>
    /// Makes a second sequence of a running one, which shares all that it has: pages that are full for good, and the last one until either writes to it. Where as many run as may, it waits as if
    /// it had made room.
    /// </summary>
    /// <param name="sequence">The one that runs.</param>
    /// <param name="id">The second one's name.</param>
    /// <param name="maxLength">Tokens that it may have; null: as many as the first.</param>
    /// <exception cref="ArgumentException">A live sequence has the id.</exception>
    /// <exception cref="RequestTooLargeException">It could never have all its tokens.</exception>
    /// <exception cref="InvalidOperationException">The sequence does not run, or a step is under way.</exception>
    public Sequence Fork(Sequence sequence, long id, int? maxLength = null)
    {
        RequireNoStep("a sequence is forked");
        if (sequence.State != SequenceState.Running)
        {
            throw new InvalidOperationException($"sequence {sequence.Id} is {sequence.State}, and only one that runs can be forked");
        }

        Sequence fork = sequence.Fork(id, maxLength ?? sequence.MaxLength);
        RequireFitting(fork);
        Enter(fork);
        if (_running.Count == _options.MaxSequences)
        {
            Enqueue(fork, SequenceState.Preempted);
            return fork;
        }

        fork.Table.ShareAll(sequence.Table);
        fork.Computed = sequence.Computed;
        (fork.ChainedPages, fork.Chained) = (sequence.ChainedPages, sequence.Chained);
        fork.MaySharePartialPage = sequence.MaySharePartialPage = true;
        Join(fork);
        return fork;
    }

    private void Fill(int lengthClass)
    {
        bool anyChunk = false;
        for (int i = 0; i < _running.Count;)
        {
            Sequence sequence = _running[i];
            int lacks = sequence.Length - sequence.Computed;
            anyChunk |= lacks > 1;
            // Who made room is no more where it was.
            i += lacks != 1 || sequence.Class != lengthClass || Give(i, 1) ? 1 : 0;
        }

        for (int i = 0; anyChunk && i < _running.Count && _tokensLeft > 0;)
        {
            Sequence sequence = _running[i];
            int lacks = sequence.Length - sequence.Computed;
            i += lacks <= 1 || sequence.Class != lengthClass || Give(i, lacks) ? 1 : 0;
        }

        if (_plan.Counts.Preempted == 0)
        {
            while (_waiting.Count > 0 && _running.Count < _options.MaxSequences && _tokensLeft > 0 && Choose(lengthClass) is { } next && TryAdmit(next))
            {
            }
        }
    }

    // Tokens for a running sequence: as many as are wanted, or as find pages; where there is none for the first, the last in rank makes room. False: that was itself.
    private bool Give(int index, int wanted)
    {
        Sequence sequence = _running[index];
        int tokens = Allowed(sequence, sequence.Computed, wanted);
        if (tokens == 0)
        {
            return true;
        }

        PageTable table = sequence.Table;
        while (true)
        {
            bool copies = sequence.MaySharePartialPage && SharesPartialPage(sequence);
            int room = table.Capacity - table.Length;
            if (room < tokens || copies)
            {
                int pages = _pool.AvailableCount - (copies ? 1 : 0);
                int fitting = pages < 0 ? 0 : (int)Math.Min(tokens, room + (long)pages * _pool.PageSize);
                if (fitting == 0)
                {
                    int victim = _running.Count - 1;
                    while (victim > index && _running[victim].Given > 0)
                    {
                        victim--;
                    }

                    if (victim == index && index < _running.Count - 1)
                    {
                        return true; // those behind it have their tokens already: it waits for what they leave
                    }

                    Preempt(victim);
                    if (victim == index)
                    {
                        return false;
                    }

                    continue;
                }

                tokens = fitting;
            }

            if (copies)
            {
                int source = table.DetachLast();
                _plan.Copy(source, table.Pages[^1]);
                _plan.Invalidate();
            }

            sequence.MaySharePartialPage = false;
            Take(sequence, tokens);
            return true;
        }
    }

    // Whether somebody else reads the page that the sequence writes to next. A copy of this step holds its page too, and needs no other.
    private bool SharesPartialPage(Sequence sequence)
    {
        PageTable table = sequence.Table;
        if (table.Length == table.Capacity)
        {
            return false;
        }

        int last = table.Pages[^1];
        return _pool.ReferencesOf(last) - _plan.CopiesOf(last) > 1;
    }

    private void Take(Sequence sequence, int tokens)
    {
        int start = sequence.Computed, end = start + tokens;
        sequence.Table.Append(tokens);
        sequence.Given = tokens;
        _tokensLeft -= tokens;
        _rowsLeft -= Math.Max(0, end - Math.Max(start, sequence.RowsWanted));
        _scheduled++;
        _decodes += tokens == 1 && end == sequence.Length ? 1 : 0;
        // Full pages are shared from here on: attention reads them when all of the step's keys are there.
        if (end >= (sequence.ChainedPages + 1) * (long)_pool.PageSize)
        {
            Cache.Register(sequence);
        }
    }

    // Tokens from `start` on that the step has room for: its tokens, and its rows of logits.
    private int Allowed(Sequence sequence, int start, int wanted)
    {
        int tokens = Math.Min(Math.Min(wanted, _options.ChunkSize), _tokensLeft);
        int rowless = Math.Max(0, sequence.RowsWanted - start);
        return tokens <= rowless ? tokens : Math.Min(tokens, rowless + _rowsLeft);
    }

    private void Preempt(int index)
    {
        Sequence sequence = _running[index];
        sequence.Preemptions++;
        _plan.Counts.Preempted++;
        int pages = sequence.Table.Pages.Length;
        if (_swap is null || pages == 0 || pages > _swap.FreeCount
            || 2 * pages * _options.SecondsPerPageMoved >= sequence.Computed * _options.SecondsPerTokenComputed)
        {
            Restart(index);
            return;
        }

        _swap.SwapOut(sequence);
        sequence.MaySharePartialPage = false;
        _plan.Counts.Swapped++;
        Leave(index);
        Enqueue(sequence, SequenceState.Swapped);
    }

    // To the waiting line, with nothing computed.
    private void Restart(int index)
    {
        Sequence sequence = _running[index];
        Leave(index);
        sequence.Drop();
        Enqueue(sequence, SequenceState.Preempted);
    }

    private void RequireFitting(Sequence sequence)
    {
        int pages = _pool.PagesFor(sequence.MaxLength);
        if (sequence.MaxLength > _options.MaxLength || pages > _pool.PageCount)
        {
            throw new RequestTooLargeException(sequence.MaxLength, _options.MaxLength, pages, _pool.PageCount);
        }
    }

    private void Enter(Sequence sequence)
    {
        if (!_live.TryAdd(sequence.Id, sequence))
        {
            throw new ArgumentException($"sequence {sequence.Id} is live already, and an id is one sequence's until it has ended", nameof(sequence));
        }

        sequence.Arrival = _arrivals++;
    }

    private void Enqueue(Sequence sequence, SequenceState state)
    {
        sequence.State = state;
        if (_options.LengthClass is { } classOf)
        {
            sequence.SetClass(classOf(sequence.Length));
        }

        _waiting.Add(sequence);
    }

    private void Join(Sequence sequence)
    {
        sequence.State = SequenceState.Running;
        int at = _running.Count;
        while (at > 0 && WaitingLine.Ranks(_options.Policy, sequence, _running[at - 1]))
        {
            at--;
        }

        _running.Insert(at, sequence);
        _order.Add(sequence);
        _plan.Invalidate();
    }

    private void Leave(int index)
    {
        _order.Remove(_running[index]);
        _running.RemoveAt(index);
        _plan.Invalidate();
    }

    private void EndStep()
    {
        _plan.EndCopies();
        _isInFlight = false;
    }

    private void RequireNoStep(string what)
    {
        if (_isInFlight)
        {
            throw new InvalidOperationException($"a step is under way: commit or abandon it before {what}");
        }
    }

    // Keys depend on the length: who has come into another class begins anew there.
    private void RestartOutgrown()
    {
        for (int i = _running.Count - 1; i >= 0; i--)
        {
            if (_options.LengthClass!(_running[i].Length) != _running[i].Class)
            {
                Restart(i);
            }
        }
    }

    // The class whose last step is the longest ago, of those that have not been tried for this one.
    private int? NextClass()
    {
        int best = -1;
        foreach (Sequence sequence in _live.Values)
        {
            int at = 0;
            while (at < _classes.Count && _classes[at].Class != sequence.Class)
            {
                at++;
            }

            if (at == _classes.Count)
            {
                _classes.Add((sequence.Class, 0));
            }

            if (_classes[at].Step < _steps && (best < 0 || _classes[at].Step < _classes[best].Step))
            {
                best = at;
            }
        }

        if (best < 0)
        {
            return null;
        }

        _classes[best] = (_classes[best].Class, _steps);
        return _classes[best].Class;
    }

    // Who is admitted next, if there is room; null: nobody of those who may be for now.
    private Sequence? Choose(int lengthClass)
    {
        Sequence? best = null;
        int most = -1;
        for (int i = 0, looked = 0; i < _waiting.Count && looked < Window; i++)
        {
            Sequence sequence = _waiting[i];
            if (_options.LengthClass is { } classOf && sequence.State == SequenceState.Preempted)
            {
                sequence.SetClass(classOf(sequence.Length)); // a fork that found no room got its token while it waited
            }

            if (sequence.Class != lengthClass)
            {
                continue;
            }

            looked++;
            bool isDue = sequence.PassedOver >= _options.MaxPassedOver;
            if (sequence.State == SequenceState.Swapped)
            {
                return sequence;
            }

            int cached = Cache.Match(sequence, Sharable(sequence), out _);
            if (IsOnItsWay(sequence, cached))
            {
                if (isDue)
                {
                    return best; // nobody else passes it
                }

                continue;
            }

            if (isDue || _options.Policy != SchedulingPolicy.LongestPrefixFirst || sequence.State != SequenceState.Waiting)
            {
                return sequence;
            }

            if (cached > most)
            {
                (best, most) = (sequence, cached);
            }
        }

        return best;
    }

    // Pages that a sequence may take from the cache: what wants logits is computed, and the last known token always is.
    private int Sharable(Sequence sequence) => Math.Min(sequence.RowsWanted, sequence.Length - 1) / _pool.PageSize;

    // Whether somebody who runs is about to compute the first page that the cache lacks.
    private bool IsOnItsWay(Sequence sequence, int cached)
    {
        if (!Cache.Enabled || cached >= Sharable(sequence))
        {
            return false;
        }

        int end = (cached + 1) * _pool.PageSize;
        foreach (Sequence other in _running)
        {
            if (other.Table.Length < end && other.Length >= end && other.Salt == sequence.Salt && other.Class == sequence.Class
                && other.HashOf(cached) == sequence.HashOf(cached) && other.Tokens[..end].SequenceEqual(sequence.Tokens[..end]))
            {
                return true;
            }
        }

        return false;
    }

    private bool TryAdmit(Sequence sequence)
    {
        bool isSwapped = sequence.State == SequenceState.Swapped;
        PageContent last = PageContent.None;
        int cached = isSwapped ? 0 : Cache.Match(sequence, Sharable(sequence), out last);
        int start = isSwapped ? sequence.Computed : cached * _pool.PageSize;
        int tokens = Allowed(sequence, start, sequence.Length - start);
        int taken = _pool.PagesFor(start + tokens) - cached;
        foreach (int page in Cache.Found(cached))
        {
            taken += _pool.ReferencesOf(page) == 0 ? 1 : 0; // in use, it can no more be evicted
        }

        if (tokens == 0 || taken + (_running.Count > 0 ? _options.WatermarkPages : 0) > _pool.AvailableCount)
        {
            return false;
        }

        sequence.Reserve();
        if (isSwapped)
        {
            _swap!.SwapIn(sequence);
        }
        else
        {
            sequence.Table.AppendShared(Cache.Found(cached));
            Cache.Count(sequence.Length, start);
            (sequence.Computed, sequence.ChainedPages, sequence.Chained) = (start, cached, last);
            sequence.CachedTokens = sequence.State == SequenceState.Waiting ? start : sequence.CachedTokens;
            _plan.Counts.CachedTokens += start;
        }

        _plan.Counts.Admitted++;
        _waiting.Admit(sequence);
        Take(sequence, tokens);
        Join(sequence);
        return true;
    }
}
