using Sluice.Interop;

namespace Sluice.Decoding;

/// <summary>What a decode loop asks of the sequence that it goes on with.</summary>
internal interface IDecodable
{
    /// <summary>Whether the next step may be put on the stream before this one's token is known: the device works while the host waits, and
    /// a step whose token ends the answer is in vain. A device that works at the call gains nothing.</summary>
    bool RunsAhead { get; }

    /// <summary>Computes what is not computed yet of the tokens, and returns the last one's logits [1, V].</summary>
    Tensor CatchUp(ReadOnlySpan<int> tokens, CancellationToken cancellation);

    /// <summary>Puts the step of a token that the device alone knows on the stream, as number <paramref name="length"/> of the sequence; default where
    /// it cannot be computed on top of what is.</summary>
    Tensor Ahead(in Tensor id, int length);

    /// <summary>The token of the step that ran ahead; null: it was in vain.</summary>
    void Settle(int? id);
}

/// <summary>
/// One answer, token by token: logits, choice on the device, and on devices that work beside the host the next step already, so that it never
/// waits for the host. Allocates nothing for a token (but where log-probabilities are asked for).
/// </summary>
internal sealed class DecodeLoop : IDisposable
{
    private readonly IDecodable _sequence;
    private readonly Sampler _sampler;
    private readonly int[] _tokens;
    private readonly int _promptLength, _most;
    private bool _isAhead;

    /// <param name="sequence">The sequence.</param>
    /// <param name="sampler">How tokens are chosen; disposed with the loop.</param>
    /// <param name="prompt">The prompt.</param>
    /// <param name="most">Tokens of prompt and answer together, at most.</param>
    public DecodeLoop(IDecodable sequence, Sampler sampler, ReadOnlySpan<int> prompt, int most)
    {
        (_sequence, _sampler, _promptLength, _most) = (sequence, sampler, prompt.Length, most);
        _tokens = new int[most];
        prompt.CopyTo(_tokens);
        Length = prompt.Length;
    }

    /// <summary>Tokens of prompt and answer.</summary>
    public int Length { get; private set; }

    /// <summary>Chooses the next token.</summary>
    /// <param name="logProb">Its log-probability, where asked for.</param>
    /// <param name="top">The likeliest tokens, where asked for.</param>
    /// <param name="cancellation">Looked at between the steps of a prompt.</param>
    public int Next(out float? logProb, out TokenLogProb[]? top, CancellationToken cancellation = default)
    {
        if (!_isAhead)
        {
            _sampler.Begin(_sequence.CatchUp(_tokens.AsSpan(0, Length), cancellation), _tokens, Length, _promptLength);
        }

        // The token at index Length is being chosen; a step ahead computes it, to choose the one behind.
        _isAhead = false;
        if (_sequence.RunsAhead && Length + 1 < _most && _sequence.Ahead(_sampler.Id, Length + 1) is { IsAbsent: false } logits)
        {
            _isAhead = true;
            _sampler.Begin(logits, _tokens, Length + 1, _promptLength);
        }

        int id = _sampler.End(out logProb, out top);
        _tokens[Length++] = id;
        if (_isAhead)
        {
            _sequence.Settle(id);
        }

        return id;
    }

    /// <summary>Ends the loop: what ran ahead of the last token stays, as its token does.</summary>
    public void Dispose()
    {
        _sequence.Settle(null);
        _sampler.Dispose();
    }
}
