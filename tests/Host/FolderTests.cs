using System.Text;
using Sluice.Interop;
using Sluice.Models;

namespace Sluice.Tests.Host;

/// <summary>Hugging Face folders: what is wrong with them is named, whatever it is.</summary>
public class FolderTests
{
    private const string Q = "model.layers.0.self_attn.q_proj.";

    private static readonly Dictionary<string, (Action<SmallFolder> Change, string Says)> Wrong = new()
    {
        ["no architecture"] = (f => f.Set("architectures", null), "config.json: architectures: is missing"),
        ["an empty list of architectures"] = (f => f.Set("architectures", "[]"), "is empty"),
        ["an unknown architecture"] = (f => f.Set("architectures", "[\"MambaForCausalLM\"]"), "'MambaForCausalLM' is not supported; supported are LlamaForCausalLM"),
        ["an architecture that is a number"] = (f => f.Set("architectures", "[7]"), "architectures[0]: is 7, and a text is expected"),
        ["no width"] = (f => f.Set("hidden_size", null), "hidden_size: is missing"),
        ["a width of null"] = (f => f.Set("hidden_size", "null"), "hidden_size: is missing"),
        ["a width of 0"] = (f => f.Set("hidden_size", "0"), "is 0, and must be from 1"),
        ["a negative width"] = (f => f.Set("hidden_size", "-8"), "is -8, and must be from 1"),
        ["a width of 1e300"] = (f => f.Set("hidden_size", "1e300"), "an integer of 63 bits"),
        ["a width of 8.5"] = (f => f.Set("hidden_size", "8.5"), "hidden_size: is 8.5"),
        ["a width as text"] = (f => f.Set("hidden_size", "\"8\""), "an integer is expected"),
        ["another width"] = (f => f.Set("hidden_size", "16"), "is 11 x 8, and 11 x 16 (rows x columns) is expected"),
        ["a key twice"] = (f => f.Set("hidden_size", "8,\"hidden_size\":8"), "hidden_size"),
        ["deep nesting"] = (f => f.Set("x", new string('[', 200) + new string(']', 200)), "maximum configured depth"),
        ["heads that do not divide"] = (f => f.Set("num_attention_heads", "3"), "does not divide"),
        ["KV heads that do not divide"] = (f => f.Set("num_key_value_heads", "4"), "does not divide the 2 query heads"),
        ["a million layers"] = (f => f.Set("num_hidden_layers", "1000000"), "must be from 1 to 4,096"),
        ["a layer that is not there"] = (f => f.Set("num_hidden_layers", "2"), "tensor 'blk.1.attn_norm.weight': is missing"),
        ["another vocabulary"] = (f => f.Set("vocab_size", "12"), "has 11 rows, and vocab_size in config.json is 12"),
        ["an epsilon of -1"] = (f => f.Set("rms_norm_eps", "-1"), "must be from 0 to 1"),
        ["an activation of the future"] = (f => f.Set("hidden_act", "\"xielu\""), "'xielu' is not supported"),
        ["experts"] = (f => f.Set("num_local_experts", "8"), "mixtures of experts"),
        ["a rope base of 0"] = (f => f.Set("rope_theta", "0"), "rope_theta is 0"),
        ["a rope base of 1e-300"] = (f => f.Set("rope_theta", "1e-300"), "must be from 1 up to 1e12"),
        ["an attention factor of 1e30"] = (f => f.Set("rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":2,\"attention_factor\":1e30}"), "its attention_factor is 1E+30"),
        ["an original context of one token"] = (f => f.Set("rope_scaling", "{\"rope_type\":\"longrope\",\"short_factor\":[1,1],\"long_factor\":[1,1],\"original_max_position_embeddings\":1}"), "must be above 0.001 and below 1,000"),
        ["a factor of 1e-45"] = (f => f.Set("rope_scaling", "{\"rope_type\":\"linear\",\"factor\":1e-45}"), "must be above 1e-6"),
        ["a scaling of the future"] = (f => f.Set("rope_scaling", "{\"rope_type\":\"warp\"}"), "rope_scaling: its rope_type 'warp' is not supported"),
        ["a scaling that is a text"] = (f => f.Set("rope_scaling", "\"linear\""), "an object is expected"),
        ["a factor of 0"] = (f => f.Set("rope_scaling", "{\"type\":\"linear\",\"factor\":0}"), "rope_scaling.factor: is 0"),
        ["llama3 without its context"] = (f => f.Set("rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4}"), "original_max_position_embeddings: is missing"),
        ["llama3 upside down"] = (f => f.Set("rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":1,\"original_max_position_embeddings\":8}"), "must be above its low_freq_factor"),
        ["longrope of too few factors"] = (f => f.Set("rope_scaling", "{\"rope_type\":\"longrope\",\"short_factor\":[1],\"long_factor\":[1,1]}"), "has 1 factors for 2 pairs"),
        ["half a turning dimension"] = (f => f.Set("partial_rotary_factor", "0.25"), "an even number from 2 on"),
        ["layers of an unknown kind"] = (f => f.Set("layer_types", "[\"linear_attention\"]"), "'linear_attention' is not supported"),
        ["too many kinds of layers"] = (f => f.Set("layer_types", "[\"full_attention\",\"full_attention\"]"), "has 2 entries for 1 layers"),
        ["bitsandbytes"] = (f => f.Set("quantization_config", "{\"quant_method\":\"bitsandbytes\",\"bits\":4}"), "its quant_method is 'bitsandbytes'"),
        ["three bits"] = (f => f.Set("quantization_config", "{\"quant_method\":\"gptq\",\"bits\":3,\"group_size\":32}"), "is 3, and 4 is supported"),
        ["a group of 0"] = (f => f.Set("quantization_config", "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":0}"), "must be -1 (the whole row) or above 0"),
        ["marlin"] = (f => f.Set("quantization_config", "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":8,\"checkpoint_format\":\"marlin\"}"), "'marlin'"),
        ["packed without zeros"] = (f => Pack(f).Tensor(Q + "qzeros", null), "q_proj.qzeros': is missing"),
        ["scales of another group"] = (f => Pack(f).Tensor(Q + "scales", "F16", 2, 8), "is 2 x 8 F16, and 1 x 8 F16 is expected"),
        ["scales in f32"] = (f => Pack(f).Tensor(Q + "scales", "F32", 1, 8), "is 1 x 8 F32"),
        ["packed bytes"] = (f => Pack(f).Tensor(Q + "qweight", "U8", 1, 8), "a matrix of I32"),
        ["a group that does not divide"] = (f => Pack(f).Set("quantization_config", "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":3}"), "no multiple of the group of 3"),
        ["no embedding"] = (f => f.Tensor("model.embed_tokens.weight", null), "model.embed_tokens.weight': is missing"),
        ["a matrix as a vector"] = (f => f.Tensor(Q + "weight", "F32", 64), "is 64, and 8 x 8 (rows x columns) is expected"),
        ["a tensor of three dimensions"] = (f => f.Tensor(Q + "weight", "F32", 2, 4, 8), "a matrix or a vector is expected"),
        ["a tensor of integers"] = (f => f.Tensor(Q + "weight", "I8", 8, 8), "is stored as I8"),
        ["a tensor too many"] = (f => f.Tensor("model.layers.0.self_attn.gate.weight", "F32", 8), "has no place in the architecture 'llama'"),
        ["half a bias"] = (f => f.Tensor(Q + "bias", "F32", 8), "tensor 'blk.0.attn_k.bias': is missing"),
    };

    private static readonly Dictionary<string, (string Index, string Says)> WrongIndex = new()
    {
        ["no map"] = ("{}", "weight_map: is missing"),
        ["an empty map"] = ("""{"weight_map":{}}""", "is empty"),
        ["a list"] = ("[]", "an object is expected"),
        ["a map that is a list"] = ("""{"weight_map":[]}""", "an object is expected"),
        ["a file that is a number"] = ("""{"weight_map":{"a":1}}""", "a text is expected"),
        ["a file that is not there"] = ("""{"weight_map":{"a":"none.safetensors"}}""", "is the download complete?"),
        ["a tensor that is not there"] = ("""{"weight_map":{"a":"model-00001-of-00002.safetensors"}}""", "has no tensor of that name"),
        ["a path upwards"] = ("""{"weight_map":{"a":"../model.safetensors"}}""", "a file in the same folder"),
        ["a path from the root"] = ("""{"weight_map":{"a":"/etc/passwd"}}""", "a file in the same folder"),
        ["a Windows path"] = ("""{"weight_map":{"a":"..\\model.safetensors"}}""", "a file in the same folder"),
        ["the folder itself"] = ("""{"weight_map":{"a":".."}}""", "a file in the same folder"),
        ["a name with a zero"] = ("{\"weight_map\":{\"a\":\"a\\u0000.safetensors\"}}", "a file in the same folder"),
        ["a tensor twice"] = ("""{"weight_map":{"a":"x","a":"y"}}""", "a"),
        ["half a file"] = ("""{"weight_map":{"a":""", "not the JSON"),
    };

    public static TheoryData<string> WrongNames() => [.. Wrong.Keys];

    public static TheoryData<string> WrongIndexNames() => [.. WrongIndex.Keys];

    [Theory, MemberData(nameof(WrongNames))]
    public void What_is_wrong_is_named(string what)
    {
        using TempFolder folder = new();
        SmallFolder model = new();
        Wrong[what].Change(model);
        model.Save(folder["m"]);
        SluiceModelException error = Assert.ThrowsAny<SluiceModelException>(() => ReadConfig(folder["m"]));
        Assert.Contains(Wrong[what].Says, error.Message);
        Assert.StartsWith(folder["m"], error.Message);
    }

    [Theory, MemberData(nameof(WrongIndexNames))]
    public void What_is_wrong_with_an_index_is_named(string what)
    {
        using TempFolder folder = new();
        new SmallFolder().Save(folder["m"], sharded: true);
        File.WriteAllText(Path.Combine(folder["m"], "model.safetensors.index.json"), WrongIndex[what].Index);
        Assert.Contains(WrongIndex[what].Says, Assert.ThrowsAny<SluiceModelException>(() => ReadConfig(folder["m"])).Message);
    }

    [Fact]
    public void Folders_that_hold_no_model_are_named()
    {
        using TempFolder folder = new();
        Directory.CreateDirectory(folder["m"]);
        Assert.Contains("neither a config.json nor a .gguf", Assert.Throws<ModelFormatException>(() => ReadConfig(folder["m"])).Message);
        File.WriteAllText(Path.Combine(folder["m"], "config.json"), new SmallFolder().Config);
        Assert.Contains("holds no .safetensors", Assert.Throws<ModelFormatException>(() => ReadConfig(folder["m"])).Message);
        File.WriteAllText(Path.Combine(folder["m"], "pytorch_model.bin"), "");
        Assert.Contains("can run code", Assert.Throws<UnsupportedModelException>(() => ReadConfig(folder["m"])).Message);
        byte[] weights = SmallFolder.Weights(new SmallFolder().Tensors);
        File.WriteAllBytes(Path.Combine(folder["m"], "a.safetensors"), weights);
        Assert.Equal(8, ReadConfig(folder["m"]).HiddenSize);
        File.WriteAllBytes(Path.Combine(folder["m"], "b.safetensors"), weights);
        Assert.Contains("holds 2 .safetensors files", Assert.Throws<ModelFormatException>(() => ReadConfig(folder["m"])).Message);
    }

    [Fact]
    public void A_pipe_behind_a_link_is_refused_and_not_waited_for()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "needs POSIX pipes");
        using TempFolder folder = new();
        using (System.Diagnostics.Process make = System.Diagnostics.Process.Start("mkfifo", [folder["pipe"]]))
        {
            make.WaitForExit();
        }

        File.CreateSymbolicLink(folder["link.gguf"], folder["pipe"]);
        Assert.Contains("is 0 bytes", Assert.Throws<ModelFormatException>(() => ReadConfig(folder["link.gguf"])).Message);
        Assert.Contains("is 0 bytes", Assert.Throws<ModelFormatException>(() => ReadConfig(folder["pipe"])).Message);
    }

