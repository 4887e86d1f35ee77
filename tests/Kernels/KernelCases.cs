using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>
/// The list of op cases: small here, where every backend runs all of them in every test run; whole grids on a GPU.
/// Sizes are chosen pairwise and for what breaks kernels, not by products of everything.
/// </summary>
public static partial class KernelCases
{
    private static readonly DType[] Activations = [DType.F32, DType.F16, DType.BF16];
    private static readonly Lazy<Dictionary<string, OpCase>> ByName = new(() => Build().ToDictionary(c => c.ToString()));

    public static IReadOnlyCollection<OpCase> All => ByName.Value.Values;

    public static OpCase Get(string name) => ByName.Value[name];

    // Types in turn, one further after every three: lists of sizes are multiples of three, and each size is to meet every type.
    private static DType Turn(int turn) => Activations[(turn + (turn / 3)) % 3];

    // SLUICE_OPS names ops (commas between) where a run is cut into parts.
    private static IEnumerable<OpCase> Build()
    {
        string[] ops = Environment.GetEnvironmentVariable("SLUICE_OPS") is { Length: > 0 } named ? named.Split(',') : [];
        return Everything().Where(c => ops.Length == 0 || ops.Contains(c.Op));
    }

    private static IEnumerable<OpCase> Everything() =>
    [
        .. Norms(), .. WideInputs(), .. Linears(), .. ScaledLinears(), .. Squares(), .. Routes(), .. ManyRows(), .. LargeTiles(), .. GroupedWeights(), .. GatedLinears(), .. Embeddings(), .. Pointwise(),
        .. AttentionCases.Appends(), .. AttentionCases.Copies(), .. AttentionCases.Swaps(), .. AttentionCases.Attentions(), .. AttentionCases.Tiles(), .. AttentionCases.Cascades(),
        .. AttentionCases.CappedWindows(),
        .. AttentionCases.FusedQkvs(), .. AttentionCases.WideFusedQkvs(), .. AttentionCases.EightBitQkvs(), .. AttentionCases.WholeRowNorms(), .. AttentionCases.QkvShapes(),
        .. States(), .. Sampling(),
    ];

    private static IEnumerable<OpCase> Norms()
    {
        foreach ((int t, int d) in new[] { (1, 1), (1, 64), (3, 896), (7, 100), (2, 4097), (65, 256) })
        {
            foreach (DType dtype in Activations)
            {
                string name = $"{dtype} {t}x{d}";
                CaseData r = new("norm" + name);
                DType weight = t == 3 ? dtype : DType.F32;
                HostTensor x = r.Tensor(dtype, t, d), w = r.Tensor(weight, d), residual = r.Tensor(dtype, t, d);
                yield return new OpCase("rms_norm", name) { Inputs = { ["x"] = x, ["w"] = w }, Scalars = { ["eps"] = 1e-5 }, Outputs = { ["y"] = (dtype, [t, d]) } };
                yield return new OpCase("add_rms_norm", name)
                {
                    Inputs = { ["x"] = x, ["residual"] = residual, ["w"] = w }, Scalars = { ["eps"] = 1e-6 },
                    Outputs = { ["residual"] = (dtype, [t, d]), ["y"] = (dtype, [t, d]) },
                };
                yield return new OpCase("rms_norm_add", name) { Inputs = { ["x"] = x, ["residual"] = residual, ["w"] = w }, Scalars = { ["eps"] = 1e-6 }, Outputs = { ["y"] = (dtype, [t, d]) } };
            }
        }

        yield return new OpCase("rms_norm", "large values") { Inputs = { ["x"] = HostTensor.Of(DType.F32, new CaseData("large").Normal(512, 1e6f), 2, 256), ["w"] = new CaseData("w").Tensor(DType.F32, 256) }, Scalars = { ["eps"] = 1e-5 }, Outputs = { ["y"] = (DType.F32, [2, 256]) } };
        yield return new OpCase("rms_norm", "zeros") { Inputs = { ["x"] = HostTensor.Of(DType.F16, new float[300], 3, 100), ["w"] = new CaseData("w").Tensor(DType.F32, 100) }, Scalars = { ["eps"] = 1e-5 }, Outputs = { ["y"] = (DType.F16, [3, 100]) } };
    }

