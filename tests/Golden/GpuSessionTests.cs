using Sluice.Interop;

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

    private static void AssertNear(float[] expected, float[] actual) =>
        Assert.True(expected.Zip(actual).Max(p => Math.Abs(p.First - p.Second)) < 1e-2, "the logits differ");
}
