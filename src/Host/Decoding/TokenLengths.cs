using System.Globalization;

namespace Sluice.Decoding;

/// <summary>How lengths lie about their mean N.</summary>
public enum LengthKind
{
    /// <summary>All are N.</summary>
    Fixed,

    /// <summary>Each of 1 to 2 N - 1 is as likely.</summary>
    Uniform,

    /// <summary>Most are short and few very long: the geometric distribution, which is the exponential one in whole tokens.</summary>
    Exponential,
}

/// <summary>How many tokens a prompt or an answer has: numbers from 1 on that a seeded generator draws.</summary>
public readonly record struct TokenLengths
{
    private readonly LengthKind _kind;
    private readonly int _least, _most;

    private TokenLengths(LengthKind kind, int least, int most) => (_kind, _least, _most) = (kind, least, most);

    /// <summary>The mean that they tend to.</summary>
    public double Mean => (_least + (double)_most) / 2;

    /// <summary>Lengths about a mean.</summary>
    /// <param name="mean">N, 1 to a milliard.</param>
    /// <param name="kind">How they lie about it.</param>
    /// <exception cref="ArgumentOutOfRangeException">A mean out of its range.</exception>
    public static TokenLengths Around(int mean, LengthKind kind)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(mean, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(mean, 1_000_000_000);
        return kind == LengthKind.Uniform ? new TokenLengths(kind, 1, (2 * mean) - 1) : new TokenLengths(kind, mean, mean);
    }

    /// <summary>Lengths of which each in a range is as likely.</summary>
    /// <param name="least">1 at least.</param>
    /// <param name="most">No less.</param>
    /// <exception cref="ArgumentOutOfRangeException">No such range.</exception>
    public static TokenLengths Between(int least, int most)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(least, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(most, least);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(most, 2_000_000_000);
        return new TokenLengths(LengthKind.Uniform, least, most);
    }

    /// <summary>Reads a mean, as in 128, or a range, as in 64-256.</summary>
    /// <param name="text">The words.</param>
    /// <param name="kind">How lengths lie about a mean.</param>
    /// <param name="lengths">What was read.</param>
    /// <returns>Whether it is one of these.</returns>
    public static bool TryParse(string text, LengthKind kind, out TokenLengths lengths)
    {
        lengths = default;
        string[] parts = text.Split('-');
        if (parts.Length > 2 || !Read(parts[0], out int first) || !Read(parts[^1], out int last) || last < first)
        {
            return false;
        }

        lengths = parts.Length == 1 ? Around(first, kind) : Between(first, last);
        return true;

        static bool Read(string word, out int value) => int.TryParse(word, NumberStyles.None, CultureInfo.InvariantCulture, out value) && value is >= 1 and <= 1_000_000_000;
    }

    /// <summary>The next length.</summary>
    public int Draw(Random random) => _kind switch
    {
        LengthKind.Uniform => random.Next(_least, _most + 1),
        LengthKind.Exponential when _least > 1 => (int)Math.Clamp(Math.Ceiling(Math.Log(1 - random.NextDouble()) / Math.Log(1 - (1.0 / _least))), 1, int.MaxValue),
        _ => _least,
    };
}