    // A residual stream of f32 between blocks of 16-bit activations.
    private static IEnumerable<OpCase> WideInputs()
    {
        foreach ((int t, int d) in new[] { (1, 64), (3, 896), (2, 101) })
        {
            foreach (DType dtype in new[] { DType.F16, DType.BF16 })
            {
                string name = $"f32 with {dtype} {t}x{d}";
                CaseData r = new("wide" + name);
                HostTensor wide = r.Tensor(DType.F32, t, d), narrow = r.Tensor(dtype, t, d), w = r.Tensor(DType.F32, d);
                yield return new OpCase("rms_norm", name) { Inputs = { ["x"] = wide, ["w"] = w }, Scalars = { ["eps"] = 1e-5 }, Outputs = { ["y"] = (dtype, [t, d]) } };
                yield return new OpCase("add_rms_norm", name) { Inputs = { ["x"] = narrow, ["residual"] = wide, ["w"] = w }, Scalars = { ["eps"] = 1e-6 }, Outputs = { ["residual"] = (DType.F32, [t, d]), ["y"] = (dtype, [t, d]) } };
                yield return new OpCase("rms_norm_add", name) { Inputs = { ["x"] = narrow, ["residual"] = wide, ["w"] = w }, Scalars = { ["eps"] = 1e-6 }, Outputs = { ["y"] = (DType.F32, [t, d]) } };
            }
        }

        int turn = 0;
        foreach (WeightEncoding encoding in new[] { WeightEncoding.F32, WeightEncoding.F16, WeightEncoding.BF16, WeightEncoding.Q4_0, WeightEncoding.Q6K })
        {
            foreach (int m in new[] { 2, 33 })
            {
                DType dtype = turn++ % 2 == 0 ? DType.F16 : DType.BF16;
                yield return Linear($"f32 to {dtype} {encoding} {m}x40x256", DType.F32, encoding, 0, m, 40, 256, true, turn % 3 == 0, dtype);
            }
        }
    }

    private static IEnumerable<OpCase> Linears()
    {
        (WeightEncoding Encoding, int Group)[] encodings =
        [
            (WeightEncoding.F32, 0), (WeightEncoding.F16, 0), (WeightEncoding.BF16, 0), (WeightEncoding.Q4_0, 0), (WeightEncoding.Q4_1, 0), (WeightEncoding.Q5_0, 0),
            (WeightEncoding.Q5_1, 0), (WeightEncoding.Q8_0, 0), (WeightEncoding.Q4K, 0), (WeightEncoding.Q5K, 0), (WeightEncoding.Q6K, 0),
            (WeightEncoding.GPTQ4, 32), (WeightEncoding.GPTQ4, 128), (WeightEncoding.AWQ4, 128), (WeightEncoding.AWQ4, 64), (WeightEncoding.INT8, 32),
        ];
        (int M, int N, int K)[] sizes = [(1, 40, 256), (2, 24, 512), (5, 8, 1280), (16, 72, 256), (17, 136, 512), (64, 64, 256)];
        int turn = 0;
        foreach ((WeightEncoding encoding, int group) in encodings)
        {
            foreach ((int m, int n, int k) in sizes)
            {
                DType dtype = Turn(turn++);
                yield return Linear($"{dtype} {encoding}{(group > 0 ? $" g{group}" : "")} {m}x{n}x{k}", dtype, encoding, group, m, n, k, bias: turn % 2 == 0, residual: turn % 5 == 0, dtype);
            }
        }

        // Odd sizes for the encodings that allow them, outputs of one, f32 outputs of 16-bit inputs.
        yield return Linear("odd f32", DType.F32, WeightEncoding.F32, 0, 3, 7, 131, true, true, DType.F32);
        yield return Linear("odd f16", DType.F16, WeightEncoding.F16, 0, 9, 33, 77, false, true, DType.F16);
        yield return Linear("one output", DType.F32, WeightEncoding.Q8_0, 0, 1, 1, 32, true, false, DType.F32);
        yield return Linear("f32 from f16", DType.F16, WeightEncoding.Q4_0, 0, 4, 16, 96, false, false, DType.F32);
        yield return Linear("q4_0 one block", DType.F32, WeightEncoding.Q4_0, 0, 6, 9, 32, false, false, DType.F32);
        OpCase ordered = Linear("act order", DType.F32, WeightEncoding.GPTQ4, 32, 3, 16, 256, false, false, DType.F32);
        CaseData r = new("act order");
        int[] permuted = r.Permutation(256);
        ordered.Weights["w"] = ordered.Weights["w"] with { Order = [.. permuted.Select(p => p / 32)] };
        yield return ordered;
    }

