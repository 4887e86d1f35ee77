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
        Moments own = default, other = default;
        double klSum = 0, klMax = 0, errorSum = 0, errorMax = 0, sum = 0, squares = 0;
        long rows = 0, same = 0;
        for (int at = 0; at + 1 < tokens.Length; at += window - 1)
        {
            cancellationToken.ThrowIfCancellationRequested();
            ReadOnlySpan<int> part = tokens.Slice(at, Math.Min(window, tokens.Length - at));
            float[] a = session.Logits(part, session.ChunkSize), b = baseline.Logits(part, baseline.ChunkSize);
            for (int t = 0; t + 1 < part.Length; t++, rows++)
            {
                ReadOnlySpan<float> mine = a.AsSpan(t * vocabulary, vocabulary), theirs = b.AsSpan(t * vocabulary, vocabulary);
                double zMine = LogSum(mine), zTheirs = LogSum(theirs), kl = 0;
                for (int i = 0; i < vocabulary; i++)
                {
                    double p = theirs[i] - zTheirs, error = Math.Abs((double)mine[i] - theirs[i]);
                    kl += Math.Exp(p) * (p - (mine[i] - zMine));
                    errorSum += error;
                    errorMax = Math.Max(errorMax, error);
                    sum += theirs[i];
                    squares += (double)theirs[i] * theirs[i];
                }

                klSum += kl;
                klMax = Math.Max(klMax, kl);
                same += ArgMax(mine) == ArgMax(theirs) ? 1 : 0;
                own.Add(zMine - mine[part[t + 1]]);
                other.Add(zTheirs - theirs[part[t + 1]]);
            }

            progress?.Report(Math.Min(at + window, tokens.Length));
        }

        double count = (double)rows * vocabulary, mean = sum / count;
        return new Divergence(rows, klSum / rows, klMax, (double)same / rows, errorSum / count, errorMax, Math.Sqrt(Math.Max(0, (squares / count) - (mean * mean))), own.ToScore(), other.ToScore());
    }

    private static void RequireTwo(int count)
    {
        if (count < 2)
        {
            throw new ArgumentException($"the text has {count} token{(count == 1 ? "" : "s")}: two are needed at least, one to predict from and one to predict");
        }
    }

    private static double LogSum(ReadOnlySpan<float> logits)
    {
        double most = double.NegativeInfinity, sum = 0;
        foreach (float l in logits)
        {
            most = Math.Max(most, l);
        }

        foreach (float l in logits)
        {
            sum += Math.Exp(l - most);
        }

        return most + Math.Log(sum);
    }

    private static int ArgMax(ReadOnlySpan<float> logits)
    {
        int best = 0;
        for (int i = 1; i < logits.Length; i++)
        {
            best = logits[i] > logits[best] ? i : best;
        }

        return best;
    }

    private struct Moments
    {
        private double _sum, _squares;
        private long _count;

        public void Add(double value)
        {
            _sum += value;
            _squares += value * value;
            _count++;
        }

        public readonly TextScore ToScore()
        {
            double mean = _sum / _count;
            return new TextScore(_count, mean, _count > 1 ? Math.Sqrt(Math.Max(0, (_squares / _count) - (mean * mean)) / (_count - 1)) : 0);
        }
    }
}
