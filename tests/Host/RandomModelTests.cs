using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Sluice.Loading;
using Sluice.Models;
using Sluice.Tokenization;

namespace Sluice.Tests.Host;

public class RandomModelTests
{
    private static readonly RandomModelShape Tiny = RandomModelShape.Find("tiny")!;

    [Theory, InlineData(TensorType.F16), InlineData(TensorType.BF16), InlineData(TensorType.Q8_0), InlineData(TensorType.Q4_0), InlineData(TensorType.Q4_K)]
    public void A_random_model_loads_and_its_weights_are_sane(TensorType type)
    {
        using TempFolder folder = new();
        RandomModel.Write(folder["r.gguf"], Tiny, type, seed: 7);
        using GgufFile file = GgufFile.Open(folder["r.gguf"]);
        using ModelSource source = ModelSource.Open(folder["r.gguf"]);
        ModelConfig config = source.ReadConfig();
        Assert.Equal((4, 256, 8, 4, 512), (config.LayerCount, config.HiddenSize, config.HeadCount, config.KvHeadCount, config.VocabularySize));
        Assert.True(file.TryGetTensor("blk.1.ffn_norm.weight", out GgufTensor? norm));
        float[] values = new float[256];
        file.Read(norm, 0, MemoryMarshal.AsBytes(values.AsSpan()));
        Assert.InRange(values.Average(), 0.97f, 1.03f);
        Assert.InRange(MathF.Sqrt(values.Average(v => (v - 1) * (v - 1))), 0.04f, 0.06f);
        Assert.True(file.TryGetTensor("output.weight", out GgufTensor? output));
        Assert.Equal(type switch { TensorType.Q4_0 => TensorType.Q8_0, TensorType.Q4_K => TensorType.Q6_K, _ => type }, output.Type);
    }

    [Fact]
    public void Rows_of_no_whole_blocks_are_refused()
    {
        using TempFolder folder = new();
        ArgumentException wrong = Assert.Throws<ArgumentException>(() => RandomModel.Write(folder["r.gguf"], RandomModelShape.Find("qwen2.5-0.5b")!, TensorType.Q4_K));
        Assert.Contains("896", wrong.Message, StringComparison.Ordinal);
        Assert.False(File.Exists(folder["r.gguf"]));
    }

    [Fact]
    public void The_same_seed_gives_the_same_bytes()
    {
        byte[] Make(ulong seed)
        {
            using MemoryStream stream = new();
            RandomModel.Write(stream, Tiny, TensorType.Q4_0, seed, false, null, default);
            return SHA256.HashData(stream.ToArray());
        }

        Assert.Equal(Make(1), Make(1));
        Assert.NotEqual(Make(1), Make(2));
    }

    // Only the header is written; the data behind it is a hole in the file.
    private static GgufFile Header(string path, RandomModelShape shape, TensorType type, bool mixture = false)
    {
        using (HeaderStream header = new(path))
        {
            Assert.Throws<OperationCanceledException>(() => RandomModel.Write(header, shape, type, 0, mixture, header, header.Stop.Token));
            header.File.SetLength(header.Total + (1 << 24));
        }

        return GgufFile.Open(path);
    }

    [Theory, InlineData("qwen2.5-0.5b", 494_032_768L), InlineData("llama-3.2-1b", 1_235_814_432L), InlineData("llama-3-8b", 8_030_261_248L)]
    public void Shapes_have_the_true_number_of_weights(string name, long weights)
    {
        using TempFolder folder = new();
        RandomModelShape shape = RandomModelShape.Find(name)!;
        using GgufFile file = Header(folder["h.gguf"], shape, TensorType.Q4_0);
        Assert.Equal(weights, file.Tensors.Sum(t => t.ElementCount));
        Tokenizer tokenizer = Tokenizer.FromGguf(file);
        Assert.Equal(shape.Vocabulary, tokenizer.VocabularySize);
        const string Text = "Hello world, the quick brown fox: 12345 — Ünïcödé!\n\n";
        Assert.Equal(Text, tokenizer.Decode(tokenizer.Encode(Text)));
        Assert.True(tokenizer.IsEndOfGeneration(tokenizer.EosId!.Value));
        Assert.Equal(name.StartsWith("qwen", StringComparison.Ordinal) ? "<|im_end|>" : "<|end_of_text|>", tokenizer.NameOf(tokenizer.EosId!.Value));
    }

