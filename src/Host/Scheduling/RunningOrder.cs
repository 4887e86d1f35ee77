namespace Sluice.Scheduling;

/// <summary>
/// The running sequences in the order of the steps' rows: those that begin with the same pages stand side by side, at every depth. A new one goes behind the last of
/// those with which it shares the most, which cuts no group in two; who leaves cuts none either, and pages that are added later are nobody else's.
/// </summary>
internal sealed class RunningOrder(int capacity)
{
    private readonly Sequence[] _sequences = new Sequence[capacity];

    public int Count { get; private set; }

    public ReadOnlySpan<Sequence> Sequences => _sequences.AsSpan(0, Count);

    public void Add(Sequence sequence)
    {
        int at = Count, most = 0;
        ReadOnlySpan<int> pages = sequence.Table.Pages;
        for (int i = 0; i < Count; i++)
        {
            ReadOnlySpan<int> other = _sequences[i].Table.Pages;
            if (other.IsEmpty || pages.IsEmpty || other[0] != pages[0])
            {
                continue;
            }

            int common = pages.CommonPrefixLength(other);
            if (common >= most)
            {
                (most, at) = (common, i + 1);
            }
        }

        _sequences.AsSpan(at, Count - at).CopyTo(_sequences.AsSpan(at + 1));
        _sequences[at] = sequence;
        Count++;
    }

    public void Remove(Sequence sequence)
    {
        int at = Array.IndexOf(_sequences, sequence, 0, Count);
        _sequences.AsSpan(at + 1, Count - at - 1).CopyTo(_sequences.AsSpan(at));
        _sequences[--Count] = null!;
    }
}
