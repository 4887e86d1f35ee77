using System.Diagnostics;
using System.Threading.Channels;
using Sluice.Decoding;
using Sluice.Scheduling;
using Sluice.Tokenization;

namespace Sluice;

/// <summary>
/// An answer in the making: read it once, from any thread. Leaving the enumeration early, disposing and <see cref="Abort"/> end it, and its pages are free within a step.
/// Tokens that nobody has read yet wait: an answer has a length, and the engine for none.
/// </summary>
public sealed class Generation : IAsyncEnumerable<GeneratedToken>, IAsyncDisposable
{
    private readonly Channel<GeneratedToken> _tokens;
    private readonly IncrementalDecoder _decoder;
    private readonly StopMatcher _stops;
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _read;

    internal Generation(Engine engine, string id, int[] prompt, int promptLength, int maxTokens, SamplingParameters parameters, ulong seed, RequestOptions options)
    {
        (Engine, Id, Prompt, MaxTokens, Parameters, Options) = (engine, id, prompt, maxTokens, parameters, options);
        Chooser = new Chooser(parameters, seed, promptLength);
        _decoder = new IncrementalDecoder(engine.Model.Tokenizer, skipSpecial: true);
        _stops = new StopMatcher(parameters.Stop);
        _tokens = Channel.CreateBounded<GeneratedToken>(new BoundedChannelOptions(Math.Max(1, maxTokens)) { SingleReader = true, SingleWriter = true });
    }

    /// <summary>Its name.</summary>
    public string Id { get; }

    /// <summary>Tokens of the prompt; of a fork, tokens that it began with.</summary>
    public int PromptTokens => Prompt.Length;

    /// <summary>Of the prompt's tokens, those that were found in the cache; known once the first token has come.</summary>
    public int CachedPromptTokens { get; internal set; }

    /// <summary>Tokens that were chosen so far.</summary>
    public int GeneratedTokens { get; private set; }

    /// <summary>How often it had to make room for others so far.</summary>
    public int Preemptions { get; internal set; }

    /// <summary>From the request to its first token; null before that.</summary>
    public TimeSpan? TimeToFirstToken { get; private set; }

    /// <summary>The natural log-probability of each of the prompt's tokens but the first, where asked for; null until the first token has come.</summary>
    public float[]? PromptLogProbs { get; internal set; }

    /// <summary>Ends when the engine is done with it and its pages are free, however it ended; never fails.</summary>
    public Task Completion => _ended.Task;

    internal Engine Engine { get; }

    internal int[] Prompt { get; set; }

    internal int MaxTokens { get; set; }

    internal SamplingParameters Parameters { get; }

    internal RequestOptions Options { get; }

    internal Chooser Chooser { get; }

    /// <summary>Its sequence, for the engine's thread alone.</summary>
    internal Sequence? Sequence { get; set; }

    /// <summary>Other samples of the same prompt, which begin where its own first token is chosen; for the engine's thread alone.</summary>
    internal List<Generation> Siblings { get; } = [];

    /// <summary>Whose sibling it is, until its own sequence begins.</summary>
    internal Generation? Leader { get; set; }

    internal RequestTimes Times { get; } = new();

    internal Activity? Activity { get; set; }

    /// <summary>Ends it. What has been generated can still be read; then the enumeration ends with an <see cref="OperationCanceledException"/>. Safe at any time, and twice.</summary>
    public void Abort()
    {
        if (!Completion.IsCompleted)
        {
            Engine.Post(EngineCommand.Abort, this);
        }
    }

    /// <summary>
    /// A second answer that goes on from all that this one has generated when the engine comes to it, and shares what is computed. It reports its own tokens alone. Where this one
    /// has ended already, the fork goes on from its end.
    /// </summary>
    /// <param name="parameters">How to go on; null: alike, but with another seed. <see cref="SamplingParameters.MaxTokens"/> counts the fork's own tokens.</param>
    /// <param name="id">Its name; null: the engine gives one.</param>
    /// <exception cref="ArgumentException">A parameter out of its range, or a live request has the id.</exception>
    /// <exception cref="ObjectDisposedException">The engine is gone.</exception>
    public Generation Fork(SamplingParameters? parameters = null, string? id = null) => Engine.Fork(this, parameters, id);

