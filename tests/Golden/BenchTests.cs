using System.Text.Json;
using Sluice.Decoding;
using Sluice.Interop;
using Sluice.Loading;
using Sluice.Tests.Host;

namespace Sluice.Tests.Golden;

/// <summary>The whole-model benchmark: what it reports of a step is what a step is made of. Times are looked at nowhere.</summary>
public class BenchTests
{
    // A step of the tiny shape: four layers, norms in front of the blocks.
    private static readonly Dictionary<string, int> Tiny = new()
    {
        ["copy"] = 1, ["embedding"] = 1, ["fused_qkv"] = 4, ["paged_attention"] = 4, ["linear"] = 8, ["gated_linear"] = 4, ["gather"] = 1, ["rms_norm"] = 1, ["head"] = 1, ["argmax"] = 1,
    };

    [Theory]
    [InlineData(Backend.Cpu, "1,3,8")]
    [InlineData(Backend.Simt, "1")]
    public async Task Bench_prints_a_line_a_batch_and_takes_a_step_apart(Backend backend, string batches)
    {
        Assert.SkipWhen(Device.Count(backend) == 0, $"no {backend} device is here");
        using TempFolder folder = new();
        RandomModel.Write(folder["tiny.gguf"], RandomModelShape.Find("tiny")!, TensorType.Q4_0);
        using Model model = await Model.LoadAsync(folder["tiny.gguf"], new ModelOptions { Device = backend }, cancellationToken: TestContext.Current.CancellationToken);
        string[] rounds = backend == Backend.Simt ? ["--prompt-tokens", "2", "--gen-tokens", "1", "--rounds", "1"] : ["--prompt-tokens", "20", "--gen-tokens", "4", "--rounds", "2"];
        (int code, string output, string error) = ConsoleProgram.Run(
            [], "", ["bench", folder["tiny.gguf"], "--device", Name(backend), "--threads", "2", "--batch", batches, "--batch", "2", "--profile", "--json", .. rounds]);
        Assert.True(code == 0, error);
        int[] expected = [.. batches.Split(',').Select(b => int.Parse(b, System.Globalization.CultureInfo.InvariantCulture)), 2];
        JsonElement[] lines = [.. output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => JsonDocument.Parse(line).RootElement)];
        Assert.Equal(expected, lines.Select(l => l.GetProperty("batch").GetInt32()));
        foreach (JsonElement line in lines)
        {
            Assert.True(line.GetProperty("read_peak_gb_per_s").GetDouble() > 0);
            Assert.Equal(100 * line.GetProperty("read_gb_per_s").GetDouble() / line.GetProperty("read_peak_gb_per_s").GetDouble(), line.GetProperty("read_percent").GetDouble(), 1e-6);
            Assert.True(line.GetProperty("step_us").GetDouble() > 0);
            Assert.Equal(backend == Backend.Simt, line.GetProperty("step_is_graph").GetBoolean());
            JsonElement[] kinds = [.. line.GetProperty("kinds").EnumerateArray()];
            Assert.Equal(Tiny, kinds.ToDictionary(k => k.GetProperty("kind").GetString()!, k => k.GetProperty("calls").GetInt32()));
            Assert.Equal(100, kinds.Sum(k => k.GetProperty("percent").GetDouble()), 0.5);
            Assert.Equal(line.GetProperty("kinds_us").GetDouble(), kinds.Sum(k => k.GetProperty("us").GetDouble()), 0.1);
            Assert.Equal((long)model.BytesPerToken, kinds.Where(k => k.GetProperty("kind").GetString() != "embedding").Sum(k => k.TryGetProperty("weight_bytes", out JsonElement bytes) ? bytes.GetInt64() : 0));
            // Rows of 256 values of Q4_0: those of the step's tokens, and not the table.
            Assert.Equal(line.GetProperty("batch").GetInt32() * 256 / 32 * 18, kinds.Single(k => k.GetProperty("kind").GetString() == "embedding").GetProperty("weight_bytes").GetInt64());
        }
    }

    [Fact]
    public void Bench_prints_a_row_a_batch_and_a_line_a_kind()
    {
        using TempFolder folder = new();
        RandomModel.Write(folder["tiny.gguf"], RandomModelShape.Find("tiny")!, TensorType.F16);
        string[] arguments = ["bench", folder["tiny.gguf"], "--device", "cpu", "--batch", "1,4", "--prompt-tokens", "8", "--gen-tokens", "2", "--rounds", "1"];
        (int code, string output, string error) = ConsoleProgram.Run([], "", arguments);
        Assert.True(code == 0, error);
        Assert.Equal(4, output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        (code, output, error) = ConsoleProgram.Run([], "", [.. arguments, "--profile"]);
        Assert.True(code == 0, error);
        Assert.Equal(4 + (2 * (Tiny.Count + 1)), output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        Assert.Contains("head", output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("0")]
    [InlineData("1,-4")]
    [InlineData("1,4097")]
    public void A_batch_out_of_range_is_one_line_and_code_1_before_anything_runs(string batches)
    {
        (int code, string output, string error) = ConsoleProgram.Run([], "", "bench", "no-such-file.gguf", "--batch", batches);
        Assert.Equal((1, ""), (code, output));
        Assert.Contains(batches.Split(',')[^1], error, StringComparison.Ordinal);
        Assert.Contains("--batch", error, StringComparison.Ordinal);
    }

    // Norms behind the blocks, and one matrix for embedding and head: other ops, and the same sums.
    [Fact]
    public async Task A_profile_knows_the_ops_of_other_families()
    {
        string folder = Path.Combine(AppContext.BaseDirectory, "data", "families", "gemma2");
        using Model model = await Model.LoadAsync(folder, new ModelOptions { Device = Backend.Cpu, Threads = 1 }, cancellationToken: TestContext.Current.CancellationToken);
        using ModelBenchmark benchmark = new(model, 4, 2, 3);
        Assert.Throws<InvalidOperationException>(() => benchmark.Profile(TestContext.Current.CancellationToken));
        benchmark.Run(0, TestContext.Current.CancellationToken);
        StepProfile profile = benchmark.Profile(TestContext.Current.CancellationToken);
        Dictionary<string, KindTime> kinds = profile.Kinds.ToDictionary(k => k.Kind);
        Assert.Equal((4, 4, 1), (kinds["linear"].Calls, kinds["rms_norm_add"].Calls, kinds["head"].Calls));
        Assert.Equal(profile.SumMicroseconds, kinds.Values.Sum(k => k.Microseconds), 1e-6);
        Assert.Equal(profile.Kinds, profile.Kinds.OrderByDescending(k => k.Microseconds));
        Assert.Equal((long)model.BytesPerToken, kinds.Values.Where(k => k.Kind != "embedding").Sum(k => k.WeightBytes));
        Assert.InRange(profile.Steps, 3, 25);
        Assert.False(profile.Graph);

        // A round after a profile is one as before it.
        BenchmarkRound round = benchmark.Run(1, TestContext.Current.CancellationToken);
        Assert.True(round.DecodeTokensPerSecond > 0);
        Assert.Equal(kinds.Keys.Order(), benchmark.Profile(TestContext.Current.CancellationToken).Kinds.Select(k => k.Kind).Order());
    }

    [Fact]
    public void Nobody_looks_on_unless_asked()
    {
        using Device device = Device.Open(Backend.Cpu);
        using ComputeStream stream = device.CreateStream();
        Tensor logits = stream.CreateTensor<float>(DType.F32, [1, 3, 2, 0], 1, 4), ids = stream.CreateTensor(DType.I32, 1);
        Assert.Null(stream.Observer);
        stream.ArgMax(logits, ids);
        long before = GC.GetAllocatedBytesForCurrentThread();
        stream.ArgMax(logits, ids);
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);

        Calls calls = new();
        stream.Observer = calls;
        stream.ArgMax(logits, ids);
        stream.Copy(ids.Buffer!, 0, logits.Buffer!, 0, sizeof(int));
        using ComputeEvent e = new(device);
        e.Record(stream);
        Assert.ThrowsAny<SluiceException>(() => stream.Gather(logits, ids, ids));
        stream.Observer = null;
        stream.ArgMax(logits, ids);
        Assert.Equal(["ArgMax", "Copy", "Gather"], calls.Methods);
        logits.Buffer!.Dispose();
        ids.Buffer!.Dispose();
    }

    private static string Name(Backend backend) => backend == Backend.Cpu ? "cpu" : "simt";

    private sealed class Calls : IStreamObserver
    {
        public List<string> Methods { get; } = [];

        public void Called(string method, ReadOnlySpan<System.Runtime.InteropServices.SafeHandle?> handles) => Methods.Add(method);
    }
}
