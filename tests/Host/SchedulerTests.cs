using Sluice.Interop;
using Sluice.Paging;
using Sluice.Scheduling;

namespace Sluice.Tests.Host;

/// <summary>What the scheduler decides, one rule a test. <see cref="RandomSchedulerTests"/> has them all at once.</summary>
public sealed class SchedulerTests
{
    private static readonly SchedulerOptions Small = new() { TokenBudget = 16, MaxSequences = 8, ChunkSize = 8, MaxRows = 16, PrefixChunk = 4, WatermarkPages = 0, PrefixCaching = false };

    [Fact]
    public void Decodes_come_before_a_long_prompt_which_gets_what_the_budget_leaves()
    {
        SchedulerWorld world = new(100, 4, Small with { TokenBudget = 10 });
        Sequence longest = world.Add(1, Prompt(30), 40), second = world.Add(2, Prompt(2), 20), third = world.Add(3, Prompt(1), 20);
        Assert.Equal([8, 2], Given(world.Step(), longest, second));
        StepPlan plan = world.Step();
        Assert.Equal([8, 1, 1], Given(plan, longest, second, third));
        Assert.Equal(2, plan.RowCount); // the chunk ends in the middle of the prompt
        Assert.Equal([8, 1, 1], Given(world.Step(), longest, second, third));
        plan = world.Step();
        Assert.Equal([6, 1, 1], Given(plan, longest, second, third));
        Assert.Equal(3, plan.RowCount);
    }

    [Fact]
    public void First_come_is_first_admitted_and_the_latest_makes_room()
    {
        SchedulerWorld world = new(4, 4, Small);
        Sequence first = world.Add(1, Prompt(7), 16), second = world.Add(2, Prompt(7), 16), third = world.Add(3, Prompt(1), 4);
        world.Step();
        Assert.Equal([SequenceState.Running, SequenceState.Running, SequenceState.Waiting], States(first, second, third));
        world.Step();
        StepPlan plan = world.Step(); // both want a third page
        Assert.Equal([SequenceState.Running, SequenceState.Preempted, SequenceState.Waiting], States(first, second, third));
        Assert.Equal((1, 1, 0), (plan.Statistics.Preempted, second.Preemptions, second.Computed));
        while (second.State == SequenceState.Preempted)
        {
            Assert.Equal(SequenceState.Waiting, third.State); // the elder waits before it
            world.Step();
        }

        Drain(world);
    }

    [Fact]
    public void The_lowest_number_has_priority_and_the_highest_makes_room()
    {
        SchedulerWorld world = new(4, 4, Small with { Policy = SchedulingPolicy.Priority, MaxSequences = 2 });
        Sequence late = world.Add(1, Prompt(7), 16, priority: 5), middle = world.Add(2, Prompt(7), 16, priority: 1), urgent = world.Add(3, Prompt(7), 16, priority: -1);
        world.Step();
        Assert.Equal([SequenceState.Waiting, SequenceState.Running, SequenceState.Running], States(late, middle, urgent));
        world.Step();
        world.Step();
        Assert.Equal([SequenceState.Waiting, SequenceState.Preempted, SequenceState.Running], States(late, middle, urgent));
        Drain(world);
        Assert.Equal([3L, 2, 1], world.Ended.Select(static s => s.Id));
    }

    [Fact]
    public void Who_is_urgent_and_came_later_does_not_make_room_for_who_runs_already()
    {
        SchedulerWorld world = new(4, 4, Small with { Policy = SchedulingPolicy.Priority });
        Sequence patient = world.Add(1, Prompt(6), 16, priority: 5);
        world.Step();
        Sequence urgent = world.Add(2, Prompt(7), 16, priority: -1);
        while (patient.Preemptions + urgent.Preemptions == 0)
        {
            world.Step();
        }

        Assert.Equal([SequenceState.Preempted, SequenceState.Running], States(patient, urgent));
        Drain(world);
    }

