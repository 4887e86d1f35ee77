using Sluice.Decoding;
using Sluice.Interop;
using Sluice.Scheduling;

namespace Sluice;

/// <summary>A step's rows of logits: which choose a token, with whose it is, which are scored, which are embedded. One object, made anew by each step; for the engine's thread alone.</summary>
internal sealed class StepRows(int rows, int hiddenSize)
{
    private readonly int[] _rows = new int[rows];
    private readonly Generation[] _choosing = new Generation[rows];
    private readonly Chooser[] _choosers = new Chooser[rows];
    private readonly Sequence[] _choosingSequences = new Sequence[rows];
    private readonly Choice[] _choices = new Choice[rows];
    private readonly (object Work, int Row, int Token, int Target)[] _scored = new (object, int, int, int)[rows];
    private readonly (TextPass Pass, int Row)[] _embedded = new (TextPass, int)[rows];
    private readonly int[] _targets = new int[rows];
    private readonly float[] _logProbs = new float[rows];
    private float[] _states = [];
    private int _choosingCount, _scoredCount, _embeddedCount;

    /// <summary>Rows that choose a token.</summary>
    public int ChoosingCount => _choosingCount;

    /// <summary>Whose these are; siblings of a prompt's first sample stand behind all others.</summary>
    public ReadOnlySpan<Generation> Choosing => _choosing.AsSpan(0, _choosingCount);

    /// <summary>What they chose.</summary>
    public ReadOnlySpan<Choice> Choices => _choices.AsSpan(0, _choosingCount);

    /// <summary>Forgets whose they were.</summary>
    public void Clear()
    {
        Array.Clear(_choosing);
        Array.Clear(_choosingSequences);
        Array.Clear(_scored);
        Array.Clear(_embedded);
        (_choosingCount, _scoredCount, _embeddedCount) = (0, 0, 0);
    }

    /// <summary>Finds which rows of a plan are whose: first those that choose, then those that are scored, then those that are embedded.</summary>
    public void Collect(StepPlan plan)
    {
        (_choosingCount, _scoredCount, _embeddedCount) = (0, 0, 0);
        foreach (Sequence sequence in plan.Sequences)
        {
            (sequence.Owner as Generation)?.Times.Admitted();
        }

        ReadOnlySpan<int> wanted = plan.Rows, owners = plan.RowSequences, indptr = plan.QueryIndptr;
        for (int r = 0; r < wanted.Length; r++)
        {
            Sequence sequence = plan.Sequences[owners[r]];
            int token = sequence.Computed + wanted[r] - indptr[owners[r]];
            switch (sequence.Owner)
            {
                case Generation g when token == sequence.Length - 1: Choose(g, sequence, wanted[r]); break;
                case Generation g: _scored[_scoredCount++] = (g, wanted[r], token, sequence.Tokens[token + 1]); break;
                case TextPass { Pooling: null } p when token == p.Tokens.Length - 1: break;
                case TextPass { Pooling: null } p: _scored[_scoredCount++] = (p, wanted[r], token, p.Tokens[token + 1]); break;
                case TextPass p: _embedded[_embeddedCount++] = (p, wanted[r]); break;
            }
        }

        // Siblings choose their first token from the row of their leader, each by its own seed; those for which there is no room begin by themselves.
        for (int i = 0, leaders = _choosingCount; i < leaders; i++)
        {
            foreach (Generation sibling in _choosing[i].Siblings)
            {
                if (_choosingCount + _scoredCount + _embeddedCount < _rows.Length)
                {
                    Choose(sibling, _choosingSequences[i], _rows[i]);
                }
            }
        }

        int at = _choosingCount;
        foreach ((_, int row, _, int target) in _scored.AsSpan(0, _scoredCount))
        {
            _targets[at - _choosingCount] = target;
            _rows[at++] = row;
        }

        foreach ((_, int row) in _embedded.AsSpan(0, _embeddedCount))
        {
            _rows[at++] = row;
        }
    }

    private void Choose(Generation g, Sequence sequence, int row)
    {
        (_choosing[_choosingCount], _choosers[_choosingCount], _choosingSequences[_choosingCount], _rows[_choosingCount]) = (g, g.Chooser, sequence, row);
        _choosingCount++;
    }

    /// <summary>Runs the step, and gives everybody what its rows say; who chooses finds it in <see cref="Choices"/>.</summary>
    public void Compute(EngineStep step, StepPlan plan)
    {
        Tensor logits = step.Run(plan, _rows.AsSpan(0, _choosingCount + _scoredCount + _embeddedCount), _embeddedCount);
        if (_choosingCount > 0)
        {
            step.Sampler.Choose(
                logits.Rows(0, _choosingCount), _choosers.AsSpan(0, _choosingCount), _choosingSequences.AsSpan(0, _choosingCount), _choices.AsSpan(0, _choosingCount));
        }

        if (_scoredCount > 0)
        {
            step.Sampler.Score(logits.Rows(_choosingCount, _scoredCount), _targets.AsSpan(0, _scoredCount), _logProbs.AsSpan(0, _scoredCount));
        }

        if (_embeddedCount > 0)
        {
            if (_states.Length < _embeddedCount * hiddenSize)
            {
                _states = new float[_embeddedCount * hiddenSize];
            }

            step.ReadEmbedded(_embeddedCount, _states.AsSpan(0, _embeddedCount * hiddenSize));
        }

        if (_choosingCount + _scoredCount + _embeddedCount == 0)
        {
            step.Synchronize(); // a step that failed must not be taken for computed
        }

        // From here on nothing fails, so all of the step counts.
        for (int i = 0; i < _scoredCount; i++)
        {
            (object work, _, int token, _) = _scored[i];
            if (work is Generation g)
            {
                g.PromptLogProbs![token] = _logProbs[i];
            }
            else
            {
                ((TextPass)work).Score(token, _logProbs[i]);
            }
        }

        for (int i = 0; i < _embeddedCount; i++)
        {
            _embedded[i].Pass.Add(_states.AsSpan(i * hiddenSize, hiddenSize));
        }
    }
}
