using Sluice.Loading;

namespace Sluice.Tests.Host;

public class GgufFileTests
{
    [Theory, InlineData(true), InlineData(false)]
    public void Open_reads_metadata_tensors_and_bytes(bool memoryMap)
    {
        string path = SharedData.PathOf("models", "stories260K", "stories260K-f32.gguf");
        using GgufFile file = GgufFile.Open(path, memoryMap);
        Assert.Equal(3, file.Version);
        Assert.Equal("llama", file.Metadata.GetText("general.architecture"));
        Assert.Equal(64, file.Metadata.GetInteger("llama.embedding_length"));
        Assert.Equal(1e-5, file.Metadata.GetNumber("llama.attention.layer_norm_rms_epsilon")!.Value, 1e-9);
        Assert.True(file.Metadata.GetBoolean("tokenizer.ggml.add_bos_token"));
        Assert.Equal(512, file.Metadata.GetStrings("tokenizer.ggml.tokens")!.Count);
        Assert.Null(file.Metadata.GetText("no.such.key"));
        Assert.True(file.TryGetTensor("blk.0.ffn_down.weight", out GgufTensor? tensor));
        Assert.Equal((172, 64, 172 * 64 * 4), (tensor.Columns, tensor.Rows, (int)tensor.ByteLength));

        byte[] whole = File.ReadAllBytes(path);
        byte[] read = new byte[tensor.ByteLength - 8];
        file.Read(tensor, 8, read);
        Assert.True(whole.AsSpan((int)tensor.Offset + 8, read.Length).SequenceEqual(read));
        Assert.Equal(memoryMap, file.Mapping is not null);
        if (file.Mapping is { } mapping)
        {
            Assert.Equal(whole[tensor.Offset + 5], mapping.Read<byte>((ulong)(file.MappedStart + tensor.Offset + 5)));
        }

        Assert.Throws<ArgumentOutOfRangeException>(() => file.Read(tensor, 16, new byte[tensor.ByteLength]));
        Assert.Throws<ArgumentOutOfRangeException>(() => file.Read(tensor, -1, new byte[1]));
    }

    [Fact]
    public void Open_accepts_version_2()
    {
        using TempFolder folder = new();
        new RawGguf(2, 1, 1).Text("general.architecture").U32(8).Text("llama").Tensor("t", 0, 0, 4).Data(16).Save(folder["v2.gguf"]);
        using GgufFile file = GgufFile.Open(folder["v2.gguf"]);
        Assert.Equal(2, file.Version);
        Assert.Equal(4, file.Tensors[0].ElementCount);
    }

    [Fact]
    public void Values_of_every_type_are_read()
    {
        using TempFolder folder = new();
        RawGguf raw = new(3, 0, 13);
        raw.Text("u8").U32(0).U8(200);
        raw.Text("i8").U32(1).U8(0xFF);
        raw.Text("u16").U32(2).Raw(0xFF, 0xFF);
        raw.Text("i16").U32(3).Raw(0xFE, 0xFF);
        raw.Text("u32").U32(4).U32(uint.MaxValue);
        raw.Text("i32").U32(5).U32(uint.MaxValue);
        raw.Text("f32").U32(6).U32(0x3FC00000);
        raw.Text("bool").U32(7).U8(1);
        raw.Text("text").U32(8).Text("Grüße");
        raw.Text("nested").U32(9).U32(9).U64(2).U32(4).U64(1).U32(7).U32(8).U64(2).Text("x").Text("");
        raw.Text("u64").U32(10).U64(ulong.MaxValue);
        raw.Text("i64").U32(11).U64(ulong.MaxValue);
        raw.Text("f64").U32(12).U64(0x3FF8000000000000);
        raw.Save(folder["all.gguf"]);
        using GgufFile file = GgufFile.Open(folder["all.gguf"]);
        GgufMetadata m = file.Metadata;
        Assert.Equal((200, -1, 65535, -2), (m.GetInteger("u8"), m.GetInteger("i8"), m.GetInteger("u16"), m.GetInteger("i16")));
        Assert.Equal((uint.MaxValue, -1, -1), (m.GetInteger("u32"), m.GetInteger("i32"), m.GetInteger("i64")));
        Assert.Equal(1.5, m.GetNumber("f32"));
        Assert.Equal(1.5, m.GetNumber("f64"));
        Assert.True(m.GetBoolean("bool"));
        Assert.Equal("Grüße", m.GetText("text"));
        Assert.True(m.TryGet("nested", out GgufValue? nested));
        Assert.Equal("array of 2 Array", nested.Describe());
        ModelFormatException wrong = Assert.Throws<ModelFormatException>(() => m.GetInteger("u64"));
        Assert.Equal("u64", wrong.Field);
        Assert.Contains("an integer is expected", wrong.Message);
    }

    [Fact]
    public void A_missing_file_and_a_folder_are_named()
    {
        using TempFolder folder = new();
        FileNotFoundException missing = Assert.Throws<FileNotFoundException>(() => GgufFile.Open(folder["none.gguf"]));
        Assert.Contains("none.gguf", missing.Message);
        Assert.Throws<UnsupportedModelException>(() => GgufFile.Open(Path.GetDirectoryName(folder["x"])!));
    }
}
