using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Tests.Kernels;

/// <summary>The grid on a GPU, with the tolerance of all cases: the references run on all cores beside it.</summary>
public sealed class GridTests
{
    // SLUICE_GRID=1; SLUICE_OPS and SLUICE_TARGETS narrow it; after SLUICE_GRID_SECONDS no case is begun any more.
    // SLUICE_GRID_DONE names a file of the cases that were right: they are not run again.
    [Fact]
    public void Grid_is_as_close_to_the_truth_as_naive_loops()
    {
        if (Environment.GetEnvironmentVariable("SLUICE_GRID") != "1")
        {
            Assert.Skip("the grid is for a GPU and many cores: SLUICE_GRID=1 runs it");
        }

        string target = Environment.GetEnvironmentVariable("SLUICE_TARGETS") is { Length: > 0 } named ? named.Split(',')[0] : "cuda";
        string[] ops = Environment.GetEnvironmentVariable("SLUICE_OPS") is { Length: > 0 } some ? some.Split(',') : [];
        double seconds = double.Parse(Environment.GetEnvironmentVariable("SLUICE_GRID_SECONDS") ?? "1e9", CultureInfo.InvariantCulture);
        string? memory = Environment.GetEnvironmentVariable("SLUICE_GRID_DONE");
        HashSet<string> done = memory is not null && File.Exists(memory) ? [.. File.ReadAllLines(memory)] : [];
        GridCase[] cases = [.. GridCases.All().Where(c => (ops.Length == 0 || ops.Contains(c.Op)) && !done.Contains(c.ToString())).OrderBy(c => c.Cost)];
        (int right, int left, string[] wrong) = Run(cases, KernelTests.OpenOrSkip(target), seconds, memory);
        TestContext.Current.SendDiagnosticMessage($"grid on {target}: {right} right, {wrong.Length} wrong, {left} not begun, {done.Count} before");
        Console.WriteLine($"grid on {target}: {right} right, {wrong.Length} wrong, {left} not begun, {done.Count} before");
        Assert.True(wrong.Length == 0, string.Join('\n', wrong.Take(40)));
    }

    [Fact]
    public void Grid_is_large_and_runs_here_in_small()
    {
        GridCase[] all = [.. GridCases.All()];
        Assert.Equal(all.Length, all.Select(c => c.ToString()).Distinct().Count());
        Assert.True(all.Length > 800, $"{all.Length} cases");
        GridCase[] small = [.. all.GroupBy(c => (c.Op, c.SampleRows.Length > 0)).SelectMany(g => g.OrderBy(c => c.Cost).Take(2)).Where(c => c.Cost < 2e8)];
        Assert.True(small.Length >= 6, $"{small.Length} small cases");
        (int right, int left, string[] wrong) = Run(small, Targets.Open("cpu/portable"), 1e9, null);
        Assert.True(wrong.Length == 0, string.Join('\n', wrong));
        Assert.Equal((small.Length, 0), (right, left));

        // The grid sees a wrong result in a sampled row.
        GridCase sampled = all.Where(c => c.SampleRows.Length > 0 && c.Op == "linear").MinBy(c => c.Cost)!;
        OpCase broken = sampled.Make();
        broken.Inputs["x"].Data.AsSpan(broken.Inputs["x"].Data.Length - 64).Clear();
        (_, _, wrong) = Run([sampled], Targets.Open("cpu/portable"), 1e9, null, broken);
        Assert.Single(wrong);
    }

    // What each case needs of the reference is computed side by side; the device takes one at a time.
    private static (int Right, int Left, string[] Wrong) Run(GridCase[] cases, Device device, double seconds, string? memory, OpCase? instead = null)
    {
        Stopwatch watch = Stopwatch.StartNew();
        ConcurrentQueue<string> wrong = [];
        int right = 0, left = 0;
        Lock one = new(), file = new();
        Parallel.ForEach(Partitioner.Create(cases, EnumerablePartitionerOptions.NoBuffering), new ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount }, grid =>
        {
            if (watch.Elapsed.TotalSeconds > seconds)
            {
                Interlocked.Increment(ref left);
                return;
            }

            try
            {
                OpCase c = grid.Make(), checkedCase = grid.SampleRows.Length > 0 ? GridCase.Sampled(c, grid.SampleRows) : c;
                using Device truth = Device.Open(Backend.Reference), naive = Device.Open(new DeviceOptions(Backend.Reference) { Rounded = true });
                Dictionary<string, HostTensor> exact = KernelTests.RunOnce(truth, checkedCase), rounded = KernelTests.RunOnce(naive, checkedCase), found;
                lock (one)
                {
                    found = KernelTests.RunOnce(device, instead ?? c);
                }

                foreach (string output in c.Outputs.Keys)
                {
                    Tolerance.AssertClose(output, grid.SampleRows.Length > 0 ? GridCase.Rows(found[output], grid.SampleRows) : found[output], exact[output], rounded[output]);
                }

                Interlocked.Increment(ref right);
                if (memory is not null)
                {
                    lock (file)
                    {
                        File.AppendAllText(memory, $"{grid}\n");
                    }
                }
            }
            catch (Exception e) when (e is Xunit.Sdk.XunitException or SluiceException)
            {
                wrong.Enqueue($"{grid}: {e.Message}");
            }
        });
        return (right, left, [.. wrong]);
    }
}
