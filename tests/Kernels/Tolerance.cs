using Sluice.Interop;
using Xunit;

namespace Sluice.Kernels;

/// <summary>Right means: an error of at most twice that of naive loops rounded by the op's record, plus one unit in the last place.</summary>
public static class Tolerance
{
    public static void AssertClose(string output, HostTensor actual, HostTensor truth, HostTensor naive)
    {
        if (truth.DType is DType.I32)
        {
            Assert.Equal(truth.ToDoubles(), actual.ToDoubles());
            return;
        }

        double[] t = truth.ToDoubles(), n = naive.ToDoubles(), a = actual.ToDoubles();
        Assert.Equal(t.Length, a.Length);
        double naiveError = 0;
        for (int i = 0; i < t.Length; i++)
        {
            if (double.IsFinite(t[i]))
            {
                naiveError = Math.Max(naiveError, Math.Abs(n[i] - t[i]));
            }
        }

        for (int i = 0; i < t.Length; i++)
        {
            if (!double.IsFinite(t[i]))
            {
                Assert.True(t[i].Equals(a[i]), $"{output}[{i}] is {a[i]}, the truth is {t[i]}");
                continue;
            }

            double bound = (2 * naiveError) + Ulp(t[i], truth.DType);
            Assert.True(Math.Abs(a[i] - t[i]) <= bound, $"{output}[{i}] is {a[i]:g9}, the truth {t[i]:g9}: error {Math.Abs(a[i] - t[i]):g3}, bound {bound:g3} (naive loops: {naiveError:g3})");
        }
    }

    private static double Ulp(double value, DType dtype)
    {
        if (dtype == DType.I8)
        {
            return 1;
        }

        (int bits, int lowest) = dtype switch { DType.F32 => (23, -126), DType.F16 => (10, -14), DType.FP8E4M3 => (3, -6), _ => (7, -126) };
        int exponent = value == 0 ? lowest : Math.Max(lowest, (int)Math.Floor(Math.Log2(Math.Abs(value))));
        return Math.Pow(2, exponent - bits);
    }
}
