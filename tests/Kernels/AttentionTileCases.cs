using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>What breaks kernels that take tiles of query rows, and cascades.</summary>
public static partial class AttentionCases
{
    // Prompts, chunks, decode of large groups, speculated tokens, and all of them in one step.
    private static readonly Shape[] TileShapes =
    [
        new("130 rows", [130], [130], H: 2, Hkv: 2),
        new("group 3, D 80, page 1", [65, 1, 0, 17], [200, 33, 0, 17], H: 6, Hkv: 2, D: 80, Page: 1),
        new("D 96 to 64, page 64", [37, 5], [300, 5], H: 4, Hkv: 1, D: 96, Page: 64) { Dv = 64 },
        new("group 7, D 128, page 256", [16, 17], [280, 17], H: 7, Hkv: 1, D: 128, Page: 256),
        new("group 8, D 256", [9], [300], H: 8, Hkv: 1, D: 256),
        new("decode of group 8", [1, 1, 1], [700, 31, 290], H: 16, Hkv: 2, D: 128),
        new("decode of group 4, D 64 to 128", [1, 1], [300, 45], H: 8, Hkv: 2, D: 64) { Dv = 128 },
        new("decode of group 20, D 256", [1, 1], [70, 33], H: 20, Hkv: 1, D: 256),
        new("speculated 3 to 5", [5, 3, 4], [261, 40, 4], H: 8, Hkv: 2, D: 128, Page: 64),
        new("speculated 4, one head a group", [4, 4, 4], [100, 64, 65], H: 2, Hkv: 2, D: 80),
        new("decode beside prompts", [1, 40, 1, 7], [90, 40, 300, 260]),
        new("D 8 to 24", [20, 40], [50, 40], D: 8) { Dv = 24 },
        new("D 40 to 200", [33], [65], D: 40, H: 4, Hkv: 4) { Dv = 200 },
        new("many sequences, some empty", [3, 0, 1, 9, 0, 0, 2, 1, 1, 30, 0, 5, 1, 0, 8, 2, 1, 1, 0, 4], [3, 9, 40, 9, 0, 30, 7, 1, 20, 33, 5, 5, 64, 0, 65, 16, 17, 2, 0, 100], H: 3, Hkv: 1),
        // In f32 48 KB of dynamic shared memory to the byte, and static arrays beside them.
        new("D 160 to 184", [9], [40], D: 160, H: 2, Hkv: 1) { Dv = 184 },
    ];

