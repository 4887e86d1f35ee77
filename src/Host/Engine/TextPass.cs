using Sluice.Scheduling;

namespace Sluice;

/// <summary>A text that is read and not continued: for its tokens' log-probabilities, or for the states behind them. The fields are the engine's thread's.</summary>
internal sealed class TextPass
{
    private readonly TaskCompletionSource<float[]> _done = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly float[] _result;
    private readonly bool _normalize;

    /// <param name="tokens">The text.</param>
    /// <param name="pooling">How states become a vector; null: log-probabilities are wanted.</param>
    /// <param name="normalize">Whether the vector's length becomes 1.</param>
    /// <param name="hiddenSize">C.</param>
    /// <param name="options">Whose it is, and when.</param>
    /// <param name="cancellation">What ends it early.</param>
    public TextPass(int[] tokens, Pooling? pooling, bool normalize, int hiddenSize, RequestOptions options, CancellationToken cancellation)
    {
        (Tokens, Pooling, _normalize, Options, Cancellation) = (tokens, pooling, normalize, options, cancellation);
        _result = new float[pooling is null ? tokens.Length - 1 : hiddenSize];
    }

    public int[] Tokens { get; }

    public Pooling? Pooling { get; }

    public RequestOptions Options { get; }

    public CancellationToken Cancellation { get; }

    public Sequence? Sequence { get; set; }

    public Task<float[]> Result => _done.Task;

    /// <summary>The first token behind which something is wanted.</summary>
    public int? FirstRow => Pooling is null or Sluice.Pooling.Mean ? 0 : null;

    public void Score(int token, float logProb) => _result[token] = logProb;

    public void Add(ReadOnlySpan<float> state)
    {
        for (int i = 0; i < state.Length; i++)
        {
            _result[i] += state[i];
        }
    }

    public void Complete()
    {
        if (Pooling is not null)
        {
            double squares = 0;
            foreach (float value in _result)
            {
                squares += (double)value * value;
            }

            float scale = _normalize ? (float)(1 / Math.Max(Math.Sqrt(squares), 1e-30)) : Pooling == Sluice.Pooling.Mean ? 1f / Tokens.Length : 1;
            foreach (ref float value in _result.AsSpan())
            {
                value *= scale;
            }
        }

        _done.TrySetResult(_result);
    }

    public void Fail(Exception error)
    {
        if (error is OperationCanceledException)
        {
            Cancel();
        }
        else
        {
            _done.TrySetException(error);
        }
    }

    public void Cancel() => _done.TrySetCanceled(Cancellation.IsCancellationRequested ? Cancellation : default);
}
