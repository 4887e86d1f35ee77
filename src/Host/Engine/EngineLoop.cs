using System.Collections.Concurrent;
using System.Diagnostics;
using Sluice.Decoding;
using Sluice.Interop;
using Sluice.Paging;
using Sluice.Scheduling;

namespace Sluice;

/// <summary>
/// The engine's thread: takes what callers want, and makes steps for as long as there is something to compute. A step is schedule, plan, forward, choose, publish. All fields but
/// the queue and the statistics are the thread's own; no lock is held across a native call.
/// </summary>
internal sealed class EngineLoop : IDisposable
{
    private const int MeasuredTokens = 64; // a step of so many tells what a token of a prompt costs

    private readonly Engine _engine;
    private readonly BlockPool _pool;
    private readonly SchedulerOptions _options;
    private readonly Scheduler _scheduler;
    private readonly EngineStep _step;
    private readonly StepRows _rows;
    private readonly ConcurrentQueue<(EngineCommand Command, object Work)> _queue = new();
    private readonly SemaphoreSlim _wake = new(0);
    private readonly TaskCompletionSource _stopped = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Lock _statisticsLock = new();

    private volatile bool _stopping, _aborting;
    private volatile Exception? _fault;
    private long _ids, _steps, _promptTokens, _generatedTokens, _preemptions, _keysRead, _keysSaved;
    private double _scheduleSeconds, _stepSeconds;
    private EngineStatistics _statistics;

    public EngineLoop(Engine engine, SchedulerOptions options, int pages, int swapPages, bool cascade)
    {
        (_engine, _options) = (engine, options);
        _rows = new StepRows(options.Rows, engine.Model.Config.HiddenSize);
        _pool = new BlockPool(pages, EngineStep.PageSize);
        _step = new EngineStep(engine.Model, options, pages, swapPages, cascade);
        try
        {
            _scheduler = new Scheduler(_pool, options, _step.Swap);
            _step.Prepare(_scheduler.Plan, options, engine.Model.Config.VocabularySize);
            if (_step.Swap is not null)
            {
                options.SecondsPerPageMoved = _step.MeasureSwap(pages);
            }
        }
        catch
        {
            _step.Dispose();
            throw;
        }

        UpdateStatistics();
        new Thread(Run) { IsBackground = true, Name = "Sluice engine" }.UnsafeStart(); // without its maker's context, which would live as long
    }

    /// <summary>Pages of the cache.</summary>
    public int Pages => _pool.PageCount;

    /// <summary>Ends when the thread has.</summary>
    public Task Stopped => _stopped.Task;

    /// <summary>Throws where nothing new is taken.</summary>
    /// <exception cref="ObjectDisposedException">It was stopped.</exception>
    /// <exception cref="InvalidOperationException">It has failed.</exception>
    public void RequireRunning()
    {
        if (_fault is { } fault)
        {
            throw new InvalidOperationException($"the engine has failed, and runs nothing any more: {fault.Message}", fault);
        }

        ObjectDisposedException.ThrowIf(_stopping, _engine);
    }

    /// <summary>As the last step left them.</summary>
    public EngineStatistics Statistics
    {
        get
        {
            lock (_statisticsLock)
            {
                return _statistics;
            }
        }
    }

    /// <summary>Leaves a wish for the thread. One that comes too late is answered by the last look at the queue.</summary>
    public void Post(EngineCommand command, object work)
    {
        _queue.Enqueue((command, work));
        if (_stopped.Task.IsCompleted)
        {
            RefuseQueued();
        }
        else
        {
            _wake.Release();
        }
    }

    /// <summary>Takes no more, and ends: when all is done, or now.</summary>
    public void Stop(bool abort)
    {
        if (abort)
        {
            _aborting = true; // written alone: a draining stop beside it takes nothing back
        }

        _stopping = true;
        _wake.Release();
    }

    /// <summary>Ends it by aborting, and waits for that.</summary>
    public void Dispose()
    {
        Stop(abort: true);
        Stopped.GetAwaiter().GetResult();
    }