    // A factor and a cap of what is summed, with all else that a linear adds: each kind of kernel once for few and for many rows.
    private static IEnumerable<OpCase> ScaledLinears()
    {
        int turn = 0;
        foreach (WeightEncoding encoding in new[] { WeightEncoding.F32, WeightEncoding.F16, WeightEncoding.BF16, WeightEncoding.Q4_0, WeightEncoding.Q8_0, WeightEncoding.Q4K, WeightEncoding.Q6K, WeightEncoding.GPTQ4 })
        {
            foreach ((int m, double scale, double cap) in new[] { (1, 0.22, 0.0), (17, 1.5, 2.0), (3, 0.0, 0.5) })
            {
                DType dtype = Turn(turn++), output = turn % 2 == 0 ? DType.F32 : dtype;
                OpCase c = Linear($"{dtype} {encoding} {m}x56x512 scale {scale} cap {cap}", dtype, encoding, encoding == WeightEncoding.GPTQ4 ? 128 : 0, m, 56, 512, bias: turn % 2 == 1, residual: cap != 0.5, output);
                c.Scalars["scale"] = scale;
                c.Scalars["soft_cap"] = cap;
                yield return c;
            }
        }
    }

    // Tiles: rows that fill a tile, one more and one less; columns and depths that no tile divides, fewer steps than stages, depths that
    // blocks share; every storage in both 16-bit types and in f32, x of another type than the weight's.
    private static IEnumerable<OpCase> ManyRows()
    {
        int turn = 0;
        foreach ((int m, int n, int k) in new[] { (5, 136, 96), (16, 33, 1056), (17, 129, 32), (33, 8, 2080), (64, 130, 160), (65, 40, 64), (130, 24, 288) })
        {
            foreach ((WeightEncoding encoding, int group) in new[] { (WeightEncoding.F32, 0), (WeightEncoding.F16, 0), (WeightEncoding.BF16, 0), (WeightEncoding.Q4_0, 0), (WeightEncoding.Q4_1, 0), (WeightEncoding.Q5_1, 0), (WeightEncoding.INT8, 16), (WeightEncoding.AWQ4, 32) })
            {
                DType dtype = Turn(turn++);
                int columns = encoding == WeightEncoding.AWQ4 ? n / 8 * 8 : n;
                yield return Linear($"tiles {dtype} {encoding} {m}x{columns}x{k}", dtype, encoding, group, m, columns, k, bias: turn % 2 == 0, residual: turn % 3 == 0, turn % 4 == 0 ? DType.F32 : dtype);
            }
        }

        foreach ((WeightEncoding encoding, int group) in new[] { (WeightEncoding.Q4K, 0), (WeightEncoding.Q5K, 0), (WeightEncoding.Q6K, 0), (WeightEncoding.GPTQ4, 48), (WeightEncoding.GPTQ4V2, 768), (WeightEncoding.AWQ4, 256), (WeightEncoding.INT8, 768), (WeightEncoding.INT8, 24), (WeightEncoding.GPTQ4, 24) })
        {
            foreach (DType dtype in new[] { DType.F16, DType.BF16 })
            {
                int m = turn++ % 2 == 0 ? 7 : 20;
                yield return Linear($"tiles {dtype} {encoding} g{group} {m}x72x768", dtype, encoding, group, m, 72, 768, bias: false, residual: m == 7, DType.F32);
            }
        }

        foreach ((DType dtype, WeightEncoding encoding) in new[] { (DType.F16, WeightEncoding.Q6K), (DType.BF16, WeightEncoding.Q6K), (DType.BF16, WeightEncoding.Q8_0) })
        {
            yield return Linear($"tiles of sixteen {dtype} {encoding}", dtype, encoding, 0, 13, 72, 768, bias: true, residual: false, dtype);
        }

        // Rows that no 16 bytes divide.
        foreach ((DType dtype, WeightEncoding encoding) in new[] { (DType.F16, WeightEncoding.F16), (DType.BF16, WeightEncoding.F16), (DType.F32, WeightEncoding.BF16), (DType.BF16, WeightEncoding.F32) })
        {
            yield return Linear($"tiles of odd rows {dtype} {encoding}", dtype, encoding, 0, 19, 31, 77, true, true, dtype);
        }

        foreach ((DType dtype, WeightEncoding encoding, int rows) in new[] { (DType.F16, WeightEncoding.F16, 9), (DType.BF16, WeightEncoding.Q4_0, 70), (DType.F32, WeightEncoding.F32, 19) })
        {
            OpCase capped = Linear($"tiles capped and shared {dtype}", dtype, encoding, 0, rows, 37, 1024, true, true, dtype);
            capped.Scalars["scale"] = 0.5;
            capped.Scalars["soft_cap"] = 3;
            yield return capped;
        }
    }

