using System.Runtime.InteropServices;
using Sluice.Loading;

namespace Sluice.Tests.Host;

/// <summary>A valid model of a few kilobytes that tests change before they write it.</summary>
internal sealed class SmallModel
{
    public List<(string Key, GgufValue Value)> Metadata { get; } = [];

    public List<(string Name, TensorType Type, long[] Dimensions)> Tensors { get; } = [];

    /// <summary>One layer, hidden 8, two heads of 4, one KV head, feed-forward 12.</summary>
    public static SmallModel Llama(bool bytePair = false)
    {
        SmallModel model = new();
        model.Set("general.architecture", GgufValue.Of("llama"));
        model.Set("general.name", GgufValue.Of("small"));
        model.Set("llama.block_count", GgufValue.Of(1u));
        model.Set("llama.context_length", GgufValue.Of(64u));
        model.Set("llama.embedding_length", GgufValue.Of(8u));
        model.Set("llama.feed_forward_length", GgufValue.Of(12u));
        model.Set("llama.attention.head_count", GgufValue.Of(2u));
        model.Set("llama.attention.head_count_kv", GgufValue.Of(1u));
        model.Set("llama.attention.layer_norm_rms_epsilon", GgufValue.Of(1e-5f));
        model.Set("llama.rope.freq_base", GgufValue.Of(10_000f));
        model.Set("llama.rope.dimension_count", GgufValue.Of(4u));
        int tokens = bytePair ? model.AddBytePair() : model.AddSentencePiece();
        model.Tensor("token_embd.weight", 8, tokens);
        model.Tensor("blk.0.attn_norm.weight", 8);
        model.Tensor("blk.0.attn_q.weight", 8, 8);
        model.Tensor("blk.0.attn_k.weight", 8, 4);
        model.Tensor("blk.0.attn_v.weight", 8, 4);
        model.Tensor("blk.0.attn_output.weight", 8, 8);
        model.Tensor("blk.0.ffn_norm.weight", 8);
        model.Tensor("blk.0.ffn_gate.weight", 8, 12);
        model.Tensor("blk.0.ffn_up.weight", 8, 12);
        model.Tensor("blk.0.ffn_down.weight", 12, 8);
        model.Tensor("output_norm.weight", 8);
        return model;
    }

    public void Set(string key, GgufValue value)
    {
        int at = Metadata.FindIndex(entry => entry.Key == key);
        if (at < 0)
        {
            Metadata.Add((key, value));
        }
        else
        {
            Metadata[at] = (key, value);
        }
    }

    public void Remove(string name)
    {
        Metadata.RemoveAll(entry => entry.Key == name);
        Tensors.RemoveAll(tensor => tensor.Name == name);
    }

    public void Tensor(string name, params long[] dimensions)
    {
        int at = Tensors.FindIndex(tensor => tensor.Name == name);
        if (at < 0)
        {
            Tensors.Add((name, TensorType.F32, dimensions));
        }
        else
        {
            Tensors[at] = (name, TensorType.F32, dimensions);
        }
    }

    public void Save(string path)
    {
        using FileStream stream = File.Create(path);
        GgufWriter writer = new(stream);
        foreach ((string key, GgufValue value) in Metadata)
        {
            writer.AddMetadata(key, value);
        }

        long bytes = 0;
        foreach ((string name, TensorType type, long[] dimensions) in Tensors)
        {
            writer.AddTensor(name, type, dimensions);
            bytes += TensorTypes.Bytes(type, dimensions.Aggregate(1L, (a, b) => a * b));
        }

        float[] ones = new float[1024];
        Array.Fill(ones, 1f);
        ReadOnlySpan<byte> piece = MemoryMarshal.AsBytes(ones.AsSpan());
        for (; bytes > 0; bytes -= Math.Min(bytes, piece.Length))
        {
            writer.Write(piece[..(int)Math.Min(bytes, piece.Length)]);
        }

        writer.Finish();
    }

    private int AddSentencePiece()
    {
        string[] tokens = ["<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "b", "▁a", "ab", "▁ab", "<user>"];
        int[] kinds = [2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 4];
        float[] scores = [0, 0, 0, 0, -5, -6, -7, -2, -3, -1, 0];
        Set("tokenizer.ggml.model", GgufValue.Of("llama"));
        Set("tokenizer.ggml.tokens", GgufValue.OfArray(tokens));
        Set("tokenizer.ggml.scores", GgufValue.OfArray(scores));
        Set("tokenizer.ggml.token_type", GgufValue.OfArray(kinds));
        Set("tokenizer.ggml.bos_token_id", GgufValue.Of(1u));
        Set("tokenizer.ggml.eos_token_id", GgufValue.Of(2u));
        return tokens.Length;
    }

    private int AddBytePair()
    {
        string[] tokens = ["a", "b", "c", "Ġ", "ab", "Ġa", "abc", "Ġab", "<|end|>", "<user>"];
        Set("tokenizer.ggml.model", GgufValue.Of("gpt2"));
        Set("tokenizer.ggml.pre", GgufValue.Of("gpt-2"));
        Set("tokenizer.ggml.tokens", GgufValue.OfArray(tokens));
        Set("tokenizer.ggml.token_type", GgufValue.OfArray([1, 1, 1, 1, 1, 1, 1, 1, 3, 4]));
        Set("tokenizer.ggml.merges", GgufValue.OfArray(["a b", "Ġ a", "ab c", "Ġ ab"]));
        Set("tokenizer.ggml.bos_token_id", GgufValue.Of(8u));
        Set("tokenizer.ggml.eos_token_id", GgufValue.Of(8u));
        return tokens.Length;
    }
}
