using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Tests.Kernels;

/// <summary>A graph of attention, replayed with other plans: launches do not depend on the plan that was there at capture.</summary>
public sealed class AttentionGraphTests
{
    private const int H = 4, Hkv = 1, D = 64, Page = 16, Tokens = 48;

    private readonly Random _random = new(3);

    public static TheoryData<Backend, DType, DType, int, bool> Rows()
    {
        TheoryData<Backend, DType, DType, int, bool> rows = [];
        foreach (Backend backend in new[] { Backend.Simt, Backend.Cuda })
        {
            rows.Add(backend, DType.F16, DType.F16, 6, true);
            rows.Add(backend, DType.F16, DType.F16, 48, true);
            rows.Add(backend, DType.F32, DType.F32, 6, true);
            rows.Add(backend, DType.BF16, DType.FP8E4M3, 6, true);
            rows.Add(backend, DType.F16, DType.F16, 6, false);
            rows.Add(backend, DType.F16, DType.F16, 48, false);
        }

        return rows;
    }

    // One graph for prompts, speculated tokens, decode and nothing, with prefixes and without: the same as the reference each time.
    [Theory]
    [MemberData(nameof(Rows))]
    public void Graph_of_attention_is_right_for_every_plan(Backend backend, DType dtype, DType kv, int sequences, bool cascade)
    {
        Assert.SkipWhen(Device.Count(backend) == 0, $"no {backend} device is here");
        using Device device = Device.Open(new DeviceOptions(backend) { Seed = 4 });
        using ComputeStream stream = device.CreateStream();
        using Device truth = Device.Open(new DeviceOptions(Backend.Reference));
        using ComputeStream plain = truth.CreateStream();
        KvCacheOptions options = new(kv, 1, 100, Hkv, D, D, Page);
        using KvCache cache = new(stream, options), same = new(plain, options);
        BatchOptions capacity = new(Tokens, sequences, 200, 0, 4) { Sharing = Sharing.Always };
        using Batch batch = new(stream, cache, capacity), sameBatch = new(plain, same, capacity);
        float[] keys = Values(100 * Page * Hkv * D), values = Values(100 * Page * Hkv * D), queries = Values(Tokens * H * D);
        Append(stream, cache, keys, values);
        Append(plain, same, keys, values);
        HostTensor packed = HostTensor.Of(dtype, queries, Tokens, H, D);
        Tensor q = stream.CreateTensor<byte>(dtype, packed.Data, Tokens, H, D), o = stream.CreateTensor(dtype, Tokens, H, D);
        Tensor q2 = plain.CreateTensor<byte>(dtype, packed.Data, Tokens, H, D), o2 = plain.CreateTensor(dtype, Tokens, H, D);

        batch.Update(stream, Step([0, 1], [1], []));
        void Ops()
        {
            AttentionArgs a = new() { Cache = cache, Batch = batch, Q = q, O = o, Causal = true };
            if (cascade)
            {
                stream.CascadeAttention(a);
            }
            else
            {
                stream.PagedAttention(a);
            }
        }

        stream.Reserve(stream.Measure(Ops));
        using ComputeGraph graph = stream.Capture(Ops);
        (int[] Queries, int[] Lengths, SharedPrefix[] Prefixes)[] plans =
        [
            ([48], [300], []),
            ([1, 1, 1, 1, 1, 1], [530, 600, 520, 300, 17, 1], [new(0, 3, 0, 512), new(3, 1, 0, 256)]),
            ([5, 0, 20, 3], [261, 0, 290, 600], [new(2, 2, 0, 256), new(3, 1, 256, 256)]),
            ([], [], []),
            ([1, 30, 1], [800, 31, 900], []),
            ([2, 2], [1060, 1050], [new(0, 2, 0, 256), new(0, 2, 256, 256), new(0, 1, 512, 512), new(1, 1, 512, 512)]),
        ];
        foreach ((int[] rows, int[] lengths, SharedPrefix[] prefixes) in plans)
        {
            int[] query = [.. Enumerable.Range(0, rows.Length + 1).Select(b => rows[..b].Sum())];
            batch.Update(stream, Step(query, lengths, prefixes));
            sameBatch.Update(plain, Step(query, lengths, prefixes));
            graph.Launch();
            plain.PagedAttention(new AttentionArgs { Cache = same, Batch = sameBatch, Q = q2, O = o2, Causal = true });
            double[] actual = Read(stream, o), expected = Read(plain, o2);
            double tolerance = dtype switch { DType.F32 => 2e-6, DType.F16 => 2e-3, _ => 1.6e-2 };
            for (int i = 0; i < actual.Length; i++)
            {
                Assert.True(Math.Abs(actual[i] - expected[i]) <= tolerance, $"plan of {rows.Length}: [{i}] is {actual[i]}, expected {expected[i]}");
            }
        }

        double[] Read(ComputeStream from, Tensor t)
        {
            byte[] data = new byte[t.Count * dtype.Size()];
            from.Download(t, data.AsSpan());
            from.Synchronize();
            return new HostTensor(dtype, [Tokens, H, D], data).ToDoubles();
        }
    }

    private static BatchStep Step(int[] query, int[] lengths, SharedPrefix[] prefixes)
    {
        // Sequences have pages of their own at the end and share all before: as many as fit.
        int[] indptr = new int[lengths.Length + 1];
        List<int> pages = [];
        for (int b = 0; b < lengths.Length; b++)
        {
            int count = (lengths[b] + Page - 1) / Page, own = (lengths[b] - (query[b + 1] - query[b])) / Page;
            pages.AddRange(Enumerable.Range(0, count).Select(page => page < own ? page : 99 - (b * 4) - (page - own)));
            indptr[b + 1] = pages.Count;
        }

        return new BatchStep { QueryIndptr = query, KvLengths = lengths, PageIndptr = indptr, PageIds = pages.ToArray(), Prefixes = prefixes };
    }

    private static void Append(ComputeStream stream, KvCache cache, float[] keys, float[] values)
    {
        const int pages = 100;
        using Batch all = new(stream, cache, new BatchOptions(pages * Page, 1, pages));
        all.Update(stream, new BatchStep { QueryIndptr = [0, pages * Page], KvLengths = [pages * Page], PageIndptr = [0, pages], PageIds = Enumerable.Range(0, pages).ToArray() });
        Tensor k = stream.CreateTensor<float>(DType.F32, keys, pages * Page, Hkv, D), v = stream.CreateTensor<float>(DType.F32, values, pages * Page, Hkv, D);
        stream.Reserve(stream.Measure(() => stream.KvAppend(cache, 0, all, k, v)));
        stream.KvAppend(cache, 0, all, k, v);
        stream.Synchronize();
    }

    private float[] Values(int count) => [.. Enumerable.Range(0, count).Select(_ => _random.NextSingle() - 0.5f)];
}