    private void Run()
    {
        Exception? fault = null;
        try
        {
            while (!_aborting)
            {
                while (_wake.CurrentCount > 0)
                {
                    _wake.Wait(0); // what it called for is looked at now
                }

                bool stopping = _stopping; // looked at first: what was posted before the stop is in the queue then
                TakeQueued();
                if (_scheduler.LiveCount == 0)
                {
                    UpdateStatistics();
                    _rows.Clear(); // who has ended is nobody's to keep
                    if (stopping)
                    {
                        break;
                    }

                    _wake.Wait();
                    continue;
                }

                MakeStep();
            }
        }
        catch (Exception e)
        {
            // Nothing of what callers do leads here: but if it happened, their requests end with it, and not the process.
            fault = e;
        }

        (_stopping, _aborting, _fault) = (true, true, fault);
        try
        {
            EndAll(fault ?? Cancelled());
            _step.Dispose();
        }
        catch (Exception e)
        {
            _fault ??= e;
        }

        _stopped.SetResult();
        RefuseQueued();
    }

    private void TakeQueued()
    {
        // Those that are there now: callers who never stop asking must not keep the others' steps from being made.
        for (int n = _queue.Count; n > 0 && _queue.TryDequeue(out (EngineCommand Command, object Work) wish); n--)
        {
            switch (wish)
            {
                case (EngineCommand.Start, Generation[] samples): Begin(samples); break;
                case (EngineCommand.Start, TextPass p): Begin(p); break;
                case (EngineCommand.Fork, Generation g): BeginFork(g); break;
                case (_, Generation g): Abort(g, Cancelled()); break;
                case (_, TextPass p): Abort(p); break;
            }
        }
    }

    // Who belongs together is told here, where nobody has a hand in it: a sample may have been aborted by name before its start.
    private void Begin(Generation[] samples)
    {
        foreach (Generation sibling in samples.AsSpan(1))
        {
            if (!sibling.Completion.IsCompleted)
            {
                sibling.Leader = samples[0];
                samples[0].Siblings.Add(sibling);
            }
        }

        Begin(samples[0]);
    }

    private void Begin(Generation g)
    {
        if (g.Completion.IsCompleted)
        {
            PromoteSibling(g); // it was aborted before it began
            return;
        }

        int most = (int)Math.Min(int.MaxValue, (long)g.Prompt.Length + g.MaxTokens);
        int? firstRow = g.Options.PromptLogProbs ? 0 : null;
        g.Sequence = new Sequence(_ids++, g.Prompt, most, g.Options.Priority, _engine.SaltOf(g.Options.Tenant), firstRow) { Owner = g };
        if (firstRow is not null)
        {
            g.PromptLogProbs = new float[g.Prompt.Length - 1];
        }

        _promptTokens += g.Prompt.Length;
        Add(g.Sequence, g);
    }

    private void Begin(TextPass p)
    {
        if (p.Result.IsCompleted)
        {
            return;
        }

        // Of a text whose tokens are scored the last one says nothing, but where keys depend on the length it counts.
        bool isWhole = p.Pooling is not null || _options.LengthClass is not null;
        ReadOnlySpan<int> tokens = isWhole ? p.Tokens : p.Tokens.AsSpan(0, p.Tokens.Length - 1);
        p.Sequence = new Sequence(_ids++, tokens, tokens.Length, p.Options.Priority, _engine.SaltOf(p.Options.Tenant), p.FirstRow) { Owner = p };
        _promptTokens += tokens.Length;
        Add(p.Sequence, p);
    }

    private void Add(Sequence sequence, object work)
    {
        try
        {
            _scheduler.Add(sequence);
        }
        catch (ArgumentException e)
        {
            Fail(work, e);
        }
    }

