namespace Sluice.Scheduling;

/// <summary>What a step may hold, and by which rules it is filled.</summary>
internal sealed record SchedulerOptions
{
    /// <summary>Few sequences and small chunks: a step is short, so the next token is near. The numbers are guesses, to be measured on each device.</summary>
    public static SchedulerOptions Latency { get; } = new() { TokenBudget = 512, MaxSequences = 32, ChunkSize = 256 };

    /// <summary>Many sequences and large chunks: a step is long, and reads the weights for many tokens. The numbers are guesses, to be measured on each device.</summary>
    public static SchedulerOptions Throughput { get; } = new() { TokenBudget = 2048, MaxSequences = 128, ChunkSize = 512 };

    /// <summary>T: tokens of a step at most; no less than <see cref="MaxSequences"/>, so that each can decode in every step.</summary>
    public int TokenBudget { get; init; } = 2048;

    /// <summary>B: sequences that run at once.</summary>
    public int MaxSequences { get; init; } = 64;

    /// <summary>Tokens of one sequence in a step at most.</summary>
    public int ChunkSize { get; init; } = 512;

    /// <summary>R: rows of logits of a step at most; no less than <see cref="MaxSequences"/>, and as many where it is 0.</summary>
    public int MaxRows { get; init; }

    /// <summary>Tokens that a sequence may have.</summary>
    public int MaxLength { get; init; } = int.MaxValue;

    /// <summary>Pages that an admission leaves for those who run: without them it would soon be undone. Not asked for where nobody runs.</summary>
    public int WatermarkPages { get; init; } = 1;

    /// <summary>Who comes first.</summary>
    public SchedulingPolicy Policy { get; init; }

    /// <summary>How often others may be admitted before one that arrived earlier, or whose turn it was: then nobody is until it is.</summary>
    public int MaxPassedOver { get; init; } = 16;

    /// <summary>Whether pages are shared between sequences that begin with the same tokens, and kept for later ones.</summary>
    public bool PrefixCaching { get; init; } = true;

    /// <summary>Where keys depend on a sequence's final length: the class of a length in tokens. Lengths of one class share keys and a step. Null: all do.</summary>
    public Func<int, int>? LengthClass { get; init; }

    /// <summary>Seconds to move a page to host memory, or back; whoever measures it may set it at any time.</summary>
    public double SecondsPerPageMoved { get; set; } = 20e-6;

    /// <summary>Seconds to compute a token of a prompt; likewise.</summary>
    public double SecondsPerTokenComputed { get; set; } = 50e-6;

    /// <summary>Keys by which attention reduces, at whose multiples shared prefixes are cut: a multiple of the page size. Other than 256 for tests alone.</summary>
    public int PrefixChunk { get; init; } = 256;

    /// <summary>Rows of logits of a step, resolved.</summary>
    internal int Rows => MaxRows == 0 ? MaxSequences : MaxRows;

    /// <exception cref="ArgumentException">A number out of its range, named.</exception>
    internal void Validate(int pageSize)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(MaxSequences, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(TokenBudget, MaxSequences);
        ArgumentOutOfRangeException.ThrowIfLessThan(Rows, MaxSequences);
        ArgumentOutOfRangeException.ThrowIfLessThan(ChunkSize, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(MaxLength, 1);
        ArgumentOutOfRangeException.ThrowIfNegative(WatermarkPages);
        ArgumentOutOfRangeException.ThrowIfNegative(MaxPassedOver);
        ArgumentOutOfRangeException.ThrowIfLessThan(PrefixChunk, pageSize);
        ArgumentOutOfRangeException.ThrowIfNotEqual(PrefixChunk % pageSize, 0);
    }
}
