namespace Sluice.Tokenization;

/// <summary>A trie of byte strings that gives every entry which a text begins with. Children of a node stand together, in order.</summary>
internal sealed class PrefixTrie
{
    private readonly int[] _firstChild; // children of node i: from _firstChild[i] up to _firstChild[i + 1]
    private readonly byte[] _labels;
    private readonly int[] _values; // -1 where nothing ends
    private readonly int[] _roots = new int[256];

    /// <summary>Makes a trie of some of the strings; an empty one, and of equal ones all but the last, are left out.</summary>
    public PrefixTrie(ByteStrings texts, IEnumerable<int> numbers)
    {
        int[] sorted = [.. numbers.Where(n => !texts[n].IsEmpty)];
        Array.Sort(sorted, (a, b) => texts[a].SequenceCompareTo(texts[b]) is var order && order != 0 ? order : a.CompareTo(b));
        List<int> firstChild = [];
        List<byte> labels = [0];
        List<int> values = [-1];
        // Level by level, so that a node's children get neighbouring numbers: the texts of each node that waits.
        Queue<(int Low, int High, int Depth)> waiting = new();
        waiting.Enqueue((0, sorted.Length, 0));
        for (int node = 0; waiting.Count > 0; node++)
        {
            (int low, int high, int depth) = waiting.Dequeue();
            firstChild.Add(labels.Count);
            for (; low < high && texts[sorted[low]].Length == depth; low++)
            {
                values[node] = sorted[low];
            }

            while (low < high)
            {
                byte label = texts[sorted[low]][depth];
                int end = low + 1;
                while (end < high && texts[sorted[end]][depth] == label)
                {
                    end++;
                }

                labels.Add(label);
                values.Add(-1);
                waiting.Enqueue((low, end, depth + 1));
                low = end;
            }
        }

        firstChild.Add(labels.Count);
        (_firstChild, _labels, _values) = ([.. firstChild], [.. labels], [.. values]);
        Array.Fill(_roots, -1);
        for (int child = _firstChild[0]; child < _firstChild[1]; child++)
        {
            _roots[_labels[child]] = child;
        }
    }

    /// <summary>The node behind a byte; begin with -1 for the root. -1 where there is none.</summary>
    public int Step(int node, byte label)
    {
        if (node < 0)
        {
            return _roots[label];
        }

        int low = _firstChild[node];
        int high = _firstChild[node + 1];
        while (low < high)
        {
            int middle = (low + high) >> 1;
            if (_labels[middle] < label)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        return low < _firstChild[node + 1] && _labels[low] == label ? low : -1;
    }

    /// <summary>The string that ends at a node, or -1.</summary>
    public int ValueAt(int node) => _values[node];
}