    // The fork takes all that its parent has now, and what is computed of it where the parent runs.
    private void BeginFork(Generation g)
    {
        Generation parent = g.Leader!;
        g.Leader = null;
        if (g.Completion.IsCompleted)
        {
            return;
        }

        ReadOnlySpan<int> tokens = parent.Sequence is { } known ? known.Tokens : parent.Prompt;
        g.Prompt = tokens.ToArray();
        int context = Math.Min(_engine.ContextLength, _pool.PageCount * EngineStep.PageSize);
        long most = (long)tokens.Length + (g.Parameters.MaxTokens ?? Math.Max(1, context - tokens.Length));
        if (most > context)
        {
            Fail(g, new RequestTooLargeException((int)Math.Min(most, int.MaxValue), _engine.ContextLength, _pool.PagesFor((int)Math.Min(most, int.MaxValue)), _pool.PageCount));
            return;
        }

        g.MaxTokens = (int)most - tokens.Length;
        if (g.MaxTokens == 0)
        {
            End(g, null);
            return;
        }

        if (parent.Sequence is { State: SequenceState.Running } running)
        {
            g.Sequence = _scheduler.Fork(running, _ids++, (int)most);
            g.Sequence.Owner = g;
            g.Sequence.RowsWanted = tokens.Length - 1; // its parent's prompt is its parent's to score
            g.CachedPromptTokens = g.Sequence.Computed;
            return;
        }

        g.Sequence = new Sequence(_ids++, tokens, (int)most, g.Options.Priority, _engine.SaltOf(g.Options.Tenant)) { Owner = g };
        Add(g.Sequence, g);
    }

    private void Abort(Generation g, Exception? error)
    {
        if (g.Completion.IsCompleted)
        {
            return;
        }

        if (g.Leader is { } leader)
        {
            leader.Siblings.Remove(g);
        }

        End(g, error);
    }

    private void Abort(TextPass p)
    {
        if (!p.Result.IsCompleted)
        {
            Release(p.Sequence);
            p.Cancel();
        }
    }

    private void MakeStep()
    {
        long start = Stopwatch.GetTimestamp();
        try
        {
            StepPlan plan = _scheduler.Schedule();
            if (plan.Count == 0)
            {
                // Whoever lives can run, so this is nobody's doing; but to turn in circles would be worse.
                throw new InvalidOperationException($"{_scheduler.LiveCount:N0} requests live, and none of them can go on");
            }

            _rows.Collect(plan);
            UpdateStatistics(); // a long step is not to hide who has come
            _scheduleSeconds += Stopwatch.GetElapsedTime(start).TotalSeconds;
            _rows.Compute(_step, plan);
            _scheduler.Commit();
            Publish(plan);
            Count(plan, Stopwatch.GetElapsedTime(start).TotalSeconds);
        }
        catch (Exception e)
        {
            // What was half computed is nobody's. Those that ran are told; who waits may find the device well again. Where nobody ran, it would fail so for ever.
            List<object> failed = [.. (_scheduler.Running.Count > 0 ? _scheduler.Running : _scheduler.Live).Select(s => s.Owner!)];
            _scheduler.Abandon();
            foreach (object work in failed)
            {
                Fail(work, e);
            }
        }

        UpdateStatistics();
    }

    private void Publish(StepPlan plan)
    {
        foreach (Sequence sequence in plan.Sequences)
        {
            if (sequence.Owner is Generation g)
            {
                (g.CachedPromptTokens, g.Preemptions) = (Math.Max(g.CachedPromptTokens, sequence.CachedTokens), sequence.Preemptions);
            }
            else if (sequence is { Owner: TextPass p } && sequence.Computed == sequence.Length)
            {
                Release(sequence);
                p.Complete();
            }
        }

        // Siblings leave their leader before its own token makes the two different.
        for (int i = 0; i < _rows.ChoosingCount; i++)
        {
            Generation g = _rows.Choosing[i];
            if (g.Leader is { } leader && leader.Sequence is { State: SequenceState.Running } first)
            {
                leader.Siblings.Remove(g);
                g.Leader = null;
                g.Sequence = _scheduler.Fork(first, _ids++, first.MaxLength);
                g.Sequence.Owner = g;
                g.Times.Admitted();
                (g.CachedPromptTokens, g.PromptLogProbs) = (g.Prompt.Length, leader.PromptLogProbs);
                _promptTokens += g.Prompt.Length;
            }
        }

        for (int i = 0; i < _rows.ChoosingCount; i++)
        {
            Generation g = _rows.Choosing[i];
            PromoteSibling(g); // who found no row
            if (_rows.Choices[i].Id < 0)
            {
                Fail(g, Choice.Impossible(_rows.Choices[i].Logit, _engine.Model.ActivationType));
                continue;
            }

            _generatedTokens++;
            g.Sequence!.Append(_rows.Choices[i].Id);
            if (g.Publish(_rows.Choices[i]))
            {
                End(g, null);
            }
        }
    }

