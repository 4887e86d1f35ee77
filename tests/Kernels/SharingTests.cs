using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Tests.Kernels;

/// <summary>Which prefixes of a step a plan shares: all where the device has no costs, else those that its costs are for; and that the plan says so.</summary>
public sealed class SharingTests
{
    private const int Page = 16;

    [Fact]
    public void Reference_shares_whatever_is_given()
    {
        BatchInfo info = Plan(Backend.Reference, [900, 520, 700, 40], [new(0, 3, 0, 512), new(0, 1, 512, 256)]);
        Assert.Equal((2, 4), (info.SharedPrefixes, info.Sequences));
        Assert.Equal((4L, info.Keys - (2 * 512)), (info.PrefixRows, info.KeysShared));
    }

    // On a GPU's costs: many sequences on a long prefix, yes; two on a short one, no: a launch and states cost more than the keys.
    [Theory]
    [InlineData(64, 2048, 32, 8, true)]
    [InlineData(128, 2048, 32, 32, true)]
    [InlineData(2, 256, 32, 8, false)]
    [InlineData(2, 256, 32, 32, false)]
    [InlineData(8, 8192, 32, 8, true)]
    [InlineData(1, 8192, 32, 8, false)]
    public void Costs_decide_for_one_prefix(int sequences, int prefix, int heads, int kvHeads, bool shared)
    {
        int[] lengths = [.. Enumerable.Repeat(prefix + 128, sequences)];
        BatchInfo info = Plan(Backend.Simt, lengths, [new(0, sequences, 0, prefix)], heads, kvHeads);
        Assert.Equal(shared ? 1 : 0, info.SharedPrefixes);
        Assert.Equal(shared ? info.Keys - ((sequences - 1L) * prefix) : info.Keys, info.KeysShared);
    }

    // Over the field's table what is chosen is never predicted to lose more than 3%, and where sharing would win by a fifth it is chosen.
    [Fact]
    public void Costs_choose_what_predictions_do()
    {
        PredictedAttention.Gpu gpu = PredictedAttention.Gpus.Single(g => g.Name == "H100");
        using Device device = Open(Backend.Simt);
        int shared = 0, all = 0;
        foreach ((int heads, int kvHeads) in new[] { (32, 32), (32, 8) })
        {
            foreach (int prefix in new[] { 256, 1024, 2048 })
            {
                foreach (int sequences in new[] { 1, 2, 4, 8, 16, 64 })
                {
                    const int suffix = 128;
                    BatchInfo info = Plan(device, [.. Enumerable.Repeat(prefix + suffix, sequences)], [new(0, sequences, 0, prefix)], heads, kvHeads);
                    PredictedAttention.Load load = new("", heads, kvHeads, 128, sequences, 1, prefix, suffix);
                    double gain = PredictedAttention.Flat(gpu, load) / PredictedAttention.Shared(gpu, load);
                    all++;
                    shared += info.SharedPrefixes;
                    Assert.True(info.SharedPrefixes == 0 ? gain < 1.2 : gain > 0.97, $"{heads}/{kvHeads}, {sequences} sequences, prefix {prefix}: {info.SharedPrefixes} shared, and cascade is predicted at {gain:0.00} x");
                }
            }
        }

        Assert.InRange(shared, all / 4, all * 9 / 10);
    }

    // A level that is the same sequences' as the one before it is one prefix with it; one for which it is not worth it is its sequences' own.
    [Fact]
    public void Levels_become_one_where_that_is_cheaper()
    {
        int[] lengths = [.. Enumerable.Repeat(4096, 64)];
        BatchInfo info = Plan(Backend.Simt, lengths, [new(0, 64, 0, 1024), new(0, 64, 1024, 1024), new(0, 1, 2048, 256), new(1, 63, 2048, 1024)], 32, 8);
        Assert.Equal(2, info.SharedPrefixes);
        Assert.Equal(info.Keys - (63L * 2048) - (62L * 1024), info.KeysShared);
        Assert.Equal(64 + 63, info.PrefixRows);
    }

