using Sluice.Interop;

namespace Sluice.Kernels;

public static partial class AttentionCases
{
    /// <summary>KV lengths, queries, pages, groups and head dims in all combinations that the reference can follow; then mixes of sequences.</summary>
    public static IEnumerable<GridCase> Grid(double most)
    {
        int[] lengths = [54, 97, 512, 2048, 16384], queries = [1, 17, 37, 127, 577], pages = [1, 8, 16, 64], groups = [1, 4, 7, 8];
        int turn = 0;
        foreach (int length in lengths)
        {
            foreach (int q in queries.Where(q => q <= length))
            {
                foreach (int group in groups)
                {
                    foreach (int d in new[] { 64, 128, 256 })
                    {
                        // Page sizes and element types by turns: they meet all others somewhere.
                        int page = pages[turn % pages.Length];
                        DType dtype = (turn++ / 4 % 4) switch { 0 or 1 => DType.F16, 2 => DType.BF16, _ => DType.F32 };
                        int[] counts = length <= 2048 ? [q, 1] : [q], kept = length <= 2048 ? [length, length / 2] : [length];
                        double cost = 2.0 * q * length * group * d * (length > 2048 ? 1 : 2);
                        if (cost > most)
                        {
                            continue;
                        }

                        Shape s = new($"kv {length} q {q} group {group} D {d} page {page} {dtype}", counts, kept, H: length > 2048 ? group : 2 * group, Hkv: length > 2048 ? 1 : 2, D: d, Page: page);
                        yield return new GridCase("paged_attention", s.Name, cost, () => Attention("paged_attention", "grid " + s.Name, s, dtype, dtype, causal: true));
                    }
                }
            }
        }

        (string Name, int[] Queries, int[] Lengths)[] mixes =
        [
            ("77 of 2048", Many(77, 1), Many(77, 2048)),
            ("264 of 600 and 128 of 5000 with 3", [.. Many(264, 1), .. Many(128, 3)], [.. Many(264, 600), .. Many(128, 5000)]),
            ("100 of 1024 and 8 of 8192 with 17", [.. Many(100, 1), .. Many(8, 17)], [.. Many(100, 1024), .. Many(8, 8192)]),
            ("1 of 32768 among 63 of 100", [1, .. Many(63, 1)], [32768, .. Many(63, 100)]),
            ("empty ones between", [1, 0, 5, 0, 1], [400, 0, 5, 70, 1000]),
        ];
        foreach ((string name, int[] counts, int[] kept) in mixes)
        {
            foreach (DType dtype in new[] { DType.F16, DType.BF16 })
            {
                Shape s = new($"mix {name} {dtype}", counts, kept, H: 4, Hkv: 1, D: 64);
                yield return new GridCase("paged_attention", s.Name, 2.0 * counts.Zip(kept, (a, b) => (double)a * b).Sum() * 4 * 64, () => Attention("paged_attention", "grid " + s.Name, s, dtype, dtype, causal: true));
            }
        }

        foreach (int prefix in new[] { 1024, 2048, 8192 })
        {
            foreach (int suffix in new[] { 1, 128, 500 })
            {
                foreach (int batch in new[] { 8, 64 })
                {
                    foreach ((int h, int kv) in new[] { (8, 8), (8, 2) })
                    {
                        Shape s = new($"prefix {prefix} suffix {suffix} bs {batch} {h}/{kv}", Many(batch, 1), Many(batch, prefix + suffix), H: h, Hkv: kv, D: 128) { Prefixes = [new SharedPrefix(0, batch, 0, prefix)] };
                        double cost = 2.0 * batch * (prefix + suffix) * h * 128;
                        if (cost > most || (double)batch * (prefix + suffix) * kv > 1 << 19)
                        {
                            continue;
                        }

                        yield return new GridCase("cascade_attention", s.Name, cost, () => Attention("cascade_attention", "grid " + s.Name, s, DType.F16, DType.F16, causal: true));
                    }
                }
            }
        }

        static int[] Many(int count, int value) => [.. Enumerable.Repeat(value, count)];
    }
}