    // More rows and columns than the largest tile has, in several tiles along both: every storage. More steps than stages, the last of them not
    // full; one row and some columns beyond a tile.
    private static IEnumerable<OpCase> LargeTiles()
    {
        int turn = 0;
        foreach ((DType dtype, WeightEncoding encoding, int group) in new[]
        {
            (DType.F16, WeightEncoding.F16, 0), (DType.BF16, WeightEncoding.BF16, 0), (DType.F32, WeightEncoding.F16, 0), (DType.F16, WeightEncoding.BF16, 0), (DType.F16, WeightEncoding.Q4_0, 0),
            (DType.BF16, WeightEncoding.GPTQ4, 48), (DType.F16, WeightEncoding.INT8, 16), (DType.BF16, WeightEncoding.Q8_0, 0), (DType.F16, WeightEncoding.Q5_1, 0), (DType.BF16, WeightEncoding.Q5_0, 0), (DType.F16, WeightEncoding.Q6K, 0),
            (DType.BF16, WeightEncoding.Q6K, 0), (DType.BF16, WeightEncoding.AWQ4, 128),
        })
        {
            yield return Linear($"large tiles {dtype} {encoding}", dtype, encoding, group, 129, 264, encoding switch { WeightEncoding.GPTQ4 => 240, WeightEncoding.Q6K => 512, WeightEncoding.AWQ4 => 256, _ => 224 }, bias: turn % 2 == 0, residual: turn % 3 == 0, turn++ % 4 == 3 ? DType.F32 : dtype);
        }

        yield return Linear("large tiles of odd rows", DType.F16, WeightEncoding.F16, 0, 130, 131, 77, bias: true, residual: true, DType.F16);
    }

