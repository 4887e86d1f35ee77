using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Tests.Kernels;

/// <summary>What the kernels move, on the executor: held to <see cref="Claims"/>, and written down in perf/COUNTS.md.</summary>
public sealed class CountsTests
{
    public static TheoryData<string> Cases() => [.. CountedCases.All.Select(c => c.ToString())];

    [Theory]
    [MemberData(nameof(Cases))]
    public void Op_of_a_real_size_keeps_its_claims_and_is_right(string name)
    {
        OpCase c = CountedCases.Get(name);
        using Device device = Open();
        using OpRunner runner = new(device, c);
        CountedRun run = CountedRun.Of(device, runner, c);
        Dictionary<string, HostTensor> found = runner.Read(), truth = KernelTests.RunOnce(Targets.Open("truth"), c), naive = KernelTests.RunOnce(Targets.Open("naive"), c);
        foreach (string output in c.Outputs.Keys)
        {
            Tolerance.AssertClose(output, found[output], truth[output], naive[output]);
        }

        Claims.Assert(run, sized: true);
    }

    // A claim that cannot fail is none: each kind, on a run of each op that was made worse.
    [Fact]
    public void Claims_see_what_got_worse()
    {
        using Device device = Open();
        foreach (OpCase c in CountedCases.All.GroupBy(c => c.Op).Select(g => g.First()))
        {
            using OpRunner runner = new(device, c);
            CountedRun run = CountedRun.Of(device, runner, c);
            Claim claim = Claims.Of(c);
            Counters n = run.Counters;
            Assert.Empty(claim.Broken(run, sized: true));
            Assert.Contains("launches", Only(n with { Launches = (ulong)claim.Launches(c) + 1 }), StringComparison.Ordinal);
            // Everything twice, in sectors; a third of each sector used.
            Assert.Contains("bytes of sectors", Only(n with { SectorsRead = n.SectorsRead * 2, SectorsWritten = n.SectorsWritten * 2, BytesRead = n.BytesRead * 2, BytesWritten = n.BytesWritten * 2 }), StringComparison.Ordinal);
            Assert.Contains("sector use", Only(n with { BytesRead = n.BytesRead / 3, BytesWritten = n.BytesWritten / 3 }), StringComparison.Ordinal);
            if (claim.Mma(c) is { } wanted)
            {
                Assert.Contains("tensor-core", Only(n with { Mma = wanted ? 0UL : 1 }), StringComparison.Ordinal);
            }

            if (claim.KvRead is not null)
            {
                Assert.Contains("KV pages", Only(n with { KvBytesRead = 2 * n.KvBytesRead }), StringComparison.Ordinal);
            }

            if (!double.IsPositiveInfinity(claim.Conflicts(c)))
            {
                Assert.Contains("shared memory", Only(n with { BankConflicts = (ulong)claim.Conflicts(c) + 1 }), StringComparison.Ordinal);
            }

            string Only(Counters worse)
            {
                string[] broken = [.. claim.Broken(run with { Counters = worse }, sized: true)];
                Assert.True(broken.Length == 1, $"{c}: {broken.Length} claims broke, and one should: {string.Join("; ", broken)}");
                return broken[0];
            }
        }
    }

    [Fact]
    public void Counts_are_the_same_in_every_run_and_by_kernel()
    {
        using Device device = Open();
        OpCase c = CountedCases.All.First(c => c.Op == "fused_qkv");
        using OpRunner runner = new(device, c);
        CountedRun first = CountedRun.Of(device, runner, c), second = CountedRun.Of(device, runner, c);
        Assert.Equal(first.Counters, second.Counters);
        Assert.Equal(first.Kernels, second.Kernels);
        Assert.Equal(first.Counters.BytesRead, (ulong)first.Kernels.Sum(k => (long)k.Counters.BytesRead));
        Assert.Equal(first.Counters.Launches, (ulong)first.Kernels.Sum(k => (long)k.Counters.Launches));
    }

    [Fact]
    public void Counts_table_is_written_where_asked()
    {
        if (Environment.GetEnvironmentVariable("SLUICE_COUNTS") is not { Length: > 0 } path)
        {
            Assert.Skip("SLUICE_COUNTS names no file: ./build.sh test --counts writes the table");
            return;
        }

        using Device device = Open(), invariant = Device.Open(new DeviceOptions(Backend.Simt) { Seed = 1, Invariant = true });
        File.WriteAllText(path, CountsTable.Write(device, invariant));
    }

