using Sluice.Interop;
using Sluice.Loading;
using Sluice.Models;

namespace Sluice.Tests.Host;

public class ModelConfigTests
{
    private static readonly Dictionary<string, (Action<SmallModel> Change, Type Error, string Says)> Wrong = new()
    {
        ["no architecture"] = (m => m.Remove("general.architecture"), typeof(ModelFormatException), "general.architecture: is missing"),
        ["an unknown architecture"] = (m => m.Set("general.architecture", GgufValue.Of("mamba")), typeof(UnsupportedModelException), "'mamba' is not supported; supported are llama, qwen2"),
        ["no layers"] = (m => m.Set("llama.block_count", GgufValue.Of(0u)), typeof(ModelFormatException), "is 0, and must be from 1"),
        ["layers that are not there"] = (m => m.Set("llama.block_count", GgufValue.Of(2u)), typeof(ModelFormatException), "tensor 'blk.1.attn_norm.weight': is missing"),
        ["a layer too many"] = (m => m.Tensor("blk.1.attn_norm.weight", 8), typeof(UnsupportedModelException), "blk.1.attn_norm.weight"),
        ["heads that do not divide"] = (m => m.Set("llama.attention.head_count", GgufValue.Of(3u)), typeof(ModelFormatException), "does not divide the embedding length 8"),
        ["KV heads that do not divide"] = (m => m.Set("llama.attention.head_count_kv", GgufValue.Of(4u)), typeof(ModelFormatException), "does not divide the 2 query heads"),
        ["a negative width"] = (m => m.Set("llama.embedding_length", GgufValue.Of(-8)), typeof(ModelFormatException), "is -8"),
        ["a width as text"] = (m => m.Set("llama.embedding_length", GgufValue.Of("8")), typeof(ModelFormatException), "an integer is expected"),
        ["another width"] = (m => m.Set("llama.embedding_length", GgufValue.Of(16u)), typeof(ModelFormatException), "token_embd.weight"),
        ["an epsilon that is not finite"] = (m => m.Set("llama.attention.layer_norm_rms_epsilon", GgufValue.Of(float.NaN)), typeof(ModelFormatException), "must be finite"),
        ["another feed-forward"] = (m => m.Set("llama.feed_forward_length", GgufValue.Of(11u)), typeof(ModelFormatException), "is 12 x 8, and 11 x 8 (rows x columns) is expected"),
        ["another vocabulary"] = (m => m.Set("llama.vocab_size", GgufValue.Of(10u)), typeof(ModelFormatException), "the embedding has 11 rows"),
        ["a rope of odd dimensions"] = (m => m.Set("llama.rope.dimension_count", GgufValue.Of(3u)), typeof(ModelFormatException), "must be even"),
        ["a rope wider than a head"] = (m => m.Set("llama.rope.dimension_count", GgufValue.Of(6u)), typeof(ModelFormatException), "from 2 to 4"),
        ["a rope base of 0"] = (m => m.Set("llama.rope.freq_base", GgufValue.Of(0f)), typeof(ModelFormatException), "must be from 1 up to 1e12"),
        ["a scaling of the future"] = (m => m.Set("llama.rope.scaling.type", GgufValue.Of("warp")), typeof(UnsupportedModelException), "'warp' is not supported"),
        ["factors of another length"] = (m => m.Tensor("rope_freqs.weight", 3), typeof(ModelFormatException), "2 F32 are expected"),
        ["experts"] = (m => m.Set("llama.expert_count", GgufValue.Of(8u)), typeof(UnsupportedModelException), "mixtures of experts"),
        ["a bias of a norm"] = (m => m.Tensor("blk.0.attn_norm.bias", 8), typeof(UnsupportedModelException), "attn_norm.bias"),
        ["a bias of another length"] = (m => m.Tensor("blk.0.attn_output.bias", 9), typeof(ModelFormatException), "is 9, and 8 is expected"),
        ["a negative window"] = (m => m.Set("llama.attention.sliding_window", GgufValue.Of(-1)), typeof(ModelFormatException), "is -1, and must be from 0"),
        ["longrope without factors"] = (m => m.Set("llama.rope.scaling.type", GgufValue.Of("longrope")), typeof(ModelFormatException), "rope_factors_short.weight"),
        ["half a bias"] = (m => m.Tensor("blk.0.attn_q.bias", 8), typeof(ModelFormatException), "tensor 'blk.0.attn_k.bias': is missing"),
        ["a matrix as a vector"] = (m => m.Tensor("blk.0.attn_q.weight", 64), typeof(ModelFormatException), "is 64, and 8 x 8 (rows x columns) is expected"),
    };