    // GPTQ and AWQ: groups that are and are not whole blocks of a kernel, one group a row, zero points of 0, 15 and 16, act order.
    private static IEnumerable<OpCase> GroupedWeights()
    {
        foreach (WeightEncoding encoding in new[] { WeightEncoding.GPTQ4, WeightEncoding.GPTQ4V2, WeightEncoding.AWQ4 })
        {
            foreach (int group in new[] { 8, 24, 96, 384 })
            {
                foreach (bool ordered in encoding == WeightEncoding.AWQ4 ? new[] { false } : [false, true])
                {
                    string name = $"{encoding} g{group}{(ordered ? " act order" : "")}";
                    CaseData r = new(name);
                    HostWeight w = r.Weight(encoding, 24, 384, group);
                    w.Zeros.AsSpan(0, 4).Fill(0xff);
                    w.Zeros.AsSpan(4, 4).Clear();
                    w = w with { Order = ordered ? [.. r.Permutation(384).Select(p => p / group)] : [] };
                    foreach (DType dtype in new[] { DType.F32, DType.F16 })
                    {
                        int m = dtype == DType.F32 ? 1 : 5;
                        yield return new OpCase("linear", $"{name} {dtype}") { Inputs = { ["x"] = r.Tensor(dtype, m, 384) }, Weights = { ["w"] = w }, Outputs = { ["y"] = (DType.F32, [m, 24]) } };
                    }

                    yield return Embedding(name, w, DType.F32);
                }
            }
        }
    }

    // The first half of a gated feed-forward: rows that one launch takes and rows that tiles take, every storage, gates of another storage than
    // what they gate, columns and depths that no tile divides, x of f32 under 16-bit results, every activation; depths that blocks share.
    private static IEnumerable<OpCase> GatedLinears()
    {
        (WeightEncoding Encoding, int Group)[] encodings =
        [
            (WeightEncoding.F32, 0), (WeightEncoding.F16, 0), (WeightEncoding.BF16, 0), (WeightEncoding.Q4_0, 0), (WeightEncoding.Q4_1, 0), (WeightEncoding.Q5_0, 0), (WeightEncoding.Q5_1, 0),
            (WeightEncoding.Q8_0, 0), (WeightEncoding.Q4K, 0), (WeightEncoding.Q5K, 0), (WeightEncoding.Q6K, 0), (WeightEncoding.GPTQ4, 32), (WeightEncoding.AWQ4, 128), (WeightEncoding.INT8, 16),
        ];
        (int M, int F, int K)[] sizes = [(1, 40, 256), (3, 56, 1280), (8, 24, 512), (9, 72, 256), (17, 136, 512), (70, 264, 256)];
        int turn = 0;
        foreach ((WeightEncoding encoding, int group) in encodings)
        {
            foreach ((int m, int f, int k) in sizes)
            {
                DType output = Turn(turn), input = turn % 2 == 0 ? DType.F32 : output;
                yield return Gated($"{input} to {output} {encoding}{(group > 0 ? $" g{group}" : "")} {m}x{f}x{k}", input, output, encoding, encoding, group, m, f, k, norm: turn % 3 != 0, bias: turn % 4 == 1, activation: turn++ % 4);
            }
        }

        yield return Gated("odd rows", DType.F16, DType.F16, WeightEncoding.F16, WeightEncoding.F16, 0, 4, 37, 77, norm: true, bias: true, activation: 0);
        yield return Gated("odd rows in tiles", DType.F16, DType.F16, WeightEncoding.F16, WeightEncoding.F16, 0, 12, 37, 77, norm: false, bias: true, activation: 1);
        yield return Gated("odd rows normalised, many", DType.F32, DType.BF16, WeightEncoding.BF16, WeightEncoding.BF16, 0, 12, 37, 77, norm: true, bias: false, activation: 2);
        yield return Gated("gate and up of two widths", DType.F32, DType.F16, WeightEncoding.Q4K, WeightEncoding.Q6K, 0, 3, 48, 512, norm: true, bias: false, activation: 0);
        yield return Gated("gate and up of one width", DType.F32, DType.BF16, WeightEncoding.Q4K, WeightEncoding.Q4_0, 0, 5, 48, 512, norm: true, bias: false, activation: 0);
        yield return Gated("gate and up of two types", DType.BF16, DType.BF16, WeightEncoding.F16, WeightEncoding.BF16, 0, 20, 48, 128, norm: true, bias: false, activation: 0);
        yield return Gated("more than shared memory", DType.F16, DType.F16, WeightEncoding.Q4_0, WeightEncoding.Q4_0, 0, 8, 16, 8192, norm: true, bias: false, activation: 0);
        yield return Gated("one long row", DType.F32, DType.F16, WeightEncoding.Q4_0, WeightEncoding.Q4_0, 0, 1, 8, 20544, norm: true, bias: false, activation: 3);
    }

