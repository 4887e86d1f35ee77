namespace Sluice.Perf.Soak;

/// <summary>A prompt, how to go on from it, and what that gives alone: on a session, or on an engine without other requests.</summary>
/// <param name="Prompt">Token ids.</param>
/// <param name="Parameters">How tokens are chosen, with a seed.</param>
/// <param name="Alone">Of each seed from that of the parameters on the tokens, as many as anybody may ask for.</param>
/// <param name="Scores">The log-probability of each of the prompt's tokens but the first.</param>
internal sealed record SoakCase(int[] Prompt, SamplingParameters Parameters, (int Id, float LogProb)[][] Alone, float[] Scores)
{
    /// <summary>Samples of one prompt at most.</summary>
    public const int MostSamples = 4;

    public bool IsGreedy => Parameters.Temperature == 0;

    /// <summary>The prompt as a vector.</summary>
    public float[] Embedding { get; private init; } = [];

    /// <summary>Makes cases that begin alike and end apart.</summary>
    public static async Task<SoakCase[]> MakeAsync(Model model, Random random, int count, int mostPrompt, int mostTokens)
    {
        int[] common = Tokens(model, random, mostPrompt);
        SoakCase[] cases = new SoakCase[count];
        using Session session = model.CreateSession();
        for (int i = 0; i < count; i++)
        {
            int length = random.Next(2, mostPrompt + 1), shared = random.Next(3) == 0 ? 0 : random.Next(length);
            int[] prompt = [.. common.AsSpan(0, shared), .. Tokens(model, random, length - shared)];
            SamplingParameters parameters = new() { MaxTokens = mostTokens, Seed = (ulong)random.Next(), IgnoreEndOfSequence = random.Next(3) > 0, LogProbs = random.Next(4) == 0 ? 2 : 0 };
            parameters = (i % 4) switch
            {
                0 => parameters with { Temperature = 1, TopP = 0.95f },
                1 => parameters with { RepetitionPenalty = 1.2f, FrequencyPenalty = 0.2f },
                _ => parameters,
            };
            (int, float)[][] alone = new (int, float)[parameters.Temperature == 0 ? 1 : MostSamples][];
            for (int s = 0; s < alone.Length; s++)
            {
                alone[s] = [.. (await session.GenerateAsync(prompt, parameters with { Seed = parameters.Seed + (ulong)s }).ToListAsync()).Select(t => (t.Id, t.LogProb!.Value))];
                session.Forget();
            }

            cases[i] = new SoakCase(prompt, parameters, alone, session.Score(prompt));
            session.Forget();
        }

        return cases;
    }

    /// <summary>The same with its vector, from an engine that has nothing else to do.</summary>
    public async Task<SoakCase> EmbeddedAsync(Engine engine) => this with { Embedding = await engine.EmbedAsync(Prompt) };

    /// <summary>What a request for so many tokens gets.</summary>
    public ReadOnlySpan<(int Id, float LogProb)> Expected(int sample, int tokens)
    {
        (int, float)[] all = Alone[IsGreedy ? 0 : sample];
        return all.AsSpan(0, Math.Min(tokens, all.Length));
    }

    private static int[] Tokens(Model model, Random random, int count) => [.. Enumerable.Range(0, count).Select(_ => random.Next(3, model.Config.VocabularySize))];
}
