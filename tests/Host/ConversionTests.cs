using Sluice.Conversion;
using Sluice.Interop;
using Sluice.Loading;
using Sluice.Models;
using Sluice.Tests.Golden;

namespace Sluice.Tests.Host;

/// <summary>A converted model computes what it did before, and what a conversion says it lost is what it lost.</summary>
public class ConversionTests
{
    public static TheoryData<string> Folders() => [.. Golden.Golden.Folders];

    [Theory, MemberData(nameof(Folders))]
    public async Task To_gguf_and_back_computes_the_same(string name)
    {
        using TempFolder folder = new();
        Golden.Golden g = Golden.Golden.LoadFolder(name);
        ConversionReport to;
        try
        {
            to = ModelConverter.Convert(g.ModelPath, folder["a.gguf"], null);
        }
        catch (UnsupportedModelException e) when (e.Message.Contains("GGUF has no key for Dynamic scaling", StringComparison.Ordinal))
        {
            return;
        }

        ConversionReport back = ModelConverter.Convert(folder["a.gguf"], folder["b"], null);
        using ModelSource source = ModelSource.Open(g.ModelPath);
        Assert.Equal(source.ReadTokenizer().Data.ComposesFirst, to.Notes.Any(n => n.Contains("NFC", StringComparison.Ordinal)));
        bool packed = source.Find("blk.0.attn_output.weight")!.IsGrouped;
        Assert.Equal(packed, to.RelativeError > 0);
        Assert.Equal(0, back.RelativeError);
        foreach (string path in new[] { folder["a.gguf"], folder["b"] })
        {
            using Model model = await Model.LoadAsync(path, new ModelOptions { Device = Backend.Reference, KvType = DType.F32 }, cancellationToken: TestContext.Current.CancellationToken);
            Assert.Equal(g.PromptIds, model.Tokenizer.Encode(g.Prompt));
            using Session session = new(model, g.Rows, 512, 512);
            float[] logits = FolderGoldenTests.Logits(session, g, model.Config.Ropes.Any(r => r.DependsOnLength));
            (double mean, double max, double deviation) = g.ErrorOf(logits);

            // A packed matrix became F16: rounded, but nowhere near another model.
            Assert.True(packed ? mean <= 2e-3 * deviation : max <= 1e-4 * deviation, $"{path}: mean error {mean:g3}, largest {max:g3}, deviation {deviation:g3}");
        }
    }

    [Theory]
    [InlineData("stories260K-f32"), InlineData("tiny-llama-q4_k_m"), InlineData("tiny-qwen2-q8_0")]
    public async Task A_gguf_file_becomes_a_folder_of_the_same_values(string name)
    {
        using TempFolder folder = new();
        Golden.Golden g = Golden.Golden.Load(name);
        Assert.Equal(0, ModelConverter.Convert(g.ModelPath, folder["m"], TensorType.F32).RelativeError);
        using Model model = await Model.LoadAsync(folder["m"], new ModelOptions { Device = Backend.Reference, KvType = DType.F32 }, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal(g.PromptIds, model.Tokenizer.Encode(g.Prompt));
        using Session session = new(model, g.Rows, 512, 512);
        (_, double max, double deviation) = g.ErrorOf(session.Logits(g.Tokens, 512));
        Assert.True(max <= 1e-4 * deviation, $"largest error {max:g3}, deviation {deviation:g3}");
    }

    [Theory, MemberData(nameof(Types))]
    public void What_is_lost_is_measured(TensorType type)
    {
        using TempFolder folder = new();
        string input = SharedData.PathOf("models", "tiny", "tiny-llama-f32.gguf");
        ConversionReport report = ModelConverter.Convert(input, folder["q.gguf"], type);

        // The relative error of a uniform grid of so many bits over a block's range, times a little.
        double bits = 8.0 * TensorTypes.BlockBytes(type) / TensorTypes.BlockValues(type);
        double expected = type switch { TensorType.F32 => 0, TensorType.F16 => 3e-4, TensorType.BF16 => 2.5e-3, _ => 2.2 * Math.Pow(2, -bits + 0.5) };
        Assert.InRange(report.RelativeError, expected / 50, expected);
        Assert.Equal(report.RelativeError == 0, report.LargestErrorTensor.Length == 0);
        using ModelSource source = ModelSource.Open(folder["q.gguf"]);
        source.ReadConfig();
        Assert.Equal(GgufModel.EncodingOf(type), source.Find("blk.0.ffn_down.weight")!.Encoding);
    }

    public static TheoryData<TensorType> Types() => [.. ModelConverter.Types];

    [Fact]
    public void What_cannot_be_written_is_named_and_nothing_is_left()
    {
        using TempFolder folder = new();
        string input = SharedData.PathOf("models", "stories260K", "stories260K-f32.gguf");
        Assert.Contains("Q4_0 cannot be written into a Hugging Face folder; F32, F16", Assert.Throws<ArgumentException>(() => ModelConverter.Convert(input, folder["m"], TensorType.Q4_0)).Message);
        Directory.CreateDirectory(folder["full"]);
        File.WriteAllText(Path.Combine(folder["full"], "notes.txt"), "mine");
        Assert.Contains("exists", Assert.Throws<IOException>(() => ModelConverter.Convert(input, folder["full"], null)).Message);
        using CancellationTokenSource stop = new();
        Assert.ThrowsAny<OperationCanceledException>(() => ModelConverter.Convert(input, folder["m"], TensorType.F16, new Stopper(stop), stop.Token));
        Assert.ThrowsAny<OperationCanceledException>(() => ModelConverter.Convert(input, folder["m.gguf"], TensorType.F16, new Stopper(stop), stop.Token));
        Assert.Equal([folder["full"]], Directory.EnumerateFileSystemEntries(Path.GetDirectoryName(folder["full"])!));
    }

    private sealed class Stopper(CancellationTokenSource stop) : IProgress<ByteProgress>
    {
        public void Report(ByteProgress value) => stop.Cancel();
    }
}
