using System.Buffers;

namespace Sluice.Tokenization;

/// <summary>How an added token is found in a text; Hugging Face's names.</summary>
[Flags]
internal enum AddedTokenOptions : byte
{
    None = 0,

    /// <summary>White space before it belongs to it.</summary>
    StripLeft = 1,

    /// <summary>White space behind it belongs to it.</summary>
    StripRight = 2,

    /// <summary>It counts only where no letter or digit touches it.</summary>
    SingleWord = 4,
}

/// <summary>Finds added tokens in text: the leftmost, and of those that begin there the longest.</summary>
internal sealed class AddedTokens
{
    private readonly ByteStrings _texts;
    private readonly int[] _sorted; // numbers of texts, so that those with a given prefix stand together
    private readonly SearchValues<byte> _firstBytes;
    private readonly Func<int, int> _idOf;
    private readonly AddedTokenOptions[]? _options;
    private readonly bool[] _control;

    /// <summary>Makes a finder of some texts.</summary>
    /// <param name="texts">Texts.</param>
    /// <param name="numbers">Which of them are looked for.</param>
    /// <param name="idOf">The token of a text's number.</param>
    /// <param name="isControl">Whether a token is no text: found only where that is asked for.</param>
    /// <param name="options">By token, or null where there are none.</param>
    public AddedTokens(ByteStrings texts, IEnumerable<int> numbers, Func<int, int> idOf, Func<int, bool> isControl, AddedTokenOptions[]? options)
    {
        (_texts, _idOf, _options) = (texts, idOf, options);
        _sorted = [.. numbers.Where(n => !texts[n].IsEmpty)];
        Array.Sort(_sorted, (a, b) => texts[a].SequenceCompareTo(texts[b]) is var order && order != 0 ? order : a.CompareTo(b));
        _control = [.. _sorted.Select(n => isControl(idOf(n)))];
        _firstBytes = SearchValues.Create([.. _sorted.Select(n => texts[n][0]).Distinct()]);
    }

    /// <summary>True where there is none.</summary>
    public bool IsEmpty => _sorted.Length == 0;

    /// <summary>The first position at or after <paramref name="from"/> behind which only white space stands.</summary>
    public static int SpacesAtEnd(ReadOnlySpan<byte> text, int from)
    {
        int end = text.Length;
        while (end > from)
        {
            int at = end - 1;
            while (at > from && (text[at] & 0xC0) == 0x80)
            {
                at--;
            }

            if ((CharClass.At(text, at, out int length) & CharClass.Space) == 0 || at + length != end)
            {
                break;
            }

            end = at;
        }

        return end;
    }

    /// <summary>The next added token from a place on.</summary>
    /// <param name="text">The text.</param>
    /// <param name="search">Where to begin to look.</param>
    /// <param name="taken">What is before belongs to an earlier token.</param>
    /// <param name="controls">True where control tokens count.</param>
    /// <param name="data">Ranges of bytes that no control token may touch, in order.</param>
    /// <param name="start">Where it begins, white space that belongs to it included; the end of the text where there is none.</param>
    /// <param name="end">Where its own text ends: from there on to look for the next.</param>
    /// <param name="stop">Where it ends, white space that belongs to it included.</param>
    /// <returns>The token, or -1.</returns>
    public int Find(ReadOnlySpan<byte> text, int search, int taken, bool controls, ReadOnlySpan<(int Start, int End)> data, out int start, out int end, out int stop)
    {
        while (_sorted.Length > 0 && search < text.Length)
        {
            int skip = text[search..].IndexOfAny(_firstBytes);
            if (skip < 0)
            {
                break;
            }

            search += skip;
            int number = LongestAt(text, search, controls, data);
            if (number < 0)
            {
                search++;
                continue;
            }

            int id = _idOf(number);
            AddedTokenOptions options = _options is null ? AddedTokenOptions.None : _options[id];
            (start, end) = (search, search + _texts[number].Length);
            if ((options & AddedTokenOptions.SingleWord) != 0 && (IsWordBefore(text, start) || IsWordAt(text, end)))
            {
                search = end;
                continue;
            }

            start = (options & AddedTokenOptions.StripLeft) != 0 ? Math.Max(taken, SpacesAtEnd(text[..start], 0)) : start;
            stop = (options & AddedTokenOptions.StripRight) != 0 ? CharClass.SkipWhile(text, end, CharClass.Space) : end;
            return id;
        }

        start = end = stop = text.Length;
        return -1;
    }

    private static bool IsWordAt(ReadOnlySpan<byte> text, int position) => position < text.Length && CodePointSet.AlphabeticWord.MatchesAt(text, position, out _);

    private static bool IsWordBefore(ReadOnlySpan<byte> text, int position)
    {
        int at = position - 1;
        while (at > 0 && (text[at] & 0xC0) == 0x80)
        {
            at--;
        }

        return at >= 0 && IsWordAt(text, at);
    }

    private static bool Touches(ReadOnlySpan<(int Start, int End)> data, int start, int end)
    {
        // The first range that ends behind the start.
        int low = 0;
        int high = data.Length;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (data[middle].End <= start)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        return low < data.Length && data[low].Start < end;
    }

    // Narrows the range of texts that begin with what stands at the position byte by byte.
    private int LongestAt(ReadOnlySpan<byte> text, int position, bool controls, ReadOnlySpan<(int Start, int End)> data)
    {
        int best = -1;
        int low = 0;
        int high = _sorted.Length;
        for (int depth = 0; low < high; depth++)
        {
            for (; low < high && _texts[_sorted[low]].Length == depth; low++)
            {
                if (!_control[low] || (controls && !Touches(data, position, position + depth)))
                {
                    best = _sorted[low];
                }
            }

            if (position + depth == text.Length || low == high)
            {
                break;
            }

            byte value = text[position + depth];
            int from = Lower(low, high, depth, value);
            high = Lower(from, high, depth, value + 1);
            low = from;
        }

        return best;
    }

    // The first text in the range whose byte at depth is at least value; all are longer than depth.
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
