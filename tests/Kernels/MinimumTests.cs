using Sluice.Interop;

namespace Sluice.Kernels;

public class MinimumTests
{
    /// <summary>What is counted by ranges and bits is what comes of asking for every query whether it sees every key.</summary>
    [Fact]
    public void Least_bytes_of_keys_are_those_that_some_query_sees()
    {
        OpCase[] cases = [.. KernelCases.All.Where(c => c.Op is "paged_attention" or "cascade_attention"), .. AttentionCases.TimedSmall().Select(c => c.Make())];
        Assert.Contains(cases, c => c.Step!.Mask.Length > 0);
        Assert.Contains(cases, c => c.Scalar("window") > 0);
        Assert.Contains(cases, c => c.Scalar("causal") == 0);
        Assert.All(cases, c => Assert.Equal(Seen(c, masked: true), Minimum.KvBytes(c)));
        Assert.All(cases, c => Assert.Equal(Seen(c, masked: false), Minimum.KvBytes(c, masked: false)));
    }

    private static long Seen(OpCase c, bool masked)
    {
        HashSet<(int Sequence, int Page, int Slot)> rows = [];
        HostStep s = c.Step!;
        int window = (int)c.Scalar("window"), page = c.Cache!.PageSize;
        for (int b = 0; b < s.Sequences; b++)
        {
            int queries = s.QueryIndptr[b + 1] - s.QueryIndptr[b], length = s.KvLengths[b], width = (length + 7) / 8;
            bool hides = masked && s.MaskIndptr.Length > 0 && s.MaskIndptr[b + 1] > s.MaskIndptr[b];
            for (int key = 0; key < length; key++)
            {
                bool seen = false;
                for (int i = 0; i < queries && !seen; i++)
                {
                    int slot = length - queries + i;
                    seen = (window <= 0 || key > slot - window)
                        && (hides ? (s.Mask[s.MaskIndptr[b] + (i * width) + (key / 8)] >> (key % 8) & 1) != 0 : c.Scalar("causal") == 0 || key <= slot);
                }

                if (seen)
                {
                    rows.Add((c.Op == "cascade_attention" ? 0 : b, s.PageIds[s.PageIndptr[b] + (key / page)], key % page));
                }
            }
        }

        return rows.Count * Minimum.RowBytes(c.Cache);
    }
}
