namespace Sluice.Tokenization;

/// <summary>What an instruction of a <see cref="RegexProgram"/> does.</summary>
internal enum RegexOp : byte
{
    /// <summary>One code point of the set.</summary>
    One,

    /// <summary>From least to most code points of the set, as many as there are, giving some back where that helps.</summary>
    Run,

    /// <summary>The same, as few as do.</summary>
    LazyRun,

    /// <summary>The same as Run, and nothing is given back.</summary>
    GreedyRun,

    /// <summary>The first of some branches that may begin with what stands here.</summary>
    Choice,

    /// <summary>First on, then at the target.</summary>
    Fork,

    /// <summary>First at the target, then on.</summary>
    LazyFork,

    Jump,

    /// <summary>Notes the position in a register.</summary>
    Note,

    /// <summary>Fails where the position is the one that was noted: an empty round of a loop.</summary>
    Moved,

    /// <summary>A program of its own has to match here (or must not), taking nothing.</summary>
    Look,

    /// <summary>A program of its own matches once.</summary>
    Atomic,

    Place,
    Match,
}

/// <summary>An instruction; which fields count depends on <see cref="RegexOp"/>.</summary>
internal struct RegexInstruction
{
    public RegexOp Op;
    public bool Negative;
    public bool Behind;
    public int Least;
    public int Most; // -1: without bound
    public int Target; // an instruction, a register, or a kind of place
    public CodePointSet? Set;
    public RegexProgram? Inner;
    public RegexBranch[]? Branches;
}

/// <summary>A branch of a choice, and the bytes with which it may begin.</summary>
internal readonly record struct RegexBranch(int Target, ulong Low, ulong High, bool Other, bool Empty)
{
    public bool MayBegin(ReadOnlySpan<byte> text, int position) => Empty || (position < text.Length
        && (text[position] switch { < 64 => Low >> text[position], < 128 => High >> (text[position] & 63), _ => Other ? 1UL : 0 } & 1) != 0);
}

/// <summary>A regular expression, compiled for matching by backtracking with a stack of its own.</summary>
internal sealed class RegexProgram
{
    private const int MostInstructions = 1 << 14;

    private readonly List<RegexInstruction> _code = [];

    private RegexProgram()
    {
    }

    /// <summary>The instructions.</summary>
    public RegexInstruction[] Code { get; private set; } = [];

    /// <summary>Registers that the program needs.</summary>
    public int Registers { get; private set; }

    /// <summary>The widths of what it matches, in code points.</summary>
    public (int Least, int Most) Width { get; private init; }

    /// <summary>Compiles an expression.</summary>
    /// <exception cref="FormatException">It is too large.</exception>
    public static RegexProgram Compile(RegexNode node)
    {
        int left = MostInstructions;
        return Compile(node, ref left);
    }

    private static RegexProgram Compile(RegexNode node, ref int left)
    {
        RegexProgram program = new() { Width = node.Width };
        program.Emit(node, ref left);
        program.Add(new RegexInstruction { Op = RegexOp.Match }, ref left);
        program.Code = [.. program._code];
        program._code.Clear();
        return program;
    }

    private int Add(RegexInstruction instruction, ref int left)
    {
        if (--left < 0)
        {
            throw new FormatException($"is larger than {MostInstructions:N0} instructions once its repetitions are written out");
        }

        _code.Add(instruction);
        return _code.Count - 1;
    }

