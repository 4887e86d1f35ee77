using Sluice.Loading;

namespace Sluice.Tests.Host;

public class GgufWriterTests
{
    public static TheoryData<string> Models() =>
    [
        "stories260K/stories260K-f32", "stories260K/stories260K-f16", "stories260K/stories260K-bf16", "stories260K/stories260K-q4_k_m",
        "tiny/tiny-llama-q4_0", "tiny/tiny-llama-q4_1", "tiny/tiny-llama-q5_0", "tiny/tiny-llama-q5_k_m", "tiny/tiny-llama-q6_k",
        "tiny/tiny-llama-q8_0", "tiny/tiny-qwen2-q4_0", "tiny/tiny-qwen2-q4_k_m",
    ];

    [Theory, MemberData(nameof(Models))]
    public void A_file_written_back_is_the_same_to_the_byte(string model)
    {
        string path = SharedData.PathOf("models", model + ".gguf");
        using GgufFile file = GgufFile.Open(path);
        using MemoryStream written = new();
        GgufWriter writer = new(written);
        foreach ((string key, GgufValue value) in file.Metadata.Entries)
        {
            writer.AddMetadata(key, value);
        }

        foreach (GgufTensor tensor in file.Tensors)
        {
            writer.AddTensor(tensor.Name, tensor.Type, tensor.Dimensions.AsSpan());
        }

        foreach (GgufTensor tensor in file.Tensors)
        {
            byte[] bytes = new byte[tensor.ByteLength];
            file.Read(tensor, 0, bytes);
            writer.Write(bytes);
        }

        writer.Finish();
        Assert.True(File.ReadAllBytes(path).AsSpan().SequenceEqual(written.ToArray()));
    }

    [Fact]
    public void An_alignment_of_its_own_is_kept()
    {
        using TempFolder folder = new();
        using (FileStream stream = File.Create(folder["a.gguf"]))
        {
            GgufWriter writer = new(stream);
            writer.AddMetadata("general.alignment", GgufValue.Of(128u));
            writer.AddTensor("a", TensorType.F32, 3);
            writer.AddTensor("b", TensorType.F32, 2, 2);
            writer.Write(new byte[12 + 16]);
            writer.Finish();
        }

        using GgufFile file = GgufFile.Open(folder["a.gguf"]);
        Assert.Equal(128, file.Alignment);
        Assert.Equal(0, file.DataStart % 128);
        Assert.Equal(file.DataStart + 128, file.Tensors[1].Offset);
        Assert.Equal(file.DataStart + 256, file.Length);
    }

    [Fact]
    public void Misuse_is_refused()
    {
        GgufWriter writer = new(Stream.Null);
        writer.AddMetadata("k", GgufValue.Of(1u));
        Assert.Throws<ArgumentException>(() => writer.AddMetadata("k", GgufValue.Of(1u)));
        Assert.Throws<ArgumentException>(() => writer.AddMetadata("general.alignment", GgufValue.Of(3u)));
        writer.AddTensor("t", TensorType.F32, 4);
        Assert.Throws<ArgumentException>(() => writer.AddTensor("t", TensorType.F32, 4));
        Assert.Throws<ArgumentException>(() => writer.AddTensor("u", TensorType.Q4_0, 33));
        Assert.Throws<ArgumentException>(() => writer.AddTensor(new string('x', 65), TensorType.F32, 4));
        writer.Write(new byte[8]);
        Assert.Throws<InvalidOperationException>(() => writer.AddTensor("v", TensorType.F32, 4));
        Assert.Throws<InvalidOperationException>(writer.Finish);
        writer.Write(new byte[8]);
        Assert.Throws<InvalidOperationException>(() => writer.Write(new byte[1]));
        writer.Finish();
    }
}