    [Fact]
    public void Predicted_times_are_written_where_asked()
    {
        if (Environment.GetEnvironmentVariable("SLUICE_PREDICTED") is not { Length: > 0 } path || Environment.GetEnvironmentVariable("SLUICE_INSTRUCTIONS") is not { Length: > 0 } instructions)
        {
            Assert.Skip("SLUICE_PREDICTED and SLUICE_INSTRUCTIONS name no files: ./build.sh test --counts writes the table");
            return;
        }

        File.WriteAllText(path, PredictedTimes.Write(File.ReadAllText(instructions)) + PredictedAttention.Write());
    }

    // KERNEL() leaves each kernel's name in the library: what is launched anywhere is found here.
    [Fact]
    public void Every_kernel_has_a_representative()
    {
        using Device device = Open();
        string library = System.Text.Encoding.Latin1.GetString(File.ReadAllBytes(Path.Combine(AppContext.BaseDirectory, "libsluice.so")));
        string[] kernels = [.. System.Text.RegularExpressions.Regex.Matches(library, @"(?<![a-z0-9_])([a-z][a-z0-9_]*_kernel)(?:<[^\0]*>)?(?=\0)").Select(m => m.Groups[1].Value).Distinct().Order(StringComparer.Ordinal)];
        Assert.True(kernels.Length > 10, string.Join(", ", kernels));
        Assert.Equal(kernels, Representatives.Table.Select(t => t.Kernel).Order(StringComparer.Ordinal));
        foreach ((string kernel, string[] cases) in Representatives.Table)
        {
            foreach (OpCase c in cases.Select(KernelCases.Get))
            {
                using OpRunner runner = new(device, c);
                CountedRun run = CountedRun.Of(device, runner, c);
                Assert.True(run.Kernels.Any(k => k.Kernel == kernel), $"{c} runs {string.Join(", ", run.Kernels.Select(k => k.Kernel))}, and not {kernel}");
            }
        }
    }

    // Blocks share tiles of every height, and one so many that they join their parts by eights first.
    [Fact]
    public void Attention_cases_share_tiles_both_ways()
    {
        AttentionRoute[] routes = [.. KernelCases.All.Where(c => c.Op is "paged_attention" or "cascade_attention").Select(c => new AttentionRoute(c))];
        foreach (int rows in new[] { 16, 32, 64 })
        {
            Assert.Contains(routes, r => r.Rows == rows && r.Tiles * r.Heads < r.Blocks && r.Keys > 64 * r.Tiles);
        }

        Assert.Contains(routes, r => r.Blocks > 8 && r.Tiles == 1 && r.KvBytes > 0 && r.Heads == 1 && r.Keys > 64 * 8);
    }

    // A kernel's name does not tell its tile: the number of its products does.
    [Fact]
    public void Linear_cases_run_every_tensor_core_tile()
    {
        using Device device = Open();
        OpCase[] tiles = [.. KernelCases.All.Where(c => c.Op == "linear" && new LinearRoute(c).TensorCores).DistinctBy(Instantiation)];
        string[] missing = [.. from kernel in new[] { "few", "narrow", "wide" } from type in new[] { DType.F16, DType.BF16 } from operand in new[] { "dense", "four", "five", "six", "eight" }
                               where !tiles.Any(c => Instantiation(c) == (kernel, type, operand)) select $"{kernel} {type} {operand}"];
        Assert.True(missing.Length == 0, string.Join(", ", missing));
        foreach (OpCase c in tiles)
        {
            using OpRunner runner = new(device, c);
            Assert.Equal((ulong)new LinearRoute(c).Mma, CountedRun.Of(device, runner, c).Counters.Mma);
        }

        static (string Kernel, DType Products, string Operand) Instantiation(OpCase c)
        {
            LinearRoute route = new(c);
            return (route.Kernel, route.Products, route.Operand);
        }
    }

    internal static Device Open()
    {
        try
        {
            return Device.Open(new DeviceOptions(Backend.Simt) { Seed = 1 });
        }
        catch (SluiceException e) when (e.Status is Status.ErrNoDevice or Status.ErrUnsupported)
        {
            Assert.Skip($"simt: {e.Message}");
            throw;
        }
    }
}