    [Fact]
    public void Packed_matrices_shards_and_a_bias_are_read()
    {
        using TempFolder folder = new();
        SmallFolder model = Pack(new SmallFolder());
        model.Tensor(Q + "bias", "F16", 8).Tensor(Q.Replace("q_proj", "k_proj", StringComparison.Ordinal) + "bias", "F16", 4).Tensor(Q.Replace("q_proj", "v_proj", StringComparison.Ordinal) + "bias", "F16", 4);
        model.Save(folder["m"], sharded: true);
        using ModelSource source = ModelSource.Open(folder["m"]);
        Assert.Equal(11, source.ReadConfig().VocabularySize);
        Assert.Equal((WeightEncoding.GPTQ4, 8), (source.Find("blk.0.attn_q.weight")!.Encoding, source.Find("blk.0.attn_q.weight")!.Group));
        Assert.Equal("Hugging Face folder, 2 files, GPTQ 4-bit, groups of 8", source.Format);
    }

    [Fact]
    public void Suggested_sampling_is_read_where_it_is_in_force()
    {
        using TempFolder folder = new();
        new SmallFolder().Save(folder["m"]);
        string path = Path.Combine(folder["m"], "generation_config.json");
        using ModelSource source = ModelSource.Open(folder["m"]);
        Assert.Null(source.ReadSampling());
        File.WriteAllText(path, """{"temperature":0.7,"top_k":20}""");
        Assert.Null(source.ReadSampling());
        File.WriteAllText(path, """{"do_sample":true,"temperature":0.7,"top_k":20,"top_p":0.8,"repetition_penalty":1.1}""");
        Assert.Equal((0.7f, 20, 0.8f, 1.1f, 0f), source.ReadSampling() is { } s ? (s.Temperature, s.TopK, s.TopP, s.RepetitionPenalty, s.MinP) : default);
        File.WriteAllText(path, """{"do_sample":true,"top_p":1.5}""");
        Assert.Contains("TopP is 1.5, and may be", Assert.Throws<ModelFormatException>(source.ReadSampling).Message);
    }

