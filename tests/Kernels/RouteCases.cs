using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>Products by every kernel that may take them, and what they leave for the norm that comes next.</summary>
public static partial class KernelCases
{
    // The squares of what is written, for the norm that comes next, and norms that read them: every kernel that may write or read them.
    private static IEnumerable<OpCase> Squares()
    {
        int turn = 0;
        foreach (WeightEncoding encoding in new[] { WeightEncoding.F32, WeightEncoding.F16, WeightEncoding.BF16, WeightEncoding.Q4_0, WeightEncoding.Q8_0, WeightEncoding.Q4K, WeightEncoding.Q6K, WeightEncoding.AWQ4 })
        {
            foreach ((int m, int n, int k) in new[] { (1, 40, 512), (7, 136, 256), (11, 72, 1280), (20, 264, 256) })
            {
                DType dtype = Turn(turn++);
                OpCase c = Linear($"squares {dtype} {encoding} {m}x{n}x{k}", dtype, encoding, encoding == WeightEncoding.AWQ4 ? 128 : 0, m, n, k, bias: turn % 3 == 0, residual: turn % 2 == 0, DType.F32);
                c.Scalars["scale"] = turn % 4 == 0 ? 0.3 : 1;
                c.Outputs["squares"] = (DType.F32, [m, (n + 15) / 16]);
                yield return c;

                yield return WithSquares(Gated($"squares {dtype} {encoding} {m}x{n}x{k}", DType.F32, dtype, encoding, encoding, 128, m, n, k, norm: true, bias: turn % 2 == 0, activation: 0));
            }
        }

        foreach (int m in new[] { 3, 70 })
        {
            OpCase odd = Linear($"squares of odd columns {m}", DType.F16, WeightEncoding.F16, 0, m, 37, 77, bias: true, residual: true, DType.F32);
            odd.Outputs["squares"] = (DType.F32, [m, 3]);
            yield return odd;
        }

        yield return WithSquares(Gated("squares of odd columns", DType.F32, DType.F16, WeightEncoding.F16, WeightEncoding.F16, 0, 4, 37, 77, norm: true, bias: false, activation: 0));
        yield return WithSquares(Gated("squares of a long row", DType.F32, DType.BF16, WeightEncoding.Q4_0, WeightEncoding.Q4_0, 0, 2, 24, 8256, norm: true, bias: false, activation: 0));
    }

    // Kernels that another number of rows would have got: every storage, and panels of a weight that goes to 16 bits.
    private static IEnumerable<OpCase> Routes()
    {
        int turn = 0;
        foreach ((WeightEncoding encoding, int group) in new[]
        {
            (WeightEncoding.F16, 0), (WeightEncoding.BF16, 0), (WeightEncoding.Q4_0, 0), (WeightEncoding.Q4_1, 0), (WeightEncoding.Q4K, 0), (WeightEncoding.Q5_1, 0), (WeightEncoding.Q5K, 0),
            (WeightEncoding.Q6K, 0), (WeightEncoding.Q8_0, 0), (WeightEncoding.GPTQ4, 128), (WeightEncoding.AWQ4, 64), (WeightEncoding.INT8, 32),
        })
        {
            foreach ((Route route, int m) in new[] { (Route.Few, 5), (Route.Narrow, 37), (Route.Wide, 3), (Route.Dense, 20), (Route.Dense, 2) })
            {
                if (route == Route.Dense && encoding is WeightEncoding.F16 or WeightEncoding.BF16)
                {
                    continue; // the library's, where it is
                }

                OpCase c = Linear($"route {route} {Short(turn)} {encoding}{(group > 0 ? $" g{group}" : "")} {m}x136x512", Short(turn), encoding, group, m, 136, 512, bias: turn % 2 == 0, residual: turn % 3 == 0, DType.F32);
                c.Scalars["route"] = (int)route;
                c.Outputs["squares"] = (DType.F32, [m, 9]);
                turn++;
                yield return c;
            }
        }

        foreach (WeightEncoding encoding in new[] { WeightEncoding.Q4_0, WeightEncoding.Q6K })
        {
            OpCase panels = Linear($"route {Route.Dense} panels {encoding}", DType.F32, encoding, 0, 17, 1040, 1024, bias: true, residual: true, DType.F32);
            panels = panels with { Inputs = new(panels.Inputs) { ["x"] = new CaseData("panels").Tensor(DType.F16, 17, 1024) } };
            panels.Scalars["route"] = (int)Route.Dense;
            panels.Outputs["squares"] = (DType.F32, [17, 65]);
            yield return panels;
        }

        static DType Short(int turn) => turn % 2 == 0 ? DType.F16 : DType.BF16;
    }

    /// <summary>With the sums of x's squares, as the op before would have left them.</summary>
    public static OpCase WithSquares(OpCase c)
    {
        double[] x = c.Inputs["x"].ToDoubles();
        int rows = (int)c.Inputs["x"].Shape[0], columns = (int)c.Inputs["x"].Shape[1];
        float[] sums = new float[rows * ((columns + 15) / 16)];
        for (int t = 0, i = 0; t < rows; t++)
        {
            for (int from = 0; from < columns; from += 16)
            {
                sums[i++] = (float)x.AsSpan((t * columns) + from, Math.Min(16, columns - from)).ToArray().Sum(v => v * v);
            }
        }

        c.Inputs["squares"] = HostTensor.Of(DType.F32, sums, rows, (columns + 15) / 16);
        return c;
    }
}
