using System.Collections;
using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>
/// The bytes that an op must move at least, whoever computes it: each input once, each output once, weights as the backend
/// stores them, a row of the KV cache once for its KV head and all queries of its sequence (of all sequences that share a
/// prefix, in a cascade). The plan's numbers and page ids are left out: they are few.
/// </summary>
public static class Minimum
{
    /// <param name="c">The case.</param>
    /// <param name="weightBytes">Bytes of a weight of the case, as the device keeps it.</param>
    public static long Of(OpCase c, Func<string, long> weightBytes)
    {
        switch (c.Op)
        {
            case "embedding":
                HostWeight table = c.Weights["table"];
                return Inputs(c) + Outputs(c) + (Distinct(c.Inputs["ids"], table.Rows) * weightBytes("table") / table.Rows);
            case "gather":
                HostTensor x = c.Inputs["x"];
                return Bytes(c.Inputs["rows"]) + Outputs(c) + (Distinct(c.Inputs["rows"], x.Shape[0]) * x.Data.Length / x.Shape[0]);
            case "penalties":
                // In place: of the logits only those that the history or a bias names.
                return Inputs(c) - Bytes(c.Inputs["logits"]) + (2 * sizeof(float) * Touched(c));
            case "copy_pages":
                return 2 * (c.Inputs["sources"].Data.Length / sizeof(int)) * c.Cache!.PageSize * RowBytes(c.Cache);
            case "save_pages" or "load_pages":
                return 2 * (c.Inputs["pages"].Data.Length / sizeof(int)) * c.Cache!.Layers * c.Cache.PageSize * RowBytes(c.Cache);
            case "kv_append":
                return Bytes(c.Inputs["k"]) + Bytes(c.Inputs["v"]) + Appended(c);
            case "fused_qkv":
                return Inputs(c) - (c.Inputs.TryGetValue("cache_rows", out HostTensor? rows) ? Bytes(rows) : 0) + c.Weights.Keys.Sum(weightBytes) + OutputBytes(c, "q") + Appended(c);
            case "paged_attention" or "cascade_attention":
                return Inputs(c) + Outputs(c) + KvBytes(c);
            default:
                return Inputs(c) + Outputs(c) + c.Weights.Keys.Sum(weightBytes);
        }
    }

    /// <summary>Bytes of keys and values that some query sees, each row once for its head; in a cascade also once for all sequences that share it.</summary>
    /// <param name="c">The case.</param>
    /// <param name="masked">A key that a mask hides from all is not seen.</param>
    public static long KvBytes(OpCase c, bool masked = true)
    {
        // One bit a slot of the cache: of all sequences together where they share, else of one after the other.
        HostStep s = c.Step!;
        int window = (int)c.Scalar("window"), page = c.Cache!.PageSize;
        bool shared = c.Op == "cascade_attention";
        BitArray rows = new(c.Cache.Pages * page);
        long count = 0;
        for (int b = 0; b < s.Sequences; b++)
        {
            int queries = s.QueryIndptr[b + 1] - s.QueryIndptr[b], length = s.KvLengths[b], width = (length + 7) / 8;
            bool hides = masked && s.MaskIndptr.Length > 0 && s.MaskIndptr[b + 1] > s.MaskIndptr[b];
            // Without a mask the last query sees to the end, and the first as far back as the window goes.
            int first = queries == 0 ? length : window > 0 ? Math.Max(0, length - queries - window + 1) : 0;
            if (!shared && !hides)
            {
                count += length - first;
                continue;
            }

            for (int key = first; key < length; key++)
            {
                bool seen = !hides;
                for (int i = 0; i < queries && !seen; i++)
                {
                    seen = (window <= 0 || key > length - queries + i - window) && (s.Mask[s.MaskIndptr[b] + (i * width) + (key / 8)] >> (key % 8) & 1) != 0;
                }

                int row = (s.PageIds[s.PageIndptr[b] + (key / page)] * page) + (key % page);
                if (seen && !(shared && rows[row]))
                {
                    rows[row] = shared;
                    count++;
                }
            }
        }

        return count * RowBytes(c.Cache!);
    }

    /// <summary>Bytes of a token's keys and values in the cache, all heads.</summary>
    public static long RowBytes(KvCacheOptions cache)
    {
        bool scaled = cache.DType is DType.I8 or DType.FP8E4M3;
        return cache.KvHeads * (((cache.KeyDim + cache.ValueDim) * cache.DType.Size()) + (scaled ? 2L * sizeof(float) : 0));
    }

    private static long Appended(OpCase c) => c.Step!.Tokens * RowBytes(c.Cache!);

    private static long Bytes(HostTensor t) => t.Data.Length;

    private static long Inputs(OpCase c) => c.Inputs.Values.Sum(Bytes);

    private static long Outputs(OpCase c) => c.Outputs.Keys.Sum(name => OutputBytes(c, name));

    private static long OutputBytes(OpCase c, string name) => c.Outputs[name].Shape.Aggregate((long)c.Outputs[name].DType.Size(), (a, b) => a * b);

    private static long Distinct(HostTensor ids, long below) => ids.ToDoubles().Where(i => i >= 0 && i < below).Distinct().Count();

    private static long Touched(OpCase c)
    {
        long vocabulary = c.Inputs["logits"].Shape[1], touched = 0;
        for (int b = 0; b < c.Inputs["logits"].Shape[0]; b++)
        {
            touched += Row("history", "history_indptr", b).Concat(Row("bias_ids", "bias_indptr", b)).Where(i => i >= 0 && i < vocabulary).Distinct().Count();
        }

        return touched;

        IEnumerable<double> Row(string values, string indptr, int b) => c.Inputs.TryGetValue(values, out HostTensor? t)
            ? t.ToDoubles()[(int)c.Inputs[indptr].ToDoubles()[b]..(int)c.Inputs[indptr].ToDoubles()[b + 1]]
            : [];
    }
}
