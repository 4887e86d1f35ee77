using System.Runtime.InteropServices;
using Sluice.Interop;

namespace Sluice.Decoding;

/// <summary>A token and the natural logarithm of its probability (of the model's, before penalties and temperature).</summary>
public readonly record struct TokenLogProb(int Id, float LogProb);

/// <summary>
/// Chooses the next token of one sequence from its logits, on the device. Repetition is penalised over prompt and
/// answer, presence and frequency over the answer alone, as the OpenAI API and vLLM do.
/// </summary>
internal sealed class Sampler : IDisposable
{
    /// <summary>Choices that may be under way at once.</summary>
    public const int MostUnderWay = 2;

    private readonly ComputeStream _stream;
    private readonly SamplingParameters _parameters;
    private readonly DType _activationType;
    private readonly List<DeviceBuffer> _owned = [];
    private readonly Tensor _id, _temperature, _topK, _topP, _minP, _seed, _position;
    private readonly Tensor _penalised, _history, _repetition, _noRepetition, _presence, _frequency, _zero, _biasIds, _biasValues, _biasIndptr, _indptr;
    private readonly Tensor _logit;  // [1, 1]: of the chosen token, where no probability is asked for; it tells whether the logits are numbers
    private readonly Tensor _logProb, _topIds, _topLogProbs;
    private readonly DeviceBuffer _results; // pinned: of each choice under way the id, a number that tells of its logits, the likeliest tokens
    private readonly ComputeEvent[] _there = new ComputeEvent[MostUnderWay];
    private readonly int _top, _resultBytes;
    private readonly bool _changesLogits;
    private int _begun, _ended;
    private bool _knowsPrompt;

