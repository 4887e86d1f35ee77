using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>
/// What a case of attention costs, from the rules of native/kernels/paged_attention.cu alone: which kernels take it, in how
/// many launches, and what they must read, tile by tile. Counted for the executor's four multiprocessors.
/// </summary>
public sealed class AttentionRoute
{
    private const int Multiprocessors = 4, MostSplits = 32, MostLevels = 4, Counters = 32 * Multiprocessors;

    private readonly OpCase _case;
    private readonly BatchOptions _capacity;
    private readonly long _tokens, _group;

    public AttentionRoute(OpCase c)
    {
        _case = c;
        _capacity = OpRunner.Capacity(c);
        KvCacheOptions cache = c.Cache!;
        _tokens = c.Inputs["q"].Shape[0];
        _group = c.Inputs["q"].Shape[1] / cache.KvHeads;
        DType q = c.Inputs["q"].DType;
        bool scaled = cache.DType.Size() == 1, cascade = c.Op == "cascade_attention" && _capacity.MaxPrefixes > 0;
        int vector = scaled ? 16 : 8;
        TensorCores = q != DType.F32 && (cache.DType == q || scaled) && cache.KeyDim % vector == 0 && cache.ValueDim % vector == 0;
        bool decode = _tokens <= _capacity.MaxSequences && !scaled && (!TensorCores || _group < 4);
        Rows = decode ? 1 : !TensorCores ? 32 : _tokens * _group <= 16 * _capacity.MaxSequences ? 16 : 64;
        PrefixRows = TensorCores ? 64 : 32;
        if (decode)
        {
            bool vectors = cache.KeyDim * cache.DType.Size() % 16 == 0 && cache.ValueDim * cache.DType.Size() % 16 == 0;
            HeadTiles = Ceil(_group, !vectors || _group == 1 ? 1 : _group <= 4 ? 4 : 8);
        }

        Splits = SplitsFor(cache.KvHeads * (decode ? _tokens * HeadTiles : Math.Max(Ceil(_tokens * _group, Rows), Math.Min(_tokens, _capacity.MaxSequences))));
        Levels = cascade ? Math.Min(_capacity.MaxPrefixes, MostLevels) : 0;
        PrefixSplits = cascade ? SplitsFor(cache.KvHeads * Ceil(_tokens * _group, PrefixRows)) : 1;
        Count();
    }

    /// <summary>Query rows of a tile of the sequences' own keys; 1: a block takes a token.</summary>
    public int Rows { get; }

    public int PrefixRows { get; }

    /// <summary>Tiles are multiplied on tensor cores, for prefixes in any case and for the rest unless a block takes a token.</summary>
    public bool TensorCores { get; }

    /// <summary>Blocks that share a token's KV head, where a block takes a token.</summary>
    public long HeadTiles { get; } = 1;

    public int Splits { get; }

    public int Levels { get; }

    public int PrefixSplits { get; }

    public long States => (Levels * PrefixSplits) + Splits;

    /// <summary>The launch of the sequences' own keys joins all states: there is a counter for each of its tiles.</summary>
    public bool Joins => States > 1 && _case.Cache!.KvHeads * (Rows == 1 ? _tokens * HeadTiles : (_tokens * _group / Rows) + _tokens) <= Counters;

    public long Launches => 1 + (Levels > 0 ? 1 : 0) + (States > 1 && !Joins ? 1 : 0);

    /// <summary>Some tile with keys goes to tensor cores.</summary>
    public bool Multiplies { get; private set; }

    /// <summary>Keys that blocks read, each with its value, of one KV head.</summary>
    public long Keys { get; private set; }

    /// <summary>Rows of q that blocks read, of one KV head.</summary>
    public long QueryRows { get; private set; }

    /// <summary>Rows of results or of states that blocks write and that are merged, of one KV head.</summary>
    public long ResultRows { get; private set; }

    /// <summary>Blocks that have keys, of one KV head.</summary>
    public long Blocks { get; private set; }

    /// <summary>Bytes that are read of the pools.</summary>
    public long KvBytes => Keys * HeadTiles * _case.Cache!.KvHeads * (_case.Cache.KeyDim + _case.Cache.ValueDim) * _case.Cache.DType.Size();

