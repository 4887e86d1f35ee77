using Sluice.Interop;
using Sluice.Tests.Golden;

namespace Sluice.Tests.Host;

/// <summary>Generation on a real small model: how it ends, what it reports, what it refuses.</summary>
public sealed class GenerationTests : IAsyncLifetime
{
    private Model _model = null!;
    private Session _session = null!;

    public async ValueTask InitializeAsync()
    {
        _model = await Model.LoadAsync(SharedData.PathOf("models", "stories260K", "stories260K-f32.gguf"), new ModelOptions { Device = Backend.Cpu, Threads = 2, ContextLength = 128 });
        _session = _model.CreateSession();
    }

    public ValueTask DisposeAsync()
    {
        _session?.Dispose();
        _model?.Dispose();
        return default;
    }

    [Fact]
    public async Task Same_seed_gives_the_same_text_and_another_seed_another()
    {
        SamplingParameters p = new() { Temperature = 1, TopK = 40, TopP = 0.95f, MinP = 0.01f, Seed = 7, MaxTokens = 40 };
        string first = await TextAsync(p), second = await TextAsync(p), other = await TextAsync(p with { Seed = 8 });
        Assert.Equal(first, second);
        Assert.NotEqual(first, other);
    }

    [Fact]
    public async Task Zero_temperature_and_top_k_of_one_are_greedy()
    {
        string greedy = await TextAsync(new SamplingParameters { MaxTokens = 30 });
        Assert.Equal(greedy, await TextAsync(new SamplingParameters { MaxTokens = 30, Temperature = 1.5f, TopK = 1, Seed = 3 }));
        Assert.StartsWith(", there was a little girl named Lily.", greedy, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Stop_text_ends_the_answer_and_is_no_part_of_it()
    {
        List<GeneratedToken> tokens = await AllAsync(new SamplingParameters { MaxTokens = 60, Stop = ["Lily. She", "never"] });
        Assert.Equal(FinishReason.StopText, tokens[^1].Finish);
        Assert.Equal(", there was a little girl named ", string.Concat(tokens.Select(t => t.Text)));
    }

    [Fact]
    public async Task Text_held_back_for_a_stop_text_comes_at_the_end()
    {
        string with = await TextAsync(new SamplingParameters { MaxTokens = 20, Stop = ["zzz", "Lily was there"] });
        Assert.Equal(await TextAsync(new SamplingParameters { MaxTokens = 20 }), with);
    }

    [Fact]
    public async Task Context_that_fills_ends_the_answer_with_its_reason()
    {
        List<GeneratedToken> tokens = await AllAsync(new SamplingParameters { IgnoreEndOfSequence = true });
        Assert.Equal(FinishReason.ContextFull, tokens[^1].Finish);
        Assert.Equal(128 - 5, tokens.Count);
    }

    [Fact]
    public void Prompt_and_answer_beyond_the_context_are_refused_with_the_numbers()
    {
        ContextFullException e = Assert.Throws<ContextFullException>(() => _session.GenerateAsync("Once upon a time", new SamplingParameters { MaxTokens = 124 }));
        Assert.Equal((129L, 128), (e.Wanted, e.Context));
        Assert.Contains("129", e.Message, StringComparison.Ordinal);
        Assert.Throws<ContextFullException>(() => _session.GenerateAsync(new int[128]));
    }

    [Fact]
    public async Task Cancelling_ends_a_generation_and_leaves_the_session_usable()
    {
        using CancellationTokenSource stop = new();
        int count = 0;
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (GeneratedToken token in _session.GenerateAsync("Once upon a time", new SamplingParameters { MaxTokens = 100 }, stop.Token))
            {
                if (++count == 3)
                {
                    await stop.CancelAsync();
                }
            }
        });
        Assert.Equal(3, count);
        Assert.StartsWith(", there was", await TextAsync(new SamplingParameters { MaxTokens = 5 }), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Leaving_early_frees_the_session_for_the_next_generation()
    {
        await foreach (GeneratedToken token in _session.GenerateAsync("Once upon a time", new SamplingParameters { MaxTokens = 100 }))
        {
            break;
        }

        Assert.StartsWith(", there was", await TextAsync(new SamplingParameters { MaxTokens = 5 }), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Second_generation_at_once_is_refused()
    {
        await using IAsyncEnumerator<GeneratedToken> first = _session.GenerateAsync("Once upon a time").GetAsyncEnumerator();
        Assert.True(await first.MoveNextAsync());
        await using IAsyncEnumerator<GeneratedToken> second = _session.GenerateAsync("Once upon a time").GetAsyncEnumerator();
        await Assert.ThrowsAsync<InvalidOperationException>(async () => await second.MoveNextAsync());
    }

    [Fact]
    public async Task Common_beginning_is_not_computed_again_and_changes_nothing()
    {
        string fresh = await TextAsync(new SamplingParameters { MaxTokens = 20 });
        Assert.Equal(5 + 19, _session.Computed.Count);
        Assert.Equal(fresh, await TextAsync(new SamplingParameters { MaxTokens = 20 }));
        using Session other = _model.CreateSession();
        await foreach (GeneratedToken token in other.GenerateAsync("Once there was a dog", new SamplingParameters { MaxTokens = 3 }))
        {
        }

        string after = "";
        await foreach (GeneratedToken token in other.GenerateAsync("Once upon a time", new SamplingParameters { MaxTokens = 20 }))
        {
            after += token.Text;
        }

        Assert.Equal(fresh, after);
    }

    [Fact]
    public async Task Log_probabilities_are_those_of_the_golden()
    {
        List<GeneratedToken> tokens = await AllAsync(new SamplingParameters { MaxTokens = 10, LogProbs = 5 });
        Assert.Equal(-0.031703, tokens[0].LogProb!.Value, 4);
        Assert.Equal([432, 383, 322, 353, 323], tokens[0].Top!.Select(t => t.Id));
        Assert.Equal(tokens[0].LogProb!.Value, tokens[0].Top![0].LogProb);
        Assert.All(tokens, t => Assert.True(t.Top!.Sum(p => Math.Exp(p.LogProb)) <= 1.0001));
    }

    [Fact]
    public async Task Scores_agree_with_log_probabilities_of_the_generation()
    {
        List<GeneratedToken> tokens = await AllAsync(new SamplingParameters { MaxTokens = 12, LogProbs = 0 });
        int[] prompt = _model.Tokenizer.Encode("Once upon a time");
        float[] scores = _session.Score([.. prompt, .. tokens.Select(t => t.Id)]);
        Assert.Equal(tokens.Select(t => t.LogProb!.Value), scores.Skip(prompt.Length - 1), (a, b) => Math.Abs(a - b) < 1e-5);
    }

    [Fact]
    public async Task Forbidden_token_never_comes_and_a_favoured_one_does()
    {
        List<GeneratedToken> tokens = await AllAsync(new SamplingParameters { MaxTokens = 20, LogitBias = new Dictionary<int, float> { [432] = float.NegativeInfinity, [383] = -100 } });
        Assert.DoesNotContain(tokens, t => t.Id is 432 or 383);
        tokens = await AllAsync(new SamplingParameters { MaxTokens = 3, LogitBias = new Dictionary<int, float> { [400] = 100 } });
        Assert.All(tokens, t => Assert.Equal(400, t.Id));
    }

    [Fact]
    public async Task Nothing_left_to_choose_is_an_error()
    {
        Dictionary<int, float> all = Enumerable.Range(0, 512).ToDictionary(i => i, _ => float.NegativeInfinity);
        await Assert.ThrowsAsync<InvalidOperationException>(() => AllAsync(new SamplingParameters { MaxTokens = 2, LogitBias = all }));
        Assert.Equal(2, (await AllAsync(new SamplingParameters { MaxTokens = 2 })).Count);
    }

    [Fact]
    public async Task Weights_that_are_no_numbers_are_an_error()
    {
        string path = Path.Combine(Directory.CreateTempSubdirectory("sluice-nan").FullName, "nan.gguf");
        byte[] file = File.ReadAllBytes(SharedData.PathOf("models", "stories260K", "stories260K-f32.gguf"));
        using (Sluice.Loading.GgufFile gguf = Sluice.Loading.GgufFile.Open(SharedData.PathOf("models", "stories260K", "stories260K-f32.gguf")))
        {
            Assert.True(gguf.TryGetTensor("output_norm.weight", out Sluice.Loading.GgufTensor? norm));
            BitConverter.TryWriteBytes(file.AsSpan((int)norm.Offset), float.NaN);
        }

        File.WriteAllBytes(path, file);
        using Model model = await Model.LoadAsync(path, new ModelOptions { Device = Backend.Cpu, ContextLength = 32 });
        using Session session = model.CreateSession();
        InvalidOperationException e = await Assert.ThrowsAsync<InvalidOperationException>(async () =>
        {
            await foreach (GeneratedToken token in session.GenerateAsync("Once", new SamplingParameters { MaxTokens = 2 }))
            {
            }
        });
        Assert.Contains("not numbers", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Context_of_one_token_cannot_be_scored()
    {
        using Model model = await Model.LoadAsync(SharedData.PathOf("models", "stories260K", "stories260K-f32.gguf"), new ModelOptions { Device = Backend.Cpu, ContextLength = 1 });
        using Session session = model.CreateSession();
        Assert.Throws<ArgumentException>(() => Sluice.Decoding.Evaluation.Score(model, session, [1, 2, 3]));
    }

    [Fact]
    public async Task Penalties_break_repetition()
    {
        SamplingParameters greedy = new() { MaxTokens = 100, IgnoreEndOfSequence = true };
        int plain = (await AllAsync(greedy)).Select(t => t.Id).Distinct().Count();
        Assert.True((await AllAsync(greedy with { FrequencyPenalty = 1.5f })).Select(t => t.Id).Distinct().Count() > plain);
        Assert.True((await AllAsync(greedy with { PresencePenalty = 3 })).Select(t => t.Id).Distinct().Count() > plain);
        Assert.True((await AllAsync(greedy with { RepetitionPenalty = 1.8f })).Select(t => t.Id).Distinct().Count() > plain);
    }

    [Theory]
    [InlineData(-1f, 1f, 0f, 1f, "Temperature")]
    [InlineData(1f, 0f, 0f, 1f, "TopP")]
    [InlineData(1f, 1f, 2f, 1f, "MinP")]
    [InlineData(1f, 1f, 0f, 0f, "RepetitionPenalty")]
    [InlineData(float.NaN, 1f, 0f, 1f, "Temperature")]
    public void Parameter_out_of_range_is_named(float temperature, float topP, float minP, float repetition, string name)
    {
        ArgumentException e = Assert.Throws<ArgumentException>(() => _session.GenerateAsync("a", new SamplingParameters { Temperature = temperature, TopP = topP, MinP = minP, RepetitionPenalty = repetition }));
        Assert.Contains(name, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Empty_prompt_and_foreign_ids_are_refused()
    {
        Assert.Throws<ArgumentException>(() => _session.GenerateAsync(ReadOnlyMemory<int>.Empty));
        Assert.Contains("512", Assert.Throws<ArgumentException>(() => _session.GenerateAsync(new[] { 512 })).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => _session.GenerateAsync(new[] { -1 }));
    }

    [Fact]
    public async Task Sessions_run_at_once_on_one_model()
    {
        string expected = await TextAsync(new SamplingParameters { MaxTokens = 30 });
        string[] texts = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => Task.Run(async () =>
        {
            string text = "";
            await foreach (GeneratedToken token in _model.GenerateAsync("Once upon a time", new SamplingParameters { MaxTokens = 30 }))
            {
                text += token.Text;
            }

            return text;
        })));
        Assert.All(texts, t => Assert.Equal(expected, t));
    }

    [Fact]
    public async Task Reading_without_mapping_gives_the_same_model()
    {
        string path = SharedData.PathOf("models", "tiny", "tiny-llama-q4_k_m.gguf");
        List<float[]> logits = [];
        foreach (bool map in new[] { true, false })
        {
            using Model model = await Model.LoadAsync(path, new ModelOptions { Device = Backend.Cpu, MemoryMap = map, ContextLength = 16 });
            using Session session = model.CreateSession();
            logits.Add(session.Logits([1, 2, 3, 4], 4));
        }

        Assert.Equal(logits[0], logits[1]);
    }

    [Fact]
    public async Task Loading_reports_progress_and_can_be_cancelled()
    {
        string path = SharedData.PathOf("models", "tiny", "tiny-llama-q4_k_m.gguf");
        Reports reports = new();
        using (Model model = await Model.LoadAsync(path, new ModelOptions { Device = Backend.Cpu }, reports))
        {
            Assert.Equal(reports.All[^1].TotalBytes, reports.All[^1].Bytes);
            Assert.True(reports.All.Count > 30);
        }

        using CancellationTokenSource stop = new();
        Reports cancelling = new() { OnReport = n => { if (n == 5) { stop.Cancel(); } } };
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => Model.LoadAsync(path, new ModelOptions { Device = Backend.Cpu }, cancelling, stop.Token));
        Assert.Equal(5, cancelling.All.Count);
    }

    [Fact]
    public async Task Perplexity_of_the_models_own_text_is_low()
    {
        Sluice.Tests.Golden.Golden g = Sluice.Tests.Golden.Golden.Load("stories260K-f32-longprompt");
        Sluice.Decoding.TextScore own = await Task.Run(() => Sluice.Decoding.Evaluation.Score(_model, _session, g.PromptIds));
        Assert.Equal(g.PromptIds.Length - 1, own.Tokens);
        Assert.InRange(own.Perplexity, 1, 4);
        int[] shuffled = [.. g.PromptIds];
        new Random(1).Shuffle(shuffled);
        Assert.True(Sluice.Decoding.Evaluation.Score(_model, _session, shuffled).Perplexity > 50);
    }

    private async Task<string> TextAsync(SamplingParameters parameters) => string.Concat((await AllAsync(parameters)).Select(t => t.Text));

    private async Task<List<GeneratedToken>> AllAsync(SamplingParameters parameters)
    {
        List<GeneratedToken> all = [];
        await foreach (GeneratedToken token in _session.GenerateAsync("Once upon a time", parameters))
        {
            all.Add(token);
        }

        return all;
    }

    private sealed class Reports : IProgress<Sluice.Models.LoadProgress>
    {
        public List<Sluice.Models.LoadProgress> All { get; } = [];

        public Action<int>? OnReport { get; init; }

        public void Report(Sluice.Models.LoadProgress value)
        {
            All.Add(value);
            OnReport?.Invoke(All.Count);
        }
    }
}
