using Sluice.Tokenization;

namespace Sluice.Decoding;

/// <summary>How well a model predicts a text.</summary>
/// <param name="Tokens">Tokens that were predicted.</param>
/// <param name="MeanNegativeLogProb">Natural logarithm, a token.</param>
/// <param name="StandardError">Of that mean.</param>
public readonly record struct TextScore(long Tokens, double MeanNegativeLogProb, double StandardError)
{
    /// <summary>exp of the mean: 1 is perfect.</summary>
    public double Perplexity => Math.Exp(MeanNegativeLogProb);

    /// <summary>The mean in bits.</summary>
    public double BitsPerToken => MeanNegativeLogProb / Math.Log(2);
}

/// <summary>How far one model's predictions are from another's, over the same positions.</summary>
/// <param name="Tokens">Positions.</param>
/// <param name="KlMean">Mean of KL(baseline || model) in nats.</param>
/// <param name="KlMax">The largest.</param>
/// <param name="Agreement">Fraction of positions with the same likeliest token.</param>
/// <param name="LogitErrorMean">Mean of |logit - baseline's|.</param>
/// <param name="LogitErrorMax">The largest.</param>
/// <param name="LogitDeviation">Standard deviation of the baseline's logits: the errors' yardstick.</param>
/// <param name="Score">The model's own score of the text.</param>
/// <param name="BaselineScore">The baseline's.</param>
public readonly record struct Divergence(
    long Tokens, double KlMean, double KlMax, double Agreement, double LogitErrorMean, double LogitErrorMax, double LogitDeviation, TextScore Score, TextScore BaselineScore);

/// <summary>Measures of quality over a text, in windows of the session's context that do not overlap.</summary>
public static class Evaluation
{
    /// <summary>Scores a text.</summary>
    /// <param name="model">The model.</param>
    /// <param name="session">A session of it.</param>
    /// <param name="tokens">The text's ids.</param>
    /// <param name="progress">Told how many tokens are done.</param>
    /// <param name="cancellationToken">Looked at between chunks.</param>
    /// <exception cref="ArgumentException">Fewer than two tokens, or a context of one.</exception>
    public static TextScore Score(Model model, Session session, ReadOnlySpan<int> tokens, IProgress<long>? progress = null, CancellationToken cancellationToken = default)
    {
        RequireTwo(tokens.Length);
        Moments moments = default;
        int window = session.ContextLength;
        if (window < 2)
        {
            throw new ArgumentException("a context of 1 token predicts nothing: open the model with 2 at least");
        }

        for (int at = 0; at + 1 < tokens.Length; at += window - 1)
        {
            cancellationToken.ThrowIfCancellationRequested();
            foreach (float p in session.Score(tokens.Slice(at, Math.Min(window, tokens.Length - at)), cancellationToken))
            {
                moments.Add(-p);
            }

            progress?.Report(Math.Min(at + window, tokens.Length));
        }

        return moments.ToScore();
    }

    /// <summary>Holds a model's logits against a baseline's.</summary>
    /// <param name="session">Of the model.</param>
    /// <param name="baseline">Of the baseline, with the same vocabulary.</param>
    /// <param name="vocabulary">V.</param>
    /// <param name="tokens">The text's ids.</param>
    /// <param name="progress">Told how many tokens are done.</param>
    /// <param name="cancellationToken">Looked at between windows.</param>
    /// <exception cref="ArgumentException">Fewer than two tokens.</exception>
    public static Divergence Compare(Session session, Session baseline, int vocabulary, ReadOnlySpan<int> tokens, IProgress<long>? progress = null, CancellationToken cancellationToken = default)
    {
        RequireTwo(tokens.Length);

        // Bounded memory: two windows of logits.
        int window = Math.Max(2, Math.Min(Math.Min(session.ContextLength, baseline.ContextLength), (int)Math.Max(2, (1L << 26) / vocabulary)));
        DivergenceSums sums = new(vocabulary);
        for (int at = 0; at + 1 < tokens.Length; at += window - 1)
        {
            cancellationToken.ThrowIfCancellationRequested();
            ReadOnlySpan<int> part = tokens.Slice(at, Math.Min(window, tokens.Length - at));
            float[] a = session.Logits(part, session.ChunkSize), b = baseline.Logits(part, baseline.ChunkSize);
            foreach (PositionDivergence position in PositionDivergence.OfRows(a, b, part[1..].ToArray(), vocabulary, cancellationToken))
            {
                sums.Add(position);
            }

            progress?.Report(Math.Min(at + window, tokens.Length));
        }

        return sums.ToDivergence();
    }

    /// <summary>Checks that two models' logits can be held against each other.</summary>
    /// <exception cref="ArgumentException">The vocabularies are not the same; the text names the difference.</exception>
    public static void RequireSameVocabulary(Model model, Model baseline)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(baseline);
        int size = model.Config.VocabularySize;
        if (baseline.Config.VocabularySize != size)
        {
            throw new ArgumentException($"the baseline's vocabulary has {baseline.Config.VocabularySize:N0} tokens, the model's {size:N0}: they cannot be compared");
        }

        for (int id = 0; id < size; id++)
        {
            // Makers rename control tokens between releases of a model, and give out unused ones; what is text must be the same.
            if (IsText(model.Tokenizer.KindOf(id)) && IsText(baseline.Tokenizer.KindOf(id)) && !model.Tokenizer.TokenBytes(id).SequenceEqual(baseline.Tokenizer.TokenBytes(id)))
            {
                throw new ArgumentException($"token {id:N0} is '{baseline.Tokenizer.NameOf(id)}' in the baseline's vocabulary, and '{model.Tokenizer.NameOf(id)}' in the model's: they cannot be compared");
            }
        }
    }

    private static bool IsText(TokenKind kind) => kind is TokenKind.Normal or TokenKind.Byte or TokenKind.UserDefined;

    private static void RequireTwo(int count)
    {
        if (count < 2)
        {
            throw new ArgumentException($"the text has {count} token{(count == 1 ? "" : "s")}: two are needed at least, one to predict from and one to predict");
        }
    }
}
