using System.Globalization;
using System.Numerics;

namespace Sluice.Templates;

/// <summary>Numbers as Python reads and prints them.</summary>
internal static class Numbers
{
    // Digits after the point that formatting gives at most; the smallest double has 1,074.
    private const int MostDigits = 1100;

    /// <summary>An integer literal: 64 bits, or more as digits that can only be printed.</summary>
    public static Value ParseInteger(string digits, bool data)
    {
        if (long.TryParse(digits, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long value))
        {
            return data ? IntValue.OfData(value) : IntValue.Of(value);
        }

        string bare = digits.TrimStart('-').TrimStart('0');
        return new BigValue((digits[0] == '-' ? "-" : "") + bare, data);
    }

    /// <summary>Python's <c>repr</c> of a float: the shortest digits that read back, an exponent below 1e-4 and from 1e16.</summary>
    public static string Repr(double value)
    {
        if (!double.IsFinite(value))
        {
            return double.IsNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
        }

        (string digits, int exponent) = Shortest(Math.Abs(value));
        string sign = double.IsNegative(value) ? "-" : "";
        if (exponent is < -4 or >= 16)
        {
            string mantissa = digits.Length == 1 ? digits : $"{digits[0]}.{digits[1..]}";
            return $"{sign}{mantissa}{Exponent(exponent)}";
        }

        if (exponent < 0)
        {
            return $"{sign}0.{new string('0', -exponent - 1)}{digits}";
        }

        return digits.Length <= exponent + 1
            ? $"{sign}{digits.PadRight(exponent + 1, '0')}.0"
            : $"{sign}{digits[..(exponent + 1)]}.{digits[(exponent + 1)..]}";
    }

    private static string Exponent(int exponent) => string.Create(CultureInfo.InvariantCulture, $"e{(exponent < 0 ? '-' : '+')}{Math.Abs(exponent):00}");

    // The digits without zeros at either end, and the power of ten of the first.
    private static (string Digits, int Exponent) Shortest(double value)
    {
        string r = value.ToString("R", CultureInfo.InvariantCulture);
        int e = r.IndexOf('E', StringComparison.Ordinal);
        string mantissa = e < 0 ? r : r[..e];
        string digits = mantissa.Replace(".", "", StringComparison.Ordinal).Trim('0');
        if (digits.Length == 0)
        {
            return ("0", 0);
        }

        int point = mantissa.IndexOf('.', StringComparison.Ordinal);
        point = point < 0 ? mantissa.Length : point;
        int first = mantissa.AsSpan().IndexOfAnyInRange('1', '9');
        int exponent = (first < point ? point - 1 - first : point - first) + (e < 0 ? 0 : int.Parse(r.AsSpan(e + 1), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture));
        return (digits, exponent);
    }

    /// <summary>A number with so many digits after the point: exact, and half to even as C does it.</summary>
    public static string Fixed(double value, int decimals)
    {
        if (!double.IsFinite(value))
        {
            return double.IsNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
        }

        int exact = Math.Min(decimals, MostDigits);
        BigInteger scaled = Scale(Math.Abs(value), exact);
        string digits = scaled.ToString(CultureInfo.InvariantCulture).PadLeft(exact + 1, '0');
        string sign = double.IsNegative(value) ? "-" : "";
        return decimals == 0 ? sign + digits : $"{sign}{digits[..^exact]}.{digits[^exact..]}{new string('0', decimals - exact)}";
    }