    public static IEnumerable<OpCase> Tiles()
    {
        for (int i = 0; i < TileShapes.Length; i++)
        {
            Shape s = TileShapes[i];
            yield return Attention("paged_attention", $"eight bits: {s.Name}", s, i % 3 == 0 ? DType.BF16 : DType.F16, i % 2 == 0 ? DType.FP8E4M3 : DType.I8, causal: true, padding: i % 4);
        }

        foreach (DType kv in new[] { DType.FP8E4M3, DType.I8 })
        {
            foreach (DType dtype in new[] { DType.F16, DType.BF16, DType.F32 })
            {
                OpCase Of(string what, Shape s) => Attention("paged_attention", $"{kv}: {what} {dtype}", s, dtype, kv, causal: true, padding: 1);
                yield return Of("decode", new Shape("", [1, 1], [300, 17], D: 80));
                yield return Of("prompt", new Shape("", [20, 35], [70, 35], D: 64));
                yield return Masked(With(Of("masks, window and cap", new Shape("", [5, 1, 3], [261, 70, 3], H: 4, Hkv: 1, D: 96)), c => (c.Scalars["window"], c.Scalars["soft_cap"]) = (200, 9)));
                yield return Scaled(Of("values of very different magnitudes", new Shape("", [9, 2], [130, 75], D: 32)));
            }
        }

        float[] sinks = [0, 2, -3, 6], slopes = [0.5f, 0.25f, 0.125f, 0.0625f];
        for (int i = 0; i < TileShapes.Length; i++)
        {
            Shape s = TileShapes[i];
            foreach (DType dtype in new[] { i % 2 == 0 ? DType.F16 : DType.BF16, DType.F32 })
            {
                yield return Attention("paged_attention", $"tiles: {s.Name} {dtype}", s, dtype, dtype, causal: true, padding: i % 4);
            }
        }

        yield return Attention("paged_attention", "tiles: f16 on bf16 KV", TileShapes[10], DType.F16, DType.BF16, causal: true);
        yield return Attention("paged_attention", "tiles: bf16 on f32 KV", TileShapes[2], DType.BF16, DType.F32, causal: true);
        Shape chunk = new("chunk", [40, 1, 17], [170, 300, 17]), few = new("few", [5, 1, 3], [261, 70, 3], H: 4, Hkv: 1, D: 96);
        foreach (Shape s in new[] { chunk, few })
        {
            foreach (DType dtype in new[] { DType.F32, s == few ? DType.BF16 : DType.F16 })
            {
                OpCase Of(string what, bool causal = true, int padding = 0) => Attention("paged_attention", $"tiles, {s.Name}: {what} {dtype}", s, dtype, dtype, causal, padding);
                yield return Of("not causal", causal: false);
                yield return With(Of("window 70"), c => c.Scalars["window"] = 70);
                yield return With(Of("window 1"), c => c.Scalars["window"] = 1);
                yield return With(Of("window, not causal", causal: false), c => c.Scalars["window"] = 33);
                yield return With(Of("soft cap"), c => c.Scalars["soft_cap"] = 5);
                yield return With(Of("sinks", padding: 3), c => c.Inputs["sinks"] = HostTensor.Of(DType.F32, sinks, 4));
                yield return With(Of("ALiBi"), c => c.Inputs["alibi_slopes"] = HostTensor.Of(DType.F32, slopes, 4));
                yield return Masked(Of("tree mask"));
                yield return With(Masked(Of("tree mask and window")), c => c.Scalars["window"] = 50);
                yield return Unseen(Masked(Of("infinity that nobody sees")));
                yield return Late(Of("infinity that the last rows see"));
                yield return With(Of("scores of -5e5"), c =>
                {
                    c.Scalars["scale"] = 1;
                    c.Inputs["q"] = HostTensor.Of(dtype, [.. c.Inputs["q"].ToDoubles().Select(v => (float)v * 3000)], c.Inputs["q"].Shape);
                });
                yield return With(Masked(Of("everything at once", padding: 2)), c =>
                {
                    c.Scalars["window"] = 100;
                    c.Scalars["soft_cap"] = 30;
                    c.Inputs["sinks"] = HostTensor.Of(DType.F32, sinks, 4);
                    c.Inputs["alibi_slopes"] = HostTensor.Of(DType.F32, slopes, 4);
                });
            }
        }
    }

