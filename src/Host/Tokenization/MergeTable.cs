using System.Numerics;

namespace Sluice.Tokenization;

/// <summary>BPE's merges: which pair of tokens becomes which token, and in what order.</summary>
internal sealed class MergeTable
{
    public const int None = int.MaxValue;

    private const ulong Empty = ulong.MaxValue;

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

    /// <summary>Makes the table of a list of merges. Of equal pairs the first counts, or the last where <paramref name="lastCounts"/>.</summary>
    public static MergeTable Create(MergeList merges, bool lastCounts = false)
    {
        MergeTable table = new(merges.Count);
        for (int rank = 0; rank < merges.Count; rank++)
        {
            table.Add(merges.Left[rank], merges.Right[rank], rank, merges.Result[rank], lastCounts);
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

    private static ulong Pair(int left, int right) => ((ulong)(uint)left << 32) | (uint)right;

    private int Slot(ulong pair) => (int)((pair * 0x9E3779B97F4A7C15) >> _shift);

    private void Add(int left, int right, int rank, int token, bool lastCounts)
    {
        ulong pair = Pair(left, right);
        int slot = Slot(pair);
        while (_pairs[slot] != Empty)
        {
            if (_pairs[slot] == pair)
            {
                _merges[slot] = lastCounts ? (rank, token) : _merges[slot];
                return;
            }

            slot = (slot + 1) & (_pairs.Length - 1);
        }

        _pairs[slot] = pair;
        _merges[slot] = (rank, token);
    }
}
