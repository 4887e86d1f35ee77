using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>BPE's merges in order, as token ids: which two become which. All arrays are of one length.</summary>
internal sealed class MergeList
{
    private readonly List<int> _left;
    private readonly List<int> _right;
    private readonly List<int> _result;

    private readonly string _file;
    private readonly string _field;
    private readonly ByteStringIndex _index;
    private readonly int _prefix;
    private byte[] _joined = new byte[256];

    /// <summary>Begins an empty list. <paramref name="prefix"/>: bytes that the right token loses when it is joined.</summary>
    public MergeList(string file, string field, ByteStringIndex index, long expected, int prefix = 0)
    {
        if (expected > TokenizerData.MostTokens)
        {
            throw new ModelFormatException(file, field, $"has {expected:N0} merges, and at most {TokenizerData.MostTokens:N0} are allowed");
        }

        (_file, _field, _index, _prefix) = (file, field, index, prefix);
        (_left, _right, _result) = (new((int)expected), new((int)expected), new((int)expected));
    }

    public int Count => _left.Count;

    public IReadOnlyList<int> Left => _left;

    public IReadOnlyList<int> Right => _right;

    public IReadOnlyList<int> Result => _result;

    /// <summary>Reads GGUF's list.</summary>
    /// <exception cref="ModelFormatException">A merge is malformed, or names what is no token.</exception>
    public static MergeList FromGguf(string file, GgufValue merges, ByteStringIndex index)
    {
        MergeList list = new(file, "tokenizer.ggml.merges", index, merges.Count);
        foreach (ReadOnlySpan<byte> merge in merges.EnumerateStrings())
        {
            list.Add(merge);
        }

        return list;
    }

    /// <summary>Adds a merge that is written as "left right".</summary>
    /// <exception cref="ModelFormatException">It is malformed, or names what is no token.</exception>
    public void Add(ReadOnlySpan<byte> merge)
    {
        int blank = merge.Length < 3 ? -1 : merge[1..].IndexOf((byte)' ') + 1;
        if (blank <= 0 || blank == merge.Length - 1)
        {
            throw new ModelFormatException(_file, _field, $"merge {Count:N0} is {TokenizerData.Show(merge)}, and 'left right' is expected");
        }

        Add(merge[..blank], merge[(blank + 1)..]);
    }

    /// <summary>Adds a merge.</summary>
    /// <exception cref="ModelFormatException">It names what is no token.</exception>
    public void Add(ReadOnlySpan<byte> left, ReadOnlySpan<byte> right)
    {
        int length = left.Length + Math.Max(0, right.Length - _prefix);
        if (_joined.Length < length)
        {
            _joined = new byte[length * 2];
        }

        left.CopyTo(_joined);
        right[Math.Min(_prefix, right.Length)..].CopyTo(_joined.AsSpan(left.Length));
        int leftId = Find(left);
        int rightId = Find(right);
        int result = Find(_joined.AsSpan(0, length));
        _left.Add(leftId);
        _right.Add(rightId);
        _result.Add(result);
    }

    private int Find(ReadOnlySpan<byte> text)
    {
        int id = _index.Find(text);
        return id >= 0 ? id : throw new ModelFormatException(_file, _field, $"merge {Count:N0} names {TokenizerData.Show(text)}, which is no token");
    }
}