    /// <param name="stream">Where it runs.</param>
    /// <param name="parameters">Checked parameters.</param>
    /// <param name="vocabularySize">V.</param>
    /// <param name="maxHistory">Tokens of the longest prompt and answer together.</param>
    /// <param name="seed">The seed.</param>
    /// <param name="activationType">Of what made the logits: f16 has a short range, and an overflow should be named as what it is.</param>
    public Sampler(ComputeStream stream, SamplingParameters parameters, int vocabularySize, int maxHistory, ulong seed, DType activationType)
    {
        (_stream, _parameters, _activationType) = (stream, parameters, activationType);
        bool repetition = parameters.RepetitionPenalty != 1, counts = parameters.PresencePenalty != 0 || parameters.FrequencyPenalty != 0;
        _changesLogits = repetition || counts || parameters.LogitBias.Count > 0;
        try
        {
            _id = Own(stream.CreateTensor(DType.I32, 1));
            _temperature = One(parameters.Temperature);
            _topP = One(parameters.TopP);
            _minP = One(parameters.MinP);
            _topK = Own(stream.CreateTensor<int>(DType.I32, [parameters.TopK], 1));
            _seed = Own(stream.CreateTensor<long>(DType.I64, [unchecked((long)seed)], 1));
            _position = Own(stream.CreateTensor(DType.I64, 1));
            if (_changesLogits)
            {
                _penalised = Own(stream.CreateTensor(DType.F32, 1, vocabularySize));
                _history = Own(stream.CreateTensor(DType.I32, maxHistory));
                _indptr = Own(stream.CreateTensor(DType.I32, 2));
                _repetition = One(parameters.RepetitionPenalty);
                _noRepetition = One(1);
                _presence = One(parameters.PresencePenalty);
                _frequency = One(parameters.FrequencyPenalty);
                _zero = One(0);
            }

            if (parameters.LogitBias.Count > 0)
            {
                _biasIds = Own(stream.CreateTensor<int>(DType.I32, parameters.LogitBias.Keys.ToArray(), parameters.LogitBias.Count));
                _biasValues = Own(stream.CreateTensor<float>(DType.F32, parameters.LogitBias.Values.ToArray(), parameters.LogitBias.Count));
                _biasIndptr = Own(stream.CreateTensor<int>(DType.I32, [0, parameters.LogitBias.Count], 2));
            }

            int top = _top = Math.Min(parameters.LogProbs ?? 0, vocabularySize);
            _logit = Own(stream.CreateTensor(DType.F32, 1, 1));
            _logProb = Own(stream.CreateTensor(DType.F32, 1));
            _topIds = top > 0 ? Own(stream.CreateTensor(DType.I32, 1, top)) : default;
            _topLogProbs = top > 0 ? Own(stream.CreateTensor(DType.F32, 1, top)) : default;
            _resultBytes = 8 + (8 * top);
            _results = stream.CreateBuffer((ulong)(MostUnderWay * _resultBytes), MemoryKind.Host);
            _owned.Add(_results);
            for (int i = 0; i < MostUnderWay; i++)
            {
                _there[i] = new ComputeEvent(stream.Device);
            }

            Tensor logits = Own(stream.CreateTensor(DType.F32, 1, vocabularySize));
            stream.Reserve(stream.Measure(() => Run(logits, maxHistory, 0)));
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Where the device puts the token that was chosen last: i32 [1].</summary>
    public Tensor Id => _id;

    /// <summary>Puts the choice of a token on the stream, without waiting for it.</summary>
    /// <param name="logits">f32 [1, V]; not changed.</param>
    /// <param name="tokens">Prompt and answer so far, of which the device knows what it chose itself.</param>
    /// <param name="length">How many they are.</param>
    /// <param name="promptLength">How many of them are the prompt.</param>
    public void Begin(in Tensor logits, ReadOnlySpan<int> tokens, int length, int promptLength)
    {
        if (_begun - _ended == MostUnderWay)
        {
            throw new InvalidOperationException($"{MostUnderWay} choices are under way, and none was awaited");
        }

        _stream.Upload<long>(_position, [length]);
        if (_changesLogits && !_knowsPrompt)
        {
            _stream.Upload(_history.Rows(0, length), tokens[..length]);
            _knowsPrompt = true;
        }

        Run(logits, length, promptLength);
        if (_changesLogits && length < _history.Count)
        {
            _stream.Copy(_id.Buffer!, 0, _history.Buffer!, (ulong)length * sizeof(int), sizeof(int));
        }

        ulong at = (ulong)(_begun % MostUnderWay * _resultBytes);
        _stream.Copy(_id.Buffer!, 0, _results, at, sizeof(int));
        _stream.Copy((_parameters.LogProbs is null ? _logit : _logProb).Buffer!, 0, _results, at + 4, sizeof(float));
        if (_top > 0)
        {
            _stream.Copy(_topIds.Buffer!, 0, _results, at + 8, (ulong)_top * 4);
            _stream.Copy(_topLogProbs.Buffer!, 0, _results, at + 8 + ((ulong)_top * 4), (ulong)_top * 4);
        }

        _there[_begun % MostUnderWay].Record(_stream);
        _begun++;
    }

    /// <summary>Waits for the choice that was begun first of those under way.</summary>
    /// <param name="logProb">The token's log-probability, where asked for.</param>
    /// <param name="top">The likeliest tokens, where asked for.</param>
    public int End(out float? logProb, out TokenLogProb[]? top)
    {
        int turn = _ended++ % MostUnderWay;
        _there[turn].Synchronize();
        ulong at = (ulong)(turn * _resultBytes);
        int id = _results.Read<int>(at);
        float p = _results.Read<float>(at + 4);
        if (!float.IsFinite(p))
        {
            throw Choice.Impossible(p, _activationType);
        }

        logProb = null;
        top = null;
        if (_parameters.LogProbs is not null)
        {
            logProb = p;
            top = new TokenLogProb[_top];
            for (int i = 0; i < top.Length; i++)
            {
                top[i] = new TokenLogProb(_results.Read<int>(at + 8 + ((ulong)i * 4)), _results.Read<float>(at + 8 + ((ulong)(_top + i) * 4)));
            }
        }

        return id;
    }

    public void Dispose()
    {
        foreach (DeviceBuffer buffer in _owned)
        {
            buffer.Dispose();
        }

        foreach (ComputeEvent? there in _there)
        {
            there?.Dispose();
        }
    }

    private void Run(Tensor logits, int historyLength, int promptLength)
    {
        Tensor chosen = logits;
        if (_changesLogits)
        {
            chosen = _penalised;
            _stream.Copy(logits.Buffer!, logits.Offset, _penalised.Buffer!, 0, (ulong)(logits.Count * sizeof(float)));
            if (_parameters.RepetitionPenalty != 1)
            {
                Penalise(0, historyLength, _repetition, _zero, _zero);
            }

            if (_parameters.PresencePenalty != 0 || _parameters.FrequencyPenalty != 0)
            {
                Penalise(promptLength, historyLength, _noRepetition, _presence, _frequency);
            }

            if (!_biasIds.IsAbsent)
            {
                _stream.Penalties(new PenaltiesArgs { Logits = _penalised, BiasIds = _biasIds, BiasValues = _biasValues, BiasIndptr = _biasIndptr });
            }
        }

        if (_parameters.Temperature == 0)
        {
            _stream.ArgMax(chosen, _id);
        }
        else
        {
            _stream.Sample(new SampleArgs
            {
                Logits = chosen, Temperature = _temperature, TopK = _topK, TopP = _topP, MinP = _minP, Seed = _seed, Position = _position, Ids = _id,
            });
        }

        if (_parameters.LogProbs is null)
        {
            _stream.Gather(chosen.Reshape(chosen.Count, 1), _id, _logit);
        }
        else
        {
            _stream.LogProbs(logits, _id, _logProb, _topIds, _topLogProbs);
        }
    }

    private void Penalise(int first, int end, Tensor repetition, Tensor presence, Tensor frequency)
    {
        if (end == first)
        {
            return;
        }

        _stream.Upload<int>(_indptr, [0, end - first]);
        _stream.Penalties(new PenaltiesArgs
        {
            Logits = _penalised, History = _history.Rows(first, end - first), HistoryIndptr = _indptr, Repetition = repetition, Presence = presence, Frequency = frequency,
        });
    }

    private Tensor One(float value) => Own(_stream.CreateTensor<float>(DType.F32, MemoryMarshal.CreateReadOnlySpan(ref value, 1), 1));

    private Tensor Own(Tensor t)
    {
        _owned.Add(t.Buffer!);
        return t;
    }
}
