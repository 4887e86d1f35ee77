using Sluice.Interop;

namespace Sluice.Scheduling;

/// <summary>
/// The prefixes that neighbouring sequences of a step share, as attention takes them: a node is a run of two sequences or more and the stretch of keys that lie in the
/// very same pages for all of them, cut at multiples of a chunk; it goes on along the keys for as long as the run stays whole. Only keys before a sequence's own
/// tokens of the step are shared.
/// </summary>
internal sealed class PrefixTree(int maxSequences, int pageSize, int chunk)
{
    private readonly SharedPrefix[] _nodes = new SharedPrefix[maxSequences]; // fewer than sequences: each node joins what was apart
    private readonly int[] _common = new int[maxSequences]; // chunks that a sequence has in common with the next one

    public int Count { get; private set; }

    public ReadOnlySpan<SharedPrefix> Nodes => _nodes.AsSpan(0, Count);

    /// <summary>Finds the nodes of a step; the arguments as in <see cref="BatchStep"/>.</summary>
    public void Build(ReadOnlySpan<int> queryIndptr, ReadOnlySpan<int> kvLengths, ReadOnlySpan<int> pageIndptr, ReadOnlySpan<int> pageIds)
    {
        Count = 0;
        bool any = false;
        for (int b = 0; b + 1 < kvLengths.Length; b++)
        {
            ReadOnlySpan<int> row = pageIds[pageIndptr[b]..pageIndptr[b + 1]], next = pageIds[pageIndptr[b + 1]..pageIndptr[b + 2]];
            _common[b] = 0;
            if (row[0] == next[0])
            {
                int keys = Math.Min(kvLengths[b] - (queryIndptr[b + 1] - queryIndptr[b]), kvLengths[b + 1] - (queryIndptr[b + 2] - queryIndptr[b + 1]));
                int pages = keys / chunk * chunk / pageSize;
                _common[b] = row[..pages].CommonPrefixLength(next[..pages]) * pageSize / chunk;
                any |= _common[b] > 0;
            }
        }

        if (any)
        {
            Split(0, kvLengths.Length - 1, 0);
        }
    }

    // The nodes of the sequences first .. last, which have `depth` chunks in common that are in nodes already.
    private void Split(int first, int last, int depth)
    {
        for (int begin = first; begin < last; begin++)
        {
            int end = begin, least = int.MaxValue;
            for (; end < last && _common[end] > depth; end++)
            {
                least = Math.Min(least, _common[end]);
            }

            if (end > begin)
            {
                _nodes[Count++] = new SharedPrefix(begin, end - begin + 1, depth * chunk, (least - depth) * chunk);
                Split(begin, end, least);
                begin = end;
            }
        }
    }
}
