using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>
/// What a case of attention costs, from the rules of native/kernels/paged_attention.cu alone: which kernels take it, in how
/// many launches, and what they must read, tile by tile, however blocks share them. Counted for the executor's four multiprocessors.
/// </summary>
public sealed class AttentionRoute
{
    private const int Multiprocessors = 4;

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
        bool scaled = cache.DType.Size() == 1;
        int vector = scaled ? 16 : 8;
        TensorCores = q != DType.F32 && (cache.DType == q || scaled) && cache.KeyDim % vector == 0 && cache.ValueDim % vector == 0;
        Cascades = c.Op == "cascade_attention" && _capacity.MaxPrefixes > 0;
        Rows = !TensorCores ? 32 : _tokens * _group <= 16 * _capacity.MaxSequences ? 16 : 64;
        PrefixRows = TensorCores ? 64 : 32;
        Count();
    }

    /// <summary>Query rows of a tile of the sequences' own keys.</summary>
    public int Rows { get; }

    public int PrefixRows { get; }

    /// <summary>Tiles are multiplied on tensor cores.</summary>
    public bool TensorCores { get; }

    /// <summary>Prefixes have a launch of their own.</summary>
    public bool Cascades { get; }

    public int Heads => _case.Cache!.KvHeads;

    public long Launches => Cascades ? 2 : 1;

    /// <summary>Blocks of each launch, which share its tiles.</summary>
    public long Blocks => Multiprocessors * (TensorCores && Rows == 16 && Math.Max(_case.Cache!.KeyDim, _case.Cache.ValueDim) <= 64 ? 4 : 2);

    /// <summary>Some tile with keys goes to tensor cores.</summary>
    public bool Multiplies => TensorCores && Keys > 0;

    /// <summary>Keys that tiles read, each with its value, of one KV head.</summary>
    public long Keys { get; private set; }

    /// <summary>Tiles that have keys, of one KV head.</summary>
    public long Tiles { get; private set; }

    /// <summary>Rows of q that these tiles have, of one KV head.</summary>
    public long QueryRows { get; private set; }

    /// <summary>Of them, rows whose sums over a prefix are kept for those over what follows it.</summary>
    public long PrefixQueryRows { get; private set; }

    /// <summary>Bytes that are read of the pools.</summary>
    public long KvBytes => Keys * _case.Cache!.KvHeads * (_case.Cache.KeyDim + _case.Cache.ValueDim) * _case.Cache.DType.Size();

    private void Count()
    {
        HostStep s = _case.Step!;
        foreach (SharedPrefix p in Cascades ? s.Prefixes : [])
        {
            CountTiles(s.QueryIndptr[p.FirstSequence], s.QueryIndptr[p.FirstSequence + p.NumSequences], p.FirstKey, p.FirstKey + p.NumKeys, PrefixRows);
            PrefixQueryRows += (s.QueryIndptr[p.FirstSequence + p.NumSequences] - s.QueryIndptr[p.FirstSequence]) * _group;
        }

        for (int b = 0; b < s.Sequences; b++)
        {
            int first = s.Prefixes.Where(p => Cascades && b >= p.FirstSequence && b < p.FirstSequence + p.NumSequences).Sum(p => p.NumKeys);
            CountTiles(s.QueryIndptr[b], s.QueryIndptr[b + 1], first, s.KvLengths[b], Rows);
        }
    }

    // The tiles of an owner's tokens over its keys.
    private void CountTiles(int firstToken, int lastToken, int firstKey, int lastKey, int rows)
    {
        long all = (lastToken - firstToken) * _group;
        for (long row = 0; row < all; row += rows)
        {
            int from = firstToken + (int)(row / _group), to = firstToken + (int)((Math.Min(row + rows, all) - 1) / _group);
            (int First, int Last)[] seen = [.. Enumerable.Range(from, to - from + 1).Select(Seen)];
            int low = Math.Max(firstKey, seen.Min(k => k.First)), high = Math.Min(lastKey, seen.Max(k => k.Last));
            if (low < high)
            {
                Tiles++;
                QueryRows += Math.Min(rows, all - row);
                Keys += high - low;
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
}
