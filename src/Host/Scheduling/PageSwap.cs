using Sluice.Paging;

namespace Sluice.Scheduling;

/// <summary>Where pages of sequences wait that had to make room. The scheduler calls it between two steps; whatever moves does so before the next one's copies.</summary>
internal interface IPageSwap
{
    /// <summary>Pages that still find room.</summary>
    int FreeCount { get; }

    /// <summary>Takes the pages of a sequence, whose table is empty then.</summary>
    void SwapOut(Sequence sequence);

    /// <summary>Gives them back in new pages of the empty table.</summary>
    void SwapIn(Sequence sequence);

    /// <summary>Forgets them.</summary>
    void Discard(Sequence sequence);
}

/// <summary>Pages wait in pinned host memory.</summary>
internal sealed class HostPageSwap(SwapSpace space) : IPageSwap
{
    public int FreeCount => space.FreeCount;

    public void SwapOut(Sequence sequence) => (sequence.Swapped ??= new SwappedPages(space)).SwapOut(sequence.Table);

    public void SwapIn(Sequence sequence) => sequence.Swapped!.SwapIn(sequence.Table);

    public void Discard(Sequence sequence) => sequence.Swapped!.Discard();
}
