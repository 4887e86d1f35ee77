using System.Runtime.CompilerServices;

namespace Sluice.Tokenization;

/// <summary>Runs a <see cref="RegexProgram"/> by backtracking, with a budget of steps so that no expression can hang a program. One thread at a time.</summary>
internal sealed class RegexMatcher
{
    private Entry[] _stack = new Entry[64];
    private int _count;

    [ThreadStatic]
    private static RegexMatcher? _current;

    // An instruction to go on at, and where. For a run: how far it may give back, or take more. Target -1 - r restores register r.
    private record struct Entry(int Target, int Position, int Limit);

    /// <summary>The calling thread's matcher.</summary>
    public static RegexMatcher Current => _current ??= new RegexMatcher();

    /// <summary>Steps that are left; a match that needs more gives -2.</summary>
    public long Budget { get; set; }

    /// <summary>The end of the match that begins at a position, -1 where there is none, or -2 where the budget is spent.</summary>
    public int Match(RegexProgram program, ReadOnlySpan<byte> text, int start)
    {
        _count = 0;
        int end = Run(program, text, start, -1);
        return Budget < 0 ? -2 : end;
    }

    // wanted: where the match has to end, or -1 for anywhere.
    private int Run(RegexProgram program, ReadOnlySpan<byte> text, int position, int wanted)
    {
        int bottom = _count;
        Span<int> registers = program.Registers == 0 ? [] : new int[program.Registers];
        RegexInstruction[] code = program.Code;
        int at = 0;
        while (true)
        {
            if (--Budget < 0)
            {
                _count = bottom;
                return -1;
            }

            ref readonly RegexInstruction instruction = ref code[at];
            bool good = true;
            switch (instruction.Op)
            {
                case RegexOp.One:
                    good = position < text.Length && instruction.Set!.MatchesAt(text, position, out int length) && Advance(ref position, length);
                    at++;
                    break;
                case RegexOp.Run:
                case RegexOp.GreedyRun:
                    good = TakeRun(in instruction, text, ref position, out int least);
                    at++;
                    if (good && position > least && instruction.Op == RegexOp.Run)
                    {
                        Push(new Entry(at, position, least));
                    }

                    break;
                case RegexOp.LazyRun:
                    good = TakeLeast(in instruction, text, ref position);
                    at++;
                    if (good && instruction.Most != instruction.Least)
                    {
                        Push(new Entry(at, position, instruction.Most < 0 ? int.MaxValue : instruction.Most - instruction.Least));
                    }

                    break;
                case RegexOp.Choice:
                    good = Choose(in instruction, text, position, 0, ref at);
                    break;
                case RegexOp.Fork:
                    Push(new Entry(instruction.Target, position, -1));
                    at++;
                    break;
                case RegexOp.LazyFork:
                    Push(new Entry(at + 1, position, -1));
                    at = instruction.Target;
                    break;
                case RegexOp.Jump:
                    at = instruction.Target;
                    break;
                case RegexOp.Note:
                    Push(new Entry(-1 - instruction.Target, registers[instruction.Target], -1));
                    registers[instruction.Target] = position;
                    at++;
                    break;
                case RegexOp.Moved:
                    good = registers[instruction.Target] != position;
                    at++;
                    break;
                case RegexOp.Look:
                    good = Look(in instruction, text, position) != instruction.Negative;
                    at++;
                    break;
                case RegexOp.Atomic:
                    int end = Run(instruction.Inner!, text, position, -1);
                    good = end >= 0;
                    position = good ? end : position;
                    at++;
                    break;
                case RegexOp.Place:
                    good = IsPlace((char)instruction.Target, text, position);
                    at++;
                    break;
                default:
                    if (wanted < 0 || position == wanted)
                    {
                        _count = bottom;
                        return position;
                    }

                    good = false;
                    break;
            }

            if (!good && !Back(code, text, bottom, registers, ref at, ref position))
            {
                return -1;
            }
        }
    }

