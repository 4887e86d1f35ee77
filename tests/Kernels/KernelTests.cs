using System.Collections.Concurrent;
using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Tests.Kernels;

/// <summary>Every case on every backend against the reference.</summary>
public sealed class KernelTests
{
    private static readonly ConcurrentDictionary<string, (Dictionary<string, HostTensor> Truth, Dictionary<string, HostTensor> Naive)> Expected = new();

    public static TheoryData<string, string> Rows()
    {
        TheoryData<string, string> rows = [];
        int turn = 0; // the invariant mode is attention's: a case in three
        foreach (OpCase c in KernelCases.All)
        {
            foreach (string target in Targets.Names.Where(target => Targets.Runs(target, c) && (!target.EndsWith("/invariant", StringComparison.Ordinal) || (c.Op is "paged_attention" or "cascade_attention" && ++turn % 3 == 0))))
            {
                rows.Add(c.ToString(), target);
            }
        }

        return rows;
    }

    [Theory]
    [MemberData(nameof(Rows))]
    public void Op_is_as_close_to_the_truth_as_naive_loops(string name, string target)
    {
        Device device = OpenOrSkip(target);
        OpCase c = KernelCases.Get(name);
        (Dictionary<string, HostTensor> truth, Dictionary<string, HostTensor> naive) = Expected.GetOrAdd(name, _ => (RunOnce(Targets.Open("truth"), c), RunOnce(Targets.Open("naive"), c)));
        try
        {
            Compare(device, target, c, truth, naive);
        }
        catch (SluiceException e) when (e.Status == Status.ErrDeviceLost)
        {
            Targets.Forget(target); // one kernel's failure is not the next one's
            throw;
        }
    }

    private static void Compare(Device device, string target, OpCase c, Dictionary<string, HostTensor> truth, Dictionary<string, HostTensor> naive)
    {
        using OpRunner runner = new(device, c);
        // One target counts as well: what was moved does not depend on the order of execution.
        CountedRun? counted = target == "simt/1" ? CountedRun.Of(device, runner, c) : null;
        if (counted is null)
        {
            runner.Run();
        }

        Dictionary<string, HostTensor> first = runner.Read();
        foreach (string output in c.Outputs.Keys)
        {
            Tolerance.AssertClose(output, first[output], truth[output], naive[output]);
            if (c.Op == "kv_append" || c.Op.EndsWith("_pages", StringComparison.Ordinal))
            {
                Assert.Equal(truth[output].Data, first[output].Data); // there is but one right rounding
            }
        }

        if (counted is not null)
        {
            Claims.Assert(counted, sized: false);
        }

        // The second run finds the workspace that the first left.
        if (!c.Outputs.Keys.Any(c.Inputs.ContainsKey))
        {
            runner.Run();
            Dictionary<string, HostTensor> second = runner.Read();
            Assert.All(c.Outputs.Keys, output => Assert.Equal(first[output].Data, second[output].Data));
        }
    }

    [Fact]
    public void Cases_can_be_written_for_the_native_driver()
    {
        using Host.TempFolder temporary = new();
        string folder = Environment.GetEnvironmentVariable("SLUICE_CASE_DIR") is { Length: > 0 } named ? named : temporary["cases"];
        Directory.CreateDirectory(folder);
        File.WriteAllLines(Path.Combine(folder, "ops.txt"), KernelCases.All.Select(c => c.Op).Distinct());
        int index = 0;
        // SLUICE_CASES=representatives: those that run every kernel once, for tools that are slow.
        foreach (OpCase c in Environment.GetEnvironmentVariable("SLUICE_CASES") == "representatives" ? Representatives.Cases : KernelCases.All)
        {
            string path = Path.Combine(folder, $"{index++:0000}-{c.Op}.case");
            c.Write(path);
            Assert.True(new FileInfo(path).Length > 64, path);
        }
    }

    internal static Device OpenOrSkip(string target)
    {
        try
        {
            return Targets.Open(target);
        }
        catch (SluiceException e) when (e.Status is Status.ErrNoDevice or Status.ErrUnsupported)
        {
            Assert.Skip($"{target}: {e.Message}");
            throw;
        }
    }

    internal static Dictionary<string, HostTensor> RunOnce(Device device, OpCase c)
    {
        lock (device)
        {
            using OpRunner runner = new(device, c);
            runner.Run();
            return runner.Read();
        }
    }
}
