namespace Sluice.Tokenization;

/// <summary>
/// The expressions that group digits in threes from the right, matched by hand. As expressions they look to the end of a run of digits from each of its
/// groups, which is quadratic; here a run's length is counted once and kept for the calls that follow, which go through a piece in order.
/// </summary>
internal static class DigitGroupRules
{
    private static readonly CodePointSet Numbers = RegexProperties.Find("N")!;

    [ThreadStatic]
    private static Run _run;

    // A run of digits that ends at End, of which Left stand from At on. A piece begins at 0, so that nothing is kept from one to the next.
    private record struct Run(int At, int Left, int End, int TextLength, CodePointSet? Digits);

    // \d{1,3}(?=(?:\d{3})*\b)
    public static int ToWordEnd(ReadOnlySpan<byte> text, int position)
    {
        Run run = Find(text, position, CodePointSet.Digit, out int length);
        // Between digits there is no \b, and at their end only where no word goes on.
        return run.Left == 0 ? -length
            : run.End < text.Length && CodePointSet.Word.MatchesAt(text, run.End, out _) ? position - run.End
            : Skip(text, position, run.Left % 3 == 0 ? 3 : run.Left % 3) - position;
    }

    // \p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))
    public static int ToRunEnd(ReadOnlySpan<byte> text, int position)
    {
        Run run = Find(text, position, Numbers, out int length);
        return run.Left == 0 ? -length : Skip(text, position, run.Left % 3 == 0 ? 3 : run.Left % 3) - position;
    }

    // (?=(\d{3})+(?!\d))
    public static int Before(ReadOnlySpan<byte> text, int position)
    {
        Run run = Find(text, position, CodePointSet.Digit, out int length);
        return run.Left == 0 ? -length : run.Left % 3 == 0 ? 0 : position - Skip(text, position, run.Left % 3);
    }

    private static Run Find(ReadOnlySpan<byte> text, int position, CodePointSet digits, out int length)
    {
        Run run = position == 0 ? _run = default : _run;
        if (!digits.MatchesAt(text, position, out length))
        {
            return default;
        }

        if (run.Digits != digits || run.TextLength != text.Length || position < run.At || position >= run.End)
        {
            int at = position;
            int count = 0;
            for (int size = 0; at < text.Length && digits.MatchesAt(text, at, out size); at += size)
            {
                count++;
            }

            run = new Run(position, count, at, text.Length, digits);
        }
        else
        {
            for (int size = 0; run.At < position; run.At += size)
            {
                CharClass.CodePointAt(text, run.At, out size);
                run.Left--;
            }
        }

        _run = run;
        return run;
    }

    private static int Skip(ReadOnlySpan<byte> text, int position, int count)
    {
        for (; count > 0; count--)
        {
            CharClass.CodePointAt(text, position, out int length);
            position += length;
        }

        return position;
    }
}
