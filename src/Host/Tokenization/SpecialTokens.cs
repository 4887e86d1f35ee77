using System.Buffers;

namespace Sluice.Tokenization;

/// <summary>Finds special tokens in text: the leftmost, and of those that begin there the longest.</summary>
internal sealed class SpecialTokens
{
    private readonly ByteStrings _texts;
    private readonly int[] _sorted; // token ids by text, so that the tokens with a given prefix stand together
    private readonly SearchValues<byte> _firstBytes;

    public SpecialTokens(ByteStrings texts, IEnumerable<int> ids)
    {
        _texts = texts;
        _sorted = [.. ids.Where(id => !texts[id].IsEmpty)];
        Array.Sort(_sorted, (a, b) => texts[a].SequenceCompareTo(texts[b]));
        byte[] first = [.. _sorted.Select(id => texts[id][0]).Distinct()];
        _firstBytes = SearchValues.Create(first);
    }

    /// <summary>The next special token at or after <paramref name="start"/>: its id and place, or -1.</summary>
    public int Find(ReadOnlySpan<byte> text, int start, out int position)
    {
        position = start;
        while (_sorted.Length > 0)
        {
            int skip = text[position..].IndexOfAny(_firstBytes);
            if (skip < 0)
            {
                break;
            }

            position += skip;
            int id = LongestAt(text[position..]);
            if (id >= 0)
            {
                return id;
            }

            position++;
        }

        position = text.Length;
        return -1;
    }

    // Narrows the range of tokens that begin with text[0..depth) byte by byte.
    private int LongestAt(ReadOnlySpan<byte> text)
    {
        int best = -1;
        int low = 0;
        int high = _sorted.Length;
        for (int depth = 0; low < high; depth++)
        {
            if (_texts[_sorted[low]].Length == depth)
            {
                best = _sorted[low++];
            }

            if (depth == text.Length)
            {
                break;
            }

            int from = Lower(low, high, depth, text[depth]);
            high = Lower(from, high, depth, text[depth] + 1);
            low = from;
        }

        return best;
    }

    // The first token in the range whose byte at depth is at least value; all are longer than depth.
    private int Lower(int low, int high, int depth, int value)
    {
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (_texts[_sorted[middle]][depth] < value)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        return low;
    }
}
