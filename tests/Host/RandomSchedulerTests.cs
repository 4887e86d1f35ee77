using Sluice.Scheduling;

namespace Sluice.Tests.Host;

/// <summary>The scheduler gives every sequence the tokens that it has alone, whoever runs beside it, and never more than there is.</summary>
public sealed class RandomSchedulerTests
{
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(5)]
    [InlineData(6)]
    [InlineData(7)]
    [InlineData(8)]
    [InlineData(9)]
    public void Tokens_are_those_of_a_sequence_alone_whatever_happens(int seed)
    {
        Random random = new(seed);
        StepStatistics totals = default;
        long ended = 0, aborted = 0, forked = 0, failed = 0, copies = 0, nodes = 0, deep = 0, evictions = 0;
        for (int steps = 0, round = 0; steps < 10_000; round++)
        {
            SchedulerWorld world = NewWorld(random, seed * 100 + round);
            Dictionary<long, (int[] Tokens, Sequence Sequence)> given = [];
            int[][] bases = [.. Enumerable.Range(0, 3).Select(_ => Tokens(random, 40))];
            long ids = 0;
            for (int i = 0; i < 400 || world.Live.Count > 0; i++, steps++)
            {
                Assert.InRange(i, 0, 20_000); // all end
                for (int n = random.Next(3); i < 400 && n > 0 && world.Live.Count < 14; n--)
                {
                    int[] tokens = bases[random.Next(3)][..random.Next(1, 25)];
                    tokens = [.. tokens, .. Tokens(random, random.Next(6))];
                    int? firstRow = random.Next(5) == 0 ? random.Next(tokens.Length) : null;
                    int most = tokens.Length + random.Next(12);
                    ids++;
                    if (most > Math.Min(world.Options.MaxLength, world.Pool.PageCount * world.Pool.PageSize))
                    {
                        Assert.Throws<RequestTooLargeException>(() => world.Add(ids, tokens, most));
                        continue;
                    }

                    given[ids] = (tokens, world.Add(ids, tokens, most, random.Next(3), (ulong)random.Next(2), firstRow));
                }

                if (i < 400 && world.Scheduler.Running.Count > 0 && random.Next(6) == 0)
                {
                    Sequence parent = world.Scheduler.Running[random.Next(world.Scheduler.Running.Count)];
                    ids++;
                    given[ids] = (parent.Tokens.ToArray(), world.Fork(parent, ids));
                    forked++;
                }

                if (world.Live.Count > 0 && random.Next(12) == 0)
                {
                    Abort();
                }

                world.Step(() =>
                {
                    if (world.Live.Count > 0 && random.Next(25) == 0)
                    {
                        Abort();
                    }

                    bool works = random.Next(80) > 0;
                    failed += works ? 0 : 1;
                    return works;
                });

                void Abort()
                {
                    world.Finish(world.Live[random.Next(world.Live.Count)]);
                    aborted++;
                }
            }

            foreach (Sequence sequence in world.Ended)
            {
                (int[] tokens, _) = given[sequence.Id];
                Assert.Equal(SchedulerWorld.Alone(sequence.Id, tokens, sequence.MaxLength, sequence.Salt, world.Options.LengthClass), sequence.Tokens);
            }

            Assert.All(given.Values, static g => Assert.Equal((SequenceState.Finished, 0), (g.Sequence.State, g.Sequence.Table.Pages.Length)));
            Assert.Equal(world.Pool.PageCount, world.Pool.AvailableCount);
            Assert.Equal(0, world.Scheduler.LiveCount + world.Scheduler.WaitingCount + world.Scheduler.Running.Count + (world.Swap?.HeldCount ?? 0));
            StepStatistics t = world.Totals;
            totals = new StepStatistics(totals.Tokens + t.Tokens, totals.Admitted + t.Admitted, totals.CachedTokens + t.CachedTokens, totals.Preempted + t.Preempted, totals.Swapped + t.Swapped);
            (ended, copies, nodes, deep, evictions) = (ended + world.Ended.Count, copies + world.Copies, nodes + world.PrefixNodes, deep + world.DeepNodes, evictions + world.Scheduler.Cache.Evictions);
        }

        // Nothing was proved about what did not happen.
        Assert.All(
            [("ended", ended), ("aborted", aborted), ("forked", forked), ("failed", failed), ("copies", copies), ("prefixes", nodes), ("deep prefixes", deep), ("evictions", evictions),
                ("cached", totals.CachedTokens), ("preempted", totals.Preempted), ("swapped", totals.Swapped)],
            static happened => Assert.True(happened.Item2 > 3, $"{happened.Item1}: {happened.Item2}"));
    }

    // Rounds go through all kinds of worlds, most of them far too small.
    private static SchedulerWorld NewWorld(Random random, int kind)
    {
        int pageSize = 1 + kind % 4, sequences = random.Next(2, 9);
        SchedulerOptions options = new()
        {
            Policy = (SchedulingPolicy)(kind % 3),
            PrefixCaching = kind % 5 != 0,
            LengthClass = kind % 6 == 1 ? static length => length / 14 : null,
            MaxSequences = sequences,
            TokenBudget = sequences + random.Next(20),
            ChunkSize = random.Next(1, 20),
            MaxRows = sequences + random.Next(8),
            MaxLength = 40,
            WatermarkPages = random.Next(3),
            MaxPassedOver = random.Next(1, 6),
            PrefixChunk = pageSize * random.Next(1, 3),
            SecondsPerPageMoved = 1,
            SecondsPerTokenComputed = random.NextDouble() * 2,
        };
        int tokens = random.Next(3) == 0 ? random.Next(100, 300) : random.Next(30, 80);
        return new SchedulerWorld(Math.Max(2, tokens / pageSize), pageSize, options, kind % 2 == 0 ? random.Next(4, 40) : 0, kind % 4 == 3 ? ulong.MaxValue : 3);
    }

    private static int[] Tokens(Random random, int count) => [.. Enumerable.Range(0, count).Select(_ => random.Next(SchedulerWorld.Vocabulary))];
}
