using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Sluice.Loading;

namespace Sluice.Tests.Host;

/// <summary>A valid Hugging Face folder of a few kilobytes that tests change before they write it: one layer, hidden 8, two heads of 4, one KV head, feed-forward 12, 11 tokens.</summary>
internal sealed class SmallFolder
{
    private readonly Dictionary<string, string> _config = new(StringComparer.Ordinal)
    {
        ["architectures"] = """["LlamaForCausalLM"]""", ["model_type"] = "\"llama\"", ["hidden_size"] = "8", ["intermediate_size"] = "12", ["num_hidden_layers"] = "1",
        ["num_attention_heads"] = "2", ["num_key_value_heads"] = "1", ["vocab_size"] = "11", ["max_position_embeddings"] = "64", ["rms_norm_eps"] = "1e-05",
        ["rope_theta"] = "10000.0", ["tie_word_embeddings"] = "true", ["hidden_act"] = "\"silu\"",
    };

    public List<(string Name, string DType, long[] Shape)> Tensors { get; } =
    [
        ("model.embed_tokens.weight", "F32", [11, 8]), ("model.norm.weight", "F32", [8]),
        ("model.layers.0.input_layernorm.weight", "F32", [8]), ("model.layers.0.post_attention_layernorm.weight", "F32", [8]),
        ("model.layers.0.self_attn.q_proj.weight", "F32", [8, 8]), ("model.layers.0.self_attn.k_proj.weight", "F32", [4, 8]),
        ("model.layers.0.self_attn.v_proj.weight", "F32", [4, 8]), ("model.layers.0.self_attn.o_proj.weight", "F32", [8, 8]),
        ("model.layers.0.mlp.gate_proj.weight", "F32", [12, 8]), ("model.layers.0.mlp.up_proj.weight", "F32", [12, 8]), ("model.layers.0.mlp.down_proj.weight", "F32", [8, 12]),
    ];

    public string Config => $"{{{string.Join(",", _config.Select(e => $"\"{e.Key}\":{e.Value}"))}}}";

    /// <summary>Sets a key of config.json to a JSON text; null removes it.</summary>
    public SmallFolder Set(string key, string? json)
    {
        _config.Remove(key);
        if (json is not null)
        {
            _config[key] = json;
        }

        return this;
    }

    /// <summary>Replaces a tensor, or adds one; a null type removes it.</summary>
    public SmallFolder Tensor(string name, string? dtype, params long[] shape)
    {
        Tensors.RemoveAll(t => t.Name == name);
        if (dtype is not null)
        {
            Tensors.Add((name, dtype, shape));
        }

        return this;
    }

    /// <summary>Writes the folder: one file, or two shards and their index.</summary>
    public void Save(string folder, bool sharded = false)
    {
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, "config.json"), Config);
        if (!sharded)
        {
            File.WriteAllBytes(Path.Combine(folder, "model.safetensors"), Weights(Tensors));
            return;
        }

        File.WriteAllText(Path.Combine(folder, "model.safetensors.index.json"), Index(Tensors));
        File.WriteAllBytes(Path.Combine(folder, ShardName(0)), Weights(Tensors[..6]));
        File.WriteAllBytes(Path.Combine(folder, ShardName(1)), Weights(Tensors[6..]));
    }

    public static byte[] Weights(IReadOnlyList<(string Name, string DType, long[] Shape)> tensors)
    {
        using MemoryStream stream = new();
        SafetensorsWriter writer = new(stream);
        writer.AddMetadata("format", "pt");
        foreach ((string name, string dtype, long[] shape) in tensors)
        {
            writer.AddTensor(name, dtype, shape);
        }

        float[] ones = new float[256];
        Array.Fill(ones, 1f);
        foreach ((_, string dtype, long[] shape) in tensors)
        {
            long bytes = shape.Aggregate((long)(SafetensorsFile.BitsOf(dtype) / 8), (a, b) => a * b);
            writer.Write(MemoryMarshal.AsBytes(ones.AsSpan())[..(int)bytes]);
        }

        writer.Finish();
        return stream.ToArray();
    }

    /// <summary>A safetensors file of any header text and so many bytes of data.</summary>
    public static byte[] Raw(string header, int data, ulong? length = null)
    {
        byte[] text = Encoding.UTF8.GetBytes(header);
        return [.. BitConverter.GetBytes(length ?? (ulong)text.Length), .. text, .. new byte[data]];
    }

    private static string Index(IReadOnlyList<(string Name, string DType, long[] Shape)> tensors) =>
        $"{{\"metadata\":{{\"total_size\":1}},\"weight_map\":{{{string.Join(",", tensors.Select((t, i) => $"\"{t.Name}\":\"{ShardName(i < 6 ? 0 : 1)}\""))}}}}}";

    private static string ShardName(int index) => string.Create(CultureInfo.InvariantCulture, $"model-{index + 1:D5}-of-00002.safetensors");
}
