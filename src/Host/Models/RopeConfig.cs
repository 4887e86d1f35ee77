namespace Sluice.Models;

/// <summary>How RoPE's frequencies are changed so that a model reads more than it was first trained for.</summary>
public enum RopeScaling
{
    /// <summary>Not at all.</summary>
    None,

    /// <summary>All angles divided by a factor (Chen et al. 2023).</summary>
    Linear,

    /// <summary>The base grows with the sequence, once that is longer than the original context (NTK-aware, 2023).</summary>
    Dynamic,

    /// <summary>Low frequencies divided, high ones kept, a ramp between (Peng et al. 2023).</summary>
    Yarn,

    /// <summary>As Llama 3.1 has it: by wavelength against the original context.</summary>
    Llama3,

    /// <summary>A factor for each pair: one set within the original context, another for longer sequences (Ding et al. 2024).</summary>
    LongRope,
}

/// <summary>One kind of rotary position embedding (Su et al. 2021) of a model: base, dimensions, scaling.</summary>
public sealed record RopeConfig
{
    /// <summary>R: the first R dimensions of a head turn; even.</summary>
    public required int Dimensions { get; init; }

    /// <summary>Theta: pair i turns by theta^(-2i/R) a position.</summary>
    public required double Base { get; init; }

    /// <summary>The scaling.</summary>
    public RopeScaling Scaling { get; init; }

    /// <summary>How many times longer than trained.</summary>
    public double Factor { get; init; } = 1;

    /// <summary>Tokens that the model was first trained for.</summary>
    public int OriginalContext { get; init; }

    /// <summary>Llama3: wavelengths longer than the original context / this are divided by the factor.</summary>
    public double LowFrequencyFactor { get; init; } = 1;

    /// <summary>Llama3: wavelengths shorter than the original context / this are kept.</summary>
    public double HighFrequencyFactor { get; init; } = 4;

    /// <summary>Yarn: pairs that turn more often within the original context are kept.</summary>
    public double BetaFast { get; init; } = 32;

    /// <summary>Yarn: pairs that turn less often are divided.</summary>
    public double BetaSlow { get; init; } = 1;

    /// <summary>Yarn: the ramp's ends are whole pairs.</summary>
    public bool Truncate { get; init; } = true;

    /// <summary>Multiplies cosines and sines.</summary>
    public float AttentionFactor { get; init; } = 1f;

    /// <summary>Divisors of each pair's frequency [R/2]: GGUF's rope_freqs, LongRope's short factors; empty: all 1.</summary>
    public ReadOnlyMemory<float> Divisors { get; init; }

    /// <summary>LongRope: the divisors for sequences longer than the original context.</summary>
    public ReadOnlyMemory<float> LongDivisors { get; init; }

    /// <summary>True where the frequencies depend on a sequence's length.</summary>
    public bool DependsOnLength => Scaling is RopeScaling.Dynamic or RopeScaling.LongRope;

    /// <summary>
    /// True where keys computed at one length must be computed anew at the other. LongRope changes all frequencies when a sequence
    /// outgrows the original context; keys of the two kinds do not match.
    /// </summary>
    public bool NeedsNewKeys(long lengthBefore, long lengthNow) => Scaling == RopeScaling.LongRope && lengthBefore > OriginalContext != lengthNow > OriginalContext;

    /// <summary>The angle per position of each pair [R/2] in a sequence of <paramref name="length"/> tokens.</summary>
    public float[] InverseFrequencies(long length) => Array.ConvertAll(Frequencies(length), static f => (float)f);

    /// <summary>The same frequencies at any length as divisors of the plain ones [R/2], for files that know no other scaling.</summary>
    public float[] ToDivisors()
    {
        double[] plain = (this with { Scaling = RopeScaling.None, Divisors = default }).Frequencies(0), scaled = Frequencies(0);
        return [.. plain.Zip(scaled, static (p, s) => (float)(p / s))];
    }

    /// <summary>The factor on cosines and sines that Yarn's paper gives for a scaling factor.</summary>
    internal static double YarnAttention(double factor, double multiplier = 1) => factor > 1 ? (0.1 * multiplier * Math.Log(factor)) + 1 : 1;

    private double[] Frequencies(long length)
    {
        double[] frequencies = new double[Dimensions / 2];
        double theta = Base;
        if (Scaling == RopeScaling.Dynamic && length > OriginalContext && Dimensions > 2)
        {
            theta *= Math.Pow((Factor * length / OriginalContext) - (Factor - 1), Dimensions / (Dimensions - 2.0));
        }

        ReadOnlySpan<float> divisors = (Scaling == RopeScaling.LongRope && length > OriginalContext ? LongDivisors : Divisors).Span;
        for (int i = 0; i < frequencies.Length; i++)
        {
            frequencies[i] = Math.Pow(theta, -2.0 * i / Dimensions) / (divisors.IsEmpty ? 1 : divisors[i]);
        }

        switch (Scaling)
        {
            case RopeScaling.Linear:
                Scale(frequencies, static (_, _) => 1);
                break;
            case RopeScaling.Yarn:
                (double low, double high) = YarnRange();
                Scale(frequencies, (i, _) => Math.Clamp((i - low) / (high - low), 0, 1));
                break;
            case RopeScaling.Llama3:
                Scale(frequencies, (_, frequency) =>
                {
                    double turns = OriginalContext * frequency / (2 * Math.PI);
                    return 1 - Math.Clamp((turns - LowFrequencyFactor) / (HighFrequencyFactor - LowFrequencyFactor), 0, 1);
                });
                break;
        }

        return frequencies;
    }

    // share(i, f): how much of pair i is divided by the factor, 0 to 1.
    private void Scale(double[] frequencies, Func<int, double, double> share)
    {
        for (int i = 0; i < frequencies.Length; i++)
        {
            double s = share(i, frequencies[i]);
            frequencies[i] = (frequencies[i] / Factor * s) + (frequencies[i] * (1 - s));
        }
    }

    private (double Low, double High) YarnRange()
    {
        double PairOf(double turns) => Dimensions * Math.Log(OriginalContext / (turns * 2 * Math.PI)) / (2 * Math.Log(Base));
        double low = PairOf(BetaFast), high = PairOf(BetaSlow);
        if (Truncate)
        {
            (low, high) = (Math.Floor(low), Math.Ceiling(high));
        }

        (low, high) = (Math.Max(low, 0), Math.Min(high, Dimensions - 1));
        return (low, low == high ? high + 0.001 : high);
    }
}
