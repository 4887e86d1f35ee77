using Sluice.Decoding;
using Sluice.Interop;

namespace Sluice.Tests.Golden;

/// <summary>The loop under a session, on the draft that ships: what a token costs the host, and steps that run ahead of it.</summary>
public sealed class DecodeLoopTests
{
    private static readonly SamplingParameters s_penalised = new()
    {
        Temperature = 0.9f, TopK = 50, TopP = 0.95f, Seed = 4, RepetitionPenalty = 1.1f, PresencePenalty = 0.2f, FrequencyPenalty = 0.1f, LogitBias = new Dictionary<int, float> { [300] = -1 }, MaxTokens = 48,
    };

    public static TheoryData<Backend, bool> Allocating => new() { { Backend.Cpu, false }, { Backend.Cpu, true }, { Backend.Cuda, false }, { Backend.Cuda, true }, { Backend.Simt, false } };

    [Theory]
    [MemberData(nameof(Allocating))]
    public async Task A_token_allocates_nothing(Backend backend, bool penalised)
    {
        using Model model = await LoadAsync(backend);
        using Session session = model.CreateSession();
        using DecodeLoop loop = session.Decode(model.Tokenizer.Encode("Tell me a story."), penalised ? s_penalised : new SamplingParameters { MaxTokens = 48 }, 4);
        for (int i = 0; i < 8; i++)
        {
            loop.Next(out _, out _); // graphs are captured, methods compiled
        }

        long before = GC.GetAllocatedBytesForCurrentThread();
        int tokens = backend == Backend.Simt ? 4 : 32;
        for (int i = 0; i < tokens; i++)
        {
            loop.Next(out _, out _);
        }

        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
    }

    // Cpu waits for each token; simt is a step ahead. Penalties look at the tokens that the device alone knows.
    [Fact]
    public async Task Steps_that_run_ahead_choose_the_same_tokens()
    {
        using Model cpu = await LoadAsync(Backend.Cpu), simt = await LoadAsync(Backend.Simt);
        foreach (SamplingParameters p in new[] { new SamplingParameters { MaxTokens = 10, LogProbs = 2 }, s_penalised with { MaxTokens = 10 } })
        {
            List<GeneratedToken> expected = await AllAsync(cpu, p), found = await AllAsync(simt, p);
            Assert.Equal(expected.Select(t => t.Id), found.Select(t => t.Id));
            Assert.Equal(expected[^1].Finish, found[^1].Finish);
            Assert.Equal(p.LogProbs, found[0].Top?.Count);
        }
    }

    // An end that the step ahead did not know of: what it computed is no part of what the next prompt finds.
    [Theory]
    [InlineData(Backend.Cpu)]
    [InlineData(Backend.Simt)]
    [InlineData(Backend.Cuda)]
    public async Task A_session_goes_on_after_any_end(Backend backend)
    {
        using Model model = await LoadAsync(backend);
        using Session session = model.CreateSession(), fresh = model.CreateSession();
        int[] prompt = [.. model.Tokenizer.Encode("One day Mia went to the")];
        List<int> ids = [];
        await foreach (GeneratedToken token in session.GenerateAsync(prompt, new SamplingParameters { MaxTokens = 40 }, TestContext.Current.CancellationToken))
        {
            ids.Add(token.Id);
            if (ids.Count == 3)
            {
                break; // the fourth token's step is on the stream
            }
        }

        Assert.Equal([.. prompt, .. ids], session.Computed.Concat(ids[^1..]).Take(prompt.Length + 3).ToArray());
        Assert.True(session.Computed.Count <= prompt.Length + 3);
        float[] next = session.NextLogits([.. prompt, ids[0], 7, 8]), expected = fresh.NextLogits([.. prompt, ids[0], 7, 8]);
        Assert.True(expected.Zip(next).Max(p => Math.Abs(p.First - p.Second)) < 0.05f);

        using CancellationTokenSource cancellation = new();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (GeneratedToken _ in session.GenerateAsync(prompt, new SamplingParameters { MaxTokens = 40 }, cancellation.Token))
            {
                await cancellation.CancelAsync();
            }
        });
        next = session.NextLogits([.. prompt, 9]);
        expected = fresh.NextLogits([.. prompt, 9]);
        Assert.True(expected.Zip(next).Max(p => Math.Abs(p.First - p.Second)) < 0.05f);
    }

    private static Task<Model> LoadAsync(Backend backend)
    {
        Assert.SkipWhen(Device.Count(backend) == 0, $"no {backend} device is here");
        return Model.LoadAsync(Path.Combine(AppContext.BaseDirectory, "models", "tales-draft"), new ModelOptions { Device = backend, Threads = 1, ContextLength = 128 });
    }

    private static async Task<List<GeneratedToken>> AllAsync(Model model, SamplingParameters p)
    {
        using Session session = model.CreateSession();
        List<GeneratedToken> tokens = [];
        await foreach (GeneratedToken token in session.GenerateAsync("Once upon a time there was a", p, TestContext.Current.CancellationToken))
        {
            tokens.Add(token);
        }

        return tokens;
    }
}