    private bool Back(RegexInstruction[] code, ReadOnlySpan<byte> text, int bottom, Span<int> registers, ref int at, ref int position)
    {
        while (_count > bottom)
        {
            ref Entry entry = ref _stack[--_count];
            if (entry.Target < 0)
            {
                registers[-1 - entry.Target] = entry.Position;
                continue;
            }

            (at, position, int limit) = entry;
            if (limit < 0)
            {
                return true;
            }

            RegexOp op = at > 0 ? code[at - 1].Op : RegexOp.Match;
            if (op == RegexOp.Run)
            {
                // Gives one code point back.
                position--;
                while (position > limit && (text[position] & 0xC0) == 0x80)
                {
                    position--;
                }

                if (position > limit)
                {
                    _stack[_count++] = new Entry(at, position, limit);
                }

                return true;
            }

            if (op == RegexOp.LazyRun)
            {
                if (limit > 0 && position < text.Length && code[at - 1].Set!.MatchesAt(text, position, out int length))
                {
                    position += length;
                    _stack[_count++] = new Entry(at, position, limit == int.MaxValue ? limit : limit - 1);
                    return true;
                }

                continue;
            }
        }

        return false;
    }

    private bool Choose(ref readonly RegexInstruction instruction, ReadOnlySpan<byte> text, int position, int from, ref int at)
    {
        RegexBranch[] branches = instruction.Branches!;
        int chosen = -1;
        // From the last to the first, so that the first is on top of the stack.
        for (int i = branches.Length - 1; i >= from; i--)
        {
            if (branches[i].MayBegin(text, position))
            {
                if (chosen >= 0)
                {
                    Push(new Entry(branches[chosen].Target, position, -1));
                }

                chosen = i;
            }
        }

        at = chosen < 0 ? at : branches[chosen].Target;
        return chosen >= 0;
    }

    private bool TakeRun(ref readonly RegexInstruction instruction, ReadOnlySpan<byte> text, ref int position, out int least)
    {
        CodePointSet set = instruction.Set!;
        int most = instruction.Most < 0 ? int.MaxValue : instruction.Most;
        int start = position;
        least = position;
        int count = 0;
        while (count < most && position < text.Length && set.MatchesAt(text, position, out int length))
        {
            position += length;
            count++;
            if (count == instruction.Least)
            {
                least = position;
            }
        }

        Budget -= (position - start) >> 2;
        return count >= instruction.Least;
    }

    private static bool TakeLeast(ref readonly RegexInstruction instruction, ReadOnlySpan<byte> text, ref int position)
    {
        for (int i = 0; i < instruction.Least; i++)
        {
            if (position >= text.Length || !instruction.Set!.MatchesAt(text, position, out int length))
            {
                return false;
            }

            position += length;
        }

        return true;
    }

    private bool Look(ref readonly RegexInstruction instruction, ReadOnlySpan<byte> text, int position)
    {
        RegexProgram inner = instruction.Inner!;
        if (!instruction.Behind)
        {
            return Run(inner, text, position, -1) >= 0;
        }

        int start = position;
        for (int back = 0; back <= inner.Width.Most; back++)
        {
            if (back >= inner.Width.Least && Run(inner, text, start, position) >= 0)
            {
                return true;
            }

            if (start == 0)
            {
                break;
            }

            start--;
            while (start > 0 && (text[start] & 0xC0) == 0x80)
            {
                start--;
            }
        }

        return false;
    }

    private static bool IsPlace(char kind, ReadOnlySpan<byte> text, int position)
    {
        bool start = position == 0;
        bool end = position == text.Length;
        return kind switch
        {
            '^' => start || (text[position - 1] == '\n' && !end),
            '$' => end || text[position] == '\n',
            'A' => start,
            'z' => end,
            'Z' => end || (position == text.Length - 1 && text[position] == '\n'),
            'b' => WordBefore(text, position) != WordAt(text, position),
            _ => WordBefore(text, position) == WordAt(text, position),
        };
    }

    private static bool WordAt(ReadOnlySpan<byte> text, int position) => position < text.Length && CodePointSet.Word.MatchesAt(text, position, out _);

    private static bool WordBefore(ReadOnlySpan<byte> text, int position)
    {
        if (position == 0)
        {
            return false;
        }

        position--;
        while (position > 0 && (text[position] & 0xC0) == 0x80)
        {
            position--;
        }

        return WordAt(text, position);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool Advance(ref int position, int length)
    {
        position += length;
        return true;
    }

    private void Push(Entry entry)
    {
        if (_count == _stack.Length)
        {
            Array.Resize(ref _stack, _count * 2);
        }

        _stack[_count++] = entry;
    }
}
