using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>Shapes of fused_qkv that take different kernels, or leave parts of their blocks and tiles empty.</summary>
public static partial class AttentionCases
{
    private sealed record Projections(string Name, int Rows, int H, int Hkv, int D, int Dv, int Width, DType X, WeightEncoding Q, WeightEncoding V)
    {
        public int Group { get; init; }

        public int Rotated { get; init; }

        public bool HeadNorm { get; init; }

        public bool Bias { get; init; }

        public bool NoNorm { get; init; }

        public DType? Kv { get; init; }

        public DType? Input { get; init; } // of x; else X, q's type

        public bool Squares { get; init; }

        public int Padding { get; init; }
    }

    public static IEnumerable<OpCase> QkvShapes()
    {
        Projections[] all =
        [
            // One row: pairs of a head's dims a block, whole heads, warps that share rows, x of more than one part.
            new("one row", 1, 4, 2, 64, 64, 256, DType.F16, WeightEncoding.F16, WeightEncoding.F16) { Bias = true },
            new("one row, heads of 128 normalised", 1, 2, 1, 128, 128, 320, DType.BF16, WeightEncoding.BF16, WeightEncoding.BF16) { HeadNorm = true },
            new("one row, mixed", 1, 3, 1, 80, 48, 512, DType.F32, WeightEncoding.Q4K, WeightEncoding.Q6K) { Rotated = 32 },
            new("one row, GPTQ", 1, 2, 2, 24, 40, 192, DType.F16, WeightEncoding.GPTQ4, WeightEncoding.GPTQ4) { Group = 24, HeadNorm = true },
            new("one row, INT8", 1, 2, 1, 33, 17, 88, DType.F32, WeightEncoding.INT8, WeightEncoding.INT8) { Group = 8, Rotated = 18, Kv = DType.BF16 },
            new("one row, odd", 1, 2, 1, 34, 30, 77, DType.F32, WeightEncoding.F32, WeightEncoding.BF16) { Rotated = 34, NoNorm = true },
            new("one long row", 1, 1, 1, 8, 8, 20544, DType.F16, WeightEncoding.Q4_0, WeightEncoding.Q4_0) { HeadNorm = true },
            new("rows of four", 6, 2, 1, 32, 32, 5152, DType.F32, WeightEncoding.Q8_0, WeightEncoding.Q4_1) { HeadNorm = true },
            new("sixteen rows", 16, 4, 2, 48, 32, 160, DType.BF16, WeightEncoding.Q4_0, WeightEncoding.BF16) { Bias = true, Padding = 3 },

            // The squares of x are there already.
            new("squares", 1, 4, 2, 64, 64, 512, DType.F16, WeightEncoding.Q4_0, WeightEncoding.Q6K) { Input = DType.F32, Squares = true },
            new("squares, heads normalised", 5, 4, 2, 32, 32, 1280, DType.BF16, WeightEncoding.BF16, WeightEncoding.BF16) { Input = DType.F32, Squares = true, HeadNorm = true },
            new("squares, tiles", 20, 2, 1, 64, 64, 256, DType.F16, WeightEncoding.Q4K, WeightEncoding.Q4K) { Input = DType.F32, Squares = true },
            // Tiles: several heads a tile, one that leaves columns empty, heads of more than a tile, mixed storages, x in f32 and odd rows.
            new("tiles", 33, 3, 1, 64, 64, 256, DType.F16, WeightEncoding.F16, WeightEncoding.F16) { HeadNorm = true, Bias = true },
            new("tiles, mixed", 65, 4, 2, 48, 32, 512, DType.BF16, WeightEncoding.Q4K, WeightEncoding.Q6K) { Rotated = 16, Padding = 4 },
            new("tiles, wide heads", 20, 2, 1, 160, 144, 96, DType.BF16, WeightEncoding.BF16, WeightEncoding.Q5_0) { Bias = true },
            new("tiles, wide heads normalised", 20, 2, 1, 160, 160, 96, DType.F16, WeightEncoding.F16, WeightEncoding.F16) { HeadNorm = true },
            new("tiles, f32 x", 18, 2, 2, 128, 128, 200, DType.F32, WeightEncoding.BF16, WeightEncoding.BF16) { HeadNorm = true, Kv = DType.F16 },
            new("tiles, odd rows", 40, 5, 1, 22, 26, 77, DType.F16, WeightEncoding.F16, WeightEncoding.F16) { Rotated = 20, NoNorm = true },
            new("tiles, GPTQ", 17, 2, 1, 40, 40, 192, DType.F16, WeightEncoding.GPTQ4V2, WeightEncoding.AWQ4) { Group = 48 },
            new("products of two types", 17, 2, 1, 32, 32, 64, DType.BF16, WeightEncoding.F16, WeightEncoding.BF16) { HeadNorm = true },
        ];
        int turn = 0;
        foreach (Projections p in all)
        {
            foreach (RopeKind kind in turn++ % 3 == 0 ? new[] { RopeKind.Half, RopeKind.Interleaved } : [turn % 3 == 1 ? RopeKind.Interleaved : RopeKind.Half])
            {
                yield return Qkv(p, kind);
            }
        }
    }

    private static OpCase Qkv(Projections p, RopeKind kind)
    {
        int first = (p.Rows + 1) / 2;
        int[] queries = p.Rows == 1 ? [1] : [first, p.Rows - first];
        Shape s = new($"{p.Name} {kind}", queries, p.Rows == 1 ? [21] : [first + 5, p.Rows - first], p.H, p.Hkv, p.D) { Dv = p.Dv };
        CaseData r = new("qkv" + s.Name);
        DType kv = p.Kv ?? p.X;
        (KvCacheOptions cache, HostStep step) = s.Plan(r, kv);
        OpCase c = Base("fused_qkv", s.Name, s, cache, step, r, appended: false) with { PaddingRows = p.Padding };
        int rows = step.Tokens + p.Padding, rotated = p.Rotated == 0 ? p.D : p.Rotated;
        c.Inputs["x"] = r.Tensor(p.Input ?? p.X, rows, p.Width);
        if (p.Squares)
        {
            c = KernelCases.WithSquares(c);
        }

        if (!p.NoNorm)
        {
            c.Inputs["norm_weight"] = r.Tensor(p.Bias ? p.X : DType.F32, p.Width);
        }

        c.Weights["wq"] = r.Weight(p.Q, s.H * s.D, p.Width, p.Group);
        c.Weights["wk"] = r.Weight(p.Q, s.Hkv * s.D, p.Width, p.Group);
        c.Weights["wv"] = r.Weight(p.V, s.Hkv * s.ValueDim, p.Width, p.Group);
        if (p.Bias)
        {
            c.Inputs["bias_q"] = r.Tensor(DType.F32, s.H * s.D);
            c.Inputs["bias_k"] = r.Tensor(p.X, s.Hkv * s.D);
            c.Inputs["bias_v"] = r.Tensor(DType.F32, s.Hkv * s.ValueDim);
        }

        if (p.HeadNorm)
        {
            c.Inputs["norm_q"] = r.Tensor(DType.F32, s.D);
            c.Inputs["norm_k"] = r.Tensor(DType.F32, s.D);
        }

        c.Inputs["inv_freq"] = HostTensor.Of(DType.F32, KernelCases.InvFreq(rotated), rotated / 2);
        c.Scalars["kind"] = (int)kind;
        c.Outputs["q"] = (p.X, [rows, s.H, s.D]);
        ReadSlots(c, s, step, kv);
        return c;
    }
}
