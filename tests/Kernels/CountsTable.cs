using System.Globalization;
using System.Text;
using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>The first part of perf/COUNTS.md: what each counted case moves, and by which kernels.</summary>
public static class CountsTable
{
    /// <param name="device">The executor.</param>
    /// <param name="invariant">The same in the invariant mode.</param>
    public static string Write(Device device, Device invariant)
    {
        StringBuilder text = new();
        text.Append("| op | case | launches | least bytes | moved / least | sector use | bank conflicts | mma | kernels |\n|---|---|---|---|---|---|---|---|---|\n");
        foreach (OpCase c in CountedCases.All)
        {
            using OpRunner runner = new(device, c);
            CountedRun run = CountedRun.Of(device, runner, c);
            Counters n = run.Counters;
            string kernels = string.Join(", ", run.Kernels.Select(k => k.Kernel.Replace("_kernel", "", StringComparison.Ordinal) + (k.Counters.Launches > 1 ? $" x{k.Counters.Launches}" : "")));
            text.Append(CultureInfo.InvariantCulture, $"| {c.Op} | {c.Name} | {n.Launches} | {run.MinimumBytes:#,0} | {run.Ratio:0.00} | {100 * run.SectorUse:0}% | {n.BankConflicts:#,0} | {n.Mma:#,0} | {kernels} |\n");
        }

        text.Append("\nWhat the invariant mode costs, where it costs something: the same cases, moved and tensor-core instructions over those above.\n\n| op | case | moved | mma |\n|---|---|---|---|\n");
        foreach (OpCase c in CountedCases.All.Where(c => c.Op is "paged_attention" or "cascade_attention" or "linear" or "gated_linear" or "fused_qkv"))
        {
            using OpRunner fast = new(device, c), slow = new(invariant, c);
            CountedRun before = CountedRun.Of(device, fast, c), after = CountedRun.Of(invariant, slow, c);
            double moved = after.MovedBytes / (double)before.MovedBytes, products = before.Counters.Mma == 0 ? 1 : after.Counters.Mma / (double)before.Counters.Mma;
            if (Math.Abs(moved - 1) > 0.01 || Math.Abs(products - 1) > 0.01)
            {
                text.Append(CultureInfo.InvariantCulture, $"| {c.Op} | {c.Name} | {moved:0.00} x | {products:0.00} x |\n");
            }
        }

        return text.ToString();
    }
}