    [Fact]
    public void An_order_that_names_no_group_is_refused()
    {
        using TempFolder folder = new();
        Pack(new SmallFolder()).Save(folder["m"]);
        using ModelSource source = ModelSource.Open(folder["m"]);
        using Device device = Device.Open(new DeviceOptions(Backend.Cpu) { Threads = 1 });
        using ComputeStream stream = device.CreateStream();

        // The test's bytes are floats of 1, which as integers are far outside.
        Assert.Contains("g_idx[0] is 1,065,353,216, and there are 1 groups", Assert.Throws<ModelFormatException>(() => source.Find("blk.0.attn_q.weight")!.ToDevice(stream, default)).Message);
    }

    [Theory, InlineData("config.json"), InlineData("model.safetensors.index.json")]
    public void A_file_with_changed_bytes_loads_or_is_refused(string name)
    {
        using TempFolder folder = new();
        new SmallFolder().Save(folder["m"], sharded: name != "config.json");
        string path = Path.Combine(folder["m"], name);
        byte[] good = File.ReadAllBytes(path);
        int refused = Fuzz.Flip(good, good.Length, 11, bytes =>
        {
            Fuzz.Write(path, bytes);
            ReadConfig(folder["m"]);
        });
        Assert.InRange(refused, Fuzz.Rounds / 2, Fuzz.Rounds - 1);
    }

    [Theory, InlineData("config.json"), InlineData("model.safetensors.index.json")]
    public void A_file_cut_anywhere_is_refused(string name)
    {
        using TempFolder folder = new();
        new SmallFolder().Save(folder["m"], sharded: name != "config.json");
        string path = Path.Combine(folder["m"], name);
        byte[] good = File.ReadAllBytes(path);
        for (int length = 0; length < good.Length; length++)
        {
            Fuzz.Write(path, good.AsSpan(0, length));
            Assert.ThrowsAny<SluiceModelException>(() => ReadConfig(folder["m"]));
        }
    }

    private static SmallFolder Pack(SmallFolder folder) => folder
        .Set("quantization_config", "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":8}")
        .Tensor(Q + "weight", null).Tensor(Q + "qweight", "I32", 1, 8).Tensor(Q + "qzeros", "I32", 1, 1).Tensor(Q + "scales", "F16", 1, 8).Tensor(Q + "g_idx", "I32", 8);

    private static ModelConfig ReadConfig(string path)
    {
        using ModelSource source = ModelSource.Open(path);
        return source.ReadConfig();
    }
}