    // Siblings that cannot begin with their leader: the first of them becomes the others'.
    private void PromoteSibling(Generation g)
    {
        if (g.Siblings.Count == 0)
        {
            return;
        }

        Generation next = g.Siblings[0];
        next.Siblings.AddRange(g.Siblings.Skip(1));
        next.Leader = null;
        g.Siblings.Clear();
        foreach (Generation other in next.Siblings)
        {
            other.Leader = next;
        }

        Begin(next);
    }

    private void Fail(object work, Exception error)
    {
        if (work is Generation g)
        {
            End(g, error);
            return;
        }

        TextPass p = (TextPass)work;
        Release(p.Sequence);
        p.Fail(error);
    }

    private void End(Generation g, Exception? error)
    {
        Release(g.Sequence);
        _engine.End(g, error);
        PromoteSibling(g);
    }

    private void Release(Sequence? sequence)
    {
        // One that was never added has no table.
        if (sequence is { Table: not null })
        {
            _scheduler.Finish(sequence);
        }
    }

    // The scheduler is not asked any more: its pages go with it.
    private void EndAll(Exception error)
    {
        foreach (Sequence sequence in _scheduler.Live)
        {
            (sequence.Owner as TextPass)?.Fail(error);
        }

        _engine.EndAll(error); // all in the books, whether the scheduler knows them or not
        RefuseQueued();
        lock (_statisticsLock)
        {
            _statistics = _statistics with { Running = 0, Waiting = 0, FreePages = _pool.PageCount, CachedPages = 0 };
        }
    }

    private void RefuseQueued()
    {
        while (_queue.TryDequeue(out (EngineCommand Command, object Work) wish))
        {
            if (wish.Work is TextPass p)
            {
                p.Cancel();
            }
            else
            {
                foreach (Generation own in wish.Work as Generation[] ?? [(Generation)wish.Work])
                {
                    _engine.End(own, Cancelled());
                }
            }
        }
    }

    private OperationCanceledException Cancelled() => new(_stopping ? "the engine was stopped before the request ended" : "the request was aborted");

    private void Count(StepPlan plan, double seconds)
    {
        BatchInfo info = _step.ReadInfo();
        _steps++;
        _stepSeconds += seconds;
        _preemptions += plan.Statistics.Preempted;
        _keysRead += info.KeysShared;
        _keysSaved += info.Keys - info.KeysShared;
        if (plan.TokenCount >= MeasuredTokens)
        {
            double each = seconds / plan.TokenCount, before = _options.SecondsPerTokenComputed;
            _options.SecondsPerTokenComputed = before + (0.1 * (each - before));
        }

        EngineMetrics.CountStep(_engine, plan, info, _rows.ChoosingCount);
    }

    private void UpdateStatistics()
    {
        EngineStatistics now = new(
            _scheduler.Running.Count, _scheduler.WaitingCount, _pool.PageCount, _pool.FreeCount, _pool.AvailableCount - _pool.FreeCount, _steps, _promptTokens,
            _scheduler.Cache.HitTokens, _generatedTokens, _preemptions, _keysRead, _keysSaved, _scheduleSeconds, _stepSeconds);
        lock (_statisticsLock)
        {
            _statistics = now;
        }
    }
}