    private static long Ceil(long n, long by) => (n + by - 1) / by;

    private int SplitsFor(long blocks)
    {
        long chunks = Math.Max(1, Ceil((long)_capacity.MaxPageIds * _case.Cache!.PageSize, Constants.AttentionChunk));
        return (int)Math.Clamp(2 * Multiprocessors / Math.Max(blocks, 1), 1, Math.Min(MostSplits, chunks));
    }

    private void Count()
    {
        HostStep s = _case.Step!;
        for (int i = 0; i < s.Prefixes.Length && Levels > 0; i++)
        {
            SharedPrefix p = s.Prefixes[i];
            if (s.Prefixes.Count(other => Has(other, p.FirstSequence) && other.FirstKey < p.FirstKey) < Levels)
            {
                Tiles(s.QueryIndptr[p.FirstSequence], s.QueryIndptr[p.FirstSequence + p.NumSequences], p.FirstKey, p.FirstKey + p.NumKeys, PrefixRows, PrefixSplits);
            }
        }

        for (int b = 0; b < s.Sequences; b++)
        {
            int first = s.Prefixes.Where(p => Levels > 0 && Has(p, b)).OrderBy(p => p.FirstKey).Take(Levels).Sum(p => p.NumKeys);
            Tiles(s.QueryIndptr[b], s.QueryIndptr[b + 1], first, s.KvLengths[b], Rows, Splits);
        }

        ResultRows += (_tokens - s.Tokens) * _group * Splits;

        static bool Has(SharedPrefix p, int sequence) => sequence >= p.FirstSequence && sequence < p.FirstSequence + p.NumSequences;
    }

    // The tiles of an owner's tokens over its keys, in its splits.
    private void Tiles(int firstToken, int lastToken, int firstKey, int lastKey, int rows, int splits)
    {
        int span = (int)(Ceil(Ceil(lastKey - firstKey, Constants.AttentionChunk), splits) * Constants.AttentionChunk);
        long all = (lastToken - firstToken) * _group, step = rows == 1 ? _group : rows;
        ResultRows += all * splits;
        for (long row = 0; row < all; row += step)
        {
            int from = firstToken + (int)(row / _group), to = firstToken + (int)((Math.Min(row + step, all) - 1) / _group);
            (int First, int Last)[] seen = [.. Enumerable.Range(from, to - from + 1).Select(Seen)];
            for (int split = 0; split < splits; split++)
            {
                int low = Math.Max(firstKey + (split * span), seen.Min(k => k.First)), high = Math.Min(Math.Min(lastKey, firstKey + ((split + 1) * span)), seen.Max(k => k.Last));
                if (low < high)
                {
                    Blocks++;
                    QueryRows += Math.Min(step, all - row);
                    // A block that takes a token skips what the token's mask leaves out; a tile reads all between.
                    Keys += rows == 1 ? Enumerable.Range(low, high - low).Count(key => Unmasked(from, key)) : high - low;
                    Multiplies |= TensorCores && rows > 1;
                }
            }
        }
    }

    private int SequenceOf(int token) => Array.FindLastIndex(_case.Step!.QueryIndptr, start => start <= token);

    private bool Masked(int sequence) => _case.Step!.MaskIndptr.Length > 0 && _case.Step.MaskIndptr[sequence + 1] > _case.Step.MaskIndptr[sequence];

    private (int First, int Last) Seen(int token)
    {
        HostStep s = _case.Step!;
        int b = SequenceOf(token), slot = s.KvLengths[b] - s.QueryIndptr[b + 1] + token, window = (int)_case.Scalar("window");
        return (window > 0 ? Math.Max(0, slot - window + 1) : 0, Masked(b) || _case.Scalar("causal") == 0 ? s.KvLengths[b] : slot + 1);
    }

    private bool Unmasked(int token, int key)
    {
        HostStep s = _case.Step!;
        int b = SequenceOf(token), width = (s.KvLengths[b] + 7) / 8;
        return !Masked(b) || (s.Mask[s.MaskIndptr[b] + ((token - s.QueryIndptr[b]) * width) + (key / 8)] >> (key % 8) & 1) != 0;
    }
}