    public static OpCase Gated(string name, DType input, DType output, WeightEncoding gate, WeightEncoding up, int group, int m, int f, int k, bool norm, bool bias, int activation)
    {
        CaseData r = new("gated" + name);
        OpCase c = new("gated_linear", name)
        {
            Inputs = { ["x"] = r.Tensor(input, m, k) }, Weights = { ["gate"] = r.Weight(gate, f, k, group), ["up"] = r.Weight(up, f, k, group) },
            Scalars = { ["activation"] = activation }, Outputs = { ["y"] = (output, [m, f]) }, Flops = 4L * m * f * k,
        };
        if (norm)
        {
            c.Inputs["norm_weight"] = r.Tensor(bias ? output : DType.F32, k);
        }

        if (bias)
        {
            c.Inputs["bias_gate"] = r.Tensor(DType.F32, f);
            c.Inputs["bias_up"] = r.Tensor(output, f);
        }

        return c;
    }

    private static IEnumerable<OpCase> Embeddings()
    {
        foreach (WeightEncoding encoding in Enum.GetValues<WeightEncoding>())
        {
            int group = encoding is WeightEncoding.GPTQ4 or WeightEncoding.GPTQ4V2 or WeightEncoding.AWQ4 or WeightEncoding.INT8 ? 64 : 0;
            foreach (DType dtype in Activations)
            {
                yield return Embedding($"every encoding {dtype} {encoding}", new CaseData($"embedding {encoding}").Weight(encoding, 24, 512, group), dtype);
            }
        }
    }

    private static OpCase Embedding(string name, HostWeight table, DType dtype) => new("embedding", name)
    {
        Inputs = { ["ids"] = HostTensor.Of([5, 0, 23, 5, -1, 24]) }, Weights = { ["table"] = table }, Scalars = { ["scale"] = 22.627417 }, Outputs = { ["y"] = (dtype, [6, table.Cols]) },
    };

    public static OpCase Linear(string name, DType dtype, WeightEncoding encoding, int group, int m, int n, int k, bool bias, bool residual, DType output, HostWeight? weight = null)
    {
        CaseData r = new("linear" + name);
        HostWeight w = weight ?? r.Weight(encoding, n, k, group);
        OpCase c = new("linear", name)
        {
            Inputs = { ["x"] = r.Tensor(dtype, m, k) }, Weights = { ["w"] = w }, Outputs = { ["y"] = (output, [m, n]) },
            Flops = 2L * m * n * k,
        };
        if (bias)
        {
            c.Inputs["bias"] = r.Tensor(DType.F32, n);
        }

        if (residual)
        {
            c.Inputs["residual"] = r.Tensor(output, m, n);
        }

        return c;
    }

