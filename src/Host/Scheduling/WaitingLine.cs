namespace Sluice.Scheduling;

/// <summary>
/// Sequences that wait, in the order in which they are admitted unless something speaks against it. Who had to make room stands where its arrival (or priority) puts it,
/// which is before those who came later; under <see cref="SchedulingPolicy.LongestPrefixFirst"/>, where late ones may have run, before all who never ran.
/// </summary>
internal sealed class WaitingLine(SchedulingPolicy policy)
{
    private readonly List<Sequence> _line = [];

    public int Count => _line.Count;

    public Sequence this[int index] => _line[index];

    public void Add(Sequence sequence)
    {
        int at = _line.Count;
        while (at > 0 && IsBefore(sequence, _line[at - 1]))
        {
            at--;
        }

        sequence.PassedOver = 0;
        _line.Insert(at, sequence);
    }

    public void Remove(Sequence sequence) => _line.Remove(sequence);

    /// <summary>Counts those of one class that stand before an admitted sequence, and takes it from the line.</summary>
    public void Admit(Sequence sequence)
    {
        int at = 0;
        for (; _line[at] != sequence; at++)
        {
            if (_line[at].Class == sequence.Class)
            {
                _line[at].PassedOver++;
            }
        }

        _line.RemoveAt(at);
    }

    private bool IsBefore(Sequence a, Sequence b) => policy == SchedulingPolicy.LongestPrefixFirst && (a.State == SequenceState.Waiting) != (b.State == SequenceState.Waiting)
        ? b.State == SequenceState.Waiting
        : Ranks(policy, a, b);

    /// <summary>Whether <paramref name="a"/> comes before <paramref name="b"/> by policy, wherever they are.</summary>
    public static bool Ranks(SchedulingPolicy policy, Sequence a, Sequence b) =>
        policy == SchedulingPolicy.Priority && a.Priority != b.Priority ? a.Priority < b.Priority : a.Arrival < b.Arrival;
}
