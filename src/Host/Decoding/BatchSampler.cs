using Sluice.Interop;

namespace Sluice.Decoding;

/// <summary>A token that was chosen.</summary>
/// <param name="Id">The token; -1 where there is none, and <paramref name="Logit"/> says why.</param>
/// <param name="Logit">What the choice was made by: finite, or the choice is none.</param>
/// <param name="LogProb">Natural log-probability, where asked for.</param>
/// <param name="Top">The likeliest tokens, where asked for.</param>
internal readonly record struct Choice(int Id, float Logit, float? LogProb, TokenLogProb[]? Top)
{
    /// <summary>Why there was nothing to choose from, where the best logit is no number.</summary>
    public static InvalidOperationException Impossible(float logit, DType activationType) => new(
        float.IsNegativeInfinity(logit) ? "no token is left to choose from: the logit biases forbid all of them"
        : "the model's logits are not numbers: its weights hold NaN or infinity, or the context does"
            + (activationType == DType.F16 ? ", or activations left the range of f16: ask for bf16 or f32 ones" : ""));
}

/// <summary>Whose token a row of logits chooses.</summary>
/// <param name="Parameters">How.</param>
/// <param name="Seed">Of the draw; with the position it decides the draw, so a request's tokens are the same in any batch.</param>
/// <param name="PromptLength">Tokens that penalties take for the prompt.</param>
internal sealed record Chooser(SamplingParameters Parameters, ulong Seed, int PromptLength)
{
    /// <summary>Whether logits are changed before the choice.</summary>
    public bool ChangesLogits { get; } = Parameters.RepetitionPenalty != 1 || Parameters.PresencePenalty != 0 || Parameters.FrequencyPenalty != 0 || Parameters.LogitBias.Count > 0;
}

/// <summary>
/// Chooses a token for each row of a step's logits, each in its own way, in one call of each kind of op: penalties where anybody has them, then arg-max or a draw, then
/// log-probabilities where anybody asked. What a row gets does not depend on the rows beside it. Allocates nothing in a step without penalties and log-probabilities.
/// </summary>
internal sealed class BatchSampler : IDisposable
{
    private readonly ComputeStream _stream;
    private readonly int _vocabularySize, _maxRows;
    private readonly List<DeviceBuffer> _owned = [];
    private readonly Tensor _ids, _places, _picked, _temperature, _topK, _topP, _minP, _seed, _position;
    private readonly int[] _chosen, _flat, _kept;
    private readonly float[] _logits, _temperatures, _nuclei, _floors;
    private readonly long[] _seeds, _positions;
    private readonly Chooser?[] _uploaded;
    private Tensor _penalised, _history, _indptr, _repetition, _presence, _frequency, _biasIds, _biasValues, _biasIndptr; // made when somebody wants them