    private static IEnumerable<OpCase> Pointwise()
    {
        foreach (DType dtype in Activations)
        {
            CaseData r = new($"pointwise {dtype}");
            foreach (WeightEncoding encoding in new[] { WeightEncoding.F32, WeightEncoding.F16, WeightEncoding.Q4_0, WeightEncoding.Q8_0, WeightEncoding.Q6K, WeightEncoding.Q4K })
            {
                yield return new OpCase("embedding", $"{dtype} {encoding}")
                {
                    Inputs = { ["ids"] = HostTensor.Of([5, 0, 18, 5, -1, 19]) }, Weights = { ["table"] = r.Weight(encoding, 19, 256) }, Scalars = { ["scale"] = encoding == WeightEncoding.F32 ? 1 : 3.5 },
                    Outputs = { ["y"] = (dtype, [6, 256]) },
                };
            }

            foreach (int d in new[] { 37, 64 })
            {
                yield return new OpCase("gather", $"{dtype} {d}") { Inputs = { ["x"] = r.Tensor(dtype, 9, d), ["rows"] = HostTensor.Of([8, 0, 0, 9, 3]) }, Outputs = { ["y"] = (dtype, [5, d]) } };
            }

            foreach (Activation activation in Enum.GetValues<Activation>())
            {
                yield return new OpCase("gated_activation", $"{dtype} {activation}")
                {
                    Inputs = { ["gate"] = HostTensor.Of(dtype, r.Normal(3 * 173, 4), 3, 173), ["up"] = r.Tensor(dtype, 3, 173) }, Scalars = { ["activation"] = (int)activation }, Outputs = { ["y"] = (dtype, [3, 173]) },
                };
            }

            foreach ((RopeKind kind, int h, int d, int rotated) in new[] { (RopeKind.Half, 3, 64, 64), (RopeKind.Interleaved, 2, 64, 64), (RopeKind.Half, 1, 96, 32), (RopeKind.Interleaved, 4, 10, 6) })
            {
                yield return new OpCase("rope", $"{dtype} {kind} {h}x{d} r{rotated}")
                {
                    Inputs = { ["x"] = r.Tensor(dtype, 5, h, d), ["positions"] = HostTensor.Of([0, 1, 77, 8191, 1 << 20]), ["inv_freq"] = HostTensor.Of(DType.F32, InvFreq(rotated), rotated / 2) },
                    Scalars = { ["kind"] = (int)kind, ["scale"] = kind == RopeKind.Half ? 1 : 1.25 }, Outputs = { ["y"] = (dtype, [5, h, d]) },
                };
            }
        }
    }

    public static float[] InvFreq(int rotated) => [.. Enumerable.Range(0, rotated / 2).Select(i => MathF.Pow(10000, -2f * i / rotated))];

    private static IEnumerable<OpCase> States()
    {
        foreach (DType dtype in Activations)
        {
            CaseData r = new($"states {dtype}");
            float[] lse = r.Normal(3 * 5 * 4, 3);
            float[] o = r.Normal(3L * 5 * 4 * 32);
            // One row without any key, one with a single state, one whose empty state holds NaN, one far below the others.
            lse[0] = lse[20] = lse[40] = float.NegativeInfinity;
            lse[1] = lse[21] = float.NegativeInfinity;
            o[32] = float.NaN;
            lse[2] = -5e5f;
            lse[3] = lse[23] = lse[43] = -5e5f;
            yield return new OpCase("merge_states", $"{dtype}")
            {
                Inputs = { ["o"] = HostTensor.Of(dtype, o, 3, 5, 4, 32), ["lse2"] = HostTensor.Of(DType.F32, lse, 3, 5, 4) }, Outputs = { ["y"] = (dtype, [5, 4, 32]), ["y_lse2"] = (DType.F32, [5, 4]) },
            };
            yield return new OpCase("merge_states", $"{dtype} one state")
            {
                Inputs = { ["o"] = r.Tensor(dtype, 1, 2, 3, 20), ["lse2"] = r.Tensor(DType.F32, 1, 2, 3) }, Outputs = { ["y"] = (dtype, [2, 3, 20]) },
            };
        }
    }

