using System.Globalization;
using System.Text;
using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>The first part of perf/COUNTS.md: what each counted case moves, and by which kernels.</summary>
public static class CountsTable
{
    public static string Write(Device device)
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

        return text.ToString();
    }
}
