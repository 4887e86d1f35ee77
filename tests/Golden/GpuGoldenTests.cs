using Sluice.Interop;

namespace Sluice.Tests.Golden;

/// <summary>Every family's forward pass on the CUDA code: on a GPU where there is one, and always on the executor that plays it.</summary>
public sealed class GpuGoldenTests
{
    public static TheoryData<string, Backend, DType> Rows()
    {
        TheoryData<string, Backend, DType> rows = [];
        int turn = 0;
        foreach (string folder in Golden.Folders)
        {
            // 16-bit types in turn: a family's roundings are the same code for both.
            rows.Add(folder, Backend.Simt, turn++ % 2 == 0 ? DType.F16 : DType.BF16);
            foreach (DType type in new[] { DType.F32, DType.F16, DType.BF16 })
            {
                rows.Add(folder, Backend.Cuda, type);
            }
        }

        rows.Add(Golden.Folders[0], Backend.Simt, DType.F32);
        return rows;
    }

    /// <summary>The yardstick is naive loops with the same activations and keys, rounded by each op's precision record.</summary>
    [Theory]
    [MemberData(nameof(Rows))]
    public async Task Logits_are_as_near_to_the_truth_as_the_precision_records_allow(string name, Backend backend, DType type)
    {
        Assert.SkipWhen(Device.Count(backend) == 0, $"no {backend} device is here");
        Golden g = Golden.LoadFolder(name);
        (double naive, double naiveMax, double deviation) = g.ErrorOf(await LogitsAsync(g, Backend.Reference, type));
        (double mean, double max, _) = g.ErrorOf(await LogitsAsync(g, backend, type));
        TestContext.Current.TestOutputHelper?.WriteLine($"{name} {backend} {type}: mean {mean / deviation:g3}, max {max / deviation:g3} of the deviation; naive loops {naive / deviation:g3}, {naiveMax / deviation:g3}");
        Assert.True(mean <= (2 * naive) + (1e-6 * deviation), $"mean error {mean:g4}, of naive loops {naive:g4}");
        Assert.True(max <= (4 * naiveMax) + (1e-5 * deviation), $"largest error {max:g4}, of naive loops {naiveMax:g4}");
    }

    // The prompt in one chunk, then a token a step: on GPUs the later steps are replays of a graph.
    private static async Task<float[]> LogitsAsync(Golden g, Backend backend, DType type)
    {
        using Model model = await Model.LoadAsync(g.ModelPath, new ModelOptions { Device = backend, Rounded = backend == Backend.Reference, ActivationType = type, KvType = type }, cancellationToken: TestContext.Current.CancellationToken);
        using Session session = new(model, g.Rows, 512, 512);
        float[] all = session.Logits(g.PromptIds, 512);
        for (int length = g.PromptIds.Length + 1; length <= g.Rows; length++)
        {
            all = [.. all, .. session.NextLogits(g.Tokens.AsSpan(0, length))];
        }

        bool replays = backend is Backend.Simt or Backend.Cuda && g.Rows > g.PromptIds.Length + 1;
        Assert.Equal(replays ? 1 : 0, session.CapturedGraphs);
        return all;
    }
}