    /// <summary>The tokens as they come. Once: a second enumeration throws.</summary>
    /// <param name="cancellationToken">Ends the generation, and the enumeration with an <see cref="OperationCanceledException"/>.</param>
    /// <exception cref="InvalidOperationException">It is or was read already.</exception>
    public async IAsyncEnumerator<GeneratedToken> GetAsyncEnumerator(CancellationToken cancellationToken = default)
    {
        if (Interlocked.Exchange(ref _read, 1) != 0)
        {
            throw new InvalidOperationException("a generation is read once: keep its tokens, or start another");
        }

        using CancellationTokenRegistration cancelled = cancellationToken.UnsafeRegister(static g => ((Generation)g!).Abort(), this);
        try
        {
            await foreach (GeneratedToken token in _tokens.Reader.ReadAllAsync(cancellationToken).ConfigureAwait(false))
            {
                yield return token;
            }
        }
        finally
        {
            Abort();
        }
    }

    /// <summary>Ends it, and waits until its pages are free.</summary>
    public async ValueTask DisposeAsync()
    {
        Abort();
        await Completion.ConfigureAwait(false);
    }

    /// <summary>Takes a chosen token; true where it was the last one.</summary>
    internal bool Publish(in Choice choice)
    {
        if (GeneratedTokens++ == 0)
        {
            TimeToFirstToken = Times.First();
        }

        Times.Token();
        int id = choice.Id;
        if (!Parameters.IgnoreEndOfSequence && Engine.Model.Tokenizer.IsEndOfGeneration(id))
        {
            Write(new GeneratedToken(id, _stops.Append(_decoder.Flush(), out _) + _stops.Flush(), choice.LogProb, choice.Top, FinishReason.EndOfSequence));
            return true;
        }

        FinishReason? finish = GeneratedTokens < MaxTokens ? null : MaxTokens == Parameters.MaxTokens ? FinishReason.MaxTokens : FinishReason.ContextFull;
        string text = _stops.Append(_decoder.Push(id) + (finish is null ? "" : _decoder.Flush()), out bool stopped);
        if (stopped)
        {
            finish = FinishReason.StopText;
        }
        else if (finish is not null)
        {
            text += _stops.Flush();
        }

        Write(new GeneratedToken(id, text, choice.LogProb, choice.Top, finish));
        return finish is not null;
    }

    /// <summary>No token comes any more. Null: it has ended by itself.</summary>
    internal void Complete(Exception? error)
    {
        _tokens.Writer.TryComplete(error);
        _ended.TrySetResult();
    }

    // There is room for as many tokens as there can be.
    private void Write(GeneratedToken token) => _tokens.Writer.TryWrite(token);
}

/// <summary>When what happened to a request, by the monotonic clock. Written by the engine's thread.</summary>
internal sealed class RequestTimes
{
    private readonly long _arrived = Stopwatch.GetTimestamp();
    private long _admitted, _first, _last;

    /// <summary>Tokens behind the first.</summary>
    public int Following { get; private set; }

    public TimeSpan? Queued => _admitted == 0 ? null : Stopwatch.GetElapsedTime(_arrived, _admitted);

    public TimeSpan? Prefill => _first == 0 ? null : Stopwatch.GetElapsedTime(_admitted, _first);

    public TimeSpan? Decode => _first == 0 ? null : Stopwatch.GetElapsedTime(_first, _last);

    public TimeSpan Total => Stopwatch.GetElapsedTime(_arrived);

    public void Admitted() => _admitted = _admitted == 0 ? Stopwatch.GetTimestamp() : _admitted;

    public TimeSpan First()
    {
        Admitted();
        _first = _last = Stopwatch.GetTimestamp();
        Following = -1;
        return Stopwatch.GetElapsedTime(_arrived, _first);
    }

    public void Token()
    {
        _last = Stopwatch.GetTimestamp();
        Following++;
    }
}