    public static IEnumerable<OpCase> Cascades()
    {
        SharedPrefix[] three = [new(0, 4, 0, 256), new(0, 2, 256, 256), new(2, 2, 256, 512), new(0, 1, 512, 256), new(4, 2, 0, 512)];
        SharedPrefix[] five = [new(0, 3, 0, 256), new(0, 3, 256, 256), new(0, 2, 512, 256), new(0, 2, 768, 256), new(0, 2, 1024, 256)];
        Shape[] shapes =
        [
            new("decode", [1, 1, 1, 1, 1], [520, 600, 513, 770, 40]) { Prefixes = [new(0, 4, 0, 512)] },
            new("decode of group 8", [1, 1, 1, 1], [300, 257, 290, 512], H: 8, Hkv: 1, D: 128) { Prefixes = [new(0, 4, 0, 256)] },
            new("prompts", [9, 1, 40], [265, 300, 296]) { Prefixes = [new(0, 3, 0, 256)] },
            new("three levels", [1, 1, 1, 2, 1, 1, 0, 1], [800, 520, 780, 790, 513, 530, 0, 20], H: 3, Hkv: 1) { Prefixes = three },
            new("three levels, prompts", [7, 20, 1, 2, 3, 1, 0, 5], [775, 532, 780, 790, 515, 530, 0, 20], H: 4, Hkv: 2, D: 40) { Prefixes = three },
            new("five levels", [1, 3, 2], [1300, 1283, 520], H: 2, Hkv: 1) { Prefixes = five },
        ];
        for (int i = 0; i < shapes.Length; i++)
        {
            Shape s = shapes[i];
            foreach (DType dtype in new[] { i % 2 == 0 ? DType.F16 : DType.BF16, DType.F32 })
            {
                yield return Attention("cascade_attention", $"levels: {s.Name} {dtype}", s, dtype, dtype, causal: true, padding: i % 3);
            }
        }

        // More tiles than the executor's stream has counters: their states are joined by a launch of their own.
        Shape many = new("many heads", [.. Enumerable.Repeat(1, 18)], [.. Enumerable.Range(0, 18).Select(b => 257 + (3 * b))], H: 16, Hkv: 8, D: 16) { Prefixes = [new SharedPrefix(0, 18, 0, 256)] };
        yield return Attention("cascade_attention", $"levels: {many.Name}", many, DType.F16, DType.F16, causal: true);
        yield return Attention("cascade_attention", "levels: I8", shapes[3], DType.F16, DType.I8, causal: true, padding: 1);
        yield return Attention("cascade_attention", "levels: FP8 prompts", shapes[2], DType.BF16, DType.FP8E4M3, causal: true);
        yield return Attention("cascade_attention", "levels: FP8 for f32", shapes[0], DType.F32, DType.FP8E4M3, causal: true);
        foreach (Shape s in new[] { shapes[2], shapes[3] })
        {
            foreach (DType dtype in new[] { DType.F16, DType.F32 })
            {
                OpCase Of(string what) => Attention("cascade_attention", $"levels, {s.Name}: {what} {dtype}", s, dtype, dtype, causal: true, padding: 2);
                yield return With(Of("window 30"), c => c.Scalars["window"] = 30);
                yield return With(Of("window 400 and soft cap"), c => (c.Scalars["window"], c.Scalars["soft_cap"]) = (400, 4));
                yield return With(Of("sinks"), c => c.Inputs["sinks"] = HostTensor.Of(DType.F32, [.. Enumerable.Range(0, s.H).Select(h => (2f * h) - 3)], s.H));
                yield return With(Of("ALiBi"), c => c.Inputs["alibi_slopes"] = HostTensor.Of(DType.F32, [.. Enumerable.Range(1, s.H).Select(h => 0.1f / h)], s.H));
                yield return Masked(Of("masks"));
            }
        }
    }

    // Tokens whose values are thousands of times larger or smaller than others'.
    private static OpCase Scaled(OpCase c)
    {
        int stride = c.HistoryV!.Data.Length / c.History.Sum();
        for (int at = 0; at < c.HistoryV.Data.Length; at += sizeof(float))
        {
            float factor = (at / stride % 7) switch { 0 => 3000, 3 => 1e-3f, _ => 1 };
            BitConverter.TryWriteBytes(c.HistoryV.Data.AsSpan(at), BitConverter.ToSingle(c.HistoryV.Data, at) * factor);
        }

        return c;
    }

    // An infinite value in the third last slot of the first sequence: the rows before it must not feel it.
    private static OpCase Late(OpCase c)
    {
        int stride = c.HistoryV!.Data.Length / c.History.Sum(), key = c.History[0] - 3;
        for (int at = key * stride; at < (key + 1) * stride; at += sizeof(float))
        {
            BitConverter.TryWriteBytes(c.HistoryV.Data.AsSpan(at), float.PositiveInfinity);
        }

        return c;
    }
}
