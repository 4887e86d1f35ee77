using Sluice.Paging;

namespace Sluice.Scheduling;

/// <summary>Where a sequence is.</summary>
internal enum SequenceState
{
    /// <summary>It has never run.</summary>
    Waiting,

    /// <summary>It has pages, and gets tokens.</summary>
    Running,

    /// <summary>It gave its pages back and waits: all its tokens are to be computed anew.</summary>
    Preempted,

    /// <summary>Its pages are in the swap space, and it waits.</summary>
    Swapped,

    /// <summary>It has ended, and holds nothing.</summary>
    Finished,
}

/// <summary>One sequence as the scheduler sees it: the tokens that are known, how many of them are computed, and the pages of these. Not thread-safe.</summary>
internal sealed class Sequence
{
    private const int LongestReserved = 1 << 14; // tokens: up to here a sequence's memory is taken when it begins to run

    private int[] _tokens;
    private ulong[] _hashes = []; // of the full pages, as far as they were asked for
    private int _hashed;

    /// <summary>Makes a sequence of a prompt.</summary>
    /// <param name="id">Its name: one live sequence has it.</param>
    /// <param name="prompt">Token ids, one at least.</param>
    /// <param name="maxLength">Tokens at most, prompt and answer; no less than the prompt has.</param>
    /// <param name="priority">The lower, the sooner, under <see cref="SchedulingPolicy.Priority"/>.</param>
    /// <param name="salt">Whose it is: pages are shared within one salt alone.</param>
    /// <param name="firstRow">The first token behind which logits are wanted; null: the prompt's last one. From there on all are computed and none taken from the cache.</param>
    /// <exception cref="ArgumentException">No token, or a number out of its range.</exception>
    public Sequence(long id, ReadOnlySpan<int> prompt, int maxLength, int priority = 0, ulong salt = 0, int? firstRow = null)
    {
        if (prompt.IsEmpty)
        {
            throw new ArgumentException("a prompt has one token at least", nameof(prompt));
        }

        ArgumentOutOfRangeException.ThrowIfLessThan(maxLength, prompt.Length);
        RowsWanted = firstRow ?? prompt.Length - 1;
        ArgumentOutOfRangeException.ThrowIfNegative(RowsWanted, nameof(firstRow));
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(RowsWanted, prompt.Length, nameof(firstRow));
        (Id, PromptLength, MaxLength, Priority, Salt) = (id, prompt.Length, maxLength, priority, salt);
        _tokens = prompt.ToArray();
        Length = prompt.Length;
    }

    /// <summary>Its name.</summary>
    public long Id { get; }

    /// <summary>Tokens that it began with.</summary>
    public int PromptLength { get; }

    /// <summary>Tokens that it may have.</summary>
    public int MaxLength { get; }

    /// <summary>The lower, the sooner.</summary>
    public int Priority { get; }

    /// <summary>Whose it is.</summary>
    public ulong Salt { get; }

    /// <summary>Tokens that are known.</summary>
    public int Length { get; private set; }

    /// <summary>The known tokens; valid until <see cref="Append"/>.</summary>
    public ReadOnlySpan<int> Tokens => _tokens.AsSpan(0, Length);

    /// <summary>The last known token.</summary>
    public int LastToken => _tokens[Length - 1];

    /// <summary>Tokens whose keys are in the cache, or in the swap space.</summary>
    public int Computed { get; internal set; }

    /// <summary>The first token whose logits are wanted and have not been computed. It goes on with the steps, so logits are never computed twice.</summary>
    public int RowsWanted { get; internal set; }

    /// <summary>Its pages; null until it is added to a scheduler.</summary>
    public PageTable Table { get; internal set; } = null!;

    /// <summary>Whose it is, for whoever made it.</summary>
    public object? Owner { get; set; }

    /// <summary>Where it is.</summary>
    public SequenceState State { get; internal set; }

    /// <summary>The how manieth it came.</summary>
    public long Arrival { get; internal set; }

    /// <summary>Tokens of the prompt that were in the cache when it was first admitted.</summary>
    public int CachedTokens { get; internal set; }