    [Fact]
    public void The_longest_cached_prefix_is_admitted_first()
    {
        SchedulerWorld world = new(100, 4, Small with { Policy = SchedulingPolicy.LongestPrefixFirst, PrefixCaching = true, MaxSequences = 1, TokenBudget = 64, ChunkSize = 64 });
        world.Add(1, Prompt(16), 16);
        Drain(world);
        Sequence none = world.Add(2, [1, .. Prompt(15)], 18), some = world.Add(3, [.. Prompt(6), 1, 1, 1, 1], 18), most = world.Add(4, [.. Prompt(14), 1, 1], 18);
        world.Step();
        Assert.Equal([SequenceState.Waiting, SequenceState.Waiting, SequenceState.Running], States(none, some, most));
        Assert.Equal(12, most.CachedTokens);
        Drain(world);
        Assert.Equal([4L, 3, 2], world.Ended.Skip(1).Select(static s => s.Id));
        Assert.Equal((4, 0), (some.CachedTokens, none.CachedTokens));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    public void Nobody_is_passed_over_more_often_than_the_bound(int bound)
    {
        SchedulerWorld world = new(100, 4, Small with { Policy = SchedulingPolicy.LongestPrefixFirst, PrefixCaching = true, MaxSequences = 1, MaxPassedOver = bound });
        world.Add(1, Prompt(8), 8);
        Drain(world);
        Sequence unlucky = world.Add(2, [1, 1, 1, 1, 1], 5);
        for (int i = 0; i < 8; i++)
        {
            world.Add(10 + i, Prompt(8), 8);
        }

        Drain(world);
        Assert.Equal(bound, unlucky.PassedOver);
        Assert.Equal(1 + bound, world.Ended.IndexOf(unlucky));
    }

    [Fact]
    public void A_request_that_never_fits_is_refused_with_the_numbers()
    {
        SchedulerWorld world = new(4, 4, Small with { MaxLength = 20 });
        RequestTooLargeException pages = Assert.Throws<RequestTooLargeException>(() => world.Add(1, Prompt(3), 17));
        Assert.Equal((17, 20, 5, 4), (pages.Tokens, pages.Context, pages.Pages, pages.TotalPages));
        Assert.Contains("17 tokens need 5 pages, and the KV cache has 4 in all", pages.Message, StringComparison.Ordinal);
        RequestTooLargeException context = Assert.Throws<RequestTooLargeException>(() => world.Add(1, Prompt(3), 21));
        Assert.Contains("21 tokens are wanted, and a sequence may have 20", context.Message, StringComparison.Ordinal);
        Assert.Equal(0, world.Scheduler.LiveCount);
        world.Add(1, Prompt(3), 16);
        Drain(world);
    }

    [Fact]
    public void An_id_is_one_live_sequences()
    {
        SchedulerWorld world = new(10, 4, Small);
        Sequence first = world.Add(1, Prompt(3), 9);
        Assert.Contains("sequence 1 is live already", Assert.Throws<ArgumentException>(() => world.Add(1, Prompt(2), 9)).Message, StringComparison.Ordinal);
        world.Step();
        Assert.Throws<ArgumentException>(() => world.Scheduler.Fork(first, 1));
        Assert.Throws<ArgumentException>(() => world.Scheduler.Add(first));
        world.Finish(first);
        world.Add(1, Prompt(2), 9);
        Assert.Equal(1, world.Scheduler.LiveCount);
    }

    [Theory]
    [InlineData("Waiting", 0)]
    [InlineData("Running", 1)] // after its first chunk
    [InlineData("Running", 2)] // in the middle of its prompt
    [InlineData("Running", 4)] // decoding
    public void Whoever_is_aborted_gives_back_all_at_once(string state, int steps)
    {
        SchedulerWorld world = new(10, 4, Small);
        Sequence sequence = world.Add(1, Prompt(20), 30);
        for (int i = 0; i < steps; i++)
        {
            world.Step();
        }

        Assert.Equal(state, sequence.State.ToString());
        world.Finish(sequence);
        world.Scheduler.Finish(sequence); // and again
        Assert.Equal((10, 0, SequenceState.Finished), (world.Pool.FreeCount, world.Scheduler.WaitingCount, sequence.State));
        Assert.Equal(0, world.Step().Count);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Who_made_room_can_be_aborted_too(bool swaps)
    {
        SchedulerWorld world = Crowded(swaps, out Sequence first, out Sequence second);
        Assert.Equal(swaps ? SequenceState.Swapped : SequenceState.Preempted, second.State);
        world.Finish(second);
        Assert.Equal((10, 0), (world.Swap!.FreeCount, world.Scheduler.WaitingCount));
        world.Finish(first);
        Assert.Equal(4, world.Pool.FreeCount);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Who_made_room_goes_on_with_the_same_tokens(bool swaps)
    {
        SchedulerWorld world = Crowded(swaps, out Sequence first, out Sequence second);
        int computed = second.Computed, known = second.Length;
        Assert.Equal((swaps ? 8 : 0, 9), (computed, known));
        while (second.State != SequenceState.Running)
        {
            world.Step();
        }

        Assert.Equal(swaps ? 9 : 8, second.Computed); // one token, or a chunk from the start
        Drain(world);
        foreach (Sequence sequence in (Sequence[])[first, second])
        {
            Assert.Equal(SchedulerWorld.Alone(sequence.Id, Prompt(7), 16, 0, null), sequence.Tokens);
        }
    }

    [Fact]
    public void A_step_under_way_bears_an_abort_and_nothing_else()
    {
        SchedulerWorld world = new(10, 4, Small);
        Sequence sequence = world.Add(1, Prompt(6), 30), other = world.Add(2, Prompt(5), 9);
        world.Step(() =>
        {
            world.Finish(sequence);
            Assert.Equal(8, world.Pool.FreeCount);
            Assert.Throws<InvalidOperationException>(() => world.Scheduler.Fork(other, 3));
            Assert.Throws<InvalidOperationException>(() => world.Scheduler.Schedule());
            return true;
        });
        Assert.Equal((0, 5), (sequence.Computed, other.Computed));
        Drain(world);
    }

    [Fact]
    public void A_failed_step_leaves_nothing_behind()
    {
        SchedulerWorld world = new(20, 4, Small with { PrefixCaching = true });
        Sequence sequence = world.Add(1, Prompt(8), 12);
        world.Step();
        Sequence other = world.Add(2, [.. Prompt(8), 1], 12);
        world.Step(static () => false);
        Assert.Equal([SequenceState.Preempted, SequenceState.Preempted], States(sequence, other));
        Assert.Equal((20, 0, 9), (world.Pool.FreeCount, world.Pool.CachedCount, sequence.Length));
        Drain(world);
        Assert.Equal(SchedulerWorld.Alone(1, Prompt(8), 12, 0, null), sequence.Tokens);
    }

    [Fact]
    public void A_prefix_that_is_being_computed_is_waited_for_and_shared_in_the_step_that_ends_it()
    {
        SchedulerWorld world = new(100, 4, Small with { PrefixCaching = true, TokenBudget = 32 });
        Sequence first = world.Add(1, Prompt(20), 24), second = world.Add(2, [.. Prompt(18), 1, 1], 24), stranger = world.Add(3, [1, 1, 1], 9), salted = world.Add(4, Prompt(20), 24, salt: 7);
        world.Step();
        Assert.Equal([SequenceState.Running, SequenceState.Waiting, SequenceState.Running, SequenceState.Running], States(first, second, stranger, salted));
        StepPlan plan = world.Step(); // tokens 8 .. 15 of the first, and the next page is another one
        Assert.Equal((SequenceState.Running, 16), (second.State, second.CachedTokens));
        Assert.Equal(2, second.PassedOver);
        Assert.Equal([8, 4], Given(plan, first, second));
        Assert.Equal([new SharedPrefix(0, 2, 0, 8)], plan.Prefixes);
        Drain(world);
    }

    [Fact]
    public void Whole_pages_of_a_prompt_hit_but_for_the_last_token_and_rows_that_are_wanted_hit_nothing()
    {
        SchedulerWorld world = new(100, 4, Small with { PrefixCaching = true });
        world.Add(1, Prompt(8), 8);
        Drain(world);
        Sequence same = world.Add(2, Prompt(8), 9), scored = world.Add(3, Prompt(8), 9, firstRow: 0), longer = world.Add(4, [.. Prompt(8), 0], 10);
        StepPlan plan = world.Step();
        Assert.Equal((4, 0, 8), (same.CachedTokens, scored.CachedTokens, longer.CachedTokens));
        Assert.Equal([4, 8, 1], Given(plan, same, scored, longer));
        Assert.Equal(1 + 8 + 1, plan.RowCount);
        Assert.Equal((4 + 8, 8 + 8 + 8 + 9), (world.Scheduler.Cache.HitTokens, world.Scheduler.Cache.QueriedTokens));
    }

    [Fact]
    public void Forks_share_their_last_page_until_either_writes_to_it()
    {
        SchedulerWorld world = new(100, 4, Small);
        Sequence first = world.Add(1, Prompt(6), 12);
        world.Step();
        Sequence second = world.Fork(first, 2), third = world.Fork(first, 3);
        Assert.Equal(98, world.Pool.FreeCount);
        int shared = first.Table.Pages[1];
        StepPlan plan = world.Step();
        Assert.Equal([shared, shared], world.LastCopied);
        Assert.Equal(96, world.Pool.FreeCount); // the third one keeps the page itself
        Assert.Equal([first.Table.Pages[0], shared], third.Table.Pages);
        Assert.Equal([new SharedPrefix(0, 3, 0, 4)], plan.Prefixes);
        world.Step();
        Assert.Empty(world.LastCopied);
        Drain(world);
        Assert.Equal(100, world.Pool.FreeCount);
        Assert.Contains("only one that runs can be forked", Assert.Throws<InvalidOperationException>(() => world.Scheduler.Fork(second, 4)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Prefixes_are_a_tree_three_deep()
    {
        SchedulerWorld world = new(200, 4, Small with { PrefixCaching = true, TokenBudget = 128, ChunkSize = 64, PrefixChunk = 8 });
        int[] system = Prompt(16), tools = [.. system, .. Prompt(8)], question = [.. tools, 1, 1, 1, 1, 1, 1, 1, 1];
        // Each prompt once, so that all of its pages are there; then all at once, in an order that does not group them.
        long id = 0;
        int[][] prompts = [[.. question, 0, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1], [.. tools, 0, 0, 0], [.. question, 1, 0], [.. system, 1, 1, 1], [.. tools, 1, 0, 1]];
        foreach (int[] prompt in prompts)
        {
            world.Add(++id, prompt, prompt.Length);
            Drain(world);
        }

        foreach (int[] prompt in prompts)
        {
            world.Add(++id, prompt, prompt.Length + 10);
        }

        StepPlan plan = world.Step();
        Assert.Equal(prompts.Length, plan.Count);
        Assert.Equal([7L, 10, 9, 12, 11, 8], plan.Sequences.ToArray().Select(static s => s.Id));
        Assert.Equal([new SharedPrefix(0, 5, 0, 16), new SharedPrefix(0, 4, 16, 8), new SharedPrefix(0, 2, 24, 8)], plan.Prefixes);
    }

    [Fact]
    public void Who_outgrows_a_class_of_lengths_is_computed_anew_and_classes_take_turns()
    {
        SchedulerWorld world = new(100, 4, Small with { PrefixCaching = true, LengthClass = static length => length > 10 ? 1 : 0 });
        Sequence grows = world.Add(1, Prompt(8), 16), large = world.Add(2, Prompt(11), 16);
        StepPlan plan = world.Step();
        Assert.Equal((0, 8), (plan.LengthClass, plan.LongestLength));
        plan = world.Step();
        Assert.Equal((1, 11, 0), (plan.LengthClass, plan.LongestLength, large.CachedTokens));
        while (grows.Length <= 10)
        {
            world.Step();
        }

        long computed = world.Totals.Tokens;
        Drain(world);
        Assert.Equal(SchedulerWorld.Alone(1, Prompt(8), 16, 0, world.Options.LengthClass), grows.Tokens);
        Assert.True(world.Totals.Tokens - computed >= 3 + 5); // pages of the larger class are found: Prompt(8) is in both
    }

    [Fact]
    public void Admission_leaves_the_watermark_but_where_nobody_runs()
    {
        SchedulerWorld world = new(4, 4, Small with { WatermarkPages = 2 });
        Sequence first = world.Add(1, Prompt(8), 16), second = world.Add(2, Prompt(3), 8);
        world.Step();
        Assert.Equal([SequenceState.Running, SequenceState.Waiting], States(first, second));
        world.Finish(first);
        world.Add(3, Prompt(4), 16);
        world.Step();
        Assert.Equal(SequenceState.Running, second.State);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Steady_decode_allocates_nothing(bool shared)
    {
        const int Sequences = 64, Steps = 1000;
        BlockPool pool = new(Sequences * 160, 16);
        Scheduler scheduler = new(pool, SchedulerOptions.Throughput with { MaxSequences = Sequences });
        int[] prompt = [.. Enumerable.Range(0, 1000)];
        for (int i = 0; i < Sequences; i++)
        {
            prompt[shared ? 900 : 0] = i;
            scheduler.Add(new Sequence(i, prompt.AsSpan(0, 1000 - (i % 16)), 2500));
        }

        while (scheduler.WaitingCount > 0 || scheduler.Running.Any(static s => s.Length - s.Computed > 1))
        {
            Step();
        }

        for (int i = 0; i < 100; i++)
        {
            Step();
        }

        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < Steps; i++)
        {
            Step();
        }

        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
        Assert.Equal((Sequences, shared ? 1 : 0), (scheduler.Plan.Count, scheduler.Plan.Prefixes.Length));

        void Step()
        {
            StepPlan plan = scheduler.Schedule();
            scheduler.Commit();
            foreach (int b in plan.RowSequences)
            {
                plan.Sequences[b].Append(b);
            }
        }
    }

    [Fact]
    public void Options_out_of_their_range_are_refused()
    {
        BlockPool pool = new(4, 16);
        Assert.Throws<ArgumentOutOfRangeException>(() => new Scheduler(pool, Small with { TokenBudget = 7 }));
        Assert.Throws<ArgumentOutOfRangeException>(() => new Scheduler(pool, Small with { MaxRows = 7 }));
        Assert.Throws<ArgumentOutOfRangeException>(() => new Scheduler(pool, Small with { PrefixChunk = 24 }));
        Assert.Throws<ArgumentException>(() => new Sequence(1, [], 4));
        Assert.Throws<ArgumentOutOfRangeException>(() => new Sequence(1, [1, 2], 1));
        Assert.Throws<ArgumentOutOfRangeException>(() => new Sequence(1, [1, 2], 4, firstRow: 2));
    }

    // Two sequences of which the later one had to make room, in the last step.
    private static SchedulerWorld Crowded(bool swaps, out Sequence first, out Sequence second)
    {
        SchedulerWorld world = new(4, 4, Small with { SecondsPerPageMoved = swaps ? 1 : 9, SecondsPerTokenComputed = 1 }, swapPages: 10);
        (first, second) = (world.Add(1, Prompt(7), 16), world.Add(2, Prompt(7), 16));
        while (second.Preemptions == 0)
        {
            world.Step();
        }

        return world;
    }

    private static void Drain(SchedulerWorld world)
    {
        for (int i = 0; world.Live.Count > 0; i++)
        {
            Assert.InRange(i, 0, 1000);
            world.Step();
        }
    }

    private static SequenceState[] States(params Sequence[] sequences) => [.. sequences.Select(static s => s.State)];

    // Tokens that each of the sequences computed in a plan: read from the plan, for the step has been committed.
    private static int[] Given(StepPlan plan, params Sequence[] sequences) =>
        [.. sequences.Select(s => plan.Sequences.IndexOf(s) is var b and >= 0 ? plan.QueryIndptr[b + 1] - plan.QueryIndptr[b] : 0)];

    // The first tokens of one text, in a vocabulary of two.
    private static int[] Prompt(int count) => [.. Enumerable.Range(0, count).Select(static i => i * i / 3 % 2)];
}