    // Where there is no room for all levels, the ones that save least are left: the rest is shared still.
    [Fact]
    public void Room_for_rows_is_kept_to()
    {
        int[] lengths = [.. Enumerable.Repeat(2048, 8)];
        SharedPrefix[] tree = [new(0, 8, 0, 1024), new(0, 4, 1024, 256), new(4, 4, 1024, 256), new(0, 2, 1280, 256), new(2, 2, 1280, 256), new(4, 2, 1280, 256), new(6, 2, 1280, 256)];
        BatchInfo all = Plan(Backend.Reference, lengths, tree), some = Plan(Backend.Reference, lengths, tree, rows: 17), few = Plan(Backend.Reference, lengths, tree, rows: 8);
        Assert.Equal((7, 24), (all.SharedPrefixes, all.PrefixRows));
        Assert.Equal((5, 16), (some.SharedPrefixes, some.PrefixRows)); // pairs reach back to what all share
        Assert.Equal(some.Keys - (7 * 1024) - (4 * 512), some.KeysShared);
        Assert.Equal((1, 8), (few.SharedPrefixes, few.PrefixRows));
        Assert.Equal(few.Keys - (7 * 1024), few.KeysShared);
    }

    [Fact]
    public void A_prefix_whose_sequences_have_others_before_it_is_refused()
    {
        SluiceException e = Assert.Throws<SluiceException>(() => Plan(Backend.Reference, [900, 900, 900, 900], [new(0, 2, 0, 256), new(2, 2, 0, 256), new(1, 2, 256, 256)]));
        Assert.Equal(Status.ErrArgument, e.Status);
        Assert.Contains("different prefixes before it", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_batch_without_a_plan_has_no_info()
    {
        using Device device = Device.Open(Backend.Reference);
        using ComputeStream stream = device.CreateStream();
        using KvCache cache = new(stream, new KvCacheOptions(DType.F16, 1, 4, 1, 16, 16, Page));
        using Batch batch = new(stream, cache, new BatchOptions(4, 4, 4));
        Assert.Equal(Status.ErrState, Assert.Throws<SluiceException>(() => batch.ReadInfo()).Status);
    }

    [Theory]
    [InlineData(3, 0, "query_heads")]
    [InlineData(0, -1, "max_prefix_rows")]
    public void Options_out_of_range_are_refused(int heads, int rows, string named)
    {
        using Device device = Device.Open(Backend.Reference);
        using ComputeStream stream = device.CreateStream();
        using KvCache cache = new(stream, new KvCacheOptions(DType.F16, 1, 4, 2, 16, 16, Page));
        SluiceException e = Assert.Throws<SluiceException>(() => new Batch(stream, cache, new BatchOptions(4, 4, 4) { QueryHeads = heads, MaxPrefixRows = rows }));
        Assert.Contains(named, e.Message, StringComparison.Ordinal);
    }

    // A step of one token a sequence; pages are shared as far as the prefixes want.
    private static BatchInfo Plan(Backend backend, int[] lengths, SharedPrefix[] prefixes, int heads = 8, int kvHeads = 2, int rows = 0)
    {
        using Device device = Open(backend);
        return Plan(device, lengths, prefixes, heads, kvHeads, rows);
    }

    // The costs of simt are those of a GPU with as many multiprocessors.
    private static Device Open(Backend backend)
    {
        Assert.SkipWhen(Device.Count(backend) == 0, $"no {backend} device is here");
        return Device.Open(new DeviceOptions(backend) { Multiprocessors = backend == Backend.Simt ? 132 : 0 });
    }

    private static BatchInfo Plan(Device device, int[] lengths, SharedPrefix[] prefixes, int heads, int kvHeads, int rows = 0)
    {
        using ComputeStream stream = device.CreateStream();
        int shared = lengths.Max() / Page, own = lengths.Length;
        using KvCache cache = new(stream, new KvCacheOptions(DType.F16, 1, shared + own, kvHeads, 128, 128, Page));
        int[] query = [.. Enumerable.Range(0, lengths.Length + 1)], indptr = new int[lengths.Length + 1];
        List<int> pages = [];
        for (int b = 0; b < lengths.Length; b++)
        {
            // The last page is a sequence's own: its token is written there.
            pages.AddRange(Enumerable.Range(0, (lengths[b] - 1) / Page));
            pages.Add(shared + b);
            indptr[b + 1] = pages.Count;
        }

        using Batch batch = new(stream, cache, new BatchOptions(lengths.Length, lengths.Length, pages.Count, 0, prefixes.Length) { QueryHeads = heads, MaxPrefixRows = rows });
        batch.Update(stream, new BatchStep { QueryIndptr = query, KvLengths = lengths, PageIndptr = indptr, PageIds = pages.ToArray(), Prefixes = prefixes });
        return batch.ReadInfo();
    }
}