    /// <summary>A number as <c>d.ddde+XX</c> with so many digits after the point.</summary>
    public static string Scientific(double value, int decimals)
    {
        if (!double.IsFinite(value))
        {
            return Fixed(value, 0);
        }

        string s = Math.Abs(value).ToString("E" + Math.Min(decimals, MostDigits).ToString(CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);
        int e = s.IndexOf('E', StringComparison.Ordinal);
        return (double.IsNegative(value) ? "-" : "") + s[..e] + Exponent(int.Parse(s.AsSpan(e + 1), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture));
    }

    /// <summary>C's <c>%g</c> with so many digits, zeros at the end kept only where <paramref name="keep"/>.</summary>
    public static string General(double value, int digits, bool keep)
    {
        if (!double.IsFinite(value))
        {
            return Fixed(value, 0);
        }

        digits = Math.Clamp(digits, 1, MostDigits);
        string scientific = Scientific(value, digits - 1);
        int e = scientific.IndexOf('e', StringComparison.Ordinal);
        int exponent = int.Parse(scientific.AsSpan(e + 1), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture);
        return exponent < -4 || exponent >= digits
            ? Bare(scientific[..e]) + scientific[e..]
            : Bare(Fixed(value, digits - 1 - exponent));

        string Bare(string s) => keep || !s.Contains('.', StringComparison.Ordinal) ? s : s.TrimEnd('0').TrimEnd('.');
    }

    /// <summary>Python's <c>round(x, n)</c>.</summary>
    public static double Round(double value, int decimals)
    {
        if (!double.IsFinite(value) || decimals > 330)
        {
            return value;
        }

        if (decimals < -330)
        {
            return double.IsNegative(value) ? -0.0 : 0.0;
        }

        if (decimals >= 0)
        {
            return double.Parse(Fixed(value, decimals), CultureInfo.InvariantCulture);
        }

        double rounded = (double)Scale(Math.Abs(value), decimals) * Math.Pow(10, -decimals);
        return double.IsNegative(value) ? -rounded : rounded;
    }

    // value * 10^decimals, rounded half to even, with no rounding on the way.
    private static BigInteger Scale(double value, int decimals)
    {
        long bits = BitConverter.DoubleToInt64Bits(value);
        int exponent = (int)((bits >> 52) & 0x7FF);
        BigInteger numerator = (bits & 0xF_FFFF_FFFF_FFFF) | (exponent == 0 ? 0 : 1L << 52);
        int shift = Math.Max(exponent, 1) - 1075;
        BigInteger denominator = BigInteger.One;
        if (shift >= 0)
        {
            numerator <<= shift;
        }
        else
        {
            denominator <<= -shift;
        }

        if (decimals >= 0)
        {
            numerator *= BigInteger.Pow(10, decimals);
        }
        else
        {
            denominator *= BigInteger.Pow(10, -decimals);
        }

        BigInteger quotient = BigInteger.DivRem(numerator, denominator, out BigInteger rest);
        int half = (rest * 2).CompareTo(denominator);
        return half > 0 || (half == 0 && !quotient.IsEven) ? quotient + 1 : quotient;
    }

    /// <summary>Python's <c>float(text)</c>.</summary>
    public static double? ParseFloat(string s)
    {
        s = Bare(s);
        string word = s.TrimStart('+', '-');
        if (s.Length - word.Length <= 1)
        {
            double? special = word.ToLowerInvariant() switch { "inf" or "infinity" => double.PositiveInfinity, "nan" => double.NaN, _ => null };
            if (special is { } v)
            {
                return s[0] == '-' ? -v : v;
            }
        }

        return word.Length > 0 && (char.IsAsciiDigit(word[0]) || word[0] == '.')
            && double.TryParse(s, NumberStyles.AllowLeadingSign | NumberStyles.AllowDecimalPoint | NumberStyles.AllowExponent, CultureInfo.InvariantCulture, out double value) ? value : null;
    }

    /// <summary>Python's <c>int(text, radix)</c>; null where it is none, or leaves 64 bits.</summary>
    public static long? ParseInt(string s, int radix)
    {
        s = Bare(s);
        bool negative = s.StartsWith('-');
        s = negative || s.StartsWith('+') ? s[1..] : s;
        if (s.Length > 1 && s[0] == '0')
        {
            int named = char.ToLowerInvariant(s[1]) switch { 'x' => 16, 'o' => 8, 'b' => 2, _ => 0 };
            if (named != 0 && (radix == named || radix == 0))
            {
                (s, radix) = (s[2..], named);
            }
        }

        radix = radix == 0 ? 10 : radix;
        Int128 value = 0;
        foreach (char c in s)
        {
            int digit = char.IsAsciiDigit(c) ? c - '0' : char.IsAsciiLetter(c) ? (c | 0x20) - 'a' + 10 : 99;
            if (digit >= radix)
            {
                return null;
            }

            value = (value * radix) + digit;
            if (value > (Int128)long.MaxValue + 1)
            {
                return null;
            }
        }

        value = negative ? -value : value;
        return s.Length == 0 || value > long.MaxValue ? null : (long)value;
    }

    // Without white space around, and without single underscores between digits.
    private static string Bare(string s)
    {
        int start = 0, end = s.Length;
        while (start < end && PythonText.IsSpace(s[start]))
        {
            start++;
        }

        while (end > start && PythonText.IsSpace(s[end - 1]))
        {
            end--;
        }

        s = s[start..end];
        return s.Contains('_', StringComparison.Ordinal) && !s.StartsWith('_') && !s.EndsWith('_') && !s.Contains("__", StringComparison.Ordinal) ? s.Replace("_", "", StringComparison.Ordinal) : s;
    }
}
