using Sluice.Interop;
using Sluice.Models;

namespace Sluice.Tests.Golden;

/// <summary>Sessions as programs use them, on the CUDA code: steps of any size after each other, two sessions at once, an end in the middle.</summary>
public sealed class GpuSessionTests
{
    private static readonly int[] s_first = [1, 403, 407, 261, 378, 31, 400], s_second = [1, 403, 300, 299, 298, 297, 296, 295, 294, 293, 292, 291];

    public static TheoryData<Backend> Backends => [Backend.Simt, Backend.Cuda];

    /// <summary>A long context is split over the device in decode and not in a prompt: the workspace has to serve both.</summary>
    [Theory]
    [MemberData(nameof(Backends))]
    public async Task Steps_of_any_size_follow_each_other(Backend backend)
    {
        using Model gpu = await LoadAsync(backend), cpu = await LoadAsync(Backend.Cpu);
        using Session session = gpu.CreateSession(), expected = cpu.CreateSession();
        foreach (int[] tokens in new[] { s_first, s_second, [.. s_first, 7], [.. s_first, 7, 8], s_second, [.. s_second, 9], [.. s_second, 9, 10] })
        {
            AssertNear(expected.NextLogits(tokens), session.NextLogits(tokens));
        }

        Assert.True(session.CapturedGraphs > 0);
    }

    [Theory]
    [MemberData(nameof(Backends))]
    public async Task Two_sessions_work_at_once(Backend backend)
    {
        using Model gpu = await LoadAsync(backend), cpu = await LoadAsync(Backend.Cpu);
        using (Session expected = cpu.CreateSession(), one = gpu.CreateSession(), other = gpu.CreateSession())
        {
            float[] first = expected.NextLogits([.. s_first, 7, 8, 9]), second = expected.NextLogits([.. s_second, 7, 8, 9]);
            Task<float[]>[] both = [Task.Run(() => StepByStep(one, s_first)), Task.Run(() => StepByStep(other, s_second))];
            AssertNear(first, await both[0]);
            AssertNear(second, await both[1]);
            one.Dispose();  // with its graphs
            AssertNear(second, other.NextLogits([.. s_second, 7, 8, 9]));
        }
    }

    /// <summary>A graph of a bucket serves all numbers of sequences in it, with rows that are padding, and gives what op by op gives.</summary>
    [Theory]
    [MemberData(nameof(Backends))]
    public async Task A_graph_serves_its_bucket(Backend backend)
    {
        using Model gpu = await LoadAsync(backend), cpu = await LoadAsync(Backend.Cpu);
        using Steps graphs = new(gpu), plain = new(cpu);
        foreach (int count in new[] { 11, 11, 13, 9, 2, 2, 16, 12 })
        {
            int[] ids = [.. Enumerable.Range(0, count).Select(i => 300 + (7 * i) + count)];
            AssertNear(plain.Run(ids), graphs.Run(ids));
        }

        Assert.Equal(2, graphs.CapturedGraphs); // of 16, and of 2
    }

    private static Task<Model> LoadAsync(Backend backend)
    {
        Assert.SkipWhen(Device.Count(backend) == 0, $"no {backend} device is here");
        return Model.LoadAsync(SharedData.PathOf("models", "stories260K", "stories260K-f32.gguf"), new ModelOptions { Device = backend, Threads = 1 });
    }

    private static float[] StepByStep(Session session, int[] prompt)
    {
        session.NextLogits(prompt);
        session.NextLogits([.. prompt, 7]);
        session.NextLogits([.. prompt, 7, 8]);
        return session.NextLogits([.. prompt, 7, 8, 9]);
    }

    // A token each of new sequences, step after step.
    private sealed class Steps : IDisposable
    {
        private const int Most = 16, PageSize = 16;

        private readonly ComputeStream _stream;
        private readonly KvCache _cache;
        private readonly Batch _batch;
        private readonly Transformer _transformer;

        public Steps(Model model)
        {
            ModelConfig c = model.Config;
            _stream = model.Device.CreateStream();
            _cache = new KvCache(_stream, new KvCacheOptions(model.KvType, c.LayerCount, Most, c.KvHeadCount, c.HeadDim, c.ValueHeadDim, PageSize));
            _batch = new Batch(_stream, _cache, new BatchOptions(Most, Most, Most));
            _transformer = new Transformer(model, _stream, Most, Most);
            _transformer.Reserve(_cache, _batch);
        }

        public int CapturedGraphs => _transformer.CapturedGraphs;

        public float[] Run(int[] ids)
        {
            int[] each = [.. Enumerable.Range(0, ids.Length + 1)];
            _batch.Update(_stream, new BatchStep { QueryIndptr = each, KvLengths = Enumerable.Repeat(1, ids.Length).ToArray(), PageIndptr = each, PageIds = each.AsSpan(0, ids.Length) });
            Tensor logits = _transformer.Forward(_cache, _batch, ids, each.AsSpan(0, ids.Length), 1);
            float[] values = new float[logits.Count];
            _stream.Download(logits, values.AsSpan());
            return values;
        }

        public void Dispose()
        {
            _transformer.Dispose();
            _batch.Dispose();
            _cache.Dispose();
            _stream.Dispose();
        }
    }

    private static void AssertNear(float[] expected, float[] actual) =>
        Assert.True(expected.Zip(actual).Max(p => Math.Abs(p.First - p.Second)) < 1e-2, "the logits differ");
}
