namespace Sluice.Decoding;

/// <summary>One position: how well its token was predicted, and how far the prediction is from a baseline's. All of it in double, in nats.</summary>
/// <param name="Loss">-log p of the token.</param>
/// <param name="BaselineLoss">The baseline's.</param>
/// <param name="Kl">KL(baseline || model).</param>
/// <param name="Same">Whether the likeliest tokens are the same.</param>
/// <param name="ErrorSum">Sum of |logit - baseline's| over the vocabulary.</param>
/// <param name="ErrorMax">The largest.</param>
/// <param name="LogitSum">Sum of the baseline's logits.</param>
/// <param name="LogitSquares">Sum of their squares.</param>
internal readonly record struct PositionDivergence(double Loss, double BaselineLoss, double Kl, bool Same, double ErrorSum, double ErrorMax, double LogitSum, double LogitSquares)
{
    /// <summary>Measures rows of logits, on all cores.</summary>
    /// <param name="model">[rows, V].</param>
    /// <param name="baseline">[rows, V]; null: the model's loss alone is measured.</param>
    /// <param name="targets">The token that follows each row.</param>
    /// <param name="vocabulary">V.</param>
    /// <param name="cancellation">Looked at between rows.</param>
    public static PositionDivergence[] OfRows(float[] model, float[]? baseline, int[] targets, int vocabulary, CancellationToken cancellation)
    {
        PositionDivergence[] rows = new PositionDivergence[targets.Length];
        Parallel.For(0, rows.Length, new ParallelOptions { CancellationToken = cancellation }, t =>
        {
            ReadOnlySpan<float> own = model.AsSpan(t * vocabulary, vocabulary);
            rows[t] = baseline is null
                ? new PositionDivergence(LogSum(own) - own[targets[t]], 0, 0, false, 0, 0, 0, 0)
                : Of(own, baseline.AsSpan(t * vocabulary, vocabulary), targets[t]);
        });
        return rows;
    }

    private static PositionDivergence Of(ReadOnlySpan<float> model, ReadOnlySpan<float> baseline, int target)
    {
        double zModel = LogSum(model), zBaseline = LogSum(baseline), kl = 0, errorSum = 0, errorMax = 0, sum = 0, squares = 0;
        for (int i = 0; i < baseline.Length; i++)
        {
            double p = baseline[i] - zBaseline, error = Math.Abs((double)model[i] - baseline[i]);
            kl += Math.Exp(p) * (p - (model[i] - zModel));
            errorSum += error;
            errorMax = Math.Max(errorMax, error);
            sum += baseline[i];
            squares += (double)baseline[i] * baseline[i];
        }

        return new PositionDivergence(zModel - model[target], zBaseline - baseline[target], kl, ArgMax(model) == ArgMax(baseline), errorSum, errorMax, sum, squares);
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
}

/// <summary>Positions added up: the one place where perplexity, KL and agreement accumulate.</summary>
internal sealed class DivergenceSums(int vocabulary)
{
    private Moments _own, _other;
    private double _kl, _klMax, _error, _errorMax, _logits, _squares;
    private long _rows, _same;

    /// <summary>The model's own score.</summary>
    public TextScore Score => _own.ToScore();

    public void Add(in PositionDivergence position)
    {
        _own.Add(position.Loss);
        _other.Add(position.BaselineLoss);
        _kl += position.Kl;
        _klMax = Math.Max(_klMax, position.Kl);
        _same += position.Same ? 1 : 0;
        _error += position.ErrorSum;
        _errorMax = Math.Max(_errorMax, position.ErrorMax);
        _logits += position.LogitSum;
        _squares += position.LogitSquares;
        _rows++;
    }

    public Divergence ToDivergence()
    {
        double count = (double)_rows * vocabulary, mean = _logits / count;
        return new Divergence(
            _rows, _kl / _rows, _klMax, (double)_same / _rows, _error / count, _errorMax, Math.Sqrt(Math.Max(0, (_squares / count) - (mean * mean))), _own.ToScore(), _other.ToScore());
    }
}

/// <summary>Sum and sum of squares of -log p.</summary>
internal struct Moments
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
