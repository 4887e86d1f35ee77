using Sluice.Interop;

namespace Sluice.Tests.Golden;

/// <summary>Hugging Face folders of every family and packing against exact arithmetic.</summary>
public sealed class FolderGoldenTests
{
    public static TheoryData<string> Folders() => [.. Golden.Folders];

    [Theory]
    [MemberData(nameof(Folders))]
    public async Task Reference_logits_are_exact(string name)
    {
        Golden g = Golden.LoadFolder(name);
        using Model model = await Model.LoadAsync(g.ModelPath, new ModelOptions { Device = Backend.Reference, KvType = DType.F32 }, cancellationToken: TestContext.Current.CancellationToken);
        using Session session = new(model, g.Rows, 512, 512);
        (double mean, double max, double deviation) = g.ErrorOf(Logits(session, g, model.Config.Ropes.Any(r => r.DependsOnLength)));
        TestContext.Current.TestOutputHelper?.WriteLine($"{name}: mean {mean:g3}, max {max:g3}, deviation {deviation:g3}");
        Assert.True(max <= 1e-4 * deviation, $"largest error {max:g3}, bound {1e-4 * deviation:g3}");
    }

    [Theory]
    [MemberData(nameof(Folders))]
    public async Task Cpu_generates_the_golden_ids(string name)
    {
        Golden g = Golden.LoadFolder(name);
        using Model model = await Model.LoadAsync(g.ModelPath, new ModelOptions { Device = Backend.Cpu, Threads = 2 }, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal(g.PromptIds, model.Tokenizer.Encode(g.Prompt));
        using Session session = model.CreateSession();
        List<int> ids = [];
        await foreach (GeneratedToken token in session.GenerateAsync(g.PromptIds, new SamplingParameters { MaxTokens = g.Ids.Length, IgnoreEndOfSequence = true }, TestContext.Current.CancellationToken))
        {
            ids.Add(token.Id);
        }

        Assert.Equal(g.Ids, ids);
        Assert.Equal(g.Text, ids.SelectMany(id => model.Tokenizer.TokenBytes(id).ToArray()));
    }

    // Where RoPE depends on the sequence's length, a position's logits are those of a generation that has come so far.
    internal static float[] Logits(Session session, Golden g, bool dependsOnLength)
    {
        float[] all = session.Logits(dependsOnLength ? g.PromptIds : g.Tokens, 512);
        for (int length = g.PromptIds.Length + 1; dependsOnLength && length <= g.Rows; length++)
        {
            all = [.. all, .. session.NextLogits(g.Tokens.AsSpan(0, length))];
        }

        return all;
    }
}