    public static TheoryData<string> WrongNames() => [.. Wrong.Keys];

    [Theory, MemberData(nameof(WrongNames))]
    public void What_is_wrong_is_named(string what)
    {
        using TempFolder folder = new();
        SmallModel model = SmallModel.Llama();
        Wrong[what].Change(model);
        model.Save(folder["m.gguf"]);
        Exception error = Assert.ThrowsAny<SluiceModelException>(() => ReadConfig(folder["m.gguf"]));
        Assert.IsType(Wrong[what].Error, error);
        Assert.Contains(Wrong[what].Says, error.Message);
    }

    [Fact]
    public void An_unsupported_type_is_named_with_its_tensor()
    {
        using TempFolder folder = new();
        SmallModel model = SmallModel.Llama();
        model.Remove("output_norm.weight");
        model.Tensors.Add(("output_norm.weight", (TensorType)24, [8])); // I8
        model.Save(folder["m.gguf"]);
        Assert.Contains("tensor 'output_norm.weight': is stored as I8", Assert.Throws<UnsupportedModelException>(() => ReadConfig(folder["m.gguf"])).Message);
    }

    [Fact]
    public void Models_of_both_families_are_read()
    {
        ModelConfig c = ReadConfig(SharedData.PathOf("models", "stories260K", "stories260K-f32.gguf"));
        Assert.Equal((5, 64, 8, 4, 8, 172, 512, 512), (c.LayerCount, c.HiddenSize, c.HeadCount, c.KvHeadCount, c.HeadDim, c.FeedForwardSize, c.VocabularySize, c.ContextLength));
        Assert.True(c.TiedEmbeddings);
        Assert.Equal(RopeKind.Interleaved, c.RopeKind);
        Assert.Equal([1f, 0.1f, 0.01f, 0.001f], c.Ropes[0].InverseFrequencies(0));

        ModelConfig q = ReadConfig(SharedData.PathOf("models", "tiny", "tiny-qwen2-q4_0.gguf"));
        Assert.True(q.Architecture.RequiresQkvBias);
        Assert.Equal((RopeKind.Half, 32), (q.RopeKind, q.Ropes[0].Dimensions));
    }

    [Fact]
    public void Rope_scalings_are_in_the_frequencies()
    {
        using TempFolder folder = new();
        SmallModel model = SmallModel.Llama();
        model.Set("llama.rope.scaling.type", GgufValue.Of("linear"));
        model.Set("llama.rope.scaling.factor", GgufValue.Of(4f));
        model.Save(folder["linear.gguf"]);
        Assert.Equal([0.25f, 0.0025f], ReadConfig(folder["linear.gguf"]).Ropes[0].InverseFrequencies(0));

        model.Set("llama.rope.scaling.type", GgufValue.Of("none"));
        model.Save(folder["none.gguf"]);
        Assert.Equal([1f, 0.01f], ReadConfig(folder["none.gguf"]).Ropes[0].InverseFrequencies(0));
    }

    private static ModelConfig ReadConfig(string path)
    {
        using ModelSource source = ModelSource.Open(path);
        return source.ReadConfig();
    }
}
