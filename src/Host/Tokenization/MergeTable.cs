using System.Numerics;
using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>BPE's merges: which pair of tokens becomes which token, and in what order.</summary>
internal sealed class MergeTable
{
    public const int None = int.MaxValue;

    private const ulong Empty = ulong.MaxValue;
    private const string Key = "tokenizer.ggml.merges";

    private readonly ulong[] _pairs;
    private readonly (int Rank, int Token)[] _merges;
    private readonly int _shift;

    private MergeTable(int count)
    {
        int size = (int)BitOperations.RoundUpToPowerOf2((uint)Math.Max(16, count + (count / 2)));
        _shift = 64 - BitOperations.Log2((uint)size);
        _pairs = new ulong[size];
        _merges = new (int, int)[size];
        Array.Fill(_pairs, Empty);
    }

    public static MergeTable Create(TokenizerData data)
    {
        GgufValue merges = data.Merges ?? throw new ModelFormatException(data.File, Key, "is missing");
        if (merges.Count > TokenizerData.MostTokens)
        {
            throw new ModelFormatException(data.File, Key, $"has {merges.Count:N0} merges, and at most {TokenizerData.MostTokens:N0} are allowed");
        }

        MergeTable table = new((int)merges.Count);
        byte[] joined = new byte[256];
        int rank = 0;
        foreach (ReadOnlySpan<byte> merge in merges.EnumerateStrings())
        {
            int blank = merge.Length < 3 ? -1 : merge[1..].IndexOf((byte)' ') + 1;
            if (blank <= 0 || blank == merge.Length - 1)
            {
                throw new ModelFormatException(data.File, Key, $"merge {rank:N0} is {TokenizerData.Show(merge)}, and 'left right' is expected");
            }

            if (joined.Length < merge.Length)
            {
                joined = new byte[merge.Length * 2];
            }

            merge[..blank].CopyTo(joined);
            merge[(blank + 1)..].CopyTo(joined.AsSpan(blank));
            int left = Find(data, rank, merge[..blank]);
            int right = Find(data, rank, merge[(blank + 1)..]);
            int token = Find(data, rank, joined.AsSpan(0, merge.Length - 1));
            table.Add(left, right, rank++, token);
        }

        return table;
    }

    /// <summary>The rank of a pair's merge and the token it makes, or <see cref="None"/>.</summary>
    public int Find(int left, int right, out int token)
    {
        ulong pair = Pair(left, right);
        for (int slot = Slot(pair); ; slot = (slot + 1) & (_pairs.Length - 1))
        {
            ulong there = _pairs[slot];
            if (there == pair)
            {
                (int rank, token) = _merges[slot];
                return rank;
            }

            if (there == Empty)
            {
                token = -1;
                return None;
            }
        }
    }

    private static int Find(TokenizerData data, int rank, ReadOnlySpan<byte> text)
    {
        int id = data.Index.Find(text);
        return id >= 0 ? id : throw new ModelFormatException(data.File, Key, $"merge {rank:N0} names {TokenizerData.Show(text)}, which is no token");
    }

    private static ulong Pair(int left, int right) => ((ulong)(uint)left << 32) | (uint)right;

    private int Slot(ulong pair) => (int)((pair * 0x9E3779B97F4A7C15) >> _shift);

    // Of equal pairs the first counts.
    private void Add(int left, int right, int rank, int token)
    {
        ulong pair = Pair(left, right);
        int slot = Slot(pair);
        while (_pairs[slot] != Empty)
        {
            if (_pairs[slot] == pair)
            {
                return;
            }

            slot = (slot + 1) & (_pairs.Length - 1);
        }

        _pairs[slot] = pair;
        _merges[slot] = (rank, token);
    }
}