    /// <summary>How often it had to make room.</summary>
    public int Preemptions { get; internal set; }

    /// <summary>How often others were admitted although it was their elder or better, since it began to wait.</summary>
    public int PassedOver { get; internal set; }

    // What the scheduler keeps beside it: tokens of the step in the making, the class of its length, whether its last page may be somebody else's too, how many of its
    // pages the prefix cache knows and what the last of these holds, and its place in the swap space.
    internal int Given { get; set; }

    internal int Class { get; private set; }

    internal bool MaySharePartialPage { get; set; }

    internal int ChainedPages { get; set; }

    internal PageContent Chained { get; set; } = PageContent.None;

    internal SwappedPages? Swapped { get; set; }

    /// <summary>Adds the token that came of the last known one.</summary>
    /// <exception cref="InvalidOperationException">It has as many as it may have.</exception>
    public void Append(int token)
    {
        if (Length == MaxLength)
        {
            throw new InvalidOperationException($"sequence {Id} has all the {MaxLength:N0} tokens that it may have: finish it");
        }

        if (Length == _tokens.Length)
        {
            Array.Resize(ref _tokens, (int)Math.Min(MaxLength, 2L * Length));
        }

        _tokens[Length++] = token;
    }

    /// <summary>Gives it the pages' table.</summary>
    internal void Prepare(BlockPool pool)
    {
        Table = new PageTable(pool);
    }

    /// <summary>Takes the memory that it will need while it runs: those that wait may be many.</summary>
    internal void Reserve()
    {
        int most = Math.Min(MaxLength, LongestReserved);
        if (_tokens.Length < most)
        {
            Array.Resize(ref _tokens, most);
        }

        Table.EnsureCapacity(most);
        if (_hashes.Length < most / Table.Pool.PageSize)
        {
            Array.Resize(ref _hashes, most / Table.Pool.PageSize);
        }
    }

    /// <summary>A sequence with the same tokens and pages, and a table of its own.</summary>
    internal Sequence Fork(long id, int maxLength)
    {
        Sequence fork = new(id, Tokens[..PromptLength], maxLength, Priority, Salt) { RowsWanted = RowsWanted, CachedTokens = CachedTokens, Class = Class };
        fork._tokens = _tokens.AsSpan().ToArray();
        fork.Length = Length;
        fork.Prepare(Table.Pool);
        fork.Reserve();
        return fork;
    }

    /// <summary>Makes it one of another class of lengths: its keys are others, so nothing of it must be computed.</summary>
    internal void SetClass(int value)
    {
        if (value != Class)
        {
            (Class, _hashed) = (value, 0);
        }
    }

    /// <summary>Forgets what is computed, and takes the pages from it.</summary>
    internal void Drop()
    {
        Table.Reset();
        (Computed, Given, ChainedPages, Chained, MaySharePartialPage) = (0, 0, 0, PageContent.None, false);
    }

    /// <summary>The hash of page <paramref name="index"/> of the known tokens, which must be full, and of all before it.</summary>
    internal ulong HashOf(int index)
    {
        if (index >= _hashes.Length)
        {
            Array.Resize(ref _hashes, Math.Max(index + 1, 2 * _hashes.Length));
        }

        int size = Table.Pool.PageSize;
        for (; _hashed <= index; _hashed++)
        {
            ulong hash = _hashed > 0 ? _hashes[_hashed - 1] : Mix(Salt ^ 0x9e3779b97f4a7c15, (uint)Class + 0xd1342543de82ef95);
            foreach (int token in _tokens.AsSpan(_hashed * size, size))
            {
                hash = Mix(hash ^ 0xa0761d6478bd642f, (uint)token + 0xe7037ed1a0b428db);
            }

            _hashes[_hashed] = hash;
        }

        return _hashes[index];
    }

    // Both halves of the product of 64 by 64 bits (as wyhash mixes, Wang Yi 2019).
    private static ulong Mix(ulong a, ulong b) => Math.BigMul(a, b, out ulong low) ^ low;
}