    // Qwen's rows of 896 values hold no blocks of 256; its feed-forward's rows of 4,864 do.
    [Theory]
    [InlineData("qwen2.5-0.5b", 24, TensorType.Q5_0, TensorType.Q8_0)]
    [InlineData("llama-3.2-1b", 16, TensorType.Q4_K, TensorType.Q6_K)]
    public void A_mixture_keeps_finer_what_quantisers_keep_finer(string name, int layers, TensorType coarse, TensorType fine)
    {
        using TempFolder folder = new();
        using GgufFile file = Header(folder["h.gguf"], RandomModelShape.Find(name)!, TensorType.Q4_K, mixture: true);
        Dictionary<string, TensorType> types = file.Tensors.ToDictionary(t => t.Name, t => t.Type);
        Assert.Equal(fine, types["token_embd.weight"]);
        int[] finer = layers == 24 ? [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23] : [0, 1, 4, 7, 10, 13, 14, 15];
        for (int layer = 0; layer < layers; layer++)
        {
            Assert.Equal(finer.Contains(layer) ? fine : coarse, types[$"blk.{layer}.attn_v.weight"]);
            Assert.Equal(finer.Contains(layer) ? TensorType.Q6_K : TensorType.Q4_K, types[$"blk.{layer}.ffn_down.weight"]);
            Assert.All(new[] { "attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up" }, matrix => Assert.Equal(coarse, types[$"blk.{layer}.{matrix}.weight"]));
            Assert.Equal(TensorType.F32, types[$"blk.{layer}.ffn_norm.weight"]);
        }

        Assert.Throws<ArgumentException>(() => RandomModel.Write(folder["c.gguf"], Tiny, TensorType.Q4_0, mixture: true));
    }

    [Fact]
    public void Llama3_factors_stretch_slow_frequencies_only()
    {
        float[] factors = RandomModelShape.Find("llama-3.2-1b")!.RopeFactors();
        Assert.Equal(32, factors.Length);
        Assert.Equal(1, factors[0]);
        Assert.Equal(32, factors[31]);
        Assert.Contains(factors, f => f is > 1.01f and < 31.9f);
        Assert.Equal(factors.Order(), factors);
    }

    [Fact]
    public void Cancellation_removes_the_unfinished_file()
    {
        using TempFolder folder = new();
        Assert.Throws<OperationCanceledException>(() => RandomModel.Write(folder["c.gguf"], Tiny, TensorType.F16, cancellation: new CancellationToken(true)));
        Assert.Empty(Directory.GetFiles(Path.GetDirectoryName(folder["c.gguf"])!));
        Assert.ThrowsAny<IOException>(() => RandomModel.Write(folder["no/such/folder.gguf"], Tiny, TensorType.F16));
        Assert.Throws<ArgumentException>(() => RandomModel.Write(folder["c.gguf"], Tiny, TensorType.Q6_K));
    }

    /// <summary>Keeps what comes before the first report of progress, and cancels at it.</summary>
    private sealed class HeaderStream(string path) : Stream, IProgress<ByteProgress>
    {
        public FileStream File { get; } = System.IO.File.Create(path);

        public CancellationTokenSource Stop { get; } = new();

        public long Total { get; private set; }

        public override bool CanRead => false;

        public override bool CanSeek => false;

        public override bool CanWrite => true;

        public override long Length => File.Length;

        public override long Position { get => File.Position; set => throw new NotSupportedException(); }

        public void Report(ByteProgress value)
        {
            Total = value.Total;
            Stop.Cancel();
        }

        public override void Flush() => File.Flush();

        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => File.Write(buffer, offset, count);

        public override void Write(ReadOnlySpan<byte> buffer) => File.Write(buffer);

        protected override void Dispose(bool disposing)
        {
            File.Dispose();
            Stop.Dispose();
            base.Dispose(disposing);
        }
    }
}
