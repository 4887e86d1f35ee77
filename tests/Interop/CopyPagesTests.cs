using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Tests.Interop;

/// <summary>A sequence reads the same from its pages and from copies of them, in every type of cache.</summary>
public sealed class CopyPagesTests
{
    private const int Tokens = 23, KvHeads = 2, Dim = 40, PageSize = 8;

    public static TheoryData<Backend, DType> Rows()
    {
        TheoryData<Backend, DType> rows = [];
        foreach (Backend backend in new[] { Backend.Reference, Backend.Cpu, Backend.Simt, Backend.Cuda })
        {
            foreach (DType type in new[] { DType.F32, DType.F16, DType.BF16, DType.I8, DType.FP8E4M3 })
            {
                rows.Add(backend, type);
            }
        }

        return rows;
    }

    [Theory]
    [MemberData(nameof(Rows))]
    public void Copied_pages_hold_what_their_sources_hold(Backend backend, DType type)
    {
        Assert.SkipWhen(Device.Count(backend) == 0, $"no {backend} device is here");
        using Device device = Device.Open(backend);
        using ComputeStream stream = device.CreateStream();
        using KvCache cache = new(stream, new KvCacheOptions(type, 2, 8, KvHeads, Dim, Dim, PageSize));
        using Batch batch = new(stream, cache, new BatchOptions(Tokens, 1, 3));
        CaseData r = new($"copy {type}");
        using DeviceBuffer k = Upload(stream, r.Normal(Tokens * KvHeads * Dim)), v = Upload(stream, r.Normal(Tokens * KvHeads * Dim)), q = Upload(stream, r.Normal(Dim * KvHeads));
        using DeviceBuffer o = Upload(stream, new float[Dim * KvHeads]);

        batch.Update(stream, Step([6, 1, 4], Tokens));
        Tensor keys = new(k, DType.F32, Tokens, KvHeads, Dim), values = new(v, DType.F32, Tokens, KvHeads, Dim);
        stream.Reserve(stream.Measure(() => stream.KvAppend(cache, 1, batch, keys, values)));
        stream.KvAppend(cache, 1, batch, keys, values);
        cache.CopyPages(stream, [6, 1, 4], [0, 7, 2]);

        float[] original = Attend([6, 1, 4]), copied = Attend([0, 7, 2]);
        Assert.Equal(original, copied);
        Assert.Contains(original, x => x != 0);
        Assert.DoesNotContain(original, float.IsNaN);

        float[] Attend(int[] pages)
        {
            batch.Update(stream, Step(pages, 1));
            AttentionArgs args = new() { Cache = cache, Layer = 1, Batch = batch, Q = new Tensor(q, DType.F32, 1, KvHeads, Dim), O = new Tensor(o, DType.F32, 1, KvHeads, Dim), Causal = true };
            stream.Reserve(stream.Measure(() => stream.PagedAttention(args)));
            stream.PagedAttention(args);
            float[] result = new float[Dim * KvHeads];
            stream.Download(new Tensor(o, DType.F32, result.Length), result.AsSpan());
            return result;
        }

        static BatchStep Step(int[] pages, int queries) => new() { QueryIndptr = new[] { 0, queries }, KvLengths = new[] { Tokens }, PageIndptr = new[] { 0, 3 }, PageIds = pages };
    }

    private static DeviceBuffer Upload(ComputeStream stream, float[] values) => stream.CreateTensor<float>(DType.F32, values, values.Length).Buffer!;
}