    /// <param name="stream">Where everything runs.</param>
    /// <param name="vocabularySize">V.</param>
    /// <param name="maxRows">R: rows of a step at most.</param>
    public BatchSampler(ComputeStream stream, int vocabularySize, int maxRows)
    {
        (_stream, _vocabularySize, _maxRows) = (stream, vocabularySize, maxRows);
        (_chosen, _flat, _kept) = (new int[maxRows], new int[maxRows], new int[maxRows]);
        (_logits, _temperatures, _nuclei, _floors) = (new float[maxRows], new float[maxRows], new float[maxRows], new float[maxRows]);
        (_seeds, _positions, _uploaded) = (new long[maxRows], new long[maxRows], new Chooser?[maxRows]);
        try
        {
            _ids = Own(stream.CreateTensor(DType.I32, maxRows));
            _places = Own(stream.CreateTensor(DType.I32, maxRows));
            _picked = Own(stream.CreateTensor(DType.F32, maxRows, 1));
            _temperature = Own(stream.CreateTensor(DType.F32, maxRows));
            _topK = Own(stream.CreateTensor(DType.I32, maxRows));
            _topP = Own(stream.CreateTensor(DType.F32, maxRows));
            _minP = Own(stream.CreateTensor(DType.F32, maxRows));
            _seed = Own(stream.CreateTensor(DType.I64, maxRows));
            _position = Own(stream.CreateTensor(DType.I64, maxRows));
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Reserves the workspace of the largest step.</summary>
    /// <param name="logits">f32 [R, V], any contents.</param>
    public void Reserve(Tensor logits)
    {
        _stream.Reserve(_stream.Measure(() =>
        {
            _stream.ArgMax(logits, _ids.Rows(0, (int)logits.Shape(0)));
            Draw(logits);
        }));
    }

    /// <summary>Chooses a token of each row, and waits for it.</summary>
    /// <param name="logits">f32 [R, V]; not changed.</param>
    /// <param name="choosers">R: how.</param>
    /// <param name="sequences">R: the tokens so far.</param>
    /// <param name="choices">R: what was chosen.</param>
    public void Choose(in Tensor logits, ReadOnlySpan<Chooser> choosers, ReadOnlySpan<Scheduling.Sequence> sequences, Span<Choice> choices)
    {
        int rows = choosers.Length, top = -1;
        bool penalises = false, draws = false, same = true;
        for (int r = 0; r < rows; r++)
        {
            SamplingParameters p = choosers[r].Parameters;
            penalises |= choosers[r].ChangesLogits;
            draws |= p.Temperature != 0;
            top = Math.Max(top, p.LogProbs ?? -1);
            same &= ReferenceEquals(_uploaded[r], choosers[r]);
            _positions[r] = sequences[r].Length;
        }

        Tensor chosen = penalises ? Penalise(logits, choosers, sequences) : logits;
        Tensor ids = _ids.Rows(0, rows);
        if (draws)
        {
            Upload(choosers, same);
            Draw(chosen);
        }
        else
        {
            _stream.ArgMax(chosen, ids);
        }

        _stream.Download(ids, _chosen.AsSpan(0, rows));
        for (int r = 0; r < rows; r++)
        {
            _flat[r] = checked((r * _vocabularySize) + _chosen[r]);
        }

        // What a choice was made by tells whether there was anything to choose from.
        _stream.Upload<int>(_places.Rows(0, rows), _flat.AsSpan(0, rows));
        _stream.Gather(chosen.Reshape(chosen.Count, 1), _places.Rows(0, rows), _picked.Rows(0, rows));
        _stream.Download(_picked.Rows(0, rows), _logits.AsSpan(0, rows));
        if (top >= 0)
        {
            ChooseWithLogProbs(logits, choosers, choices, Math.Min(top, _vocabularySize));
            return;
        }

        for (int r = 0; r < rows; r++)
        {
            choices[r] = new Choice(float.IsFinite(_logits[r]) ? _chosen[r] : -1, _logits[r], null, null);
        }
    }

    /// <summary>Natural log-probabilities of given tokens, a row of logits each.</summary>
    /// <param name="logits">f32 [R, V].</param>
    /// <param name="targets">R: the tokens.</param>
    /// <param name="logProbs">R.</param>
    public void Score(in Tensor logits, ReadOnlySpan<int> targets, Span<float> logProbs)
    {
        Tensor rows = logits, ids = _places.Rows(0, targets.Length), result = _picked.Rows(0, targets.Length).Reshape(targets.Length);
        _stream.Upload(ids, targets);
        ReserveFor(() => _stream.LogProbs(rows, ids, result));
        _stream.LogProbs(rows, ids, result);
        _stream.Download(result, logProbs);
    }

    public void Dispose()
    {
        foreach (DeviceBuffer buffer in _owned)
        {
            buffer.Dispose();
        }
    }

    private void Draw(in Tensor logits)
    {
        int rows = (int)logits.Shape(0);
        _stream.Sample(new SampleArgs
        {
            Logits = logits,
            Temperature = _temperature.Rows(0, rows),
            TopK = _topK.Rows(0, rows),
            TopP = _topP.Rows(0, rows),
            MinP = _minP.Rows(0, rows),
            Seed = _seed.Rows(0, rows),
            Position = _position.Rows(0, rows),
            Ids = _ids.Rows(0, rows),
        });
    }

    // Of the same choosers as in the step before only the positions are new.
    private void Upload(ReadOnlySpan<Chooser> choosers, bool same)
    {
        int rows = choosers.Length;
        _stream.Upload<long>(_position.Rows(0, rows), _positions.AsSpan(0, rows));
        if (same)
        {
            return;
        }

        for (int r = 0; r < rows; r++)
        {
            SamplingParameters p = choosers[r].Parameters;
            (_temperatures[r], _kept[r], _nuclei[r], _floors[r], _seeds[r]) = (p.Temperature, p.TopK, p.TopP, p.MinP, unchecked((long)choosers[r].Seed));
            _uploaded[r] = choosers[r];
        }

        _stream.Upload<float>(_temperature.Rows(0, rows), _temperatures.AsSpan(0, rows));
        _stream.Upload<int>(_topK.Rows(0, rows), _kept.AsSpan(0, rows));
        _stream.Upload<float>(_topP.Rows(0, rows), _nuclei.AsSpan(0, rows));
        _stream.Upload<float>(_minP.Rows(0, rows), _floors.AsSpan(0, rows));
        _stream.Upload<long>(_seed.Rows(0, rows), _seeds.AsSpan(0, rows));
    }

    private void ChooseWithLogProbs(in Tensor logits, ReadOnlySpan<Chooser> choosers, Span<Choice> choices, int top)
    {
        int rows = choosers.Length;
        Tensor all = logits, ids = _ids.Rows(0, rows), chosen = _picked.Rows(0, rows).Reshape(rows), topIds = default, topLogProbs = default;
        if (top > 0)
        {
            topIds = _stream.CreateTensor(DType.I32, rows, top);
            topLogProbs = _stream.CreateTensor(DType.F32, rows, top);
        }

        try
        {
            ReserveFor(() => _stream.LogProbs(all, ids, chosen, topIds, topLogProbs));
            _stream.LogProbs(logits, ids, chosen, topIds, topLogProbs);
            float[] logProbs = new float[rows], likeliest = new float[rows * top];
            int[] likeliestIds = new int[rows * top];
            _stream.Download(chosen, logProbs.AsSpan());
            if (top > 0)
            {
                _stream.Download(topIds, likeliestIds.AsSpan());
                _stream.Download(topLogProbs, likeliest.AsSpan());
            }

            for (int r = 0; r < rows; r++)
            {
                TokenLogProb[]? own = null;
                if (choosers[r].Parameters.LogProbs is { } asked)
                {
                    own = new TokenLogProb[Math.Min(asked, top)];
                    for (int i = 0; i < own.Length; i++)
                    {
                        own[i] = new TokenLogProb(likeliestIds[(r * top) + i], likeliest[(r * top) + i]);
                    }
                }

                choices[r] = new Choice(float.IsFinite(_logits[r]) ? _chosen[r] : -1, _logits[r], own is null ? null : logProbs[r], own);
            }
        }
        finally
        {
            topIds.Buffer?.Dispose();
            topLogProbs.Buffer?.Dispose();
        }
    }

    // A copy of the logits, changed by each row's penalties and biases; a row without any has an empty history and no bias.
    private Tensor Penalise(in Tensor logits, ReadOnlySpan<Chooser> choosers, ReadOnlySpan<Scheduling.Sequence> sequences)
    {
        int rows = choosers.Length;
        if (_penalised.IsAbsent)
        {
            _penalised = Own(_stream.CreateTensor(DType.F32, _maxRows, _vocabularySize));
            _indptr = Own(_stream.CreateTensor(DType.I32, _maxRows + 1));
            _biasIndptr = Own(_stream.CreateTensor(DType.I32, _maxRows + 1));
            _repetition = Own(_stream.CreateTensor(DType.F32, _maxRows));
            _presence = Own(_stream.CreateTensor(DType.F32, _maxRows));
            _frequency = Own(_stream.CreateTensor(DType.F32, _maxRows));
        }

        Tensor changed = _penalised.Rows(0, rows);
        _stream.Copy(logits.Buffer!, logits.Offset, changed.Buffer!, changed.Offset, (ulong)(logits.Count * sizeof(float)));
        // The repetition penalty looks at prompt and answer, the others at the answer alone.
        Penalise(changed, choosers, sequences, whole: true);
        Penalise(changed, choosers, sequences, whole: false);
        Bias(changed, choosers);
        return changed;
    }

    private void Penalise(in Tensor changed, ReadOnlySpan<Chooser> choosers, ReadOnlySpan<Scheduling.Sequence> sequences, bool whole)
    {
        int rows = choosers.Length;
        int[] indptr = new int[rows + 1];
        float[] repetition = new float[rows], presence = new float[rows], frequency = new float[rows];
        for (int r = 0; r < rows; r++)
        {
            SamplingParameters p = choosers[r].Parameters;
            (repetition[r], presence[r], frequency[r]) = whole ? (p.RepetitionPenalty, 0f, 0f) : (1f, p.PresencePenalty, p.FrequencyPenalty);
            bool any = whole ? repetition[r] != 1 : presence[r] != 0 || frequency[r] != 0;
            indptr[r + 1] = indptr[r] + (any ? sequences[r].Length - (whole ? 0 : choosers[r].PromptLength) : 0);
        }

        if (indptr[rows] == 0)
        {
            return;
        }

        int[] history = new int[indptr[rows]];
        for (int r = 0; r < rows; r++)
        {
            int count = indptr[r + 1] - indptr[r];
            sequences[r].Tokens[^count..].CopyTo(history.AsSpan(indptr[r]));
        }

        Fit(ref _history, DType.I32, history.Length);
        Tensor told = _history.Rows(0, history.Length);
        _stream.Upload<int>(told, history);
        _stream.Upload<int>(_indptr.Rows(0, rows + 1), indptr);
        _stream.Upload<float>(_repetition.Rows(0, rows), repetition);
        _stream.Upload<float>(_presence.Rows(0, rows), presence);
        _stream.Upload<float>(_frequency.Rows(0, rows), frequency);
        Run(new PenaltiesArgs
        {
            Logits = changed,
            History = told,
            HistoryIndptr = _indptr.Rows(0, rows + 1),
            Repetition = _repetition.Rows(0, rows),
            Presence = _presence.Rows(0, rows),
            Frequency = _frequency.Rows(0, rows),
        });
    }

    private void Bias(in Tensor changed, ReadOnlySpan<Chooser> choosers)
    {
        int rows = choosers.Length;
        int[] indptr = new int[rows + 1];
        List<int> ids = [];
        List<float> values = [];
        for (int r = 0; r < rows; r++)
        {
            foreach ((int id, float value) in choosers[r].Parameters.LogitBias)
            {
                ids.Add(id);
                values.Add(value);
            }

            indptr[r + 1] = ids.Count;
        }

        if (ids.Count == 0)
        {
            return;
        }

        Fit(ref _biasIds, DType.I32, ids.Count);
        Fit(ref _biasValues, DType.F32, ids.Count);
        _stream.Upload<int>(_biasIds.Rows(0, ids.Count), ids.ToArray());
        _stream.Upload<float>(_biasValues.Rows(0, ids.Count), values.ToArray());
        _stream.Upload<int>(_biasIndptr.Rows(0, rows + 1), indptr);
        Run(new PenaltiesArgs
        {
            Logits = changed, BiasIds = _biasIds.Rows(0, ids.Count), BiasValues = _biasValues.Rows(0, ids.Count), BiasIndptr = _biasIndptr.Rows(0, rows + 1),
        });
    }

    private void Run(PenaltiesArgs args)
    {
        ReserveFor(() => _stream.Penalties(args));
        _stream.Penalties(args);
    }

    private void ReserveFor(Action op) => _stream.Reserve(_stream.Measure(op));

    private void Fit(ref Tensor t, DType type, int count)
    {
        if (t.IsAbsent || t.Count < count)
        {
            if (!t.IsAbsent)
            {
                _owned.Remove(t.Buffer!);
                t.Buffer!.Dispose();
            }

            t = Own(_stream.CreateTensor(type, Math.Max(1024, count + (count / 2))));
        }
    }

    private Tensor Own(Tensor t)
    {
        _owned.Add(t.Buffer!);
        return t;
    }
}