    private void Aim(int instruction) => System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_code)[instruction].Target = _code.Count;

    private void Emit(RegexNode node, ref int left)
    {
        switch (node)
        {
            case RegexNode.One one:
                Add(new RegexInstruction { Op = RegexOp.One, Set = one.Set }, ref left);
                break;
            case RegexNode.Sequence sequence:
                foreach (RegexNode part in sequence.Parts)
                {
                    Emit(part, ref left);
                }

                break;
            case RegexNode.Choice choice:
                EmitChoice(choice, ref left);
                break;
            case RegexNode.Repeat repeat:
                EmitRepeat(repeat, ref left);
                break;
            case RegexNode.Atomic { Part: RegexNode.Repeat { Part: RegexNode.One one, Lazy: false } run }:
                Add(new RegexInstruction { Op = RegexOp.GreedyRun, Set = one.Set, Least = run.Least, Most = run.Most }, ref left);
                break;
            case RegexNode.Atomic atomic:
                Add(new RegexInstruction { Op = RegexOp.Atomic, Inner = Compile(atomic.Part, ref left) }, ref left);
                break;
            case RegexNode.Look look:
                Add(new RegexInstruction { Op = RegexOp.Look, Inner = Compile(look.Part, ref left), Behind = look.Behind, Negative = look.Negative }, ref left);
                break;
            case RegexNode.Place place:
                Add(new RegexInstruction { Op = RegexOp.Place, Target = place.Kind }, ref left);
                break;
        }
    }

    private void EmitChoice(RegexNode.Choice choice, ref int left)
    {
        int at = Add(new RegexInstruction { Op = RegexOp.Choice, Branches = new RegexBranch[choice.Parts.Count] }, ref left);
        List<int> ends = [];
        for (int i = 0; i < choice.Parts.Count; i++)
        {
            (ulong low, ulong high) = (0, 0);
            bool empty = !First(choice.Parts[i], ref low, ref high);
            _code[at].Branches![i] = new RegexBranch(_code.Count, low, high, Other: true, empty);
            Emit(choice.Parts[i], ref left);
            ends.Add(Add(new RegexInstruction { Op = RegexOp.Jump }, ref left));
        }

        ends.ForEach(Aim);
    }

    private void EmitRepeat(RegexNode.Repeat repeat, ref int left)
    {
        if (repeat.Part is RegexNode.One one)
        {
            Add(new RegexInstruction { Op = repeat.Lazy ? RegexOp.LazyRun : RegexOp.Run, Set = one.Set, Least = repeat.Least, Most = repeat.Most }, ref left);
            return;
        }

        for (int i = 0; i < repeat.Least; i++)
        {
            Emit(repeat.Part, ref left);
        }

        RegexOp fork = repeat.Lazy ? RegexOp.LazyFork : RegexOp.Fork;
        if (repeat.Most < 0)
        {
            bool mayBeEmpty = repeat.Part.Width.Least == 0;
            int register = mayBeEmpty ? Registers++ : 0;
            int start = Add(new RegexInstruction { Op = fork }, ref left);
            if (mayBeEmpty)
            {
                Add(new RegexInstruction { Op = RegexOp.Note, Target = register }, ref left);
            }

            Emit(repeat.Part, ref left);
            if (mayBeEmpty)
            {
                Add(new RegexInstruction { Op = RegexOp.Moved, Target = register }, ref left);
            }

            Add(new RegexInstruction { Op = RegexOp.Jump, Target = start }, ref left);
            Aim(start);
            return;
        }

        List<int> forks = [];
        for (int i = repeat.Least; i < repeat.Most; i++)
        {
            forks.Add(Add(new RegexInstruction { Op = fork }, ref left));
            Emit(repeat.Part, ref left);
        }

        forks.ForEach(Aim);
    }

    // Adds the ASCII characters with which the node may begin; false where it may match nothing, or what follows decides.
    private static bool First(RegexNode node, ref ulong low, ref ulong high)
    {
        switch (node)
        {
            case RegexNode.One one:
                low |= one.Set.Ascii.Low;
                high |= one.Set.Ascii.High;
                return true;
            case RegexNode.Sequence sequence:
                foreach (RegexNode part in sequence.Parts)
                {
                    if (First(part, ref low, ref high))
                    {
                        return true;
                    }
                }

                return false;
            case RegexNode.Choice choice:
                bool all = true;
                foreach (RegexNode part in choice.Parts)
                {
                    all &= First(part, ref low, ref high);
                }

                return all;
            case RegexNode.Repeat repeat:
                return First(repeat.Part, ref low, ref high) && repeat.Least > 0;
            case RegexNode.Atomic atomic:
                return First(atomic.Part, ref low, ref high);
            default:
                return false; // a place or a look: what follows decides, with it or without
        }
    }
}
