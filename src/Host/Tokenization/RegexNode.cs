namespace Sluice.Tokenization;

/// <summary>A node of a parsed regular expression.</summary>
internal abstract record RegexNode
{
    /// <summary>The fewest and the most code points that a match takes; most is <see cref="int.MaxValue"/> where there is no bound.</summary>
    public abstract (int Least, int Most) Width { get; }

    private static int Add(int a, int b) => (int)Math.Min(int.MaxValue, (long)a + b);

    private static int Multiply(int a, int b) => a == 0 || b == 0 ? 0 : (int)Math.Min(int.MaxValue, (long)a * b);

    /// <summary>One code point of a set.</summary>
    internal sealed record One(CodePointSet Set) : RegexNode
    {
        public override (int Least, int Most) Width => (1, 1);
    }

    /// <summary>One after the other; none is the empty match.</summary>
    internal sealed record Sequence(IReadOnlyList<RegexNode> Parts) : RegexNode
    {
        public override (int Least, int Most) Width
        {
            get
            {
                (int least, int most) = (0, 0);
                foreach (RegexNode part in Parts)
                {
                    (int partLeast, int partMost) = part.Width;
                    (least, most) = (Add(least, partLeast), Add(most, partMost));
                }

                return (least, most);
            }
        }
    }

    /// <summary>The first of these that leads to a match.</summary>
    internal sealed record Choice(IReadOnlyList<RegexNode> Parts) : RegexNode
    {
        public override (int Least, int Most) Width => (Parts.Min(p => p.Width.Least), Parts.Max(p => p.Width.Most));
    }

    /// <summary>A part some times; <paramref name="Most"/> -1 is without bound.</summary>
    internal sealed record Repeat(RegexNode Part, int Least, int Most, bool Lazy) : RegexNode
    {
        public override (int Least, int Most) Width
        {
            get
            {
                (int least, int most) = Part.Width;
                return (Multiply(least, Least), Most < 0 ? (most == 0 ? 0 : int.MaxValue) : Multiply(most, Most));
            }
        }
    }

    /// <summary>A part that is never entered again once it has matched.</summary>
    internal sealed record Atomic(RegexNode Part) : RegexNode
    {
        public override (int Least, int Most) Width => Part.Width;
    }

    /// <summary>A part that has, or has not, to match here, and takes nothing.</summary>
    internal sealed record Look(RegexNode Part, bool Behind, bool Negative) : RegexNode
    {
        public override (int Least, int Most) Width => (0, 0);
    }

    /// <summary>A place: <c>^ $ A z Z b B</c>.</summary>
    internal sealed record Place(char Kind) : RegexNode
    {
        public override (int Least, int Most) Width => (0, 0);
    }
}