    private static IEnumerable<OpCase> Sampling()
    {
        foreach ((int b, int v) in new[] { (1, 512), (4, 1000), (3, 33), (2, 1) })
        {
            CaseData r = new($"sampling {b}x{v}");
            HostTensor logits = HostTensor.Of(DType.F32, r.Normal((long)b * v, 3), b, v);
            yield return new OpCase("argmax", $"{b}x{v}") { Inputs = { ["logits"] = logits }, Outputs = { ["ids"] = (DType.I32, [b]) } };
            yield return new OpCase("log_probs", $"{b}x{v}")
            {
                Inputs = { ["logits"] = logits, ["ids"] = HostTensor.Of(r.Ints(b, v)) }, Outputs = { ["log_probs"] = (DType.F32, [b]), ["top_ids"] = (DType.I32, [b, Math.Min(v, 5)]), ["top_log_probs"] = (DType.F32, [b, Math.Min(v, 5)]) },
            };
            yield return new OpCase("penalties", $"{b}x{v}")
            {
                Inputs =
                {
                    ["logits"] = logits, ["history"] = HostTensor.Of([.. r.Ints(b * 10, v), -1, v]), ["history_indptr"] = HostTensor.Of([.. Enumerable.Range(0, b).Select(i => i * 10), (b * 10) + 2]),
                    ["repetition"] = HostTensor.Of(DType.F32, [.. Enumerable.Range(0, b).Select(i => 1 + (0.2f * i))], b), ["presence"] = r.Tensor(DType.F32, b), ["frequency"] = r.Tensor(DType.F32, b),
                    ["bias_ids"] = HostTensor.Of(r.Ints(b * 2, v)), ["bias_values"] = r.Tensor(DType.F32, b * 2), ["bias_indptr"] = HostTensor.Of([.. Enumerable.Range(0, b + 1).Select(i => i * 2)]),
                },
                Outputs = { ["logits"] = (DType.F32, [b, v]) },
            };
            foreach ((float temperature, int k, float p, float min) in new[] { (0f, 0, 1f, 0f), (1f, 0, 1f, 0f), (0.8f, 40, 1f, 0f), (1.2f, 0, 0.9f, 0f), (1f, 0, 1f, 0.05f), (0.7f, 20, 0.8f, 0.1f), (1f, 1, 1f, 0f) })
            {
                yield return new OpCase("sample", $"{b}x{v} t{temperature} k{k} p{p} m{min}")
                {
                    Inputs =
                    {
                        ["logits"] = logits, ["temperature"] = HostTensor.Of(DType.F32, Enumerable.Repeat(temperature, b).ToArray(), b), ["top_k"] = HostTensor.Of(Enumerable.Repeat(k, b).ToArray()),
                        ["top_p"] = HostTensor.Of(DType.F32, Enumerable.Repeat(p, b).ToArray(), b), ["min_p"] = HostTensor.Of(DType.F32, Enumerable.Repeat(min, b).ToArray(), b),
                        ["seed"] = HostTensor.Of([.. Enumerable.Range(0, b).Select(i => (1L << 40) + i)]), ["position"] = HostTensor.Of([.. Enumerable.Range(0, b).Select(i => (long)(100 * i))]),
                    },
                    Outputs = { ["ids"] = (DType.I32, [b]) },
                };
            }
        }

        // Ties go to the lowest id; NaN never wins.
        yield return new OpCase("argmax", "ties and NaN") { Inputs = { ["logits"] = HostTensor.Of(DType.F32, [1, 3, 3, 2, float.NaN, 3, -1, 3, float.NaN, float.NaN, float.NaN, float.NaN, float.NegativeInfinity, float.NegativeInfinity, -5e5f, float.NegativeInfinity], 4, 4) }, Outputs = { ["ids"] = (DType.I32, [4]) } };
        yield return new OpCase("log_probs", "far below") { Inputs = { ["logits"] = HostTensor.Of(DType.F32, [-5e5f, -5e5f, -5e5f, -5e5f, 0, float.NegativeInfinity, 1, 2], 2, 4), ["ids"] = HostTensor.Of([2, 3]) }, Outputs = { ["log_probs"] = (DType.F32, [2]), ["top_ids"] = (DType.I32, [2, 4]), ["top_log_probs"] = (DType.F32, [2, 4]) } };
    }
}
